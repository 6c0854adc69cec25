"""What cycles learn and waits for a person: shown, approved and rejected over the API and at the console."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.core.types import Gate
from agents.learning.loop.flow_model import empty_flow_model
from agents.learning.loop.online import OnlineLearner
from agents.learning.release.learnt_registry import ReleaseTerms
from agents.learning.release.transitions import Author
from agents.learning.sequences.history import EndedCycle
from agents.learning.sequences.learning import LearntSequences, SequenceModels
from agents.store.feedback.flow_hours import FlowHourStore
from tests.learning.comparison.test_flow_drift import WEEK, week
from tests.support.sequences import untrained_model
from tests.web.test_console import AUTH, HTML, World

pytestmark = pytest.mark.integration
URL = "/console/models/sequences"
FIRST, SECOND = (untrained_model(loss).noted(loss=loss) for loss in (3.0, 2.0))
HOSTILE = "<script>alert(1)</script>"


class Waiting(World):
    """One sequence model in use, and one that waits."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.sequences = SequenceModels(folder / "models" / "sequences", release=ReleaseTerms("manual"))
        SequenceModels(self.sequences.folder).deploy(FIRST, 1.0)
        found = LearntSequences(SECOND, (Gate(HOSTILE, 1, 2, False),))
        self.sequences.end(EndedCycle(began_at=1_767_571_200.0, decision="", length=10), found, 2.0)

    def in_use(self) -> str:
        """The id of the sequence model in use."""
        return self.sequences.registry.in_use()

    def decide(self, action: str, **sent: Any) -> httpx.Response:
        """Over the API."""
        body = {"model_id": SECOND.model_id, "author": "ann", "reason": "seen"} | sent
        return self.call("POST", f"/learning/models/sequences/{action}", headers=AUTH, json=body)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Waiting]:
    made = Waiting(tmp_path)
    yield made
    made.store.close()


def test_what_waits_is_approved_over_the_api_and_the_history_says_so(world: Waiting) -> None:
    found = world.get("/learning/models/sequences/candidate").json()
    assert (found["model_id"], found["state"], found["approvals"]) == (SECOND.model_id, "waiting", [])
    assert world.decide("approve", reason="").status_code == 422
    assert "it does not wait" in world.decide("approve", model_id="0" * 16).json()["error"]
    assert world.in_use() == FIRST.model_id
    done = world.decide("approve").json()
    assert (done["made"]["action"], done["made"]["by"], done["made"]["replaced"]) == ("approve", "ann", FIRST.model_id)
    assert world.in_use() == SECOND.model_id
    history = world.get("/learning/models/sequences/history").json()["history"]
    assert [(one["model_id"], one["how"]) for one in history] == [
        (SECOND.model_id, "approve"), (FIRST.model_id, "deploy")]  # fmt: skip
    log = world.get("/learning/models/sequences/log", params={"limit": 2}).json()["transitions"]
    assert [one["action"] for one in log] == ["approve", "hold"]
    noted = [(one.object, one.author) for one in world.parts.console.audit.entries(action="model: approve")]
    assert noted == [(f"sequence model {SECOND.model_id}", "ann")]
    assert world.get("/learning/cycle/history").json()["history"][0]["by"] == "ann"


def test_what_waits_is_rejected_and_the_model_in_use_stays(world: Waiting) -> None:
    with world.sequences.registry.lock("learn"):
        busy = world.decide("reject")
    assert (busy.status_code, "a cycle is under way" in busy.json()["error"]) == (409, True)
    assert world.decide("reject").json()["made"]["text"] == f"rejected {SECOND.model_id}"
    assert world.in_use() == FIRST.model_id
    assert world.get("/learning/models/sequences/candidate").status_code == 422


def test_the_page_asks_for_reason_and_confirmation(world: Waiting) -> None:
    overview = world.page("/console/models").text
    assert f'href="{URL}/{SECOND.model_id}">waits for approval' in overview and "What was in production" in overview
    cookie = world.cookie()
    shown = world.call("GET", f"{URL}/{SECOND.model_id}", headers=HTML | {"Cookie": cookie}).text
    assert HOSTILE not in shown and "Sequence model" in shown and ">Approve<" in shown
    form = {"key": re.findall(r'name="key" value="([0-9a-f]+)"', shown)[0], "model_id": SECOND.model_id}
    tries: list[tuple[dict[str, str], int, str]] = [
        ({"do": "approve", "confirm": "yes"}, 422, "a reason must be given"),
        ({"do": "approve", "reason": "well"}, 422, "confirm it with the box"),
        ({"do": "dance", "reason": "well", "confirm": "yes"}, 422, "names nothing that this page offers"),
        ({"do": "approve", "reason": HOSTILE, "confirm": "yes"}, 200, f"deployed {SECOND.model_id}"),
    ]
    for more, status, said in tries:
        answer = world.call("POST", URL, headers=HTML | {"Cookie": cookie}, data=form | more)
        assert (answer.status_code, said in answer.text, HOSTILE in answer.text) == (status, True, False), more
    assert world.in_use() == SECOND.model_id and ">Approve<" not in answer.text
    assert world.call("POST", "/console/models/trees", headers=HTML | {"Cookie": cookie}, data=form).status_code == 404
    assert world.page("/console/models/images/champion").status_code == 404


def test_the_model_in_use_is_pinned_and_taken_back_over_the_api_and_on_the_page(world: Waiting) -> None:
    world.decide("approve")
    sent = {"author": "ann", "reason": "audit"}
    pinned = world.call("POST", "/learning/models/sequences/pin", headers=AUTH, json=sent)
    assert pinned.json()["made"]["text"].startswith(f"pinned {SECOND.model_id}")
    assert "was pinned by ann (audit)" in world.get("/learning/models/sequences/champion").json()["pinned"]
    refused = world.decide("rollback", model_id=FIRST.model_id)
    assert refused.status_code == 422 and "was pinned by ann" in refused.json()["error"]
    cookie = world.cookie()
    shown = world.call("GET", f"{URL}/champion", headers=HTML | {"Cookie": cookie}).text
    assert ">Unpin<" in shown and ">Pin<" not in shown and "was pinned by ann" in shown
    form = {"key": re.findall(r'name="key" value="([0-9a-f]+)"', shown)[0], "reason": "done", "confirm": "yes"}
    for do, model_id, said in (
        ("unpin", SECOND.model_id, f"unpinned {SECOND.model_id}"),
        ("rollback", FIRST.model_id, f"back to {FIRST.model_id}"),
        ("anchor", FIRST.model_id, f"{FIRST.model_id} is the anchor"),
    ):
        answer = world.call(
            "POST", URL, headers=HTML | {"Cookie": cookie}, data=form | {"do": do, "model_id": model_id}
        )
        assert (answer.status_code, said in answer.text) == (200, True), do
    assert world.in_use() == FIRST.model_id
    assert [one.object for one in world.parts.console.audit.entries(action="model: rollback")] == [
        f"sequence model {FIRST.model_id}"]  # fmt: skip


def test_after_a_rejection_the_page_says_what_was_done(world: Waiting) -> None:
    cookie = world.cookie()
    shown = world.call("GET", f"{URL}/candidate", headers=HTML | {"Cookie": cookie}).text
    form = {"key": re.findall(r'name="key" value="([0-9a-f]+)"', shown)[0], "model_id": SECOND.model_id}
    more = {"do": "reject", "reason": "no better", "confirm": "yes"}
    answer = world.call("POST", URL, headers=HTML | {"Cookie": cookie}, data=form | more)
    assert answer.status_code == 200 and f"rejected {SECOND.model_id}." in answer.text
    assert 'role="alert"' not in answer.text and world.in_use() == FIRST.model_id


def test_a_flow_models_page_shows_how_flow_hours_have_moved_since(world: Waiting) -> None:
    now = int(time.time() // 3600)
    for end, queries in ((now - 2 * WEEK, 5), (now, 40)):
        FlowHourStore(world.store).add(week(end, queries, end))
    learner = world.parts.learner
    assert isinstance(learner, OnlineLearner)
    facts = {"trained": (now - 2 * WEEK) * 3600.0, "parent": ""}
    model = replace(empty_flow_model(week(now, 5, 1).numbers), manifest=facts)
    learner.registry.deploy(model.to_bytes(), 1.0, Author("", "passed 5 gates"))
    rows = world.get("/learning/models/flow/champion").json()["drift"]
    assert rows[0]["name"] == "queries" and rows[0]["psi"] > 1 > rows[1]["psi"]
    shown = world.page("/console/models/flow/champion").text
    assert "How flow-hours have moved since" in shown and shown.count('class="spark"') == len(rows)
    assert "How flow-hours have moved" not in world.page(f"{URL}/champion").text
