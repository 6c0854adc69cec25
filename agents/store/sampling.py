"""The training sample, drawn in the database without sorting a table.

Every row carries a random number, `rnd`, and NORMAL rows are indexed by (day, rnd). A day is read
from a random start upwards and, at the end, from the bottom on: random order at the price of an index range.
The days take turns, so that each gives the same share, and a day with too few leaves its share to the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import ColumnElement, Connection, Row, and_, func, literal_column, or_, select

from agents.store.reads import between
from agents.store.rows import RND_MAX
from agents.store.tables import QUERIES
from agents.types import Sample

TURNS = 8
"""Turns in which a day gives its share: more of them spread a busy client better over the days."""
CHUNK_MIN = 256
"""Fewest rows that one statement asks for."""
LOOKED_AT_MAX = 20
"""Rows looked at for each one wanted: where few clients ask nearly all, their caps refuse most."""

_Q = QUERIES.c
_NORMAL = _Q.severity == literal_column("0")  # a literal, or SQLite would not see that the partial index fits


_Found = Row[int, int, float, str, str, str, bytes]


@dataclass(frozen=True, slots=True)
class Wanted:
    """NORMAL, score < max_score, since <= ts < until; shares are of `limit`."""

    since: float
    until: float
    limit: int
    max_score: float
    client_share: float
    domain_share: float
    seed: int


@dataclass(slots=True)
class _Caps:
    """What one client and one domain may still give."""

    client_max: int
    domain_max: int
    clients: Counter[str] = field(default_factory=Counter)
    domains: Counter[str] = field(default_factory=Counter)

    def take(self, row: _Found) -> bool:
        if self.clients[row.client] >= self.client_max or self.domains[row.domain] >= self.domain_max:
            return False
        self.clients[row.client] += 1
        self.domains[row.domain] += 1
        return True


def sample(connection: Connection, wanted: Wanted) -> Sample:
    """At most `limit` queries, oldest first; the same for the same seed and rows."""
    conditions = [_NORMAL, _Q.score < wanted.max_score, *between(wanted.since, wanted.until)]
    days = _days(connection, conditions)
    width = _width(connection, conditions)
    if not days or not width:
        return _sample_of([], 0)
    conditions.append(func.length(_Q.features) == width)
    step = max(1, -(-wanted.limit // (len(days) * TURNS)))
    draws = [_draw(connection, conditions, day, wanted.seed, max(CHUNK_MIN, 2 * step)) for day in days]
    return _sample_of(_turns(draws, wanted, step), width)


def _days(connection: Connection, conditions: list[ColumnElement[bool]]) -> list[int]:
    """Days that have such rows: one look at the index for each, not a scan."""
    days: list[int] = []
    following: list[ColumnElement[bool]] = []
    while True:
        statement = select(_Q.day).where(*conditions, *following).order_by(_Q.day).limit(1)
        day = connection.execute(statement).scalar()
        if day is None:
            return days
        days.append(day)
        following = [_Q.day > day]


def _width(connection: Connection, conditions: list[ColumnElement[bool]]) -> int:
    """Bytes of the newest row's features: rows of an older feature table are of another length."""
    statement = select(func.length(_Q.features)).where(*conditions).order_by(_Q.ts.desc(), _Q.id.desc()).limit(1)
    return connection.execute(statement).scalar() or 0


def _draw(
    connection: Connection, conditions: list[ColumnElement[bool]], day: int, seed: int, chunk: int
) -> Iterator[_Found]:
    """A day's rows from a random start, round to it again."""
    start = int.from_bytes(hashlib.sha256(f"{seed}|{day}".encode()).digest()[:4], "big") % (RND_MAX + 1)
    columns = (_Q.id, _Q.rnd, _Q.ts, _Q.client, _Q.qname, _Q.domain, _Q.features)
    for half in (_Q.rnd >= start, _Q.rnd < start):
        following: list[ColumnElement[bool]] = []
        while True:
            statement = select(*columns).where(_Q.day == day, half, *conditions, *following)
            rows = connection.execute(statement.order_by(_Q.rnd, _Q.id).limit(chunk)).all()
            yield from rows
            if len(rows) < chunk:
                break
            last = rows[-1]
            following = [and_(_Q.rnd >= last.rnd, or_(_Q.rnd > last.rnd, _Q.id > last.id))]


def _turns(draws: list[Iterator[_Found]], wanted: Wanted, step: int) -> list[_Found]:
    caps = _Caps(max(1, int(wanted.client_share * wanted.limit)), max(1, int(wanted.domain_share * wanted.limit)))
    taken: list[_Found] = []
    left = LOOKED_AT_MAX * wanted.limit
    while draws and left > 0 and len(taken) < wanted.limit:
        going = []
        for draw in draws:
            looked, some = _some(draw, min(step, wanted.limit - len(taken)), left, caps)
            taken += some
            left -= looked
            if looked:
                going.append(draw)
        draws = going
    return taken


def _some(draw: Iterator[_Found], count: int, left: int, caps: _Caps) -> tuple[int, list[_Found]]:
    """Up to `count` rows that the caps let through: (rows looked at, rows taken)."""
    looked = 0
    taken: list[_Found] = []
    while len(taken) < count and looked < left:
        row = next(draw, None)
        if row is None:
            break
        looked += 1
        if caps.take(row):
            taken.append(row)
    return looked, taken


def _sample_of(rows: list[_Found], width: int) -> Sample:
    rows = sorted(rows, key=lambda row: (row.ts, row.id))
    flat = np.frombuffer(b"".join(bytes(row.features) for row in rows), dtype="<f4")
    return Sample(
        ts=np.array([row.ts for row in rows], dtype=np.float64),
        client=[row.client for row in rows],
        qname=[row.qname for row in rows],
        domain=[row.domain for row in rows],
        features=flat.reshape(len(rows), width // 4).astype(np.float32),
    )
