"""Charts of the learning page: what they draw, and that no text in them is markup."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.store.feedback.cycles import CycleStore
from agents.web.charts.learning import labels_chart, measures_chart, origins_of, progress_bar
from tests.web.test_console import World

DAY = 86_400
START = 1_795_000_000 // DAY * DAY


def cycle(at: float, accuracy: float = 0.9, **origins: int) -> dict[str, Any]:
    metrics = {"accuracy": accuracy, "balanced_accuracy": 0.95, "loss": 0.2}
    return {"started_at": at, "metrics": metrics, "origins": origins}


def points(chart: str, kind: str) -> list[tuple[float, float]]:
    (line,) = [one for one in Xml.fromstring(chart).iter("polyline") if one.get("class") == f"line {kind}"]
    return [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]  # type: ignore[misc]


def test_a_measure_that_rises_is_a_line_that_rises() -> None:
    chart = measures_chart(
        [cycle(START, 0.5), cycle(START + DAY, 0.75), cycle(START + 2 * DAY, 1.0)], ("accuracy",), 1.0, "a"
    )
    at = points(str(chart), "s0")
    assert [x for x, _ in at] == sorted(x for x, _ in at)
    heights = [y for _, y in at]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2) and heights[2] < heights[0]
    assert "accuracy 0.750" in chart


def test_a_measure_that_is_none_leaves_a_gap() -> None:
    chart = measures_chart(
        [cycle(START), {"started_at": START, "metrics": {}}, cycle(START, math.nan)], ("accuracy",), 1.0, "a"
    )
    assert len(points(str(chart), "s0")) == 1


def test_labels_are_stacked_by_day_and_origin() -> None:
    cycles = [cycle(START, person=3, rule=1), cycle(START + 3600, person=1), cycle(START + DAY, rule=8)]
    assert origins_of(cycles) == ["rule", "person"]
    bars = list(Xml.fromstring(str(labels_chart(cycles, "l"))).iter("rect"))
    said = [(one.get("class"), one[0].text) for one in bars]
    assert said == [("s0", "11-18: 1 rule"), ("s1", "11-18: 4 person"), ("s0", "11-19: 8 rule")]
    rule, person = bars[0], bars[1]
    assert float(person.get("y", 0)) + float(person.get("height", 0)) == pytest.approx(float(rule.get("y", 0)), abs=0.2)


@given(st.text(), st.floats())
def test_no_text_is_markup(origin: str, number: float) -> None:
    cycles = [cycle(START, number, **{f"x{origin}": 1})]
    for chart in (
        labels_chart(cycles, origin),
        measures_chart(cycles, ("accuracy",), 1.0, origin),
        progress_bar(number, origin),
    ):
        assert not re.search(r"<(?!/?(svg|rect|text|title|line|polyline|circle)[ >/])", str(chart))


def test_the_page_draws_them(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert "<svg" not in world.page("/console/learning").text
    for at in range(3):
        values = cycle(0, **{"a person": 4, "<b>tool</b>": 2}) | {"gates": [], "new_labels": 6, "last_id": 9}
        CycleStore(world.store).add(START + at * DAY, "deployed", values, 100)
    shown = world.page("/console/learning").text
    assert shown.count("<svg") == 3
    assert "a person" in shown and "<b>tool" not in shown and "&lt;b&gt;tool" in shown
    assert not any("style=" in chart or "<script" in chart for chart in re.findall(r"<svg.*?</svg>", shown))
    world.store.close()
