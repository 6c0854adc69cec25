"""The online learner over the API."""

from __future__ import annotations

import fcntl
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from agents.core.errors import StoreError
from agents.core.types import Gate
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.online import OnlineLearner
from agents.learning.release.transitions import Author
from agents.learning.sequences.cycle import ASK_FILE, CycleParts, CycleRequests, SequenceCycle, ask_cycle
from agents.learning.sequences.history import EndedCycle
from agents.learning.sequences.learning import LearntSequences, SequenceModels
from agents.store.feedback.cycles import CycleStore
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label, LabelledSpan, LabelStore
from agents.store.feedback.reviews import ReviewStore
from agents.store.feedback.tables import LabelOrigin
from tests.support.flow_hours import HOUR, flow_hours
from tests.support.listening import wait_until
from tests.support.sequences import untrained_model
from tests.web.test_console import AUTH, HTML, World

pytestmark = pytest.mark.integration


@pytest.mark.slow
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


def test_the_feature_store_is_shown_by_week_size_and_origin_of_labels(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.get("/learning/store").json()["flow_hours"] == 0
    assert "No flow-hour of this network has a label yet." in world.page("/console/learning").text
    hours = FlowHourStore(world.store)
    for week, domains in enumerate((["a.example"], ["b.example", "c.example", "d.example"])):
        hours.add(flow_hours(domains, HOUR - 168 * week))
    LabelStore(world.store).mark(
        [LabelledSpan("192.0.2.7", "b.example", 0, 2**31 - 1, Label.TUNNEL, LabelOrigin.TOOL, 1.0)], SCHEMA, 1.0
    )
    ReviewStore(world.store).decide(["a.example"], Label.BENIGN, "ours", "ann", 2.0)
    found = world.get("/learning/store").json()
    assert (found["flow_hours"], found["flow_hours_max"], found["shipped"]) == (4, 200_000, 0)
    assert [one["flow_hours"] for one in found["weeks"]] == [3, 1]
    assert found["weeks"][0]["begin"] <= 3600 * (HOUR - 168) < found["weeks"][1]["begin"] <= 3600 * HOUR
    told = [(one["label"], one["origin"], one["flow_hours"]) for one in found["labels"]]
    assert told == [("benign", str(LabelOrigin.PERSON), 1), ("tunnel", str(LabelOrigin.TOOL), 1)]
    assert found["bytes"] == sum(len(hours.read(SCHEMA).numbers[row].tobytes()) for row in range(4)) + 4 * 9 + sum(
        len(f'["a.{name}"]') + len(name) for name in ("a.example", "b.example", "c.example", "d.example")
    )
    page = world.page("/console/learning").text
    assert "4 of 200,000 at most" in page and "1 to 3 flow-hours each" in page and str(LabelOrigin.TOOL) in page
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


def test_a_cycle_that_nothing_would_take_up_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    missing = CycleRequests(tmp_path, SequenceModels(tmp_path / "s"), lambda: "nothing that judges runs here")
    world.app.state.parts = replace(world.parts, cycles=missing)
    for action, text in (("start", "begin a cycle"), ("train-now", "train")):
        refused = world.call("POST", f"/learning/cycle/{action}", headers=AUTH, json={})
        assert (refused.status_code, refused.json()) == (
            409,
            {"error": f"cannot {text}: nothing that judges runs here"},
        )
    assert not (tmp_path / ASK_FILE).exists()
    assert world.call("POST", "/learning/cycle/start", headers=AUTH, json={"minutes": 61}).status_code == 422
    cookie = {"Cookie": world.cookie()}
    shown = world.call("GET", "/console/learning", headers=cookie).text
    (key,) = set(re.findall(r'name="key" value="([0-9a-f]+)"', shown))
    page = world.call("POST", "/console/learning", headers=cookie, data={"key": key, "do": "start", "minutes": "5"})
    assert page.status_code == 409 and "cannot begin a cycle: nothing that judges runs here" in page.text
    assert world.call("POST", "/learning/cycle/stop", headers=AUTH).status_code == 202
    world.store.close()


def test_the_page_shows_learning_and_its_forms_work_without_a_script(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.get("/console/learning", headers=HTML).status_code == 303
    cookie = world.cookie()

    def send(**form: str) -> httpx.Response:
        return world.submit("/console/learning", cookie, form)

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
    assert (
        '<noscript><meta http-equiv="refresh"' in live
        and 'data-reload="/console/learning"' in live
        and "Remaining" in live
        and "Train now" in live
    )
    bad = send(**{**form, "minutes": "99"})
    assert bad.status_code == 422 and "cannot begin a cycle: minutes" in bad.text
    assert send(**{**form, "key": "no"}).status_code == 401
    assert send(key=key, do="dance").status_code == 422
    assert "No cycle begins by itself" in send(key=key, do="disable").text
    world.store.close()


@pytest.mark.slow
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
    learner.registry.deploy(replace(first, manifest={"parent": first.model_id}).to_bytes(), 1.0, Author())
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
        answer = world.submit("/console/learning", cookie, form | more)
        assert answer.status_code == status
    current = models.current()
    assert current is not None and current.model_id == untrained_model(1.0).model_id
    noted = {(one.object, one.detail) for one in world.parts.console.audit.entries(action="learning")}
    assert {("sequence model", "taken back: odd"), ("flow model", "taken back: it learnt a backup of ours")} <= noted
    world.store.close()


def test_ended_cycles_of_the_sequence_model_are_shown_with_a_chart(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.get("/learning/cycle/history").json() == {"history": []}
    assert "No cycle has come to its end yet." in world.page("/console/learning").text
    models = SequenceModels(tmp_path / "models" / "sequences")
    for loss in (3.1, 2.9):
        found = LearntSequences(untrained_model(loss).noted(loss=loss), (Gate("g", loss, 4.0, False),))
        models.end(EndedCycle(began_at=1_767_571_200.0, decision="", seconds=61, collected=1200), found, loss)
    models.take_back("<b>odd</b>", "ann")
    history = world.get("/learning/cycle/history", params={"limit": 2}).json()["history"]
    assert [(one["number"], one["decision"]) for one in history] == [(3, "taken back"), (2, "deployed")]
    page = world.page("/console/learning").text
    assert "&lt;b&gt;odd&lt;/b&gt;" in page and "<b>odd" not in page
    assert 'aria-label="loss of the sequence model by cycle"' in page and "1,200" in page and "61 s" in page
    assert page.count("<circle") == 2, "what a person took back has no loss"
    world.store.close()
