"""`dns-tunnel learn`: the online learner from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import Inside

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_status_now_history_stop_start(inside: Inside, tmp_path: Path) -> None:
    assert json.loads(inside("learn", "status").out)["total_training_cycles"] == 0
    first = inside("learn", "now")
    assert first.code == 0
    assert "deployed: 0 new labels, loss 0.0" in first.out
    assert (tmp_path / "data" / "models" / "flow" / "current.npz").is_file()
    assert "waiting for labels: 0 of 100 are there" in inside("learn", "now").out
    assert inside("learn", "history").out.count("deployed") == 1
    assert json.loads(inside("learn", "stop").out)["enabled"] is False
    assert json.loads(inside("learn", "start").out)["enabled"] is True


@pytest.mark.parametrize(
    ("name", "value"), [("LEARNING_INTERVAL", "5"), ("LABEL_TUNNEL_FROM", "0.4"), ("LABEL_BENIGN_TO", "0.6")]
)
def test_a_bound_that_cannot_be_is_one_line(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    done = inside("learn", "status")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"dns-tunnel: cannot use setting {name}={value}: ")


@pytest.mark.slow
def test_flow_models_are_listed_shown_and_compared(inside: Inside) -> None:
    inside("learn", "now")
    kept = json.loads(inside("learn", "store").out)
    assert (kept["flow_hours"], kept["labels"]) == (0, []) and kept["shipped"] > 100 and kept["bytes"] > 10_000
    line = next(line for line in inside("models", "list").out.splitlines() if "flow/current.npz" in line)
    model_id = line.split()[0]
    assert line.split()[1] == "champion" and "by the program" in line
    assert inside("models", "list", "--of", "query").out.count("flow/current") == 0
    shown = json.loads(inside("models", "show", model_id).out)
    assert (shown["kind"], shown["model_id"], shown["data"]) == ("flow", model_id, "golden flow-hours")
    assert json.loads(inside("models", "show", "--of", "flow").out)["model_id"] == model_id
    assert "no difference" in inside("models", "diff", model_id, model_id).out
    wrong = inside("models", "show", "--of", "sequences")
    assert wrong.code == 2 and "cannot find sequence model champion: 0 are kept" in wrong.err


@pytest.mark.slow
def test_with_deploy_manual_a_flow_model_waits_for_two_authors(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEPLOY", "manual")
    monkeypatch.setenv("APPROVALS", "2")
    first = inside("learn", "now")
    assert first.code == 3 and first.out.splitlines()[-1].startswith("waits for a person: 0 new labels")
    again = inside("learn", "now")
    assert again.code == 1 and "waits for a person, who approves or rejects it first" in again.err
    line = next(line for line in inside("models", "list", "--of", "flow").out.splitlines())
    model_id = line.split()[0]
    assert line.split()[1] == "waiting" and "(candidate)" in line
    ask = ("models", "approve", model_id, "--reason", "looks well", "--author")
    assert "another author has to approve" in inside(*ask, "ann").out
    refused = inside(*ask, "ann")
    assert refused.code == 2 and "ann has, another author must" in refused.err
    assert inside(*ask, "bob").out == f"deployed {model_id}\n"
    assert inside("models", "history", "--of", "flow").out.startswith(f"{model_id}  ")
    assert "approved" in inside("models", "log", "--of", "flow").out
    none = inside("models", "reject", "--of", "images", "--author", "ann")
    assert none.code == 2 and "cannot choose: no image model waits" in none.err
    text = (tmp_path / "data" / "models" / "CHANGELOG.md").read_text()
    assert "flow model 3 · " in text and "by bob: looks well" in text


def test_who_waits_for_a_cycle_is_told_what_is_missing(inside: Inside) -> None:
    assert inside("learn", "cycle", "history").out == ""
    alone = inside("learn", "cycle", "run")
    assert alone.code == 1 and "nothing that judges runs here" in alone.err
    assert inside("learn", "cycle", "run", "--again").code == 2
    assert "cannot begin a cycle: nothing that judges" in inside("learn", "cycle", "start").err
    assert "cannot train: nothing that judges" in inside("learn", "cycle", "train").err
    assert inside("learn", "cycle", "stop").code == 0, "none begins after a restart"


@pytest.mark.slow
def test_a_flow_model_is_pinned_and_unpinned_and_its_report_is_written(inside: Inside, tmp_path: Path) -> None:
    inside("learn", "now")
    said = ("--reason", "audit", "--author", "ann")
    assert inside("models", "pin", "--of", "flow", *said).out.startswith("pinned ")
    refused = inside("models", "rollback", "--of", "flow", *said)
    assert refused.code == 2 and "was pinned by ann (audit)" in refused.err and "models unpin --of flow" in refused.err
    assert inside("models", "unpin", "--of", "flow", *said).out.startswith("unpinned ")
    none = inside("models", "rollback", "--of", "flow", *said)
    assert none.code == 2 and "there is none before it" in none.err
    query = inside("models", "rollback", "0" * 16, *said)
    assert query.code == 2 and "a query model is put back by models restore FILE" in query.err
    shown = json.loads(inside("models", "show", "--of", "flow").out)
    assert [path.name for path in (tmp_path / "data").rglob("training_report_*_flow.html")] == [shown["report"]]
