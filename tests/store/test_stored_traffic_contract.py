"""Stored queries as batches again, on SQLite and on a real Postgres."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from agents.core.types import QueryBatch, marked
from agents.store import Store
from agents.store import stored_traffic as module
from agents.store.stored_traffic import stored_traffic
from tests.support.verdicts import DAY_S, START, incident, verdicts

pytestmark = pytest.mark.contract


def write(store: Store, ts: list[float], clients: list[str], batch_id: str) -> QueryBatch:
    names = [f"h{at}.example.com" for at in range(len(ts))]
    found = verdicts(names, ts=ts, client=clients)
    store.write(found, batch_id)
    return found.queries


def joined(batches: list[QueryBatch]) -> dict[str, list[object]]:
    columns = ("ts", "client", "qname", "qtype", "qlen", "rcode", "ancount", "rlen", "ttl_min", "ans_types", "cached")
    return {name: [one for batch in batches for one in list(getattr(batch, name))] for name in columns}


def test_what_was_stored_comes_back_in_order_over_pages_and_equal_times(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_ROWS", 7)
    ts = sorted(START + day * DAY_S + second for day in range(3) for second in (0, 0, 0, 0, 5, 5, 9, 100, 100))
    clients = [f"192.0.2.{at % 4}" for at in range(len(ts))]
    written = write(store, ts, clients, "one")
    found = joined(list(stored_traffic(store, START, START + 7 * DAY_S, 1000).batches()))
    assert found["ts"] == ts
    assert Counter(zip(found["client"], found["qname"], strict=True)) == Counter(
        zip(written.client, written.qname, strict=True)
    )
    assert found["ans_types"] == ["TXT"] * len(ts)
    within = stored_traffic(store, START + DAY_S, START + DAY_S + 9, 1000)
    assert joined(list(within.batches()))["ts"] == [one for one in ts if START + DAY_S <= one < START + DAY_S + 9]


def test_replays_are_left_out_and_an_empty_time_is_empty(store: Store) -> None:
    write(store, [START + at for at in range(5)], ["192.0.2.1"] * 5, "live")
    replayed = verdicts(["r.example"] * 3, ts=[START, START + 1, START + 2], client="192.0.2.9")
    store.write(marked(replayed, "friday.pcap", START), "replayed")
    traffic = stored_traffic(store, START, START + DAY_S, 100)
    assert set(joined(list(traffic.batches()))["client"]) == {"192.0.2.1"}
    empty = stored_traffic(store, START + 2 * DAY_S, START + 3 * DAY_S, 100)
    assert (list(empty.batches()), empty.share) == ([], 1.0)


def test_whole_clients_with_incidents_first_and_one_client_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [f"192.0.2.{at % 20}" for at in range(400)]
    write(store, [START + at for at in range(400)], clients, "many")
    loud = replace(incident(client="192.0.2.7", last_seen=START + 50), source="")
    store.write(verdicts([], incidents=(loud,)), "incident")
    for named in (500, 1):  # by a statement that names them, and by looking at all rows
        monkeypatch.setattr(module, "NAMED_MAX", named)
        traffic = stored_traffic(store, START, START + DAY_S, 100)
        read = Counter(joined(list(traffic.batches()))["client"])
        assert set(read.values()) == {20} and len(read) == 5
        assert read["192.0.2.7"] == 20
        assert traffic.share == pytest.approx(0.25)
        assert traffic.quiet_share == pytest.approx(80 / 380)
    alone = stored_traffic(store, START, START + DAY_S, 5)
    assert sum(map(len, alone.batches())) == 5, "one client that is more than all: its first queries"
    assert np.isclose(alone.share, 5 / 400)
