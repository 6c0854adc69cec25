"""Rings of several detectors: each record in the ring of its slot; messages whole, in order, each once."""

from __future__ import annotations

import os
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.stream.mailbox import Mailbox
from agents.stream.record import client_bytes, client_text, packed_record
from agents.stream.rings import Rings
from agents.stream.shared import SharedStream
from agents.stream.slots import SLOTS, detector_for, slot_of_client
from tests.support.listening import wait_until

CLIENTS = [f"10.0.{n // 250}.{n % 250}" for n in range(300)] + [f"2001:db8:{n + 1:x}::7" for n in range(300)]


def record(client: str, ts: float = 1.0) -> bytes:
    return packed_record(ts, client_bytes(client), b"\1a\4test", 1, 40, 0, 1, 90, 60, 1.5, (1,))


@pytest.mark.parametrize("detectors", [1, 2, 5])
def test_each_record_is_in_the_ring_of_its_slot(detectors: int) -> None:
    rings = Rings(memoryview(bytearray(Rings.size_of(detectors, 1000))), 1000, (-1,) * detectors)
    assert rings.put(b"".join(map(record, CLIENTS))) == len(CLIENTS)
    for number, ring in enumerate(rings.rings):
        found = [client_text(bytes(one)) for one in ring.peek(1000)["client"]]
        assert found == [client for client in CLIENTS if detector_for(client, detectors) == number]
    assert rings.mark() == tuple(ring.head for ring in rings.rings)
    assert not rings.passed(rings.mark())
    for ring in rings.rings:
        ring.advance_to(ring.head)
    assert rings.passed(rings.mark())


def test_a_slot_is_that_of_an_ipv6_network_and_text_has_one_too() -> None:
    assert slot_of_client("2001:db8:1:2::1") == slot_of_client("2001:db8:1:2:ffff::9")
    assert len({slot_of_client(f"2001:db8:0:{n:x}::1") for n in range(500)}) == SLOTS
    assert 0 <= slot_of_client("not an address") < SLOTS


def test_a_detector_that_does_not_take_holds_up_no_other() -> None:
    """Its ring fills and drops; the other one's level and records are its own."""
    stream = SharedStream(1, 200, ["a"], detectors=2)
    (rings, _), _ = stream.writers(0)
    first, second = stream.of(0), stream.of(1)
    clients = {number: next(one for one in CLIENTS if detector_for(one, 2) == number) for number in (0, 1)}
    rings.put(b"".join(record(clients[0]) for _ in range(300)))
    assert rings.put(record(clients[1])) == 1
    assert first.dropped > 0 == second.dropped
    assert (first.fill > 0.8, second.waiting) == (True, 1)
    taken = second.ledger.begin(second.shares(10))
    second.commit(scored=1)
    assert taken.counts == (1, 0)
    assert (second.ledger.totals()["scored"], first.ledger.totals()["scored"]) == (1, 0)
    assert stream.sums()["scored"] == 1 and stream.sums()["queue_dropped"] == first.dropped
    stream.close()


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=90)), max_size=60))
def test_a_mailbox_is_a_bounded_queue_of_whole_messages(steps: list[tuple[bool, bytes]]) -> None:
    box, model, dropped = Mailbox(200), deque[bytes](), 0
    for putting, message in steps:
        if putting:
            fits = sum(8 + len(one) for one in model) + 8 + len(message) <= 200
            assert box.put(message) == fits
            model.extend([message] * fits)
            dropped += not fits
        else:
            found, end = box.peek()
            assert found == list(model)
            box.advance_to(end)
            model.clear()
    assert box.dropped == dropped


def test_messages_cross_between_processes() -> None:
    box = Mailbox(1 << 16)
    child = os.fork()
    if child == 0:
        for number in range(2000):
            while not box.put(b"%d" % number * (number % 50)):
                pass
        os._exit(0)
    got: list[bytes] = []

    def all_there() -> bool:
        found, end = box.peek()
        box.advance_to(end)
        got.extend(found)
        return len(got) == 2000

    wait_until(all_there, 30)
    os.waitpid(child, 0)
    assert got == [b"%d" % number * (number % 50) for number in range(2000)]
