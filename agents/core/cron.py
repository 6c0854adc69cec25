"""Cron expressions as cron means them, turned into APScheduler triggers.

APScheduler's own `from_crontab` counts weekdays from Monday and demands day *and* weekday; crontab(5) counts
from Sunday (0 and 7) and fires on either when both are given.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

from agents.core.errors import SettingsError

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def cron_trigger(expression: str, timezone: str) -> BaseTrigger:
    """The trigger of RETRAIN_SCHEDULE in RETRAIN_TIMEZONE. Raises SettingsError naming the bad one."""
    zone = _zone(timezone)
    try:
        trigger = _trigger(expression, zone)
    except ValueError as error:
        raise SettingsError(f"cannot use setting RETRAIN_SCHEDULE={expression!r}: {error}") from None
    if trigger.get_next_fire_time(None, datetime.now(zone)) is None:
        raise SettingsError(f"cannot use setting RETRAIN_SCHEDULE={expression!r}: it never comes")
    return trigger


def weekdays(field: str) -> str:
    """A crontab(5) weekday field as a list of names, "*" as it is. Raises ValueError."""
    if field == "*":
        return field
    found = {day % 7 for part in field.split(",") for day in _days(part)}
    return ",".join(_WEEKDAYS[day] for day in sorted(found))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise SettingsError(f"cannot use setting RETRAIN_TIMEZONE={name!r}: no such time zone") from None


def _trigger(expression: str, zone: ZoneInfo) -> BaseTrigger:
    fields = expression.lower().split()
    if len(fields) != 5:
        raise ValueError("five fields are expected, for example 0 2 * * sun")
    minute, hour, day, month, weekday = fields
    named = weekdays(weekday)

    def at(day: str, weekday: str) -> CronTrigger:
        return CronTrigger(minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=zone)

    if day.startswith("*") or weekday.startswith("*"):
        return at(day, named)
    return OrTrigger([at(day, "*"), at("*", named)])


def _days(part: str) -> range:
    span, slash, step = part.partition("/")
    if slash and (not step.isdecimal() or not 1 <= int(step) <= 7):
        raise ValueError(f"{part!r} is no weekday")
    first, dash, last = ("0", "-", "6") if span == "*" else span.partition("-")
    start, end = _day(first), _day(last if dash else first)
    if dash and end == 0 and start > 0:
        end = 7  # fri-sun
    if end < start:
        raise ValueError(f"{part!r} runs backwards")
    if slash and not dash:
        end = 6  # 1/2 is 1-6/2
    return range(start, end + 1, int(step or 1))


def _day(text: str) -> int:
    if text in _WEEKDAYS:
        return _WEEKDAYS.index(text)
    if not text.isdecimal() or not text.isascii() or int(text) > 7:
        raise ValueError(f"{text!r} is no weekday: 0-7 (0 and 7 are Sunday) or sun-sat")
    return int(text)
