"""What hangs is noticed and started again, and nothing is lost: real processes that are stopped with SIGSTOP."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.runtime.heartbeat import PARTS, read_heartbeat
from agents.runtime.judging.judge import Judge
from tests.support.commands import BASE, environment
from tests.support.listening import wait_until
from tests.support.live import running
from tests.support.patience import patient
from tests.support.postgres_server import PostgresServer, drop_database, make_database
from tests.support.running import free_port, process
from tests.support.stubs import StubServer
from tests.support.supervised import Load, Supervised, assert_adds_up, postgres_names, replaced, supervised

pytestmark = [pytest.mark.integration, pytest.mark.slow]
HANG = {"HANG_S": "5"}


def stop(one: Supervised, name: str) -> None:
    """SIGSTOP, and wait until another process is in its place and answers."""
    old = one.pid(name)
    os.kill(old, signal.SIGSTOP)
    wait_until(lambda: one.state().get("processes", {}).get(name, {"pid": old})["pid"] != old, 40)
    wait_until(lambda: bool(one.state().get("judging")), 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["listener-1", "detector"])
def test_a_stopped_process_is_replaced_and_nothing_is_lost(tmp_path: Path, name: str) -> None:
    with supervised(tmp_path, LISTENER_PROCESSES="1", **HANG) as one:
        load = Load(one.port, per_s=200)
        load.wait_answered(100)
        wait_until(lambda: bool(one.state().get("scored")), 20)
        stop(one, name)
        load.wait_answered(100)
        load.stop()
        state = one.rested()
        assert (state["processes"][name]["hangs"], state["processes"][name]["restarts"]) == (1, 1)
        assert_adds_up(state)
        assert state["lost"] == state["queue_dropped"] == 0
        (told,) = one.events("process_hangs")
        assert told["process"] == name
        assert one.stop() == 0
        stored = one.sqlite_names()
    assert len(stored) == len(set(stored)), "none twice"
    if name == "detector":
        assert load.answered <= set(stored)


def test_health_says_that_a_listener_hangs_before_it_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, LISTENER_PROCESSES="2", HANG_S="30") as one:
        assert one.get("/health")["components"]["listener"]["hanging"] == []
        pid = one.pid("listener-2")
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: one.get("/health")["components"]["listener"]["hanging"] == ["listener-2"], 25)
        listener = one.get("/health")["components"]["listener"]
        assert not listener["ok"]
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: one.get("/health")["components"]["listener"]["ok"], 20)
        assert one.ask("www.example.com").answer


def test_a_stopped_console_is_replaced_and_dns_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, **HANG) as one:
        os.kill(one.pid("console"), signal.SIGSTOP)
        assert one.ask("www.example.com").answer

        def answers() -> bool:
            try:
                return one.client.get("/health", timeout=patient(2)).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, 40)
        assert one.events("process_hangs")[0]["process"] == "console"


SLOW_START = "import agents.runtime.supervisor\nagents.runtime.supervisor.READY_S = 8.0\n"


@pytest.mark.slow
def test_a_process_that_hangs_before_it_is_ready_is_replaced(tmp_path: Path) -> None:
    """The second detector hangs, as one may that finds a file on a disk that does not answer."""
    hanging = """
def replacement(self, *given):
    starts = Path("starts")
    starts.write_text((starts.read_text() if starts.exists() else "") + "x")
    if len(starts.read_text()) == 2:
        time.sleep(3600)
    return real(self, *given)
"""
    with supervised(tmp_path, SLOW_START + replaced(Judge.start, hanging), LISTENER_PROCESSES="1") as one:
        load = Load(one.port, per_s=50)
        load.wait_answered(50)
        one.kill("detector")
        wait_until(lambda: one.events("process_hangs") != [], 60)
        wait_until(lambda: bool(one.state().get("judging")), 40)
        load.stop()
        assert_adds_up(one.rested())
        assert one.stop() == 0
    assert [(line["process"], line["still_s"]) for line in one.events("process_hangs")] == [("detector", 8.0)]
    assert (tmp_path / "starts").read_text() == "xxx"


@pytest.mark.slow
def test_one_that_hangs_at_the_first_start_is_one_line(tmp_path: Path) -> None:
    hanging = SLOW_START + replaced(Judge.start, "replacement = lambda self: time.sleep(3600)")
    with StubServer() as upstream:
        one = Supervised(tmp_path, upstream, hanging)
        assert one.process.wait(patient(90)) == 1
    assert "dns-tunnel: cannot start process detector: it was not ready after 8 s" in one.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("command", "part"), [("api", "api"), ("schedule", "scheduler")])
def test_a_service_alone_is_started_again_when_it_hangs_or_dies(tmp_path: Path, command: str, part: str) -> None:
    log, state = tmp_path / "log", tmp_path / "data" / PARTS[part]
    settings = environment(DATA_DIR=str(tmp_path), API_PORT=str(free_port()), HANG_S="5")

    def beats(other_than: int) -> int:
        """The process that gives signs of life, once it is ready: the first comes before that."""
        if not read_heartbeat(state)["ok"]:
            return 0
        found: dict[str, Any] = json.loads(state.read_bytes())
        pid = int(found["writer"][1])
        return pid if pid != other_than and found["at"] - started.setdefault(pid, found["at"]) > 1 else 0

    started: dict[int, float] = {}
    with process([*BASE, command], log, settings) as one:
        old = one.pid
        for number in (signal.SIGSTOP, signal.SIGKILL):
            wait_until(lambda old=old: beats(old) > 0, 60)  # type: ignore[misc]
            old = beats(old)
            os.kill(old, number)
        wait_until(lambda: beats(old) > 0, 60)
        one.terminate()
        assert one.wait(patient(30)) == 0
    events = [json.loads(line)["event"] for line in log.read_text().splitlines() if line.startswith("{")]
    assert (events.count("process_hangs"), events.count("process_died")) == (1, 2)


@pytest.mark.slow
def test_who_waits_long_for_a_batch_to_fill_does_not_hang(tmp_path: Path) -> None:
    with supervised(tmp_path, BATCH_WAIT_MS="15000", **HANG) as one:
        load = Load(one.port, per_s=200)
        load.wait_answered(20)
        load.stop()
        wait_until(lambda: one.state().get("scored", 0) == load.sent, 60)
        assert one.events("process_hangs") == []


def test_what_a_forced_stop_loses_is_counted(tmp_path: Path) -> None:
    with supervised(tmp_path) as one:
        os.kill(one.pid("detector"), signal.SIGSTOP)
        load = Load(one.port, per_s=200)
        load.wait_answered(50)
        load.stop()
        one.process.terminate()
        wait_until(lambda: bool(one.events("waiting_for_end")), 20)
        one.process.terminate()
        assert one.process.wait(patient(30)) == 1
        (lost,) = one.events("queries_lost_at_stop")
        assert lost["queries"] == load.sent


def timed_health(one: Any) -> tuple[float, dict[str, Any]]:
    begun = time.monotonic()
    found = one.client.get("/health").json()
    return time.monotonic() - begun, found["components"]


@pytest.mark.slow
def test_a_stopped_postgres_stops_nothing_else(own_postgres: PostgresServer, tmp_path: Path) -> None:
    url = make_database(own_postgres.url)
    with running(tmp_path, DATABASE_URL=url, LISTENER_PROCESSES="1") as one:
        load = Load(one.dns_port, per_s=300)
        load.wait_answered(300)
        wait_until(lambda: one.state().get("stored", 0) > 0, 20)
        own_postgres.freeze()
        try:
            before = one.state()["scored"]
            took = [timed_health(one) for _ in range(10)]
            load.wait_answered(1500)
            wait_until(lambda: one.state()["scored"] > before + 1000, 30)
            state = one.state()
            assert state["spooled"] > 0
            begun = time.monotonic()
            answer = one.client.get("/queries", timeout=patient(60))
            assert answer.status_code == 503
            assert "no answer within" in answer.json()["error"] or "timeout" in answer.json()["error"]
            assert time.monotonic() - begun < patient(45)
            took += [timed_health(one) for _ in range(3)]
        finally:
            own_postgres.thaw()
        load.stop()
        assert max(seconds for seconds, _ in took) < patient(1)
        assert not took[-1][1]["database"]["ok"]
        assert took[-1][1]["listener"]["ok"]
        assert took[-1][1]["overload"]["oldest_unjudged_s"] < patient(10)
        state = one.rested()
        assert_adds_up(state)
        assert state["lost"] == state["queue_dropped"] == 0
        assert state["processes"]["detector"]["restarts"] == 0
        stored = postgres_names(url)
        assert sorted(stored) == sorted(set(stored))
        assert load.answered <= set(stored)
    drop_database(own_postgres.url, url)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for more sockets than a process has by default."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.slow
@pytest.mark.usefixtures("many_files")
def test_half_sent_requests_hold_nothing_up(tmp_path: Path) -> None:
    with running(tmp_path) as one:
        held = []
        try:
            for _ in range(1100):
                sock = socket.create_connection(("127.0.0.1", one.api_port), timeout=patient(20))
                sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                held.append(sock)
            took, components = timed_health(one)
            assert components["listener"]["ok"]
            assert took < patient(1)
            size = one.log.stat().st_size
            assert all(map(is_closed, held))
            assert timed_health(one)[1]["listener"]["ok"]
            assert one.log.stat().st_size - size < 10_000
        finally:
            for sock in held:
                sock.close()
