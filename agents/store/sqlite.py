"""The embedded store: one SQLite file in WAL mode: readers and the writer do not wait for each other."""

from __future__ import annotations

import csv
import errno
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Delete,
    Row,
    Select,
    Table,
    create_engine,
    delete,
    event,
    select,
)
from sqlalchemy.dialects.sqlite import insert

from agents.core.columns import coded, packed, pieces_of
from agents.core.errors import StoreError, StoreUnusableError
from agents.core.files import locked, make_private
from agents.core.types import DAY_S
from agents.store import migrate
from agents.store.rows import BATCHES, COLUMNS, MARKED_COLUMNS, QUERIES, REPLAYED, Columns, shelf_of
from agents.store.sampling import COLUMNS as SAMPLED
from agents.store.sampling import Found
from agents.store.sql import LONG_S, Store

BUSY_S = 2.0
"""How long a statement waits for another process' transaction, seconds: so long may judging wait, then rows spool."""
DELETE_CHUNK = 2_000
"""Rows deleted in one transaction: some ten milliseconds, so that the writer never waits for long."""
FETCHED_ROWS = 4096
"""Rows of a sample turned into columns at once, while the processor's cache still holds them."""
CACHE_KIB = 65_536
"""Pages kept in memory, KiB: indexes on names and random numbers are written all over, not at the end."""

_FOR_EVER = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
"""Result codes that are still the same tomorrow (sqlite.org/rescode.html)."""

_INSERT = {
    names: f"INSERT INTO queries ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
    for names in (COLUMNS, MARKED_COLUMNS)
}


class SqliteStore(Store):
    """`sqlite:////absolute/path` or `sqlite:///relative/path`."""

    def __init__(self, url: URL) -> None:
        if not url.database or url.database == ":memory:":
            raise StoreError("cannot use DATABASE_URL: SQLite needs a file, as in sqlite:////var/lib/queries.db")
        self._path, self._inode = Path(url.database), 0
        # isolation_level None: transactions begin where `_on_begin` says, not where the driver guesses.
        engine = create_engine(url, connect_args={"timeout": BUSY_S, "isolation_level": None})
        event.listen(engine, "do_connect", self._make_private)
        event.listen(engine, "connect", _on_connect)
        event.listen(engine, "begin", _on_begin)
        super().__init__(engine)

    def _cut(self, driver: Any) -> None:
        driver.interrupt()

    def _allow(self, connection: Connection, limit_s: float) -> None:
        """No statement has a limit of its own."""

    def _make_private(self, *_: object) -> None:
        """SQLite would let everybody read a file that it makes; what it makes beside one has the same mode."""
        with suppress(OSError):  # where none can be made, connecting says so
            make_private(self._path)

    def _failure(self, text: str, error: Exception) -> StoreError:
        code = getattr(getattr(error, "orig", error), "sqlite_errorcode", 0) & 0xFF
        return StoreUnusableError(f"{text} ({self._path})") if code in _FOR_EVER else StoreError(text)

    def migrate(self) -> None:
        with self._guard("open the database", LONG_S), self._lock():
            with self._engine.connect() as connection:
                driver = connection.connection.cursor()
                driver.execute("PRAGMA journal_mode=WAL")  # kept in the file, so once is enough
                driver.close()
            with self._writer.begin() as connection:
                migrate.upgrade(connection)
            self._inode = self._inode or self._path.stat().st_ino  # before a first batch: it may be gone by then

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Two processes at a new file: the change to WAL does not wait for a lock by itself, so this does."""
        try:
            with locked(Path(f"{self._path}.lock"), wait=True):
                yield
        except OSError as error:
            kind = StoreError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreUnusableError
            raise kind(f"cannot open database {self._path}: {error.strerror}") from None

    def fold(self) -> None:
        """The file alone is the database then: a copy of it is whole, and another in its place meets no older log."""
        if self._path.exists():
            guarded = self._guard("fold", LONG_S)
            with suppress(StoreError), guarded, closing(self._engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def drop_old(self, before_day: int) -> int:
        with self._guard("drop old queries", LONG_S):
            since, dropped = 0.0, 0
            while rows := self._old_rows(since, before_day * DAY_S):
                since = rows[-1].ts  # rows of replays among them are passed over once
                dropped += self._change(delete(QUERIES).where(QUERIES.c.id.in_([row.id for row in rows])))
            self._delete(BATCHES.c.batch_id, BATCHES.c.written_at < before_day * DAY_S)
        return dropped

    def _old_rows(self, since: float, before: float) -> Sequence[Row[Any, Any]]:
        """The next DELETE_CHUNK live queries with since <= ts < before. Reading keeps no writer waiting."""
        wanted = (QUERIES.c.ts >= since, QUERIES.c.ts < before, QUERIES.c.day >= 0)
        statement = select(QUERIES.c.id, QUERIES.c.ts).where(*wanted).order_by(QUERIES.c.ts).limit(DELETE_CHUNK)
        with self._engine.begin() as connection:
            return connection.execute(statement).all()

    def drop_replays(self, before_day: int) -> int:
        with self._guard("drop old replays", LONG_S):
            return self._delete(QUERIES.c.id, REPLAYED, QUERIES.c.day > shelf_of(before_day))

    def erase_queries(self, client: str) -> int:
        """Delete the queries of a client, DELETE_CHUNK at a time, and overwrite them in the file; how many."""
        mine = select(QUERIES.c.id).where(QUERIES.c.client == client).limit(DELETE_CHUNK)
        erased, last = 0, DELETE_CHUNK
        with self._guard("erase a client's queries", LONG_S), self._writer.connect() as connection:
            while last == DELETE_CHUNK:
                with connection.begin():
                    last = connection.execute(delete(QUERIES).where(QUERIES.c.id.in_(mine))).rowcount
                erased += last
        return erased

    def _delete(self, key: Column[Any], *old: ColumnElement[bool]) -> int:
        """Delete the old rows of the key's table, DELETE_CHUNK at a time; how many there were."""
        dropped, last = 0, DELETE_CHUNK
        while last == DELETE_CHUNK:
            last = self._change(delete(key.table).where(key.in_(select(key).where(*old).limit(DELETE_CHUNK))))
            dropped += last
        return dropped

    def _change(self, statement: Delete) -> int:
        """Delete rows in one transaction, and rest as long; how many there were."""
        begun = time.monotonic()
        with self._writer.begin() as connection:
            count = connection.execute(statement).rowcount
        time.sleep(time.monotonic() - begun)  # whoever waits for the lock only looks now and then
        return count

    def _shelves(self, connection: Connection) -> list[int]:
        return sorted(connection.execute(select(QUERIES.c.day).where(REPLAYED).distinct()).scalars(), reverse=True)

    def _prepare(self, days: Sequence[int]) -> None:
        """One table holds all days."""

    def _insert(self, connection: Connection, parts: Sequence[Columns]) -> None:
        self._look()
        for columns in parts:
            rows: Any = zip(*columns.lists(), strict=True)
            connection.connection.cursor().executemany(_INSERT[columns.names], rows)

    def _look(self) -> None:
        """See that what is written to is still there: an open file that was removed takes all, and keeps nothing."""
        inode = self._path.stat().st_ino if self._path.exists() else 0
        self._inode = self._inode or inode
        if inode != self._inode:
            raise StoreUnusableError(f"cannot write a batch: the file was removed or replaced ({self._path}); restart")

    def _found(self, connection: Connection, statement: Select[Any]) -> Found:
        cursor = connection.execute(statement).cursor  # the driver's own tuples: one object a row is enough
        columns: list[list[Any]] = [[] for _ in SAMPLED]
        while rows := cursor.fetchmany(FETCHED_ROWS):
            for column, values in zip(columns, zip(*rows, strict=True), strict=True):
                column.extend(values)
        ids, rnd, ts, client, qname, domain, features = columns
        numbers = np.array(ids, np.int64), np.array(rnd, np.int64), np.array(ts, np.float64)
        names = packed([name.encode("ascii") for name in qname])
        return Found(*numbers, coded(client), pieces_of(names), coded(domain), pieces_of(packed(features)))

    def copy_csv(self, connection: Connection, statement: Select[Any], path: Path) -> None:
        cursor: Any = connection.execute(statement).cursor
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(cursor)

    def upsert(self, table: Table) -> Any:
        return insert(table)


def _on_connect(driver: sqlite3.Connection, _: object) -> None:
    # In WAL mode a killed process loses nothing committed (sqlite.org/pragma.html#pragma_synchronous).
    driver.execute("PRAGMA synchronous=NORMAL")
    driver.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    driver.execute("PRAGMA secure_delete=ON")  # what a person wants to be erased must not stay in free pages


def _on_begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
