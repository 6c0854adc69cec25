"""Rows to batches: sizes, waiting, dropping, closing."""

from __future__ import annotations

import math
import time
from threading import Event

import numpy as np
import pytest

from agents.sources.batcher import Batcher
from agents.types import QueryBatch, Row
from tests.listening import wait_until


def row(ts: float) -> Row:
    return (ts, "192.0.2.1", b"\1a", 16, 30, 0, 1, 60, 300, 1.5, "TXT")


def test_a_full_batch_goes_at_once() -> None:
    batches: list[QueryBatch] = []
    batcher = Batcher(100, 4, 60_000, batches.append)
    for ts in range(4):
        batcher.offer(row(ts))
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
    batcher.offer(row(1))
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
    batcher.offer(row(0))
    assert entered.wait(5)
    for ts in range(1, 11):
        batcher.offer(row(ts))
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
        batcher.offer(row(ts))
    batcher.close()
    batcher.offer(row(1))
    assert sorted(seen) == list(range(10_000))
    assert max(sizes) <= 256
    assert batcher.dropped == 1
    assert not batcher.alive


def test_rows_of_a_batch_are_in_time_order_and_unknown_stays_unknown() -> None:
    batches: list[QueryBatch] = []
    batcher = Batcher(100, 100, 60_000, batches.append)
    for ts in (3.0, 1.0, 2.0):
        batcher.offer((ts, "::1", b"", 1, 30, 2, 0, -1, -1, math.nan, ""))
    batcher.close()
    assert list(batches[0].ts) == [1, 2, 3]
    assert np.isnan(batches[0].rtt_ms).all()
    assert (batches[0].rlen[0], batches[0].ttl_min[0]) == (-1, -1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_consumer_never_blocks_the_listener() -> None:
    batcher = Batcher(3, 1, 1, lambda batch: batch.nothing)  # type: ignore[attr-defined]
    batcher.offer(row(0))
    wait_until(lambda: not batcher.alive)
    for ts in range(10):
        batcher.offer(row(ts))
    assert batcher.dropped == 7
    batcher.close()
