"""Retraining by the calendar, on APScheduler: state in the database, a missed run made up once at start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog
from apscheduler.job import Job
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import STATE_RUNNING
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from agents.core.cron import cron_trigger
from agents.core.errors import AgentsError, StoreError

RETRAIN, MAINTAIN = "retrain", "maintain"
MAINTAIN_SCHEDULE = "30 3 * * *"
"""Retention and pruning of backups, daily, away from the usual hour of retraining."""
TABLE = "scheduler_jobs"
_NEVER = datetime.max.replace(tzinfo=UTC)

_actions: dict[str, Callable[[], None]] = {}
_log = structlog.get_logger()


def run_action(name: str) -> None:
    """What the database names: looks the action up that this process registered, and runs it."""
    _log.info("scheduled_job_started", job=name)
    try:
        _actions[name]()
    except AgentsError as error:
        _log.error("scheduled_job_failed", job=name, error=str(error))
        return
    _log.info("scheduled_job_finished", job=name)


def _address(url: str) -> URL:
    """The driver is named: SQLAlchemy's own choice for postgresql:// is one that is not installed."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise StoreError("cannot use DATABASE_URL: it is not scheme://user:password@host/database") from None
    if parsed.drivername in {"postgres", "postgresql"}:
        return parsed.set(drivername="postgresql+psycopg2")
    return parsed


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0][:200]
        raise StoreError(f"cannot read the schedule from the database: {reason}") from None


class RetrainScheduler:
    """One per database. `retrain` and `maintain` run in a worker thread, never twice at once."""

    def __init__(
        self,
        store_url: str,
        retrain: Callable[[], None],
        maintain: Callable[[], None],
        schedule: str,
        timezone: str,
    ) -> None:
        """Raises SettingsError for a bad schedule or zone, StoreError for a bad address; opens nothing yet."""
        self._schedules = {RETRAIN: (schedule, timezone), MAINTAIN: (MAINTAIN_SCHEDULE, timezone)}
        self._triggers = {name: cron_trigger(*when) for name, when in self._schedules.items()}
        self._own = {RETRAIN: retrain, MAINTAIN: maintain}
        self._scheduler = BackgroundScheduler(
            jobstores={"default": SQLAlchemyJobStore(url=_address(store_url), tablename=TABLE)},
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
            timezone=UTC,
        )

    def start(self) -> None:
        """Begin; a run that was due while no scheduler was up starts at once, once.

        Raises StoreError; it may be called again then.
        """
        _actions.update(self._own)
        with _store_errors():
            if not self._scheduler.running:
                self._scheduler.start(paused=True)
            for name in self._own:
                self._place(name)
        self._scheduler.resume()
        _log.info("scheduler_started", next_run=str(self._time_of(RETRAIN)))

    def stop(self) -> None:
        """End; waits for a job under way. Does nothing where it has not begun.

        One whose start failed half way stays paused: APScheduler's shutdown would let it take up, and lose, due jobs.
        """
        if self._scheduler.state == STATE_RUNNING:
            self._scheduler.shutdown(wait=True)

    def next_run(self) -> float | None:
        """When the next retraining is due, Unix seconds; to be asked now and then. Raises StoreError.

        APScheduler sleeps for so many seconds, and would not notice that the clock was set, or the machine slept:
        what is due by now is begun.
        """
        with _store_errors():
            dues = {job.id: job.next_run_time for job in self._scheduler.get_jobs() if job.next_run_time is not None}
        if self._scheduler.state == STATE_RUNNING and min(dues.values(), default=_NEVER) <= datetime.now(UTC):
            self._scheduler.wakeup()
        return dues[RETRAIN].timestamp() if RETRAIN in dues else None

    def _time_of(self, name: str) -> datetime | None:
        with _store_errors():
            job = self._scheduler.get_job(name)
        due: datetime | None = job.next_run_time if job is not None else None
        return due

    def _place(self, name: str) -> None:
        """Keep a stored job; one whose schedule changed gets the new times, after a run that it missed."""
        label = " ".join(self._schedules[name])
        job: Job | None = self._scheduler.get_job(name)
        if job is None:
            trigger = self._triggers[name]
            self._scheduler.add_job(run_action, trigger, args=[name], id=name, name=label)
        elif job.name != label:
            now = datetime.now(UTC)
            missed = job.next_run_time is not None and job.next_run_time <= now
            due = job.next_run_time if missed else self._triggers[name].get_next_fire_time(None, now)
            job.modify(trigger=self._triggers[name], name=label, next_run_time=due)
