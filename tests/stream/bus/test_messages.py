"""Records go through messages unchanged, whatever is in them; anything else is refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given as made_up
from hypothesis import strategies as st

from agents.core.npz import FormatError
from agents.dns.name import NAME_MAX
from agents.stream.bus.messages import (
    BODY_MAX,
    RECORDS_MAX,
    bodies_of,
    heard_records,
    message_records,
    packed_records,
)
from agents.stream.record import RECORD

NOW = 1_767_571_200.0


def records(count: int) -> np.ndarray:
    """Random bytes, with names of any length, and zeros behind them."""
    rng = np.random.default_rng(count)
    found = np.frombuffer(rng.bytes(count * RECORD.itemsize), RECORD).copy()
    found["qname_size"] = rng.integers(0, NAME_MAX + 1, count)
    for row in found:
        row["qname"][row["qname_size"] :] = 0
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 256])
def test_records_are_the_same_behind_the_bus(count: int) -> None:
    given = records(count)
    assert message_records(packed_records(given)).tobytes() == given.tobytes()


def test_a_message_is_read_whole_or_not_at_all() -> None:
    data = packed_records(records(5))
    for cut in (data[:3], data[:40], data[:-1], data + b"x", b"XX" + data[2:]):
        with pytest.raises(FormatError, match="cannot read a message of the bus"):
            message_records(cut)


@pytest.mark.parametrize("count", [0, 1, 300, 2000])
def test_messages_are_as_few_as_their_bytes_allow_and_keep_the_order(count: int) -> None:
    given = records(count)
    found = bodies_of(given)
    assert all(len(one) <= BODY_MAX for one in found)
    assert b"".join(message_records(one).tobytes() for one in found) == given.tobytes()
    short = given.copy()
    short["qname_size"], short["qname"] = 0, 0
    assert len(bodies_of(short)) == -(-count // RECORDS_MAX)


def test_short_names_take_little_room() -> None:
    given = np.zeros(256, RECORD)
    given["qname_size"] = 20
    assert len(packed_records(given)) < 256 * 115


def possible(count: int = 3) -> np.ndarray:
    """Records as a listener writes them."""
    found = np.zeros(count, RECORD)
    name = b"\x03www\x07example\x03com"
    found["qname_size"], found["ts"], found["rtt_ms"] = len(name), NOW - 5, np.nan
    found["qname"][:, : len(name)] = np.frombuffer(name, np.uint8)
    for column in ("ttl_min", "ancount", "rlen", "ans_bytes", "negative_ttl", "rcode"):
        found[column] = -1
    return found


def test_what_listeners_write_is_heard_and_a_time_ahead_is_now() -> None:
    given = possible()
    given["ts"][1] = NOW + 30
    heard, batch = heard_records(packed_records(given), NOW)
    given["ts"][1] = NOW
    assert heard.tobytes() == given.tobytes() and batch.ts.tolist() == given["ts"].tolist()
    assert [len(one) for one in heard_records(packed_records(possible(0)), NOW)] == [0, 0]


@pytest.mark.parametrize(
    ("column", "value"),
    [("ts", np.nan), ("ts", np.inf), ("ts", -np.inf), ("ts", NOW - 8 * 86_400), ("rtt_ms", np.inf), ("qlen", -2),
     ("qlen", 2**31 - 1), ("ans_bytes", 70_000), ("ttl_min", -2), ("ttl_min", 2**40), ("ans_hash", 2**63),
     ("rcode", 4096), ("cached", 7)],
)  # fmt: skip
def test_numbers_that_no_listener_writes_are_refused(column: str, value: float) -> None:
    given = possible()
    given[column][1] = value
    with pytest.raises(FormatError, match="an impossible"):
        heard_records(packed_records(given), NOW)


@pytest.mark.parametrize(
    "name", [b"\x09www", b"\x40" + b"a" * 64, b"\xc0\x0c", b"\x03www\x00\x01a", b"\x01a" * 126 + b"\x07a"]
)
def test_a_name_that_is_not_whole_is_refused(name: bytes) -> None:
    given = possible()
    given["qname"][1, : len(name)], given["qname_size"][1] = np.frombuffer(name, np.uint8), len(name)
    with pytest.raises(FormatError, match="cannot read a message of the bus"):
        heard_records(packed_records(given), NOW)


@made_up(st.binary(max_size=2000))
def test_whatever_comes_is_heard_or_refused(data: bytes) -> None:
    for message in (data, b"Q1" + data, b"Q1\1\0" + data):
        with contextlib.suppress(ValueError):
            heard_records(message, NOW)
