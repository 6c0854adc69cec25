"""The rules of the bus by themselves, and thousands of histories in which whatever can fail does."""

from __future__ import annotations

import json
import os

import pytest

from agents.core.npz import FormatError
from agents.stream.bus.protocol import (
    RUNS_KEPT,
    RUNS_KEPT_S,
    RUNS_MAX,
    Committed,
    Counted,
    LeaseKeeper,
    Leases,
    MessageLabel,
    MessageStep,
    Outbound,
    StreamPosition,
    committed_of,
    label_of,
    leases_of,
    new_run,
    position_in,
)
from tests.support.bus_simulation import History

HISTORIES, PARTS = int(os.environ.get("HISTORIES", "20000")), 16
"""Histories, and parts of them, so that workers share them. HISTORIES=100000 takes eleven minutes of CPU."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_no_history_loses_or_repeats_a_message(seed: int) -> None:
    for at in range(200):
        History(1_000_000 * seed + at, 120).run()
    History(seed, 2000).run()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_of_many_loses_or_repeats_a_message(part: int) -> None:
    for seed in range(part, HISTORIES, PARTS):
        History(seed, 100).run()


def test_a_slot_counts_the_next_message_of_each_run_alone() -> None:
    counted = Counted()
    assert counted.step(MessageLabel("a", 2, 1)) is MessageStep.EARLY
    assert (
        counted.step(MessageLabel("a", 5, 5)) is MessageStep.NEW
    )  # those before it are let go: another state has counted them
    counted.count(MessageLabel("a", 5, 5), 10.0)
    steps = [counted.step(MessageLabel("a", number, 1)) for number in (4, 5, 6, 7)]
    assert steps == [MessageStep.REPEATED, MessageStep.REPEATED, MessageStep.NEW, MessageStep.EARLY]


def test_runs_that_are_long_over_are_forgotten() -> None:
    counted = Counted()
    for at in range(RUNS_KEPT + 5):
        counted.count(MessageLabel(f"r{at}", 1, 1), float(at))
    assert len(counted.last) == RUNS_KEPT + 5
    counted.count(MessageLabel("late", 1, 1), RUNS_KEPT_S + 3.5)
    assert len(counted.last) == RUNS_KEPT + 2 and "r3" not in counted.last and "r4" in counted.last


def test_what_a_lost_stream_had_is_sent_again_under_another_id() -> None:
    out = Outbound("r")
    for _ in range(3):
        out.add()
    first = out.to_send()
    assert first is not None
    before = out.message_id(first)
    for number in (1, 2):
        label = out.to_send()
        assert label is not None and label.number == number
        out.stored(label, StreamPosition("one", number))
    label = out.to_send()
    assert label is not None
    out.stored(label, StreamPosition("two", 1))
    again = out.to_send()
    assert again == MessageLabel("r", 1, 1) and out.message_id(again) != before


def test_what_is_counted_is_let_go_and_what_was_passed_over_is_sent_again() -> None:
    out = Outbound("r", last=4)
    for sequence in (3, 5, 6, 9):
        label = out.to_send()
        assert label is not None
        out.stored(label, StreamPosition("e", sequence))
    assert out.note(Committed(position=StreamPosition("e", 5), counted=Counted({"r": 2}))) == 3
    assert out.to_send() is None and sorted(out.stored_at) == [3, 4]
    out.note(Committed(position=StreamPosition("e", 6), counted=Counted({"r": 2})))
    assert out.to_send() == MessageLabel("r", 3, 3) and out.rewound == 1
    out.note(Committed(position=StreamPosition("e", 9), counted=Counted({"r": 2})))
    assert out.rewound == 1  # once: it is not back on the stream yet


@pytest.mark.parametrize("seed", range(20))
def test_a_gap_is_repaired_while_more_comes_all_the_time(seed: int) -> None:
    History(seed, 60).run(busy=True)


def test_a_stream_that_begins_anew_or_has_forgotten_is_read_from_its_first_message() -> None:
    assert position_in(StreamPosition("a", 7), "a", 1) == StreamPosition("a", 7)
    assert position_in(StreamPosition("a", 7), "a", 11) == StreamPosition("a", 10)
    assert position_in(StreamPosition("a", 7), "b", 1) == StreamPosition("b", 0)


def test_all_is_read_back_as_it_was_written() -> None:
    committed = Committed(5, StreamPosition("e", 9), Counted({"r": 3}, {"r": 1.5}), 12, "x")
    assert committed_of(committed.packed()) == committed
    label = MessageLabel(new_run("berlin"), 3, 1)
    assert label_of(label.text(), "berlin") == label
    keeper = LeaseKeeper("me", (0, 1), 6.0)
    assert leases_of(keeper.next_table(0.0, 2).packed()) == keeper.next_table(0.0, 2)


@pytest.mark.parametrize("change", [{"token": "5"}, {"last": []}, {"seen": None}, {"sequence": 1.5}, {"name": 3}])
def test_a_committed_state_of_other_kinds_is_refused(change: dict[str, object]) -> None:
    whole = json.loads(Committed(5, StreamPosition("e", 9), Counted({"r": 3}, {"r": 1.5}), 12, "x").packed())
    for data in (json.dumps(whole | change), "{}", "[]", "none", ""):
        with pytest.raises(FormatError):
            committed_of(data.encode())


@pytest.mark.parametrize("held", [{"x": ["me", 1]}, {"1": ["me"]}, {"1": "me"}, {"1": [2, 1]}, {"1": ["me", "1"]}, []])
def test_a_table_of_leases_of_other_kinds_is_refused(held: object) -> None:
    for data in (json.dumps({"beats": {"me": 1}, "held": held}), json.dumps({"beats": {"me": "1"}, "held": {}}), "{}"):
        with pytest.raises(FormatError):
            leases_of(data.encode())


@pytest.mark.parametrize(
    "text",
    ["", "none", f"main.{'ab' * 8} 1 1", f"berlin.{'AB' * 8} 1 1", f"berlin.{'ab' * 8} 0 1", f"berlin.{'ab' * 8} 1 2",
     f"berlin.{'ab' * 8} x 1", f"berlin.{'ab' * 8} {2**63} 1", f"../../{'ab' * 8} 1 1", f"berlin.{'ab' * 8} 1 1 1"],
)  # fmt: skip
def test_a_site_sends_messages_of_its_own_runs_alone(text: str) -> None:
    with pytest.raises(FormatError):
        label_of(text, "berlin")


def test_batches_of_all_runs_slots_and_numbers_have_ids_of_their_own() -> None:
    runs = ("a.00000000000000ab", "a-b.00000000000000ab", "ab.00000000000000ab", "a.00000000000000ba")
    ids = {MessageLabel(run, number, 1).batch_id(slot) for run in runs for number in (1, 16) for slot in (0, 1, 16)}
    assert len(ids) == 4 * 2 * 3
    assert all(one.isalnum() and one.isascii() for one in ids)


def test_a_site_that_makes_up_runs_forgets_its_own_alone() -> None:
    counted = Counted()
    counted.count(MessageLabel("good.1", 7, 1), 1.0)
    for number in range(RUNS_MAX + 500):
        counted.count(MessageLabel(f"bad.{number}", 1, 1), 2.0 + number)
    assert counted.last["good.1"] == 7 and len(counted.last) == RUNS_MAX + 1
    assert f"bad.{RUNS_MAX + 499}" in counted.last and counted.last.keys() == counted.seen.keys()


def test_a_site_whose_queries_are_old_is_counted_beside_others_that_are_busy() -> None:
    counted = Counted()
    for number in range(RUNS_KEPT + 6):
        counted.count(MessageLabel(f"busy.{number}", 1, 1), 10 * RUNS_KEPT_S)
    for number in (1, 2, 3):
        label = MessageLabel("late.1", number, 1)
        assert counted.step(label) is MessageStep.NEW
        counted.count(label, 8 * RUNS_KEPT_S + number)


class Bucket:
    """The table of leases, and workers with clocks of their own."""

    def __init__(self, slots: int) -> None:
        self.slots, self.table, self.revision = range(slots), Leases(), 1

    def turn(self, keeper: LeaseKeeper, now: float, gives: bool = False) -> None:
        keeper.observe(self.table, self.revision, now)
        table = keeper.next_table(now, 100)
        self.table = table.without(keeper.me, keeper.surplus(now)[:1] if gives else ())
        self.revision += 1
        keeper.wrote(self.table, self.revision, now)


def test_a_dead_worker_is_followed_after_one_lease_and_its_token_is_older() -> None:
    bucket, one, two = Bucket(4), LeaseKeeper("one", range(4), 6.0), LeaseKeeper("two", range(4), 6.0)
    bucket.turn(one, 0.0)
    first = bucket.table.of("one")
    assert sorted(first) == [0, 1, 2, 3]
    for now in range(1000, 1008):  # its clock says something else
        bucket.turn(two, float(now))
        assert (bucket.table.of("two") == {}) == (now - 1000 <= 6)
    assert all(token > first[slot] for slot, token in bucket.table.of("two").items())
    one.observe(bucket.table, bucket.revision, 7.5)
    assert not one.holds(0, 7.5)


def test_nobody_is_taken_for_dead_while_the_bus_was_away() -> None:
    bucket, one, two = Bucket(4), LeaseKeeper("one", range(4), 6.0), LeaseKeeper("two", range(4), 6.0)
    bucket.turn(one, 0.0)
    bucket.turn(two, 0.0)
    bucket.turn(two, 60.0)
    assert len(bucket.table.of("one")) == 4
    assert not one.holds(0, 60.0)  # it stops by itself until it has written again
    bucket.turn(one, 61.0)
    assert one.holds(0, 61.0)


def test_slots_are_handed_over_one_after_the_other_until_all_have_their_share() -> None:
    bucket, one, two = Bucket(8), LeaseKeeper("one", range(8), 6.0), LeaseKeeper("two", range(8), 6.0)
    bucket.turn(one, 0.0)
    counts = []
    for now in range(1, 8):
        bucket.turn(one, float(now), gives=True)
        bucket.turn(two, float(now), gives=True)
        counts.append(len(bucket.table.of("two")))
    assert counts == [0, 1, 2, 3, 4, 4, 4]


def test_a_worker_that_leaves_gives_all_back_at_once() -> None:
    bucket, one, two = Bucket(8), LeaseKeeper("one", range(8), 6.0), LeaseKeeper("two", range(8), 6.0)
    bucket.turn(one, 0.0)
    bucket.turn(two, 0.1)
    bucket.table = bucket.table.without("one")
    bucket.turn(two, 0.2)
    assert sorted(bucket.table.of("two")) == list(range(8)) and "one" not in bucket.table.beats
