"""kill -9 at each step of a sequence cycle: the model in use stays or the new one is whole, and the next cycle is
clean."""

from __future__ import annotations

import os
import shutil
import signal
import time
from itertools import count
from pathlib import Path

import pytest

from agents.learning.sequences.cycle import STALE_S, CyclePhase, read_cycle
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.learning import LearntSequences, SequenceModels
from agents.learning.sequences.steps import Windows
from tests.learning.sequences.test_cycle import World, passing, traffic
from tests.support.listening import wait_until
from tests.support.sequences import untrained_model

AT_MOST = 60
UNDER_WAY = (CyclePhase.COLLECTING, CyclePhase.TRAINING)
SEEN = traffic()


def run_cycle(world: World) -> None:
    """One cycle to its end; the one after it has begun."""
    world.ask(minutes=1, again=True)
    world.cycle.see(SEEN)
    world.pass_minutes(1)
    wait_until(lambda: world.cycle.state.cycles == 1 and world.cycle.state.phase is CyclePhase.COLLECTING)


def killed_at(folder: Path, wanted: int) -> bool:
    """Whether a cycle was killed at its step of that number: before and after each write, before and after training."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    try:
        numbers, replaced = count(1), Path.replace

        def die_at_last() -> None:
            if next(numbers) == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)  # the thread that asked for it may run on for a moment

        def dying_replace(self: Path, target: Path) -> Path:
            die_at_last()
            done = replaced(self, target)
            die_at_last()
            return done

        def dying_training(windows: Windows, epochs: int, in_use: SequenceModel | None) -> LearntSequences:
            die_at_last()
            found = passing(windows, epochs, in_use)
            die_at_last()
            return found

        Path.replace = dying_replace  # type: ignore[method-assign, assignment]
        run_cycle(World(folder, dying_training))
    finally:
        os._exit(0)


@pytest.mark.slow
def test_killed_at_any_step_a_whole_model_stays_and_the_next_cycle_is_clean(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    before = untrained_model(1.0)
    run_cycle(whole := World(tmp_path / "whole"))
    after = whole.cycle.state.model_id
    SequenceModels(begun / "models").deploy(before, 1.0)
    kills, found = 0, set()
    for number in range(1, AT_MOST):
        folder = tmp_path / str(number)
        shutil.copytree(begun, folder)
        if not killed_at(folder, number):
            break
        kills += 1
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert not any(word in path.read_bytes() for path in files for word in (b"example", b"10.7.7.")), files
        world = World(folder)
        current = world.models.current()
        assert current is not None
        found.add(current.model_id)
        assert read_cycle(folder, world.clock.at + STALE_S + 1).phase not in UNDER_WAY
        run_cycle(world)
        assert (ended := world.models.current()) is not None and ended.model_id == after
    assert found == {before.model_id, after}, "it was killed before and after the new one was put into its place"
    assert 16 <= kills < AT_MOST - 1
