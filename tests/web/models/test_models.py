"""Versions of models over the API and at the console: looked up, compared, decided with reason and confirmation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.core.types import Gate
from agents.learning.release.transitions import Author
from agents.learning.sequences.history import EndedCycle
from agents.learning.sequences.learning import LearntSequences
from tests.support import run_samples
from tests.support.carrier import with_factor, with_limits
from tests.support.sequences import untrained_model
from tests.web.test_console import AUTH, HTML, World

pytestmark = pytest.mark.integration
URL = "/console/models"
OLD, NEW = with_factor(0.9), with_factor(0.8)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One version in production, and one that waits."""
    made = World(tmp_path)
    for model in (OLD, NEW):
        made.registry.save_candidate(model)
    made.registry.promote(OLD.model_id, Author("the retraining", HOSTILE))
    made.registry.mark(NEW.model_id, "waiting", Author(HOSTILE, "run 7"))
    gates = [{"name": HOSTILE, "value": 1.0, "threshold": None, "margin": 0.5, "passed": True}]
    made.registry.note(NEW.model_id, {"parent": OLD.model_id, "gates": gates, "run_id": "20260104_020011"})
    yield made
    made.store.close()


def post(world: World, path: str, **sent: Any) -> httpx.Response:
    return world.call("POST", path, headers=AUTH, json=sent)


def decide(world: World, action: str, **sent: Any) -> httpx.Response:
    return post(world, f"/models/{action}", **{"author": "ann", "reason": "seen"} | sent)


def test_versions_are_looked_up_with_lineage_and_history(world: World) -> None:
    found = world.get("/models/candidate").json()
    assert (found["model_id"], found["state"], found["aliases"]) == (NEW.model_id, "waiting", ["candidate"])
    assert (found["lineage"]["parent"], found["report"]) == (OLD.model_id, "training_report_20260104_020011.html")
    assert world.get(f"/models/{OLD.model_id}").json()["aliases"] == ["champion", "anchor"]
    assert world.get("/models/shipped").json()["state"] == "replaced"
    periods = world.get("/models/history").json()["history"]
    assert periods[0]["model_id"] == OLD.model_id
    log = world.get("/models/log").json()["transitions"]
    assert [(one["action"], one["number"]) for one in log] == [("hold", 2), ("deploy", 1)]
    assert world.get("/models/log", params={"people": True}).json()["transitions"] == []
    assert world.get("/models/canary").json() == {"canary": None}


def test_two_versions_are_compared(world: World) -> None:
    found = world.get("/models/diff", params={"old": "champion", "new": "candidate"}).json()
    assert (found["old"]["model_id"], found["new"]["model_id"]) == (OLD.model_id, NEW.model_id)
    assert (found["limits"]["old"]["factor"], found["limits"]["new"]["factor"]) == (0.9, 0.8)
    assert found["scores"]["changed"] == 0, "only the limits differ"


@pytest.mark.parametrize("name", ["nobody", "..%2Fregistry.json", "%2Fetc%2Fpasswd", "0" * 15, HOSTILE])
def test_no_file_is_read_over_the_network(world: World, name: str) -> None:
    assert world.get(f"/models/{name}").status_code in (404, 422)
    assert world.get("/models/diff", params={"old": "champion", "new": "/etc/passwd"}).status_code == 422


def test_decisions_are_carried_out_recorded_and_told(world: World) -> None:
    canary = decide(world, "canary", model_id=NEW.model_id).json()
    assert canary["made"]["action"] == "begin canary"
    assert world.get("/models/canary").json()["canary"]["model_id"] == NEW.model_id
    approved = decide(world, "approve", model_id=NEW.model_id).json()
    assert (approved["made"]["action"], approved["made"]["replaced"]) == ("approve", OLD.model_id)
    assert approved["made"]["text"] == f"deployed {NEW.model_id}"
    assert world.registry.current().model_id == NEW.model_id
    assert decide(world, "anchor", model_id=NEW.model_id).status_code == 200
    back = decide(world, "rollback", reason="too loud").json()
    assert (back["made"]["model_id"], back["made"]["reason"]) == (OLD.model_id, "too loud")
    assert decide(world, "pin").status_code == 200
    assert decide(world, "rollback").status_code == 422
    assert decide(world, "unpin").status_code == 200
    assert [message.title.split(": ")[1] for message in world.told] == [
        f"{action} by hand" for action in ("begin canary", "approve", "anchor", "roll back", "pin", "unpin")
    ]


def test_what_cannot_be_done_is_one_line_and_changes_nothing(world: World) -> None:
    before = world.registry.transitions()
    for action, sent, status in (
        ("approve", {"model_id": OLD.model_id}, 422),
        ("approve", {"model_id": NEW.model_id, "author": ""}, 422),
        ("approve", {"model_id": NEW.model_id, "reason": ""}, 422),
        ("reject", {"model_id": "../x"}, 422),
        ("anchor", {"model_id": "0" * 16}, 422),
    ):
        answer = decide(world, action, **sent)
        assert answer.status_code == status
        assert answer.json()["error"].startswith("cannot ")
    with world.registry.lock():
        assert decide(world, "reject", model_id=NEW.model_id).status_code == 409
    assert world.call("POST", "/models/rollback", json={"author": "a", "reason": "b"}).status_code == 401
    assert world.registry.transitions() == before


class Browser:
    """A session, and the key that its pages have."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cookie = world.cookie(name="ann")

    def get(self, url: str = URL) -> httpx.Response:
        return self._world.call("GET", url, headers=HTML | {"Cookie": self.cookie})

    def send(self, key: str | None = None, **form: Any) -> httpx.Response:
        if key is None:
            (key,) = set(re.findall(r'name="key" value="([0-9a-f]+)"', self.get().text))
        return self._world.submit(URL, self.cookie, {"key": key, **form})


def test_the_pages_show_everything_escaped(world: World) -> None:
    browser = Browser(world)
    for url in (URL, f"{URL}/{NEW.model_id}", f"{URL}/champion", f"{URL}/diff?old=champion&new=candidate"):
        answer = browser.get(url)
        assert answer.status_code == 200, answer.text
        assert "<script>" not in answer.text
    page = browser.get().text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count(f"{URL}/{OLD.model_id}") >= 2, "among the versions and in the history"
    waiting = browser.get(f"{URL}/candidate").text
    assert 'value="approve"' in waiting and 'value="reject"' in waiting
    assert 'value="approve"' not in browser.get(f"{URL}/champion").text
    assert world.call("GET", URL, headers=HTML).status_code == 303
    assert browser.get(f"{URL}/diff?old=champion&new=/etc/passwd").status_code == 422
    assert browser.get(f"{URL}/..%2f..%2fetc").status_code == 404
    assert browser.get(f"{URL}/canary").status_code == 404


def test_a_form_asks_for_reason_and_confirmation(world: World) -> None:
    browser, sure = Browser(world), {"reason": "seen", "confirm": "yes"}
    for left_out in sure:
        answer = browser.send(do="approve", model_id=NEW.model_id, **sure | {left_out: ""})
        assert answer.status_code == 422
        assert "cannot approve" in answer.text
    assert world.registry.current().model_id == OLD.model_id
    assert browser.send(key="0" * 64, do="rollback", **sure).status_code == 401
    assert browser.send(do="restore", model_id="/etc/passwd", **sure).status_code == 422
    done = browser.send(do="approve", model_id=NEW.model_id, **sure)
    assert done.status_code == 200
    assert f"deployed {NEW.model_id}." in done.text
    assert world.registry.current().model_id == NEW.model_id
    assert f"back to {OLD.model_id}." in browser.send(do="rollback", **sure).text
    assert world.registry.decisions()[-1].reason == "seen"


def test_a_canary_is_shown_with_what_was_seen(world: World) -> None:
    world.registry.start_canary(NEW.model_id, {"hours": 48.0, "share": 0.25}, 1_767_225_600.0, Author("ann"))
    page = Browser(world).get().text
    assert '25.0% of the clients since <time datetime="2026-01-01T00:00:00Z">2026-01-01 00:00:00 UTC</time>' in page
    assert 'promoted at <time datetime="2026-01-03T00:00:00Z">2026-01-03 00:00:00 UTC</time>' in page
    assert 'value="approve"' in Browser(world).get(f"{URL}/canary").text


def test_a_damaged_index_is_said_and_the_page_stands(world: World) -> None:
    (world.registry.models_dir / "registry.json").write_text("{")
    answer = Browser(world).get()
    assert answer.status_code == 200
    assert "registry.json (remove it to begin a new one)" in answer.text


def test_openapi_describes_each_route(world: World) -> None:
    described = world.get("/openapi.json").json()
    for path in (
        "history",
        "log",
        "canary",
        "diff",
        "{name}",
        "approve",
        "reject",
        "rollback",
        "anchor",
        "pin",
        "unpin",
    ):
        operations = described["paths"][f"/models/{path}"]
        for operation in operations.values():
            assert operation["summary"] and operation["responses"]["200"]["content"]["application/json"]["schema"]


def test_what_cycles_learn_is_listed_shown_and_compared(world: World) -> None:
    assert world.get("/learning/models/flow").json() == {"versions": []}
    assert "Sequence models" not in Browser(world).get().text
    models = world.parts.learnt.sequences  # type: ignore[attr-defined]
    for loss in (3.0, 2.5):
        found = LearntSequences(untrained_model(loss).noted(loss=loss), (Gate(HOSTILE, 1.0, 2.0, False),))
        models.end(EndedCycle(began_at=1_767_225_600.0, decision="", by=HOSTILE), found, loss)
    newest, oldest = world.get("/learning/models/sequences").json()["versions"]
    assert (newest["state"], newest["parent"]) == ("champion", oldest["model_id"])
    assert oldest["aliases"] == ["previous", "anchor"], "the first one that passed"
    shown = world.get("/learning/models/sequences/champion").json()
    assert (shown["decided_by"], shown["measures"]) == (HOSTILE, {"loss": 2.5})
    compared = world.get("/learning/models/sequences/diff", params={"old": "previous", "new": "champion"}).json()
    assert [row["name"] for row in compared["measures"]] == ["loss"]
    assert world.get("/learning/models/sequences/" + "0" * 16).status_code == 422
    assert world.get("/learning/models/trees").status_code == 422
    browser = Browser(world)
    for path in ("", f"/sequences/{newest['model_id']}", "/sequences/diff?old=previous&new=champion"):
        answer = browser.get(f"{URL}{path}")
        assert answer.status_code == 200 and "<script>alert" not in answer.text, path
        assert newest["model_id"] in answer.text and oldest["model_id"] in answer.text
    assert browser.get(f"{URL}/sequences/canary").status_code == 404
    assert browser.get(f"{URL}/sequences/diff?old=champion").status_code == 422
    assert browser.get(f"{URL}/trees/champion").status_code == 404


def test_the_page_of_models_has_the_alert_budget_with_its_curve_and_the_drift_of_the_last_training(
    world: World,
) -> None:
    limits = run_samples.with_limits(days=14, flows=10).candidate["limits"]
    model = with_limits(limits)
    moved = {"wasserstein": 0.5, "jensen_shannon": 0.2, "psi_anchor": None, "old": [0.5, 0.5], "new": [0.1, 0.9]}
    drift = [{"name": HOSTILE, "psi": 0.31, **moved}] + [
        {"name": f"moved-{at}", "psi": 0.1, **moved} for at in range(6)
    ]
    world.registry.save_candidate(model)
    world.registry.note(model.model_id, {"drift": drift})
    page = shown(world, URL)
    assert "Not known: drift is measured when" in page and "Alert budget" not in page
    world.registry.promote(model.model_id, Author("the retraining", "run 8"))
    page = shown(world, URL)
    assert "in 14 days of history these limits would have asked for" in page
    assert 'class="curve"' in page and "budget: 3 a week" in page
    assert "0.31" in page and HOSTILE not in page and "moved-3" in page and "moved-4" not in page, (
        "those that moved most"
    )
    assert "moved-5" in shown(world, f"{URL}/{model.model_id}")
    told = world.get(f"/models/{model.model_id}").json()
    assert told["budget"].startswith("Per client and domain, up to ") and told["lineage"]["drift"] == drift


def shown(world: World, path: str) -> str:
    return world.call("GET", path, headers=HTML | {"Cookie": world.cookie()}).text
