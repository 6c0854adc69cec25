from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agents.core.errors import BusyError, SettingsError, StoreError
from agents.runtime.jobs import MAINTAIN, RETRAIN, SUMMARISE
from agents.runtime.schedule import RetrainScheduler
from agents.store import Store, open_store
from tests.support.listening import wait_until
from tests.support.patience import patient

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
        self.may_end.wait(patient(10))
        self.now -= 1


@contextmanager
def scheduler(
    store: Store, job: Callable[[], None], schedule: str = YEARLY, zone: str = "UTC"
) -> Iterator[RetrainScheduler]:
    one = RetrainScheduler(store, job, lambda: None, schedule, zone)
    one.start()
    try:
        yield one
    finally:
        one.stop()


def set_due(store: Store, name: str, seconds_from_now: float) -> None:
    """What a scheduler that was down for a while finds."""
    (job,) = [job for job in store.jobs() if job.name == name]
    store.save_job(replace(job, next_run=time.time() + seconds_from_now))


@pytest.mark.slow
def test_the_next_run_is_known(store: Store) -> None:
    with scheduler(store, Job()) as one:
        due = one.next_run()
    assert due is not None
    assert datetime.fromtimestamp(due, UTC).strftime("%m-%d %H:%M") == "01-01 02:00"


def test_a_run_that_the_clock_jumped_over_is_begun_when_somebody_asks(store: Store) -> None:
    job = Job()
    with scheduler(store, job) as one:
        set_due(store, RETRAIN, -86_400)  # as if the clock had been set forward: it sleeps until next year
        assert not job.ran.wait(0.5)
        one.next_run()
        assert job.ran.wait(patient(10))
        assert job.runs == 1
        due = one.next_run()
        assert due is not None and due > time.time()


def test_a_run_missed_while_down_is_made_up_once(store: Store) -> None:
    job = Job()
    with scheduler(store, job):
        assert not job.ran.is_set()
    set_due(store, RETRAIN, -60 * 86400)
    with scheduler(store, job) as one:
        assert job.ran.wait(patient(5))
        due = one.next_run()
        assert due is not None
        assert due > time.time()
    with scheduler(store, job):
        assert job.runs == 1


def test_an_unchanged_schedule_keeps_its_due_time_over_restarts(store: Store) -> None:
    job = Job()
    with scheduler(store, job):
        assert not job.ran.is_set()
    set_due(store, RETRAIN, 4000)
    with scheduler(store, job) as one:
        due = one.next_run()
    assert due is not None
    assert 3900 < due - time.time() < 4001
    assert job.runs == 0


@pytest.mark.parametrize(("schedule", "zone"), [("0 3 1 1 *", "UTC"), (YEARLY, "Europe/Berlin")])
def test_a_changed_schedule_replaces_the_stored_one(store: Store, schedule: str, zone: str) -> None:
    job = Job()
    with scheduler(store, job) as one:
        before = one.next_run()
    with scheduler(store, job, schedule, zone) as one:
        after = one.next_run()
    assert before is not None
    assert after is not None
    assert abs(after - before) == 3600
    assert job.runs == 0


def test_a_changed_schedule_does_not_lose_a_missed_run(store: Store) -> None:
    job = Job()
    with scheduler(store, job):
        assert not job.ran.is_set()
    set_due(store, RETRAIN, -86400)
    with scheduler(store, job, "0 5 1 1 *") as one:
        assert job.ran.wait(patient(5))
        due = one.next_run()
    assert due is not None
    assert datetime.fromtimestamp(due, UTC).hour == 5
    assert job.runs == 1


def test_maintenance_runs_too(store: Store) -> None:
    done = threading.Event()
    with scheduler(store, Job()):
        assert not done.is_set()
    set_due(store, MAINTAIN, -60)
    one = RetrainScheduler(store, Job(), done.set, YEARLY, "UTC")
    one.start()
    try:
        assert done.wait(patient(5))
    finally:
        one.stop()


def test_a_busy_lock_is_logged_and_the_scheduler_goes_on(store: Store) -> None:
    ran = threading.Event()

    def busy() -> None:
        ran.set()
        raise BusyError("cannot retrain: another run holds the lock (pid 1)")

    with scheduler(store, busy):
        assert not ran.is_set()
    set_due(store, RETRAIN, -60)
    with scheduler(store, busy) as one:
        assert ran.wait(patient(5))
        assert one.next_run() is not None


def test_bad_settings_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="RETRAIN_SCHEDULE"):
        RetrainScheduler(open_store(f"sqlite:///{tmp_path / 'x.db'}"), Job(), Job(), "0 2 * * 9", "UTC")
    with pytest.raises(SettingsError, match="RETRAIN_TIMEZONE"):
        RetrainScheduler(open_store(f"sqlite:///{tmp_path / 'x.db'}"), Job(), Job(), YEARLY, "Nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_is_one_clear_error(tmp_path: Path) -> None:
    away = open_store(f"sqlite:///{tmp_path / 'missing' / 'x.db'}")
    one = RetrainScheduler(away, Job(), Job(), YEARLY, "UTC")
    with pytest.raises(StoreError, match="cannot read the schedule"):
        one.start()
    one.stop()


def test_a_start_that_failed_half_way_may_be_repeated(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job()
    with scheduler(store, job):
        assert not job.ran.is_set()
    set_due(store, RETRAIN, -60)
    one = RetrainScheduler(store, job, lambda: None, YEARLY, "UTC")
    with monkeypatch.context() as patched:
        patched.setattr(store, "save_job", away)
        with pytest.raises(StoreError, match="connection refused"):
            one.start()
    one.start()
    try:
        assert job.ran.wait(patient(5)), "its threads run jobs"
    finally:
        one.stop()


def away(*_: object) -> None:
    raise StoreError("cannot save the schedule: connection refused")


def test_on_a_first_start_nothing_is_made_up_and_last_runs_are_kept(store: Store) -> None:
    job = Job()
    with scheduler(store, job):
        assert {(one.name, one.last_run) for one in store.jobs()} == {(RETRAIN, None), (MAINTAIN, None)}
        set_due(store, RETRAIN, -1)
    with scheduler(store, job):
        assert job.ran.wait(patient(5))
    (kept,) = [one for one in store.jobs() if one.name == RETRAIN]
    assert kept.last_run is not None and abs(kept.last_run - time.time()) < 60
    assert kept.schedule == f"{YEARLY} UTC"
    assert job.runs == 1


def test_two_schedulers_on_one_database_run_a_due_job_once(store: Store) -> None:
    job = Job()
    with scheduler(store, job) as one, scheduler(store, job) as other:
        set_due(store, RETRAIN, -1)
        for _ in range(5):
            one.next_run()
            other.next_run()
        assert job.ran.wait(patient(5))
    assert job.runs == 1


def test_a_run_that_is_due_while_the_store_is_away_is_begun_when_it_is_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job()
    with scheduler(store, job) as one:
        set_due(store, RETRAIN, -1)
        with capture_logs() as lines, monkeypatch.context() as patched:
            patched.setattr(store, "take_job", away)
            one.next_run()
            wait_until(lambda: bool(lines))
        assert [line["event"] for line in lines] == ["scheduled_job_waits_for_store"]
        assert not job.ran.is_set()
        one.next_run()
        assert job.ran.wait(patient(5))


def test_nothing_of_a_job_is_pickled(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle")

    for name in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(f"pickle.{name}", refuse)
    job = Job()
    with scheduler(store, job) as one:
        set_due(store, RETRAIN, -1)
        one.next_run()
        assert job.ran.wait(patient(5))


def test_a_due_run_waits_for_whoever_holds_the_lock_and_runs_once(store: Store) -> None:
    held, ran = [True], []

    def action() -> None:
        if held:
            raise BusyError("cannot retrain: a retraining or another change holds the lock (pid 1)")
        ran.append(1)

    with scheduler(store, action) as one, capture_logs() as lines:
        set_due(store, RETRAIN, -1)

        def asked_again() -> bool:
            one.next_run()
            return bool(lines)

        wait_until(asked_again)
        wait_until(lambda: (one.next_run() or 0) < time.time())  # it is still due, also for the next process
        held.clear()
        wait_until(lambda: one.next_run() is not None and bool(ran))
        wait_until(lambda: (one.next_run() or 0) > time.time())
        one.next_run()
        assert ran == [1]
        assert [line["event"] for line in lines].count("scheduled_job_waits") == 1, "not a line every two seconds"


def test_a_due_time_that_was_written_while_the_clock_was_ahead_is_mended(store: Store) -> None:
    with scheduler(store, Job()) as one:
        before = one.next_run()
    set_due(store, RETRAIN, 400 * 86_400)
    with scheduler(store, Job()) as one:
        assert one.next_run() == before


def test_another_job_has_its_own_time_and_is_run_once_when_it_is_due(store: Store) -> None:
    ran = threading.Event()
    one = RetrainScheduler(store, Job(), lambda: None, YEARLY, "UTC", others={SUMMARISE: (ran.set, "0 8 * * mon")})
    one.start()
    try:
        (job,) = [job for job in store.jobs() if job.name == SUMMARISE]
        assert job.schedule == "0 8 * * mon UTC" and not ran.is_set()
        set_due(store, SUMMARISE, -60)
        one.next_run()
        assert ran.wait(patient(10))
    finally:
        one.stop()


def test_a_bad_time_of_another_job_is_refused(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(SettingsError):
        RetrainScheduler(store, Job(), Job(), YEARLY, "UTC", others={SUMMARISE: (Job(), "0 25 * * mon")})
