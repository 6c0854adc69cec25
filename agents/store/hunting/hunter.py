"""Hunts over files of closed days, and what the database has of days without a file."""

from __future__ import annotations

from agents.store.hunting.answers import HuntRows
from agents.store.hunting.days import DayFiles

COPIED_MAX = 5_000_000
"""Rows of the database that one hunt copies, at most: some ten seconds of work a million."""


class FileHunter:
    """Answers by DuckDB. closed_only: of days that have a file, without a look into the database."""

    dialect = "duckdb"

    def __init__(self, files: DayFiles, closed_only: bool = False) -> None:
        self._files, self._closed_only = files, closed_only

    def ask(self, sql: str, limit: int, limit_s: float) -> HuntRows:
        """See HuntStore; the limit of time does not count what is copied before."""
        with self._files.open_parts(COPIED_MAX, self._closed_only) as (duck, paths):
            duck.show(paths)
            return duck.ask(sql, limit, limit_s)

    def covered(self) -> list[int]:
        """See HuntStore: days in files, and those of the database."""
        stored = [] if self._closed_only else self._files.stored_days()
        return sorted({*self._files.days(), *stored})
