"""Windows and what a flow remembers: sums against naive ones, and every bound of a flow."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.detection.counting import window_kernels
from agents.detection.counting.flow_kernels import SAMPLES
from agents.detection.counting.seen_kernels import EXACT_MAX, SKETCH
from agents.detection.limits import ENCODED_BYTES, INFORMATION_BYTES
from agents.detection.state import NONE, QTYPES_MAX, SUMS, WINDOWS, WINDOWS_S, Kind
from tests.support.judged import START, Judged, ask, key_of
from tests.support.plain_flow import Part, Query
from tests.support.siphash import siphash

UNHURRIED = settings(deadline=None, max_examples=200)
EVENTS = st.lists(st.tuples(st.floats(0, 300), st.floats(0, 100)), min_size=1, max_size=60)
EXACT = 1e-5
"""Sums are kept in 32 bits."""


class Window:
    """One of a flow's windows, as the kernels keep it."""

    def __init__(self, seconds: int = 60) -> None:
        self._number = WINDOWS_S.index(seconds)
        self._row = np.zeros(1, WINDOWS)[0]
        self._row["bucket"] = NONE

    def add(self, ts: float, *amounts: float) -> None:
        window_kernels.add(self._row, ts, np.array([*amounts, *[0.0] * (SUMS - len(amounts))], np.float32))

    def sums(self, ts: float) -> list[float]:
        out = np.zeros(SUMS)
        window_kernels.sums(self._row, ts, self._number, out)
        return out.tolist()


@given(EVENTS)
@UNHURRIED
def test_a_windows_sum_is_its_bucket_and_its_share_of_the_one_before(events: list[tuple[float, float]]) -> None:
    window, ts = Window(), START
    buckets: defaultdict[int, float] = defaultdict(float)
    for gap, amount in events:
        ts += gap
        window.add(ts, amount, amount / 2, 1, 1)
        now = math.floor(ts / 60)
        buckets[now] += amount
        expected = buckets[now] + (1 - (ts / 60 - now)) * buckets[now - 1]
        information, encoded, names, encoded_names, answers, choice, unnumbered = window.sums(ts)
        assert information == pytest.approx(expected, rel=EXACT, abs=1e-6)
        assert encoded == pytest.approx(expected / 2, rel=EXACT, abs=1e-6)
        assert names == encoded_names <= len(events)
        assert answers == choice == unnumbered == 0


@given(EVENTS)
@UNHURRIED
def test_a_window_sees_half_of_what_was_sent_within_its_length_and_nothing_twice_as_old(
    events: list[tuple[float, float]],
) -> None:
    """The bound that two buckets cost: never more than 2 windows are in it, never less than the bucket's part."""
    window, ts, sent = Window(), START, []
    for gap, amount in events:
        ts += gap
        sent.append((ts, amount))
        window.add(ts, amount)
        found = window.sums(ts)[0]
        assert found <= sum(amount for at, amount in sent if at > ts - 120) * (1 + EXACT) + 1e-6
        assert found >= sum(a for at, a in sent if math.floor(at / 60) == math.floor(ts / 60)) * (1 - EXACT) - 1e-6


def test_a_steady_sender_cannot_hide_between_buckets() -> None:
    window, least = Window(), math.inf
    for second in range(600):
        window.add(START + second, 1.0)
        if second > 120:
            least = min(least, window.sums(START + second)[0])
    assert least >= 59


def test_sums_fall_to_nothing_once_all_is_old() -> None:
    window = Window()
    window.add(START, 10.0, 5.0, 1, 1)
    assert window.sums(START)[0] == 10
    assert window.sums(START + 61)[0] <= 10
    assert not any(window.sums(START + 181))


def test_a_clock_that_was_set_back_freezes_nothing() -> None:
    window = Window(3600)
    window.add(START + 400 * 86_400, 500.0, 500.0, 1, 1)
    window.add(START, 1.0)
    assert window.sums(START + 3 * 3600)[0] == 0


@pytest.mark.slow
@given(st.lists(st.integers(0, 30), min_size=1, max_size=120), st.booleans())
@UNHURRIED
def test_a_flows_sums_are_those_of_its_first_occurrences(numbers: list[int], at_once: bool) -> None:
    judged = Judged()
    queries = [ask(number) for number in numbers]
    for batch in [queries] if at_once else [[query] for query in queries]:
        judged.ask(*batch)
    flow, names = judged.view(), len(set(numbers))
    assert (flow.queries, flow.names, flow.encoded_names) == (len(numbers), names, names)
    assert flow.leaked_bytes == flow.encoded_bytes == 10 * names


def test_every_window_counts_a_name_once() -> None:
    for seconds in WINDOWS_S:
        judged = Judged()
        gap = {60: 1, 600: 12, 3600: 90, 86_400: 2000, 604_800: 14_000}[seconds]
        for number in range(40):
            (found,) = judged.ask(ask(number, START + number * gap, bits=8 * ENCODED_BYTES[seconds] / 20))
            judged.ask(ask(number, START + number * gap))
            if found.ratio >= 1:
                break
        assert found.ratio >= 1 and number < 39, "the sum of this window or of a longer one reaches its limit"
        assert found.window_s >= seconds or found.kind == Kind.FRESH


def test_a_known_label_below_a_new_name_carries_only_which_one_it_is() -> None:
    judged = Judged()

    def pair(label: str) -> Query:
        name = f"{label}.x"
        parts = (Part(key_of(f".{label}"), 80.0, True), Part(key_of(".x"), 40.0, True))
        return Query(START, "192.0.2.7", name.encode(), key_of(name), key_of("evil.com"), parts)

    judged.ask(pair("a"))
    assert (judged.view().leaked_bytes, judged.view().encoded_bytes) == (15, 15)
    judged.ask(pair("b"))
    assert judged.view().leaked_bytes == pytest.approx(15 + (80 + math.log2(1 + 2)) / 8)
    assert judged.view().encoded_bytes == 15 + 10


def test_a_domain_itself_carries_nothing_and_is_no_flow() -> None:
    judged = Judged()
    judged.ask(Query(START, "192.0.2.7", b"", key_of("evil.com"), key_of("evil.com"), ()))
    assert not judged.knows()
    judged.ask(ask("a"), Query(START, "192.0.2.7", b"", key_of("evil.com"), key_of("evil.com"), (), qtype=16))
    assert (judged.view().queries, judged.view().names) == (2, 1)


def test_a_discount_divides_what_counts_and_not_what_left() -> None:
    plain, discounted = Judged(), Judged()
    for number in range(5):
        (full,) = plain.ask(ask(number))
        (part,) = discounted.ask(ask(number, discount=20.0))
    assert part.ratio == pytest.approx(full.ratio / 20, rel=EXACT)
    assert part.amount == pytest.approx(full.amount / 20, rel=EXACT)
    assert discounted.view() == plain.view()
    assert plain.view().leaked_bytes == 50


def test_samples_and_types_are_bounded_and_the_first_ones() -> None:
    judged = Judged()
    for number in range(100):
        judged.ask(ask(number, qtype=1 + number % (QTYPES_MAX + 9)))
    flow = judged.view()
    assert [wire for wire, _ in flow.samples] == [ask(number).wire for number in range(SAMPLES)]
    assert [qtype for _, qtype in flow.samples][:3] == [1, 2, 3]
    assert len(flow.qtypes) == QTYPES_MAX
    assert flow.qtypes[1] == 4


def test_what_shows_nothing_keeps_no_samples() -> None:
    judged = Judged()
    judged.ask(ask("www", bits=8.0, encoded=False))
    assert judged.view().samples == () and not judged.view().qtypes
    judged.ask(ask("a" * 20, encoded=True))
    assert len(judged.view().samples) == 1


def test_time_that_goes_backwards_is_no_crash() -> None:
    judged = Judged()
    judged.ask(ask(1), ask(2, START - 5000), ask(3, -START), ask(4, 0.0))
    assert judged.view().last_seen == START
    assert judged.view().leaked_bytes == 40


def test_memory_beyond_its_exact_part_is_a_filter_that_knows_all_it_saw() -> None:
    judged, count = Judged(), 4 * EXACT_MAX
    names = [ask(number, bits=8.0) for number in range(count)]
    judged.ask(*names[: EXACT_MAX // 2])
    assert judged.view().names == EXACT_MAX // 2, "a name and a label each: all of them, one by one"
    judged.ask(*names)
    row = judged.flows.find("192.0.2.7", key_of("evil.com"))
    assert row is not None and judged.flows.state.flows[row]["size"] == SKETCH
    seen = judged.view().names
    assert 0.98 * count < seen <= count, "few new ones are overlooked"
    judged.ask(*names)
    assert judged.view().names == seen, "none that was seen is new"


def test_a_tunnel_of_many_names_is_still_counted_in_the_sketch() -> None:
    judged = Judged()
    judged.ask(*(ask(number) for number in range(3 * EXACT_MAX)))
    assert judged.view().leaked_bytes > 0.95 * 10 * 3 * EXACT_MAX


@pytest.mark.slow
def test_memory_of_a_loud_flow_does_not_fill_up() -> None:
    judged, size = Judged(), 5_000
    for start in range(0, 75_000, size):
        before = judged.view().names if start else 0
        judged.ask(*(ask(number, bits=1.0) for number in range(start, start + size)))
    assert judged.view().names - before > 0.85 * size, "what is new late is still seen as new"
    before = judged.view().names
    judged.ask(*(ask(number, bits=1.0) for number in range(start + size - 1000, start + size)))
    assert judged.view().names == before, "and what was just seen is not"


def test_an_answer_counts_once_by_name_type_and_size() -> None:
    judged = Judged()
    query = ask("a", qtype=16, rlen=1400)
    judged.ask(query, query, query)
    once = judged.view().bytes_in
    assert 1300 < once < 1400
    judged.ask(ask("a", qtype=16, rlen=1401), ask("a", qtype=10, rlen=1400), ask("a", qtype=1, rlen=1400))
    assert judged.view().bytes_in == 3 * once + 1, "another size or type is new, an address carries nothing"


def test_a_limit_is_of_what_leaves_in_words_too() -> None:
    judged = Judged()
    count = int(INFORMATION_BYTES[60] / 10)
    found = judged.ask(*(ask(number, encoded=False) for number in range(count)))
    assert [one.ratio >= 1 for one in found] == [False] * (count - 1) + [True]
    assert found[-1].kind == Kind.INFORMATION


def test_keys_are_the_same_in_every_process() -> None:
    assert siphash(b"\x03www\x07example\x03com", (0, 0)) == 0x4EA6512FBDA56370
