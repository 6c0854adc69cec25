"""Of two detectors that take themselves for a slot's, the store and the spool before it believe the newer one alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agents.core.errors import FencedError, StoreError
from agents.core.types import Verdicts
from agents.learning.loop.flow_hours import SCHEMA
from agents.store import SpoolingSink
from agents.store.codec import decode, encode
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.sql import Store
from tests.support.flow_hours import flow_hours
from tests.support.listening import wait_until
from tests.support.verdicts import incident, verdicts


def fenced(token: int, name: str, slot: str = "7") -> Verdicts:
    return replace(verdicts([name]), fence=(slot, token))


def test_an_older_token_is_refused_with_all_of_its_transaction(store: Store) -> None:
    store.migrate()
    assert store.write(fenced(5, "a.test"), "one") == 1
    assert store.write(fenced(5, "b.test"), "two") == 1
    assert store.write(fenced(9, "c.test"), "three") == 1
    with pytest.raises(FencedError, match="cannot write for slot 7"):
        store.write_all(
            [(fenced(9, "d.test"), "four"), (fenced(5, "e.test", "8"), "five"), (fenced(5, "f.test"), "six")]
        )
    assert store.write(fenced(1, "g.test", "8"), "seven") == 1  # nothing of that transaction is there
    stored = {row["qname"] for row in store.queries(limit=10)[0]}
    assert stored == {"a.test", "b.test", "c.test", "g.test"}


def test_flow_hours_of_an_older_token_are_refused_and_those_that_are_there_stay(store: Store) -> None:
    store.migrate()
    hours = FlowHourStore(store)
    hours.add(flow_hours(["a.test"], queries=2), ("7", 9))
    hours.add(flow_hours(["a.test", "b.test"], queries=3), ("7", 9))
    with pytest.raises(FencedError, match="cannot write for slot 7"):
        hours.add(flow_hours(["c.test"], queries=1), ("7", 8))
    found = hours.read(SCHEMA)
    assert (list(found.domain), found.numbers[:, 0].tolist()) == (["a.test", "b.test"], [2.0, 3.0])


def test_a_spool_keeps_fences_and_leaves_to_the_newer_one_what_is_refused(tmp_path: Path, store: Store) -> None:
    class Away:
        """A store that is away at first."""

        away = True

        def write(self, batch: Verdicts, batch_id: str) -> int:
            return self.write_all([(batch, batch_id)])

        def write_all(self, batches: Sequence[tuple[Verdicts, str]]) -> int:
            if self.away:
                raise StoreError("cannot write a batch: connection refused")
            return store.write_all(batches)

        def rows_of_batch(self, batch_id: str, first: float, last: float) -> int:
            return store.rows_of_batch(batch_id, first, last)

    store.migrate()
    away = Away()
    sink = SpoolingSink(away, tmp_path / "spool", 1 << 20, retry_s=0.05, parts=lambda one: (one,))
    sink.accept(replace(fenced(5, "old.test"), incidents=(incident(),)))
    sink.accept(fenced(5, "own.test", "8"))
    store.write(fenced(6, "new.test"), "newer")
    away.away = False
    wait_until(lambda: sink.waiting == 0)
    sink.accept(fenced(5, "late.test"))
    sink.close()
    assert sink.fenced == {"7"} and sink.counts.damaged == sink.counts.lost == 0
    assert {row["qname"] for row in store.queries(limit=10)[0]} == {"own.test", "new.test"}
    assert store.open_incidents() == []
    assert list((tmp_path / "spool").glob("*.bad")) == []


def test_verdicts_in_a_file_have_their_fence() -> None:
    assert decode(encode(fenced(5, "a.test"))).fence == ("7", 5)
    assert decode(encode(verdicts(["a.test"]))).fence is None
