"""make demo-learning: every step comes out as it should, with its numbers and a report to open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import ROOT, environment
from tests.support.patience import patient

SCRIPT = ROOT / "scripts" / "demo_learning.py"


def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, str(folder)],
        cwd=folder.parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=patient(110),
        check=False,
    )


@pytest.mark.slow
def test_each_step_of_the_learning_demo_comes_out_as_it_should(tmp_path: Path) -> None:
    done = demo(tmp_path / "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    steps = [
        "a week of traffic",
        "labels of the review queue",
        "a candidate",
        "a canary",
        "poisoned week",
        "back to the",
    ]
    places = [said.index(step) for step in steps]
    assert places == sorted(places)
    assert "online learner: deployed" in said and "0 new labels" not in said
    assert "Alerts to expect a week" in said
    assert "missed: drift of features" in said
    reports = sorted((tmp_path / "demo" / "reports" / "training_reports").glob("*.html"))
    assert len(reports) == 3 and all(str(report) in said for report in reports)
    log = (tmp_path / "demo" / "models" / "CHANGELOG.md").read_text()
    assert (log.count("\n- "), log.count("\n- flow model ")) == (5, 1)


@pytest.mark.slow
def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = demo(tmp_path / "mine")
    assert done.returncode == 2
    assert "neither empty nor an earlier demo's" in done.stderr
    assert (tmp_path / "mine" / "thesis.txt").exists()
