"""A search over all stored queries that answers in time.

What an index has in order is read in order. Anything else walks back through time, and gives after SEARCH_S what it has
found, and a cursor from where the next search goes on. Hours that are summed up are only looked at where their sums, or
the list of all names, say that there is something: a rare thing is found without reading what lies between.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice, takewhile
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, desc, false, func, or_, select

from agents.core.errors import MessageError
from agents.core.types import DAY_S, HOUR_S, Severity, clean
from agents.dns.message import rcode_number, type_number
from agents.store.console.at_flows import rows_at
from agents.store.console.finding import NO_SUCH, matches, severity_number, within
from agents.store.console.summing import OFTEN_S, sums_state
from agents.store.console.sums import HourFlow
from agents.store.console.tables import QUERY_DOMAINS, QUERY_HOURS, QUERY_KINDS, QUERY_NAMES
from agents.store.console.terms import OF_INCIDENTS, Terms, registered_of
from agents.store.rows import QUERIES, REPLAYED, stored_query_json
from agents.store.sql import LIVE, Filter, cursor_of, page_of, position_of, rows_of

SEARCH_S = 1.5
"""Seconds after which a search gives what it has."""
FIRST_SPAN_S, SPAN_S_MAX = 1_800.0, 30 * DAY_S
"""The first span that a search looks at, and the longest: each is twice as long as the one before, or half."""
CLIENTS_MAX = 10_000
"""Clients of networks that a search is resolved to, at most."""
NAMES_MAX = 2_000
"""A part that more names have is common: it is found soon wherever one looks."""
HOURS_AT_ONCE, HOURS_AT_ONCE_MAX = 6, 384
"""Hours whose sums are looked at in one go: twice as many each time, and at most."""
RUN_MAX = 24
"""Hours in a row, of names, that are looked at in one go: twice as many each time, up to so many."""
FLOWS_MAX = 200
"""Flows of an hour that are looked at one by one; of one with more, clients and domains that are named, each."""
FLOWS_AT_ONCE = 50
"""Flows that are looked at in one statement, where one hour has no more: between two, a search may stop."""
_Q, _H, _K, _N, _D = QUERIES.c, QUERY_HOURS.c, QUERY_KINDS.c, QUERY_NAMES.c, QUERY_DOMAINS.c


@dataclass(frozen=True, slots=True)
class Found:
    """Queries, newest first; `looked_back_to`: when the search stopped, None = at the oldest row."""

    queries: Sequence[Mapping[str, Any]]
    cursor: str | None
    looked_back_to: float | None


class Look(NamedTuple):
    """Hours first..last of which queries can be what is looked for: those of flows, or, without, those with `more`."""

    first: int
    last: int
    more: list[ColumnElement[bool]]
    flows: Sequence[HourFlow] = ()


class NamesAsked(NamedTuple):
    """Below which domains names were asked for that are looked for, by hours; `often`: (first, last hour, domain)."""

    by_hour: dict[int, set[str]]
    often: list[tuple[int, int, str]]

    def below(self, hour: int) -> set[str]:
        """Domains that can have such a name in an hour."""
        often = {domain for first, last, domain in self.often if first <= hour <= last}
        return self.by_hour.get(hour, set()) | often

    def hours(self) -> list[int]:
        """Hours that can have one, newest first."""
        hours = set(self.by_hour)
        if self.often:
            first, last = min(one[0] for one in self.often), max(one[1] for one in self.often)
            hours.update(range(first, last + 1))
        return sorted(hours, reverse=True)


def searched(
    connection: Connection, terms: Terms, severity: Sequence[int], source: str | None, limit: int, cursor: str | None
) -> Found:
    """One page of queries. severity: these alone; source: mark of a replay, "" = what was seen live."""
    clients = [*terms.clients, *_clients_within(connection, terms.networks)]
    conditions = _conditions(terms, severity, clients)
    hours, kinds = _conditions_of_hours(terms, severity, clients), _conditions_of_kinds(terms, severity)
    walk = SearchWalk(connection, terms, conditions, hours, kinds, limit, cursor)
    in_order = terms.clients or (terms.domains and not terms.patterns)  # an index has them so
    if source or (in_order and not (_is_of_names(terms) and walk.names is not None)):
        wanted = Filter(since=terms.since, until=terms.until, source=source)
        rows, more = page_of(connection, wanted, conditions, limit, cursor)
        return Found(rows, more, None)
    return walk.page(replays=source is None)


def _is_of_names(terms: Terms) -> bool:
    """Whether names below registered domains are looked for: the list of all names says when they were asked for."""
    return not terms.clients and bool(terms.domains) and all(registered_of(one) != one for one in terms.domains)


class SearchWalk:
    """Walks back through live queries until a page is full, all is seen, or the time is up."""

    def __init__(
        self,
        connection: Connection,
        terms: Terms,
        conditions: Sequence[ColumnElement[bool]],
        of_hours: Sequence[ColumnElement[bool]],
        of_kinds: Sequence[ColumnElement[bool]],
        limit: int,
        cursor: str | None,
    ) -> None:
        self._connection, self._terms, self._limit, self._cursor = connection, terms, limit, cursor
        self._conditions, self._of_hours, self._of_kinds = conditions, of_hours, of_kinds
        self._began = time.monotonic()
        self._rows: list[dict[str, Any]] = []
        end, row = position_of(cursor) if cursor else (math.inf, 0)
        end = math.nextafter(end, math.inf) if row else end  # where a search stopped (row 0), all from `end` on is seen
        self._end = min(math.inf if terms.until is None else terms.until, end)

    def page(self, replays: bool) -> Found:
        """The page. replays: stored replays are searched, too."""
        oldest = self._connection.execute(select(func.min(_Q.ts))).scalar()
        back = None if oldest is None else self._walk(max(oldest, self._terms.since or -math.inf))
        rows = self._rows
        if replays and self._connection.execute(select(_Q.id).where(REPLAYED).limit(1)).first() is not None:
            since = max(filter(None, (back, self._terms.since)), default=None)
            wanted = Filter(since=since, until=self._terms.until)
            conditions = [*self._conditions, REPLAYED]
            more = rows_of(self._connection, wanted, conditions, self._limit + 1, self._cursor, -_Q.ts)
            rows = sorted([*rows, *more], key=lambda row: (-row["ts"], -row["id"]))
        shown = [stored_query_json(row) for row in rows[: self._limit]]
        if len(rows) > self._limit:
            return Found(shown, cursor_of(rows[self._limit - 1]), None)
        return Found(shown, None if back is None else f"{back!r}_0", back)

    def _walk(self, bottom: float) -> float | None:
        """Fill the page with rows of bottom <= ts; when the time was up, None = it was not."""
        summed = sums_state(self._connection).until * HOUR_S
        names = self.names if self._has_names else None
        if names is None and not self._of_hours:
            return self._through(self._end, bottom)
        back = self._through(self._end, max(bottom, summed))
        if back is not None or self._full:
            return back
        looks = self._hours_of(names, bottom) if names is not None else self._summed_hours(bottom, summed)
        for look in looks:
            since, until = max(bottom, look.first * HOUR_S), min(self._end, (look.last + 1.0) * HOUR_S, summed)
            self._look_at(look, since, until)
            if self._full:
                return None
            if self._over and look.first * HOUR_S > bottom:
                return float(look.first * HOUR_S)
        return self._stopped

    def _look_at(self, look: Look, since: float, until: float) -> None:
        if not look.flows:
            self._take(since, until, look.more)
        elif since < until:
            room, conditions = self._limit + 1 - len(self._rows), [*self._conditions]
            if self._cursor:
                end, row_id = position_of(self._cursor)
                conditions.append(or_(_Q.ts < end, _Q.id < row_id))
            self._rows += rows_at(self._connection, look.flows, conditions, room, span=(since, until))

    _stopped: float | None = None
    """When the time was up between two looks at sums."""

    @property
    def _full(self) -> bool:
        return len(self._rows) > self._limit

    @property
    def _over(self) -> bool:
        return time.monotonic() - self._began > SEARCH_S

    @property
    def _has_names(self) -> bool:
        return bool(self._terms.words or self._terms.patterns) or _is_of_names(self._terms)

    def _take(self, since: float, until: float, more: Sequence[ColumnElement[bool]] = ()) -> None:
        """Rows of a span, as many as the page still takes, and one that says that there are more."""
        if since < until:
            conditions, room = [*self._conditions, LIVE, *more], self._limit + 1 - len(self._rows)
            span = Filter(since=since, until=until)
            self._rows += rows_of(self._connection, span, conditions, room, self._cursor)

    def _through(self, end: float, bottom: float) -> float | None:
        """SearchWalk through all rows in spans; when the time was up, None = it was not."""
        span = FIRST_SPAN_S
        while (newest := self._newest_below(end)) is not None and newest >= bottom:
            # what lies between is empty: a row with a time far ahead costs one look, not a walk
            end = min(end, math.nextafter(newest, math.inf))
            since, asked = max(bottom, end - span), time.monotonic()
            self._take(since, end)
            if self._full or since <= bottom:
                break
            if self._over:
                return since
            quick = time.monotonic() - asked < SEARCH_S / 4
            end, span = since, min(SPAN_S_MAX, span * 2) if quick else max(60.0, span / 2)
        return None

    def _newest_below(self, end: float) -> float | None:
        found = self._connection.execute(select(func.max(_Q.ts)).where(_Q.ts < end)).scalar()
        return None if found is None else float(found)

    @cached_property
    def names(self) -> NamesAsked | None:
        """Where names that are looked for were asked for; None where they are too many to name."""
        wanted = select(_N.domain, _N.first_seen, _N.last_seen, _N.hours).where(*_conditions_of_names(self._terms))
        if (domains := _domains_of(self._connection, self._terms)) is not None:
            wanted = wanted.where(_N.domain.in_(domains))
        rows = self._connection.execute(wanted.limit(NAMES_MAX + 1)).all()
        if len(rows) > NAMES_MAX:
            return None
        found = NamesAsked(defaultdict(set), [])
        for domain, first, last, hours in rows:
            for hour in hours.split():
                found.by_hour[int(hour)].add(domain)
            if not hours:
                found.often.append((int(first // HOUR_S), int((last + OFTEN_S) // HOUR_S), domain))
        return found

    def _hours_of(self, names: NamesAsked, bottom: float) -> Iterator[Look]:
        """Hours in which such names were asked for, newest first: some that follow each other in one go."""
        run, domains, most = list[int](), set[str](), 1
        for hour in names.hours():
            below = names.below(hour)
            if hour * HOUR_S >= self._end or (hour + 1) * HOUR_S <= bottom or not below:
                continue
            if run and (hour < run[-1] - 1 or len(run) >= most or len(domains | below) > FLOWS_MAX):
                yield Look(run[-1], run[0], _among(_Q.domain, domains))
                run, domains, most = [], set(), min(RUN_MAX, most * 2)
            run.append(hour)
            domains |= below
        if run:
            yield Look(run[-1], run[0], _among(_Q.domain, domains))

    def _summed_hours(self, bottom: float, summed: float) -> Iterator[Look]:
        """Hours whose sums say that they can have such queries, newest first."""
        last = int(min(math.ceil(min(self._end, 2.0**40) / HOUR_S), summed // HOUR_S))
        hours, at_once = self._hours_of_kinds(int(bottom // HOUR_S), last), HOURS_AT_ONCE
        while some := list(islice(hours, at_once)):
            there = [] if some[0] - some[-1] < len(some) else [_H.hour.in_(some)]
            wanted = (_H.hour >= some[-1], _H.hour <= some[0], *there, *self._of_hours)
            looked = select(_H.hour, _H.client, _H.domain).where(*wanted).order_by(desc(_H.hour))
            yield from _looks(HourFlow(*row) for row in self._connection.execute(looked))
            at_once = min(HOURS_AT_ONCE_MAX, at_once * 2)
            if self._over and some[-1] * HOUR_S > bottom:
                self._stopped = float(some[-1] * HOUR_S)
                return

    def _hours_of_kinds(self, first: int, last: int) -> Iterator[int]:
        """Hours first <= hour < last that can have queries of such a kind, newest first."""
        known = last
        if self._of_kinds:
            known = min(last, max(first, sums_state(self._connection).kinds_from))
            wanted = (_K.hour >= known, _K.hour < last, *self._of_kinds)
            having = select(_K.hour).where(*wanted).distinct().order_by(desc(_K.hour))
            yield from self._connection.execute(having).scalars().all()
        yield from range(known - 1, first - 1, -1)


def _looks(flows: Iterable[HourFlow]) -> Iterator[Look]:
    """Flows, those of the newest hour first, as what is looked at in one go: a whole hour each, or several."""
    together: list[HourFlow] = []
    for hour, group in groupby(flows, key=itemgetter(0)):
        some = list(group)
        if len(together) + len(some) > FLOWS_AT_ONCE:
            yield from _of_flows(together)
            together = []
        if len(some) > FLOWS_MAX:
            clients, domains = {one.client for one in some}, {one.domain for one in some}
            yield Look(hour, hour, [*_among(_Q.client, clients), *_among(_Q.domain, domains)])
        else:
            together += some
    yield from _of_flows(together)


def _of_flows(flows: list[HourFlow]) -> Iterator[Look]:
    if flows:
        yield Look(flows[-1].hour, flows[0].hour, [], flows)


def _among(column: ColumnElement[str], values: set[str]) -> list[ColumnElement[bool]]:
    return [column.in_(sorted(values))] if len(values) <= FLOWS_MAX else []


def _conditions(terms: Terms, severity: Sequence[int], clients: Sequence[str]) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if terms.clients or terms.networks:
        found.append(_Q.client.in_(clients))
    if terms.domains or terms.patterns:
        found.append(or_(false(), *map(below, terms.domains), *(matches(_Q.qname, one) for one in terms.patterns)))
    found += [_Q.qname.icontains(word, autoescape=True) for word in terms.words]
    if levels := _levels(terms, severity):
        found.append(_Q.severity.in_(levels))
    if any(map(terms.of, OF_INCIDENTS)):
        found.append(false())
    if types := _types(terms):
        found.append(_Q.qtype.in_(types))
    if codes := _rcodes(terms):
        found.append(_Q.rcode.in_(codes))
    if terms.score_from is not None:
        found.append(_Q.score >= terms.score_from)
    if terms.score_to is not None:
        found.append(_Q.score <= terms.score_to)
    found += [_Q.reasons.icontains(why, autoescape=True) for why in terms.of("why")]
    return found


def _conditions_of_hours(terms: Terms, severity: Sequence[int], clients: Sequence[str]) -> list[ColumnElement[bool]]:
    """What sums of an hour must say, where they can say that it has no such query; [] where they cannot."""
    found: list[ColumnElement[bool]] = []
    if terms.networks:
        found.append(_H.client.in_(clients))
    if (levels := _levels(terms, severity)) and Severity.NORMAL not in levels:
        counts = {Severity.SUSPICIOUS: _H.suspicious, Severity.HIGH: _H.high, Severity.CRITICAL: _H.critical}
        found += [_H.severity > 0, or_(false(), *(column > 0 for level, column in counts.items() if level in levels))]
    if types := _types(terms):
        found.append(or_(*(_H.types.contains(f" {one}:") for one in types)))
    if codes := _rcodes(terms):
        found.append(or_(*(_H.rcodes.contains(f" {one}:") for one in codes)))
    if terms.score_from is not None:
        found.append(_H.score >= terms.score_from)
    if terms.of("why"):  # a query without a reason is NORMAL
        found.append(_H.severity > 0)
    return found


def _conditions_of_kinds(terms: Terms, severity: Sequence[int]) -> list[ColumnElement[bool]]:
    """Which kinds of queries are looked for; [] = any."""
    found: list[ColumnElement[bool]] = []
    if levels := _levels(terms, severity):
        found.append(_K.severity.in_(levels))
    if terms.of("why"):
        found.append(_K.severity > Severity.NORMAL)
    if types := _types(terms):
        found.append(_K.qtype.in_(types))
    if codes := _rcodes(terms):
        found.append(_K.rcode.in_(codes))
    return found


def _conditions_of_names(terms: Terms) -> list[ColumnElement[bool]]:
    found = [_N.name.contains(word.lower(), autoescape=True) for word in terms.words]
    if terms.patterns:
        among = [matches(_N.name, one) for one in terms.patterns]
        domains = [or_(_N.domain == registered_of(one), _N.name == one) for one in terms.domains]
        found.append(or_(*among, *domains))
    elif _is_of_names(terms):
        found.append(or_(*map(_named_below, terms.domains)))
    return found


def _named_below(name: str) -> ColumnElement[bool]:
    its = or_(_N.name == name, _N.name.endswith("." + name, autoescape=True))
    return and_(_N.domain == clean(registered_of(name)), its)


def _domains_of(connection: Connection, terms: Terms) -> list[str] | None:
    """Domains that names of all patterns are below; None where these can be any, or are too many to name."""
    ends = [one.rpartition("*")[2] for one in terms.patterns]
    if not ends or not all(one.startswith(".") and "." in one[1:] for one in ends):
        return None
    below_them = [or_(_D.domain == registered_of(one[1:]), _D.domain.endswith(one, autoescape=True)) for one in ends]
    named = [_D.domain == registered_of(one) for one in terms.domains]
    found = connection.execute(select(_D.domain).where(or_(*below_them, *named)).limit(FLOWS_MAX + 1)).scalars().all()
    return list(found) if len(found) <= FLOWS_MAX else None


def _levels(terms: Terms, severity: Sequence[int]) -> list[int]:
    return [*severity, *map(severity_number, terms.of("severity"))]


def _types(terms: Terms) -> list[int]:
    return [_number(type_number, one) for one in terms.of("type")]


def _rcodes(terms: Terms) -> list[int]:
    return [_number(rcode_number, one) for one in terms.of("rcode")]


def below(name: str) -> ColumnElement[bool]:
    """A name and all below it; a delegation of addresses' names is one below their registered domain."""
    domain = registered_of(name)
    if domain == name:
        return _Q.domain == clean(domain)
    its = or_(func.lower(_Q.qname) == func.lower(name), _Q.qname.iendswith("." + name, autoescape=True))
    return and_(_Q.domain == clean(domain), its)


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
