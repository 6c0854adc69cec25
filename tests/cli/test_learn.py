"""`dns-tunnel learn`: the online learner from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import Inside

pytestmark = pytest.mark.integration


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
