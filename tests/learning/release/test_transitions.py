"""Aliases, approvals, history and the change log of a registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import UsageError
from agents.learning.registry import ModelRegistry
from agents.learning.release.transitions import (
    CHANGELOG_HEAD,
    Author,
    Transition,
    changelog_line,
    last_number,
    periods,
    transition_of,
)
from tests.support.fake_model import BASELINE, NOW, FakeModel, load, registry

ONE, TWO, THREE = (FakeModel(name) for name in ("one", "two", "three"))


def waiting(models: ModelRegistry[FakeModel], *names: FakeModel) -> None:
    for model in names:
        models.save_candidate(model)
        models.mark(model.model_id, "waiting")


def test_aliases_are_rows_that_follow_what_happens(tmp_path: Path) -> None:
    models = registry(tmp_path)
    assert models.aliases() == {"champion": BASELINE.model_id}
    waiting(models, ONE)
    assert models.aliases()["candidate"] == ONE.model_id
    models.approve(ONE.model_id)
    assert models.aliases() == {"champion": ONE.model_id, "anchor": ONE.model_id}, "the first own one is the anchor"
    waiting(models, TWO)
    models.approve(TWO.model_id)
    assert models.aliases()["anchor"] == ONE.model_id, "it stays"
    models.set_anchor("champion", Author("ann", "a year has passed"))
    assert models.aliases()["anchor"] == TWO.model_id
    assert [row["aliases"] for row in models.list() if row["state"] == "champion"] == [["champion", "anchor"]]
    models.rollback()
    assert models.aliases() == {"champion": ONE.model_id, "anchor": TWO.model_id}
    assert models.prune(NOW + 1e10, 1) >= 0
    assert models.find("anchor") == TWO, "an anchor's file is kept"


def test_versions_are_found_by_every_name(tmp_path: Path) -> None:
    models = registry(tmp_path)
    waiting(models, ONE)
    models.approve(ONE.model_id)
    path = models.backup(NOW)
    for name in ("champion", "anchor", ONE.model_id, str(path)):
        assert models.find(name) == ONE
    assert models.find("shipped") == models.find(BASELINE.model_id) == BASELINE
    for name in ("canary", "0" * 16, "../x", "nobody"):
        with pytest.raises(UsageError, match="cannot find"):
            models.find(name)


def two_approvals(folder: Path) -> ModelRegistry[FakeModel]:
    models = ModelRegistry(folder / "models", load, BASELINE.to_bytes(), approvals=2)
    waiting(models, ONE)
    return models


def test_two_authors_must_approve(tmp_path: Path) -> None:
    models = two_approvals(tmp_path)
    assert models.approve(ONE.model_id, Author("Ann", "looks well")) is None
    assert models.current() == BASELINE
    assert [one["by"] for one in models.approvals(ONE.model_id)] == ["Ann"]
    with pytest.raises(UsageError, match="another author must"):
        models.approve(ONE.model_id, Author(" ann ", "again"))
    with pytest.raises(UsageError, match="name yourself"):
        models.approve(ONE.model_id)
    assert models.current() == BASELINE
    assert models.approve(ONE.model_id, Author("bob", "yes")) == ONE
    assert [one.action for one in models.decisions()] == ["approve first", "approve"]
    assert models.approvals(ONE.model_id) == []


def test_one_author_cannot_go_round_the_second_by_restoring_the_file(tmp_path: Path) -> None:
    models = two_approvals(tmp_path)
    path = models.models_dir / "candidates" / f"{ONE.model_id}.npz"
    with pytest.raises(UsageError, match="never in production, and APPROVALS=2"):
        models.restore(path, lambda model: None)
    models.approve(ONE.model_id, Author("ann"))
    models.reject(ONE.model_id, Author("bob"))
    with pytest.raises(UsageError, match="never in production"):
        models.restore(path, lambda model: None)
    waiting(models, ONE)
    assert models.approve(ONE.model_id, Author("ann")) is None, "a rejection ends earlier approvals"
    models.approve(ONE.model_id, Author("bob"))
    models.rollback()
    assert models.restore(path, lambda model: None) == ONE, "it was in production"


def test_history_says_what_was_in_production_when(tmp_path: Path) -> None:
    models = registry(tmp_path)
    for model in (ONE, TWO):
        waiting(models, model)
        models.approve(model.model_id, Author("ann", f"{model.name} is well"))
    models.rollback(Author("bob", "too loud"))
    found = models.history()
    assert [one.model_id for one in found] == [ONE.model_id, TWO.model_id, ONE.model_id, BASELINE.model_id]
    assert [one.how for one in found] == ["roll back", "approve", "approve", ""]
    assert (found[0].until, found[0].by, found[0].reason) == (None, "bob", "too loud")
    assert [one.since for one in found[:-1]] == [one.until for one in found[1:]]
    assert found[-1].since is None
    models.champion_path.write_bytes(THREE.to_bytes())
    assert models.history()[0].how == "found in the champion's place"


def test_the_change_log_has_a_line_a_transition_and_keeps_what_people_wrote(tmp_path: Path) -> None:
    models = registry(tmp_path)
    log = models.models_dir / "CHANGELOG.md"
    waiting(models, ONE)
    log.write_text(log.read_text() + "A note of ours: audit on Friday.\n")
    models.approve(ONE.model_id, Author("ann", "looks\nwell <b>*x*</b> http://evil.example"))
    text = log.read_text()
    assert text.startswith(CHANGELOG_HEAD)
    assert "audit on Friday" in text
    last = text.splitlines()[-1]
    assert last.startswith("- 2 · 20") and f"deployed {ONE.model_id}, in place of {BASELINE.model_id}" in last
    assert last.endswith(r"by ann: looks\\010well \<b\>\*x\*\</b\> http\[:\]//evil\[.\]example")


@given(st.text(), st.text(), st.text())
def test_nothing_that_people_write_makes_a_second_line(by: str, reason: str, note: str) -> None:
    line = changelog_line(Transition("approve", "0" * 16, NOW, by, reason, "1" * 16, note, number=7))
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert last_number(CHANGELOG_HEAD + line) == 7


def test_an_index_of_an_earlier_release_gives_history_and_numbers(tmp_path: Path) -> None:
    models = registry(tmp_path)
    for model in (ONE, TWO, THREE):
        models.save_candidate(model)
        models.promote(model.model_id)
    path = models.models_dir / "registry.json"
    index = json.loads(path.read_text())
    at = index["history"][1]["at"]
    decision = {"action": "approve", "model_id": TWO.model_id, "at": at, "by": "ann", "replaced": ONE.model_id}
    old = {name: index[name] for name in ("history", "states", "champion", "pin")} | {"decisions": [decision]}
    path.write_text(json.dumps(old))
    (models.models_dir / "CHANGELOG.md").unlink()
    models.rollback()
    assert [one.number for one in models.transitions()] == [1, 2, 3, 4]
    assert [one.action for one in models.decisions()] == ["approve", "roll back"]
    assert {one.model_id for one in models.history()} == {ONE.model_id, TWO.model_id, THREE.model_id, BASELINE.model_id}
    assert (models.models_dir / "CHANGELOG.md").read_text().count("\n- ") == 4


def test_a_row_of_a_later_release_is_read() -> None:
    row = Transition("blessed", "0" * 16, NOW).to_json() | {"moon": "full"}
    assert transition_of(row).text == f"blessed {'0' * 16}"
    assert periods([transition_of(row)], "1" * 16)[0].model_id == "1" * 16
