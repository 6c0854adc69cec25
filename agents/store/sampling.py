"""The training sample, drawn in the database without sorting a table.

Every row carries a random number, `rnd`. A day is read from a random start upwards and, at the end, from the bottom
on, in ranges of `rnd` that hold about as many rows as are needed; within a range the order is made here. An index
holds the NORMAL rows with the lowest numbers, one in INDEXED_ONE_IN, which are a sample themselves: where they are
enough, only they are drawn from; else the day is read whole, as it would be with any index.
The days take turns, so that each gives the same share, and a day with too few leaves its share to the others.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Select, func, literal_column, select

from agents.core.columns import Coded, Pieces
from agents.core.types import DAY_S, Sample
from agents.store import sampling_kernels
from agents.store.feedback.labelled import LabelledFlows
from agents.store.rows import QUERIES, RND_MAX, ascii_of
from agents.store.sql import LIVE, between

TURNS = 8
"""Turns in which a day gives its share: more of them spread a busy client better over the days."""
RANGE_ROWS = 256, 1 << 18
"""Fewest and most rows that one statement asks for, about."""
LOOKED_AT_MAX = 20
"""Rows looked at for each one wanted: where few clients ask nearly all, their caps refuse most."""
INDEXED_ONE_IN = 16
"""As in the index that migration 0003 makes."""
INDEXED_ENOUGH = 4
"""Indexed rows there must be for each one wanted. With fewer, a day is at most 64 times what it gives: read it."""
_ALL = RND_MAX + 1
_INDEXED = _ALL // INDEXED_ONE_IN
_COUNTED = _ALL // 128
"""A day's rows are estimated by those with lower numbers than this."""

_Q = QUERIES.c
_NORMAL = _Q.severity == literal_column("0")  # a literal, or SQLite would not see that the partial index fits
_LOW = _Q.rnd < literal_column(str(_INDEXED))
COLUMNS = (_Q.id, _Q.rnd, _Q.ts, _Q.client, _Q.qname, _Q.domain, _Q.features)


class Found(NamedTuple):
    """m rows, by columns in the order of COLUMNS."""

    id: NDArray[np.int64]
    rnd: NDArray[np.int64]
    ts: NDArray[np.float64]
    client: Coded
    qname: Pieces  # ASCII
    domain: Coded
    features: Pieces  # little-endian float32


Fetch = Callable[[Connection, Select[Any]], Found]
"""How a database gives the rows of a statement that selects COLUMNS, in any order."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """NORMAL, score < max_score, since <= ts < until, features of this version; shares are of `limit`."""

    since: float
    until: float
    limit: int
    max_score: float
    client_share: float
    domain_share: float
    features_version: int
    seed: int
    labelled: LabelledFlows = field(default_factory=LabelledFlows)  # their queries are left out


def home_of(client: str) -> str:
    """What has one share: an address, but of IPv6 the /64, in which a host may have any number of them."""
    if ":" not in client:
        return client
    try:
        return str(ipaddress.ip_network(f"{client.partition('%')[0]}/64", strict=False).network_address)
    except ValueError:
        return client


@dataclass(slots=True)
class _Cap:
    """What each client, or each domain, may still give."""

    most: int
    name: Callable[[str], str] = str
    numbers: dict[str, int] = field(default_factory=dict)
    left: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def numbered(self, column: Coded) -> NDArray[np.int64]:
        """The column by this cap's numbers, shape (n,)."""
        numbers = self.numbers
        named = map(self.name, column.values)
        own = np.array([numbers.setdefault(value, len(numbers)) for value in named], np.int64)
        more = np.full(len(numbers) - len(self.left), self.most, np.int64)
        self.left = np.concatenate([self.left, more])
        return own[column.codes]


class _Taken(NamedTuple):
    """Rows for the sample."""

    id: NDArray[np.int64]
    ts: NDArray[np.float64]
    client: NDArray[np.int64]  # by number
    domain: NDArray[np.int64]
    qname: list[str]
    features: NDArray[np.float32]


class _Block(NamedTuple):
    """Rows that are looked at one after the other."""

    found: Found
    order: NDArray[np.int64]  # rows of `found`; the columns below are in this order
    client: NDArray[np.int64]  # by number
    domain: NDArray[np.int64]
    taken: NDArray[np.bool_]


class _Draw:
    """One day's rows in random order, as far as the caps let them through."""

    def __init__(self, blocks: Iterator[Found], clients: _Cap, domains: _Cap, labelled: LabelledFlows) -> None:
        self._blocks, self._clients, self._domains, self._labelled = blocks, clients, domains, labelled
        self._at = self._end = 0
        self.taken: list[_Taken] = []
        self._current: _Block | None = None

    def take(self, count: int, look_max: int) -> tuple[int, int]:
        """Take up to `count` rows: (rows looked at, rows taken)."""
        looked = found = 0
        while found < count and looked < look_max and (self._at < self._end or self._next()):
            assert self._current is not None
            _, _, clients, domains, mask = self._current
            end = min(self._end, self._at + look_max - looked)
            left = self._clients.left, self._domains.left
            at, more = sampling_kernels.take_sample(clients, domains, self._at, end, count - found, *left, mask)
            looked, found, self._at = looked + at - self._at, found + more, at
        return looked, found

    def _next(self) -> bool:
        """Go on with rows that have not been looked at; False where there are no more."""
        self.keep()
        for found in self._blocks:
            order = np.lexsort((found.id, found.rnd))
            order = order[self._labelled.left(found.client, found.domain, found.ts)[order]]
            if not len(order):
                continue
            clients, domains = self._clients.numbered(found.client), self._domains.numbered(found.domain)
            self._current = _Block(found, order, clients[order], domains[order], np.zeros(len(order), np.bool_))
            self._at, self._end = 0, len(order)
            return True
        return False

    def keep(self) -> None:
        """Put aside what was taken of the rows at hand, and let go of the others."""
        if self._current is None:
            return
        found, order, clients, domains, mask = self._current
        rows, self._current = order[mask], None
        if not len(rows):
            return
        features = found.features.take(rows)
        self.taken.append(
            _Taken(
                found.id[rows],
                found.ts[rows],
                clients[mask],
                domains[mask],
                ascii_of(found.qname.take(rows)),
                np.frombuffer(features.data, "<f4").astype(np.float32).reshape(len(rows), -1),
            )
        )


def sample(connection: Connection, wanted: Wanted, fetch: Fetch, shelves: Sequence[int] = ()) -> Sample:
    """At most `limit` live queries, oldest first; the same for the same seed and rows.

    shelves: values of `day` of replays, each of which takes its turn like a day.
    """
    conditions = [_NORMAL, _Q.score < wanted.max_score, _Q.features_version == wanted.features_version]
    conditions += between(wanted.since, wanted.until)
    days = [*days_between(connection, wanted.since, wanted.until), *shelves]
    if not days:
        return _sample_of([], _Cap(0), _Cap(0))
    clients = _Cap(max(1, int(wanted.client_share * wanted.limit)), home_of)
    domains = _Cap(max(1, int(wanted.domain_share * wanted.limit)))
    share = -(-wanted.limit // len(days))
    draws = [
        _Draw(_blocks(connection, conditions, day, wanted, share, fetch), clients, domains, wanted.labelled)
        for day in days
    ]
    _turns(draws, wanted.limit, max(1, -(-share // TURNS)))
    return _sample_of(draws, clients, domains)


def days_between(connection: Connection, since: float, until: float) -> list[int]:
    """Days that have live queries: one look at the index for each, not a scan."""
    days: list[int] = []
    while True:
        statement = select(_Q.ts).where(LIVE, *between(since, until)).order_by(_Q.ts).limit(1)
        ts = connection.execute(statement).scalar()
        if ts is None:
            return days
        days.append(int(ts // DAY_S))
        since = (days[-1] + 1) * DAY_S


def _blocks(
    connection: Connection, conditions: list[ColumnElement[bool]], day: int, wanted: Wanted, share: int, fetch: Fetch
) -> Iterator[Found]:
    """A day's rows, each once: whatever follows in a block is further from the random start."""
    within = [_Q.day == day, *(between(day * DAY_S, (day + 1) * DAY_S) if day >= 0 else ())]
    counting = select(func.count()).where(_Q.day == day, _NORMAL, _LOW, _Q.rnd < _COUNTED)
    there = ((connection.execute(counting).scalar() or 0) + 1) * (_ALL // _COUNTED)
    start = int.from_bytes(hashlib.sha256(f"{wanted.seed}|{day}".encode()).digest()[:4], "big")
    indexed = there // INDEXED_ONE_IN >= INDEXED_ENOUGH * share
    parts = ((0, _INDEXED), (_INDEXED, _ALL)) if indexed else ((0, _ALL),)
    rows = max(RANGE_ROWS[0], share + share // 8)
    for first, end in parts:
        at, size = 0, end - first
        while at < size:
            step = max(1, min(size - at, rows * _ALL // there))
            low = first + (start + at) % size
            for begin, stop in ((low, min(low + step, end)), (first, first + low + step - end)):
                if begin < stop:
                    condition = [_Q.rnd >= begin, _Q.rnd < stop] + ([_LOW] if end == _INDEXED else [])
                    yield fetch(connection, select(*COLUMNS).where(*conditions, *within, *condition))
            at += step
            rows = min(2 * rows, RANGE_ROWS[1])


def _turns(draws: list[_Draw], limit: int, step: int) -> None:
    left, missing, going = LOOKED_AT_MAX * limit, limit, draws
    while going and left > 0 and missing > 0:
        again = []
        for draw in going:
            looked, found = draw.take(min(step, missing), left)
            left, missing = left - looked, missing - found
            if looked:
                again.append(draw)
        going = again


def _sample_of(draws: list[_Draw], clients: _Cap, domains: _Cap) -> Sample:
    for draw in draws:
        draw.keep()
    parts = [part for draw in draws for part in draw.taken]
    if not parts:
        return Sample(np.empty(0), [], [], [], np.empty((0, 0), np.float32))
    ids, ts, client, domain = (np.concatenate([part[column] for part in parts]) for column in range(4))
    order = np.lexsort((ids, ts))
    names = [name for part in parts for name in part.qname]
    return Sample(
        ts=ts[order],
        client=Coded(client[order].astype(np.int32), list(clients.numbers)),
        qname=[names[row] for row in order.tolist()],
        domain=Coded(domain[order].astype(np.int32), list(domains.numbers)),
        features=np.concatenate([part.features for part in parts])[order],
    )
