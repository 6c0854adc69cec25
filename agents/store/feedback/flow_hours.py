"""The feature store: flow-hours, written once, at most so many; of each week a random part stays.

Reservoir sampling by priority (Vitter 1985 samples a stream without its length; a random number a row, kept, gives the
same sample and survives restarts): of each week those rows stay that drew the lowest numbers.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, LargeBinary, delete, func, insert, select

from agents.core.types import clean
from agents.store.feedback.tables import FLOW_HOURS, FLOW_LABELS
from agents.store.rows import RND_MAX
from agents.store.sql import LONG_S, MERGED_S, Database

WEEK_HOURS = 168
CHUNK = 2_000
"""Rows of one statement, and of one transaction that deletes."""
_F, _LABELLED = FLOW_HOURS.c, FLOW_LABELS.c.flow_hour_id
_WEEK = _F.hour // WEEK_HOURS


@dataclass(frozen=True, slots=True)
class FlowHours:
    """n flow-hours of one schema. Columns have length n."""

    schema: int
    hour: NDArray[np.int64]  # hours since 1970-01-01
    client: Sequence[str]
    domain: Sequence[str]
    names: Sequence[tuple[str, ...]]  # sample names, presentation form
    numbers: NDArray[np.float32]  # shape (n, numbers of the schema)
    id: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # of stored ones

    def __len__(self) -> int:
        return len(self.hour)


class FlowHourStore:
    """The flow-hours in a store. Every method raises StoreError.

    Rows of a schema below 0 are shipped ones: no limit and no time ends them.
    """

    def __init__(self, store: Database) -> None:
        self._store = store

    def add(self, rows: FlowHours, fence: tuple[str, int] | None = None) -> None:
        """Write rows; a flow-hour that is there already stays as it is.

        fence: see Verdicts. Raises FencedError where a newer token has written for the slot.
        """
        if not len(rows):
            return
        numbers, draw = np.ascontiguousarray(rows.numbers, "<f4"), np.random.default_rng(secrets.randbits(64))
        values = [
            {
                "hour": int(rows.hour[row]),
                "schema": rows.schema,
                "rnd": int(draw.integers(0, RND_MAX, endpoint=True)),
                "client": clean(rows.client[row]),
                "domain": clean(rows.domain[row]),
                "names": json.dumps(rows.names[row]),
                "numbers": numbers[row].tobytes(),
            }
            for row in range(len(rows))
        ]
        statement = self._store.upsert(FLOW_HOURS).on_conflict_do_nothing()
        with self._store.writing("write flow-hours", MERGED_S) as connection:
            self._store.check_fences(connection, set() if fence is None else {fence})
            for at in range(0, len(values), CHUNK):
                connection.execute(statement, values[at : at + CHUNK])

    def shrink(self, most: int, schema: int) -> int:
        """Delete rows until at most `most` are left; how many there were.

        Rows of other schemas go first. Then the fullest weeks give, until all are equally full or their rows are few.
        """
        with self._store.reading("count flow-hours") as connection:
            over = _count(connection) - most
            if over <= 0:
                return 0
            other = (_F.schema != schema, _F.schema > 0)
            old = connection.execute(select(_F.id).where(*other).order_by(_F.hour).limit(over)).scalars()
            gone = list(old)
            weeks = _excess(_by_week(connection, schema), most) if len(gone) < over else {}
            for week, count in weeks.items():
                first = week * WEEK_HOURS
                wanted = select(_F.id).where(_F.schema == schema, _F.hour.between(first, first + WEEK_HOURS - 1))
                gone += connection.execute(wanted.order_by(_F.rnd.desc(), _F.id).limit(count)).scalars()
        for at in range(0, len(gone), CHUNK):
            with self._store.writing("delete flow-hours", LONG_S) as connection:
                connection.execute(delete(FLOW_LABELS).where(_LABELLED.in_(gone[at : at + CHUNK])))
                connection.execute(delete(FLOW_HOURS).where(_F.id.in_(gone[at : at + CHUNK])))
        return len(gone)

    def forget(self, before: float) -> int:
        """Delete flow-hours of hours that began before that time (Unix seconds); how many there were."""
        old = (_F.hour < before // 3600) & (_F.schema > 0)
        with self._store.writing("delete old flow-hours", LONG_S) as connection:
            connection.execute(delete(FLOW_LABELS).where(_LABELLED.in_(select(_F.id).where(old))))
            return connection.execute(delete(FLOW_HOURS).where(old)).rowcount

    def replace(self, rows: FlowHours, labels: Sequence[str], origin: str, now: float) -> None:
        """Put these rows in the place of all shipped ones, those of earlier schemas among them, each with a certain
        label, in one step. rows: of a schema below 0; now: Unix seconds.
        """
        gone, numbers = select(_F.id).where(_F.schema < 0), np.ascontiguousarray(rows.numbers, "<f4")
        values = [
            {
                "hour": int(rows.hour[row]),
                "schema": rows.schema,
                "rnd": 0,
                "client": clean(rows.client[row]),
                "domain": clean(rows.domain[row]),
                "names": json.dumps(rows.names[row]),
                "numbers": numbers[row].tobytes(),
            }
            for row in range(len(rows))
        ]
        with self._store.writing("replace flow-hours", LONG_S) as connection:
            connection.execute(delete(FLOW_LABELS).where(_LABELLED.in_(gone)))
            connection.execute(delete(FLOW_HOURS).where(_F.schema < 0))
            connection.execute(insert(FLOW_HOURS), values)
            ids = connection.execute(select(_F.id).where(_F.schema == rows.schema).order_by(_F.hour)).scalars().all()
            told = {"origin": origin, "confidence": 1.0, "labelled_at": now}
            pairs = zip(ids, labels, strict=True)
            connection.execute(
                insert(FLOW_LABELS), [told | {"flow_hour_id": one, "label": label} for one, label in pairs]
            )

    def held_bytes(self) -> int:
        """Bytes of all rows' contents, shipped ones among them: without what the database adds."""
        parts = (func.length(_F.numbers), func.length(_F.names), func.length(_F.client), func.length(_F.domain))
        with self._store.reading("measure flow-hours", LONG_S) as connection:
            found = connection.execute(select(*(func.coalesce(func.sum(part), 0) for part in parts))).one()
        return sum(map(int, found))

    def weeks(self, schema: int) -> dict[int, int]:
        """How many rows of a schema each week has, by weeks since 1970-01-01."""
        with self._store.reading("count flow-hours") as connection:
            return _by_week(connection, schema)

    def read(
        self,
        schema: int,
        *,
        since: int = 0,
        until: int = 2**31 - 1,
        client: str | None = None,
        domain: str | None = None,
        limit: int = 200_000,
        newest: bool = False,
        latest: bool = False,
    ) -> FlowHours:
        """Rows of one schema with since <= hour < until, in the order in which they were written, or its reverse.

        latest: those of the latest hours first, in each hour those that were written last.
        """
        wanted = select(FLOW_HOURS).where(_F.schema == schema, _F.hour >= since, _F.hour < until)
        if domain is not None:
            wanted = wanted.where(_F.domain == clean(domain))
        if client is not None:
            wanted = wanted.where(_F.client == clean(client))
        with self._store.reading("read flow-hours", LONG_S) as connection:
            hour = [_F.hour.desc()] if latest else []
            order = [*hour, _F.id.desc() if newest or latest else _F.id]
            rows = connection.execute(wanted.order_by(*order).limit(limit)).all()
        return _of_rows(schema, rows)

    def numbers(
        self, schema: int, columns: Sequence[int], *, since: int, until: int, limit: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids, and some of the numbers, shape (n, len(columns)), of the newest rows with since <= hour < until."""
        cut = [func.substr(_F.numbers, 4 * column + 1, 4, type_=LargeBinary) for column in columns]
        with self._store.reading("read flow-hours") as connection:
            postgres = connection.dialect.name == "postgresql"  # text comes from it ten times as quickly as bytes
            hexed = [func.encode(one, "hex") if postgres else func.hex(one) for one in cut]
            wanted = select(_F.id, *hexed).where(_F.schema == schema, _F.hour >= since, _F.hour < until)
            rows = connection.execute(wanted.order_by(_F.id.desc()).limit(limit)).all()
        ids, *numbers = zip(*rows, strict=True) if rows else ((),) * (len(columns) + 1)
        return np.array(ids, np.int64), np.stack([_floats(one) for one in numbers], axis=1)

    def of(self, schema: int, ids: Sequence[int]) -> FlowHours:
        """Rows by their ids, in this order; one that is gone meanwhile is left out."""
        with self._store.reading("read flow-hours") as connection:
            found = {row.id: row for row in connection.execute(select(FLOW_HOURS).where(_F.id.in_(list(ids))))}
        return _of_rows(schema, [found[one] for one in ids if one in found])


def _floats(hexed: Sequence[str]) -> NDArray[np.float32]:
    return np.frombuffer(bytes.fromhex("".join(hexed)), "<f4")


def _of_rows(schema: int, rows: Sequence[Any]) -> FlowHours:
    width = len(rows[0].numbers) // 4 if rows else 0
    return FlowHours(
        schema=schema,
        hour=np.array([row.hour for row in rows], np.int64),
        client=[row.client for row in rows],
        domain=[row.domain for row in rows],
        names=[tuple(json.loads(row.names)) for row in rows],
        numbers=np.frombuffer(b"".join(row.numbers for row in rows), "<f4").reshape(len(rows), width),
        id=np.array([row.id for row in rows], np.int64),
    )


def _count(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(FLOW_HOURS).where(_F.schema > 0)).scalar_one())


def _by_week(connection: Connection, schema: int) -> dict[int, int]:
    statement = select(_WEEK, func.count()).where(_F.schema == schema).group_by(_WEEK).order_by(_WEEK)
    return {int(week): int(count) for week, count in connection.execute(statement)}


def _excess(counts: dict[int, int], most: int) -> dict[int, int]:
    """How many rows each week must give so that `most` stay: no week keeps more than one that gives."""
    left, share = most, 0
    for number, count in enumerate(sorted(counts.values())):
        share = left // (len(counts) - number)
        if count > share:
            break
        left -= count
    else:
        return {}
    return {week: count - share for week, count in counts.items() if count > share}
