"""Blocks in the database, who asked for a domain, and what is marked and goes: on SQLite and on a real Postgres."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from agents.core.types import marked
from agents.store import Store
from agents.store.feedback.blocks import BlockStore
from agents.store.feedback.marked import forget_marked
from tests.enforcement.blocks import block
from tests.support.verdicts import START, incident, verdicts

pytestmark = pytest.mark.contract


def test_a_block_is_kept_as_it_was_last(store: Store) -> None:
    blocks, first = BlockStore(store), block("evil.example", began_at=START, until=START + 60)
    later = block("later.example", "192.0.2.7", began_at=START + 10, until=START + 60, dry=True)
    blocks.write([first, later], {first.block_id: 3})
    ended = replace(first, ended_at=START + 30, ended_by="ann")
    blocks.write([ended, later], {first.block_id: 7})
    assert blocks.history() == [(later, 0), (ended, 7)]
    assert blocks.history(limit=1) == [(later, 0)]
    blocks.write([], {})


def test_clients_of_a_domain_are_counted_once_live_and_of_late(store: Store) -> None:
    blocks = BlockStore(store)
    names = ["a.popular.net", "b.popular.net", "c.popular.net", "d.other.net"]
    store.write(verdicts(names, client=["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"]), "live")
    store.write(marked(verdicts(["x.popular.net"], client="192.0.2.9"), "a capture", time.time()), "replayed")
    assert blocks.clients_since("popular.net", START) == 2
    assert blocks.clients_since("popular.net", START + 3) == 0
    assert blocks.clients_since("unknown.net", START) == 0


def test_what_is_marked_goes_and_nothing_else(store: Store) -> None:
    now = time.time()
    store.write(verdicts(["a.live.net"], incidents=(incident(domain="live.net"),)), "live")
    for mark in ("drill", "a capture"):
        store.write(marked(verdicts(["a.marked.net"], incidents=(incident(domain="marked.net"),)), mark, now), mark)
    assert forget_marked(store, "drill") == 2 and forget_marked(store, "drill") == 0
    assert {one.domain for one in store.incidents(limit=9)} == {"live.net", "marked.net"}
    assert sorted(row["source"] or "" for row in store.queries(limit=9)[0]) == ["", "a capture"]
