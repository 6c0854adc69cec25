"""The store on Postgres: queries partitioned by day, written by binary COPY, dropped by the day."""

from __future__ import annotations

import io
import os
import secrets
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
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
    text,
)
from sqlalchemy.dialects.postgresql import insert

from agents.core.column_kernels import hash_pieces
from agents.core.columns import Coded, Names, Pieces, distinct_rows, gathered, packed
from agents.core.errors import BatchRefusedError
from agents.core.types import DAY_S, Verdicts
from agents.store import migrate, postgres_kernels
from agents.store.rows import BATCHES, COLUMNS, NUMBERS, Columns
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
}
"""What each number is in the table; COPY converts nothing."""


def rows_of(parts: Sequence[Columns]) -> bytes:
    """The rows, as they go to the server."""
    return b"".join((HEADER, *map(_body, parts), END))


def _body(columns: Columns) -> memoryview:
    """The rows: each one's fixed part, and its texts behind it."""
    fixed, (values, which) = _fixed(columns), _texts(columns.texts)
    sizes = np.diff(values.starts)
    out = np.empty(fixed.size + 4 * which.size + int(sizes[which].sum()), np.uint8)
    postgres_kernels.copy_rows(fixed, which, values.array, values.starts, out)
    return out.data


@lru_cache(maxsize=4)
def _template(width: int) -> NDArray[np.void]:
    """One row's fixed part with all lengths filled in, shape (1,); `width`: bytes of the features."""
    kinds = [_KINDS[name] for name in COLUMNS[:NUMBERS]]
    fields: list[Any] = [("fields", ">i2")]
    for name, kind in zip(COLUMNS, kinds, strict=False):
        fields += [(f"{name}_size", ">i4"), (name, f">{kind}")]
    fields += [("features_size", ">i4"), ("features", np.uint8, (width,))]
    row = np.zeros(1, np.dtype(fields))
    row["fields"], row["features_size"] = len(COLUMNS), width
    for name, kind in zip(COLUMNS, kinds, strict=False):
        row[f"{name}_size"] = int(kind[1])
    return row


def _fixed(columns: Columns) -> NDArray[np.uint8]:
    """What begins every row, shape (n, bytes)."""
    width = columns.features.shape[1] * columns.features.itemsize
    rows = np.repeat(_template(width), len(columns.features))
    for name, column in zip(COLUMNS, columns.numbers, strict=False):
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
_CONNECT = {
    "connect_timeout": 3,
    "tcp_user_timeout": 10_000,  # milliseconds: a server that vanished is noticed, not waited for
    "application_name": "dns-tunnel",
    "options": "-c statement_timeout=60000 -c timezone=UTC",
}

_COPY = f"COPY queries ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
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

    def drop_old(self, before_day: int) -> bool:
        """DETACH … CONCURRENTLY takes no lock that writers or readers wait for."""
        with self._guard("drop old queries", LONG_S):
            with self._alone.connect() as connection:
                _finish_detaching(connection)
                old = sorted(day for day in _attached(connection) if day < before_day)
                for day in old:
                    connection.execute(text(f"ALTER TABLE queries DETACH PARTITION {_name(day)} CONCURRENTLY"))
                _drop_detached(connection)
            with self._writer.begin() as connection:
                connection.execute(delete(BATCHES).where(BATCHES.c.written_at < before_day * DAY_S))
        self._days = frozenset()
        return bool(old)

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
        connection.connection.cursor().copy_expert(_COPY, io.BytesIO(rows_of(parts)), _COPY_BYTES)

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

    def _upsert(self, table: Table) -> Any:
        return insert(table)


def _name(day: int) -> str:
    return f"queries_day_{day}"


def _attached(connection: Connection) -> frozenset[int]:
    """Days that have a partition."""
    statement = text(
        "SELECT substr(relname, 13)::int FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = 'queries'::regclass AND NOT inhdetachpending"
    )
    return frozenset(connection.execute(statement).scalars())


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
        "SELECT oid::regclass::text FROM pg_class WHERE relname ~ '^queries_day_[0-9]+$' AND relkind = 'r'"
        " AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'queries'::regclass)"
        " AND NOT relispartition"
    )
    for name in connection.execute(statement).scalars().all():
        connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
