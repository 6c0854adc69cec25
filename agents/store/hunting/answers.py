"""What a hunt is asked through, and what it says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol


class HuntRows(NamedTuple):
    """Rows of an answer by the names of its columns. cut: there were more than were asked for."""

    names: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    cut: bool


class HuntStore(Protocol):
    """What answers questions about `queries` in SQL. dialect: key of the texts of named hunts."""

    dialect: str

    def ask(self, sql: str, limit: int, limit_s: float) -> HuntRows:
        """At most `limit` rows of one SELECT, within so many seconds.

        Raises UsageError for SQL that is not answered, StoreError where there is no answer in time.
        """
        ...

    def covered(self) -> list[int]:
        """Days that it has queries of, ascending, in days since 1970-01-01. Raises StoreError."""
        ...


class HuntFound(NamedTuple):
    """An answer for people and programs: values as JSON has them. sql: that was asked; days: as HuntStore.covered."""

    names: Sequence[str]
    rows: Sequence[Sequence[Any]]
    cut: bool
    days: Sequence[int]
    sql: str
    seconds: float

    @property
    def missing(self) -> list[int]:
        """Days between the first and the last one that there are no queries of."""
        return sorted(set(range(self.days[0], self.days[-1])) - set(self.days)) if self.days else []


def plain_value(value: Any) -> Any:
    """A value as JSON has it: times in UTC."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.%f}Z"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {str(name): plain_value(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(one) for one in value]
    return value if value is None or isinstance(value, bool | int | str) else _text(value)


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else value.isoformat() if isinstance(value, date) else str(value)
