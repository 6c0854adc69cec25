from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.exc import OperationalError

from agents.core.errors import BusyError, SettingsError, StoreError
from agents.runtime.schedule import MAINTAIN, RETRAIN, TABLE, RetrainScheduler
from tests.support.listening import wait_until

pytestmark = pytest.mark.integration

YEARLY = "0 2 1 1 *"


class Job:
    """Counts its runs, and shows whether two ever overlapped."""

    def __init__(self) -> None:
        self.runs = 0
        self.now = 0
        self.most = 0
        self.ran = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self) -> None:
        self.now += 1
        self.runs += 1
        self.most = max(self.most, self.now)
        self.ran.set()
        self.may_end.wait(10)
        self.now -= 1


@contextmanager
def scheduler(
    url: str, job: Callable[[], None], schedule: str = YEARLY, zone: str = "UTC"
) -> Iterator[RetrainScheduler]:
    one = RetrainScheduler(url, job, lambda: None, schedule, zone)
    one.start()
    try:
        yield one
    finally:
        one.stop()


@pytest.fixture
def url(store_url: str) -> str:
    """SQLite and Postgres, the latter as people write its address."""
    return store_url.replace("+psycopg2", "")


def set_due(url: str, name: str, seconds_from_now: float) -> None:
    """What a scheduler that was down for a while finds."""
    store = SQLAlchemyJobStore(url=url.replace("postgresql:", "postgresql+psycopg2:"), tablename=TABLE)
    store.start(BackgroundScheduler(timezone=UTC), "default")
    job = store.lookup_job(name)
    job.next_run_time = datetime.fromtimestamp(time.time() + seconds_from_now, UTC)
    store.update_job(job)
    store.shutdown()


def test_the_next_run_is_known(url: str) -> None:
    with scheduler(url, Job()) as one:
        due = one.next_run()
    assert due is not None
    assert datetime.fromtimestamp(due, UTC).strftime("%m-%d %H:%M") == "01-01 02:00"


def test_a_run_that_the_clock_jumped_over_is_begun_when_somebody_asks(url: str) -> None:
    job = Job()
    with scheduler(url, job) as one:
        sleep = one._scheduler._event
        wait_until(lambda: sleep._cond._waiters and not sleep.is_set())
        set_due(url, RETRAIN, -86_400)  # as if the clock had been set forward: it sleeps until next year
        assert not job.ran.wait(0.5)
        one.next_run()
        assert job.ran.wait(10)
        assert job.runs == 1
        due = one.next_run()
        assert due is not None and due > time.time()


def test_a_run_missed_while_down_is_made_up_once(url: str) -> None:
    job = Job()
    with scheduler(url, job):
        assert not job.ran.is_set()
    set_due(url, RETRAIN, -60 * 86400)
    with scheduler(url, job) as one:
        assert job.ran.wait(5)
        due = one.next_run()
        assert due is not None
        assert due > time.time()
    with scheduler(url, job):
        assert job.runs == 1


def test_an_unchanged_schedule_keeps_its_due_time_over_restarts(url: str) -> None:
    job = Job()
    with scheduler(url, job):
        assert not job.ran.is_set()
    set_due(url, RETRAIN, 4000)
    with scheduler(url, job) as one:
        due = one.next_run()
    assert due is not None
    assert 3900 < due - time.time() < 4001
    assert job.runs == 0


@pytest.mark.parametrize(("schedule", "zone"), [("0 3 1 1 *", "UTC"), (YEARLY, "Europe/Berlin")])
def test_a_changed_schedule_replaces_the_stored_one(url: str, schedule: str, zone: str) -> None:
    job = Job()
    with scheduler(url, job) as one:
        before = one.next_run()
    with scheduler(url, job, schedule, zone) as one:
        after = one.next_run()
    assert before is not None
    assert after is not None
    assert abs(after - before) == 3600
    assert job.runs == 0


def test_a_changed_schedule_does_not_lose_a_missed_run(url: str) -> None:
    job = Job()
    with scheduler(url, job):
        assert not job.ran.is_set()
    set_due(url, RETRAIN, -86400)
    with scheduler(url, job, "0 5 1 1 *") as one:
        assert job.ran.wait(5)
        due = one.next_run()
    assert due is not None
    assert datetime.fromtimestamp(due, UTC).hour == 5
    assert job.runs == 1


def test_maintenance_runs_too(url: str) -> None:
    done = threading.Event()
    with scheduler(url, Job()):
        assert not done.is_set()
    set_due(url, MAINTAIN, -60)
    one = RetrainScheduler(url, Job(), done.set, YEARLY, "UTC")
    one.start()
    try:
        assert done.wait(5)
    finally:
        one.stop()


def test_a_busy_lock_is_logged_and_the_scheduler_goes_on(url: str) -> None:
    ran = threading.Event()

    def busy() -> None:
        ran.set()
        raise BusyError("cannot retrain: another run holds the lock (pid 1)")

    with scheduler(url, busy):
        assert not ran.is_set()
    set_due(url, RETRAIN, -60)
    with scheduler(url, busy) as one:
        assert ran.wait(5)
        assert one.next_run() is not None


def test_bad_settings_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RETRAIN_SCHEDULE"):
        RetrainScheduler(f"sqlite:///{tmp_path / 'x.db'}", Job(), Job(), "0 2 * * 9", "UTC")
    with pytest.raises(SettingsError, match="RETRAIN_TIMEZONE"):
        RetrainScheduler(f"sqlite:///{tmp_path / 'x.db'}", Job(), Job(), YEARLY, "Nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_is_one_clear_error(tmp_path: Path) -> None:
    one = RetrainScheduler(f"sqlite:///{tmp_path / 'missing' / 'x.db'}", Job(), Job(), YEARLY, "UTC")
    with pytest.raises(StoreError, match="cannot read the schedule from the database"):
        one.start()


def test_a_start_that_failed_half_way_may_be_repeated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job()
    with scheduler(url, job):
        assert not job.ran.is_set()
    set_due(url, RETRAIN, -60)
    failures = iter([OperationalError("select", {}, Exception("gone")), None])

    def get_job(self: BackgroundScheduler, name: str) -> object:
        if error := next(failures, None):
            raise error
        return found(self, name)

    found = BackgroundScheduler.get_job
    monkeypatch.setattr(BackgroundScheduler, "get_job", get_job)
    one = RetrainScheduler(url, job, lambda: None, YEARLY, "UTC")
    with pytest.raises(StoreError, match="cannot read the schedule"):
        one.start()
    one.start()
    try:
        assert job.ran.wait(5), "its threads run jobs"
    finally:
        one.stop()
