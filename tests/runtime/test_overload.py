"""More than can be judged or kept: what is left out goes in a fixed order and is counted, and DNS is answered."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.runtime.health import metrics_of
from agents.runtime.heartbeat import detector_health
from tests.support.commands import call
from tests.support.listening import wait_until
from tests.support.live import running
from tests.support.patience import patient
from tests.support.postgres_server import DEAD
from tests.support.supervised import ODD_EVERY, Load, Supervised, assert_adds_up, lost_for, mixed, supervised

pytestmark = pytest.mark.integration

SMALL = {"QUEUE_MAX": "400", "BATCH_MAX": "20", "OWN_ZONES": "load.test"}  # whose hosts are NORMAL, however many


def is_odd(name: str) -> bool:
    return not name.endswith("load.test")


@contextlib.contextmanager
def locked(one: Supervised) -> Any:
    """Nobody else can write to the database."""
    path = one.folder / "data" / "dns-tunnel.db"
    with contextlib.closing(sqlite3.connect(path, timeout=patient(30), isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


def rows(one: Supervised) -> list[tuple[str, int, list[str]]]:
    """(name, severity, reasons) of what is stored, in the order it was."""
    with contextlib.closing(sqlite3.connect(one.folder / "data" / "dns-tunnel.db")) as database:
        found = database.execute("SELECT qname, severity, reasons FROM queries ORDER BY id").fetchall()
    return [(name, severity, json.loads(reasons)) for name, severity, reasons in found]


@pytest.mark.slow
def test_overload_sheds_in_order_and_all_of_it_adds_up(tmp_path: Path) -> None:
    with supervised(tmp_path, **SMALL) as one:
        load = Load(one.port, mixed, per_s=100)
        load.wait_answered(40)
        load.stop()
        calm = one.rested()
        first = len(load.answered)
        load = Load(one.port, lambda number: mixed(number + first))
        with locked(one):  # a store that stands still: the rings fill up
            wait_until(lambda: one.state()["queue_dropped"] > 50, 30)
            load.wait_answered(100)
        load.stop()
        peak = one.state()
        state = one.rested()
        assert one.stop() == 0
    assert len(load.answered) == load.sent, "answering is never given up"
    assert [calm[name] for name in ("load_level", "unexplained", "sampled_out")] == [0, 0, 0]
    assert all(bool(severity) == bool(reasons) for _, severity, reasons in rows(one)[:first])
    assert peak["queue_dropped"] > 50
    assert state["unexplained"] > 0
    assert state["sampled_out"] > 0
    assert state["load_level"] < 2, "and it ends"
    assert state["queue_dropped"] + state["scored"] == load.sent + first
    assert_adds_up(state)
    stored = rows(one)
    kept = state["stored"] + state["spooled"]
    assert len(stored) == kept == len({name for name, _, _ in stored})
    odd = [(name, severity, reasons) for name, severity, reasons in stored if severity]
    assert sum(not reasons for _, _, reasons in odd) == state["unexplained"]
    judged_odd = sum(is_odd(name) for name, _, _ in stored)
    judged_plain = len(stored) - judged_odd + state["sampled_out"]
    assert abs(judged_odd - judged_plain / (ODD_EVERY - 1)) < 0.3 * judged_odd, "only NORMAL ones are sampled"


@pytest.mark.slow
def test_a_detector_killed_while_it_sheds_and_all_of_it_adds_up(tmp_path: Path) -> None:
    with supervised(tmp_path, **SMALL) as one:
        load = Load(one.port, mixed)
        load.wait_answered(40)
        with locked(one):
            wait_until(lambda: one.state().get("queue_dropped", 0) > 50, 30)
            os.kill(one.pid("detector"), signal.SIGKILL)
            load.wait_answered(100)
        wait_until(lambda: one.state()["processes"]["detector"]["restarts"] == 1, 30)
        load.wait_answered(100)
        load.stop()
        state = one.rested()
        assert one.stop() == 0
    assert len(load.answered) == load.sent
    assert state["queue_dropped"] + state["scored"] == load.sent
    assert_adds_up(state)
    names = [name for name, _, _ in rows(one)]
    assert len(names) == len(set(names)) == state["stored"] + state["spooled"]
    assert state["lost"] == 0
    assert min(state["unexplained"], state["sampled_out"]) > 0


@pytest.mark.slow
def test_what_is_shed_is_shown(tmp_path: Path) -> None:
    with running(tmp_path, **SMALL) as process:
        load = Load(process.dns_port, mixed)
        load.wait_answered(100)
        with contextlib.closing(sqlite3.connect(tmp_path / "data" / "dns-tunnel.db", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            wait_until(lambda: process.get("/health")["components"]["overload"].get("queue_dropped", 0) > 0, 30)
            load.stop()
            health = process.get("/health")
            database.execute("ROLLBACK")
        assert health["components"]["overload"]["queue_waiting"] > 0
        wait_until(lambda: process.get("/health")["components"]["overload"]["queue_waiting"] == 0, 30)
        wait_until(lambda: process.get("/health")["components"]["overload"]["sampled_out"] > 0, 30)
        shown = {one.name: one.value for one in metrics_of(detector_health(tmp_path / "data")[1])}
        metrics = httpx.get(
            f"http://127.0.0.1:{process.api_port}/metrics", headers=dict(process.client.headers), trust_env=False
        ).text
        doctor = call_doctor(process.settings, tmp_path)
        assert process.stop() == 0
    for name in ("detector_unexplained_total", "detector_sampled_out_total", "detector_queue_dropped_total"):
        assert shown[name] > 0
        assert f"dns_tunnel_{name} {shown[name]:.1f}" in metrics
    assert f"{shown['detector_queue_dropped_total']} queries not judged" in doctor


def call_doctor(settings: dict[str, str], folder: Path) -> str:
    return call(folder, "--data-dir", folder, "doctor", UPSTREAMS=settings["UPSTREAMS"]).out


@pytest.mark.slow
def test_a_full_spool_is_one_error_and_dns_goes_on(tmp_path: Path) -> None:
    with supervised(tmp_path, DATABASE_URL=DEAD, SPOOL_MAX_MB="1", BATCH_WAIT_MS="20") as one:
        why = lost_for(one, per_s=4000)
        assert list((tmp_path / "data" / "spool").glob("*.npz")) != []
    assert why.startswith("cannot keep a file: ") and why.endswith("has reached 1048576 bytes")


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_one_error_and_dns_goes_on(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for the disk: a write beyond it fails in the middle of a batch."""
    first = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
"""
    with supervised(tmp_path, first, DATABASE_URL=DEAD, BATCH_WAIT_MS="300") as one:
        assert lost_for(one) == "cannot spool a batch: File too large"


@pytest.mark.parametrize("processes", ["0", "1", "3"])
@pytest.mark.slow
def test_any_number_of_listeners_and_one_a_core_unless_told(tmp_path: Path, processes: str) -> None:
    listeners = int(processes) or len(os.sched_getaffinity(0))
    with supervised(tmp_path, LISTENER_PROCESSES=processes, LISTEN_HOST="127.0.0.1,::1") as one:
        load = Load(one.port)
        load.wait_answered(100)
        load.stop()
        state = one.rested()
        assert one.stop() == 0
    assert len(state["processes"]) == listeners + 1
    assert state["scored"] == load.sent == len(load.answered)
