"""The alert budget: the tightest limits that it can pay for, from the network's own history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.detection.limits import (
    DAY_S,
    DAYS_MIN,
    FACTOR_MAX,
    FACTOR_MIN,
    KEPT_DAYS,
    PEAKS_MAX,
    Peaks,
    choose,
    load_peaks,
)


def history(ratios: list[float], days: int = 14) -> Peaks:
    peaks = Peaks()
    for day in range(days):
        peaks.note(day * DAY_S, "quiet", "quiet.test", 0.0)
    for i, ratio in enumerate(ratios):
        peaks.note((i % days) * DAY_S, f"192.0.2.{i}", "busy.test", ratio)
    return peaks


def test_a_quiet_network_gets_the_tightest_limits() -> None:
    assert choose(history([]), 3).factor == FACTOR_MIN


def test_a_network_too_young_to_judge_keeps_the_limits() -> None:
    assert choose(history([1.9] * 50, days=DAYS_MIN - 1), 3).factor == 1.0


def test_ten_flows_between_limits_cost_what_they_cost() -> None:
    limits = choose(history([0.85] * 10), budget_per_week=3)
    assert limits.factor == 0.9
    assert dict(limits.curve)[0.8] == 5.0
    assert dict(limits.curve)[0.9] == 0.0
    assert choose(history([0.85] * 10), budget_per_week=5).factor == FACTOR_MIN


def test_nobody_can_talk_the_limits_away() -> None:
    assert choose(history([50.0] * 200), 1).factor == FACTOR_MAX


@given(st.lists(st.floats(0, 5), max_size=40), st.floats(0, 10), st.floats(0, 10))
def test_a_larger_budget_never_loosens(ratios: list[float], one: float, other: float) -> None:
    small, large = sorted((one, other))
    peaks = history(ratios)
    assert choose(peaks, large).factor <= choose(peaks, small).factor


def test_peaks_are_bounded_and_keep_the_loudest() -> None:
    peaks = Peaks()
    for i in range(PEAKS_MAX + 5):
        peaks.note(0, "192.0.2.1", f"{i}.test", 0.3)
    peaks.note(0, "192.0.2.1", "loud.test", 4.0)
    for i in range(PEAKS_MAX):
        peaks.note(0, "192.0.2.2", f"{i}.test", 0.3)
    assert len(peaks.rows) <= PEAKS_MAX
    assert peaks.rows[0, "192.0.2.1", "loud.test"] == 4.0


def test_what_is_dumped_comes_back_but_for_what_is_old() -> None:
    peaks = history([0.9, 1.4])
    for day in range(KEPT_DAYS):
        peaks.note((day + 20) * DAY_S, "192.0.2.9", "new.test", 0.7)
    back = load_peaks(peaks.dump())
    assert back.rows[KEPT_DAYS + 19, "192.0.2.9", "new.test"] == 0.7
    assert min(back.days) == 20
    assert len(back.days) == KEPT_DAYS


def test_a_clock_gone_wrong_for_a_moment_costs_a_day_of_history_and_no_more() -> None:
    peaks = history([0.9, 1.4])
    peaks.note(4_000_000_000.0, "192.0.2.9", "future.test", 0.7)
    assert len(load_peaks(peaks.dump()).days) == 15


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"days": [1], "peaks": [[1, 2]]}', b'{"days": 3, "peaks": []}'])
def test_a_damaged_file_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        load_peaks(data)
