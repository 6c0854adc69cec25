"""DuckDB, embedded: with limits for what we ask it, and locked for what others ask it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.core.errors import StoreError, UsageError
from agents.core.protocols import library
from agents.store.hunting.answers import HuntRows
from agents.store.hunting.columns import HUNT_COLUMNS, HUNT_NAMES, STORED_NAMES

THREADS = 2
"""Threads of one hunt or of one day that is written: what answers DNS shares the machine."""
SPILL_GB = 16
"""Disk that a hunt may use for what does not fit into its memory, gigabytes."""
LOCKED = (
    "SET enable_external_access = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET lock_configuration = true",
)
"""No file but those that were allowed, no network, no extension, and none of that can be taken back."""
_OURS = ("InterruptException", "OutOfMemoryException", "IOException", "InternalException", "FatalException")
"""Failures that are not the question's."""


class Duck:
    """One connection to an engine in memory. work: folder for what does not fit. Raises SettingsError without DuckDB.

    user: what needs it.
    """

    def __init__(self, work: Path, memory_mb: int, user: str) -> None:
        self._duckdb = library("duckdb", "hunt", user)
        config = {
            "memory_limit": f"{memory_mb}MiB",
            "threads": str(THREADS),
            "temp_directory": str(work),
            "max_temp_directory_size": f"{SPILL_GB}GiB",
        }
        self._failed: Any = self._duckdb.Error
        self.connection: Any = self._duckdb.connect(":memory:", config=config)

    def __enter__(self) -> Duck:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def run(self, what: str, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute a statement of ours. Raises StoreError."""
        with self._told(what):
            found: list[tuple[Any, ...]] = self.connection.execute(statement, list(values)).fetchall()
            return found

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._failed as error:
            raise StoreError(f"cannot {what}: {_one_line(error)}") from None

    def show(self, paths: Sequence[Path]) -> None:
        """Make the view `queries` of Parquet files, and lock the engine: nothing else is reached from it."""
        quoted = ", ".join(map(quoted_path, paths))
        source = parquet_rows(paths) if paths else f"({empty_rows()})"
        self.run("hunt", f"SET allowed_paths = [{quoted}]")
        self.run("hunt", f"CREATE VIEW queries AS SELECT {', '.join(HUNT_NAMES)} FROM {source}")
        for statement in LOCKED:
            self.run("hunt", statement)

    def ask(self, sql: str, limit: int, limit_s: float) -> HuntRows:
        """Answer a stranger's question, once `show` has locked the engine: see HuntStore.

        A SELECT may have a COPY in its WITH, which would write; below another SELECT it may not, so it is put there.
        """
        text = sql.strip().rstrip(";").rstrip()
        ended = threading.Event()

        def end() -> None:
            ended.set()
            self.connection.interrupt()

        timer = threading.Timer(limit_s, end)
        timer.daemon = True
        timer.start()
        try:
            whole = f"SELECT * FROM (\n{text}\n) LIMIT {limit + 1}"
            if not (self._is_select(text) and self._is_select(whole)):
                raise UsageError("cannot hunt: it must be one SELECT")
            done = self.connection.execute(whole)
            names, rows = tuple(column[0] for column in done.description), done.fetchall()
        except self._failed as error:
            if ended.is_set():
                raise StoreError(f"cannot hunt: no answer within {limit_s:g} s") from None
            kind = StoreError if type(error).__name__ in _OURS else UsageError
            raise kind(f"cannot hunt: {_one_line(error)}") from None
        finally:
            timer.cancel()
            timer.join()
        return HuntRows(names, rows[:limit], len(rows) > limit)

    def _is_select(self, text: str) -> bool:
        found = self.connection.extract_statements(text)
        return len(found) == 1 and found[0].type == self._duckdb.StatementType.SELECT


def quoted_path(path: Path) -> str:
    """A path as a text of SQL."""
    return "'" + str(path.absolute()).replace("'", "''") + "'"


def parquet_rows(paths: Sequence[Path]) -> str:
    """SQL of the rows of files."""
    return f"read_parquet([{', '.join(map(quoted_path, paths))}], hive_partitioning = false)"


def empty_rows() -> str:
    """SQL of the columns without a row."""
    stored = ", ".join(f"CAST(NULL AS {one.stored}) AS {one.name}" for one in HUNT_COLUMNS if one.name in STORED_NAMES)
    made = ", ".join(f"{one.made} AS {one.name}" for one in HUNT_COLUMNS)
    return f"SELECT {made} FROM (SELECT {stored}) WHERE false"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).partition("\n\n")[0].partition("\nLINE")[0].split())
