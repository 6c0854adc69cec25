"""kill -9 at each step of a cycle of the online learner, and of what a site takes from its fleet: the model in use
serves on, and the next run is clean."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agents.learning.fleet.exchange import FleetState, state_of
from agents.learning.fleet.options import SPEC
from agents.learning.fleet.site import FleetSite
from agents.learning.loop import material, online
from agents.learning.loop.online import CycleState, OnlineLearner
from agents.learning.release.learnt_desk import LearntDesk
from agents.learning.release.learnt_registry import ReleaseTerms
from agents.learning.sequences.learning import SequenceModels
from agents.store import Store, open_store
from agents.store.feedback.cycles import CycleStore
from tests.learning.fleet.test_coordinator import Fleet
from tests.learning.loop.test_online import OPTIONS, first_labels
from tests.support.flow_hours import HOUR

AT_MOST = 40


def opened(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder / 'q.db'}")


def learner_in(folder: Path, store: Store) -> OnlineLearner:
    return OnlineLearner(store, folder / "flow", OPTIONS, lambda: (HOUR + 1) * 3600.0)


def one_cycle(folder: Path, store: Store) -> str:
    return str(learner_in(folder, store).cycle()["state"])


def one_round(folder: Path, store: Store) -> str:
    """Take what came of a round; what its lines begin with."""
    site = FleetSite(
        folder / "site", SPEC.factory(SPEC.values({})), learner_in(folder, store),
        knowledge=lambda: pytest.fail("nothing is sent"), propose=lambda state: ["looked at"],
        week=lambda: pytest.fail("nothing is shown"),
    )  # fmt: skip
    lines = site._take(round_of(folder))
    assert site.taken() == 1
    return str(lines[0].removeprefix("round 1: flow model "))


def held_cycle(folder: Path, store: Store) -> str:
    """A cycle whose model waits for a person, who approves it; one that waits already is approved."""
    learner = replace(learner_in(folder, store), terms=ReleaseTerms("manual"))
    if not learner.registry.waiting():
        assert learner.cycle()["state"] == CycleState.HELD
    desk = LearntDesk(learner, SequenceModels(folder / "sequences"))
    return str(desk.decide("flow", "approve", "", "ann", "seen").made.model_id)


def round_of(folder: Path) -> FleetState:
    return state_of((folder / "round.json").read_bytes())


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A site with a model in use, labels that no cycle has read, and a round that has ended."""
    folder = tmp_path / "begun"
    folder.mkdir()
    with closing(opened(folder)) as store:
        store.migrate()
        assert replace(learner_in(folder, store), clock=lambda: HOUR * 3600.0).cycle()["state"] == CycleState.DEPLOYED
        first_labels(store)
        model = learner_in(folder, store).model()
    assert model is not None
    values = {"mean": model.mean.tolist(), "scale": model.scale.tolist(), "weights": [*model.weights, model.bias]}
    state = Fleet(tmp_path / "coordinator").state() | {"round": 2, "joined": 3} | values
    (folder / "round.json").write_text(json.dumps(state))
    return folder


def killed_at(folder: Path, wanted: int, run: Callable[[Path, Store], str]) -> bool:
    """Whether a run was killed at its step of that number: before each write, before and after its record."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    try:
        numbers, replaced, learnt, add = count(1), Path.replace, material.learnt, CycleStore.add

        def die_at_last() -> None:
            if next(numbers) == wanted:
                os.kill(os.getpid(), signal.SIGKILL)

        def dying_replace(self: Path, target: Path) -> Path:
            die_at_last()
            return replaced(self, target)

        def dying_learnt(*arguments: Any, **more: Any) -> Any:
            die_at_last()
            found = learnt(*arguments, **more)
            die_at_last()
            return found

        def dying_add(*arguments: Any, **more: Any) -> Any:
            die_at_last()
            add(*arguments, **more)
            die_at_last()

        Path.replace = dying_replace  # type: ignore[method-assign, assignment]
        online.learnt, CycleStore.add = dying_learnt, dying_add  # type: ignore[attr-defined, method-assign]
        run(folder, opened(folder))
    finally:
        os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize(("run", "steps"), [(one_cycle, 6), (one_round, 6)], ids=["cycle", "fleet"])
def test_killed_at_any_step_a_model_serves_on_and_the_next_run_is_clean(
    begun: Path, run: Callable[[Path, Store], str], steps: int
) -> None:
    with closing(opened(begun)) as store:
        before = learner_in(begun, store).model()
    assert before is not None
    kills = 0
    for number in range(1, AT_MOST):
        folder = begun.parent / str(number)
        shutil.copytree(begun, folder)
        if not killed_at(folder, number, run):
            break
        kills += 1
        with closing(opened(folder)) as store:
            learner = learner_in(folder, store)
            serving, cycles = learner.model(), CycleStore(store)
            assert serving is not None and not learner.is_training(), "the lock died with its holder"
            assert cycles.count() in (1, 2)
            recorded = cycles.newest(1)[0]["model_id"]
            assert cycles.count() == 1 or recorded == serving.model_id, "what is recorded is in use"
            counted = cycles.count()
            if run is one_cycle and counted == 2:
                continue  # it had come to its end: there is nothing left to learn
            assert run(folder, store) == "deployed"
            assert learner.model() is not None and CycleStore(store).count() == counted + 1
    assert steps <= kills < AT_MOST - 1


@pytest.mark.slow
def test_killed_at_any_step_of_what_waits_for_a_person_a_model_serves_on_and_one_can_decide(begun: Path) -> None:
    kills, served = 0, set()
    for number in range(1, AT_MOST):
        folder = begun.parent / f"held-{number}"
        shutil.copytree(begun, folder)
        if not killed_at(folder, number, held_cycle):
            break
        kills += 1
        with closing(opened(folder)) as store:
            learner = learner_in(folder, store)
            serving = learner.model()
            assert serving is not None and not learner.is_training(), "the lock died with its holder"
            before, now = learner.registry.transitions()[0].model_id, serving.model_id
            served.add(now == before)
            assert learner.registry.history()[0].model_id == now, "the rows say what is in use"
            if now == before:
                assert held_cycle(folder, store) == learner.registry.in_use() != before
            assert learner.registry.waiting() == ""
    assert served == {True, False} and 8 <= kills < AT_MOST - 1
