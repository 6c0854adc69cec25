"""Reads sums of queries: of hours and days that are summed up from their tables, of the rest from the queries.

A span's whole hours before `sums_state(…).until` are read as sums, its ends are counted. Questions about the whole
network over long spans read sums of days in between.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Select,
    Subquery,
    Table,
    Text,
    case,
    cast,
    desc,
    distinct,
    func,
    literal,
    or_,
    select,
    union_all,
)

from agents.dns.message import rcode_number
from agents.store.console.summing import counts_in, sums_state
from agents.store.console.tables import CLIENT_DAYS, DOMAIN_DAYS, QUERY_HOURS, QUERY_PAIRS
from agents.store.rows import HOUR_S, QUERIES
from agents.store.sql import LIVE, between

DAYS_FROM_H = 48
"""A span of the whole network with more whole hours than this is read as sums of days."""
_Q, _H = QUERIES.c, QUERY_HOURS.c
_FAILED = case((_Q.rcode == rcode_number("NXDOMAIN"), 1), else_=0)
Which = Callable[[Any], Sequence[ColumnElement[bool]]]
"""Conditions on client and domain, of whatever table has both columns."""


def everything(columns: Any) -> Sequence[ColumnElement[bool]]:
    """No condition."""
    return ()


class SpanParts(NamedTuple):
    """A span: hours first <= hour < last are sums; the rest are counted. Unix seconds."""

    first: int
    last: int
    counted: Sequence[tuple[float, float]]


def parts_of_span(since: float, until: float, summed_until: int) -> SpanParts:
    """How a span is read, where all hours before one are summed up."""
    low, high = max(since, 0.0), max(min(until, 2.0**40), 0.0)
    first, last = math.ceil(low / HOUR_S), min(math.floor(high / HOUR_S), summed_until)
    if first >= last:
        return SpanParts(0, 0, [(since, until)])
    spans = [(since, float(first * HOUR_S)), (float(last * HOUR_S), until)]
    return SpanParts(first, last, [(begin, end) for begin, end in spans if begin < end])


def flows(parts: SpanParts, which: Which = everything, counted: Sequence[ColumnElement[bool]] = (LIVE,)) -> Subquery:
    """What each client asked below each domain in each hour of a span.

    counted: further conditions on queries that are counted, where sums are not read.
    """
    hour = cast(func.floor(_Q.ts / HOUR_S), Integer)
    key = hour.label("hour"), _Q.client, _Q.domain
    selects: list[Select[Any]] = []
    for begin, end in parts.counted:
        one = select(
            *key,
            func.count().label("queries"),
            func.sum(_FAILED).label("failed"),
            *(func.sum(case((_Q.severity == level, 1), else_=0)) for level in (1, 2, 3)),
            func.max(_Q.severity),
            func.max(_Q.rlen),
            func.min(_Q.ts),
            func.max(_Q.ts),
            literal("", Text),
        )
        selects.append(one.where(*between(begin, end), *counted, *which(_Q)).group_by(hour, _Q.client, _Q.domain))
    if parts.first < parts.last:
        sums = select(
            _H.hour, _H.client, _H.domain, _H.queries, _H.failed, _H.suspicious, _H.high, _H.critical, _H.severity,
            _H.largest, _H.first_seen, _H.last_seen, _H.types,
        )  # fmt: skip
        selects.append(sums.where(_H.hour >= parts.first, _H.hour < parts.last, *which(_H)))
    return _named(union_all(*selects).subquery(), _FLOW)


_FLOW = (
    "hour", "client", "domain", "queries", "failed", "suspicious", "high", "critical", "severity", "largest",
    "first_seen", "last_seen", "types",
)  # fmt: skip


def _named(rows: FromClause, names: Sequence[str]) -> Subquery:
    return select(*(column.label(name) for column, name in zip(rows.c, names, strict=True))).subquery()


class FlowTotals:
    """Sums of the flows of one client or domain."""

    def __init__(self) -> None:
        self.queries = self.failed = 0
        self.first_seen: float | None = None
        self.last_seen: float | None = None
        self.levels: Counter[int] = Counter()
        self.types: Counter[int] = Counter()
        self.hours: dict[int, list[int]] = {}
        self.others: dict[str, list[int]] = {}


def totals(
    connection: Connection, parts: SpanParts, which: Which, other: str, counted: Sequence[ColumnElement[bool]]
) -> FlowTotals:
    """The sums. other: the column whose values are told apart."""
    flow, found = flows(parts, which, counted).c, FlowTotals()
    columns = (flow.queries, flow.failed, flow.suspicious, flow.high, flow.critical)
    times = func.min(flow.first_seen), func.max(flow.last_seen)
    hours = select(flow.hour, func.max(flow.severity), *times, *map(func.sum, columns)).group_by(flow.hour)
    for hour, severity, first, last, queries, failed, suspicious, high, critical in connection.execute(hours):
        found.hours[hour] = [int(queries), severity]
        found.queries += int(queries)
        found.failed += int(failed)
        found.levels.update({1: int(suspicious), 2: int(high), 3: int(critical)})
        found.levels[0] += int(queries - suspicious - high - critical)
        found.first_seen = first if found.first_seen is None else min(found.first_seen, first)
        found.last_seen = last if found.last_seen is None else max(found.last_seen, last)
    others = select(flow[other], func.sum(flow.queries), func.max(flow.severity)).group_by(flow[other])
    found.others = {name: [int(queries), level] for name, queries, level in connection.execute(others)}
    texts = select(flow.types, func.count()).group_by(flow.types)
    for text, times_over in connection.execute(texts):
        found.types.update({qtype: count * times_over for qtype, count in counts_in(text)})
    for begin, end in parts.counted:
        kinds = select(_Q.qtype, func.count()).where(*between(begin, end), *counted, *which(_Q)).group_by(_Q.qtype)
        found.types.update({int(qtype): int(count) for qtype, count in connection.execute(kinds)})
    return found


def by_client(connection: Connection, since: float, until: float, limit: int) -> list[Any]:
    """Clients with client, queries, domains, severity, last_seen: those with most queries first."""
    parts = parts_of_span(since, until, sums_state(connection).until)
    return _grouped(connection, parts, CLIENT_DAYS, "client", lambda one: (desc(one.queries), one.client), limit)


Order = Callable[[Any], Sequence[Any]]
Having = Callable[[Any], ColumnElement[bool]] | None
"""What rows of sums are ordered and narrowed by: from their columns."""


def by_domain(
    connection: Connection,
    since: float,
    until: float,
    order: Order,
    limit: int,
    having: Having = None,
    among: Sequence[str] | None = None,
) -> list[Any]:
    """Domains with domain, queries, clients, severity, last_seen, failed, in an order."""
    parts = parts_of_span(since, until, sums_state(connection).until)

    def which(columns: Any) -> Sequence[ColumnElement[bool]]:
        return () if among is None else (columns.domain.in_(list(among)),)

    return _grouped(connection, parts, DOMAIN_DAYS, "domain", order, limit, having, which)


def _grouped(
    connection: Connection,
    parts: SpanParts,
    days: Table,
    key: str,
    order: Order,
    limit: int,
    having: Having = None,
    which: Which = everything,
) -> list[Any]:
    """Clients or domains; `others` are the domains or clients of each."""
    if parts.last - parts.first <= DAYS_FROM_H:
        flow = flows(parts, which).c
        totals = _summed(flow, key, func.count(distinct(flow.domain if key == "client" else flow.client)))
    else:
        totals = _over_days(parts, days, key, which)
    rows = totals.subquery().c
    statement = select(rows[key], rows.queries, rows.others, rows.severity, rows.last_seen, rows.failed)
    statement = statement if having is None else statement.where(having(rows))
    return list(connection.execute(statement.order_by(*order(rows)).limit(limit)).all())


def _summed(flow: Any, key: str, others: ColumnElement[int]) -> Select[Any]:
    sums = func.sum(flow.queries).label("queries"), others.label("others"), func.max(flow.severity).label("severity")
    more = func.max(flow.last_seen).label("last_seen"), func.sum(flow.failed).label("failed")
    return select(flow[key], *sums, *more).group_by(flow[key])


def _over_days(parts: SpanParts, days: Table, key: str, which: Which) -> Select[Any]:
    """The same over many days. Others are counted by pairs; those that are new since the last full day are missing."""
    first, last = -(-parts.first // 24), parts.last // 24
    ends = SpanParts(parts.first, first * 24, parts.counted), SpanParts(last * 24, parts.last, ())
    day = days.c
    wanted = (day.day >= first, day.day < last)
    among = which(day) if key == "domain" else ()
    sums = [select(day[key], day.queries, day.severity, day.last_seen, day.failed, day.others).where(*wanted, *among)]
    for one in ends:
        if one.counted or one.first < one.last:
            flow = flows(one, which).c
            there = func.count(distinct(flow.domain if key == "client" else flow.client))
            end = _summed(flow, key, there).subquery().c
            sums.append(select(end[key], end.queries, end.severity, end.last_seen, end.failed, end.others))
    rows = _named(union_all(*sums).subquery(), (key, "queries", "severity", "last_seen", "failed", "others")).c
    since = min([begin for begin, _ in parts.counted] + [float(parts.first * HOUR_S)])
    until = max([end for _, end in parts.counted] + [float(parts.last * HOUR_S)])
    pair = QUERY_PAIRS.c
    seen = select(pair[key], func.count().label("others")).where(pair.last_seen >= since, pair.first_seen < until)
    counts = seen.group_by(pair[key]).subquery().c
    at_least = func.max(rows.others)
    others = case((func.max(counts.others) > at_least, func.max(counts.others)), else_=at_least)
    joined = _summed(rows, key, others)
    return joined.select_from(rows.queries.table.outerjoin(counts.others.table, counts[key] == rows[key]))


def largest_flows(
    connection: Connection, since: float, until: float, limit: int
) -> list[tuple[list[ColumnElement[bool]], float, float]]:
    """Where the `limit` largest answers of a span are: conditions on queries, and a span of time, of each place.

    A flow's largest answer is one of them, so that none is smaller than the smallest of the `limit` largest flows'.
    """
    parts = parts_of_span(since, until, sums_state(connection).until)
    found: list[tuple[list[ColumnElement[bool]], float, float]] = [([], *span) for span in parts.counted]
    if parts.first >= parts.last:
        return found
    wanted = [_H.hour >= parts.first, _H.hour < parts.last]
    first, last = -(-parts.first // 24), parts.last // 24
    if last - first > 1:  # days say below which limit no hour needs to be looked at
        days = DOMAIN_DAYS.c
        of_days = select(days.largest).where(days.day >= first, days.day < last).order_by(desc(days.largest))
        least = connection.execute(of_days.offset(limit - 1).limit(1)).scalar() or 0
        of_day = select(days.domain).where(days.day >= first, days.day < last, days.largest >= least).distinct()
        ends = or_(_H.hour < first * 24, _H.hour >= last * 24)
        wanted += [_H.largest >= least, or_(ends, _H.domain.in_(of_day))]
    rows = select(_H.hour, _H.client, _H.domain, _H.largest).where(*wanted).order_by(desc(_H.largest)).limit(limit)
    flows = connection.execute(rows).all()
    large = [_Q.rlen >= flows[-1].largest] if len(flows) == limit else []
    for hour, client, domain, _ in flows:
        conditions = [_Q.client == client, _Q.domain == domain, *large]
        found.append((conditions, float(hour * HOUR_S), float((hour + 1) * HOUR_S)))
    return found
