"""The ring against a deque, between two processes, and with a producer that is killed in the middle of a put."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.stream import ring as ring_module
from agents.stream.record import RECORD, client_bytes
from agents.stream.ring import Ring
from agents.stream.ring_kernels import END, SHARE
from tests.support.listening import ring_of, wait_until


def one_ring(capacity: int, bell: int = -1) -> Ring:
    """An empty ring in memory that children share."""
    return ring_of(capacity, bell).rings[0]


one_ring(1).put(bytes(RECORD.itemsize))  # loads its kernel: no made-up input's time limit is for that


def numbered(first: int, count: int) -> NDArray[np.void]:
    """Records whose bytes all follow from their number, each of another client's network."""
    records = np.zeros(count, RECORD)
    records["client"][:, 0] = 0x20
    records["client"][:, 1:8] = np.arange(first, first + count)[:, None] >> 8 * np.arange(7) & 0xFF
    records["ts"] = np.arange(first, first + count)
    records["ttl_min"] = records["ts"] * 3
    records["qname"] = (np.arange(first, first + count) % 251)[:, None]
    return records


def numbers(records: NDArray[np.void]) -> list[int]:
    """The numbers, of records that are whole."""
    ts = records["ts"].astype(np.int64)
    assert (records["ttl_min"] == ts * 3).all() and (records["qname"] == (ts % 251)[:, None]).all()
    return list(ts.tolist())


@given(
    st.integers(1, 7),
    st.lists(st.tuples(st.sampled_from(["put", "peek", "advance"]), st.integers(0, 9)), max_size=60),
)
def test_it_is_a_bounded_deque(capacity: int, steps: list[tuple[str, int]]) -> None:
    ring, model, put, dropped = one_ring(capacity), deque[int](), 0, 0
    for what, count in steps:
        if what == "put":
            accepted = ring.put(numbered(put, count).tobytes())
            assert accepted == min(count, capacity - len(model))
            model.extend(range(put, put + accepted))
            dropped += count - accepted
            put += count
        elif what == "peek":
            assert numbers(ring.peek(count)) == list(model)[:count]
        else:
            taken = min(count, len(model))
            ring.advance_to(ring.tail + taken)
            for _ in range(taken):
                model.popleft()
        assert (ring.waiting, ring.dropped) == (len(model), dropped)


def test_giving_back_twice_changes_nothing_and_too_much_is_a_bug() -> None:
    ring = one_ring(4)
    ring.put(numbered(0, 3).tobytes())
    ring.advance_to(2)
    ring.advance_to(2)
    assert numbers(ring.peek(9)) == [2]
    with pytest.raises(AssertionError):
        ring.advance_to(4)


def test_a_sleeper_is_woken_once() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    ring = one_ring(8, writing)
    ring.sleep(True)
    ring.sleep(False)
    ring.put(numbered(0, 1).tobytes())
    with pytest.raises(BlockingIOError):
        os.read(reading, 9)
    ring.sleep(True)
    ring.put(numbered(1, 1).tobytes())
    ring.put(numbered(2, 1).tobytes())
    assert len(os.read(reading, 9)) == 1
    os.close(reading)
    os.close(writing)


def forked(work: Callable[[], None]) -> int:
    """A child process that does `work` and ends with 0, or with 1 where that failed; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def test_between_two_processes_every_accepted_record_arrives_whole_and_in_order() -> None:
    ring, total = one_ring(100), 20_000

    def produce() -> None:
        for first in range(0, total, 16):
            part, at = numbered(first, 16), 0
            while at < 16:
                at += ring.put(part[at:].tobytes())

    pid, got = forked(produce), 0

    def take() -> bool:
        nonlocal got
        records = ring.peek(50)
        assert numbers(records) == list(range(got, got + len(records)))
        got += len(records)
        ring.advance_to(ring.tail + len(records))
        return got == total

    try:
        wait_until(lambda: any(take() for _ in range(1000)), 60)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert ring.waiting == 0


def test_a_producer_killed_in_the_middle_of_a_put_publishes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = one_ring(10)
    ring.put(numbered(0, 2).tobytes())

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def produce() -> None:
        monkeypatch.setattr(ring_module, "barrier", die)  # called between the bytes and the head
        ring.put(numbered(100, 5).tobytes())

    pid = forked(produce)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert numbers(ring.peek(10)) == [0, 1]
    assert ring.put(numbered(2, 9).tobytes()) == 8, "what was half there is overwritten"
    assert numbers(ring.peek(10)) == list(range(10))


def test_a_producer_killed_anywhere_leaves_whole_records() -> None:
    for _ in range(5):
        ring = one_ring(64)

        def produce(ring: Ring = ring) -> None:
            number = 0
            while True:
                number += ring.put(numbered(number, 7).tobytes())

        pid = forked(produce)
        wait_until(lambda ring=ring: ring.waiting == 64)  # type: ignore[misc]
        got: list[int] = []
        while len(got) < 500:
            records = ring.peek(10)
            got += numbers(records)
            ring.advance_to(ring.tail + len(records))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        got += numbers(ring.peek(64))
        assert got == list(range(len(got)))


def of_client(client: str, count: int) -> bytes:
    records = np.zeros(count, RECORD)
    records["client"] = np.frombuffer(client_bytes(client), np.uint8)
    return records.tobytes()


def waiting_of(ring: Ring, client: str) -> int:
    rows = ring.peek(ring.capacity)["client"]
    return int((rows == np.frombuffer(client_bytes(client), np.uint8)).all(axis=1).sum())


CLIENTS = st.integers(0, 5).map(lambda number: f"192.0.2.{number}")


@settings(deadline=None)
@given(st.integers(1, 120), st.lists(st.tuples(CLIENTS, st.integers(0, 60), st.integers(0, 40)), max_size=40))
def test_each_client_has_a_share_of_the_room_that_is_left(capacity: int, steps: list[tuple[str, int, int]]) -> None:
    ring, model = one_ring(capacity), deque[str]()
    for client, put, take in steps:
        for _ in range(put):
            room = capacity - len(model)
            fits = room > 0 and model.count(client) < SHARE * room
            assert ring.put(of_client(client, 1)) == fits
            model.extend([client] * fits)
        taken = min(take, len(model))
        ring.advance_to(ring.tail + taken)
        for _ in range(taken):
            model.popleft()


@pytest.mark.parametrize("flood", [["192.0.2.1"], [f"2001:db8:0:{n}::{m}" for n in range(10) for m in (1, 2)]])
def test_a_flood_is_dropped_first_and_a_quiet_client_loses_nothing(flood: list[str]) -> None:
    ring = one_ring(4096)
    for turn in range(300):
        for client in flood:
            ring.put(of_client(client, 300))
        heard = ring.put(of_client("192.0.2.77", 1))
        assert heard or turn < 100, "many floods that begin at once fill the ring before their backlogs differ"
        ring.advance_to(ring.tail + 64)
    networks = 1 if len(flood) == 1 else 10
    most = ring.capacity * SHARE * networks // (1 + SHARE * networks) + networks
    assert ring.waiting - waiting_of(ring, "192.0.2.77") <= most
    assert ring.dropped > 50_000


def test_a_writer_that_follows_a_killed_one_counts_what_it_finds() -> None:
    ring = one_ring(90)

    def put() -> None:
        assert ring.put(of_client("192.0.2.1", 80)) == 80

    pid = forked(put)
    os.waitpid(pid, 0)
    assert ring.waiting == 80
    assert ring.put(of_client("192.0.2.1", 1)) == 0, "80 >= 8 * 10"
    assert ring.put(of_client("192.0.2.2", 9)) == 9
    ring.advance_to(80)
    assert ring.waiting * END < ring.capacity
    assert ring.put(of_client("192.0.2.1", 40)) == 40
