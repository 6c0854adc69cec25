"""Halves of exchanges out of frames: joined, in order of time, each exchange once, however late its other half is."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agents.sources.dnstap import dnstap_kernels as kernels
from agents.sources.dnstap.merging_kernels import (
    AHEAD,
    ANSWERS,
    FREE,
    GIVEN_S,
    LATE,
    POOL,
    QUERIES,
    UNANSWERED,
    UNASKED,
    WAITING,
    Merger,
    give,
    new_merger,
)
from agents.stream.record import RECORD
from tests.support.frames import client_frame
from tests.support.log_lines import T0, answer_of
from tests.support.resolvers import question_of

HOLD_S = 2.5


class Half(NamedTuple):
    """One half of an exchange: its number, when it happened and when its frame arrives, seconds from T0."""

    number: int
    is_answer: bool
    at: float
    arrives: float


def frame_of(half: Half) -> bytes:
    name = f"n{half.number}.t.example"
    wire = answer_of(name, "A") if half.is_answer else question_of(name, "A", 7)
    times = (None, T0 + half.at) if half.is_answer else (T0 + half.at, None)
    frame = client_frame(6 if half.is_answer else 5, wire, *times)
    return len(frame).to_bytes(4) + frame


class Sender:
    """A sender's frames into a merger, and what it gives."""

    def __init__(self, most: int = POOL) -> None:
        self.merger: Merger = new_merger((3, 5))
        self.scan = kernels.new_scan(self.merger)
        self.most, self.rows = most, list[tuple[float, bytes, int, int]]()

    def take(self, halves: Sequence[Half], sender: int = 0) -> None:
        for half in halves:
            data = np.frombuffer(frame_of(half), np.uint8)
            self.scan.numbers[kernels.AT] = 0
            arrived = T0 + half.arrives
            assert kernels.scan_frames(self.scan, data, len(data), 0, sender, arrived, HOLD_S) == kernels.MORE
            self.give(arrived)

    def give(self, now: float) -> None:
        out: NDArray[np.void] = np.zeros(64, RECORD)
        while count := give(self.merger, now, HOLD_S, self.most, out, 0):
            for row in out[:count]:
                name = row["qname"][: row["qname_size"]].tobytes()
                self.rows.append((float(row["ts"]), name, int(row["qlen"]), int(row["rcode"])))

    def ended(self) -> list[tuple[float, bytes, int, int]]:
        self.give(math.inf)
        assert (self.merger.numbers[WAITING], self.merger.numbers[FREE]) == (0, POOL)
        assert not self.merger.slots.any()
        return self.rows


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.floats(0, 0.5), st.floats(0, 12), st.floats(0, 12), st.sampled_from("qab")),
        max_size=40,
    )
)
def test_each_exchange_is_counted_once_whenever_its_halves_arrive(
    exchanges: list[tuple[float, float, float, float, str]],
) -> None:
    halves, wanted = list[Half](), dict[int, str]()
    for number, (at, took, query_delay, answer_delay, which) in enumerate(exchanges):
        wanted[number] = which
        if which in "qb":
            halves.append(Half(number, False, at, at + query_delay))
        if which in "ab":
            halves.append(Half(number, True, at + took, at + took + answer_delay))
    sender = Sender()
    sender.take(sorted(halves, key=lambda half: half.arrives))
    rows = sender.ended()
    assert sorted(name for _, name, _, _ in rows) == sorted(
        len(label).to_bytes(1) + label + b"\1t\7example" for label in (f"n{number}".encode() for number in wanted)
    )
    counts = sender.merger.counts[0].tolist()
    assert counts[QUERIES] == sum(which in "qb" for which in wanted.values())
    assert counts[ANSWERS] == sum(which in "ab" for which in wanted.values())
    assert counts[UNASKED] == sum(which == "a" for which in wanted.values())
    assert counts[UNANSWERED] == sum(which == "q" for which in wanted.values())


def test_halves_that_meet_within_the_hold_are_one_row_in_order_of_time() -> None:
    halves = [Half(2, True, 1.2, 1.3), Half(1, False, 0.9, 1.4), Half(2, False, 1.1, 1.5), Half(1, True, 1.0, 1.6)]
    sender = Sender()
    sender.take(halves)
    assert sender.rows == []
    sender.give(T0 + 1.1 + HOLD_S)
    rows = sender.ended()
    assert [(round(ts - T0, 3), name[1:3], qlen > 0, rcode) for ts, name, qlen, rcode in rows] == [
        (0.9, b"n1", True, 0),
        (1.1, b"n2", True, 0),
    ]


def test_an_old_row_is_counted_and_one_of_the_future_gets_the_time_of_its_arrival() -> None:
    sender = Sender()
    sender.take([Half(1, False, 0.0, 60.0), Half(1, True, 0.1, 60.5), Half(2, True, 9000.0, 61.0)])
    numbers = sender.merger.numbers
    assert (numbers[LATE], numbers[AHEAD]) == (1, 1)
    sender.give(T0 + 61.0)
    assert sender.rows == [], "halves of a sender with a wrong clock meet, too"
    assert [round(ts - T0, 3) for ts, *_ in sender.ended()] == [0.0, 61.0]


@pytest.mark.slow
def test_a_sender_whose_clock_is_wrong_holds_nobody_back() -> None:
    sender = Sender()
    for at in range(20):
        sender.take([Half(2 * at, True, at + 7200.0, at), Half(2 * at + 1, True, at, at)])
    assert len(sender.rows) == 2 * 17


def test_what_a_client_asks_again_is_another_query() -> None:
    sender = Sender()
    for at in (0.0, 0.5, 1.0):
        sender.take([Half(1, False, at, at)])
    for at in (1.1, 1.2, 1.3):
        sender.take([Half(1, True, at, at)])
    assert [(qlen > 0, rcode) for _, _, qlen, rcode in sender.ended()] == [(True, 0)] * 3
    assert sender.merger.counts[0].tolist() == [3, 3, 0, 0]


def test_a_half_that_comes_after_all_others_are_forgotten_is_a_query() -> None:
    sender = Sender()
    sender.take([Half(1, False, 0.0, 0.0)])
    sender.give(T0 + HOLD_S)
    sender.take([Half(9, True, GIVEN_S + 10, GIVEN_S + 10), Half(1, True, 0.1, GIVEN_S + 11)])
    assert len(sender.ended()) == 3


def test_the_oldest_go_first_where_there_is_no_room() -> None:
    sender = Sender(most=10)
    halves = [Half(number, False, number / 1000, number / 1000) for number in range(100)]
    random.Random(1).shuffle(halves[:5])
    sender.take(halves)
    assert len(sender.rows) == 90
    assert [ts for ts, *_ in sender.rows] == sorted(ts for ts, *_ in sender.rows)


def test_a_key_that_repeats_without_end_costs_a_few_looks() -> None:
    sender = Sender()
    sender.take([Half(1, False, number / 1000, number / 1000) for number in range(2000)])
    assert len(sender.ended()) == 2000
