"""The online learner over the API."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

import httpx
import pytest

from agents.learning.sequences.cycle import CycleParts, SequenceCycle, ask_cycle
from agents.learning.sequences.learning import SequenceModels
from tests.support.listening import wait_until
from tests.web.test_console import AUTH, HTML, World

pytestmark = pytest.mark.integration


def test_status_train_now_history_stop_and_start(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = world.get("/learning/status").json()
    assert first == {
        "enabled": True, "is_training": False, "progress": None, "last_training_time": None, "last_processed_id": 0,
        "total_training_cycles": 0, "model_versions": 0, "labels": {},
    }  # fmt: skip
    begun = world.call("POST", "/learning/train-now", headers=AUTH)
    assert (begun.status_code, begun.json()["status"]) == (202, "in_progress")
    wait_until(lambda: world.get("/learning/status").json()["total_training_cycles"] == 1, 60)
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


def test_a_cycle_is_asked_for_over_the_api_and_seen(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.get("/learning/cycle").json()["phase"] == "idle"
    begun = world.call("POST", "/learning/cycle/start", headers=AUTH, json={"minutes": 3, "length": 8, "again": True})
    assert (begun.status_code, begun.json()) == (202, {"message": "start: asked for"})
    cycle = SequenceCycle(tmp_path, CycleParts(SequenceModels(tmp_path / "s"), lambda *_: pytest.fail("not yet")))
    cycle.tick()
    seen = world.get("/learning/cycle").json()
    assert (seen["phase"], seen["minutes"], seen["length"], seen["again"]) == ("collecting", 3, 8, True)
    assert world.call("POST", "/learning/cycle/start", headers=AUTH, json={"minutes": 61}).status_code == 422
    assert world.call("POST", "/learning/cycle/stop", headers=AUTH).status_code == 202
    cycle.tick()
    assert world.get("/learning/cycle").json()["phase"] == "stopped"
    world.store.close()


def test_the_page_shows_learning_and_its_forms_work_without_a_script(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.get("/console/learning", headers=HTML).status_code == 303
    cookie = world.cookie()

    def send(**form: str) -> httpx.Response:
        return world.call("POST", "/console/learning", headers={"Cookie": cookie}, data=form)

    page = world.page("/console/learning").text
    assert "Cycle of the sequence model" in page and "http-equiv" not in page
    shown = world.call("GET", "/console/learning", headers={"Cookie": cookie}).text
    (key,) = set(re.findall(r'name="key" value="([0-9a-f]+)"', shown))
    form = {"key": key, "do": "start", "minutes": "5", "length": "10", "epochs": "10"}
    assert "takes it up within seconds" in send(**form).text
    cycle = SequenceCycle(tmp_path, CycleParts(SequenceModels(tmp_path / "s"), lambda *_: pytest.fail("not yet")))
    ask_cycle(tmp_path, action="start", minutes=5)
    cycle.tick()
    live = world.page("/console/learning").text
    assert '<meta http-equiv="refresh"' in live and "Remaining" in live and "Train now" in live
    bad = send(**{**form, "minutes": "99"})
    assert bad.status_code == 422 and "cannot begin a cycle: minutes" in bad.text
    assert send(**{**form, "key": "no"}).status_code == 401
    assert send(key=key, do="dance").status_code == 422
    assert "No cycle begins by itself" in send(key=key, do="disable").text
    world.store.close()
