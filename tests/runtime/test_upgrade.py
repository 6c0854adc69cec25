"""All that release 0.1 left in its DATA_DIR is read: tests/data/release_0_1 was made by that release's code."""

from __future__ import annotations

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from agents.alerting.outbox import Outbox
from agents.core.types import Severity
from agents.detection import snapshot
from agents.detection.limits import load_peaks
from agents.runtime import bootstrap
from agents.runtime.jobs import MAINTAIN, RETRAIN
from agents.runtime.schedule import RetrainScheduler
from agents.settings import Settings
from agents.store import SpoolingSink
from agents.web import reports
from tests.support.listening import wait_until

ARCHIVE = Path(__file__).parent.parent / "data" / "release_0_1" / "data_dir.tar.xz"
START = 1_767_225_600.0
BASELINE, FIRST, CHAMPION = "d5d5d64c14699951", "e2cea4f0c7bb65ff", "78f8f07b338aa68a"
REJECTED, WAITING = "659f1e4dd4ce01f7", "2f8e90ab030a12aa"


@pytest.fixture
def left(tmp_path: Path) -> Settings:
    """Settings of a DATA_DIR as release 0.1 left it."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return bootstrap.load_settings(data_dir=tmp_path)


def test_the_database_is_upgraded_and_read(left: Settings) -> None:
    with closing(bootstrap.store_of(left)) as store:
        store.migrate()
        rows, _ = store.queries(limit=500)
        assert len(rows) == 160
        assert {row["severity"] for row in rows} >= {"NORMAL", "HIGH"}
        (incident,) = store.incidents(limit=9)
        assert (incident.client, incident.domain) == ("192.0.2.99", "evil-example.net")
        assert incident.severity is Severity.CRITICAL and incident.closed_at is None
        assert store.open_incidents() == [incident]
        assert [run["state"] for run in store.runs(limit=9)] == ["WAITING", "REJECTED", "DEPLOYED", "DEPLOYED"]
        sample = store.sample_normal(
            since=START,
            until=START + 86_400,
            limit=200,
            max_score=0.5,
            client_share=1.0,
            domain_share=1.0,
            features_version=1,
            seed=1,
        )
        assert len(sample) == 120
        assert store.rows_of_batch("batch1", START, START + 200) == 160


def test_the_calendar_is_ours_and_no_pickle_is_left(left: Settings) -> None:
    path = left.state_dir / "dns-tunnel.db"
    assert b"apscheduler" in path.read_bytes()
    ran: list[str] = []
    with closing(bootstrap.store_of(left)) as store:
        store.migrate()
        scheduler = RetrainScheduler(
            store, lambda: ran.append(RETRAIN), lambda: ran.append(MAINTAIN), "0 2 1 1 *", "UTC"
        )
        scheduler.start()
        scheduler.next_run()
        scheduler.stop()
        assert {job.name for job in store.jobs()} == {RETRAIN, MAINTAIN}
    assert ran == [], "nothing is made up on the first start"
    with closing(sqlite3.connect(path)) as database:
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert "scheduler_jobs" not in tables and "scheduled_jobs" in tables


def test_models_are_listed_rolled_back_and_approved(left: Settings) -> None:
    registry = bootstrap.registry_of(left)
    assert registry.current().model_id == CHAMPION
    assert registry.origin == "champion"
    states = {row["model_id"]: row["state"] for row in registry.list() if row["kind"] != "backup"}
    assert states == {
        CHAMPION: "champion",
        WAITING: "waiting",
        REJECTED: "rejected",
        FIRST: "replaced",
        BASELINE: "replaced",
    }
    assert len(registry.backups()) == 4
    assert registry.rollback().model_id == FIRST
    approved = registry.approve(WAITING)
    assert approved is not None and approved.model_id == WAITING
    assert registry.current().limit_factor == 1.1
    assert registry.restore(registry.backups()[0], lambda model: None).model_id == BASELINE


def test_reports_are_listed_and_shown(left: Settings) -> None:
    found = reports.listed(left.reports_dir)
    assert [one["state"] for one in found] == ["WAITING", "REJECTED", "DEPLOYED", "DEPLOYED"]
    page = reports.content(left.reports_dir, found[0]["name"])
    assert page is not None and WAITING in page.decode()


def test_spooled_batches_and_due_alerts_go_on(left: Settings) -> None:
    with closing(bootstrap.store_of(left)) as store:
        store.migrate()
        spool = SpoolingSink(store, left.state_dir / "spool", 1 << 20, retry_s=0.02)
        wait_until(lambda: spool.waiting == 0)
        spool.close()
        assert store.rows_of_batch("spooled1", START, START + 400) == 20
    outbox = Outbox(left.state_dir / "outbox")
    (((incident, event), file),) = outbox.found()
    assert (incident.client, incident.domain, event) == ("192.0.2.99", "evil-example.net", "new")
    assert outbox.begin(file)
    outbox.done(file)
    outbox.close()


@pytest.mark.slow
def test_windows_and_peaks_are_read(left: Settings) -> None:
    registry = bootstrap.registry_of(left)
    detector = bootstrap.detector_of(left, registry.current())
    assert snapshot.load_flows((left.state_dir / "windows.snapshot").read_bytes(), detector.flows) > 0
    peaks = load_peaks((left.state_dir / "peaks.json").read_bytes())
    assert max(peaks.rows.values()) >= 1
