"""The online learner over the API."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tests.support.listening import wait_until
from tests.web.test_console import AUTH, World

pytestmark = pytest.mark.integration


def test_status_train_now_history_stop_and_start(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = world.get("/learning/status").json()
    assert first == {
        "enabled": True, "is_training": False, "last_training_time": None, "last_processed_id": 0,
        "total_training_cycles": 0, "model_versions": 0,
    }  # fmt: skip
    begun = world.call("POST", "/learning/train-now", headers=AUTH)
    assert (begun.status_code, begun.json()["status"]) == (202, "in_progress")
    wait_until(lambda: world.get("/learning/status").json()["total_training_cycles"] == 1)
    history = world.get("/learning/history", params={"limit": 5}).json()
    assert history["total_cycles"] == 1
    assert history["history"][0]["state"] == "deployed"
    assert history["history"][0]["metrics"]["balanced_accuracy"] > 0.9
    assert world.call("POST", "/learning/stop", headers=AUTH).json()["enabled"] is False
    assert world.call("POST", "/learning/start", headers=AUTH).json()["enabled"] is True
    wait_until(lambda: not world.get("/learning/status").json()["is_training"])
    with (tmp_path / "flow" / "learning.lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert world.call("POST", "/learning/train-now", headers=AUTH).status_code == 409
    world.store.close()
