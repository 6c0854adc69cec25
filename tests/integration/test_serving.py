"""`serve` from inside: threads that die, what starts first, retrainings that cannot begin."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agents import bootstrap, processes
from agents.alerting import AlertManager
from agents.detection import TunnelDetector
from agents.errors import AgentsError, BusyError, SettingsError, StoreError
from agents.judge import Judge
from agents.settings import Settings, load
from tests.running import free_port
from tests.stubs import StubServer


def settings_of(folder: Path, **changed: Any) -> Settings:
    changed = {"upstreams": "127.0.0.1:9", "listen_port": free_port(), "api_port": free_port()} | changed
    return load(data_dir=folder, **changed)


def broken(*_: object) -> Any:
    raise KeyError("a bug")


def ask(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        query = b"\0\7\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0\1"
        client.sendto(query, ("127.0.0.1", port))


@pytest.mark.parametrize(
    ("owner", "name", "thread"), [(TunnelDetector, "detect", "batcher"), (Judge, "_poll_known", "ticker")]
)
def test_a_thread_that_dies_ends_the_process_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, thread: str
) -> None:
    before = threading.excepthook
    with StubServer() as stub, capture_logs() as lines:
        settings = settings_of(tmp_path, upstreams=f"127.0.0.1:{stub.port}")

        def ready() -> None:
            monkeypatch.setattr(owner, name, broken)
            ask(settings.listen_port)

        code = asyncio.run(asyncio.wait_for(processes.serve(settings, ("listener",), ready), 20))
    assert code == 1
    (died,) = [line for line in lines if line["event"] == "thread_died"]
    assert (died["thread"], died["log_level"]) == (thread, "critical")
    assert "a bug" in str(died["exc_info"])
    assert threading.excepthook is before


def test_alerting_that_dies_ends_the_process_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.alerting.AlertSink._next", broken)
    assert AlertManager([]).notifiers == ()
    assert asyncio.run(asyncio.wait_for(processes.serve(settings_of(tmp_path), ("listener",)), 20)) == 1


def test_a_listener_that_cannot_start_fails_before_any_other_part(tmp_path: Path) -> None:
    with socket.socket() as taken, capture_logs() as lines:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = settings_of(tmp_path, listen_port=taken.getsockname()[1])
        with pytest.raises(AgentsError, match="cannot listen on"):
            asyncio.run(processes.serve(settings, ("api", "scheduler", "listener")))
    assert lines == []


def test_an_upstream_that_is_the_listener_itself_is_a_bad_setting(tmp_path: Path) -> None:
    port = free_port()
    settings = settings_of(tmp_path, listen_port=port, upstreams=f"127.0.0.1:{port}")
    with pytest.raises(SettingsError, match="that is this listener itself"):
        asyncio.run(processes.serve(settings, ("listener",)))


def test_a_retraining_that_does_not_get_the_lock_is_not_promised(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    bootstrap.make_folders(settings)
    with bootstrap.registry_of(settings).lock(), pytest.raises(BusyError, match="holds the lock"):
        processes.Retrainer(settings).start()


def test_a_retraining_holds_the_lock_when_it_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()

    def away(*_: object) -> None:
        may_end.wait(20)
        raise StoreError("cannot reach the database")

    monkeypatch.setattr("agents.store.sqlite.SqliteStore.migrate", away)
    monkeypatch.setattr("agents.store.base.Store.sample_normal", lambda *_, **__: away())
    settings = settings_of(tmp_path)
    bootstrap.make_folders(settings)
    one = processes.Retrainer(settings)
    assert len(one.start()) == len("20260104_020011")
    try:
        with pytest.raises(BusyError, match="holds the lock"), bootstrap.registry_of(settings).lock():
            raise AssertionError
        with pytest.raises(BusyError, match="under way"):
            one.start()
    finally:
        may_end.set()
        for thread in threading.enumerate():
            if thread.name == processes.RETRAINING:
                thread.join(30)


def test_maintenance_leaves_the_backups_to_a_retraining_under_way(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    bootstrap.make_folders(settings)
    bootstrap.store_of(settings).migrate()
    registry = bootstrap.registry_of(settings)
    old = [registry.backup(1e9 + number) for number in range(3)]
    with registry.lock():
        processes.maintain(settings)
        assert [path.exists() for path in old] == [True, True, True]
    processes.maintain(settings)
    assert [path.exists() for path in old] == [False, False, True]
