"""Times in logs as Unix seconds. A time without a zone is of LOG_TIMEZONE; one without a year gets the likely year."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agents.core.protocols import Field
from agents.core.types import DAY_S

MONTHS = {name: at + 1 for at, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split())}
"""Months as RFC 3164 section 4.1.2 writes them."""
HALF_YEAR_S = 182 * DAY_S
"""A date without a year that goes back further than that belongs to the next year."""
_SECOND = 19
"""Characters of a date and a time up to whole seconds, 2026-01-31T23:59:59."""
_TAIL = re.compile(r"(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?", re.ASCII)


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name[:40]!r} is no time zone") from None


LOG_TIMEZONE = Field(
    "log_timezone", str, "UTC", "time zone of logs whose times name none, for example Europe/Berlin", _zone
)


class Clock:
    """Reads the times of one log, mostly the same second again and again.

    zone: of times that name none. written: when the log was last written, Unix seconds: no time in it is later.
    """

    def __init__(self, zone: tzinfo = UTC, written: float = math.inf) -> None:
        self._zone, self._written = zone, written
        self._last = -math.inf  # of the times without a year
        self._second = lru_cache(maxsize=64)(self._second_of)
        self._dated = lru_cache(maxsize=64)(self._dated_of)

    @classmethod
    def of(cls, options: Mapping[str, Any], written: float = math.inf) -> Clock:
        """The clock of a log that is read with these values of fields."""
        return cls(_zone(options.get(LOG_TIMEZONE.name, LOG_TIMEZONE.default)), written)

    def iso(self, text: str) -> float:
        """ISO 8601 with up to nine digits of a second. Raises ValueError."""
        fraction, zone = _tail_of(text[_SECOND:])
        return self._second(text[:_SECOND], zone) + fraction

    def _second_of(self, text: str, zone: str) -> float:
        when = datetime.fromisoformat(text + zone)
        return (when if zone else when.replace(tzinfo=self._zone)).timestamp()

    def parts(self, year: int, month: int, day: int, second: str) -> float:
        """A date, and a time of day HH:MM:SS with or without a fraction. Raises ValueError."""
        whole, _, fraction = second.partition(".")
        base = self._second(f"{year:04d}-{month:02d}-{day:02d}T{whole}", "")
        return base + float("0." + fraction) if fraction else base

    def unix(self, second: int) -> float:
        """Unix seconds of a whole second of a clock in the log's zone; second: since 1970, as if the zone were UTC."""
        when = datetime.fromtimestamp(second, UTC)
        return second if self._zone is UTC else when.replace(tzinfo=self._zone).timestamp()

    def yearless(self, month: str, day: str, second: str) -> float:
        """A time as RFC 3164 has it. Raises ValueError.

        The first one gets the last year in which it is not later than the log was written; a later one the next year
        where it would go back by half a year.
        """
        ts = self._dated(month, int(day), second)
        while ts < self._last - HALF_YEAR_S:
            ts = self._next_year(ts)
        self._last = max(self._last, ts)
        return ts

    def _dated_of(self, month: str, day: int, second: str) -> float:
        if month not in MONTHS:
            raise ValueError(f"{month[:10]!r} is no month")
        latest = datetime.fromtimestamp(self._written, self._zone) if math.isfinite(self._written) else None
        latest = latest or datetime.now(self._zone)
        for year in (latest.year, latest.year - 1):
            if (month, day) == ("Feb", 29) and not _is_leap(year):
                continue
            ts = self.parts(year, MONTHS[month], day, second)
            if ts <= latest.timestamp() + DAY_S:
                return ts
        raise ValueError(f"{month} {day} is no date before the log was written")

    def _next_year(self, ts: float) -> float:
        when = datetime.fromtimestamp(ts, self._zone)
        return (
            when.replace(year=when.year + 1).timestamp()
            if (when.month, when.day) != (2, 29)
            else (when + timedelta(days=366)).timestamp()
        )


@lru_cache(maxsize=4096)
def _tail_of(text: str) -> tuple[float, str]:
    """Fraction of a second and zone, 0.0 and "" where there is none. Raises ValueError."""
    match = _TAIL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no end of a time")
    return float("0." + (match[1] or "0")), match[2] or ""


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
