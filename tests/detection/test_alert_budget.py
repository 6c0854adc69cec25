"""The alert budget: the tightest limits that it can pay for, from the network's own history."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.npz import FormatError
from agents.core.types import DAY_S, batch_of
from agents.detection.limits import (
    DAYS_MIN,
    FACTOR_MAX,
    FACTOR_MIN,
    KEPT_DAYS,
    LOOSE_CROWD_MIN,
    PEAKS_MAX,
    Peaks,
    Scale,
    choose,
    load_peaks,
)
from tests.support.detecting import START, fresh_detector, query, shipped_model


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


def recurring(clients: int, domains: int, days: int, ratio: float = 1.9, loud: range | None = None) -> Peaks:
    """Pairs of a client and a domain that reach `ratio` on each day of `loud`; the other days are quiet."""
    peaks = Peaks()
    for day in range(days):
        peaks.note(day * DAY_S, "quiet", "quiet.test", 0.0)
        for i in range(max(clients, domains) if day in (loud or range(days)) else 0):
            peaks.note(day * DAY_S, f"192.0.2.{i % clients}", f"busy{i % domains}.test", ratio)
    return peaks


def test_a_flow_that_is_loud_on_each_day_counts_each_day() -> None:
    """Ten flows on each of 28 days are 280 incidents, 70 a week, and not 2.5."""
    choice = choose(recurring(10, 1, days=28), 3)
    assert dict(choice.curve)[1.0] == 70.0
    assert choice.factor == 1.0


def test_a_network_within_its_budget_keeps_tight_limits_all_the_same() -> None:
    assert choose(recurring(10, 10, days=28, ratio=0.7), 3).factor == 0.8


def test_four_decoys_in_eight_days_loosen_nothing() -> None:
    assert choose(history([5.0] * 4, days=8), 3).factor == 1.0
    assert choose(history([5.0] * 400, days=28), 3).factor == 1.0, "one domain"


@pytest.mark.parametrize(("clients", "domains"), [(1, 1), (1, 200), (200, 1), (LOOSE_CROWD_MIN - 1, 200)])
def test_few_clients_or_few_domains_loosen_nothing(clients: int, domains: int) -> None:
    assert choose(recurring(clients, domains, days=28), 0).factor == 1.0


def test_one_client_with_many_domains_beside_one_domain_of_many_clients_loosens_nothing() -> None:
    peaks = recurring(50, 1, days=28)
    for day in range(28):
        for i in range(50):
            peaks.note(day * DAY_S, "198.51.100.1", f"decoy{i}.test", 5.0)
    assert choose(peaks, 0).factor == 1.0


def test_a_loud_week_loosens_nothing() -> None:
    assert choose(recurring(50, 50, days=28, loud=range(21, 28)), 3).factor == 1.0
    assert choose(recurring(50, 50, days=13), 3).factor == 1.0, "one whole week is no history to loosen by"


def test_a_crowd_in_every_week_loosens_as_far_as_it_is_loud_and_no_further() -> None:
    assert choose(recurring(LOOSE_CROWD_MIN, LOOSE_CROWD_MIN, days=14, ratio=1.25), 3).factor == 1.3
    assert choose(recurring(40, 40, days=28, ratio=50.0), 3).factor == FACTOR_MAX
    assert choose(recurring(40, 40, days=28, ratio=50.0), 40 * 7).factor == FACTOR_MIN


def test_the_count_is_that_of_the_incidents_which_a_detector_opens() -> None:
    """One client asks for 14 encoded names below one domain on each of 14 days: 14 incidents, 7 a week."""
    detector = fresh_detector(shipped_model(), Scale())
    opened = set()
    for day in range(14):
        names = [f"{hashlib.sha256(f'{day} {i}'.encode()).hexdigest()[:48]}.busy.test" for i in range(14)]
        rows = [query(START + day * DAY_S + 60.0 * i, "192.0.2.1", name) for i, name in enumerate(names)]
        opened |= {one.incident_id for one in detector.detect(batch_of(rows)).incidents}
    choice = choose(detector.peaks, 3)
    assert len(opened) == 14
    assert dict(choice.curve)[1.0] == 7.0
    assert choice.factor == 1.0


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
    with pytest.raises(FormatError):
        load_peaks(data)
