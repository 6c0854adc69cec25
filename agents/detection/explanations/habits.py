"""What domains carry here: bytes of the last day, and of ordinary days over the last four weeks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from agents.core.npz import FormatError
from agents.core.types import DAY_S
from agents.detection.limits import KEPT_DAYS

DAYS_MIN = 5
"""Days with something carried before they are a habit: the working days of a week."""
KEYS_MAX = 5_000
"""Domains whose days are kept; of more, those that carried last longest ago are forgotten."""


SUMS_MAX = 100_000
"""Keys that a Book counts on one day."""


class Book:
    """Bytes by key over the last day: a pair of buckets, as windows have (state.WINDOWS)."""

    def __init__(self) -> None:
        self._day = 0
        self._now: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def add(self, ts: float, key: str, amount: float) -> float:
        """Count an amount, and return the sum: without end for a new key where there is no room for it."""
        self._turn(int(ts // DAY_S))
        if key not in self._now and len(self._now) >= SUMS_MAX:
            return math.inf
        self._now[key] = self._now.get(key, 0.0) + amount
        left = min(max(1 - (ts / DAY_S - self._day), 0.0), 1.0)
        return self._now[key] + left * self._before.get(key, 0.0)

    def sums(self, ts: float) -> Iterator[tuple[str, float]]:
        """Each key's sum."""
        self._turn(int(ts // DAY_S))
        left = min(max(1 - (ts / DAY_S - self._day), 0.0), 1.0)
        for key in {**self._before, **self._now}:
            yield key, self._now.get(key, 0.0) + left * self._before.get(key, 0.0)

    def _turn(self, day: int) -> None:
        if day > self._day or day < self._day - 1:  # the clock was set back by more than a day
            self._before = self._now if day == self._day + 1 else {}
            self._day, self._now = day, {}

    def forget(self, client: str) -> None:
        """Drop what a client carried. A key is a client, or a client and a domain."""
        for amounts in (self._now, self._before):
            for key in [key for key in amounts if key.partition(" ")[0] == client]:
                del amounts[key]

    def absorb(self, other: Book, wanted: Callable[[str], bool]) -> None:
        """Take over the amounts of wanted keys; of the two, the older days are turned."""
        day = max(self._day, other._day)
        for one in (self, other):
            one._turn(day)
        for mine, its in ((self._now, other._now), (self._before, other._before)):
            mine.update({key: amount for key, amount in its.items() if wanted(key)})

    def dump(self) -> list[Any]:
        """As JSON values."""
        return [self._day, self._now, self._before]

    def load(self, kept: Any) -> None:
        """Restore a dump. Raises FormatError for any other contents."""
        sound = isinstance(kept, list) and len(kept) == 3 and isinstance(kept[0], int)
        if not sound or not all(map(_is_amounts, kept[1:])):
            raise FormatError("cannot read habits: a damaged sum")
        self._day, self._now, self._before = kept


def _is_amounts(kept: Any) -> bool:
    return isinstance(kept, dict) and all(isinstance(value, int | float) for value in kept.values())


def _is_habit(kept: Any) -> bool:
    sound = isinstance(kept, list) and len(kept) == 2 and isinstance(kept[0], str) and isinstance(kept[1], list)
    return sound and all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[0], int) and isinstance(row[1], int | float)
        for row in kept[1]
    )


class Usual(NamedTuple):
    """What a key usually carries. amount: bytes a day; day: its first one that is remembered; kind: of service."""

    key: str
    amount: float
    day: int
    kind: str


class Habits:
    """The most that each key carried on each of its days, and as which kind of service."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[int, float]] = {}
        self._kinds: dict[str, str] = {}

    def note(self, ts: float, key: str, amount: float, kind: str = "") -> None:
        """Note the sum of a day so far."""
        day, rows = int(ts // DAY_S), self._rows.pop(key, {})
        rows[day] = max(rows.get(day, 0.0), amount)
        self._rows[key] = {one: sum_ for one, sum_ in rows.items() if abs(one - day) < KEPT_DAYS}
        self._kinds[key] = kind
        if len(self._rows) > KEYS_MAX:
            oldest = next(iter(self._rows))
            del self._rows[oldest]
            self._kinds.pop(oldest, None)

    def usual(self, ts: float, key: str) -> float:
        """The median of the days before this one; 0 while there are fewer than DAYS_MIN."""
        today = int(ts // DAY_S)
        days = [amount for day, amount in self._rows.get(key, {}).items() if 0 < today - day <= KEPT_DAYS]
        return float(np.median(days)) if len(days) >= DAYS_MIN else 0.0

    def all_usual(self, ts: float) -> Iterator[Usual]:
        """What every key usually carries that has a habit."""
        for key, rows in self._rows.items():
            if (amount := self.usual(ts, key)) > 0:
                yield Usual(key, amount, min(rows), self._kinds.get(key, ""))

    def forget(self, client: str) -> None:
        """Drop what a client carried. A key is a client, or a client and a domain."""
        self._rows = {key: rows for key, rows in self._rows.items() if key.partition(" ")[0] != client}
        self._kinds = {key: kind for key, kind in self._kinds.items() if key in self._rows}

    def absorb(self, other: Habits, wanted: Callable[[str], bool]) -> None:
        """Take over the days of wanted keys."""
        for key in filter(wanted, other._rows):
            self._rows[key], self._kinds[key] = dict(other._rows[key]), other._kinds.get(key, "")

    def dump(self) -> list[Any]:
        """As JSON values."""
        return [[key, sorted(rows.items())] for key, rows in self._rows.items()]

    def dump_kinds(self) -> dict[str, str]:
        """The kind of each key; beside `dump`, since release 0.2 reads that alone."""
        return {key: kind for key in self._rows if (kind := self._kinds.get(key))}

    def load(self, kept: Any, kinds: Any = None) -> None:
        """Restore a dump. Raises FormatError for any other contents."""
        if not isinstance(kept, list) or not all(map(_is_habit, kept)):
            raise FormatError("cannot read habits: a damaged habit")
        if kinds is not None and not (isinstance(kinds, dict) and all(isinstance(one, str) for one in kinds.values())):
            raise FormatError("cannot read habits: a damaged kind")
        self._rows = {key: dict(days) for key, days in kept}
        self._kinds = {key: kind for key, kind in (kinds or {}).items() if key in self._rows}
