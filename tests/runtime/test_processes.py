"""`dns-tunnel run` as a process: what is there from the start, and what goes on without a database."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path

import dns.message
import dns.query
import httpx
import pytest

from agents.runtime import heartbeat
from agents.runtime.health import calendar_of
from agents.runtime.schedule import RetrainScheduler
from agents.store import open_store
from tests.store.test_sqlite import SPOILT
from tests.support.patience import patient
from tests.support.postgres_server import DEAD
from tests.support.running import free_port, product, wait_for
from tests.support.stubs import StubServer

pytestmark = pytest.mark.integration


def _ask(port: int) -> str:
    answer = dns.query.udp(dns.message.make_query("www.example.com", "A"), "127.0.0.1", port=port, timeout=patient(5))
    return str(answer.answer[0][0].to_text())


@pytest.mark.slow
def test_folders_and_an_empty_log_are_there_before_any_retraining(tmp_path: Path) -> None:
    port, api = free_port(), free_port()
    with StubServer() as stub:
        settings = {"listen_port": str(port), "api_port": str(api), "upstreams": f"127.0.0.1:{stub.port}"}
        with product("run", tmp_path, **settings) as process:
            assert [path.name for path in (tmp_path / "models" / "backups").iterdir()] == ["README"]
            assert list((tmp_path / "reports" / "training_reports").iterdir()) == []
            assert (tmp_path / "logs" / "retraining.log").read_bytes() == b""
            assert _ask(port) == "192.0.2.1"
            wait_for(lambda: httpx.get(f"http://127.0.0.1:{api}/health").json()["status"] == "ok", "all is well", 20)
            process.terminate()
            assert process.wait(patient(20)) == 0


@pytest.mark.slow
def test_without_a_database_dns_is_answered_and_the_end_is_quick(tmp_path: Path) -> None:
    port, api = free_port(), free_port()
    with StubServer() as stub:
        settings = {"listen_port": str(port), "api_port": str(api), "upstreams": f"127.0.0.1:{stub.port}"}
        with product("run", tmp_path, database_url=DEAD, **settings) as process:
            assert _ask(port) == "192.0.2.1"
            scheduler = heartbeat.read_heartbeat(tmp_path / "data" / "scheduler.json")
            assert scheduler["ok"]
            assert httpx.get(f"http://127.0.0.1:{api}/health").json()["status"] == "degraded"
            process.terminate()
            assert process.wait(patient(20)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", SPOILT)
def test_with_a_spoilt_database_dns_is_answered_and_what_is_judged_is_not_lost(tmp_path: Path, how: str) -> None:
    port, api = free_port(), free_port()
    path = tmp_path / "data" / "dns-tunnel.db"
    path.parent.mkdir()
    SPOILT[how](path)
    with StubServer() as stub:
        settings = {"listen_port": str(port), "api_port": str(api), "upstreams": f"127.0.0.1:{stub.port}"}
        with product("run", tmp_path, **settings) as process:
            assert _ask(port) == "192.0.2.1"
            waiting = tmp_path / "data" / "spool"
            wait_for(lambda: list(waiting.glob("*.npz")), "the batch is on disk", 20)
            health = httpx.get(f"http://127.0.0.1:{api}/health").json()
            assert health["status"] == "degraded"
            assert health["components"]["database"] == {"ok": False, "error": "cannot use the database: see the log"}
            process.terminate()
            assert process.wait(patient(20)) == 0
        lines = [json.loads(line) for line in (tmp_path / "process.log").read_text().splitlines() if line[:1] == "{"]
        assert [line["event"] for line in lines if line["level"] in ("error", "critical")] == ["store_unusable"]
        path.rename(tmp_path / "spoilt")
        with product("listen", tmp_path, **settings):
            wait_for(lambda: not list(waiting.glob("*.npz")), "what waited is written", 20)
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT qname FROM queries").fetchall() == [("www.example.com",)]


def test_the_schedulers_heartbeat_goes_on_without_its_database(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'jobs.db'}")
    store.migrate()
    scheduler = RetrainScheduler(store, lambda: None, lambda: None, "0 2 * * sun", "UTC")
    scheduler.start()
    try:
        assert calendar_of(scheduler)["next_run"] > time.time()
        with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as database:
            database.execute("DROP TABLE scheduled_jobs")
        assert "cannot read the schedule" in calendar_of(scheduler)["error"]
    finally:
        scheduler.stop()
