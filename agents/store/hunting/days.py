"""Closed days of live queries as Parquet files, one a day: written before retention deletes their rows.

A file is sorted by domain, client and time, so that what is alike lies together. It takes its place in one step; a day
that got late rows is written again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import func, select

from agents.core.errors import StoreError
from agents.core.files import heirs_of, locked, make_private_folder, place_file
from agents.core.protocols import library
from agents.core.types import DAY_S, HOUR_S, clean
from agents.store.console.summing import SETTLED_S
from agents.store.hunting.columns import HUNT_COLUMNS, HUNT_NAMES, STORED_NAMES
from agents.store.hunting.duck import Duck, parquet_rows, quoted_path
from agents.store.rows import QUERIES
from agents.store.sql import LIVE, LONG_S, Store, between

FILE = "queries.parquet"
"""The file of a day, in its folder day=YYYY-MM-DD."""
USER = "files of closed days"
"""What needs DuckDB, for people."""
RECOUNTED = 2
"""Newest closed days that are looked at for late rows each time; maintenance looks at all."""
LEFT_OVER_S = DAY_S
"""A folder of work that is older was left by a process that was killed."""
AT_ONCE = 1_000_000
"""Rows that are copied at once as text; of larger days each hour is."""
_WORK = ".work-"
_TEXTS = ", ".join(f"'{one.name}'" for one in HUNT_COLUMNS if one.stored == "VARCHAR")
_STORED = ", ".join(f"'{one.name}': '{one.stored}'" for one in HUNT_COLUMNS if one.name in STORED_NAMES)
_MADE = ", ".join(f"{one.made} AS {one.name}" for one in HUNT_COLUMNS)
_PARQUET = "(FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd)"
_FROM_CSV = (
    f"SELECT {_MADE} FROM read_csv({{path}}, header = false, auto_detect = false, parallel = false,"
    f" quote = '\"', escape = '\"', columns = {{{{{_STORED}}}}}, force_not_null = [{_TEXTS}])"
)
_log = structlog.get_logger()


class DayFiles:
    """The files in a folder, of the queries in a store. Threads and processes share it by a lock.

    Methods raise StoreError, and SettingsError where DuckDB is not installed. mark: of its folders of work, by which
    whoever ends this process removes them (`remove_work`).
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        memory_mb: int = 512,
        clock: Callable[[], float] = time.time,
        mark: str = "",
    ) -> None:
        self._store, self.folder, self._memory_mb, self._clock, self._mark = store, folder, memory_mb, clock, mark

    def days(self) -> dict[int, Path]:
        """The file of each day that has one, ascending; days since 1970-01-01."""
        found = {}
        for path in self.folder.glob(f"day=*/{FILE}"):
            with suppress(ValueError):
                found[day_number(path.parent.name.removeprefix("day="))] = path
        return dict(sorted(found.items()))

    def stored_days(self) -> list[int]:
        """Days that the database has live queries of, ascending."""
        return self._store.stored_days()

    def missing(self, first_day: int = 0) -> list[int]:
        """Closed days with stored live queries and without a file, ascending."""
        days = self.days()
        return [day for day in self._closed() if day >= first_day and day not in days]

    def check(self) -> None:
        """Raise SettingsError where there are files, and nothing that could change them."""
        if self.days():
            library("duckdb", "hunt", USER)

    def write(self, first_day: int = 0, every: bool = False, stopped: Callable[[], bool] = lambda: False) -> int:
        """Write closed days that have no file, or more rows than their file; how many.

        first_day: those before it are on their way out. every: look at all days, not the newest alone.
        """
        written = 0
        closed = [day for day in self._closed() if day >= first_day]
        for number, day in enumerate(reversed(closed)):
            if stopped():
                break
            path = self.days().get(day)
            if path is None or ((every or number < RECOUNTED) and self._count(day) > self.rows(path)):
                self._write(day)
                written += 1
        return written

    def rows(self, path: Path) -> int:
        """Rows of a file."""
        with self._working("look at a day") as (duck, _):
            found = duck.run("look at a day", f"SELECT num_rows FROM parquet_file_metadata({quoted_path(path)})")
        return int(found[0][0])

    def forget(self, before_day: int) -> int:
        """Delete the files of days before this one; how many."""
        old = [path for day, path in self.days().items() if day < before_day]
        if old:
            with self._alone("delete old days"):
                for path in old:
                    shutil.rmtree(path.parent)
        return len(old)

    def erase(self, client: str) -> int:
        """Take a client out of all files; how many rows. Those in the database must be gone: files are made of them."""
        erased = 0
        if not self.days():
            return 0
        with self._alone("erase a client"), self._working("erase a client") as (duck, work):
            for path in self.days().values():
                source = parquet_rows([path])
                mine = f"SELECT count(*) FROM {source} WHERE client = ?"
                count = int(duck.run("erase a client", mine, [clean(client)])[0][0])
                if count:
                    others = f"SELECT * FROM {source} WHERE client <> ?"
                    self._place(duck, others, work, path, [clean(client)])
                    erased += count
        return erased

    def rows_of(self, client: str) -> Iterator[dict[str, Any]]:
        """A client's rows on days that the database does not hold any more, newest day first."""
        days = self.days()
        gone = days.keys() - set(self._store.stored_days()) if days else set()
        if not gone:
            return
        with self._working("read a client's rows") as (duck, _):
            for day in sorted(gone, reverse=True):
                wanted = f"SELECT * FROM {parquet_rows([days[day]])} WHERE client = ? ORDER BY ts DESC"
                for row in duck.run("read a client's rows", wanted, [clean(client)]):
                    found = dict(zip(HUNT_NAMES, row, strict=True))
                    yield found | {"ts": found["ts"].replace(tzinfo=UTC).timestamp()}

    @contextmanager
    def open_parts(self, most: int, closed_only: bool = False) -> Iterator[tuple[Duck, list[Path]]]:
        """An engine, and files of all live queries: those of the days, and one that is made of other rows.

        most: rows of the database that are copied, at most; with more of them StoreError is raised.
        """
        with self._working("hunt") as (duck, work):
            days = self.days()
            paths = list(days.values())
            left = [] if closed_only else [day for day in self._store.stored_days() if day not in days]
            copied = 0
            for day in left:
                path = work / f"{day}.parquet"
                copied += self._copy(duck, float(day * DAY_S), float((day + 1) * DAY_S), path, most + 1 - copied)
                if copied > most:
                    raise StoreError(
                        f"cannot hunt: more than {most:,} queries of {len(left)} days are in no file yet;"
                        " HUNT_DAYS=365 has days that are over written, --closed leaves out the others"
                    )
                paths.append(path)
            yield duck, paths

    def _closed(self) -> list[int]:
        """Days that have live queries, and to which only late ones come."""
        before = int((self._clock() - SETTLED_S) // DAY_S)
        return [day for day in self._store.stored_days() if day < before]

    def _count(self, day: int) -> int:
        span = between(day * DAY_S, (day + 1) * DAY_S)
        with self._store.reading("count a day", LONG_S) as connection:
            return int(connection.execute(select(func.count()).select_from(QUERIES).where(*span, LIVE)).scalar_one())

    def _write(self, day: int) -> None:
        begun = time.monotonic()
        path = self.folder / f"day={day_text(day)}" / FILE
        with self._alone("write a day"), self._working("write a day") as (duck, work):
            step = DAY_S if self._count(day) <= AT_ONCE else HOUR_S
            parts, rows = [], 0
            for since in range(day * DAY_S, (day + 1) * DAY_S, step):
                parts.append(work / f"{since}.parquet")
                rows += self._copy(duck, since, since + step, parts[-1])
            ordered = f"SELECT * FROM {parquet_rows(parts)} ORDER BY domain, client, ts"
            self._place(duck, ordered, work, path)
            size = path.stat().st_size
        _log.info("day_written", day=day_text(day), rows=rows, bytes=size, seconds=round(time.monotonic() - begun, 1))

    def _copy(self, duck: Duck, since: float, until: float, path: Path, most: int | None = None) -> int:
        """Copy live queries with since <= ts < until into a Parquet file; how many. most: so many at most."""
        text = path.with_suffix(".csv")
        columns = [QUERIES.c[name] for name in STORED_NAMES]
        wanted = select(*columns).where(*between(since, until), LIVE).limit(most)
        with self._store.reading("copy queries", LONG_S) as connection:
            self._store.copy_csv(connection, wanted, text)
        query = _FROM_CSV.format(path=quoted_path(text))
        (count,) = duck.run("copy queries", f"COPY ({query}) TO {quoted_path(path)} {_PARQUET}")[0]
        text.unlink()
        return int(count)

    def _place(self, duck: Duck, query: str, work: Path, path: Path, values: list[Any] | None = None) -> None:
        """Put the rows of a query in the place of a file, in one step."""
        part = work / FILE
        duck.run("write a day", f"COPY ({query}) TO {quoted_path(part)} {_PARQUET}", values or ())
        try:
            make_private_folder(path.parent)
            if (heirs := heirs_of(path.parent)) is not None:
                os.chown(path.parent, *heirs)
            place_file(part, path, owner=heirs)
        except OSError as error:
            raise _unusable("write a day", error) from None

    def _make_folder(self) -> None:
        """The folder is the service's, also where root is the first to hunt. Raises OSError."""
        make_private_folder(self.folder)
        if (heirs := heirs_of(self.folder)) is not None:
            os.chown(self.folder, *heirs)

    @contextmanager
    def _working(self, what: str) -> Iterator[tuple[Duck, Path]]:
        """An engine, and a folder for what it makes, which nobody else can look into."""
        with ExitStack() as ends:
            try:
                self._make_folder()
                made = tempfile.TemporaryDirectory(
                    prefix=f"{_WORK}{self._mark}", dir=self.folder, ignore_cleanup_errors=True
                )
                work = Path(ends.enter_context(made))
                yield ends.enter_context(Duck(work, self._memory_mb, USER)), work
            except OSError as error:
                raise _unusable(what, error) from None

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """Nobody else changes files meanwhile; what killed processes left is gone."""
        try:
            self._make_folder()
            lock = self.folder / "lock"
            with locked(lock, wait=True):
                if (heirs := heirs_of(lock)) is not None:
                    os.chown(lock, *heirs)
                for path in self.folder.glob(f"{_WORK}*"):
                    if path.stat().st_mtime < time.time() - LEFT_OVER_S:
                        shutil.rmtree(path, ignore_errors=True)
                yield
        except OSError as error:
            raise _unusable(what, error) from None


def remove_work(folder: Path, mark: str) -> None:
    """Remove what a process with this mark, which was killed, left in the folder of files."""
    for path in folder.glob(f"{_WORK}{mark}*"):
        shutil.rmtree(path, ignore_errors=True)


def _unusable(what: str, error: OSError) -> StoreError:
    where = f"{error.filename}: " if error.filename else ""
    return StoreError(f"cannot {what}: {where}{error.strerror or error}")


def day_text(day: int) -> str:
    """A day as its folder names it."""
    return f"{datetime.fromtimestamp(day * DAY_S, UTC):%Y-%m-%d}"


def day_number(text: str) -> int:
    """The day that a folder names, in days since 1970-01-01. Raises ValueError."""
    return (date.fromisoformat(text) - date(1970, 1, 1)).days
