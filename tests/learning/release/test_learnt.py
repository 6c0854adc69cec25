"""Versions of flow and sequence models: where they come from, who decided, and two side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agents.core.errors import ModelError, UsageError
from agents.core.types import Gate
from agents.learning.loop.online import OnlineLearner
from agents.learning.loop.options import SPEC
from agents.learning.release.learnt import LearntVersions, learnt_difference_text, learnt_lines
from agents.learning.sequences.history import EndedCycle
from agents.learning.sequences.learning import LearntSequences, SequenceModels
from agents.store import open_store
from tests.support.flow_hours import HOUR
from tests.support.sequences import untrained_model

pytestmark = pytest.mark.integration
NOW = HOUR * 3600.0


@pytest.fixture
def versions(tmp_path: Path) -> LearntVersions:
    """Two flow models, of which the second was put there by a site's round, and two sequence models."""
    store = open_store(f"sqlite:///{tmp_path / 'queries.db'}")
    store.migrate()
    learner = OnlineLearner(store, tmp_path / "flow", SPEC.factory(SPEC.values({})), lambda: NOW)
    learner.cycle()
    first = learner.model()
    assert first is not None
    weights = first.weights.copy()
    weights[0] += 0.25
    replace(learner, clock=lambda: NOW + 60).adopt(replace(first, weights=weights), "round 7 of the fleet")
    models = SequenceModels(tmp_path / "sequences")
    for loss in (3.0, 2.5):
        found = LearntSequences(
            untrained_model(loss).noted(loss=loss, data_sha256="ab" * 32), (Gate("g", 1, 2, False),)
        )
        cycle = EndedCycle(began_at=NOW, seconds=60, decision="", length=10, collected=900, clients=7, trained=80)
        models.end(cycle, found, NOW + loss)
    return LearntVersions(learner, models)


@pytest.mark.slow
def test_each_version_says_its_parent_its_data_and_who_decided(versions: LearntVersions) -> None:
    current, before = versions.versions("flow")
    assert (current["state"], current["aliases"]) == ("champion", ["champion"])
    assert (before["state"], before["aliases"], before["parent"]) == ("earlier", ["previous", "anchor"], "")
    assert (current["parent"], current["decided_by"]) == (before["model_id"], "round 7 of the fleet")
    assert (before["data"], before["decided_by"], before["reason"]) == (
        "golden flow-hours", "the program", "passed 5 gates")  # fmt: skip
    newest, oldest = versions.versions("sequences")
    assert (newest["parent"], newest["data_sha256"]) == (oldest["model_id"], "ab" * 32)
    assert newest["data"].endswith("900 queries, 7 clients, 80 windows") and newest["measures"] == {"loss": 2.5}
    assert versions.version("sequences", "previous")["model_id"] == oldest["model_id"]
    assert versions.kind_of(before["model_id"]) == "flow" and versions.kind_of("0" * 16) == ""
    assert len(learnt_lines([current, before, newest, oldest])) == 4
    json.dumps([current, versions.version("flow", "champion")])


@pytest.mark.slow
def test_what_a_person_took_back_is_told_with_its_reason(versions: LearntVersions) -> None:
    bad = versions.learner.path.read_bytes()
    versions.learner.take_back("too loud", "ann")
    only, gone = versions.versions("flow")
    assert (gone["state"], gone["aliases"], gone["parent"]) == ("earlier", ["taken-back"], only["model_id"])
    assert versions.version("flow", gone["model_id"])["model_id"] == gone["model_id"]
    assert [row["name"] for row in versions.diff("flow", "taken-back", "champion")["weights"]] == ["queries"]
    assert versions.learner.taken_back.read_bytes() == bad and not versions.learner.earlier()
    assert (only["decided_by"], only["reason"], only["aliases"]) == ("ann", "too loud", ["champion", "anchor"])
    assert [one["decision"] for one in versions.version("flow", "champion")["transitions"]] == [
        "deployed",
        "taken back",
    ]
    odd = versions.sequences.path.read_bytes()
    versions.sequences.take_back("too odd", "bob")
    assert versions.versions("sequences")[0]["decided_by"] == "bob"
    assert versions.version("sequences", "taken-back")["path"] == str(versions.sequences.taken_back)
    assert versions.sequences.taken_back.read_bytes() == odd


@pytest.mark.slow
def test_two_versions_are_compared_and_only_what_differs_is_listed(versions: LearntVersions) -> None:
    found = versions.diff("flow", "previous", "champion")
    json.dumps(found)
    (weight,) = found["weights"]
    assert weight["name"] == "queries" and float(weight["new"]) - float(weight["old"]) == pytest.approx(0.25, abs=0.002)
    assert found["golden"]["tunnels"]["rows"] > 50 and found["golden"]["mean_difference"] > 0
    assert "parent" in {row["name"] for row in found["lineage"]}
    assert f"queries: {weight['old']} → {weight['new']}" in learnt_difference_text(found)
    same = versions.diff("flow", "champion", "champion")
    assert learnt_difference_text(same).count("no difference") == 5
    moved = versions.diff("sequences", "previous", "champion")
    assert [(row["name"], row["new"]) for row in moved["measures"]] == [("loss", "2.5")]
    assert moved["weights"] == [], "their weights are the same"


@pytest.mark.slow
def test_what_cannot_be_read_or_found_is_one_line(versions: LearntVersions) -> None:
    versions.learner.earlier()[-1].write_bytes(b"damaged")
    current, before = versions.versions("flow")
    assert before["state"] == "unreadable" and before["model_id"] == current["parent"]
    with pytest.raises(ModelError, match=r"cannot compare .*damaged, or of another schema"):
        versions.diff("flow", "previous", "champion")
    for kind, name in (("flow", "0" * 16), ("flow", "nobody"), ("sequences", "canary"), ("trees", "champion")):
        with pytest.raises(UsageError, match="cannot find"):
            versions.version(kind, name)
