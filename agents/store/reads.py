"""What is read from the store. Each function takes an open connection and leaves errors to the caller."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, desc, func, or_, select

from agents.errors import UsageError
from agents.store.rows import clean, incident_of, query_json
from agents.store.tables import DAY_S, INCIDENTS, QUERIES, RUNS
from agents.types import Incident

_Q = QUERIES.c
_I = INCIDENTS.c
_PAGE = [column for column in _Q if column.name not in {"features", "rnd", "batch_id", "day"}]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows; None or empty = all. `since` <= ts (of an incident: last seen) < `until`, Unix seconds."""

    client: str | None = None
    domain: str | None = None
    severities: Sequence[int] = ()
    since: float | None = None
    until: float | None = None
    open_only: bool = False  # of incidents


def between(since: float | None, until: float | None) -> list[ColumnElement[bool]]:
    """Conditions on ts, and the same on day, by which whole partitions are passed over."""
    conditions: list[ColumnElement[bool]] = []
    if since is not None:
        conditions += [_Q.ts >= since, _Q.day >= _day(since)]
    if until is not None:
        conditions += [_Q.ts < until, _Q.day <= _day(until)]
    return conditions


def rows_of_batch(connection: Connection, batch_id: str, first: float, last: float) -> int:
    """How many rows of a batch there are; all have first <= ts <= last, so that few others are looked at."""
    conditions = [_Q.batch_id == batch_id, _Q.ts <= last, *between(first, None), _Q.day <= _day(last)]
    return int(connection.execute(select(func.count()).select_from(QUERIES).where(*conditions)).scalar_one())


def _day(ts: float) -> int:
    return max(-1, min(math.floor(ts / DAY_S), 2**31 - 1)) if math.isfinite(ts) else (-1 if ts < 0 else 2**31 - 1)


def queries(
    connection: Connection, wanted: Filter, limit: int, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """One page, newest first; rows of one time are ordered by id: none is shown twice or missed."""
    conditions = between(wanted.since, wanted.until) + _named(_Q, wanted)
    if cursor:
        ts, row_id = _position(cursor)
        conditions += [_Q.day <= _day(ts), _Q.ts <= ts, or_(_Q.ts < ts, _Q.id < row_id)]
    statement = select(*_PAGE).where(*conditions).order_by(desc(_Q.ts), desc(_Q.id)).limit(limit + 1)
    rows = connection.execute(statement).mappings().all()
    more = f"{rows[limit - 1]['ts']!r}_{rows[limit - 1]['id']}" if len(rows) > limit else None
    return [query_json(dict(row)) for row in rows[:limit]], more


def _position(cursor: str) -> tuple[float, int]:
    ts, _, row_id = cursor.partition("_")
    try:
        at, last = float(ts), int(row_id)
    except ValueError:
        at, last = math.nan, 0
    if not math.isfinite(at) or not 0 <= last < 2**63:
        raise UsageError("cannot read queries: the cursor is not one that a page gave")
    return at, last


def _named(columns: Any, wanted: Filter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.client is not None:
        conditions.append(columns.client == clean(wanted.client))
    if wanted.domain is not None:
        conditions.append(columns.domain == clean(wanted.domain))
    if wanted.severities:
        conditions.append(columns.severity.in_(list(wanted.severities)))
    return conditions


def incidents(connection: Connection, wanted: Filter, limit: int | None) -> list[Incident]:
    """Last seen first."""
    conditions = _named(_I, wanted)
    if wanted.since is not None:
        conditions.append(_I.last_seen >= wanted.since)
    if wanted.until is not None:
        conditions.append(_I.last_seen < wanted.until)
    if wanted.open_only:
        conditions.append(_I.closed_at.is_(None))
    statement = select(INCIDENTS).where(*conditions).order_by(desc(_I.last_seen), _I.incident_id).limit(limit)
    return [incident_of(dict(row)) for row in connection.execute(statement).mappings()]


def incident_by_id(connection: Connection, incident_id: str) -> Incident | None:
    statement = select(INCIDENTS).where(_I.incident_id == clean(incident_id))
    row = connection.execute(statement).mappings().first()
    return None if row is None else incident_of(dict(row))


def severity_counts(connection: Connection, since: float, until: float) -> dict[int, int]:
    statement = select(_Q.severity, func.count()).where(*between(since, until)).group_by(_Q.severity)
    return dict(connection.execute(statement).all())


def score_histogram(
    connection: Connection,
    since: float,
    until: float,
    bins: int,
    floor: Callable[[ColumnElement[float]], ColumnElement[int]],
) -> list[int]:
    """Counts per bin of 0..1."""
    number = case((_Q.score >= 1, bins - 1), else_=floor(_Q.score * bins)).label("bin")
    statement = select(number, func.count()).where(and_(*between(since, until))).group_by("bin")
    counts = {int(at): count for at, count in connection.execute(statement)}
    return [counts.get(at, 0) for at in range(bins)]


def runs(connection: Connection, limit: int) -> list[dict[str, Any]]:
    statement = select(RUNS).order_by(desc(RUNS.c.started_at), desc(RUNS.c.run_id)).limit(limit)
    return [{**row, "payload": json.loads(row["payload"])} for row in connection.execute(statement).mappings()]
