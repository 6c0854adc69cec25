"""Retraining by the calendar: APScheduler wakes up, and a table of ours says what is due.

The table holds each job's last and next run. A job that is due by the table is begun once, by whoever moves its next
run on first: after a time without a scheduler, after a clock was set, or by two schedulers on one database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from agents.core.cron import cron_trigger
from agents.core.errors import AgentsError, BusyError, StoreError
from agents.core.types import ScheduledJob
from agents.runtime.jobs import MAINTAIN, RETRAIN, JobStore
from agents.store.retention import ClockWatch

MAINTAIN_SCHEDULE = "30 3 * * *"
"""Retention and pruning of backups, daily, away from the usual hour of retraining."""
_log = structlog.get_logger()


class RetrainScheduler:
    """Runs `retrain`, `maintain` and others in worker threads, none of them twice at once."""

    def __init__(
        self,
        store: JobStore,
        retrain: Callable[[], None],
        maintain: Callable[[], object],
        schedule: str,
        timezone: str,
        clock: ClockWatch | None = None,
        others: Mapping[str, tuple[Callable[[], object], str]] = MappingProxyType({}),
        is_paused: Callable[[str], bool] = lambda name: False,
    ) -> None:
        """Raises SettingsError for a bad schedule or zone; opens nothing yet.

        clock: while it is doubted, jobs wait. others: further jobs by name, each with its schedule. is_paused: whether
        people want a job, by its name, to be passed over.
        """
        self._is_paused = is_paused
        self.clock = clock or ClockWatch()
        schedules = {RETRAIN: schedule, MAINTAIN: MAINTAIN_SCHEDULE} | {
            name: when for name, (_, when) in others.items()
        }
        self._store = store
        self._labels = {name: f"{when} {timezone}" for name, when in schedules.items()}
        self._triggers = {name: cron_trigger(when, timezone) for name, when in schedules.items()}
        self._actions: dict[str, Callable[[], object]] = {RETRAIN: retrain, MAINTAIN: maintain}
        self._actions |= {name: action for name, (action, _) in others.items()}
        self._waiting: set[str] = set()  # jobs that another process keeps from running
        self._scheduler = BackgroundScheduler(
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1}, timezone=UTC
        )

    def start(self) -> None:
        """Begin; a run that was due while no scheduler was up starts at once, once.

        Raises StoreError; it may be called again then.
        """
        known, now = {job.name: job for job in self._store.jobs()}, time.time()
        dues = {name: self._due(name, known.get(name), now) for name in self._actions}
        for name, due in dues.items():
            at = datetime.fromtimestamp(max(due, now), UTC)
            self._scheduler.add_job(
                self._run, self._triggers[name], args=[name], id=name, next_run_time=at, replace_existing=True
            )
        self._scheduler.start()
        _log.info("scheduler_started", next_run=str(datetime.fromtimestamp(dues[RETRAIN], UTC)))

    def stop(self) -> None:
        """End; waits for a job under way. Does nothing where it has not begun."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def next_run(self) -> float | None:
        """When the next retraining is due, Unix seconds; to be asked now and then. Raises StoreError.

        APScheduler sleeps for so many seconds, and would not notice that the clock was set, or the machine slept:
        what is due by now is begun.
        """
        jobs, now = {job.name: job for job in self._store.jobs()}, time.time()
        if self._scheduler.running:
            for job in jobs.values():
                if job.name in self._actions and job.next_run <= now:
                    self._scheduler.modify_job(job.name, next_run_time=datetime.now(UTC))
        return jobs[RETRAIN].next_run if RETRAIN in jobs else None

    def _due(self, name: str, job: ScheduledJob | None, now: float) -> float:
        """When a job is due; kept in the table. A changed schedule gives a new time, after a run that was missed.

        A time beyond the next one of the calendar was written while the clock was ahead.
        """
        if job is not None and (job.next_run <= now or job.schedule == self._labels[name]):
            due = min(job.next_run, self._after(name, now))
        else:
            due = self._after(name, now)
        self._store.save_job(ScheduledJob(name, self._labels[name], job.last_run if job else None, due))
        return due

    def _after(self, name: str, now: float) -> float:
        due = self._triggers[name].get_next_fire_time(None, datetime.fromtimestamp(now, UTC))
        assert due is not None, "cron_trigger refuses a schedule that never comes"
        return due.timestamp()

    def _run(self, name: str) -> None:
        if doubt := self.clock.doubt():
            if name not in self._waiting:
                self._waiting.add(name)
                _log.error("scheduled_job_waits", job=name, error=f"cannot begin: {doubt}")
            return
        try:
            taken = self._take(name)
        except StoreError as error:  # it stays due, and next_run() begins it when the store is back
            _log.warning("scheduled_job_waits_for_store", job=name, error=str(error))
            return
        if taken is None:
            return
        if name not in self._waiting:
            _log.info("scheduled_job_started", job=name)
        try:
            self._actions[name]()
        except BusyError as error:
            self._put_back(taken, error)
            return
        except AgentsError as error:
            _log.error("scheduled_job_failed", job=name, error=str(error))
        else:
            _log.info("scheduled_job_finished", job=name)
        self._waiting.discard(name)

    def _put_back(self, job: ScheduledJob, error: BusyError) -> None:
        """Another holds what the job needs: it is due as before, and next_run() begins it again, here or elsewhere."""
        if job.name not in self._waiting:
            self._waiting.add(job.name)
            _log.warning("scheduled_job_waits", job=job.name, error=str(error))
        try:
            self._store.save_job(job)
        except StoreError as failure:
            _log.error("scheduled_job_failed", job=job.name, error=f"{error}; {failure}")

    def _take(self, name: str) -> ScheduledJob | None:
        """Move a job that is due on to its next run; None where it is not due, or another scheduler did that."""
        job, now = next(job for job in self._store.jobs() if job.name == name), time.time()
        if job.next_run <= now and self._is_paused(name):
            self._store.save_job(replace(job, next_run=self._after(name, now)))
            _log.warning("scheduled_job_passed_over", job=name, reason="it is paused")
            return None
        due = job.next_run <= now and self._store.take_job(job, now, self._after(name, now))
        return job if due else None
