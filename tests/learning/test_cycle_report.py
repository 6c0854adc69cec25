"""The report of a cycle: what it says of each kind, what it never holds, and which reports stay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.core.types import ChannelResult, Gate, Message
from agents.learning.comparison.bounds import GateBounds
from agents.learning.cycle_report import CYCLE_REPORTS_KEPT, CycleReports, cycle_recommendation, render_cycle
from agents.learning.loop.online import OnlineLearner
from agents.learning.release.learnt import LearntVersions
from agents.learning.run import FeatureDrift, LearntCycle, RunState, cycle_run_id
from agents.learning.sequences.history import EndedCycle
from agents.learning.sequences.learning import LearntSequences, SequenceModels
from agents.store import Store, open_store
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label
from agents.web import reports
from tests.learning.comparison.test_flow_drift import WEEK, week
from tests.learning.images.test_images import NOW, learner_of, ordinary
from tests.learning.loop.test_online import OPTIONS, keys, kind, later, put, say
from tests.learning.test_report import Page
from tests.support.flow_hours import HOUR
from tests.support.sequences import untrained_model


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    opened.migrate()
    yield opened
    opened.close()


EVIL = "<img src=x onerror=alert(1)>\x1b"
DRIFT = FeatureDrift("queries", 0.3, 0.2, 0.4, (0.1, 0.9), (0.4, 0.6), 0.7)
LISTED = {
    "rows": 40, "of": "flow-hours", "days": 2.0, "old_a_week": 1.0, "new_a_week": 2.0, "added": 1, "lost": 0,
    "changed": 0, "tunnels_lost": 0, "benign_added": 0,
    "changes": [{"domain": EVIL, "what": "new", "times": 2, "names": [EVIL], "certain": False, "label": ""}],
}  # fmt: skip


def cycle(state: RunState = RunState.REJECTED, kind: str = "flow", at: float = 1_767_571_200.0) -> LearntCycle:
    gates = (Gate("loss", 3.0, 2.0, False, EVIL), Gate("accuracy", 0.9, 0.7, True))
    sides = (("loss", "1.5", EVIL), ("seed", "0", "0"))
    found = LearntCycle(cycle_run_id(kind, at), state, kind, at, at + 4, "ab12", "cd34", EVIL, gates)
    return replace(
        found, data=(("New labels", "12"),), labels=((EVIL, 12),), sides=sides, listed=LISTED, drift=(DRIFT,)
    )


@pytest.mark.parametrize("state", [state for state in RunState if state not in (RunState.RUNNING, RunState.UNCHANGED)])
@pytest.mark.parametrize("kind", ["flow", "sequences", "images"])
def test_a_page_has_no_script_no_outside_address_and_escapes_all_text(state: RunState, kind: str) -> None:
    html = render_cycle(cycle(state, kind))
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "form", "base", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"src", "href"}]
    assert not re.search(r"https?:|url\(|@import|javascript:", html, re.IGNORECASE)
    assert any(value.startswith("default-src 'none'") for _, value in page.attributes)
    assert "<img src=x" in page.text and not [one for one in page.text if not one.isprintable() and one != "\n"]
    assert {"Gates", "What was learnt", "Model in use and candidate", "The cycle"} <= set(
        re.findall(r"<h2>(.*?)</h2>", html)
    )


def test_what_was_missed_is_named_with_its_margin_and_who_decides_is_told_how() -> None:
    assert cycle_recommendation(cycle()) == "Missed: loss (by 1). The next cycle tries again."
    assert "models approve ab12" in cycle_recommendation(cycle(RunState.WAITING))
    assert "learn rollback sequences" in cycle_recommendation(cycle(RunState.DEPLOYED, "sequences"))
    assert "models show canary --of sequences" in cycle_recommendation(cycle(RunState.CANARY, "sequences"))


def test_old_reports_of_a_kind_go_but_for_those_of_versions_that_are_kept(tmp_path: Path) -> None:
    write = CycleReports(tmp_path)
    (tmp_path / "training_report_20250101_000000.html").write_text("of a retraining")
    names = [cycle(at=1_767_571_200.0 + 60 * at).report for at in range(CYCLE_REPORTS_KEPT + 5)]
    for at in range(len(names)):
        write(cycle(at=1_767_571_200.0 + 60 * at), {names[1]})
    found = reports.listed(tmp_path)
    assert [one["name"] for one in found if one["kind"] == "flow"] == [*names[5:][::-1], names[1]]
    assert {one["state"] for one in found if one["kind"] == "flow"} == {"REJECTED"}
    assert [one["kind"] for one in found][-1] == "query"
    assert len(list(tmp_path.glob("*_flow.json"))) == CYCLE_REPORTS_KEPT + 1
    shown = reports.overview(tmp_path, 5)
    assert [one["kind"] for one in shown] == ["flow", "query"]


def test_a_folder_that_cannot_be_written_ends_no_cycle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    CycleReports(tmp_path / "file")(cycle(), ())


@pytest.mark.slow
def test_a_cycle_of_the_online_learner_has_a_report_that_its_version_leads_to(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    learner = OnlineLearner(store, tmp_path / "flow", OPTIONS, lambda: HOUR * 3600.0, report=CycleReports(folder))
    assert learner.cycle()["state"] == "deployed"
    labelled = put(store, np.concatenate([keys(), kind(True, 60, 2)]), HOUR)
    say(store, labelled[:120], Label.BENIGN, HOUR)
    say(store, labelled[120:], Label.TUNNEL, HOUR)
    ended = later(learner, 1).cycle()
    assert ended["report"] == f"training_report_{cycle_run_id('flow', (HOUR + 1) * 3600.0)}.html"
    found = json.loads((folder / ended["report"]).with_suffix(".json").read_bytes())
    assert (found["state"], found["model_id"], found["labels"]) == ("DEPLOYED", ended["model_id"], [["a person", 180]])
    assert dict(found["data"])["New labels"] == "180" and dict(found["data"])["New labels, of tunnels"] == "60"
    assert {"loss", "fall in the oldest month"} <= {gate["name"] for gate in found["gates"]}
    assert all(gate["passed"] and gate["margin"] >= 0 for gate in found["gates"])
    names = [row[0] for row in found["sides"]]
    assert {"model id", "loss", "accuracy"} <= set(names) and any(name.startswith("weight of") for name in names)
    versions = LearntVersions(later(learner, 1), SequenceModels(tmp_path / "sequences"))
    assert [one["report"] for one in versions.versions("flow")] == [ended["report"], learner.history(9)[-1]["report"]]
    assert learner.history(1)[0]["report"] == ended["report"]


@pytest.mark.slow
def test_a_report_of_flow_hours_that_moved_says_how_far(store: Store, tmp_path: Path) -> None:
    folder, now = tmp_path / "reports", (HOUR + 2 * WEEK) * 3600.0
    learner = OnlineLearner(store, tmp_path / "flow", OPTIONS, lambda: HOUR * 3600.0, report=CycleReports(folder))
    learner.cycle()
    for rows in (week(HOUR, 5, 1), week(HOUR + 2 * WEEK, 40, 2)):
        FlowHourStore(store).add(rows)
    say(store, put(store, kind(False, 60), HOUR), Label.BENIGN, HOUR)
    ended = replace(learner, clock=lambda: now).cycle()
    found = json.loads((folder / ended["report"]).with_suffix(".json").read_bytes())
    assert max(one["psi"] for one in found["drift"]) > 0.25
    assert "Drift since the model in use was learnt" in (folder / ended["report"]).read_text()


def test_a_cycle_of_the_sequence_model_has_one_also_where_it_fails(tmp_path: Path) -> None:
    models = SequenceModels(tmp_path / "sequences", report=CycleReports(tmp_path))
    begun = EndedCycle(began_at=1_767_571_200.0, decision="failed", length=10, trained=60, clients=4, collected=900)
    models.end(begun, LearntSequences(untrained_model(1.0), (Gate("g", 0.0, 1.0, False),)), 1_767_571_300.0)
    later_on = begun.model_copy(update={"began_at": begun.began_at + 600, "reason": "cannot train: too few"})
    models.failed(later_on, begun.began_at + 610)
    failed, deployed = reports.listed(tmp_path)
    assert [one["state"] for one in (failed, deployed)] == ["FAILED", "DEPLOYED"]
    assert "cannot train: too few" in (tmp_path / failed["name"]).read_text()
    assert models.registry.facts_of(untrained_model(1.0).model_id) == {"report": deployed["name"]}
    assert [one.report for one in models.history.newest(2)] == [failed["name"], deployed["name"]]


def test_a_training_of_images_has_one(store: Store, tmp_path: Path) -> None:
    learner = replace(learner_of(store, tmp_path), report=CycleReports(tmp_path))
    FlowHourStore(store).add(ordinary(900))
    found = learner.learn()
    (report,) = reports.listed(tmp_path)
    assert (report["name"], report["kind"], report["state"]) == (found["report"], "images", found["state"].upper())
    said = json.loads((tmp_path / found["report"]).with_suffix(".json").read_bytes())
    assert dict(said["data"])["Images"] == f"{found['images']:,}" and said["started"] == NOW
    assert learner.registry.facts_of(found["model_id"])["report"] == found["report"]


@pytest.mark.slow
def test_a_flow_model_is_refused_where_a_number_moved_beyond_its_bound(store: Store, tmp_path: Path) -> None:
    folder, now = tmp_path / "reports", (HOUR + 2 * WEEK) * 3600.0
    bounds = GateBounds(drift_max=0.5)
    learner = OnlineLearner(store, tmp_path / "flow", OPTIONS, lambda: HOUR * 3600.0, bounds=bounds)
    learner.cycle()
    for rows in (week(HOUR, 5, 1), week(HOUR + 2 * WEEK, 40, 2)):
        FlowHourStore(store).add(rows)
    say(store, put(store, kind(False, 60), HOUR), Label.BENIGN, HOUR)
    told: list[Message] = []

    def tell(message: Message) -> list[ChannelResult]:
        told.append(message)
        return []

    before = learner.registry.in_use()
    ended = replace(learner, clock=lambda: now, report=CycleReports(folder), tell=tell).cycle()
    (missed,) = (gate for gate in ended["gates"] if not gate["passed"])
    assert (missed["name"], missed["threshold"]) == ("largest drift of a feature", 0.5)
    assert missed["detail"].startswith("stability index of queries since ")
    assert (ended["state"], learner.registry.in_use()) == ("rolled back", before)
    shown = (folder / ended["report"]).read_text()
    assert f"largest drift of a feature (by {missed['value'] - 0.5:.4g})" in shown
    assert "largest drift of a feature" in told[0].summary
