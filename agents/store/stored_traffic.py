"""Stored queries as batches again, in time order: all of a time, or those of some clients where there are too many."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from sqlalchemy import and_, func, or_, select

from agents.core.types import UNKNOWN, QueryBatch
from agents.dns.name import wires_of
from agents.store.rows import INCIDENTS, QUERIES
from agents.store.sql import LIVE, LONG_S, MERGED_S, Database, between

PAGE_ROWS = 20_000
"""Rows of a batch. Each is read on its own: no transaction stays open while they are judged."""
NAMED_MAX = 500
"""Clients that a statement names; of more, all rows are read, and others left out here."""
_Q, _I = QUERIES.c, INCIDENTS.c
_READ = (
    _Q.id,
    _Q.ts,
    _Q.client,
    _Q.qname,
    _Q.qtype,
    _Q.qlen,
    _Q.rcode,
    _Q.ancount,
    _Q.rlen,
    _Q.ttl_min,
    _Q.rtt_ms,
    _Q.ans_types,
    _Q.cached,
)


@dataclass(frozen=True)
class StoredTraffic:
    """Live queries with since <= ts < until, Unix seconds. clients: None = of all. share: of the stored ones, 0..1.

    loud: clients that had incidents, which are read first. quiet_share: of the others' queries, 0..1. What the store
    does not keep is unknown: hashes and sizes of answers' data.
    """

    store: Database
    since: float
    until: float
    clients: frozenset[str] | None
    share: float
    rows_max: int
    loud: frozenset[str] = frozenset()
    quiet_share: float = 1.0
    total: int = 0  # stored queries of the time

    def stands_for(self, client: str) -> float:
        """How many clients one that was read stands for."""
        quiet = self.clients is not None and client in self.clients and client not in self.loud
        return 1 / max(self.quiet_share, 1e-9) if quiet else 1.0

    def batches(self) -> Iterator[QueryBatch]:
        """In time order, at most `rows_max` queries. Raises StoreError."""
        left = self.rows_max
        for rows in self._pages() if self.clients is None else self._slices(self.clients):
            kept = rows[:left]
            left -= len(kept)
            if kept:
                yield _batch(kept)
            if left <= 0:
                return

    def _pages(self) -> Iterator[Sequence[Any]]:
        """All rows, a page at a time, as the index of times has them."""
        after = (-math.inf, -1)
        while True:
            ts, row_id = after
            further = [] if row_id < 0 else [_Q.ts >= ts, or_(_Q.ts > ts, and_(_Q.ts == ts, _Q.id > row_id))]
            page = select(*_READ).where(LIVE, *between(self.since, self.until), *further).order_by(_Q.ts, _Q.id)
            with self.store.reading("read stored queries", MERGED_S) as connection:
                rows = connection.execute(page.limit(PAGE_ROWS)).all()
            if not rows:
                return
            after = rows[-1].ts, rows[-1].id
            yield rows

    def _slices(self, clients: frozenset[str]) -> Iterator[Sequence[Any]]:
        """Rows of some clients, a slice of time at a time: pages by limit would be sorted whole, again and again."""
        named = [_Q.client.in_(sorted(clients))] if len(clients) <= NAMED_MAX else []
        count = max(1, -(-self.total // PAGE_ROWS))
        edges = np.linspace(self.since, self.until, count + 1).tolist()
        for begin, end in pairwise(edges):
            rows_of = select(*_READ).where(LIVE, *between(begin, end), *named).order_by(_Q.ts, _Q.id)
            with self.store.reading("read stored queries", MERGED_S) as connection:
                found = connection.execute(rows_of).all()
            rows = [row for row in found if row.client in clients]
            for at in range(0, len(rows), PAGE_ROWS):
                yield rows[at : at + PAGE_ROWS]


def stored_traffic(store: Database, since: float, until: float, rows_max: int) -> StoredTraffic:
    """The traffic of a time, at most `rows_max` queries. Raises StoreError.

    Whole clients are left out where there are more: a flow of which half is missing says nothing. Clients with
    incidents are taken first, then others by a hash of their address.
    """
    conditions = [LIVE, *between(since, until)]
    counting = select(_Q.client, func.count()).where(*conditions).group_by(_Q.client)
    seen = select(_I.client).where(_I.source == "", _I.last_seen >= since).distinct()
    with store.reading("count stored queries", LONG_S) as connection:
        counts = {client: int(count) for client, count in connection.execute(counting)}
        loud = set(connection.execute(seen).scalars()) & counts.keys()
    total = sum(counts.values())
    if total <= rows_max:
        return StoredTraffic(store, since, until, None, 1.0, rows_max)
    chosen, rows = set[str](), 0
    for client in sorted(counts, key=lambda one: (one not in loud, _hash(one))):
        if not chosen or rows + counts[client] <= rows_max:
            chosen.add(client)
            rows += counts[client]
    quiet = [client for client in counts if client not in loud]
    all_quiet, read_quiet = (sum(counts[one] for one in quiet if one in some) for some in (counts, chosen))
    share, quiet_share = min(rows, rows_max) / total, read_quiet / all_quiet if read_quiet else 1.0
    return StoredTraffic(store, since, until, frozenset(chosen), share, rows_max, frozenset(loud), quiet_share, total)


def _hash(client: str) -> bytes:
    return hashlib.sha256(client.encode("utf-8", "surrogatepass")).digest()


def _batch(rows: Sequence[Any]) -> QueryBatch:
    def column(name: str, kind: Any) -> Any:
        return np.array([getattr(row, name) for row in rows], kind)

    rtt = [math.nan if row.rtt_ms is None else row.rtt_ms for row in rows]
    return QueryBatch(
        ts=column("ts", np.float64),
        client=[row.client for row in rows],
        qname=wires_of([row.qname for row in rows]),
        qtype=column("qtype", np.uint16),
        qlen=column("qlen", np.int32),
        rcode=column("rcode", np.int16),
        ancount=column("ancount", np.int32),
        rlen=column("rlen", np.int32),
        ttl_min=column("ttl_min", np.int64),
        rtt_ms=np.array(rtt, np.float32),
        ans_types=[row.ans_types for row in rows],
        cached=column("cached", np.int8) if rows else np.full(0, UNKNOWN, np.int8),
    )
