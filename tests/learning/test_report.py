from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from agents.core.drawing.frame import HEIGHT, WIDTH
from agents.core.drawing.logarithmic import trade_chart
from agents.core.types import Gate
from agents.learning import charts
from agents.learning.report import recommendation, render, write_report
from agents.learning.run import Distribution, RunState, TrainingRun
from tests.support import run_samples

RUNS = [run_samples.deployed(), run_samples.rejected(), run_samples.failed()]
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Collects what a page is made of, and that its tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.state.value)
def test_a_page_has_no_script_and_no_outside_address(run: TrainingRun) -> None:
    html = render(run)
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "form", "base", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"src", "href"}]
    assert not re.search(r"https?:|url\(|@import|javascript:", html, re.IGNORECASE)
    policy = dict(page.attributes)["content"]
    policies = [value for name, value in page.attributes if "default-src" in value]
    assert policies == [value for value in policies if value.startswith("default-src 'none'")]
    assert policies, policy
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    assert f"style-src 'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policies[0]
    assert " style=" not in html, "no attribute of that name is in force"
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_hostile_names_are_shown_and_not_obeyed() -> None:
    page = Page(render(run_samples.rejected()))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert not [char for char in page.text if not char.isprintable() and char != "\n"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.state.value)
def test_every_text_of_a_run_is_escaped(run: TrainingRun) -> None:
    evil = "<img src=x onerror=alert(1)>"
    run = replace(run, error=evil, warnings=(evil,), champion={evil: evil, "features": [evil]}, paths={evil: evil})
    if run.validation:
        gate = Gate(evil, 1.0, 0.5, True, evil)
        run = replace(run, validation=replace(run.validation, gates=(gate,), blind_spots=(evil,)))
    assert "img" not in Page(render(run)).tags


def test_the_decision_comes_first_and_everything_is_there() -> None:
    text = Page(render(run_samples.rejected())).text
    assert text.index("REJECTED") < text.index("Gates")
    for part in (
        "0.9731",
        "≥ 0.99",
        "-0.0169",
        "24 of 24 captures",
        "aaaabbbbccccddddeeeeffffgggg.malware.net",
        "0.270",
        "9,412",
        "588",
        "214",
        "1,802",
        "11-14",
        "isolation forest",
        "bigram_surprise",
        "fedcba9876543210",
        "0123456789abcdef",
        "scikit-learn",
        "/app/models/isolation_forest.npz",
        "names of 9 bytes or less",
        "Do not deploy",
        "cannot send to teams",
        "SUSPICIOUS",
        "10.0%",
    ):
        assert part in text, part


def test_a_failed_run_says_why() -> None:
    text = Page(render(run_samples.failed())).text
    assert "cannot reach the database: connection refused" in text
    assert "“collect”" in text


def test_a_waiting_run_names_the_commands() -> None:
    text = Page(render(replace(run_samples.deployed(), state=RunState.WAITING))).text
    assert "dns-tunnel models approve fedcba9876543210" in text


def test_a_case_that_the_old_model_misses_too_is_not_blamed_on_the_sample() -> None:
    run = run_samples.rejected()
    found = run.validation
    assert found is not None

    def advice(old_score: float, gates: tuple[Gate, ...]) -> str:
        cases = tuple(one if one.passed else replace(one, champion_score=old_score) for one in found.cases)
        return recommendation(replace(run, validation=replace(found, cases=cases, gates=gates)))

    of_cases = (Gate("wrong validation cases", 1, 0, False),)
    assert re.search(r"The old model misses .*evil\.com too, so the sample is not the cause", advice(0.3, of_cases))
    assert "look at the sample" not in advice(0.3, of_cases).lower()
    assert "For the rest look at the sample" in advice(0.3, found.gates)
    assert "Look at the sample first" in advice(0.9, of_cases)


def test_what_is_deployed_is_not_to_be_deployed_again() -> None:
    text = recommendation(run_samples.deployed())
    assert "Watch the incidents for 48 hours" in text
    assert "Deploy," not in text


def test_limits_stand_in_one_readable_row() -> None:
    text = Page(render(run_samples.with_limits(days=14, flows=10))).text
    assert re.search(r"factor [\d.]+, by 14 days of history, for 3 investigations a week", text)
    assert "factor 1, as every model begins" in text


def test_both_files_are_written_beside_each_other_and_say_the_same(tmp_path: Path) -> None:
    html, data = write_report(tmp_path / "reports" / "training_reports", run_samples.rejected())
    assert html.name == "training_report_20261120_020000.html"
    assert data == html.with_suffix(".json")
    run = json.loads(data.read_text())
    assert run["state"] == "REJECTED"
    assert run["passed"] is False
    assert run["validation"]["gates"][0]["margin"] == pytest.approx(-0.0169)
    assert run["validation"]["cases"][4]["severity"] == "NORMAL"
    assert sorted(path.name for path in html.parent.iterdir()) == [html.name, data.name]


def test_a_run_with_nothing_in_it_still_has_a_page() -> None:
    run = TrainingRun("20261120_020000", RunState.FAILED, 0.0, run_samples.deployed().options)
    assert "FAILED" in Page(render(run)).text


def bars(svg: str, kind: str) -> list[float]:
    root = ElementTree.fromstring(svg)
    return [float(rect.get("height", "")) for rect in root.iter("rect") if rect.get("class") == kind]


def test_bars_grow_with_their_counts() -> None:
    svg = charts.histogram((1000, 10, 0), (100, 1, 5), (0.5,), "x")
    old, new = bars(svg, "c-old"), bars(svg, "c-new")
    assert old[0] > new[0] > old[1] > new[2] > new[1] > old[2] == 0


@pytest.mark.parametrize("counts", [(), (0,), (10**12, 1)])
def test_charts_take_any_counts(counts: tuple[int, ...]) -> None:
    ElementTree.fromstring(charts.histogram(counts, counts, (0.5,), "<&>"))
    ElementTree.fromstring(charts.grouped([f"<{at}>" for at in counts], counts, counts, "x"))
    ElementTree.fromstring(charts.days([("2026-11-14", count) for count in counts], "x"))


def test_the_charts_marks_are_the_scores_of_the_run() -> None:
    run = run_samples.deployed()
    usual, own = (
        Page(render(replace(run, options=replace(run.options, scores=scores)))).text
        for scores in ((0.5, 0.7, 0.9), (0.35, 0.62, 0.81))
    )
    assert "left of 0.5;" in usual and "left of 0.35;" in own
    for mark in ("0.35", "0.62", "0.81"):
        assert mark in own.partition("Score distribution")[2]


def test_the_trade_is_a_curve_with_the_budget_and_the_choice() -> None:
    html = render(run_samples.with_limits(days=14, flows=10))
    text = Page(html).text
    limits = run_samples.with_limits(14, 10).candidate["limits"]
    factor = limits["factor"]
    assert 0.5 < factor < 2
    assert f"up to {400 * factor:,.0f} bytes of encoded data a day" in text
    spent = dict(map(tuple, limits["curve"]))[factor]
    assert f"in 14 days of history these limits would have asked for {spent:g} investigations a week" in text
    assert "of a budget of 3." in text
    assert "budget: 3 a week" in text
    assert "limits: curve" not in text, "it is drawn"
    assert f"{400 * factor:,.0f}: {spent:,.2f}" in text


def trade(points: list[tuple[float, float]], chosen: float, limit: float) -> ElementTree.Element:
    return ElementTree.fromstring(trade_chart(points, chosen, limit, ("<budget>", "<x>"), "x"))


def test_a_trade_falls_from_left_to_right_and_marks_what_was_chosen() -> None:
    points = [(200.0, 40.0), (400.0, 2.0), (600.0, 0.25), (800.0, 0.0)]
    root = trade(points, 400.0, 2.0)
    (path,) = root.iter("polyline")
    xs, ys = zip(*(map(float, point.split(",")) for point in path.get("points", "").split()), strict=True)
    assert list(xs) == sorted(set(xs))
    assert list(ys) == sorted(set(ys))
    upwards, across = (line for line in root.iter("line") if line.get("class") == "limit")
    assert float(upwards.get("x1", "")) == pytest.approx(xs[1])
    assert float(across.get("y1", "")) == pytest.approx(ys[1])
    radii = [float(dot.get("r", "")) for dot in root.iter("circle")]
    assert radii.index(max(radii)) == 1


@pytest.mark.parametrize("limit", [0.0, 3.0, 1e6])
def test_a_trade_stays_inside_its_chart(limit: float) -> None:
    root = trade([(200.0, 0.01), (400.0, 1e5)], 300.0, limit)
    for dot in root.iter("circle"):
        assert 0 <= float(dot.get("cx", "")) <= WIDTH
        assert 0 <= float(dot.get("cy", "")) <= HEIGHT
    assert all(0 <= float(line.get("y1", "")) <= HEIGHT for line in root.iter("line"))


@pytest.mark.parametrize(
    ("days", "said"), [(0, "rests on no history yet"), (6, "rests on 6 of the 7 days of history that it takes")]
)
def test_without_history_there_is_a_sentence_and_no_curve(days: int, said: str) -> None:
    html = render(run_samples.with_limits(days, flows=days))
    text = Page(html).text
    assert said in text
    assert "up to 400 bytes of encoded data a day" in text
    assert "<polyline" not in html


def test_a_budget_that_no_limit_keeps_to_is_said() -> None:
    run = run_samples.with_limits(7, flows=0)
    limits = {**run.candidate["limits"], "factor": 2.0, "curve": [[0.5, 9.0], [2.0, 4.0]]}
    assert (
        "4 investigations a week, of a budget of 3, and looser limits"
        in Page(render(replace(run, candidate={"limits": limits}))).text
    )


def test_a_model_without_limits_of_its_own_has_no_such_section() -> None:
    assert "can leave unseen" not in Page(render(run_samples.deployed())).text


@pytest.mark.parametrize("value", [0.0, -3.0, 1e300, float("nan"), float("inf")])
def test_a_gates_bar_stays_inside_its_track(value: float) -> None:
    svg = charts.gate_bar(value, 0.5, passed=False)
    root = ElementTree.fromstring(svg)
    assert all(0 <= float(rect.get("width", "")) <= 180 for rect in root.iter("rect"))


def test_numbers_that_are_not_finite_are_null_in_json() -> None:
    run = run_samples.deployed()
    assert run.validation is not None
    nan = replace(run.validation, gates=(Gate("g", float("nan"), 0.5, True),), new=Distribution((), ()))
    data = json.dumps(replace(run, validation=nan).to_json(), allow_nan=False)
    gate = json.loads(data)["validation"]["gates"][0]
    assert (gate["value"], gate["passed"]) == (None, False)
    assert "NaN" not in data
    render(replace(run, validation=nan))


def test_what_is_the_same_in_both_models_is_folded_away() -> None:
    run = replace(run_samples.deployed(), champion={"seed": 1, "limits": {"factor": 1.0}}, candidate={"seed": 2})
    html = render(replace(run, candidate={"seed": 2, "limits": {"factor": 1.0}}))
    shown, _, folded = html.partition("Old and new model</h2>")[2].partition("<details>")
    assert "seed" in shown and "limits" not in shown
    assert "The same in both: 1" in folded and "limits" in folded.partition("</details>")[0]
    assert "No difference." in render(replace(run, candidate=run.champion, candidate_id=run.champion_id))
