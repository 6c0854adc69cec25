"""Steps of clients that move are told: which part of a step, how far, and since when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agents.core.types import Row
from agents.detection.limits import Scale
from agents.learning.comparison.bounds import GateBounds
from agents.learning.comparison.drift import COMPARED_MIN
from agents.learning.comparison.sequence_listing import SequenceListing
from agents.learning.comparison.step_drift import STEP_NUMBERS, step_drift, steps_reference
from agents.learning.cycle_report import CycleReports
from agents.learning.sequences.bounds import SequenceBounds
from agents.learning.sequences.gru import SequenceModel, load_sequence_model
from agents.learning.sequences.history import EndedCycle
from agents.learning.sequences.learning import LearntSequences, SequenceModels, learn_sequences
from agents.learning.sequences.steps import Windows
from agents.store import Store, open_store
from tests.support.detecting import fresh_detector, shipped_model
from tests.support.sequences import NOW, browsing, knocking, untrained, untrained_model, windows


def week(seed: int, clients: int = 12, machines: int = 0) -> Windows:
    """People who browse, and machines that ask for TXT of new names once a minute."""
    rows: list[Row] = [row for at in range(clients) for row in browsing(f"p{at}", 90, 100 * seed + at)]
    return windows(rows + [row for at in range(machines) for row in knocking(f"m{at}", 90)])


def learnt_from(some: Windows) -> SequenceModel:
    model = learn_sequences(some, 5, {}, None, untrained).model
    return load_sequence_model(model.to_bytes())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'q.db'}")
    opened.migrate()
    yield opened
    opened.close()


def test_what_moved_most_comes_first_also_beside_the_anchor() -> None:
    anchor, in_use = learnt_from(week(1)), learnt_from(week(2, machines=1))
    first, *others = step_drift(week(3, machines=12), in_use, anchor)
    assert first.name == "type" and first.psi > 1 and 0 < first.jensen_shannon <= 1
    assert len(first.old) == len(first.new) == 3 and first.new[1] == pytest.approx(0.5, abs=0.1) and first.old[1] < 0.1
    assert first.psi_anchor is not None and first.psi_anchor > first.psi, "no machine was there at all"
    assert sorted([first.name, *(one.name for one in others)]) == sorted(STEP_NUMBERS)
    assert all(one.psi_anchor is None for one in step_drift(week(3), in_use))


def test_an_ordinary_week_hardly_moves() -> None:
    found = step_drift(week(3), learnt_from(week(2)))
    assert len(found) == len(STEP_NUMBERS) and max(one.psi for one in found) < 0.1


def test_too_few_steps_and_models_of_before_are_compared_with_nothing() -> None:
    model = learnt_from(week(1))
    assert step_drift(week(2), None) == step_drift(week(2), untrained_model()) == ()
    few = week(2)
    assert step_drift(few.at(slice(0, COMPARED_MIN // 20)), model) == ()
    assert steps_reference(few.at(slice(0, 2))) == {}
    other = {**model.manifest["steps"], "features_version": 0}
    assert step_drift(few, replace(model, manifest={**model.manifest, "steps": other})) == ()


def test_a_gate_refuses_what_moved_too_far_and_the_report_shows_it(store: Store, tmp_path: Path) -> None:
    anchor = learnt_from(week(1))
    listing = SequenceListing(
        store, lambda: fresh_detector(shipped_model(), Scale()), GateBounds(drift_max=0.5), SequenceBounds()
    )
    some = week(3, machines=12)
    beside = listing(anchor, some, anchor, anchor, NOW)
    (missed,) = (gate for gate in beside.gates if not gate.passed)
    assert missed.name == "largest drift of a feature"
    assert missed.detail.startswith("stability index of type since ")
    models = SequenceModels(tmp_path / "sequences", report=CycleReports(tmp_path))
    begun = EndedCycle(began_at=NOW, decision="failed", length=10, trained=60, clients=4, collected=900)
    found = LearntSequences(learnt_from(some), beside.gates, beside.listed.to_json(), beside.drift)
    ended = models.end(begun, found, NOW + 60)
    assert ended.decision == "rejected"
    said = json.loads((tmp_path / ended.report).with_suffix(".json").read_bytes())
    assert {one["name"] for one in said["drift"]} == set(STEP_NUMBERS)
    shown = (tmp_path / ended.report).read_text()
    assert "Drift since the model in use was learnt" in shown and "Steps that were learned from" in shown


def test_a_cycle_that_misses_another_gate_tells_it_too() -> None:
    model = learnt_from(week(1))
    found = learn_sequences(week(3, machines=12), 5, {}, model, untrained)
    assert not found.passed and found.drift[0].name == "type"
