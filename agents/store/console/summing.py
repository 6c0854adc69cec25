"""Sums up stored live queries, hour by hour, so that a page need not count millions of them.

An hour is summed up once it is over and all that is in time for it is written; the writer of queries does nothing for
it. What is written late is noted by the writer in the same transaction (LATE_HOURS), and its hour is summed up again.
Rows of sums are put in the place of those that are there, so that summing up twice is no harm. Of two processes at one
hour, one may write what it read before late queries came, after the other wrote what it read with them. So the hour is
noted before anything of it is written, and only who finds that note as it was takes it away; else the hour is summed
up again.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Table, case, delete, exists, func, or_, select, tuple_, update

from agents.core.errors import StoreError
from agents.core.types import DAY_S, HOUR_S, Severity, clean
from agents.dns.message import rcode_number
from agents.store.console.tables import (
    CLIENT_DAYS,
    DOMAIN_DAYS,
    QUERY_DOMAINS,
    QUERY_HOURS,
    QUERY_KINDS,
    QUERY_NAMES,
    QUERY_PAIRS,
    SUMS_STATE,
)
from agents.store.rows import LATE_HOURS, LATE_S, QUERIES
from agents.store.sql import LIVE, LONG_S, MERGED_S, Database, between

SETTLED_S = LATE_S + 2 * MERGED_S + 60.0
"""An hour is summed up so many seconds after its end: what was begun in time is written by then, a minute to spare."""
SUMS_AT_ONCE = 2_000
"""Rows of one transaction: the writer of queries never waits for long."""
QUERIES_AT_ONCE = 100_000
"""Queries of which names are held in memory at once, so that an hour takes no more for having tens of millions."""
_STREAMED = {"yield_per": 1_000}
"""Rows come from the database as they are needed."""
HOURS_KEPT = 12
"""Hours of a name that are kept; one that was asked for in more is found soon wherever one looks."""
OFTEN_S = float(DAY_S)
"""By so many seconds `last_seen` of a name that is asked for often may be behind: it is not written every hour."""
_T = TypeVar("_T")
_Q, _H, _N, _S = QUERIES.c, QUERY_HOURS.c, QUERY_NAMES.c, SUMS_STATE.c
_FAILED = rcode_number("NXDOMAIN")
_LEVELS = {Severity.SUSPICIOUS: "suspicious", Severity.HIGH: "high", Severity.CRITICAL: "critical"}


class SumsErasedError(StoreError):
    """A client was erased meanwhile: what was read before must not be written."""


class SumsState(NamedTuple):
    """All hours before `until` are summed up."""

    until: int  # hours since 1970-01-01
    erasures: int
    kinds_from: int  # the first hour of which it is known which kinds of queries it has


@dataclass(slots=True)
class Sums:
    """Sums of one row."""

    queries: int = 0
    failed: int = 0
    levels: Counter[int] = field(default_factory=Counter)
    score: float = 0.0
    largest: int = 0
    others: int = 0
    types: Counter[int] = field(default_factory=Counter)
    rcodes: Counter[int] = field(default_factory=Counter)
    first_seen: float = float("inf")
    last_seen: float = float("-inf")
    kinds: set[tuple[int, int, int]] = field(default_factory=set)  # (type, response code, severity), of an hour

    def row(self, **key: Any) -> dict[str, Any]:
        """As the table has it."""
        return {
            **key,
            "queries": self.queries,
            "failed": self.failed,
            **{name: self.levels[level] for level, name in _LEVELS.items()},
            "severity": max((level for level, count in self.levels.items() if count), default=0),
            "score": self.score,
            "largest": self.largest,
            "others": self.others,
            "types": counts_text(self.types),
            "rcodes": counts_text(self.rcodes),
            "first_seen": self.first_seen,
            "last_seen": self.last_seen,
        }


def counts_text(counts: Mapping[int, int]) -> str:
    """How many of which, as a column has it: " 1:30 28:12 "."""
    return " " + "".join(f"{key}:{count} " for key, count in sorted(counts.items()))


def counts_in(text: str) -> Iterator[tuple[int, int]]:
    """What `counts_text` wrote."""
    for pair in text.split():
        key, _, count = pair.partition(":")
        yield int(key), int(count)


def sums_state(connection: Connection, *, locked: bool = False) -> SumsState:
    """How far sums go. locked: nobody else writes sums or erases before this transaction ends."""
    statement = select(_S.until, _S.erasures, _S.kinds_from)
    return SumsState(*connection.execute(statement.with_for_update() if locked else statement).one())


class QuerySums:
    """Keeps the sums of a store. Every method raises StoreError."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def catch_up(self, now: float, hours: int = 1_000_000) -> int:
        """Sum up at most so many hours, those first of which queries came late; how many there were."""
        done = 0
        while done < hours and self._step(now):
            done += 1
        return done

    def _step(self, now: float) -> bool:
        with self._store.reading("read what is summed up", LONG_S) as connection:
            state = sums_state(connection)
            late = select(LATE_HOURS.c.hour).where(LATE_HOURS.c.hour < state.until).limit(1)
            hour = connection.execute(late).scalar()
            again = hour is not None
            if hour is None:
                first = select(func.min(_Q.ts)).where(*between(float(state.until * HOUR_S), None), LIVE)
                at = connection.execute(first).scalar()
                hour = None if at is None else int(at // HOUR_S)
        if hour is None or (hour + 1) * HOUR_S + SETTLED_S > now:
            return False
        self._sum_hour(hour, state, again)
        return True

    def _sum_hour(self, hour: int, state: SumsState, again: bool) -> None:
        noted = self._noted(hour, state)
        try:
            self._write_hour(hour, state)
            self._finish(hour, state, again, noted)
        except StoreError:  # some of it may be written, and another process may have finished it meanwhile
            with suppress(StoreError), self._store.writing("note an hour", LONG_S) as connection:
                _note_anew(connection, self._store, hour)
            raise

    def _noted(self, hour: int, state: SumsState) -> int:
        """Note that an hour is to be summed up, where it is not noted; the version of the note."""
        note = self._store.upsert(LATE_HOURS).values(hour=hour, version=time.time_ns()).on_conflict_do_nothing()
        with self._store.writing("note an hour", LONG_S) as connection:
            self._unchanged(connection, state)
            connection.execute(note)
            return int(connection.execute(select(LATE_HOURS.c.version).where(LATE_HOURS.c.hour == hour)).scalar_one())

    def _write_hour(self, hour: int, state: SumsState) -> None:
        span = between(hour * HOUR_S, (hour + 1) * HOUR_S)
        with self._store.reading("sum up an hour", LONG_S) as connection:
            for flows in _batched(_hour_sums(connection, span)):
                rows = [one.row(hour=hour, client=who, domain=below) for (who, below), one in flows]
                self._put(QUERY_HOURS, rows, state)
                self._put_kinds(hour, {kind for _, one in flows for kind in one.kinds}, state)
                domains = _joined(((below,), one.first_seen, one.last_seen) for (_, below), one in flows)
                self._widen(QUERY_DOMAINS, [dict(zip(("domain", *_SEEN), one, strict=True)) for one in domains], state)
        self._sum_names(hour, state)

    def _sum_names(self, hour: int, state: SumsState) -> None:
        """Names of an hour, of QUERIES_AT_ONCE queries at a time: one may come again, and is only widened then."""
        begin, end, name = float(hour * HOUR_S), float((hour + 1) * HOUR_S), func.lower(_Q.qname).label("name")
        while begin < end:
            with self._store.reading("sum up names", LONG_S) as connection:
                until = _end_of_part(connection, begin, end)
                seen = select(name, func.max(_Q.domain), func.min(_Q.ts), func.max(_Q.ts)).group_by(name)
                names = connection.execute(seen.where(*between(begin, until), LIVE)).all()
            for at in range(0, len(names), SUMS_AT_ONCE):
                self._put_names(names[at : at + SUMS_AT_ONCE], hour, state)
            begin = until

    def _finish(self, hour: int, state: SumsState, again: bool, noted: int) -> None:
        """Note that an hour is summed up, after the days that are over with it.

        A note of another version says that queries came late since the hour was read, and none that another process
        summed it up meanwhile, whose rows this one may have replaced by older ones.
        """
        days = {hour // 24} if again else {state.until // 24, hour // 24}
        until = state.until if again else hour + 1
        for day in sorted(one for one in days if one < until // 24):
            self._sum_day(day, state)
        with self._store.writing("note what is summed up", LONG_S) as connection:
            self._unchanged(connection, state)
            mark = (LATE_HOURS.c.hour == hour, LATE_HOURS.c.version == noted)
            if not connection.execute(delete(LATE_HOURS).where(*mark)).rowcount:
                _note_anew(connection, self._store, hour)
            later = (_S.until < until, _S.erasures == state.erasures)
            connection.execute(update(SUMS_STATE).where(*later).values(until=until))

    def _sum_day(self, day: int, state: SumsState) -> None:
        of_day = (_H.hour >= day * 24, _H.hour < day * 24 + 24)
        seen = select(_H.client, _H.domain, func.min(_H.first_seen), func.max(_H.last_seen)).where(*of_day)
        with self._store.reading("sum up pairs of a day", LONG_S) as connection:
            pairs = connection.execute(seen.group_by(_H.client, _H.domain), execution_options=_STREAMED)
            for some in _batched(pairs):
                named = [dict(zip(("client", "domain", *_SEEN), one, strict=True)) for one in some]
                self._widen(QUERY_PAIRS, named, state)
        for table, key, other in ((CLIENT_DAYS, "client", "domain"), (DOMAIN_DAYS, "domain", "client")):
            hours = select(QUERY_HOURS).where(*of_day).order_by(_H[key], _H[other])
            with self._store.reading("sum up a day", LONG_S) as connection:
                rows = connection.execute(hours, execution_options=_STREAMED)
                for found in _batched(_day_sums(rows, key, other)):
                    self._put(table, [sums.row(day=day, **{key: name}) for name, sums in found], state)

    def _put(self, table: Table, rows: Sequence[Mapping[str, Any]], state: SumsState) -> None:
        self._write(self._putting(table), rows, state)

    def _put_kinds(self, hour: int, kinds: set[tuple[int, int, int]], state: SumsState) -> None:
        rows = [dict(zip(("hour", "qtype", "rcode", "severity"), (hour, *one), strict=True)) for one in sorted(kinds)]
        self._write(self._store.upsert(QUERY_KINDS).on_conflict_do_nothing(), rows, state)

    def _putting(self, table: Table) -> Any:
        """A statement that puts a row in the place of the one that is there."""
        statement = self._store.upsert(table)
        new, key = statement.excluded, [one.name for one in table.primary_key]
        others = {column.name: new[column.name] for column in table.c if not column.primary_key}
        return statement.on_conflict_do_update(index_elements=key, set_=others)

    def _widen(self, table: Table, rows: Sequence[Mapping[str, Any]], state: SumsState) -> None:
        """Write since when and until when something was seen, or more than is known of that."""
        statement = self._store.upsert(table)
        new, key = statement.excluded, [one.name for one in table.primary_key]
        first, last = table.c.first_seen, table.c.last_seen
        wider = {
            "first_seen": case((new.first_seen < first, new.first_seen), else_=first),
            "last_seen": case((new.last_seen > last, new.last_seen), else_=last),
        }
        more = or_(new.first_seen < first, new.last_seen > last)
        self._write(statement.on_conflict_do_update(index_elements=key, set_=wider, where=more), rows, state)

    def _write(self, statement: Any, rows: Sequence[Mapping[str, Any]], state: SumsState) -> None:
        for at in range(0, len(rows), SUMS_AT_ONCE):
            with self._writing(state) as connection:
                _execute_all(connection, statement, rows[at : at + SUMS_AT_ONCE])

    @contextmanager
    def _writing(self, state: SumsState) -> Iterator[Connection]:
        """A transaction that writes sums; nobody else does meanwhile."""
        begun = time.monotonic()
        with self._store.writing("write sums", LONG_S) as connection:
            self._unchanged(connection, state)
            yield connection
        time.sleep(min(time.monotonic() - begun, 0.1))  # whoever waits for the lock only looks now and then

    def _put_names(self, seen: Sequence[Any], hour: int, state: SumsState) -> None:
        """Names of an hour: (name, domain, first seen, last seen); `hours` of those that are known get one more.

        They are read in the transaction that writes them: another process may sum up another hour of the same names.
        """
        with self._writing(state) as connection:
            wanted = select(QUERY_NAMES).where(_N.name.in_([one[0] for one in seen]))
            known = {row.name: row for row in connection.execute(wanted)}
            if rows := _widened_names(seen, known, str(hour)):
                _execute_all(connection, self._putting(QUERY_NAMES), rows)

    def _unchanged(self, connection: Connection, state: SumsState) -> None:
        if sums_state(connection, locked=True).erasures != state.erasures:
            raise SumsErasedError("cannot sum up queries: a client was erased meanwhile; they are summed up again")

    def forget(self, before_day: int) -> int:
        """Delete sums of days before this one (since 1970-01-01), and what was not seen since; how many rows."""
        gone, before = 0, before_day * 24 * HOUR_S
        old = [
            (QUERY_HOURS, _H.hour < before_day * 24),
            (QUERY_KINDS, QUERY_KINDS.c.hour < before_day * 24),
            (CLIENT_DAYS, CLIENT_DAYS.c.day < before_day),
            (DOMAIN_DAYS, DOMAIN_DAYS.c.day < before_day),
            (LATE_HOURS, LATE_HOURS.c.hour < before_day * 24),
            *((table, table.c.last_seen < before) for table in (QUERY_PAIRS, QUERY_DOMAINS, QUERY_NAMES)),
        ]
        for table, condition in old:
            key = list(table.primary_key)
            while True:
                with self._store.writing("delete old sums", LONG_S) as connection:
                    rows = connection.execute(select(*key).where(condition).limit(SUMS_AT_ONCE)).all()
                    _delete_rows(connection, table, rows)
                gone += len(rows)
                if len(rows) < SUMS_AT_ONCE:
                    break
        return gone

    def erase(self, client: str) -> int:
        """Delete what sums hold of a client whose queries are erased already; how many rows."""
        who = clean(client)
        with self._store.writing("erase a client's sums", LONG_S) as connection:
            sums_state(connection, locked=True)
            connection.execute(update(SUMS_STATE).values(erasures=_S.erasures + 1))
            mine = select(_H.domain).where(_H.client == who).distinct()
            domains = connection.execute(mine).scalars().all()
            gone = 0
            for table in (QUERY_HOURS, CLIENT_DAYS, QUERY_PAIRS):
                gone += connection.execute(delete(table).where(table.c.client == who)).rowcount
        return gone + sum(map(self._erase_unasked, domains))

    def _erase_unasked(self, domain: str) -> int:
        """Delete names of a domain for which no query is left, and the domain where no client is; how many rows."""
        with self._store.reading("read names that are left", LONG_S) as connection:
            asked = select(func.lower(_Q.qname)).where(_Q.domain == domain, LIVE).distinct()
            left = set(connection.execute(asked).scalars())
            known = connection.execute(select(_N.name, _N.last_seen).where(_N.domain == domain)).all()
        unasked = [row for row in known if row.name not in left]
        gone = 0
        for at in range(0, len(unasked), SUMS_AT_ONCE):
            with self._store.writing("erase names", LONG_S) as connection:
                for name, seen in unasked[at : at + SUMS_AT_ONCE]:
                    gone += connection.execute(
                        delete(QUERY_NAMES).where(_N.name == name, _N.last_seen == seen)
                    ).rowcount
        with self._store.writing("erase a domain's sums", LONG_S) as connection:
            clients = exists().where(_H.domain == domain)
            for table in (QUERY_DOMAINS, DOMAIN_DAYS):
                gone += connection.execute(delete(table).where(table.c.domain == domain, ~clients)).rowcount
        return gone


def _note_anew(connection: Connection, store: Database, hour: int) -> None:
    """Have an hour summed up again: whoever sums it up now finds another note than it knows."""
    note = store.upsert(LATE_HOURS).values(hour=hour, version=time.time_ns())
    again = {"version": LATE_HOURS.c.version + 1}
    connection.execute(note.on_conflict_do_update(index_elements=["hour"], set_=again))


_SEEN = ("first_seen", "last_seen")


def _widened_names(seen: Sequence[Any], known: Mapping[str, Any], hour: str) -> list[dict[str, Any]]:
    """Rows of names that an hour says more of than is known."""
    rows = []
    for name, domain, first, last in sorted(map(tuple, seen)):
        old, hours = known.get(name), hour
        if old is not None:
            there = old.hours.split()
            known_of = not there or hour in there
            if known_of and old.first_seen <= first and last < old.last_seen + OFTEN_S:
                continue
            hours = " ".join(dict.fromkeys([*there, hour])) if 0 < len(there) <= HOURS_KEPT else ""
            hours = hours if hours.count(" ") < HOURS_KEPT else ""
            first, last = min(first, old.first_seen), max(last, old.last_seen)
        rows.append(dict(zip(("name", "domain", *_SEEN, "hours"), (name, domain, first, last, hours), strict=True)))
    return rows


def _execute_all(connection: Connection, statement: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Execute a statement for each row; SQLite's own driver is given the values in order, which spares most of it."""
    if connection.dialect.name != "sqlite":
        connection.execute(statement, rows)
        return
    compiled = statement.compile(dialect=connection.dialect, column_keys=list(rows[0]))
    values = itemgetter(*compiled.positiontup)
    connection.connection.cursor().executemany(str(compiled), list(map(values, rows)))


def _delete_rows(connection: Connection, table: Table, rows: Sequence[Any]) -> None:
    key = list(table.primary_key)
    if rows and len(key) == 1:
        connection.execute(delete(table).where(key[0].in_([row[0] for row in rows])))
    elif rows:
        connection.execute(delete(table).where(tuple_(*key).in_([tuple(row) for row in rows])))


def _batched(found: Iterable[_T]) -> Iterator[list[_T]]:
    """What is found, SUMS_AT_ONCE at a time."""
    rest = iter(found)
    while some := list(islice(rest, SUMS_AT_ONCE)):
        yield some


def _end_of_part(connection: Connection, begin: float, end: float) -> float:
    """Where a part of a span ends that has QUERIES_AT_ONCE queries; more where so many have one time."""
    times = select(_Q.ts).where(*between(begin, end), LIVE).order_by(_Q.ts)
    last = connection.execute(times.offset(QUERIES_AT_ONCE).limit(1)).scalar()
    return end if last is None else max(float(last), math.nextafter(begin, math.inf))


def _hour_sums(connection: Connection, span: Sequence[Any]) -> Iterator[tuple[tuple[str, str], Sums]]:
    """Sums of an hour by client and domain, in their order. The database groups; here is one of them at a time."""
    key = (_Q.client, _Q.domain, _Q.qtype, _Q.rcode, _Q.severity)
    counted = (func.count(), func.max(_Q.score), func.max(_Q.rlen), func.min(_Q.ts), func.max(_Q.ts))
    statement = select(*key, *counted).where(*span, LIVE).group_by(*key).order_by(_Q.client, _Q.domain)
    rows = connection.execute(statement, execution_options=_STREAMED)
    for flow, group in groupby(rows, key=itemgetter(0, 1)):
        sums = Sums(others=1)
        for _, _, qtype, rcode, level, count, score, largest, first, last in group:
            sums.queries += count
            sums.failed += count if rcode == _FAILED else 0
            sums.levels[level] += count
            sums.kinds.add((qtype, rcode, level))
            sums.types[qtype] += count
            sums.rcodes[rcode] += count
            sums.score, sums.largest = max(sums.score, score), max(sums.largest, largest)
            sums.first_seen, sums.last_seen = min(sums.first_seen, first), max(sums.last_seen, last)
        yield flow, sums


def _day_sums(rows: Iterable[Any], key: str, other: str) -> Iterator[tuple[str, Sums]]:
    """Sums of each client or domain, of rows of hours in the order of it and of what it is paired with."""
    for name, of_name in groupby(rows, key=attrgetter(key)):
        sums = Sums()
        for _, of_pair in groupby(of_name, key=attrgetter(other)):
            sums.others += 1
            for row in of_pair:
                _add(sums, row, dict(counts_in(row.types)), dict(counts_in(row.rcodes)))
        yield name, sums


def _add(sums: Sums, row: Any, types: Mapping[int, int], rcodes: Mapping[int, int]) -> None:
    sums.queries += row.queries
    sums.failed += row.failed
    for level, name in _LEVELS.items():
        sums.levels[level] += getattr(row, name)
    sums.types.update(types)
    sums.rcodes.update(rcodes)
    sums.score, sums.largest = max(sums.score, row.score), max(sums.largest, row.largest)
    sums.first_seen, sums.last_seen = min(sums.first_seen, row.first_seen), max(sums.last_seen, row.last_seen)


def _joined(seen: Iterable[tuple[tuple[str, ...], float, float]]) -> list[tuple[Any, ...]]:
    """(key, earliest, latest) of each key, in their order."""
    found: dict[tuple[str, ...], tuple[float, float]] = {}
    for key, first, last in seen:
        old = found.get(key, (first, last))
        found[key] = min(first, old[0]), max(last, old[1])
    return [(*key, *times) for key, times in sorted(found.items())]
