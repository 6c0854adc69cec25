"""The store on Postgres: queries partitioned by day, written by binary COPY, dropped by the day."""

from __future__ import annotations

import io
import os
import secrets
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
from numpy.typing import NDArray
from sqlalchemy import (
    URL,
    Connection,
    Select,
    Table,
    create_engine,
    delete,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert

from agents.core.column_kernels import hash_pieces
from agents.core.columns import Coded, Names, Pieces, distinct_rows, gathered, packed
from agents.core.errors import BatchRefusedError
from agents.core.types import DAY_S, Verdicts
from agents.store import migrate, postgres_kernels
from agents.store.rows import BATCHES, COLUMNS, MARKED_COLUMNS, QUERIES, Columns, shelf_of
from agents.store.sampling import COLUMNS as SAMPLED
from agents.store.sampling import Found
from agents.store.sql import LONG_S, Store

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
END = struct.pack("!h", -1)
_KINDS = {
    "ts": "f8",
    "day": "i4",
    "qtype": "i4",
    "score": "f4",
    "severity": "i2",
    "rcode": "i2",
    "ancount": "i4",
    "qlen": "i4",
    "rlen": "i4",
    "ttl_min": "i8",
    "rtt_ms": "f4",
    "rnd": "i4",
    "features_version": "i2",
    "cached": "i2",
    "imported_at": "f8",
}
"""What each number is in the table; COPY converts nothing."""


def rows_of(parts: Sequence[Columns]) -> bytes:
    """The rows, as they go to the server; all parts have the same columns."""
    return b"".join((HEADER, *map(_body, parts), END))


def _body(columns: Columns) -> memoryview:
    """The rows: each one's fixed part, and its texts behind it."""
    fixed, (values, which) = _fixed(columns), _texts(columns.texts)
    sizes = np.diff(values.starts)
    out = np.empty(fixed.size + 4 * which.size + int(sizes[which].sum()), np.uint8)
    postgres_kernels.copy_rows(fixed, which, values.array, values.starts, out)
    return out.data


@lru_cache(maxsize=4)
def _template(names: Sequence[str], width: int) -> NDArray[np.void]:
    """One row's fixed part with all lengths filled in, shape (1,); `width`: bytes of the features."""
    kinds = {name: _KINDS[name] for name in names[: names.index("features")]}
    fields: list[Any] = [("fields", ">i2")]
    for name, kind in kinds.items():
        fields += [(f"{name}_size", ">i4"), (name, f">{kind}")]
    fields += [("features_size", ">i4"), ("features", np.uint8, (width,))]
    row = np.zeros(1, np.dtype(fields))
    row["fields"], row["features_size"] = len(names), width
    for name, kind in kinds.items():
        row[f"{name}_size"] = int(kind[1])
    return row


def _fixed(columns: Columns) -> NDArray[np.uint8]:
    """What begins every row, shape (n, bytes)."""
    width = columns.features.shape[1] * columns.features.itemsize
    rows = np.repeat(_template(columns.names, width), len(columns.features))
    for name, column in zip(columns.names, columns.numbers, strict=False):
        rows[name] = column
    rows["features"] = columns.features.view(np.uint8)
    return rows.view(np.uint8).reshape(len(rows), rows.itemsize)


def _texts(columns: Sequence[Coded | Names]) -> tuple[Names, NDArray[np.int64]]:
    """All texts in one column, and the numbers of those of each row, shape (n, len(columns))."""
    which = np.empty((len(columns[0]), len(columns)), np.int64)
    tables: list[Names] = []
    first = size = 0
    starts = [np.zeros(1, np.int64)]
    for number, column in enumerate(columns):
        table = column if isinstance(column, Names) else packed([value.encode() for value in column.values])
        which[:, number] = first + (np.arange(len(table)) if isinstance(column, Names) else column.codes)
        starts.append(table.starts[1:] + size)
        tables.append(table)
        first, size = first + len(table), size + len(table.data)
    return Names(b"".join([table.data for table in tables]), np.concatenate(starts)), which


def columns_of(data: memoryview, count: int, width: int) -> list[Pieces]:
    """The fields of `count` rows as the server gives them, one column of bytes for each of `width`; none is NULL."""
    array = np.frombuffer(data.toreadonly(), np.uint8)
    begins, sizes = np.empty((width, count), np.int64), np.empty((width, count), np.int64)
    postgres_kernels.fields(array, len(HEADER), begins, sizes)
    return [Pieces(array, *where) for where in zip(begins, sizes, strict=True)]


def numbers_of(column: Pieces, kind: str) -> NDArray[Any]:
    """A column of numbers; kind: as NumPy names it, in the order of bytes that the server gives."""
    found = gathered(*column)
    return np.frombuffer(found.data, kind).astype(np.dtype(kind).newbyteorder("="))


def texts_of(pieces: Pieces) -> Coded:
    """A column of UTF-8, of which few values differ. 64 bits under a key that nobody knows distinguish them."""
    low, high = np.uint64(secrets.randbits(64)), np.uint64(secrets.randbits(64))
    keys = np.empty(len(pieces.sizes), np.uint64)
    hash_pieces(*pieces, low, high, keys)
    codes, firsts = distinct_rows(keys)
    return Coded(codes, [value.decode() for value in pieces.take(firsts)])


PARTITIONS_MAX = 2_000
"""Days kept at once: five years. A damaged capture with wild times must not make a table for each of them."""
LOCK_WAIT_MS = 2_000
"""How long a new day waits for whoever changes tables; until then its rows spool, and the writer goes on."""
LOCK_KEY = 0x646E_7374
"""Advisory lock of whoever changes tables ("dnst" in ASCII)."""
STATEMENT_S = 60
"""Seconds that a statement may take, unless what it is for may take longer."""
_CONNECT = {
    "connect_timeout": 3,
    "tcp_user_timeout": 10_000,  # milliseconds: a server that vanished is noticed, not waited for
    "application_name": "dns-tunnel",
    "options": f"-c statement_timeout={STATEMENT_S * 1000} -c timezone=UTC",
}

_COPY = {names: f"COPY queries ({', '.join(names)}) FROM STDIN (FORMAT BINARY)" for names in (COLUMNS, MARKED_COLUMNS)}
_COPY_BYTES = 1 << 20
"""Bytes that the driver hands over at once."""


class PostgresStore(Store):
    """`postgresql://user:password@host:port/database`."""

    def __init__(self, url: URL) -> None:
        super().__init__(create_engine(url, connect_args=_CONNECT, pool_timeout=5))
        self._alone = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._days: frozenset[int] = frozenset()

    def _cut(self, driver: Any) -> None:
        """The driver waits for the socket, and finds it closed."""
        with suppress(psycopg2.InterfaceError, OSError), socket.socket(fileno=os.dup(driver.fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)

    def _allow(self, connection: Connection, limit_s: float) -> None:
        if limit_s > STATEMENT_S:
            connection.execute(text(f"SET LOCAL statement_timeout = {int(limit_s * 1000)}"))

    def migrate(self) -> None:
        with self._guard("open the database", LONG_S), self._writer.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
            migrate.upgrade(connection)

    def write_all(self, batches: Sequence[tuple[Verdicts, str]]) -> int:
        try:
            return super().write_all(batches)
        except BatchRefusedError:
            if not self._days:
                raise
        # Another process may have dropped a day that this one remembers: look again, once.
        self._days = frozenset()
        return super().write_all(batches)

    def drop_old(self, before_day: int) -> int:
        with self._guard("drop old queries", LONG_S):
            dropped = self._drop(lambda day: 0 <= day < before_day)
            with self._writer.begin() as connection:
                connection.execute(delete(BATCHES).where(BATCHES.c.written_at < before_day * DAY_S))
        return dropped

    def drop_replays(self, before_day: int) -> int:
        with self._guard("drop old replays", LONG_S):
            return self._drop(lambda day: day < 0 and shelf_of(day) < before_day)

    def _drop(self, old: Callable[[int], bool]) -> int:
        """Drop the partitions of such days: how many rows. DETACH … CONCURRENTLY keeps no writer or reader waiting."""
        with self._alone.connect() as connection:
            _finish_detaching(connection)
            days = sorted(filter(old, _attached(connection)))
            rows = sum(self._rows_of(day) for day in days)
            for day in days:
                connection.execute(text(f"ALTER TABLE queries DETACH PARTITION {_name(day)} CONCURRENTLY"))
            _drop_detached(connection)
        self._days = frozenset()
        return rows

    def _rows_of(self, day: int) -> int:
        with self._engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))  # a busy day may take a minute
            counting = select(func.count()).select_from(QUERIES).where(QUERIES.c.day == day)
            return int(connection.execute(counting).scalar_one())

    def _shelves(self, connection: Connection) -> list[int]:
        return sorted((day for day in _attached(connection) if day < 0), reverse=True)

    def _prepare(self, days: Sequence[int]) -> None:
        if self._days.issuperset(days):
            return
        with self._writer.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
            there = _attached(connection)
            new = sorted(set(days) - there)
            if len(there) + len(new) > PARTITIONS_MAX:
                raise BatchRefusedError(f"cannot write a batch: more than {PARTITIONS_MAX} days would be stored")
            for day in new:
                _add_partition(connection, day)
        self._days = there.union(new)

    def fold(self) -> None:
        """A server sees to its own files."""

    def _insert(self, connection: Connection, parts: Sequence[Columns]) -> None:
        for names, statement in _COPY.items():
            some = [part for part in parts if part.names == names]
            if some:
                connection.connection.cursor().copy_expert(statement, io.BytesIO(rows_of(some)), _COPY_BYTES)

    def _found(self, connection: Connection, statement: Select[Any]) -> Found:
        compiled = statement.compile(dialect=self._engine.dialect, compile_kwargs={"literal_binds": True})
        cursor, out = connection.connection.cursor(), io.BytesIO()
        cursor.copy_expert(f"COPY ({compiled}) TO STDOUT (FORMAT BINARY)", out)
        ids, rnd, ts, client, qname, domain, features = columns_of(out.getbuffer(), cursor.rowcount, len(SAMPLED))
        return Found(
            numbers_of(ids, ">i8"),
            numbers_of(rnd, ">i4"),
            numbers_of(ts, ">f8"),
            texts_of(client),
            qname,
            texts_of(domain),
            features,
        )

    def copy_csv(self, connection: Connection, statement: Select[Any], path: Path) -> None:
        compiled = statement.compile(dialect=self._engine.dialect, compile_kwargs={"literal_binds": True})
        with path.open("wb") as file:
            connection.connection.cursor().copy_expert(f"COPY ({compiled}) TO STDOUT (FORMAT CSV)", file)

    def upsert(self, table: Table) -> Any:
        return insert(table)


_LIVE, _REPLAYS = "queries_day_", "queries_replayed_"
"""What names of partitions begin with; the day of the queries, or of their import, follows."""


def _name(day: int) -> str:
    return f"{_LIVE}{day}" if day >= 0 else f"{_REPLAYS}{shelf_of(day)}"


def _attached(connection: Connection) -> frozenset[int]:
    """Values of `day` that have a partition."""
    statement = text(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = 'queries'::regclass AND NOT inhdetachpending"
    )
    names = connection.execute(statement).scalars().all()
    live = [int(name.removeprefix(_LIVE)) for name in names if name.startswith(_LIVE)]
    return frozenset([*live, *(shelf_of(int(name.removeprefix(_REPLAYS))) for name in names if _REPLAYS in name)])


def _add_partition(connection: Connection, day: int) -> None:
    """Made by itself and then attached: unlike CREATE … PARTITION OF, that lets readers and writers go on."""
    name = _name(day)
    connection.execute(text(f"DROP TABLE IF EXISTS {name}"))  # detached, but not yet dropped
    connection.execute(text(f"CREATE TABLE {name} (LIKE queries INCLUDING DEFAULTS INCLUDING INDEXES)"))
    connection.execute(text(f"ALTER TABLE queries ATTACH PARTITION {name} FOR VALUES FROM ({day}) TO ({day + 1})"))


def _finish_detaching(connection: Connection) -> None:
    """Complete what a killed process began."""
    statement = text(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'queries'::regclass AND inhdetachpending"
    )
    for name in connection.execute(statement).scalars().all():
        connection.execute(text(f"ALTER TABLE queries DETACH PARTITION {name} FINALIZE"))


def _drop_detached(connection: Connection) -> None:
    statement = text(
        "SELECT oid::regclass::text FROM pg_class WHERE relname ~ :named AND relkind = 'r'"
        " AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'queries'::regclass)"
        " AND NOT relispartition"
    )
    for name in connection.execute(statement, {"named": f"^({_LIVE}|{_REPLAYS})[0-9]+$"}).scalars().all():
        connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
