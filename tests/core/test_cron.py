from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.cron import cron_trigger
from agents.core.errors import SettingsError

START = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)  # a Wednesday


def fires(expression: str, count: int, zone: str = "UTC", start: datetime = START) -> list[datetime]:
    trigger, found, now = cron_trigger(expression, zone), [], start
    previous = None
    for _ in range(count):
        previous = trigger.get_next_fire_time(previous, now)
        assert previous is not None
        found.append(previous)
        now = previous + timedelta(seconds=1)
    return found


@pytest.mark.parametrize("weekday", ["0", "7", "sun", "SUN"])
def test_sunday_is_sunday(weekday: str) -> None:
    assert fires(f"0 2 * * {weekday}", 2) == [
        datetime(2026, 11, 22, 2, 0, tzinfo=UTC),
        datetime(2026, 11, 29, 2, 0, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("0", [6]),
        ("1-5", [0, 1, 2, 3, 4]),
        ("*/2", [6, 1, 3, 5]),
        ("5-7", [4, 5, 6]),
        ("0,6", [6, 5]),
        ("1-5/2", [0, 2, 4]),
        ("sat,1", [0, 5]),
    ],
)
def test_weekdays_mean_what_cron_means(field: str, meant: list[int]) -> None:
    assert {one.weekday() for one in fires(f"0 2 * * {field}", 7)} == set(meant)


def test_the_hour_that_a_clock_shows_twice_gives_one_run_and_the_hour_it_skips_one_too() -> None:
    twice = fires("30 2 * * *", 2, "Europe/Berlin", datetime(2026, 10, 25, 0, 0, tzinfo=UTC))
    assert twice == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 26, 1, 30, tzinfo=UTC)]
    between = fires("30 2 * * *", 1, "Europe/Berlin", datetime(2026, 10, 25, 1, 10, tzinfo=UTC))
    assert between == [datetime(2026, 10, 26, 1, 30, tzinfo=UTC)], "02:10 for the second time"
    skipped = fires("30 2 * * *", 2, "Europe/Berlin", datetime(2026, 3, 29, 0, 0, tzinfo=UTC))
    assert skipped == [datetime(2026, 3, 29, 1, 0, tzinfo=UTC), datetime(2026, 3, 30, 0, 30, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("expression", "local"),
    [("*/30 2 * * sun", ["02:00", "02:30"]), ("0 1-3 * * *", ["01:00", "02:00", "03:00"]), ("15 2,3 * * *", None)],
)
def test_a_named_hour_that_a_clock_shows_twice_comes_once_whatever_the_minutes_are(
    expression: str, local: list[str] | None
) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = datetime(2026, 10, 24, 21, tzinfo=UTC)
    got = [one.astimezone(zone) for one in fires(expression, 12, "Europe/Berlin", start)]
    day = [one.strftime("%H:%M") for one in got if (one.month, one.day) == (10, 25)]
    assert day == (local or ["02:15", "03:15"])


def test_every_hour_is_every_hour_also_when_a_clock_shows_one_twice() -> None:
    got = fires("0 * * * *", 6, "Europe/Berlin", datetime(2026, 10, 24, 22, 30, tzinfo=UTC))
    assert [(after - before).total_seconds() for before, after in pairwise(got)] == [3600.0] * 5


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(0, 23))
@settings(max_examples=40, deadline=None)
def test_fires_on_exactly_the_days_named(days: list[int], hour: int) -> None:
    expression = f"0 {hour} * * {','.join(map(str, days))}"
    wanted = {(day + 6) % 7 for day in days}  # datetime counts from Monday
    got = fires(expression, len(wanted))
    assert {one.weekday() for one in got} == wanted
    assert all((one.hour, one.minute) == (hour, 0) for one in got)
    assert got[-1] - START <= timedelta(days=8)


def test_day_and_weekday_together_fire_on_either() -> None:
    got = fires("0 2 1 * mon", 3, start=datetime(2026, 11, 27, tzinfo=UTC))
    assert [(one.month, one.day) for one in got] == [(11, 30), (12, 1), (12, 7)]


def test_the_zone_counts_and_summer_time_too() -> None:
    zone = ZoneInfo("Europe/Berlin")
    winter, summer = fires("0 2 * * sun", 30, "Europe/Berlin")[::29]
    assert (winter.astimezone(zone).hour, winter.astimezone(UTC).hour) == (2, 1)
    assert (summer.astimezone(zone).hour, summer.astimezone(UTC).hour) == (2, 0)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "0 2 * *",
        "0 2 * * 8",
        "61 2 * * *",
        "0 2 * * mox",
        "0 2 * * 5-3",
        "0 2 * * */0",
        "0 2 31 2 *",
        "a b c d e",
        "@weekly",
        "0 2 * * sun extra",
        "0 2 * * -",
        "0 2 * * ²",
        "0 2 * * 1,,2",
        "0 0 2 * * sun",
        "0 2 * * fri-sun",
        f"0 2 * * {'1' * 5000}",
    ],
)
def test_a_bad_schedule_names_its_setting(bad: str) -> None:
    with pytest.raises(SettingsError, match="RETRAIN_SCHEDULE") as caught:
        cron_trigger(bad, "UTC")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "x\x00y"])
def test_a_bad_zone_names_its_setting(bad: str) -> None:
    with pytest.raises(SettingsError, match="RETRAIN_TIMEZONE"):
        cron_trigger("0 2 * * sun", bad)


@given(st.text(alphabet="0123456789*/,-sunmotewdhfria", max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_weekday_field_is_read_or_refused(field: str) -> None:
    try:
        cron_trigger(f"0 2 * * {field or 'x'}", "UTC")
    except SettingsError as error:
        assert "RETRAIN_SCHEDULE" in str(error)
