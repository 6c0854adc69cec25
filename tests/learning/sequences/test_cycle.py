"""Live cycles: collect, train, deploy, delete; what people ask, what they see, and what a death leaves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.core.errors import AgentsError, TrainingError, UsageError
from agents.core.types import Gate, Message, Severity
from agents.learning.baseline import golden_sessions
from agents.learning.sequences import cycle as module
from agents.learning.sequences.cycle import CycleParts, CyclePhase, CycleRequests, SequenceCycle, ask_cycle, read_cycle
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.history import CYCLES_FILE
from agents.learning.sequences.learning import LearntSequences, SequenceModels
from agents.learning.sequences.steps import Windows
from tests.support.detecting import query
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.sequences import NOW, browsing, judged, untrained_model


class Clock:
    def __init__(self) -> None:
        self.at = 1_767_571_200.0

    def __call__(self) -> float:
        return self.at


Learn = Callable[[Windows, int, SequenceModel | None], LearntSequences]


def passing(windows: Windows, epochs: int, in_use: SequenceModel | None) -> LearntSequences:
    return LearntSequences(untrained_model(float(len(windows))), (Gate("g", 0.0, 1.0, False),))


class World:
    def __init__(self, folder: Path, learn: Learn = passing) -> None:
        self.clock, self.models, self.dir = Clock(), SequenceModels(folder / "models"), folder
        self.told: list[Message] = []
        self.cycle = SequenceCycle(folder, CycleParts(self.models, learn, self.clock, self.told.append))

    def ask(self, action: str = "start", **chosen: Any) -> None:
        ask_cycle(self.dir, action=action, **chosen)
        self.cycle.tick()

    def pass_minutes(self, minutes: float) -> None:
        self.clock.at += minutes * 60
        self.cycle.tick()

    def has_ended(self, count: int) -> bool:
        return self.cycle.state.cycles == count

    def wait(self, phase: CyclePhase) -> dict[str, Any]:
        wait_until(lambda: read_cycle(self.dir, self.clock.at).phase is phase)
        return read_cycle(self.dir, self.clock.at).model_dump()


def traffic(seed: int = 1) -> Any:
    return judged([row for at in range(4) for row in browsing(f"10.7.7.{at}", 40, seed + at)])


def test_a_cycle_collects_trains_deploys_and_deletes(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.cycle.see(traffic())
    assert world.cycle.state.collected == 0, "nothing is collected unasked"
    world.ask(minutes=5, length=8)
    world.cycle.see(traffic())
    world.pass_minutes(2)
    state = read_cycle(tmp_path, world.clock.at)
    assert (state.phase, state.collected, state.clients, state.remaining_s) == (CyclePhase.COLLECTING, 160, 4, 180)
    world.pass_minutes(3)
    ended = world.wait(CyclePhase.DEPLOYED)
    assert (ended["windows"], ended["cycles"], ended["text"]) == (36, 1, "g: 0.000, threshold 1.000")
    current = world.models.current()
    assert current is not None and ended["model_id"] == current.model_id
    assert world.cycle._parts_heard == [] and world.cycle._numbers == {}
    world.cycle.see(traffic())
    assert world.cycle._parts_heard == []


def test_queries_of_an_attack_are_not_learnt(tmp_path: Path) -> None:
    session = next(one for name, one in golden_sessions().items() if name.startswith("iodine"))
    rows = [query(NOW + at, "10.7.7.99", name, 16) for at, name in enumerate(session.qname[:200])]
    found = judged([*rows, *(row for at in range(4) for row in browsing(f"10.7.7.{at}", 40, at))])
    assert 0 < (found.severity >= Severity.HIGH).sum() < 200, "of an attack, not every query is one by itself"
    learnt: list[Windows] = []

    def learn(windows: Windows, epochs: int, in_use: SequenceModel | None) -> LearntSequences:
        learnt.append(windows)
        return passing(windows, epochs, in_use)

    world = World(tmp_path, learn)
    for count, seen in enumerate((found, traffic()), 1):
        world.ask(minutes=5, length=8)
        world.cycle.see(seen)
        world.pass_minutes(5)
        wait_until(partial(world.has_ended, count))
    assert [len(np.unique(one.client)) for one in learnt] == [4, 4]
    assert learnt[0].steps.shape == learnt[1].steps.shape


def test_what_is_collected_is_on_no_disk(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ask(minutes=1)
    world.cycle.see(traffic())
    world.cycle.tick()
    names = [b"site", b"10.7.7.", b"example"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {module.ASK_FILE, module.STATE_FILE}
    assert not any(name in path.read_bytes() for path in files for name in names)
    assert all(path.stat().st_size < 1000 for path in files), "and no numbers either"


def test_it_begins_again_until_it_is_stopped(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ask(minutes=1, again=True)
    for count in range(1, 4):
        wait_until(lambda: world.cycle.state.phase is CyclePhase.COLLECTING)
        world.cycle.see(traffic(count))
        world.pass_minutes(1)
        wait_until(partial(world.has_ended, count))
    wait_until(lambda: world.cycle.state.phase is CyclePhase.COLLECTING)
    world.ask("stop")
    world.pass_minutes(5)
    assert world.cycle.state.phase is CyclePhase.STOPPED
    assert world.cycle.state.cycles == 3


def test_one_that_begins_again_goes_on_after_a_restart_and_another_does_not(tmp_path: Path) -> None:
    for again, phase in ((True, CyclePhase.COLLECTING), (False, CyclePhase.IDLE)):
        World(tmp_path).ask(minutes=9, again=again)
        after = World(tmp_path)
        assert read_cycle(tmp_path, after.clock.at + 60).phase is CyclePhase.FAILED, "whoever ran it is gone"
        after.cycle.tick()
        assert after.cycle.state.phase is phase


def test_train_now_ends_the_collecting(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ask("train")
    assert world.cycle.state.phase is CyclePhase.IDLE
    world.ask(minutes=60)
    world.cycle.see(traffic())
    world.ask("train")
    world.wait(CyclePhase.DEPLOYED)


def test_train_now_keeps_what_was_asked_for_and_a_restart_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ask(minutes=9, again=True)
    world.cycle.see(traffic())
    world.ask("train")
    wait_until(lambda: world.cycle.state.cycles == 1)
    after = World(tmp_path)
    after.cycle.tick()
    assert (after.cycle.state.phase, after.cycle.state.minutes) == (CyclePhase.COLLECTING, 9)


def test_a_client_that_is_forgotten_takes_what_was_collected_with_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ask(minutes=9)
    world.cycle.see(traffic())
    world.cycle.forget("192.0.2.200")
    assert world.cycle.state.collected == 160
    world.cycle.forget("10.7.7.1")
    assert (world.cycle.state.phase, world.cycle.state.collected) == (CyclePhase.COLLECTING, 0)
    assert world.cycle._parts_heard == [] and world.cycle._numbers == {}


def test_a_gate_that_is_missed_leaves_the_model_in_use(tmp_path: Path) -> None:
    def failing(windows: Windows, epochs: int, in_use: SequenceModel | None) -> LearntSequences:
        return LearntSequences(untrained_model(9.0), (Gate("surprise of the model in use", 2.0, 1.0, False),))

    world = World(tmp_path, failing)
    world.models.deploy(untrained_model(1.0), 1.0)
    before = world.models.path.read_bytes()
    world.ask(minutes=1)
    world.pass_minutes(1)
    state = world.wait(CyclePhase.REJECTED)
    assert state["text"] == "surprise of the model in use: 2.000, threshold 1.000"
    assert world.models.path.read_bytes() == before


def test_a_training_that_fails_is_said_and_the_next_cycle_is_clean(tmp_path: Path) -> None:
    def broken(windows: Windows, epochs: int, in_use: SequenceModel | None) -> LearntSequences:
        raise TrainingError("cannot train the sequence model: 0 windows, 20 are needed; collect for longer")

    world = World(tmp_path, broken)
    world.ask(minutes=1, again=True)
    world.pass_minutes(1)
    wait_until(partial(world.has_ended, 1))
    wait_until(lambda: world.cycle.state.phase is CyclePhase.COLLECTING)
    state = world.wait(CyclePhase.COLLECTING)
    assert state["text"].startswith("the cycle before failed: cannot train") and "20 are needed" in state["text"]
    world.cycle._parts = CycleParts(world.models, passing, world.clock)
    world.ask(minutes=1)
    world.cycle.see(traffic())
    world.pass_minutes(1)
    world.wait(CyclePhase.DEPLOYED)


def test_so_many_queries_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARD_MAX", 200)
    world = World(tmp_path)
    world.ask(minutes=60)
    for seed in (1, 50):
        world.cycle.see(traffic(seed))
    world.cycle.tick()
    assert world.wait(CyclePhase.DEPLOYED)["collected"] == 320


@pytest.mark.parametrize("chosen", [{"minutes": 0}, {"minutes": 61}, {"length": 4}, {"length": 51}, {"epochs": 4},
                                    {"epochs": "many"}, {"minutes": "nan"}])  # fmt: skip
def test_what_cannot_be_asked_for_is_one_line(tmp_path: Path, chosen: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"cannot begin a cycle: {next(iter(chosen))}") as error:
        CycleRequests(tmp_path, SequenceModels(tmp_path)).ask("start", **chosen)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"action": "dance"}', b"\xff", b'{"minutes": 1e9}'])
def test_damaged_files_are_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / module.ASK_FILE).write_bytes(content)
    (tmp_path / module.STATE_FILE).write_bytes(content)
    world = World(tmp_path)
    world.cycle.tick()
    assert CycleRequests(tmp_path, SequenceModels(tmp_path)).state()["phase"] == "idle"
    json.dumps(CycleRequests(tmp_path, SequenceModels(tmp_path)).state())


def test_a_clock_that_is_set_back_makes_no_cycle_longer(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ask(minutes=10)
    world.pass_minutes(-24 * 60)
    assert world.cycle.state.remaining_s == 600
    world.cycle.see(traffic())
    world.pass_minutes(10)
    world.wait(CyclePhase.DEPLOYED)


def test_each_cycle_is_kept_with_what_came_of_it_and_told(tmp_path: Path) -> None:
    def failing(windows: Windows, epochs: int, in_use: SequenceModel | None) -> LearntSequences:
        model = untrained_model(9.0).noted(loss=2.5, data_sha256="ab" * 32)
        return LearntSequences(model, (Gate("surprise of a guess", 2.5, 1.0, False),))

    world = World(tmp_path)
    assert CycleRequests(tmp_path, world.models).history(5) == []
    for learn, decision in ((passing, "deployed"), (failing, "rejected")):
        world.cycle._parts = CycleParts(world.models, learn, world.clock, world.told.append)
        world.ask(minutes=5, length=8)
        world.cycle.see(traffic())
        world.pass_minutes(5)
        world.wait(CyclePhase(decision))
    wait_until(lambda: len(world.told) == 2)
    rejected, deployed = CycleRequests(tmp_path, world.models).history(5)
    current = world.models.current()
    assert current is not None
    assert (deployed["number"], deployed["decision"], deployed["model_id"]) == (1, "deployed", current.model_id)
    assert (deployed["seconds"], deployed["collected"], deployed["clients"], deployed["trained"]) == (300, 160, 4, 36)
    assert (rejected["number"], rejected["decision"], rejected["loss"]) == (2, "rejected", 2.5)
    assert rejected["reason"] == "surprise of a guess: 2.500, threshold 1.000" and not rejected["gates"][0]["passed"]
    assert (rejected["model_id"], rejected["parent"]) == ("", current.model_id)
    assert [message.title for message in world.told] == ["Sequence model: deployed", "Sequence model: rejected"]
    assert "missed surprise of a guess" in world.told[1].summary


def test_of_cycles_that_begin_again_only_another_outcome_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ask(minutes=1, again=True)
    for count in range(1, 4):
        wait_until(lambda: world.cycle.state.phase is CyclePhase.COLLECTING)
        world.cycle.see(traffic(count))
        world.pass_minutes(1)
        wait_until(partial(world.has_ended, count))
    wait_until(lambda: world.cycle.state.phase is CyclePhase.COLLECTING)
    assert [one["decision"] for one in CycleRequests(tmp_path, world.models).history(9)] == ["deployed"] * 3
    assert len(world.told) == 1


def test_a_model_that_a_person_took_back_is_in_the_history(tmp_path: Path) -> None:
    models = SequenceModels(tmp_path / "models")
    for number in (1.0, 2.0):
        models.deploy(untrained_model(number), number)
    desk = CycleRequests(tmp_path, models)
    before = models.take_back("too loud", "ann")
    (row,) = desk.history(9)
    assert (row["decision"], row["by"], row["reason"], row["model_id"]) == ("taken back", "ann", "too loud", before)
    assert row["parent"] == untrained_model(2.0).model_id


def test_a_damaged_history_is_begun_anew(tmp_path: Path) -> None:
    models = SequenceModels(tmp_path / "models")
    for number in (1.0, 2.0):
        models.deploy(untrained_model(number), number)
    (tmp_path / "models" / CYCLES_FILE).write_bytes(b"{")
    assert models.history.newest(3) == []
    models.take_back("odd", "ann")
    assert [one.number for one in models.history.newest(3)] == [1]


def test_whoever_waits_for_a_request_hears_how_its_cycle_ended(tmp_path: Path) -> None:
    world = World(tmp_path)
    desk = CycleRequests(tmp_path, world.models)
    number = desk.ask("start", minutes=1)
    assert desk.ended(number) is None
    world.cycle.tick()
    world.cycle.see(traffic())
    world.pass_minutes(1)
    world.wait(CyclePhase.DEPLOYED)
    ended = desk.ended(number)
    assert ended is not None and ended["decision"] == "deployed"
    stopped = desk.ask("start", minutes=1)
    world.cycle.tick()
    world.ask("stop")
    with pytest.raises(AgentsError, match="it was stopped"):
        desk.ended(stopped)


def test_a_request_while_a_training_is_under_way_is_refused_to_whoever_waits(tmp_path: Path) -> None:
    held = threading.Event()

    def slow(windows: Windows, epochs: int, in_use: SequenceModel | None) -> LearntSequences:
        held.wait(patient(30))
        return passing(windows, epochs, in_use)

    world = World(tmp_path, slow)
    world.ask(minutes=1)
    world.cycle.see(traffic())
    world.pass_minutes(1)
    desk = CycleRequests(tmp_path, world.models)
    number = desk.ask("start", minutes=1)
    world.cycle.tick()
    with pytest.raises(AgentsError, match="cannot run a cycle: a training is under way"):
        desk.ended(number)
    held.set()
    world.wait(CyclePhase.DEPLOYED)
