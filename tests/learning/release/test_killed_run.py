"""kill -9 at each write of a whole retraining: the champion serves on, and the next run is clean."""

from __future__ import annotations

import asyncio
import os
import signal
from itertools import count
from pathlib import Path

import pytest

from agents.learning.retraining import STEPS, retrain
from agents.learning.run import RetrainOptions, RunState
from tests.support.fake_model import FakeModel, World, registry

OLD = FakeModel("old")
NEW = FakeModel("seed 7")
AT_MOST = 40


def world(folder: Path) -> World:
    made = World(folder)
    made.registry.save_candidate(OLD)
    made.registry.promote(OLD.model_id)
    return made


def killed_at(folder: Path, deploy: str, wanted: int) -> bool:
    """Whether a run was killed before its write of that number; else it came to its end."""
    child = os.fork()
    if not child:
        real, seen = Path.replace, count(1)

        def replace(self: Path, target: Path) -> Path:
            if next(seen) == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, target)

        Path.replace = replace  # type: ignore[method-assign, assignment]
        asyncio.run(retrain(World(folder).parts(), RetrainOptions(samples=1000, seed=7, deploy=deploy)))
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("deploy", ["auto", "manual", "canary"])
@pytest.mark.slow
def test_a_run_that_is_killed_at_any_write_leaves_one_champion_and_a_clean_next_run(
    tmp_path: Path, deploy: str
) -> None:
    kills = 0
    for number in range(1, AT_MOST):
        folder = tmp_path / str(number)
        folder.mkdir()
        world(folder)
        if not killed_at(folder, deploy, number):
            break
        kills += 1
        models = registry(folder)
        found = models.current()
        assert found in (OLD, NEW) and models.origin == "champion"
        assert models.history()[0].model_id == found.model_id
        assert models.history()[0].how != "found in the champion's place"
        canary = models.canary()
        if canary is not None:
            assert (canary["model_id"], canary["champion"]) == (NEW.model_id, OLD.model_id)
        again = World(folder)
        done = asyncio.run(retrain(again.parts(), RetrainOptions(samples=1000, seed=8)))
        assert done.state is RunState.DEPLOYED, done.error
        assert registry(folder).current() == FakeModel("seed 8")
        assert registry(folder).canary() is None, "whoever changes the champion ends it"
    assert kills >= 8, "backup, candidate, lineage, gates, report, rows, champion, change log"
    assert kills < AT_MOST - 1


@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_a_run_that_is_killed_at_the_beginning_of_any_step_does_so_too(tmp_path: Path, step: int) -> None:
    world(tmp_path)
    child = os.fork()
    if not child:
        parts = World(tmp_path).parts(
            progress=lambda at, *_: os.kill(os.getpid(), signal.SIGKILL) if at == step else None
        )
        asyncio.run(retrain(parts, RetrainOptions(samples=1000, seed=7)))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert registry(tmp_path).current() == OLD
    done = asyncio.run(retrain(World(tmp_path).parts(), RetrainOptions(samples=1000, seed=7)))
    assert done.state is RunState.DEPLOYED
    assert [one.action for one in registry(tmp_path).transitions()] == ["deploy", "deploy"]
