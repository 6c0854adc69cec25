"""Hunting in stored queries: a search over all history, clients, domains, an analyst's questions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, desc, distinct, exists, func, or_, select, union

from agents.core.types import HOUR_S, Severity, clean
from agents.store.console.at_flows import rows_at
from agents.store.console.finding import EXPORT_PAGE
from agents.store.console.searching import Found, below, searched
from agents.store.console.summing import OFTEN_S, QuerySums, sums_state
from agents.store.console.sums import (
    FlowTotals,
    Grouped,
    Having,
    Order,
    SpanParts,
    by_client,
    by_domain,
    largest_flows,
    parts_of_span,
    rarest_domains,
    totals,
)
from agents.store.console.tables import QUERY_DOMAINS, QUERY_HOURS, QUERY_NAMES, QUERY_PAIRS
from agents.store.console.terms import Terms, registered_of
from agents.store.rows import QUERIES, stored_query_json
from agents.store.sql import LIVE, Database, Filter, between, rows_of

NEW_MAX, NEW_OF_ALL_MAX = 1_000, 5_000
"""New domains of a span that are looked at: of a client, and of the network."""
TOP = 20
"""Types and names of a summary, each, at most; domains or clients, unless more are asked for."""
NAMES_OF = 10_000
"""Newest queries of a client among which its names are counted."""
_Q, _H, _D, _N, _P = QUERIES.c, QUERY_HOURS.c, QUERY_DOMAINS.c, QUERY_NAMES.c, QUERY_PAIRS.c


class Hunter:
    """Questions about stored queries. Every method raises StoreError."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._sums = QuerySums(store)

    def search(
        self,
        terms: Terms,
        *,
        severity: Sequence[int] = (),
        source: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> Found:
        """One page of queries. severity: these alone; source: mark of a replay, "" = what was seen live."""
        with self._store.reading("search queries") as connection:
            return searched(connection, terms, severity, source, limit, cursor)

    def search_all(
        self, terms: Terms, *, severity: Sequence[int] = (), source: str | None = None, most: int = EXPORT_PAGE
    ) -> Iterator[Mapping[str, Any]]:
        """All queries that `search` finds, page by page, however long that takes. most: that are wanted, if fewer."""
        cursor: str | None = None
        while True:
            found = self.search(terms, severity=severity, source=source, limit=min(most, EXPORT_PAGE), cursor=cursor)
            yield from found.queries
            if (cursor := found.cursor) is None:
                return

    def sum_up(self, hours: int = 1_000_000) -> int:
        """Sum up at most so many hours that are over, so that pages are quick; how many there were."""
        return self._sums.catch_up(time.time(), hours)

    def client(
        self, client: str, since: float, until: float, source: str = "", *, limit: int = TOP, offset: int = 0
    ) -> dict[str, Any]:
        """What one client did: counts, domains, types, hours. source: mark of a replay; "" = what was seen live.

        limit: domains, those with the loudest severity first; offset: so many before are passed over.
        """
        name = clean(client)
        with self._store.reading("read a client") as connection:
            counted = _counted(_Q.client == name, source)
            parts = parts_of_span(since, until, 0 if source else sums_state(connection).until)
            found = totals(connection, parts, lambda columns: [columns.client == name], "domain", counted)
            lately = select(func.lower(_Q.qname)).where(_Q.client == name, *between(since, until), *_seen(source))
            newest = lately.order_by(desc(_Q.ts)).limit(NAMES_OF).subquery()
            names = connection.execute(select(func.count(distinct(newest.c[0])))).scalar_one()
        return _summary(found, int(names), limit, offset)

    def domain(
        self, domain: str, since: float, until: float, source: str = "", *, limit: int = TOP, offset: int = 0
    ) -> dict[str, Any]:
        """What was asked below one domain: counts, clients (limit and offset are of these), types, hours, names."""
        registered = registered_of(domain)
        with self._store.reading("read a domain") as connection:
            mine = (below(domain), *between(since, until), *_seen(source))
            lately = select(_Q.qname).where(*mine).order_by(desc(_Q.ts)).limit(500)
            names = list(dict.fromkeys(connection.execute(lately).scalars()))[:TOP]
            summed = 0 if source or registered != domain else sums_state(connection).until
            parts = parts_of_span(since, until, summed)
            counted = _counted(below(domain), source)
            found = totals(connection, parts, lambda columns: [columns.domain == clean(registered)], "client", counted)
            known = _names_below(connection, clean(registered), parts, (since, until), counted)
        return _summary(found, known, limit, offset) | {"names": names}

    def first_seen(self, domains: Sequence[str]) -> dict[str, float]:
        """When the oldest stored live query below each was asked; a domain without one is missing."""
        found = {}
        with self._store.reading("read when domains were first seen") as connection:
            summed = sums_state(connection).until * HOUR_S
            named = [clean(one) for one in domains]
            rows = connection.execute(select(_D.domain, _D.first_seen).where(_D.domain.in_(named)))
            known = {row.domain: float(row.first_seen) for row in rows}
            for domain in domains:
                at = known.get(clean(domain))
                if at is None:
                    since = summed if registered_of(domain) == domain else None
                    first = select(func.min(_Q.ts)).where(below(domain), *between(since, None), LIVE)
                    at = connection.execute(first).scalar()
                if at is not None:
                    found[domain] = float(at)
        return found

    def new_domains(self, client: str, since: float, until: float) -> list[str]:
        """Domains that this client asked for in a span, and nobody before it."""
        name = clean(client)
        with self._store.reading("read a client's domains") as connection:
            domains = _unknown_before(connection, since, until, NEW_MAX, name)
        first = self.first_seen(domains)
        return sorted(domains, key=lambda one: -first.get(one, 0.0))

    def clients(self, since: float, until: float, limit: int = 100, offset: int = 0) -> list[dict[str, Any]]:
        """Clients by number of queries, with their domains and loudest severity; the first `offset` passed over."""
        with self._store.reading("read clients") as connection:
            rows = by_client(connection, since, until, limit, offset)
        return [_told(row, client=row.name, domains=int(row.others)) for row in rows]

    def loudest(self, since: float, until: float, limit: int) -> list[dict[str, Any]]:
        """Domains by their loudest severity, then by number of queries, with their clients."""
        return self._domains(since, until, lambda one: (desc(one.severity), desc(one.queries), one.domain), limit)

    def rarest(self, since: float, until: float, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """Domains below which the fewest clients asked, then the fewest queries; the first `offset` passed over."""
        with self._store.reading("read domains") as connection:
            rows = rarest_domains(connection, since, until, offset + limit)
        return list(map(_domain_told, rows[offset:]))

    def new(self, since: float, until: float, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """Domains of which no earlier query is stored, those with most queries first; `offset` as of rarest.

        Of more than NEW_OF_ALL_MAX, the ones that were asked for last.
        """
        with self._store.reading("read domains") as connection:
            domains = _unknown_before(connection, since, until, NEW_OF_ALL_MAX)
        found = self._domains(since, until, lambda one: (desc(one.queries), one.domain), limit, offset, among=domains)
        first = self.first_seen([row["domain"] for row in found])
        return [row | {"first_seen": first.get(row["domain"])} for row in found]

    def largest_answers(self, since: float, until: float, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """Queries with the largest answers; the first `offset` passed over."""
        most = offset + limit
        with self._store.reading("read the largest answers") as connection:
            spans, flows, least = largest_flows(connection, since, until, most)
            rows = rows_at(connection, flows, [_Q.rlen >= least], most, desc(_Q.rlen))
            for begin, end in spans:
                wanted = Filter(since=begin, until=end)
                rows += rows_of(connection, wanted, [LIVE], most, None, desc(_Q.rlen))
        rows.sort(key=lambda row: (-row["rlen"], -row["ts"], -row["id"]))
        return [stored_query_json(row) for row in rows[offset:most]]

    def failing(self, since: float, until: float, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """Domains below which most names do not exist (NXDOMAIN), among those asked for ten times and more.

        The first `offset` are passed over.
        """
        return self._domains(
            since,
            until,
            lambda one: (desc(one.failed), one.queries, one.domain),
            limit,
            offset,
            having=lambda one: and_(one.queries >= 10, one.failed > 0),
        )

    def _domains(
        self, since: float, until: float, order: Order, limit: int, offset: int = 0, *, having: Having = None,
        among: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        with self._store.reading("read domains") as connection:
            rows = by_domain(connection, since, until, order, limit, offset, having=having, among=among)
        return list(map(_domain_told, rows))


def _told(row: Grouped, **more: Any) -> dict[str, Any]:
    level = Severity(row.severity).name
    return {**more, "queries": int(row.queries), "severity": level, "last_seen": float(row.last_seen)}


def _domain_told(row: Grouped) -> dict[str, Any]:
    return _told(row, domain=row.name, clients=int(row.others), failed=int(row.failed))


def _counted(which: ColumnElement[bool], source: str) -> list[ColumnElement[bool]]:
    return [which, *_seen(source)]


def _seen(source: str) -> list[ColumnElement[bool]]:
    """Rows of a replay, or those that were seen live."""
    return [~LIVE, _Q.source == clean(source)] if source else [LIVE]


def _summary(found: FlowTotals, names: int, limit: int, offset: int) -> dict[str, Any]:
    """Counts of one client or domain; `others` are its domains or clients."""
    loudest = sorted(found.others.items(), key=lambda one: (-one[1][1], -one[1][0], one[0]))[offset : offset + limit]
    return {
        "queries": found.queries,
        "others_count": len(found.others),
        "names_count": names,
        "failed": found.failed,
        "first_seen": found.first_seen,
        "last_seen": found.last_seen,
        "hours": [(hour * HOUR_S, count, level) for hour, (count, level) in sorted(found.hours.items())],
        "others": [
            {"other": other, "queries": count, "severity": Severity(level).name} for other, (count, level) in loudest
        ],
        "types": found.types.most_common(TOP),
        "severities": {Severity(level).name: count for level, count in sorted(found.levels.items()) if count},
    }


def _names_below(
    connection: Connection,
    domain: str,
    parts: SpanParts,
    span: tuple[float, float],
    counted: Sequence[ColumnElement[bool]],
) -> int:
    """How many names were asked for in a span; one that is asked for in many hours counts as asked for in all."""
    found = set[str]()
    for begin, end in parts.counted:
        asked = select(func.lower(_Q.qname)).where(*between(begin, end), *counted).distinct()
        found.update(connection.execute(asked).scalars())
    if parts.first < parts.last:
        lately = _N.last_seen >= span[0] - OFTEN_S
        known = select(_N.name, _N.hours).where(_N.domain == domain, lately, _N.first_seen < span[1])
        hours = range(parts.first, parts.last)
        rows = connection.execute(known)
        found.update(row.name for row in rows if not row.hours or any(int(one) in hours for one in row.hours.split()))
    return len(found)


def _unknown_before(
    connection: Connection, since: float, until: float, most: int, client: str | None = None
) -> list[str]:
    """Domains that were asked for in a span (by a client), and by nobody before: at most so many, the newest."""
    summed = sums_state(connection).until * HOUR_S
    summed_up = list[str]()
    if since < summed:
        new = select(_D.domain).where(_D.first_seen >= since, _D.first_seen < until)
        if client is not None:
            # Whoever asked for a new domain asked for it first since then: pairs say so, as far as whole days go.
            pairs = select(_P.domain).where(_P.client == client, _P.first_seen < until)
            lately = (_H.client == client, _H.hour >= sums_state(connection).until // 24 * 24, _H.first_seen < until)
            new = new.where(_D.domain.in_(union(pairs, select(_H.domain).where(*lately))))
        summed_up += connection.execute(new.order_by(desc(_D.first_seen), _D.domain).limit(most)).scalars()
    of_client = [] if client is None else [_Q.client == client]
    late = select(_Q.domain).where(*between(max(since, summed), until), LIVE, *of_client).distinct().subquery()
    earlier = QUERIES.alias().c
    known = or_(
        exists().where(_D.domain == late.c.domain, _D.first_seen < since),
        exists().where(earlier.domain == late.c.domain, earlier.ts >= summed, earlier.ts < since, earlier.day >= 0),
    )
    found = list(connection.execute(select(late.c.domain).where(~known).limit(most)).scalars())
    return sorted([*dict.fromkeys([*found, *summed_up])][:most])
