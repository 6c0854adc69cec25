"""`serve` from inside: threads that die, what starts first, retrainings that cannot begin."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agents.core.errors import BusyError, StoreError
from agents.runtime import bootstrap, services
from agents.runtime.bootstrap import load_settings
from agents.settings import Settings
from tests.support.patience import patient
from tests.support.running import free_port

pytestmark = pytest.mark.integration


def settings_of(folder: Path, **changed: Any) -> Settings:
    changed = {"upstreams": "127.0.0.1:9", "listen_port": free_port(), "api_port": free_port()} | changed
    return load_settings(data_dir=folder, **changed)


async def _scheduler_alone(settings: Settings) -> int:
    bootstrap.make_folders(settings)
    return await services.serve([bootstrap.scheduling_of(settings)])


def broken(*_: object) -> Any:
    raise KeyError("a bug")


def test_a_thread_that_dies_ends_the_process_with_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.excepthook
    monkeypatch.setattr("agents.runtime.heartbeat.Heartbeat._run", broken)
    with capture_logs() as lines:
        code = asyncio.run(asyncio.wait_for(_scheduler_alone(settings_of(tmp_path)), patient(20)))
    assert code == 1
    (died,) = [line for line in lines if line["event"] == "thread_died"]
    assert (died["thread"], died["log_level"]) == ("heartbeat", "critical")
    assert "a bug" in str(died["exc_info"])
    assert threading.excepthook is before


def test_a_retraining_that_does_not_get_the_lock_is_not_promised(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    bootstrap.make_folders(settings)
    with bootstrap.registry_of(settings).lock(), pytest.raises(BusyError, match="holds the lock"):
        services.Retrainer(bootstrap.retraining_of(settings)).start()


def test_a_retraining_holds_the_lock_when_it_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()

    def away(*_: object) -> None:
        may_end.wait(patient(20))
        raise StoreError("cannot reach the database")

    monkeypatch.setattr("agents.store.sqlite.SqliteStore.migrate", away)
    monkeypatch.setattr("agents.store.sql.Store.sample_normal", lambda *_, **__: away())
    settings = settings_of(tmp_path)
    bootstrap.make_folders(settings)
    one = services.Retrainer(bootstrap.retraining_of(settings))
    assert len(one.start()) == len("20260104_020011")
    try:
        with pytest.raises(BusyError, match="holds the lock"), bootstrap.registry_of(settings).lock():
            raise AssertionError
        with pytest.raises(BusyError, match="under way"):
            one.start()
    finally:
        may_end.set()
        for thread in threading.enumerate():
            if thread.name == services.RETRAINING:
                thread.join(patient(30))


def test_maintenance_leaves_the_backups_to_a_retraining_under_way(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    bootstrap.make_folders(settings)
    bootstrap.store_of(settings).migrate()
    registry = bootstrap.registry_of(settings)
    old = [registry.backup(1e9 + number) for number in range(3)]
    with registry.lock():
        services.maintain(bootstrap.upkeep_of(settings))
        assert [path.exists() for path in old] == [True, True, True]
    services.maintain(bootstrap.upkeep_of(settings))
    assert [path.exists() for path in old] == [False, False, True]


def test_maintenance_deletes_history_beyond_its_days(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    bootstrap.make_folders(settings)
    store = bootstrap.store_of(settings)
    store.migrate()
    for number, run_id in enumerate(("20200101_000000", "20200102_000000")):
        store.save_run(run_id, started_at=1e9 + number, state="FAILED", payload={})
        for suffix in ("html", "json"):
            (settings.reports_dir / f"training_report_{run_id}.{suffix}").write_text("x")
    (settings.reports_dir / "mine.html").write_text("x")
    services.maintain(bootstrap.upkeep_of(settings))
    assert [run["run_id"] for run in store.runs(limit=9)] == ["20200102_000000"]
    kept = {"training_report_20200102_000000.html", "training_report_20200102_000000.json", "mine.html"}
    assert {path.name for path in settings.reports_dir.iterdir()} == kept
    store.close()


def test_a_database_that_is_away_does_not_keep_old_backups_alive(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, database_url="postgresql://nobody@127.0.0.1:1/none")
    bootstrap.make_folders(settings)
    old = [bootstrap.registry_of(settings).backup(1e9 + number) for number in range(2)]
    services.maintain(bootstrap.upkeep_of(settings))
    assert [path.exists() for path in old] == [False, True]


def test_a_run_whose_process_was_killed_is_recorded_as_failed_by_whoever_comes_next(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    bootstrap.make_folders(settings)
    store = bootstrap.store_of(settings)
    store.migrate()
    store.save_run("20260101_020000", started_at=1e9, state="RUNNING", payload={"state": "RUNNING", "step": "train"})
    with bootstrap.registry_of(settings).lock():  # it runs yet
        asyncio.run(_scheduled(settings))
        assert store.runs(limit=1)[0]["state"] == "RUNNING"
    asyncio.run(_scheduled(settings))
    (run,) = store.runs(limit=1)
    assert (run["state"], run["payload"]["state"], run["payload"]["step"]) == ("FAILED", "FAILED", "train")
    assert "was broken off" in run["payload"]["error"]


async def _scheduled(settings: Settings) -> None:
    """A scheduler from its start to its end."""
    with capture_logs() as lines:
        async with bootstrap.scheduling_of(settings):
            while "scheduler_started" not in {line["event"] for line in lines}:
                await asyncio.sleep(0.05)


class Noted(services.Pulse):
    """Counts the signs of life of the API's event loop."""

    times = 0

    def note(self, loop: str = "api") -> None:
        super().note(loop)
        self.times += 1


def test_the_api_gives_signs_of_life_after_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured before: five seconds after that the supervisor killed the console, as it seemed to hang."""
    settings, pulse, now = settings_of(tmp_path), Noted(), time.time

    async def step() -> None:
        async with bootstrap.serving_of(settings, pulse):
            for ahead in (400 * 86_400, 0):
                monkeypatch.setattr(time, "time", lambda ahead=ahead: now() + ahead)
                before, end = pulse.times, time.monotonic() + patient(10)
                while pulse.times < before + 5:
                    assert time.monotonic() < end, f"no sign of life, clock ahead by {ahead} s"
                    await asyncio.sleep(0.01)

    bootstrap.make_folders(settings)
    asyncio.run(step())
    assert pulse.well()
