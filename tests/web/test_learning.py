"""The online learner over the API."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

import httpx
import pytest

from agents.core.errors import StoreError
from agents.learning.loop.online import OnlineLearner
from agents.learning.sequences.cycle import CycleParts, SequenceCycle, ask_cycle
from agents.learning.sequences.learning import SequenceModels
from agents.store.feedback.cycles import CycleStore
from tests.support.listening import wait_until
from tests.support.sequences import untrained_model
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
    numbers = dict(re.findall(r"^dns_tunnel_(\w+) (\S+)$", world.get("/metrics").text, re.M))
    assert float(numbers["learning_cycles_total"]) == 1 and float(numbers["learning_last_cycle_rolled_back"]) == 0
    assert float(numbers["learning_balanced_accuracy"]) > 0.9 and float(numbers["reviews_new"]) == 0
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


def test_the_model_before_is_used_again_with_a_reason(tmp_path: Path) -> None:
    world = World(tmp_path)

    def back(model: str, reason: str = "it learnt a backup of ours") -> httpx.Response:
        return world.call("POST", "/learning/rollback", headers=AUTH, json={"model": model, "reason": reason})

    def away(*_: object) -> None:
        raise StoreError("cannot keep a learning cycle: the database is away")

    assert "cannot take the flow model back: there is none before it" in back("flow").text
    assert back("sequences").status_code == back("flow", "").status_code == 422
    learner = world.parts.learner
    assert isinstance(learner, OnlineLearner)
    learner.begin()
    wait_until(lambda: learner.path.exists() and not learner.is_training(), 60)
    first = learner.model()
    assert first is not None
    learner._deploy(first, 1.0, first.model_id)
    again = world.call("POST", "/learning/train-now", headers=AUTH)
    assert (again.status_code, "cannot learn yet: 0 new labels of 100" in again.text) == (409, True)
    before = learner.path.read_bytes()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CycleStore, "add", away)
        assert back("flow").status_code == 503
    assert learner.path.read_bytes() == before and learner.status()["model_versions"] == 2, "nothing was lost"
    assert back("flow").json() == {"model_id": first.model_id} and learner.status()["model_versions"] == 1
    newest = world.get("/learning/history").json()["history"][0]
    assert (newest["state"], newest["reason"]) == ("taken back", "it learnt a backup of ours")
    assert newest["metrics"]["balanced_accuracy"] > 0.9
    models = SequenceModels(tmp_path / "models" / "sequences")
    for number in (1.0, 2.0):
        models.deploy(untrained_model(number), number)
    cookie = world.cookie()
    shown = world.call("GET", "/console/learning", headers={"Cookie": cookie}).text
    form = {"key": re.findall(r'name="key" value="([0-9a-f]+)"', shown)[0], "do": "back", "model": "sequences"}
    tries: list[tuple[dict[str, str], int]] = [
        ({"reason": "odd"}, 422),
        ({"confirm": "yes", "reason": " "}, 422),
        ({"confirm": "yes", "reason": "odd"}, 200),
    ]
    for more, status in tries:
        answer = world.call("POST", "/console/learning", headers={"Cookie": cookie}, data=form | more)
        assert answer.status_code == status
    current = models.current()
    assert current is not None and current.model_id == untrained_model(1.0).model_id
    noted = {(one.object, one.detail) for one in world.parts.console.audit.entries(action="learning")}
    assert {("sequence model", "taken back: odd"), ("flow model", "taken back: it learnt a backup of ours")} <= noted
    world.store.close()
