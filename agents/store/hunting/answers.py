"""What a hunt is asked through, and what it says."""

from __future__ import annotations

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
