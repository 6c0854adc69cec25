"""Drills: a test tunnel through a listener and a collector is seen, judged, stored and forgotten; what is not seen is
said; and nothing of it counts anywhere.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.core.errors import AgentsError
from agents.core.types import Message, QueryBatch, Row, Severity, batch_of
from agents.dns.drill import DRILL_NAMES, DRILL_REQUEST, DRILL_ZONE, drill_names, drill_of, injected, requested
from agents.runtime import health as health_module
from agents.runtime.bootstrap import intakes, judge_parts, load_settings, make_folders, processes, store_of
from agents.runtime.drill.drill import COPIES_MAX, DRILL_STATE, Drill, DrillTargets, drill_text
from agents.runtime.drill.options import DrillOptions
from agents.runtime.health import DRILLS_LATE, ProcessHealth
from agents.runtime.heartbeat import DetectorHealth
from agents.runtime.judging.judge import Judge
from tests.support.detecting import query
from tests.support.listening import listening, wait_until
from tests.support.stubs import StubServer

pytestmark = pytest.mark.integration


@contextmanager
def judging(folder: Path, targets: DrillTargets, seen_s: float = 30.0, **options: Any) -> Iterator[tuple[Judge, Drill]]:
    """A judge, and the drill of its parts, which is run by hand."""
    settings = load_settings(data_dir=folder, burn_in_days=0)
    make_folders(settings)
    parts = judge_parts(settings, targets=targets)
    drill = parts.drill
    assert isinstance(drill, Drill)
    drill._seen_s = seen_s
    judge = Judge(parts)
    judge.start()
    try:
        yield judge, drill
    finally:
        judge.close()


def test_names_say_what_they_are_of() -> None:
    names = drill_names("0a1b2c3d", "listener")
    assert len(set(names)) == DRILL_NAMES and {drill_of(name) for name in names} == {("0a1b2c3d", "listener")}
    assert drill_of(b"\3www\7example") is None
    assert drill_of(b"\2xx" + names[0][61:]) is None


def test_a_listener_is_asked_and_its_tunnel_seen_judged_stored_and_forgotten(tmp_path: Path) -> None:
    with StubServer() as stub, listening(stub) as (listener, rows):
        with judging(tmp_path, DrillTargets(("127.0.0.1", listener.ports[0]))) as (judge, drill):
            wait_until(lambda: judge._tried.is_set())
            before = judge.health()
            stop = False

            def hand_on() -> None:
                taken = 0
                while not stop:
                    found = rows[taken:]
                    taken += len(found)
                    if found:
                        judge.consume(_batch(found), f"batch-{taken}")
                    time.sleep(0.02)

            thread = threading.Thread(target=hand_on)
            thread.start()
            try:
                result = drill.run()
            finally:
                stop = True
                thread.join()
            assert result["ok"], result
            assert (result["asked"], result["injected"], result["unseen"], result["stored"]) == (1, 0, 0, True)
            after = judge.health()
            assert after.flows == before.flows == 0 and after.incidents_open == 0
            assert after.drill["ok"] and "the listener (asked): 40 names" in after.drill["through"][0]
        settings = load_settings(data_dir=tmp_path)
        with closing(store_of(settings)) as store:
            assert store.queries(limit=10)[0] == [] and store.incidents(limit=10) == []
    assert json.loads((tmp_path / "data" / DRILL_STATE).read_text())["failed"] == 0


def _batch(rows: list[tuple[Any, ...]]) -> QueryBatch:
    return batch_of([(*row[:11],) for row in rows])


def test_rows_of_a_drill_are_taken_out_of_a_batch_whenever_they_come(tmp_path: Path) -> None:
    with judging(tmp_path, DrillTargets(collector=True)) as (judge, drill):
        now = time.time()
        for late in ("0a1b2c3d", "11111111"):
            drill._expect(late, drill._plan())
        shouted = [name.upper() for name in drill_names("0a1b2c3d", "collector")]  # as resolvers do that vary the case
        mixed: list[Row] = [(now, "192.0.2.7", name, 16, 90, 3, 0, -1, -1, float("nan"), "") for name in shouted]
        mixed.insert(30, query(now, "192.0.2.7", "www.example.com"))
        outcome = judge.consume(batch_of(mixed), "mixed")
        assert (outcome.rows, outcome.stored + outcome.spooled) == (DRILL_NAMES + 1, DRILL_NAMES + 1)
        flows = judge.detector.gauges()["flows"]
        assert flows <= 2 and not judge.detector.open_incidents, "of www.example.com alone"
        assert judge.consume(injected("11111111"), "alone").rows == DRILL_NAMES
        assert judge.detector.gauges()["flows"] == flows


def test_a_tunnel_below_the_zone_of_drills_is_an_incident(tmp_path: Path) -> None:
    with judging(tmp_path, DrillTargets(collector=True)) as (judge, drill):
        drill._expect("0a1b2c3d", drill._plan())
        rng, now = random.Random(1), time.time()
        names = [f"{rng.randbytes(30).hex()}.collector-0a1b2c3d.{DRILL_ZONE}" for _ in range(200)]
        judge.consume(batch_of([query(now + i / 50, "192.0.2.7", name) for i, name in enumerate(names)]), "tunnel")
        assert {one.client for one in judge.detector.open_incidents.values()} == {"192.0.2.7"}


def test_names_of_a_drill_that_are_played_again_and_again_are_judged(tmp_path: Path) -> None:
    drill = drill_with(tmp_path, Told())
    drill._expect("0a1b2c3d", drill._plan())
    left = [len(drill.split(injected("0a1b2c3d"))) for _ in range(COPIES_MAX + 1)]
    assert left == [0] * COPIES_MAX + [DRILL_NAMES]


def test_rows_of_a_drill_that_come_after_a_restart_are_taken_out(tmp_path: Path) -> None:
    drill = drill_with(tmp_path, Told(), targets=DrillTargets(("127.0.0.1", 1)), seen_s=0.1)
    drill.run()
    late = injected(requested(tmp_path / DRILL_REQUEST), "listener")
    again = drill_with(tmp_path, Told(), targets=DrillTargets(("127.0.0.1", 1)))
    assert len(again.split(late)) == 0


def test_a_listener_that_may_not_be_asked_is_a_failure(tmp_path: Path) -> None:
    from agents.runtime.health import _drill as health_of
    from agents.runtime.health import metrics_of
    from agents.runtime.heartbeat import DetectorHealth

    settings = load_settings(data_dir=tmp_path, allowed_clients="192.0.2.0/24", upstreams="127.0.0.1:1")
    make_folders(settings)
    targets = processes._drill_targets(intakes.listener_config(settings), None, None)
    drill = Drill(DrillOptions(minutes=60), targets, tmp_path, _real)
    assert not drill.enabled
    with pytest.raises(AgentsError, match=r"127\.0\.0\.1 is no client of it"):
        drill_text(drill.state(), time.time())
    state = DetectorHealth(drill=drill.state())
    assert "cannot drill: this machine may not ask" in health_of(state)["drill"]["error"]
    assert [one.value for one in metrics_of(state) if one.name == "drill_ok"] == [False]
    assert Drill(DrillOptions(minutes=0), targets, tmp_path, _real).state() == {}


class Told(list[Message]):
    def __call__(self, message: Message) -> None:
        self.append(message)


class SilentDetector:
    """One that finds nothing, in the place of the real one: what a broken model would be like."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def judge(self, batch: QueryBatch, seen: Any, explain: bool = True) -> Any:
        from dataclasses import replace

        return replace(self._real.judge(batch, seen, explain), incidents=())


def drill_with(folder: Path, told: Told, **changed: Any) -> Drill:
    options = DrillOptions(minutes=60, daily=changed.pop("daily", True))
    targets = changed.pop("targets", DrillTargets(collector=True))
    make = changed.pop("make", None) or _real
    drill = Drill(
        options, targets, folder, make, changed.pop("forget", lambda: None), told, seen_s=changed.pop("seen_s", 5.0)
    )
    drill._keep = changed.pop("keep", lambda verdicts: True)
    return drill


def _real() -> Any:
    from agents.detection.detector import TunnelDetector
    from agents.detection.known_services import KnownServices
    from agents.detection.limits import Scale
    from agents.learning.baseline import model_bytes
    from agents.scoring.model import Model

    return TunnelDetector(Model.from_bytes(model_bytes()), 64, 3600.0, Scale(), KnownServices(), (0, 0))


def collect(drill: Drill, folder: Path) -> Any:
    """A collector that answers the request once, as sources/collector.py does."""
    before = requested(folder / DRILL_REQUEST)

    def answer() -> None:
        for _ in range(500):
            if (found := requested(folder / DRILL_REQUEST)) and found != before:
                drill.split(injected(found))
                return
            time.sleep(0.01)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def run(drill: Drill, folder: Path, heard: bool = True) -> Any:
    thread = collect(drill, folder) if heard else None
    result = drill.run()
    if thread:
        thread.join()
    return result


def test_what_a_collector_was_given_is_said_to_be_injected(tmp_path: Path) -> None:
    told = Told()
    result = run(drill_with(tmp_path, told), tmp_path)
    assert result["ok"] and "the collector (injected): 40 names" in result["through"][0] and told == []


@pytest.mark.parametrize(
    ("changed", "heard", "problem"),
    [
        ({"seen_s": 0.5}, False, "the collector (injected): 0 of 40 names were seen"),
        ({"make": lambda: SilentDetector(_real())}, True, "the tunnel was seen, and judged NORMAL"),
        ({"keep": lambda verdicts: False}, True, "what was seen is not in the database"),
        ({"targets": DrillTargets(("127.0.0.1", 1)), "seen_s": 0.5}, False, "the listener (asked): 0 of 40 names"),
    ],
)
def test_what_is_not_seen_is_told_once_and_again_when_it_is_well(
    tmp_path: Path, changed: dict[str, Any], heard: bool, problem: str
) -> None:
    told = Told()
    drill = drill_with(tmp_path, told, **changed)
    for _ in range(2):
        result = run(drill, tmp_path, heard)
        assert not result["ok"] and problem in " ".join(result["problems"])
    assert [one.title for one in told] == ["DNS tunnel detector: a test tunnel was not seen"]
    assert told[0].severity == Severity.CRITICAL
    with pytest.raises(AgentsError, match="cannot see a test tunnel"):
        drill_text(drill.state(), time.time())
    again = drill_with(tmp_path, told)  # another process, which remembers
    assert run(again, tmp_path)["ok"]
    assert [one.title for one in told][1:] == ["DNS tunnel detector: all is well"]


def test_once_a_day_the_channels_are_told_that_all_is_well(tmp_path: Path) -> None:
    told = Told()
    for daily, count in ((True, 1), (False, 1)):
        drill = drill_with(tmp_path, told, daily=daily)
        assert run(drill, tmp_path)["ok"]
        state = json.loads((tmp_path / DRILL_STATE).read_text())
        (tmp_path / DRILL_STATE).write_text(json.dumps(state | {"told_at": time.time() - 90_000}))
        drill = drill_with(tmp_path, told, daily=daily)
        assert run(drill, tmp_path)["ok"]
        assert len(told) == count and told[0].severity == Severity.NORMAL


def test_without_minutes_there_is_none(tmp_path: Path) -> None:
    drill = Drill(DrillOptions(), DrillTargets(collector=True), tmp_path, _real)
    drill.start(lambda verdicts: True)
    assert drill.alive and drill.state() == {} and drill_text({}, 0.0).startswith("there is none")
    drill.close()


def test_a_batch_without_drills_is_the_same_object(tmp_path: Path) -> None:
    batch = batch_of([query(1.0, "192.0.2.7", "www.example.com")])
    drill = Drill(DrillOptions(), DrillTargets(), tmp_path, _real)
    assert drill.split(batch) is batch
    assert np.array_equal(batch.ts, [1.0])


def test_a_first_drill_that_hangs_is_red_without_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    of_health = ProcessHealth(tmp_path, None)  # type: ignore[arg-type]

    def error(**drill: Any) -> str:
        state = DetectorHealth(run_id="a", drill={"minutes": 60, "at": 0.0, "ok": True, **drill})
        return str(health_module._drill(state, of_health._since(state))["drill"].get("error", ""))

    assert error() == ""
    now[0] += DRILLS_LATE * 3600 - 1
    assert error() == error(at=now[0] - 9e6) == ""
    now[0] += 2
    assert error(at=now[0] - 60) == ""
    assert error() == error(at=now[0] - 9e6) == f"cannot drill: no test tunnel has ended for {DRILLS_LATE * 3600 + 1} s"
