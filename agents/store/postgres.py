"""The store on Postgres: queries partitioned by day, written by binary COPY, dropped by the day."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Table,
    cast,
    create_engine,
    delete,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import insert

from agents.errors import BatchRefusedError
from agents.store import migrate
from agents.store.base import Store
from agents.store.copying import columns_of, numbers_of, rows_of, texts_of
from agents.store.rows import COLUMNS, Columns
from agents.store.sampling import COLUMNS as SAMPLED
from agents.store.sampling import Found
from agents.store.tables import BATCHES, DAY_S
from agents.types import Verdicts

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
        super().__init__(create_engine(url, connect_args=_CONNECT, pool_pre_ping=True, pool_timeout=5))
        self._alone = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._days: frozenset[int] = frozenset()

    def migrate(self) -> None:
        with self._guard("open the database"), self._writer.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
            migrate.upgrade(connection)

    def write(self, verdicts: Verdicts, batch_id: str) -> int:
        try:
            return super().write(verdicts, batch_id)
        except BatchRefusedError:
            if not self._days:
                raise
        # Another process may have dropped a day that this one remembers: look again, once.
        self._days = frozenset()
        return super().write(verdicts, batch_id)

    def drop_old(self, before_day: int) -> bool:
        """DETACH … CONCURRENTLY takes no lock that writers or readers wait for."""
        with self._guard("drop old queries"):
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

    def _insert(self, connection: Connection, columns: Columns) -> None:
        connection.connection.cursor().copy_expert(_COPY, io.BytesIO(rows_of(columns)), _COPY_BYTES)

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

    def _floor(self, value: ColumnElement[float]) -> ColumnElement[int]:
        return cast(func.floor(value), BigInteger)


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
    """Made apart and attached: unlike CREATE … PARTITION OF, that lets readers and writers go on."""
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
