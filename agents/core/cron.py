"""Cron expressions as Debian's cron reads them (by cronsim), as triggers of APScheduler."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.base import BaseTrigger
from cronsim import CronSim, CronSimError

from agents.core.errors import SettingsError

FIELDS = 5
"""Fields of a cron expression; cronsim would also accept a field of seconds."""
LENGTH_MAX = 200


class CrontabTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires at the times of a cron expression in a time zone. Raises CronSimError."""

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        self._expression, self._zone = expression, zone
        self._hours_named = not expression.split()[1].startswith("*")
        CronSim(expression, datetime.now(zone))

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first time after both; None if there is none within 50 years."""
        start = max(previous_fire_time or now, now).astimezone(UTC)
        for due in CronSim(self._expression, start.astimezone(self._zone)):
            if due.fold and self._hours_named:  # a clock shows this hour for the second time
                continue
            if due.astimezone(UTC) > start:  # when a clock shows an hour twice, cronsim gives the first of the two
                return due.astimezone(UTC)
        return None


def cron_trigger(expression: str, timezone: str) -> CrontabTrigger:
    """The trigger of RETRAIN_SCHEDULE in RETRAIN_TIMEZONE. Raises SettingsError naming the bad setting."""
    zone = _zone(timezone)
    bad = f"cannot use setting RETRAIN_SCHEDULE={expression[:LENGTH_MAX]!r}: "
    if len(expression.split()) != FIELDS or len(expression) > LENGTH_MAX:
        raise SettingsError(f"{bad}five fields are expected, for example 0 2 * * sun")
    try:
        trigger = CrontabTrigger(expression, zone)
    except CronSimError as error:
        raise SettingsError(f"{bad}{error}") from None
    if trigger.get_next_fire_time(None, datetime.now(zone)) is None:
        raise SettingsError(f"{bad}it never comes")
    return trigger


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingsError(f"cannot use setting RETRAIN_TIMEZONE={name!r}: no such time zone") from None
