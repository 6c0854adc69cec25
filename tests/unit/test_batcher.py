"""Rows to batches: sizes, waiting, dropping, closing."""

from __future__ import annotations

import math
import time
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.records import RECORD, client_bytes
from agents.sources.batcher import Batcher
from agents.types import QueryBatch
from tests.listening import wait_until


def record(ts: float, client: str = "192.0.2.1") -> NDArray[np.void]:
    one = np.zeros(1, RECORD)
    one["ts"], one["client"], one["qname_size"], one["qname"][0, :2] = ts, list(client_bytes(client)), 2, (1, 97)
    one["qtype"], one["qlen"], one["ancount"], one["rlen"], one["ttl_min"] = 16, 30, 1, 60, 300
    one["rtt_ms"], one["ans_types"][0, 0] = 1.5, 16
    return one


def test_a_full_batch_goes_at_once() -> None:
    batches: list[QueryBatch] = []
    batcher = Batcher(100, 4, 60_000, batches.append)
    for ts in range(4):
        batcher.offer(record(ts))
    wait_until(lambda: len(batches) == 1)
    batch = batches[0]
    assert (len(batch), batch.client[0], batch.qname[0], batch.ans_types[0]) == (
        4,
        "192.0.2.1",
        b"\1a",
        "TXT",
    )
    numbers = (batch.qtype, batch.qlen, batch.rcode, batch.ancount, batch.rlen)
    assert [int(column[0]) for column in numbers] == [16, 30, 0, 1, 60]
    assert (batch.ttl_min[0], batch.rtt_ms[0]) == (300, 1.5)
    batcher.close()


def test_a_lone_row_goes_after_the_wait() -> None:
    batches: list[QueryBatch] = []
    batcher = Batcher(100, 1000, 50, batches.append)
    started = time.monotonic()
    batcher.offer(record(1))
    wait_until(lambda: len(batches) == 1)
    assert time.monotonic() - started >= 0.045
    batcher.close()
    assert len(batches) == 1


def test_full_queue_drops_the_newest_and_counts() -> None:
    gate, entered, seen = Event(), Event(), list[float]()

    def slow(batch: QueryBatch) -> None:
        entered.set()
        gate.wait(10)
        seen.extend(batch.ts)

    batcher = Batcher(5, 1, 1, slow)
    batcher.offer(record(0))
    assert entered.wait(5)
    for ts in range(1, 11):
        batcher.offer(record(ts))
    assert (batcher.dropped, batcher.accepted, batcher.waiting) == (5, 6, 5)
    gate.set()
    batcher.close()
    assert seen == [0, 1, 2, 3, 4, 5]


def test_close_hands_on_everything_and_takes_no_more() -> None:
    seen: list[float] = []
    sizes: list[int] = []

    def consumer(batch: QueryBatch) -> None:
        seen.extend(batch.ts)
        sizes.append(len(batch))

    batcher = Batcher(100_000, 256, 60_000, consumer)
    for ts in range(10_000):
        batcher.offer(record(ts))
    batcher.close()
    batcher.offer(record(1))
    assert sorted(seen) == list(range(10_000))
    assert max(sizes) <= 256
    assert batcher.dropped == 1
    assert not batcher.alive


def test_rows_of_a_batch_are_in_time_order_and_unknown_stays_unknown() -> None:
    batches: list[QueryBatch] = []
    batcher = Batcher(100, 100, 60_000, batches.append)
    for ts in (3.0, 1.0, 2.0):
        unknown = record(ts, "::1")
        unknown["rtt_ms"], unknown["rlen"], unknown["ttl_min"] = math.nan, -1, -1
        batcher.offer(unknown)
    batcher.close()
    assert list(batches[0].ts) == [1, 2, 3]
    assert np.isnan(batches[0].rtt_ms).all()
    assert (batches[0].rlen[0], batches[0].ttl_min[0]) == (-1, -1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_consumer_never_blocks_the_listener() -> None:
    batcher = Batcher(3, 1, 1, lambda batch: batch.nothing)  # type: ignore[attr-defined]
    batcher.offer(record(0))
    wait_until(lambda: not batcher.alive)
    for ts in range(10):
        batcher.offer(record(ts))
    assert batcher.dropped == 7
    batcher.close()


def test_many_records_at_once_are_split_and_what_has_no_room_is_the_newest() -> None:
    gate, entered, batches = Event(), Event(), list[list[float]]()

    def slow(batch: QueryBatch) -> None:
        entered.set()
        gate.wait(10)
        batches.append(batch.ts.tolist())

    batcher = Batcher(10, 4, 1, slow)
    assert batcher.offer(record(0)) == 1
    assert entered.wait(5)
    assert batcher.offer(np.concatenate([record(ts) for ts in range(1, 8)])) == 7
    assert batcher.offer(np.concatenate([record(ts) for ts in range(8, 20)])) == 3
    assert (batcher.dropped, batcher.accepted, batcher.waiting) == (9, 11, 10)
    gate.set()
    batcher.close()
    assert batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert batcher.offer(record(0)) == 0
