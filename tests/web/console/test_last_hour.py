"""The last hour on the console's first page: over reloads and restarts, gaps as gaps, in few bytes."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from pathlib import Path

import httpx
import pytest

from agents.web import create_app
from agents.web.app import Parts
from agents.web.console import live
from agents.web.console.last_hour import JOINED_S, LAST_HOUR, SLOT_S, SLOTS, SUMS, LastHour, RateSlot
from agents.web.console.live import hour_html
from tests.web.test_console import HTML, World

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _in_the_middle_of_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock stands still, so that no slot ends meanwhile."""
    now = time.time() // SLOT_S * SLOT_S + SLOT_S / 2
    monkeypatch.setattr(time, "time", lambda: now)


def counted(queries: float, up: float = 1.0, **more: float) -> dict[str, float]:
    """What /metrics says of the counters that the strip reads."""
    return {"detector_up": up, "detector_scored_total": queries, **more}


def filled(hour: LastHour, minutes: int, *, ago: int = 0, rate: float = 10.0) -> None:
    """Readings of so many minutes that ended some minutes ago, each ten seconds after the other."""
    end = time.time() - 60 * ago
    for at in range(-60 * minutes, 1, 10):
        queries = rate * (at + 60 * minutes)
        seconds = {"detector_answers_timed_total": queries, "detector_answer_seconds_total": queries * 0.012}
        hour.note(counted(queries, **seconds), end + at, 1e6 - 60 * ago + at)


def slot(queries: float = 0.0, seconds: float = SLOT_S, **sums: float) -> RateSlot:
    return RateSlot(seconds, dict.fromkeys(SUMS, 0.0) | {"queries": queries} | sums)


def test_an_hour_is_kept_by_half_minutes_and_what_is_older_goes() -> None:
    hour = LastHour()
    filled(hour, 70)
    slots = hour.look()[1]
    assert len(slots) == SLOTS == 3600 // SLOT_S
    assert None not in slots
    rates = [round(one.rate("queries"), 6) for one in slots if one is not None]
    assert set(rates) == {10.0}
    assert {round(one.latency_ms or 0, 6) for one in slots if one is not None} == {12.0}


def test_what_was_counted_lately_is_a_rate_and_old_readings_are_none() -> None:
    hour, at = LastHour(), time.monotonic()
    for back in (14, 12, 10, 8, 6, 4, 2, 0):
        hour.note(counted(100 - 5 * back, detector_high_total=14 - back), time.time() - back, at - back)
    lately, _ = hour.look()
    assert lately is not None and 10 <= lately.seconds <= 12
    assert lately.rate("queries") == pytest.approx(5) and lately.rate("high") == pytest.approx(1)
    old = LastHour()
    for back in (70, 60):
        old.note(counted(-5 * back), time.time() - back, at - back)
    assert old.look()[0] is None


@pytest.mark.parametrize(
    ("second", "at"),
    [(counted(50), JOINED_S + 1), (counted(3), 10.0), (counted(50, up=0.0), 10.0), ({}, 10.0)],
    ids=["far apart", "began anew", "detector is away", "nothing is said"],
)
def test_what_is_not_known_is_a_gap_and_no_zero(second: dict[str, float], at: float) -> None:
    hour, now = LastHour(), time.time()
    hour.note(counted(40), now - at, 100.0)
    hour.note(second, now, 100.0 + at)
    lately, slots = hour.look()
    assert lately is None and set(slots) == {None}
    hour.note(counted(90), now, 200.0 + at)
    hour.note(counted(90), now, 205.0 + at)
    assert [one.rate("queries") for one in hour.look()[1] if one is not None] == [0.0]


def test_it_outlives_the_process_and_the_time_between_is_a_gap(tmp_path: Path) -> None:
    before = LastHour(tmp_path / LAST_HOUR)
    filled(before, 20, ago=10)
    before.write()
    after = LastHour(tmp_path / LAST_HOUR)
    assert after.look()[1] == before.look()[1]
    filled(after, 2, rate=3.0)
    slots = after.look()[1]
    shown = "".join("-" if one is None else "x" for one in slots)
    found = re.fullmatch("-{59}x{41}-{15}x{5}", shown)
    assert found, shown


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"slots": 3}', "{",
        json.dumps({"names": list(SUMS), "slots": {"1": [30]}}),
        json.dumps({"names": list(SUMS), "slots": {"x": [30] * (len(SUMS) + 1)}}),
        json.dumps({"names": list(SUMS), "slots": {"1": [0] * (len(SUMS) + 1)}}),
        json.dumps({"names": list(SUMS), "slots": {"1": [float("nan")] * (len(SUMS) + 1)}}),
        json.dumps({"names": list(SUMS), "slots": {"9" * 5000: [30] * (len(SUMS) + 1)}}),
        json.dumps({"names": ["queries"], "slots": {"1": [30, 4]}}),
    ],
)  # fmt: skip
def test_a_damaged_file_is_no_hour(tmp_path: Path, text: str) -> None:
    (tmp_path / LAST_HOUR).write_text(text)
    assert set(LastHour(tmp_path / LAST_HOUR).look()[1]) == {None}


def test_the_charts_show_gaps_severities_and_zeros() -> None:
    slots = [None] * 60 + [slot()] * 20 + [slot(300, high=1, suspicious=5)] * 10 + [slot(600)] * 30
    text = hour_html(slots)
    queries, latency, lost = re.findall("<svg.*?</svg>", text)
    assert '<path class="gap" d="M0 48V0h60V48z"/>' in queries and 'class="gap"' in latency and 'class="gap"' in lost
    assert '<path class="plain" d="M60 48V47h20V48zM90 48V0h30V48z"/>' in queries, "zero is shown, for it is known"
    assert '<path class="high" d="M80 48V24h10V48z"/>' in queries and 'class="suspicious"' not in queries
    assert 'class="took"' not in latency and "shed, 0, and spooled, 0; unknown for 30 minutes" in lost
    assert text.count("<i>60 min ago</i><i>now</i>") == 3 and text.count("<i>0</i>") == 3, "each has its scale"
    assert "<i>20 queries a second</i>" in text and "<i>queries a second</i>" in text and "<i>ms</i>" in text
    assert "at most 20" in text and "10 HIGH" in text and "50 SUSPICIOUS" in text
    assert "Of 30 minutes nothing is known (grey bands)" in text
    assert "Nothing is known of it yet" in hour_html([None] * SLOTS)


def test_an_hour_that_is_never_even_stays_small() -> None:
    levels = ("suspicious", "high", "critical", "shed")
    slots = [
        slot(
            1e6 + number * 7919 % 1e6, timed=9, answer_s=number * 31 % 17, spooled=number % 7, **{levels[number % 4]: 1}
        )
        if number % 5
        else None
        for number in range(SLOTS)
    ]
    assert len(hour_html(slots).encode()) < 8_000
    assert len(hour_html([slot(30, timed=30, answer_s=0.4)] * SLOTS).encode()) < 2_000


def world_of(folder: Path) -> World:
    made = World(folder)
    values = {field.name: getattr(made.parts, field.name) for field in dataclasses.fields(made.parts)}
    made.parts = Parts(**values | {"last_hour": LastHour(folder / LAST_HOUR)})
    made.app = create_app(made.parts)
    return made


def hour_of(answer: httpx.Response) -> str:
    found = re.search('<div id="hour"[^>]*>(.*?)<p class="hint">The last hour', answer.text, re.DOTALL)
    assert found is not None, answer.text
    return found[1]


@pytest.mark.slow
def test_a_page_without_script_shows_the_hour_and_so_does_the_next_process(tmp_path: Path) -> None:
    first = world_of(tmp_path)
    filled(first.parts.last_hour, 30)
    shown = hour_of(first.page("/"))
    assert "Queries a second, at most 10" in shown and "12.0 ms on average" in shown
    assert hour_of(first.page("/")) == shown
    first.parts.last_hour.write()
    first.store.close()
    (tmp_path / "training_reports").rmdir()
    second = world_of(tmp_path)
    assert hour_of(second.page("/")) == shown
    second.store.close()


@pytest.mark.slow
def test_a_stream_sends_charts_once_and_small_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STREAM_S", 0.9)
    monkeypatch.setattr(live, "STRIP_EVERY_S", 0.2)
    monkeypatch.setattr(live, "CLOSING_S", 0.1)
    world = world_of(tmp_path)
    filled(world.parts.last_hour, 60)
    answer = world.call("GET", "/console/events", headers=HTML | {"Cookie": world.cookie()})
    events = answer.text.split("\n\n")
    strips = [one for one in events if one.startswith("event: strip\n")]
    hours = [one for one in events if one.startswith("event: hour\n")]
    assert len(strips) >= 2 and len(hours) == 1
    assert max(len(one) for one in strips) < 1_500 and len(hours[0]) < 3_000
    assert all(line.startswith(("event: ", "data: ", "retry: ")) for line in answer.text.splitlines() if line)
    world.store.close()


def test_readings_are_rarer_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    now, taken = [1000.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    hour = LastHour()

    def ticks(count: int) -> int:
        taken.clear()
        for _ in range(count):
            hour.read_when_due(lambda: taken.append(now[0]) or ())  # type: ignore[func-returns-value]
            now[0] += 2.0
        return len(taken)

    assert ticks(50) == 10
    hour.look()
    assert ticks(5) == 5
    ticks(10)
    assert ticks(50) == 10
