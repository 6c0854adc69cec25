"""Reads sums of queries: of hours and days that are summed up from their tables, of the rest from the queries.

A span's whole hours before `sums_state(…).until` are read as sums, its ends are counted. Questions about the whole
network over long spans read sums of days in between.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
    and_,
    case,
    cast,
    column,
    desc,
    distinct,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
    values,
)

from agents.core.types import HOUR_S
from agents.dns.message import rcode_number
from agents.store.console.summing import counts_in, sums_state
from agents.store.console.tables import CLIENT_DAYS, DOMAIN_DAYS, QUERY_HOURS, QUERY_PAIRS
from agents.store.rows import QUERIES
from agents.store.sql import LIVE, between

DAYS_FROM_H = 48
"""A span of the whole network with more whole hours than this is read as sums of days."""
WALKED_AT_ONCE = 1_000
"""Domains whose clients are counted in one statement, at most."""
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

    def add(self, queries: int, failed: int, levels: Mapping[int, int], first: float, last: float) -> None:
        """Add sums; levels: how many have which severity above the mildest."""
        self.queries += queries
        self.failed += failed
        self.levels.update(levels)
        self.levels[0] += queries - sum(levels.values())
        self.first_seen = first if self.first_seen is None else min(self.first_seen, first)
        self.last_seen = last if self.last_seen is None else max(self.last_seen, last)

    def add_other(self, name: str, queries: int, level: int) -> None:
        old = self.others.setdefault(name, [0, 0])
        self.others[name] = [old[0] + queries, max(old[1], level)]


def totals(
    connection: Connection, parts: SpanParts, which: Which, other: str, counted: Sequence[ColumnElement[bool]]
) -> FlowTotals:
    """The sums. other: the column whose values are told apart. Days that are whole are read as such."""
    found = FlowTotals()
    whole, ends = _whole_days(parts)
    if whole:
        _add_days(connection, found, whole, which, other)
    for one in ends:
        _add_flows(connection, found, one, which, other, counted)
    return found


def _whole_days(parts: SpanParts) -> tuple[range, list[SpanParts]]:
    """Days of a span of which all hours are summed up, where they are some, and what is left at its ends."""
    days = range(-(-parts.first // 24), parts.last // 24)
    if len(days) < 2:
        return range(0), [parts]
    ends = [SpanParts(parts.first, days.start * 24, parts.counted), SpanParts(days.stop * 24, parts.last, ())]
    return days, [one for one in ends if one.counted or one.first < one.last]


def _add_days(connection: Connection, found: FlowTotals, whole: range, which: Which, other: str) -> None:
    days = CLIENT_DAYS if other == "domain" else DOMAIN_DAYS
    of_days = select(days).where(days.c.day >= whole.start, days.c.day < whole.stop, *which(days.c))
    for row in connection.execute(of_days):
        levels = {1: int(row.suspicious), 2: int(row.high), 3: int(row.critical)}
        found.add(int(row.queries), int(row.failed), levels, row.first_seen, row.last_seen)
        found.types.update(dict(counts_in(row.types)))
    mine = (_H.hour >= whole.start * 24, _H.hour < whole.stop * 24, *which(_H))
    sums = func.sum(_H.queries), func.max(_H.severity)
    for hour, queries, level in connection.execute(select(_H.hour, *sums).where(*mine).group_by(_H.hour)):
        found.hours[hour] = [int(queries), level]
    for name, queries, level in connection.execute(select(_H[other], *sums).where(*mine).group_by(_H[other])):
        found.add_other(name, int(queries), level)


def _add_flows(
    connection: Connection,
    found: FlowTotals,
    parts: SpanParts,
    which: Which,
    other: str,
    counted: Sequence[ColumnElement[bool]],
) -> None:
    flow = flows(parts, which, counted).c
    columns = (flow.queries, flow.failed, flow.suspicious, flow.high, flow.critical)
    times = func.min(flow.first_seen), func.max(flow.last_seen)
    hours = select(flow.hour, func.max(flow.severity), *times, *map(func.sum, columns)).group_by(flow.hour)
    for hour, severity, first, last, queries, failed, suspicious, high, critical in connection.execute(hours):
        found.hours[hour] = [int(queries), severity]
        levels = {1: int(suspicious), 2: int(high), 3: int(critical)}
        found.add(int(queries), int(failed), levels, first, last)
    others = select(flow[other], func.sum(flow.queries), func.max(flow.severity)).group_by(flow[other])
    for name, queries, level in connection.execute(others):
        found.add_other(name, int(queries), level)
    texts = select(flow.types, func.count()).group_by(flow.types)
    for text, times_over in connection.execute(texts):
        found.types.update({qtype: count * times_over for qtype, count in counts_in(text)})
    for begin, end in parts.counted:
        kinds = select(_Q.qtype, func.count()).where(*between(begin, end), *counted, *which(_Q)).group_by(_Q.qtype)
        found.types.update({int(qtype): int(count) for qtype, count in connection.execute(kinds)})


class Grouped(NamedTuple):
    """Sums of one client or domain; `others` are its domains or clients."""

    name: str
    queries: int
    others: int
    severity: int
    last_seen: float
    failed: int


def by_client(connection: Connection, since: float, until: float, limit: int, offset: int = 0) -> list[Grouped]:
    """Clients: those with most queries first; the first `offset` are passed over."""
    parts = parts_of_span(since, until, sums_state(connection).until)
    page = limit, offset
    return _grouped(connection, parts, CLIENT_DAYS, "client", lambda one: (desc(one.queries), one.client), page)


Order = Callable[[Any], Sequence[Any]]
Having = Callable[[Any], ColumnElement[bool]] | None
"""What rows of sums are ordered and narrowed by: from their columns."""


def by_domain(
    connection: Connection,
    since: float,
    until: float,
    order: Order,
    limit: int,
    offset: int = 0,
    *,
    having: Having = None,
    among: Sequence[str] | None = None,
) -> list[Grouped]:
    """Domains in an order that does not look at `others`, of which each else is counted for what is shown.

    The first `offset` are passed over.
    """
    parts = parts_of_span(since, until, sums_state(connection).until)

    def which(columns: Any) -> Sequence[ColumnElement[bool]]:
        return () if among is None else (columns.domain.in_(list(among)),)

    return _grouped(connection, parts, DOMAIN_DAYS, "domain", order, (limit, offset), having, which)


def rarest_domains(connection: Connection, since: float, until: float, limit: int) -> list[Grouped]:
    """Domains below which the fewest clients asked in a span, then the fewest queries.

    Over days it is known at once how many clients each has at least. Domains are walked through in the order of that,
    and their clients are counted, until no domain that is left can be among the first.
    """
    parts = parts_of_span(since, until, sums_state(connection).until)
    if _is_short(parts):
        totals = _over_hours(parts, "domain", everything)
    else:
        totals = _with_certain_pairs(_over_days(connection, parts, DOMAIN_DAYS, "domain", everything), parts, "domain")
    rows = totals.subquery().c
    columns = rows.domain, rows.queries, rows.others, rows.severity, rows.last_seen, rows.failed
    statement = select(*columns).order_by(rows.others, rows.queries, rows.domain)
    if _is_short(parts):
        return [Grouped(*row) for row in connection.execute(statement.limit(limit))]
    found = list[Grouped]()
    walked = connection.execute(statement, execution_options={"yield_per": min(limit, WALKED_AT_ONCE)})
    for some in walked.partitions():
        least = [Grouped(*row) for row in some]
        found = sorted([*found, *_with_others(connection, parts, "domain", least)], key=_rarity)[:limit]
        if len(found) == limit and _rarity(found[-1]) <= _rarity(least[-1]):
            break
    walked.close()
    return found


def _rarity(one: Grouped) -> tuple[int, int, str]:
    return one.others, one.queries, one.name


def _is_short(parts: SpanParts) -> bool:
    return parts.last - parts.first <= DAYS_FROM_H


def _grouped(
    connection: Connection,
    parts: SpanParts,
    days: Table,
    key: str,
    order: Order,
    page: tuple[int, int],
    having: Having = None,
    which: Which = everything,
) -> list[Grouped]:
    """Clients or domains; `others` are the domains or clients of each. page: how many, and after how many."""
    short = _is_short(parts)
    rows = (_over_hours(parts, key, which) if short else _over_days(connection, parts, days, key, which)).subquery().c
    statement = select(rows[key], rows.queries, rows.others, rows.severity, rows.last_seen, rows.failed)
    statement = statement if having is None else statement.where(having(rows))
    statement = statement.order_by(*order(rows)).limit(page[0]).offset(page[1])
    found = [Grouped(*row) for row in connection.execute(statement)]
    return found if short or not found else _with_others(connection, parts, key, found)


def _with_others(connection: Connection, parts: SpanParts, key: str, found: Sequence[Grouped]) -> list[Grouped]:
    """The same with how many others each has in a span."""
    counts = select(*_pair_counts(parts, key, [one.name for one in found]).c)
    others: dict[str, int] = {row[0]: row[1] for row in connection.execute(counts)}
    return [one._replace(others=max(one.others, others.get(one.name, 0))) for one in found]


def _over_hours(parts: SpanParts, key: str, which: Which) -> Select[Any]:
    flow = flows(parts, which).c
    return _summed(flow, key, func.count(distinct(flow.domain if key == "client" else flow.client)))


def _summed(flow: Any, key: str, others: ColumnElement[int]) -> Select[Any]:
    sums = func.sum(flow.queries).label("queries"), others.label("others"), func.max(flow.severity).label("severity")
    more = func.max(flow.last_seen).label("last_seen"), func.sum(flow.failed).label("failed")
    return select(flow[key], *sums, *more).group_by(flow[key])


def _over_days(connection: Connection, parts: SpanParts, days: Table, key: str, which: Which) -> Select[Any]:
    """The same over many days; others are the most that one day has."""
    day, (whole, ends) = days.c, _whole_days(parts)
    among = which(day) if key == "domain" else ()
    # An index of domains has the sums of all days in their order; SQLite would take that of the days.
    at = day.day + 0 if key == "domain" and not among and _are_most(connection, whole) else day.day
    sums = [_summed(day, key, func.max(day.others)).where(at >= whole.start, at < whole.stop, *among)]
    for one in ends:
        end = _over_hours(one, key, which).subquery().c
        sums.append(select(end[key], end.queries, end.others, end.severity, end.last_seen, end.failed))
    rows = _named(union_all(*sums).subquery(), (key, "queries", "others", "severity", "last_seen", "failed")).c
    return _summed(rows, key, func.max(rows.others))


def _are_most(connection: Connection, whole: range) -> bool:
    """Whether these are more than half of the days that there are, and the database keeps no statistics to say so."""
    if connection.dialect.name != "sqlite":
        return False
    ends = (
        select(end(DOMAIN_DAYS.c.day)).scalar_subquery() for end in (func.min, func.max)
    )  # each is one look at the key
    first, last = connection.execute(select(*ends)).one()
    return first is not None and 2 * len(whole) > last - first


def _with_certain_pairs(totals: Select[Any], parts: SpanParts, key: str) -> Select[Any]:
    """The same; others are as many as pairs say for certain, where these are more."""
    sums_of, counts = totals.subquery().c, _pair_counts(parts, key).c
    others = case((counts.others > sums_of.others, counts.others), else_=sums_of.others).label("others")
    columns = sums_of[key], sums_of.queries, others, sums_of.severity, sums_of.last_seen, sums_of.failed
    joined = sums_of.queries.table.outerjoin(counts.others.table, counts[key] == sums_of[key])
    return select(*columns).select_from(joined)


def _pair_counts(parts: SpanParts, key: str, names: Sequence[str] | None = None) -> Subquery:
    """How many others each has in a span, as far as days are summed up. names: of these clients or domains alone.

    A pair that was seen before a span and after it need not have been seen in it: sums of hours say so. Without names
    such pairs are left out, so that an index of pairs has all that is read.
    """
    since = min([begin for begin, _ in parts.counted] + [float(parts.first * HOUR_S)])
    until = max([end for _, end in parts.counted] + [float(parts.last * HOUR_S)])
    pair = QUERY_PAIRS.c
    within = or_(
        and_(pair.first_seen >= since, pair.first_seen < until), and_(pair.last_seen >= since, pair.last_seen < until)
    )
    if names is not None:
        last = int(min(until, 2.0**40) // HOUR_S)
        hours = (
            _H.hour >= int(max(since, 0.0) // HOUR_S),
            _H.hour <= last,
            _H.last_seen >= since,
            _H.first_seen < until,
        )
        asked = exists().where(_H.client == pair.client, _H.domain == pair.domain, *hours)
        around = and_(pair.first_seen < since, pair.last_seen >= until, asked)
        within = and_(pair[key].in_(names), or_(within, around))
    return select(pair[key], func.count().label("others")).where(within).group_by(pair[key]).subquery()


def _hours_of(of_days: Sequence[Any]) -> FromClause:
    """Sums of the hours of domains in days: (…, day, domain)."""
    places = [(domain, day * 24, day * 24 + 24) for _, day, domain in of_days]
    named = column("domain", Text), column("first", Integer), column("last", Integer)
    of_day = values(*named, name="of_day").data(places).cte("of_day")
    at = of_day.c
    return of_day.join(QUERY_HOURS, and_(_H.domain == at.domain, _H.hour >= at.first, _H.hour < at.last))


class HourFlow(NamedTuple):
    """What one client asked below one domain in one hour (since 1970-01-01)."""

    hour: int
    client: str
    domain: str


def largest_flows(
    connection: Connection, since: float, until: float, limit: int
) -> tuple[list[tuple[float, float]], list[HourFlow], int]:
    """Where the `limit` largest answers of a span are: in these spans, or in these flows, each with so many bytes.

    A flow's largest answer is one of them, so that none is smaller than the smallest of the `limit` largest flows'.
    """
    parts = parts_of_span(since, until, sums_state(connection).until)
    if parts.first >= parts.last:
        return list(parts.counted), [], 0
    whole, ends = _whole_days(parts)
    rows, least = list[Any](), 0
    columns = (_H.largest, _H.hour, _H.client, _H.domain)
    first = desc(_H.largest), desc(_H.last_seen)
    if whole:  # no more days can have them than answers are wanted: each has one at least
        day = DOMAIN_DAYS.c
        days = select(day.largest, day.day, day.domain).where(day.day >= whole.start, day.day < whole.stop)
        of_days = connection.execute(days.order_by(desc(day.largest), desc(day.last_seen)).limit(limit)).all()
        least = of_days[-1].largest if len(of_days) == limit else 0
        large = select(*columns).select_from(_hours_of(of_days)).where(_H.largest >= least) if of_days else None
        rows += [] if large is None else connection.execute(large.order_by(*first).limit(limit)).all()
    for one in ends:
        wanted = (_H.hour >= one.first, _H.hour < one.last, _H.largest >= least)
        rows += connection.execute(select(*columns).where(*wanted).order_by(*first).limit(limit)).all()
    rows.sort(key=lambda row: -row.largest)
    flows = [HourFlow(row.hour, row.client, row.domain) for row in rows[:limit]]
    return list(parts.counted), flows, rows[limit - 1].largest if len(rows) >= limit else 0
