from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.core.errors import BusyError, NotifyError, StoreError, TrainingError
from agents.core.types import ChannelResult, Sample
from agents.learning.messages import run_message
from agents.learning.release.transitions import Author
from agents.learning.retraining import SAMPLE_MIN, STEPS, passed_exit_code, retrain
from agents.learning.run import RetrainOptions, RunState, TrainingRun
from agents.settings import SAMPLES_MIN
from agents.web import reports
from tests.support.fake_model import BASELINE, NOW, FakeModel, FakeStore, World, load, sample
from tests.support.run_samples import validation

OPTIONS = RetrainOptions(samples=1000, seed=7)


def run(world: World, options: RetrainOptions = OPTIONS, **changed: Any) -> TrainingRun:
    return asyncio.run(retrain(world.parts(**changed), options))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.registry.save_candidate(FakeModel("old"))
    world.registry.promote(FakeModel("old").model_id)
    return world


def disk_full(*_: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device", "some-file")


def test_a_passing_candidate_is_deployed_after_the_message(world: World) -> None:
    done = run(world)
    assert done.state is RunState.DEPLOYED
    assert passed_exit_code(done) == 0
    assert world.registry.current() == FakeModel("seed 7")
    assert world.events == ["told, model in use old"]
    assert world.told[0].state is RunState.DEPLOYED
    assert [path.read_bytes() for path in world.registry.backups()] == [FakeModel("old").to_bytes()]


def test_a_rejected_candidate_leaves_the_champion_byte_for_byte(world: World) -> None:
    world.missed = True
    before = world.registry.champion_path.read_bytes(), world.registry.champion_path.stat().st_mtime_ns
    done = run(world)
    assert done.state is RunState.REJECTED
    assert passed_exit_code(done) == 3
    assert [gate.name for gate in done.missed] == ["benign names NORMAL"]
    after = world.registry.champion_path.read_bytes(), world.registry.champion_path.stat().st_mtime_ns
    assert after == before
    assert (done.candidate_id, "rejected") in {(row["model_id"], row["state"]) for row in world.registry.list()}


def test_what_is_rejected_again_and_again_is_told_with_who_may_be_behind_it(world: World) -> None:
    """The strangest names to the fake model are the longest."""
    world.missed = True
    odd = replace(sample(600), qname=[*(f"h{at}.example.com" for at in range(590)), *["x" * 60 + ".odd.example"] * 10],
                  client=[*(f"192.0.2.{at % 7}" for at in range(590)), *["192.0.2.66"] * 10],
                  domain=[*["example.com"] * 590, *["odd.example"] * 10])  # fmt: skip
    world.store.sample_normal = lambda **asked: odd  # type: ignore[method-assign]
    for before, told in ((0, False), (1, False), (2, True), (9, True)):
        done = run(world, rejected_before=lambda before=before: [("rejected", before)])
        assert done.state is RunState.REJECTED
        said = [one for one in done.warnings if "in a row" in one]
        assert bool(said) is told
        if told:
            assert said == [f"rejected {before + 1} times in a row; of the strangest names of its sample 100% came from"
                            " 192.0.2.66 and 100% lie below odd.example"]  # fmt: skip
            assert "in a row" in run_message(world.told[-1], "").summary


def test_manual_deployment_waits_for_a_person(world: World) -> None:
    done = run(world, RetrainOptions(samples=1000, deploy="manual"))
    assert done.state is RunState.WAITING
    assert passed_exit_code(done) == 0
    assert world.registry.current() == FakeModel("old")
    world.registry.approve(done.candidate_id)
    assert world.registry.current().model_id == done.candidate_id


def test_with_deploy_canary_a_candidate_judges_first_and_one_at_a_time(world: World) -> None:
    options = RetrainOptions(samples=1000, seed=7, deploy="canary")
    done = run(world, options, canary={"hours": 12.0})
    assert done.state is RunState.CANARY
    assert passed_exit_code(done) == 0
    assert world.registry.current() == FakeModel("old")
    row = world.registry.canary()
    assert row is not None
    assert (row["model_id"], row["terms"]) == (done.candidate_id, {"hours": 12.0})
    assert "judges some clients first" in run_message(done).summary
    second = run(world, replace(options, seed=8))
    assert second.state is RunState.WAITING, "one at a time"
    assert f"model {done.candidate_id} is a canary at present" in second.warnings[0]
    world.registry.reject(done.candidate_id)
    world.registry.pin(Author("ann", "audit"))
    assert run(world, replace(options, seed=9)).state is RunState.WAITING
    assert world.registry.canary() is None


def test_gates_and_lineage_of_a_candidate_are_kept_with_it(world: World) -> None:
    done = run(world)
    known = world.registry.lineage(done.candidate_id)
    assert (known["parent"], known["run_id"], known["seed"]) == (FakeModel("old").model_id, done.run_id, 7)
    assert done.sample is not None
    assert known["data"]["sha256"] == done.sample.data_sha256
    assert [gate["passed"] for gate in known["gates"]] == [True] * len(known["gates"])
    assert known["code"]["release"] and known["settings"]["samples"] == 1000
    assert "192.0.2" not in json.dumps(known), "no client"


def test_problems_of_publishing_are_warnings(world: World) -> None:
    done = run(world, publish=lambda: ["cannot publish to MLflow at mlflow.example: away"])
    assert done.state is RunState.DEPLOYED
    assert done.warnings == ("cannot publish to MLflow at mlflow.example: away",)


def test_too_few_queries_are_topped_up_and_counted(world: World) -> None:
    world.store.live = 600
    done = run(world)
    assert done.sample is not None
    assert (done.sample.live, done.sample.topped_up) == (600, 400)
    assert (done.sample.clients, done.sample.domains) == (7, 1)
    assert sum(count for _, count in done.sample.by_day) == 600
    taken, request = world.trained[0]
    assert len(taken) == 1000
    assert (request.live, request.topped_up, request.parent) == (600, 400, FakeModel("old").model_id)
    assert np.all(np.diff(taken.ts) >= 0)
    assert taken.qname[0].endswith("baseline.example")
    assert taken.qname[-1].endswith("example.com")


def test_enough_queries_are_not_topped_up(world: World) -> None:
    world.store.live = 5000
    done = run(world)
    assert done.sample is not None
    assert (done.sample.live, done.sample.topped_up) == (1000, 0)
    assert world.store.asked["limit"] == 1000
    assert world.store.asked["since"] == done.started - 7 * 86400


def test_a_sample_that_stays_too_small_fails(world: World) -> None:
    world.store.live = 5
    done = run(world, baseline_sample=lambda n, seed: FakeStore().sample_normal(limit=10))
    assert done.state is RunState.FAILED
    assert "15 queries are too few" in done.error


@pytest.mark.parametrize("live", [0, 1])
def test_with_nothing_of_this_network_nothing_is_learned(world: World, live: int) -> None:
    world.store.live = live
    before = world.registry.champion_path.read_bytes(), world.registry.champion_path.stat().st_mtime_ns
    done = run(world)
    assert done.state is RunState.UNCHANGED
    assert passed_exit_code(done) == 3
    assert (done.candidate_id, world.trained) == ("", [])
    after = world.registry.champion_path.read_bytes(), world.registry.champion_path.stat().st_mtime_ns
    assert after == before
    assert [one.state for one in world.told] == [RunState.UNCHANGED]
    assert [one.state for one in world.saved] == [RunState.UNCHANGED]
    message = run_message(done)
    assert "nothing new to learn, the old model stays" in message.summary
    page = Path(done.paths["report"]).read_text()
    assert "Nothing new to learn" in page
    assert "Old and new model" not in page, "there is no new one"
    (listed,) = reports.listed(Path(done.paths["report"]).parent)
    assert listed["state"] == "UNCHANGED"


def test_one_client_that_gives_most_of_the_sample_is_named(world: World) -> None:
    def mostly(**asked: Any) -> Sample:
        return replace(sample(10), client=["192.0.2.9"] * 8 + ["192.0.2.1"] * 2)

    assert "One client" not in dict(run_message(run(world)).facts)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(world.store, "sample_normal", mostly)
        done = run(world)
    assert done.sample is not None
    assert (done.sample.top_client, done.sample.top_client_share) == ("192.0.2.9", 0.8)
    assert dict(run_message(done).facts)["One client"] == "192.0.2.9 gave 80% of the stored queries"
    assert "192.0.2.9 (80.0%)" in Path(done.paths["report"]).read_text()


def test_a_database_away_is_a_failed_run_that_is_told_and_reported(world: World) -> None:
    world.store.away = True
    before = world.registry.champion_path.read_bytes()

    def save(run: TrainingRun) -> None:
        raise StoreError("cannot reach the database: connection refused")

    done = run(world, save_run=save)
    assert done.state is RunState.FAILED
    assert passed_exit_code(done) == 1
    assert done.error == "cannot reach the database: connection refused"
    assert done.step == "collect"
    assert done.warnings == ("record: cannot reach the database: connection refused",)
    assert world.told[0].state is RunState.FAILED
    assert world.registry.champion_path.read_bytes() == before
    assert "connection refused" in Path(done.paths["report"]).read_text()


@pytest.mark.parametrize("part", ["baseline_sample", "trainer", "validator", "reporter"])
def test_a_full_disk_in_any_step_fails_and_leaves_the_champion(world: World, part: str) -> None:
    before = world.registry.champion_path.read_bytes()
    done = run(world, OPTIONS, **{part: disk_full})
    assert done.state is RunState.FAILED
    assert "No space left on device" in done.error
    assert world.registry.champion_path.read_bytes() == before
    assert world.told[-1].state is RunState.FAILED
    assert world.saved == [done] or part == "reporter"


@pytest.mark.parametrize("method", ["backup", "save_candidate", "promote"])
def test_a_full_disk_in_the_registry_fails_and_leaves_the_champion(
    world: World, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.registry.champion_path.read_bytes()
    monkeypatch.setattr(world.registry, method, disk_full)
    done = run(world)
    assert (done.state, done.error) == (
        RunState.FAILED,
        f"cannot {done.step}: No space left on device (some-file)",
    )
    assert world.registry.champion_path.read_bytes() == before
    assert [one.state for one in world.told][-1] is RunState.FAILED


def test_running_out_of_memory_is_a_failed_run(world: World) -> None:
    def trainer(*_: object) -> FakeModel:
        raise MemoryError

    assert run(world, trainer=trainer).error == "cannot train: out of memory"


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(FakeModel("hand").to_bytes())])
def test_a_champion_that_changes_during_the_run_stops_the_deployment(
    world: World, change: Callable[[Path], None]
) -> None:
    world.during_training = lambda: change(world.registry.champion_path)
    done = run(world)
    assert done.state is RunState.FAILED
    assert "the model in use changed during the run" in done.error
    assert world.registry.current() in (BASELINE, FakeModel("hand"))


def test_a_channel_that_raises_stops_nothing(world: World) -> None:
    async def notify(run: TrainingRun) -> list[Any]:
        raise NotifyError("cannot send to slack: dead")

    done = run(world, notify=notify)
    assert done.state is RunState.DEPLOYED
    assert done.warnings == ("notification: cannot send to slack: dead",)


def test_two_runs_never_overlap(world: World) -> None:
    with world.registry.lock(), pytest.raises(BusyError):
        run(world)
    assert world.told == []


def test_old_backups_are_pruned(world: World) -> None:
    old = [world.registry.backup(NOW - days * 86400) for days in (70, 57, 10)]
    run(world)
    assert [path.exists() for path in old] == [False, False, True]


def test_the_outcome_is_recorded_and_the_report_knows_the_channels(world: World) -> None:
    steps: list[tuple[int, int, str]] = []
    done = run(world, progress=lambda *step: steps.append(step))
    assert [step[:2] for step in steps] == [(number, len(STEPS)) for number in range(1, len(STEPS) + 1)]
    assert world.saved[0].state is RunState.DEPLOYED
    data = json.loads(Path(done.paths["report_json"]).read_text())
    assert data["state"] == "DEPLOYED"
    assert data["channels"][0]["error"] == "cannot send to slack: it answered 500"
    assert data["validation"]["gates"][0]["passed"] is True
    assert "it answered 500" in Path(done.paths["report"]).read_text()
    assert load(Path(done.paths["candidate"]).read_bytes()).model_id == done.candidate_id


def test_without_a_single_gate_nothing_passes(world: World) -> None:
    nothing = replace(validation(), gates=())
    done = run(world, validator=lambda candidate, champion: nothing)
    assert done.state is RunState.REJECTED


@pytest.mark.parametrize("part", ["trainer", "validator", "baseline_sample", "reporter"])
@pytest.mark.parametrize("error", [ValueError("odd"), ZeroDivisionError("odd"), KeyError(1), TypeError("odd")])
def test_a_fault_of_the_program_is_raised_and_recorded_and_holds_no_lock(
    world: World, part: str, error: Exception
) -> None:
    def broken(*_: object) -> Any:
        raise error

    with pytest.raises(type(error)):
        run(world, OPTIONS, **{part: broken})
    (saved,) = world.saved
    assert saved.state is RunState.FAILED
    assert saved.error.startswith(f"cannot {saved.step}: the run was broken off by a fault of this program")
    assert world.registry.current() == FakeModel("old")
    with world.registry.lock():
        pass


def test_data_that_nothing_can_be_learned_from_is_a_failed_run_that_is_told(world: World) -> None:
    def trainer(*_: object) -> FakeModel:
        raise TrainingError("cannot train on fewer than 2 queries")

    done = run(world, trainer=trainer)
    assert (done.state, done.error) == (RunState.FAILED, "cannot train on fewer than 2 queries")
    assert world.told[-1].state is RunState.FAILED
    assert world.saved[0].error == done.error


def test_no_setting_asks_for_a_sample_that_is_refused() -> None:
    assert SAMPLES_MIN == SAMPLE_MIN


def test_counts_that_cannot_be_read_do_not_stop_a_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**_: object) -> Any:
        raise StoreError("cannot count queries: timeout")

    monkeypatch.setattr(world.store, "severity_counts", away)
    done = run(world)
    assert done.state is RunState.DEPLOYED
    assert done.warnings == ("counts: cannot count queries: timeout",)
    assert done.sample is not None
    assert done.sample.stored == ()


def test_no_retraining_deploys_over_a_pinned_model(world: World) -> None:
    world.registry.pin(Author("ann", "audit"))
    done = run(world)
    assert done.state is RunState.WAITING
    assert world.registry.current() == FakeModel("old")
    assert "was pinned by ann (audit)" in done.warnings[0]
    assert "was pinned by ann" in run_message(done).summary.replace("[.]", ".")


def test_a_model_that_is_pinned_while_it_trains_stays(world: World) -> None:
    async def notify(told: TrainingRun) -> Sequence[ChannelResult]:
        world.registry.pin(Author("ann"))
        return ()

    done = run(world, notify=notify)
    assert (done.state, world.registry.current()) == (RunState.WAITING, FakeModel("old"))
    assert done.candidate_id in {row["model_id"] for row in world.registry.list() if row["state"] == "waiting"}


def test_a_run_is_recorded_before_it_begins(world: World) -> None:
    def killed() -> None:
        assert [(one.state, one.run_id) for one in world.begun] == [(RunState.RUNNING, "20251120_021320")]

    world.during_training = killed
    assert run(world).state is RunState.DEPLOYED


@pytest.mark.parametrize(
    ("live", "topped_up"),
    [(2, 1998), (49, 1951), (50, 206), (99, 157), (100, 0), (300, 0)],
)
def test_a_supplement_fills_up_mixes_in_and_ends(world: World, live: int, topped_up: int) -> None:
    """Seed 002: baseline patterns below 50 real samples, mixed below 100, then real ones alone."""
    world.store.live = live
    done = run(world, replace(OPTIONS, samples=2000, supplement=(50, 100)))
    assert done.state is RunState.DEPLOYED, done
    assert done.sample is not None
    assert (done.sample.live, done.sample.topped_up) == (live, topped_up)
    assert len(world.trained[0][0]) == live + topped_up


@pytest.mark.parametrize(("live", "state"), [(99, RunState.UNCHANGED), (100, RunState.DEPLOYED)])
def test_an_hourly_run_waits_for_new_queries(
    world: World, live: int, state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def counts(*, since: float, until: float, replayed: bool = False) -> list[tuple[str, int]]:
        asked.append(since)
        return [("NORMAL", live), ("HIGH", 500)]

    monkeypatch.setattr(world.store, "severity_counts", counts)
    trained = {"algorithm": "fake", "name": "old", "data": {"until": NOW - 3600.0}}
    monkeypatch.setattr(FakeModel, "manifest", property(lambda self: trained))
    done = run(world, replace(OPTIONS, new_min=100))
    assert done.state is state
    assert NOW - 3600.0 in asked
    if state is RunState.UNCHANGED:
        assert "99 NORMAL queries since the last training, RETRAIN_NEW_MIN=100" in str(run_message(done, ""))
        assert "99 of the 100 new queries" in Path(done.paths["report"]).read_text()
