"""A canary on a real bus: two hosts judge beside the model in use, one dies, and the rules end it for both."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agents.learning.release.canary import CanaryTerms
from agents.runtime import bootstrap
from agents.runtime.bootstrap import load_settings
from agents.runtime.bus.canary_sharing import SUM_S
from agents.settings import Settings
from tests.runtime.bus.test_bus_live import CLIENTS, asked_by_all, command_said, two_detectors
from tests.runtime.several.test_several_live import ask
from tests.support.bus import SLOTS, Cluster, Deploying
from tests.support.bus import cluster as bus_cluster
from tests.support.carrier import LOOSE, TIGHT, carried, with_factor
from tests.support.commands import environment
from tests.support.listening import wait_until
from tests.support.supervised import Supervised

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]
TERMS = CanaryTerms(share=1.0, hours=2.0, queries_min=100)
LOOSER, TIGHTER = with_factor(LOOSE).model_id, with_factor(TIGHT).model_id


def settings_of(host: Deploying) -> Settings:
    wanted = ("STREAM", "STREAM_SLOTS", "DATABASE_URL")
    return load_settings(data_dir=host.folder, **{name.lower(): host.settings[name] for name in wanted})


def seen(host: Deploying) -> dict[str, Any]:
    """What the console and `models canary` say of the canary; {} where none runs."""
    settings = settings_of(host)
    with closing(bootstrap.store_of(settings)) as store:
        return bootstrap.model_desk_of(settings, store).canary() or {}


def began(bus: Cluster) -> tuple[Supervised, Deploying]:
    """A host that hears, and one that deploys: a model with wide limits is in use, and one with narrow ones is kept."""
    host, deploying = bus.listening("a"), bus.deploying("s", DEPLOY="canary")
    for factor in (LOOSE, TIGHT):
        deploying.registry.save_candidate(with_factor(factor))
    deploying.registry.promote(LOOSER)
    deploying.wait_ready()
    host.wait_ready()
    return host, deploying


def begin(deploying: Deploying) -> None:
    """Let the kept one judge as a canary on both hosts."""
    wait_until(lambda: deploying.running() == dict.fromkeys(("d1", "d2"), LOOSER), 60)
    deploying.registry.begin_canary(TIGHTER, asdict(TERMS), time.time())
    wait_until(lambda: deploying.running("candidate") == dict.fromkeys(("d1", "d2"), TIGHTER), 60)


def later(deploying: Deploying, hours: float) -> Any:
    """What the rules do when so many hours have passed."""
    settings = settings_of(deploying)
    with closing(bootstrap.store_of(settings)) as store:
        rollout = bootstrap.rollout_of(settings, store)
        return type(rollout)(**{**vars(rollout), "clock": lambda: time.time() + hours * 3600}).look()


def told(bus: Cluster) -> list[tuple[Any, ...]]:
    """Incidents of the canary alone: client, and whether they are open."""
    return bus.rows(
        "SELECT client, closed_at IS NULL FROM incidents WHERE domain LIKE 'slow%'"
        " AND evidence LIKE '%canary%' AND severity >= 2 ORDER BY client"
    )


def test_two_hosts_judge_one_dies_and_what_both_counted_promotes_it_on_both(tmp_path: Path) -> None:
    with bus_cluster(tmp_path) as bus:
        host, deploying = began(bus)
        one, two = two_detectors(bus)
        begin(deploying)
        says = command_said(deploying, "doctor")
        assert f"canary {TIGHTER} since" in says, says
        assert set(seen(deploying)["hosts"]) == {"d1", "d2"}

        asked = asked_by_all(host, 5)
        wait_until(lambda: seen(deploying)["seen"]["queries"] == asked, 60)
        channel = carried("slow.test", 3)
        asked += ask(host.port, CLIENTS[0], list(channel))
        asked += asked_by_all(host, 3)
        wait_until(lambda: bus.stored() == asked, 60)  # judged, and perhaps not saved
        one.kill_all()
        wait_until(lambda: two.slots == set(range(SLOTS)), 60)
        asked += asked_by_all(host, 4)
        wait_until(lambda: seen(deploying)["seen"]["queries"] >= asked, 60)
        counts, first = deploying.folder / "data" / "canary.json", time.time()
        wait_until(lambda: counts.stat().st_mtime > first + SUM_S, 60)  # and two sums later nothing came twice
        found = seen(deploying)["seen"]
        assert (found["queries"], found["candidate_alerts"], found["champion_alerts"]) == (asked, 1, 0)
        assert told(bus) == [(CLIENTS[0], 1)]

        assert later(deploying, 1) is None
        made = later(deploying, 2.1)
        assert (made.action, made.model_id) == ("promote canary", TIGHTER)
        one = bus.detecting("d1")
        one.wait_ready()
        wait_until(lambda: deploying.running() == dict.fromkeys(("d1", "d2"), TIGHTER), 60)
        wait_until(lambda: set(deploying.running("candidate").values()) == {""}, 60)
        for judging in (one, two):
            assert judging.registry.canary() is None
            assert judging.registry.history()[0].model_id == TIGHTER
        assert told(bus) == [(CLIENTS[0], 1)], "the model in use goes on with it"
        assert seen(deploying) == {}
        assert host.stop() == 0 and one.stop() == 0 and two.stop() == 0 and deploying.stop() == 0


def test_one_that_alerts_too_often_is_stopped_on_both_and_what_it_told_is_closed(tmp_path: Path) -> None:
    with bus_cluster(tmp_path) as bus:
        host, deploying = began(bus)
        one, two = two_detectors(bus)
        begin(deploying)
        for number, client in enumerate(CLIENTS[:6]):
            ask(host.port, client, list(carried(f"slow{number}.test", number)))
        wait_until(lambda: deploying.registry.canary() is None, 90)
        last = deploying.registry.transitions()[-1]
        assert (last.action, last.by, "at most 3 beside 0" in last.reason) == ("stop canary", "its rules", True)
        wait_until(lambda: set(deploying.running("candidate").values()) == {""}, 60)
        wait_until(lambda: [open_ for _, open_ in told(bus)] == [0] * 6, 60)
        assert deploying.running() == dict.fromkeys(("d1", "d2"), LOOSER)
        for judging in (one, two):
            assert judging.registry.transitions()[-1].action == "stop canary"
        assert host.stop() == 0 and one.stop() == 0 and two.stop() == 0 and deploying.stop() == 0


def test_a_person_begins_one_by_the_command_and_ends_it(tmp_path: Path) -> None:
    with bus_cluster(tmp_path) as bus:
        _, deploying = began(bus)
        one = bus.detecting("d1")
        one.wait_ready()
        wait_until(lambda: deploying.running() == {"d1": LOOSER}, 60)
        deploying.registry.mark(TIGHTER, "waiting")
        models(deploying, "canary", TIGHTER)
        wait_until(lambda: deploying.running("candidate") == {"d1": TIGHTER}, 60)
        assert '"d1"' in models(deploying, "canary")
        models(deploying, "reject", TIGHTER)
        wait_until(lambda: deploying.running("candidate") == {"d1": ""}, 60)
        assert one.stop() == 0 and deploying.stop() == 0


def models(host: Supervised, *words: str) -> str:
    """What `dns-tunnel models …` says."""
    env = environment(**host.settings) | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    command = [sys.executable, "-m", "agents", "models", *words]
    return subprocess.run(command, cwd=host.folder, env=env, capture_output=True, text=True, check=True).stdout
