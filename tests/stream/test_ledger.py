"""SharedStream memory: fair shares, order of time, and a ledger whose writer is killed after any of its stores."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.types import UNKNOWN, Row, batch_of
from agents.dns.message import type_number
from agents.stream import ledger as ledger_module
from agents.stream.counters import Counters
from agents.stream.ledger import TOTALS, Ledger
from agents.stream.record import RECORD, batch_of_records, client_bytes, packed_record
from agents.stream.shared import SharedStream
from tests.support.patience import patient


def shared(listeners: int = 2, queue_max: int = 100) -> SharedStream:
    return SharedStream(listeners, queue_max, ["detector"])


def row(ts: float, qname: bytes = b"\1a\4test", types: str = "CNAME,A") -> Row:
    return (ts, "192.0.2.7", qname, 16, 40, 0, 1, 90, 60, 1.5, types)


def packed(one: Row) -> bytes:
    """The bytes of the row's record."""
    numbers = tuple(map(type_number, one[10].split(","))) if one[10] else ()
    return packed_record(one[0], client_bytes(one[1]), *one[2:10], numbers, UNKNOWN, *one[11:])


NUMBERS = ("ts", "qtype", "qlen", "rcode", "ancount", "rlen", "ttl_min", "rtt_ms")
ROWS = st.lists(
    st.tuples(
        st.floats(0, 4e9),
        st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6, network="2000::/3")).map(str),
        st.binary(max_size=254),
        st.integers(0, 65535),
        st.integers(-1, 65535),
        st.integers(-1, 4095),
        st.integers(-1, 65535),
        st.integers(-1, 65535),
        st.integers(-1, 2**32),
        st.one_of(st.just(float("nan")), st.floats(0, 1e5, width=32)),
        st.sampled_from(["", "A", "CNAME,A", "TYPE60000", "A,NS,CNAME,SOA,PTR,MX,TXT,AAAA"]),
        st.integers(0, 2**63 - 1),
        st.integers(-1, 65535),
        st.integers(-1, 2**31 - 1),
    ),
    max_size=5,
)


batch_of_records(np.zeros(1, RECORD))  # loads its kernel: no made-up input's time limit is for that


@given(ROWS)
@pytest.mark.slow
def test_rows_come_back_from_records(rows: list[Row]) -> None:
    records = np.concatenate([np.empty(0, RECORD), *[np.frombuffer(packed(one), RECORD) for one in rows]])
    found, wanted = batch_of_records(records), batch_of(rows)
    for name in ("client", "qname", "ans_types"):
        assert list(getattr(found, name)) == list(getattr(wanted, name))
    for name in (*NUMBERS, "ans_hash", "ans_bytes", "negative_ttl"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
        assert getattr(found, name).dtype == getattr(wanted, name).dtype


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_shares_are_fair_and_leave_nothing_that_there_is_room_for(waiting: list[int], most: int) -> None:
    one = shared(-(-len(waiting) // 2), 30 * len(waiting))
    waiting += [0] * (len(one.rings) - len(waiting))
    for ring, count in zip(one.rings, waiting, strict=True):
        ring.put(np.zeros(count, RECORD).tobytes())
    waiting = [ring.waiting for ring in one.rings]  # one client may not fill a ring
    shares = one.shares(most)
    one.close()
    assert sum(shares) == min(most, sum(waiting))
    assert all(share <= there for share, there in zip(shares, waiting, strict=True))
    unfilled = [share for share, there in zip(shares, waiting, strict=True) if share < there]
    assert all(share <= min(unfilled) + 1 for share in shares) if unfilled else True


def test_a_batch_is_in_order_of_time_and_equal_times_in_order_of_rings() -> None:
    one = shared(1)
    for ring, times in zip(one.rings, ([1.0, 5.0, 5.0], [0.5, 5.0, 9.0]), strict=True):
        for ts in times:
            ring.put(packed(row(ts, bytes([1, 48 + one.rings.index(ring)]))))
    batch = batch_of_records(one.records([3, 2]))
    one.close()
    assert batch.ts.tolist() == [0.5, 1.0, 5.0, 5.0, 5.0]
    assert [name[1:] for name in batch.qname] == [b"1", b"0", b"0", b"0", b"1"]
    assert one.waiting == 6, "they stay until they are given back"


def test_a_bell_wakes_a_sleeper_and_many_rings_are_one() -> None:
    one = shared()
    for _ in range(100_000):  # more than a pipe holds
        one.bell.ring()
    while True:  # emptied in a few reads
        begun = time.monotonic()
        one.bell.wait(0.2)
        if time.monotonic() - begun >= 0.2:
            break
    sleeper = threading.Thread(target=one.bell.wait, args=(60,))
    sleeper.start()
    one.bell.ring()
    sleeper.join(patient(10))
    assert not sleeper.is_alive()
    one.close()


def test_counters_are_where_they_are_told_to_be_and_add_up_over_processes() -> None:
    one = shared()
    one.counters[0].received += 2
    one.counters[1].received += 3
    one.counters[1].tcp_refused = 7
    assert one.health()["counters"] == dict.fromkeys(Counters.NAMES, 0) | {"received": 5, "tcp_refused": 7}
    assert Counters(memoryview(one.counters[0])).received == 2
    assert Counters().values() == dict.fromkeys(Counters.NAMES, 0)
    one.close()


class KilledError(Exception):
    """Stands for kill -9: what was stored is stored, and nothing follows."""


class Cells:
    """The ledger's memory, which ends its writer at the n-th store."""

    def __init__(self, cells: memoryview, stores: int) -> None:
        self.cells, self.left = cells, stores

    def __getitem__(self, at: Any) -> Any:
        return self.cells[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        if self.left == 0:
            raise KilledError
        self.left -= 1
        self.cells[at] = value


@pytest.mark.parametrize("stores", range(90))
def test_a_ledger_is_right_wherever_its_writer_is_killed(stores: int) -> None:
    """Each batch is judged, stored under its id, and counted; the one who is killed is followed by another."""
    one = shared(1)
    for at, count in ((0, 30), (1, 12)):
        one.rings[at].put(b"".join(packed(row(float(n), bytes([2, 65 + at, n]))) for n in range(count)))
    memory = one.ledger._cells
    database: dict[str, list[bytes]] = {}
    cells: Any = Cells(memory, stores)
    for _ in range(2):
        ledger = Ledger(cells, one.rings, "run")
        try:
            intent = ledger.resume()
            while intent or one.waiting:
                intent = intent or ledger.begin(one.shares(10))
                names = list(batch_of_records(one.records(intent.counts)).qname)
                database.setdefault(intent.batch_id, names)
                ledger.finish({"scored": len(names), "stored": len(database[intent.batch_id])})
                intent = None
        except KilledError:
            cells = memory
            continue
        break
    stored = [name for names in database.values() for name in names]
    totals = one.ledger.totals()
    one.close()
    assert len(stored) == len(set(stored)) == 42
    assert (totals["scored"], totals["stored"], one.waiting) == (42, 42, 0)


def test_totals_that_are_named_are_added_and_others_stay() -> None:
    one = shared(1)
    one.rings[0].put(np.zeros(3, RECORD).tobytes())
    first = one.ledger.begin([2, 0])
    assert (first.counts, first.attempts) == ((2, 0), 1)
    again = one.ledger.resume()
    assert again == first._replace(attempts=2)
    one.ledger.finish({"scored": 2, "lost": 1})
    second = one.ledger.begin([1, 0])
    assert second.batch_id != first.batch_id
    assert len(second.batch_id) == 32
    assert one.ledger.totals() == dict.fromkeys(TOTALS, 0) | {"scored": 2, "lost": 1}
    one.close()


def test_what_is_carried_is_what_was_written_last() -> None:
    one = shared()
    values = {name: number for number, name in enumerate(ledger_module.CARRIED, 1)}
    one.ledger.carry(values)
    assert one.ledger.carried() == values
    assert one.ledger.totals() == dict.fromkeys(TOTALS, 0)
    one.close()
