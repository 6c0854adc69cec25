"""A candidate from one installation to another and its verdict back; what was tampered with is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.core.errors import AgentsError, ModelError, UsageError
from agents.core.types import Gate
from agents.learning.baseline import model_bytes
from agents.learning.registry import ModelRegistry
from agents.learning.release.staging import Staging
from agents.learning.release.transitions import Author
from agents.learning.run import AlertDiff
from agents.scoring.model import Model
from tests.support.carrier import with_factor

NEW = with_factor(0.9)
ANN = Author("ann", "please look")
KEY = "a shared secret of two"
DIFF = AlertDiff(queries=100, days=7.0, old_a_week=1.0, new_a_week=2.0, added=1)


def site(folder: Path, name: str, passes: bool = True, key: str = "") -> Staging:
    registry = ModelRegistry(folder / name / "models", Model.from_bytes, model_bytes())
    reports = folder / name / "reports"
    reports.mkdir(parents=True, exist_ok=True)

    def judge(candidate: Model, champion: Model) -> tuple[Sequence[Gate], AlertDiff]:
        return (Gate("alerts a week", 2.0 if passes else 9.0, 3.0, False),), DIFF

    return Staging(registry, judge, key, name, reports, lambda: 1_767_225_600.0)


def exported(folder: Path, key: str = "") -> tuple[Staging, Path]:
    first, path = site(folder, "first", key=key), folder / "candidate.stage"
    first.registry.save_candidate(NEW)
    first.registry.note(NEW.model_id, {"run_id": "20260101_020000", "parent": "0" * 16})
    first.registry.mark(NEW.model_id, "waiting")
    (first.reports_dir / "training_report_20260101_020000.html").write_text("<h1>report</h1>")
    first.export(path, "candidate", ANN)
    return first, path


@pytest.mark.parametrize("key", ["", KEY])
@pytest.mark.parametrize("passes", [True, False])
def test_a_candidate_is_validated_at_the_second_and_its_verdict_comes_back(
    tmp_path: Path, passes: bool, key: str
) -> None:
    first, path = exported(tmp_path, key)
    second, verdict = site(tmp_path, "second", passes, key), tmp_path / "verdict"
    made = second.take(path, verdict, Author("bob"))
    assert (made.action, made.by) == ("import", "bob")
    (row,) = second.registry.list()
    assert (row["model_id"], row["state"]) == (NEW.model_id, "waiting" if passes else "rejected")
    known = second.registry.lineage(NEW.model_id)
    assert (known["parent"], known["origin"]["site"], known["passed"]) == ("0" * 16, "first", passes)
    assert Path(row["path"]).with_suffix(".origin.html").read_text() == "<h1>report</h1>"
    assert second.registry.current().model_id != NEW.model_id, "it waits for a person there"
    back = first.take(verdict, tmp_path / "unused", ANN)
    assert back.action == "verdict"
    assert ("second says: it passed every gate" in back.text) == passes
    assert ("second says: it missed alerts a week" in back.text) == (not passes)
    (said,) = first.registry.lineage(NEW.model_id)["verdicts"]
    assert (said["passed"], said["alerts"]["new_a_week"], said["by"]) == (passes, 2.0, "bob")
    assert [one.action for one in first.registry.transitions()] == ["hold", "export", "verdict"]
    if passes:
        second.registry.approve(NEW.model_id)
        with pytest.raises(UsageError, match="the one in use"):
            second.take(path, verdict, ANN)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_a_file_that_is_changed_anywhere_is_refused_and_changes_nothing(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "made"
    if not folder.exists():
        folder.mkdir()
        exported(folder)
    whole = (folder / "candidate.stage").read_bytes()
    at = data.draw(st.integers(0, len(whole) - 2))
    bit = data.draw(st.integers(0, 7))
    changed = tmp_path / "changed.stage"
    changed.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    second = site(tmp_path, f"second-{uuid.uuid4().hex}")
    try:
        made = second.take(changed, tmp_path / "verdict", ANN)
    except AgentsError as error:
        assert str(error).startswith("cannot ")
        assert second.registry.list() == []
    else:
        assert made.model_id == NEW.model_id, "a bit of the head that says the same, as white space would"
        assert changed.read_bytes().split(b"\n", 1)[1] == whole.split(b"\n", 1)[1]


def test_contents_with_a_new_hash_are_refused_where_there_is_a_key(tmp_path: Path) -> None:
    _, path = exported(tmp_path, KEY)
    head, body = path.read_bytes().split(b"\n", 1)
    staged = json.loads(body)
    staged["site"] = "forged"
    forged = json.dumps(staged).encode()
    head_of = json.loads(head) | {"sha256": hashlib.sha256(forged).hexdigest()}
    path.write_bytes(json.dumps(head_of).encode() + b"\n" + forged)
    with pytest.raises(ModelError, match="not signed with this STAGE_KEY"):
        site(tmp_path, "second", key=KEY).take(path, tmp_path / "verdict", ANN)


def test_both_sides_have_the_key_or_neither(tmp_path: Path) -> None:
    for name, key, other, said in (
        ("a", "", KEY, "not signed with this STAGE_KEY"),
        ("b", KEY, "", "STAGE_KEY is not set here"),
        ("c", KEY, KEY + "!", "not signed with this STAGE_KEY"),
    ):
        (tmp_path / name).mkdir()
        _, path = exported(tmp_path / name, key)
        with pytest.raises(ModelError, match=said):
            site(tmp_path / name, "second", key=other).take(path, tmp_path / "verdict", ANN)


def test_a_verdict_about_another_file_is_refused(tmp_path: Path) -> None:
    first, path = exported(tmp_path)
    second, verdict = site(tmp_path, "second"), tmp_path / "verdict"
    second.take(path, verdict, ANN)
    fresh = site(tmp_path, "third")
    fresh.registry.save_candidate(NEW)
    with pytest.raises(UsageError, match="about another file"):
        fresh.take(verdict, tmp_path / "unused", ANN)
    with pytest.raises(UsageError, match="cannot find model"):
        site(tmp_path, "fourth").take(verdict, tmp_path / "unused", ANN)
    assert first.take(verdict, tmp_path / "unused", ANN).action == "verdict"


def made_by_hand(path: Path, kind: str, contents: dict[str, Any]) -> Path:
    body = json.dumps(contents).encode()
    head = {"format": 1, "kind": kind, "sha256": hashlib.sha256(body).hexdigest()}
    path.write_bytes(json.dumps(head).encode() + b"\n" + body)
    return path


def test_what_is_no_candidate_is_refused_in_one_line(tmp_path: Path) -> None:
    good: dict[str, Any] = {"model_id": NEW.model_id, "model": base64.b64encode(NEW.to_bytes()).decode(), "lineage": {}}
    good |= {"site": "s", "release": "0", "made_at": 1.0}
    second, path = site(tmp_path, "second"), tmp_path / "x"
    bad: list[dict[str, Any]] = [{}, good | {"model": "%"}, good | {"model": ""}, good | {"model_id": "0" * 16}]
    bad += [good | {"model_id": "../../etc"}, good | {"lineage": []}, good | {"made_at": "soon"}]
    for contents in bad:
        with pytest.raises(ModelError, match=r"^cannot ") as caught:
            second.take(made_by_hand(path, "candidate", contents), tmp_path / "verdict", ANN)
        assert "\n" not in str(caught.value)
    for raw in (b"", b"\n", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"format":2,"kind":"candidate","sha256":""}\n'):
        path.write_bytes(raw)
        with pytest.raises(ModelError, match=r"^cannot import"):
            second.take(path, tmp_path / "verdict", ANN)
    with pytest.raises(UsageError, match="neither a candidate nor a verdict"):
        second.take(made_by_hand(path, "other", {}), tmp_path / "verdict", ANN)
    with pytest.raises(UsageError, match="cannot read"):
        second.take(tmp_path / "none", tmp_path / "verdict", ANN)
    assert second.registry.list() == []
    assert second.take(made_by_hand(path, "candidate", good), tmp_path / "verdict", ANN).model_id == NEW.model_id


def test_a_disk_that_is_full_for_the_verdict_leaves_the_candidate_undecided(tmp_path: Path) -> None:
    _, path = exported(tmp_path)
    second = site(tmp_path, "second")
    with pytest.raises(OSError):
        second.take(path, tmp_path / "candidate.stage" / "verdict", ANN)
    assert "waiting" not in {row["state"] for row in second.registry.list()}
    assert replace(second).take(path, tmp_path / "verdict", ANN).action == "import"
