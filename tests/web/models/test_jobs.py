"""What runs by the calendar at the console: paused, resumed, and a retraining begun by a click; all of it noted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.core.types import ScheduledJob
from agents.runtime.jobs import PAUSED_JOBS, RETRAIN, JobDesk
from agents.runtime.schedule import RetrainScheduler
from tests.web.console.test_incidents import Person, post
from tests.web.test_console import World

pytestmark = pytest.mark.integration
CALENDAR = "0 2 * * 0 UTC"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    for name in (RETRAIN, "maintain"):
        made.store.save_job(ScheduledJob(name, CALENDAR, None, time.time() + 900.0))
    yield made
    made.store.close()


def sent(world: World, person: Person, **form: str) -> str:
    page = person.page("/console/models").text
    key = page.split('name="key" value="')[1].split('"')[0]
    return world.submit("/console/jobs", person.cookie, form | {"key": key}).text


def test_a_retraining_is_begun_with_a_reason_and_a_confirmation(world: World) -> None:
    ann = Person(world)
    page = ann.page("/console/models").text
    assert ">Retrain now</button>" in page and CALENDAR in page
    assert "cannot retrain: confirm it" in sent(world, ann, do="retrain", reason="new office")
    assert "a reason" in sent(world, ann, do="retrain", confirm="yes")
    assert world.runs == 0
    assert "The retraining run-1 has begun." in sent(world, ann, do="retrain", reason="new office", confirm="yes")
    world.busy = True
    assert "cannot retrain: another retraining" in sent(world, ann, do="retrain", reason="again", confirm="yes")
    noted = [one for one in world.get("/audit").json()["entries"] if one["action"] == "retraining"]
    assert [(one["author"], one["object"], one["detail"]) for one in noted] == [("ann", "run-1", "started: new office")]


def test_a_job_is_paused_and_resumed_at_the_console_and_by_programs(world: World, tmp_path: Path) -> None:
    ann = Person(world)
    assert "retrain is paused until" in sent(world, ann, do="pause", job="retrain", reason="a <move>", confirm="yes")
    page = ann.page("/console/models").text
    assert "by ann: a &lt;move&gt;" in page
    listed = {one["name"]: one for one in world.get("/jobs").json()["jobs"]}
    assert (listed["retrain"]["paused"]["by"], listed["maintain"]["paused"]) == ("ann", None)
    assert JobDesk(world.store, tmp_path / PAUSED_JOBS).is_paused(RETRAIN), "it is kept"
    answer = post(world, "/jobs/resume", job="retrain", reason="moved", author="siem")
    assert [one["paused"] for one in answer.json()["jobs"]] == [None, None]
    noted = [(one["action"], one["author"], one["way"]) for one in world.get("/audit").json()["entries"]]
    assert noted[:2] == [("job resumed", "siem", "API"), ("job paused", "ann", "console")]


@pytest.mark.parametrize(
    ("path", "job", "words"),
    [
        ("pause", "maintain", "cannot pause maintain: what is to be deleted would stay"),
        ("pause", "reboot", "cannot find the job 'reboot'; there are maintain, retrain"),
        ("resume", "retrain", "cannot resume retrain: it is not paused"),
    ],
)
def test_what_cannot_be_paused_is_said_in_one_line(world: World, path: str, job: str, words: str) -> None:
    answer = post(world, f"/jobs/{path}", job=job, reason="x", author="ann")
    assert (answer.status_code, answer.json()["error"]) == (422, words)
    assert not [one for one in world.get("/audit").json()["entries"] if one["action"].startswith("job")]


def test_a_job_that_is_paused_is_passed_over_and_runs_again_once_it_is_resumed(world: World, tmp_path: Path) -> None:
    desk, began = JobDesk(world.store, tmp_path / PAUSED_JOBS), list[str]()
    scheduler = RetrainScheduler(
        world.store, lambda: began.append("retrain"), lambda: None, "0 2 * * 0", "UTC", is_paused=desk.is_paused
    )
    desk.pause(RETRAIN, "ann", "a move")
    due(world)
    scheduler._run(RETRAIN)
    (job,) = [one for one in world.store.jobs() if one.name == RETRAIN]
    assert began == [] and job.last_run is None and job.next_run > time.time()
    desk.resume(RETRAIN)
    due(world)
    scheduler._run(RETRAIN)
    assert began == ["retrain"]


def due(world: World) -> None:
    world.store.save_job(ScheduledJob(RETRAIN, CALENDAR, None, time.time() - 5.0))
