"""Hunting in stored queries: a search over all history that answers in time, clients, domains, an analyst's questions.

A search that no index serves walks back through time in spans, and stops after SEARCH_S: it gives what it has found,
and a cursor from where the next search goes on.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    and_,
    case,
    cast,
    desc,
    distinct,
    exists,
    false,
    func,
    or_,
    select,
)

from agents.core.errors import MessageError
from agents.core.types import DAY_S, Severity, clean
from agents.dns.message import rcode_number, type_number
from agents.store.console.finding import NO_SUCH, matches, severity_number, within
from agents.store.console.terms import Terms, registered_of
from agents.store.rows import QUERIES
from agents.store.sql import LIVE, Filter, Store, between, page_of, position_of

SEARCH_S = 1.5
"""Seconds after which a search gives what it has."""
FIRST_SPAN_S, SPAN_S_MAX = 1_800.0, 30 * DAY_S
"""The first span that a search looks at, and the longest: each is twice as long as the one before, or half."""
CLIENTS_MAX = 10_000
"""Clients of networks that a search is resolved to, at most."""
OF_INCIDENTS = ("state", "label", "assignee", "tool")
"""Keys of a search that no query has."""
NEW_MAX = 1_000
"""New domains of a span that are looked at."""
TOP = 20
"""Domains, clients and names of a summary, each, at most."""
BAR_S = DAY_S // 24
"""Seconds of one bar of a chart of hours."""
_Q = QUERIES.c


@dataclass(frozen=True, slots=True)
class Found:
    """Queries, newest first; `looked_back_to`: when the search stopped, None = at the oldest row."""

    queries: Sequence[Mapping[str, Any]]
    cursor: str | None
    looked_back_to: float | None


class Hunter:
    """Questions about stored queries. Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

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
            conditions = _conditions(connection, terms, severity)
            if terms.clients or (terms.domains and not terms.patterns) or source:  # an index has them in order
                wanted = Filter(since=terms.since, until=terms.until, source=source)
                rows, more = page_of(connection, wanted, conditions, limit, cursor)
                return Found(rows, more, None)
            return _searched(connection, terms, [*conditions, *([] if source is None else [LIVE])], limit, cursor)

    def client(self, client: str, since: float, until: float, source: str = "") -> dict[str, Any]:
        """What one client did: counts, domains, types, hours. source: mark of a replay; "" = what was seen live."""
        return self._summary(_Q.client == clean(client), _Q.domain, since, until, source)

    def domain(self, domain: str, since: float, until: float, source: str = "") -> dict[str, Any]:
        """What was asked below one registered domain: counts, clients, types, hours, names."""
        with self._store.reading("read a domain") as connection:
            below = (_below(domain), *between(since, until), *_seen(source))
            lately = select(_Q.qname).where(*below).order_by(desc(_Q.ts)).limit(500)
            names = list(dict.fromkeys(connection.execute(lately).scalars()))[:TOP]
        return self._summary(_below(domain), _Q.client, since, until, source) | {"names": names}

    def first_seen(self, domains: Sequence[str]) -> dict[str, float]:
        """When the oldest stored live query below each was asked; a domain without one is missing."""
        found = {}
        with self._store.reading("read when domains were first seen") as connection:
            for domain in domains:
                first = select(func.min(_Q.ts)).where(_below(domain), LIVE)
                if (at := connection.execute(first).scalar()) is not None:
                    found[domain] = float(at)
        return found

    def new_domains(self, client: str, since: float, until: float) -> list[str]:
        """Domains that this client asked for in a span, and nobody before it."""
        mine = (_Q.client == clean(client), *between(since, until), LIVE)
        with self._store.reading("read a client's domains") as connection:
            domains = _unknown_before(connection, mine, since)
        first = self.first_seen(domains)
        return sorted(domains, key=lambda one: -first.get(one, 0.0))

    def clients(self, since: float, until: float, limit: int = 100) -> list[dict[str, Any]]:
        """Clients by number of queries, with their domains and loudest severity."""
        columns = (
            _Q.client,
            func.count().label("queries"),
            func.count(distinct(_Q.domain)).label("domains"),
            func.max(_Q.severity).label("severity"),
            func.max(_Q.ts).label("last_seen"),
        )
        statement = select(*columns).where(*between(since, until), LIVE).group_by(_Q.client)
        statement = statement.order_by(desc("queries"), _Q.client).limit(limit)
        with self._store.reading("read clients") as connection:
            return [_named_severity(row) for row in connection.execute(statement).mappings()]

    def rarest(self, since: float, until: float, limit: int = 50) -> list[dict[str, Any]]:
        """Domains below which the fewest clients asked, then the fewest queries."""
        return self._domains(since, until, (func.count(distinct(_Q.client)), func.count()), limit)

    def new(self, since: float, until: float, limit: int = 50) -> list[dict[str, Any]]:
        """Domains of which no earlier query is stored, those with most queries first."""
        with self._store.reading("read domains") as connection:
            domains = _unknown_before(connection, [*between(since, until), LIVE], since)
        found = self._domains(since, until, (desc(func.count()),), limit, among=domains)
        first = self.first_seen([row["domain"] for row in found])
        return [row | {"first_seen": first.get(row["domain"])} for row in found]

    def largest_answers(self, since: float, until: float, limit: int = 50) -> list[dict[str, Any]]:
        """Queries with the largest answers."""
        with self._store.reading("read the largest answers") as connection:
            rows, _ = page_of(connection, Filter(since=since, until=until, source=""), [], limit, None, desc(_Q.rlen))
        return rows

    def failing(self, since: float, until: float, limit: int = 50) -> list[dict[str, Any]]:
        """Domains below which most names do not exist (NXDOMAIN), among those asked for ten times and more."""
        failed = func.sum(case((_Q.rcode == rcode_number("NXDOMAIN"), 1), else_=0))
        return self._domains(
            since, until, (desc(failed), func.count()), limit, having=and_(func.count() >= 10, failed > 0)
        )

    def _domains(
        self,
        since: float,
        until: float,
        order: Sequence[Any],
        limit: int,
        having: ColumnElement[bool] | None = None,
        among: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        failed = func.sum(case((_Q.rcode == rcode_number("NXDOMAIN"), 1), else_=0)).label("failed")
        columns = (
            _Q.domain,
            func.count().label("queries"),
            func.count(distinct(_Q.client)).label("clients"),
            func.max(_Q.severity).label("severity"),
            func.max(_Q.ts).label("last_seen"),
            failed,
        )
        statement = select(*columns).where(*between(since, until), LIVE).group_by(_Q.domain)
        statement = statement.having(having) if having is not None else statement
        statement = statement.where(_Q.domain.in_(list(among))) if among is not None else statement
        with self._store.reading("read domains") as connection:
            found = connection.execute(statement.order_by(*order, _Q.domain).limit(limit)).mappings()
            return [_named_severity(row) for row in found]

    def _summary(
        self, which: ColumnElement[bool], other: Any, since: float, until: float, source: str
    ) -> dict[str, Any]:
        """Counts of one client or domain; `others` are its domains or clients."""
        asked = (which, *between(since, until), *_seen(source))
        failed = func.sum(case((_Q.rcode == rcode_number("NXDOMAIN"), 1), else_=0))
        totals = select(
            func.count(),
            func.count(distinct(other)),
            func.count(distinct(_Q.qname)),
            failed,
            func.min(_Q.ts),
            func.max(_Q.ts),
        ).where(*asked)
        hour = cast(func.floor(_Q.ts / BAR_S), Integer)
        hours = select(hour, func.count(), func.max(_Q.severity)).where(*asked).group_by(hour).order_by(hour)
        others = (
            select(other.label("other"), func.count().label("queries"), func.max(_Q.severity).label("severity"))
            .where(*asked)
            .group_by(other)
            .order_by(desc("severity"), desc("queries"), other)
            .limit(TOP)
        )
        types = select(_Q.qtype, func.count()).where(*asked).group_by(_Q.qtype).order_by(desc(func.count())).limit(TOP)
        levels = select(_Q.severity, func.count()).where(*asked).group_by(_Q.severity)
        with self._store.reading("read a summary") as connection:
            count, width, names, failures, first, last = connection.execute(totals).one()
            return {
                "queries": int(count),
                "others_count": int(width),
                "names_count": int(names),
                "failed": int(failures or 0),
                "first_seen": first,
                "last_seen": last,
                "hours": [
                    (int(at) * BAR_S, int(number), int(level)) for at, number, level in connection.execute(hours)
                ],
                "others": [_named_severity(row) for row in connection.execute(others).mappings()],
                "types": [(int(qtype), int(number)) for qtype, number in connection.execute(types)],
                "severities": {Severity(level).name: int(number) for level, number in connection.execute(levels)},
            }


def _unknown_before(connection: Connection, asked: Sequence[ColumnElement[bool]], since: float) -> list[str]:
    """Domains of these rows of which no live row is older: at most NEW_MAX of them."""
    domains = select(_Q.domain).where(*asked).distinct().subquery()
    earlier = QUERIES.alias()
    known = exists().where(earlier.c.domain == domains.c.domain, earlier.c.ts < since, earlier.c.day >= 0)
    return list(connection.execute(select(domains.c.domain).where(~known).limit(NEW_MAX)).scalars())


def _seen(source: str) -> list[ColumnElement[bool]]:
    """Rows of a replay, or those that were seen live."""
    return [~LIVE, _Q.source == clean(source)] if source else [LIVE]


def _named_severity(row: Any) -> dict[str, Any]:
    return dict(row) | {"severity": Severity(row["severity"]).name}


def _searched(
    connection: Connection, terms: Terms, conditions: Sequence[ColumnElement[bool]], limit: int, cursor: str | None
) -> Found:
    """Walk back in spans until the page is full, all is seen, or the time is up."""
    began, rows = time.monotonic(), list[Mapping[str, Any]]()
    oldest = connection.execute(select(func.min(_Q.ts))).scalar()
    newest = connection.execute(select(func.max(_Q.ts))).scalar()
    if oldest is None or newest is None:
        return Found([], None, None)
    end = position_of(cursor)[0] if cursor else min(terms.until or math.inf, math.nextafter(newest, math.inf))
    bottom = max(oldest, terms.since or -math.inf)
    span = FIRST_SPAN_S
    while (newest := _newest_below(connection, end, cursor if not rows else None)) is not None and newest >= bottom:
        # what lies between is empty: a row with a time far ahead costs one look, not a walk
        end = min(end, math.nextafter(newest, math.inf))
        since, until, asked = max(bottom, end - span), end, time.monotonic()
        wanted = Filter(since=since, until=math.nextafter(until, math.inf) if cursor and not rows else until)
        found, more = page_of(connection, wanted, conditions, limit - len(rows), cursor if not rows else None)
        rows += found
        if more is not None:
            return Found(rows, more, None)
        if len(rows) == limit and since > bottom:  # full, and nothing more in this span
            return Found(rows, f"{since!r}_0", None)
        if time.monotonic() - began > SEARCH_S and since > bottom:
            return Found(rows, f"{since!r}_0", since)
        if since <= bottom:
            break
        quick = time.monotonic() - asked < SEARCH_S / 4
        end, span = since, min(SPAN_S_MAX, span * 2) if quick else max(60.0, span / 2)
    return Found(rows, None, None)


def _newest_below(connection: Connection, end: float, cursor: str | None) -> float | None:
    """The newest time of a row before a time; with a cursor, that time itself may have more rows."""
    before = _Q.ts <= end if cursor else _Q.ts < end
    found = connection.execute(select(func.max(_Q.ts)).where(before)).scalar()
    return None if found is None else float(found)


def _conditions(connection: Connection, terms: Terms, severity: Sequence[int]) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if terms.clients or terms.networks:
        found.append(_Q.client.in_([*terms.clients, *_clients_within(connection, terms.networks)]))
    if terms.domains or terms.patterns:
        found.append(or_(false(), *map(_below, terms.domains), *(matches(_Q.qname, one) for one in terms.patterns)))
    found += [_Q.qname.icontains(word, autoescape=True) for word in terms.words]
    if levels := [*severity, *map(severity_number, terms.of("severity"))]:
        found.append(_Q.severity.in_(levels))
    if any(map(terms.of, OF_INCIDENTS)):
        found.append(false())
    if types := terms.of("type"):
        found.append(_Q.qtype.in_([_number(type_number, one) for one in types]))
    if codes := terms.of("rcode"):
        found.append(_Q.rcode.in_([_number(rcode_number, one) for one in codes]))
    if terms.score_from is not None:
        found.append(_Q.score >= terms.score_from)
    if terms.score_to is not None:
        found.append(_Q.score <= terms.score_to)
    found += [_Q.reasons.icontains(why, autoescape=True) for why in terms.of("why")]
    return found


def _below(name: str) -> ColumnElement[bool]:
    """A name and all below it; a delegation of addresses' names is one below their registered domain."""
    domain = registered_of(name)
    if domain == name:
        return _Q.domain == clean(domain)
    return and_(_Q.domain == clean(domain), or_(_Q.qname.ilike(name), _Q.qname.iendswith("." + name, autoescape=True)))


def _number(read: Callable[[str], int], text: str) -> int:
    """A type or response code by its name; one that there is not has no rows."""
    try:
        return read(text)
    except MessageError:
        return NO_SUCH


def _clients_within(connection: Connection, networks: Sequence[str]) -> list[str]:
    """Stored clients in these networks: one look at the index for each client whose text begins alike, no scan."""
    found: list[str] = []
    for network in networks:
        begins = text_prefix(network)
        last = begins
        while len(found) < CLIENTS_MAX:
            following = connection.execute(select(func.min(_Q.client)).where(_Q.client > last)).scalar()
            if following is None or not following.startswith(begins):
                break
            found += within([following], [network])
            last = following
    return found


def text_prefix(network: str) -> str:
    """How the text of each address of a network begins: its whole octets, or its groups before the first zero."""
    parsed = ipaddress.ip_network(network)
    whole = min(parsed.prefixlen, parsed.max_prefixlen - 1) // (8 if parsed.version == 4 else 16)
    if parsed.version == 4:
        return "".join(f"{part}." for part in str(parsed.network_address).split(".")[:whole])
    groups = [f"{int(group, 16):x}" for group in parsed.network_address.exploded.split(":")[:whole]]
    return "".join(f"{group}:" for group in takewhile(lambda group: group != "0", groups))
