"""The store: one transaction a batch, the same behaviour on Postgres and SQLite. Safe to share between threads."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psycopg2
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Insert,
    Select,
    Table,
    delete,
    desc,
    event,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DataError, DisconnectionError, IntegrityError, SQLAlchemyError

from agents.core.errors import BatchRefusedError, FencedError, StoreError, UsageError
from agents.core.protocols import IncidentStore, RunStore
from agents.core.types import (
    DAY_S,
    Incident,
    Sample,
    ScheduledJob,
    Severity,
    Verdicts,
    clean,
    incident_of,
    incident_row,
    marked_id,
)
from agents.store import sampling
from agents.store.deadline import Watchdog
from agents.store.feedback.labelled import labelled_flows
from agents.store.rows import (
    BATCHES,
    INCIDENTS,
    JOBS,
    LATE_HOURS,
    QUERIES,
    RUNS,
    SLOT_TOKENS,
    TS_MAX,
    Columns,
    days_of,
    late_hours,
    metadata,
    query_columns,
    shelf_of,
    stored_query_json,
)

_Q = QUERIES.c
_I = INCIDENTS.c
PAGE_COLUMNS = [
    column for column in _Q if column.name not in {"features", "features_version", "rnd", "batch_id", "day"}
]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows; None or empty = all. `since` <= ts (of an incident: last seen) < `until`, Unix seconds.

    source: the mark of a replay; "" = what was seen live.
    """

    client: str | None = None
    domain: str | None = None
    severities: Sequence[int] = ()
    since: float | None = None
    until: float | None = None
    open_only: bool = False  # of incidents
    source: str | None = None


LIVE = _Q.day >= 0
"""Queries that were seen live."""


def between(since: float | None, until: float | None) -> list[ColumnElement[bool]]:
    """Conditions on ts, and the same on day, by which whole partitions are passed over; shelves never are."""
    conditions: list[ColumnElement[bool]] = []
    if since is not None:
        conditions += [_Q.ts >= since, or_(_Q.day >= _day(since), ~LIVE)]
    if until is not None:
        conditions += [_Q.ts < until, _Q.day <= _day(until)]
    return conditions


def rows_of_batch(connection: Connection, batch_id: str, first: float, last: float) -> int:
    """How many rows of a batch there are; all have first <= ts <= last, so that few others are looked at."""
    conditions = [_Q.batch_id == batch_id, _Q.ts <= last, *between(first, None), _Q.day <= _day(last)]
    return int(connection.execute(select(func.count()).select_from(QUERIES).where(*conditions)).scalar_one())


def _day(ts: float) -> int:
    return max(-1, min(math.floor(ts / DAY_S), 2**31 - 1)) if math.isfinite(ts) else (-1 if ts < 0 else 2**31 - 1)


def page_of(
    connection: Connection,
    wanted: Filter,
    more: Sequence[ColumnElement[bool]],
    limit: int,
    cursor: str | None,
    first: ColumnElement[Any] | None = None,
) -> tuple[list[dict[str, Any]], str | None]:
    """One page, newest first; rows of one time are ordered by id: none is shown twice or missed.

    more: further conditions. first: what is ordered by before the time; there is no next page then.
    """
    rows = rows_of(connection, wanted, more, limit + 1, cursor, first)
    following = cursor_of(rows[limit - 1]) if len(rows) > limit and first is None else None
    return [stored_query_json(row) for row in rows[:limit]], following


def rows_of(
    connection: Connection,
    wanted: Filter,
    more: Sequence[ColumnElement[bool]],
    limit: int,
    cursor: str | None = None,
    first: ColumnElement[Any] | None = None,
) -> list[dict[str, Any]]:
    """Rows as a page is made of, with their ids; arguments as of `page_of`."""
    conditions = [*between(wanted.since, wanted.until), *_named(_Q, wanted), *more]
    if wanted.source is not None:
        conditions.append(~LIVE if wanted.source else LIVE)  # so that whole partitions are passed over
    if cursor:
        ts, row_id = position_of(cursor)
        conditions += [_Q.day <= _day(ts), _Q.ts <= ts, or_(_Q.ts < ts, _Q.id < row_id)]
    order = [desc(_Q.ts), desc(_Q.id)] if first is None else [first, desc(_Q.ts)]
    statement = select(*PAGE_COLUMNS).where(*conditions).order_by(*order).limit(limit)
    return [dict(row) for row in connection.execute(statement).mappings()]


def cursor_of(row: dict[str, Any]) -> str:
    """Where a page goes on whose last row this is."""
    return f"{row['ts']!r}_{row['id']}"


def position_of(cursor: str) -> tuple[float, int]:
    """Time and id of the last row of the page before. Raises UsageError."""
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
    if wanted.source is not None:
        conditions.append(columns.source == clean(wanted.source))
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
    """The incident with this id, or the one last replayed to which `replay --json` gave it."""
    marks = connection.execute(select(_I.source).where(_I.source != "").distinct()).scalars()
    ids = [clean(incident_id), *(marked_id(incident_id, mark) for mark in marks)]
    newest = (_I.incident_id == ids[0]).desc(), _I.imported_at.desc()
    statement = select(INCIDENTS).where(_I.incident_id.in_(ids)).order_by(*newest).limit(1)
    row = connection.execute(statement).mappings().first()
    return None if row is None else incident_of(dict(row))


def severity_counts(connection: Connection, since: float, until: float, replayed: bool) -> dict[int, int]:
    conditions = between(since, until) + ([] if replayed else [LIVE])
    statement = select(_Q.severity, func.count()).where(*conditions).group_by(_Q.severity)
    return dict(connection.execute(statement).all())


def runs(connection: Connection, limit: int) -> list[dict[str, Any]]:
    statement = select(RUNS).order_by(desc(RUNS.c.started_at), desc(RUNS.c.run_id)).limit(limit)
    return [{**row, "payload": json.loads(row["payload"])} for row in connection.execute(statement).mappings()]


_REFUSALS = (
    *(DataError, psycopg2.DataError, sqlite3.DataError),
    *(IntegrityError, psycopg2.IntegrityError, sqlite3.IntegrityError),
)
"""The rows are at fault; from SQLAlchemy, or from a driver that is used directly."""
_NO_TABLE = {
    text.format(name) for text in ("no such table: {}", 'relation "{}" does not exist') for name in metadata.tables
}
"""What SQLite and Postgres say of a new database that nobody has prepared yet."""


WRITE_S, READ_S, LOOK_S = 10.0, 20.0, 2.0
"""Seconds that the client waits: for a batch or a row to be written, for a page to be read, for whether it answers."""
MERGED_S = 60.0
"""The same for several batches at once."""
LONG_S = 3600.0
"""The same for what looks at all rows: a change of tables, a sample, the deletion of what is old."""


class Database(Protocol):
    """Transactions: what classes and functions of one kind of rows need."""

    def reading(self, what: str, limit_s: float = READ_S) -> AbstractContextManager[Connection]:
        """A transaction that reads; what: the end of "cannot …" in a StoreError."""
        ...

    def writing(self, what: str, limit_s: float = WRITE_S) -> AbstractContextManager[Connection]:
        """A transaction that writes; what: the end of "cannot …" in a StoreError."""
        ...

    def upsert(self, table: Table) -> Any:
        """The database's own `insert`, with on_conflict_do_update."""
        ...

    def check_fences(self, connection: Connection, fences: set[tuple[str, int]]) -> None:
        """Raise FencedError where a newer token has written for a slot; else note that these have."""
        ...


class IncidentDatabase(Database, IncidentStore, Protocol):
    """Transactions, and incidents."""


class RunDatabase(Database, RunStore, Protocol):
    """Transactions, and what became of retrainings."""

    def close(self) -> None:
        """Give up its connections."""
        ...


class Store(ABC):
    """Queries, incidents and runs. Every method raises StoreError, in one line and without the password.

    No method takes much longer than its limit, though the server be stopped or the network swallow all (deadline.py).
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._watchdog = Watchdog(self._cut)
        event.listen(engine, "do_connect", self._on_connecting)
        event.listen(engine, "checkout", self._on_checkout)

    @abstractmethod
    def _cut(self, driver: Any) -> None:
        """End what a driver's connection waits for, from another thread."""

    def _on_connecting(self, dialect: Any, _: object, arguments: Any, options: Any) -> Any:
        """Connect; what the dialect asks a new server has a limit, too."""
        driver = dialect.connect(*arguments, **options)
        self._watchdog.use(driver)
        return driver

    def _on_checkout(self, driver: Any, record: Any, _: object) -> None:
        """A connection out of the pool may be dead, or its server stopped: then another one is made."""
        if driver in self._watchdog.used():
            return
        self._watchdog.use(driver)
        try:
            with self._watchdog.within(LOOK_S):
                self._watchdog.use(driver)
                self._engine.dialect.do_ping(driver)
        except (psycopg2.Error, sqlite3.Error):
            raise DisconnectionError from None

    @abstractmethod
    def _allow(self, connection: Connection, limit_s: float) -> None:
        """Let each statement of a transaction take as long."""

    @abstractmethod
    def migrate(self) -> None:
        """Bring the tables to the newest revision. Safe when several processes do it at once."""

    @abstractmethod
    def drop_old(self, before_day: int) -> int:
        """Drop the live queries of all days before `before_day` (days since 1970-01-01); how many there were.

        Batches written before that day are forgotten too. Writers are not kept waiting meanwhile.
        """

    @abstractmethod
    def drop_replays(self, before_day: int) -> int:
        """Drop the queries that replays stored before that day, whatever their own time; how many there were."""

    @abstractmethod
    def _shelves(self, connection: Connection) -> list[int]:
        """Values of `day` of replayed queries, earliest import first; some may have none any more."""

    @abstractmethod
    def _prepare(self, days: Sequence[int]) -> None:
        """Make room for rows of these days."""

    @abstractmethod
    def _insert(self, connection: Connection, parts: Sequence[Columns]) -> None:
        """Write the queries of several batches."""

    @abstractmethod
    def upsert(self, table: Table) -> Any:
        """The database's own `insert`, with on_conflict_do_update."""

    @abstractmethod
    def _found(self, connection: Connection, statement: Select[Any]) -> sampling.Found:
        """The rows of a statement that selects sampling.COLUMNS."""

    @abstractmethod
    def copy_csv(self, connection: Connection, statement: Select[Any], path: Path) -> None:
        """Write the rows of a statement to a file (RFC 4180, UTF-8); NULL is an empty field. Raises OSError."""

    def close(self) -> None:
        self._engine.dispose()

    @abstractmethod
    def fold(self) -> None:
        """Nobody else uses the database any more: put what lies beside it into it. Never raises."""

    def prepare(self, days: Sequence[int]) -> None:
        """Make room for rows of days to come, so that no writer needs to at midnight."""
        with self._guard("make room for days to come", LONG_S):
            self._prepare(days)

    def forget(self, before: float) -> tuple[int, int]:
        """Delete closed live incidents last seen, and retrainings started, before that time: how many of each.

        The newest retraining stays.
        """
        old = (_I.closed_at.is_not(None), _I.last_seen < before, _I.source == "")
        newest = select(func.max(RUNS.c.started_at)).scalar_subquery()
        with self._guard("delete old incidents", LONG_S), self._writer.begin() as connection:
            incidents = connection.execute(delete(INCIDENTS).where(*old)).rowcount
            runs = connection.execute(delete(RUNS).where(RUNS.c.started_at < before, RUNS.c.started_at < newest))
            return incidents, runs.rowcount

    def forget_replays(self, before_day: int) -> int:
        """Delete incidents that replays stored before that day, open ones of a broken-off replay, too; how many."""
        old = (_I.source != "", _I.imported_at < before_day * DAY_S)
        with self._guard("delete old incidents", LONG_S), self._writer.begin() as connection:
            return connection.execute(delete(INCIDENTS).where(*old)).rowcount

    def erase_queries(self, client: str) -> int:
        """Delete the queries of a client, replayed ones among them; how many."""
        with self._guard("erase a client's queries", LONG_S), self._writer.begin() as connection:
            return connection.execute(delete(QUERIES).where(_Q.client == client)).rowcount

    def stored_days(self) -> list[int]:
        """Days that have live queries, ascending, in days since 1970-01-01."""
        with self.reading("read the stored days", LONG_S) as connection:
            return sampling.days_between(connection, 0.0, TS_MAX)

    def import_days(self) -> list[int]:
        """Days on which replays stored queries or incidents that are kept, ascending, in days since 1970-01-01."""
        statement = select(_I.imported_at).where(_I.source != "").distinct()
        with self.reading("read the stored days", LONG_S) as connection:
            shelves = {shelf_of(shelf) for shelf in self._shelves(connection)}
            return sorted(shelves | {int(at // DAY_S) for at in connection.execute(statement).scalars()})

    def ping(self) -> None:
        """Raise StoreError when the database is away or has no tables."""
        with self.reading("reach the database", LOOK_S) as connection:
            connection.execute(select(BATCHES.c.batch_id).limit(1)).first()

    def write(self, verdicts: Verdicts, batch_id: str) -> int:
        """Store a batch and its incidents in one transaction; the number of rows written.

        A batch that is there already is left alone (0). Raises BatchRefusedError when the rows are at fault.
        """
        return self.write_all([(verdicts, batch_id)])

    def write_all(self, batches: Sequence[tuple[Verdicts, str]]) -> int:
        """Store several batches, each as `write` does, in one transaction: all of them, or none."""
        for verdicts, _ in batches:
            _check(verdicts)
        days = {int(day) for verdicts, _ in batches for day in np.unique(days_of(verdicts))}
        with self._guard("write a batch", WRITE_S if len(batches) == 1 else MERGED_S):
            self._prepare(sorted(days))
            with self._writer.begin() as connection:
                self.check_fences(connection, {one.fence for one, _ in batches if one.fence is not None})
                claimed = self._claim(connection, [batch_id for _, batch_id in batches])
                new = [one for one in batches if one[1] in claimed]
                parts = [query_columns(verdicts, batch_id) for verdicts, batch_id in new if len(verdicts)]
                if parts:
                    self._insert(connection, parts)
                    self._note_late(connection, [verdicts for verdicts, _ in new])
                self._put_incidents(connection, [incident for verdicts, _ in new for incident in verdicts.incidents])
        return sum(len(verdicts) for verdicts, _ in new)

    def check_fences(self, connection: Connection, fences: set[tuple[str, int]]) -> None:
        """Raise FencedError where a newer token has written for a slot; else note that these have."""
        for slot, token in sorted(fences):
            known = select(SLOT_TOKENS.c.token).where(SLOT_TOKENS.c.slot == slot).with_for_update(read=True)
            if connection.execute(known).scalar() == token:
                continue
            if not connection.execute(self._fencing, {"slot": slot, "token": token}).rowcount:
                raise FencedError(f"cannot write for slot {slot}: another detector has taken it over")

    @cached_property
    def _fencing(self) -> Insert:
        statement = self.upsert(SLOT_TOKENS)
        new = statement.excluded
        fencing: Insert = statement.on_conflict_do_update(
            index_elements=["slot"], set_={"token": new.token}, where=new.token >= SLOT_TOKENS.c.token
        )
        return fencing

    def rows_of_batch(self, batch_id: str, first: float, last: float) -> int:
        """How many rows are stored under this id; first and last: Unix seconds that the batch lies between."""
        with self.reading("count a batch", LOOK_S) as connection:
            return rows_of_batch(connection, batch_id, first, last)

    def _claim(self, connection: Connection, batch_ids: Sequence[str]) -> set[str]:
        """Those of the ids that are not there yet, and are now."""
        rows = [{"batch_id": batch_id, "written_at": time.time()} for batch_id in batch_ids]
        if len(rows) == 1:  # live: a statement that is compiled once
            return set(batch_ids) if connection.execute(self._claiming, rows[0]).rowcount else set()
        statement = self.upsert(BATCHES).values(rows).on_conflict_do_nothing().returning(BATCHES.c.batch_id)
        return set(connection.execute(statement).scalars())

    def _note_late(self, connection: Connection, parts: Sequence[Verdicts]) -> None:
        now = time.time()
        late = set[int]().union(*(late_hours(one, now) for one in parts))
        if late:  # sorted: one order for all writers, no deadlock
            connection.execute(self._noting_late, [{"hour": hour, "version": time.time_ns()} for hour in sorted(late)])

    @cached_property
    def _noting_late(self) -> Insert:
        statement = self.upsert(LATE_HOURS)
        again = {"version": LATE_HOURS.c.version + 1}
        noting: Insert = statement.on_conflict_do_update(index_elements=["hour"], set_=again)
        return noting

    @cached_property
    def _claiming(self) -> Insert:
        statement: Insert = self.upsert(BATCHES).on_conflict_do_nothing()
        return statement

    def _put_incidents(self, connection: Connection, incidents: Iterable[Incident]) -> None:
        newest = {incident.incident_id: incident for incident in incidents}
        for _, incident in sorted(newest.items()):  # one order for all writers: no deadlock
            connection.execute(self._updating, incident_row(incident))

    @cached_property
    def _updating(self) -> Insert:
        statement = self.upsert(INCIDENTS)
        new = statement.excluded
        updating: Insert = statement.on_conflict_do_update(
            index_elements=["incident_id"],
            set_={column.name: new[column.name] for column in INCIDENTS.c if not column.primary_key},
            where=new.last_seen >= INCIDENTS.c.last_seen,
        )
        return updating

    def queries(
        self,
        *,
        client: str | None = None,
        domain: str | None = None,
        severities: Sequence[int] = (),
        since: float | None = None,
        until: float | None = None,
        source: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> tuple[list[dict[str, Any]], str | None]:
        """One page of stored queries, newest first, ready for JSON, and the cursor of the next page.

        `since` <= ts < `until`, Unix seconds; source: as in Filter. Raises UsageError for a cursor that no page gave.
        """
        wanted = Filter(client, domain, severities, since, until, source=source)
        with self.reading("read queries") as connection:
            return page_of(connection, wanted, (), limit, cursor)

    def incidents(
        self,
        *,
        client: str | None = None,
        domain: str | None = None,
        severities: Sequence[int] = (),
        since: float | None = None,
        until: float | None = None,
        open_only: bool = False,
        source: str | None = None,
        limit: int,
    ) -> list[Incident]:
        """Incidents, last seen first. `since` <= last seen < `until`, Unix seconds; source: as in Filter."""
        wanted = Filter(client, domain, severities, since, until, open_only, source)
        with self.reading("read incidents") as connection:
            return incidents(connection, wanted, limit)

    def incident(self, client: str, domain: str) -> Incident | None:
        """The newest incident of a client and a domain."""
        found = self.incidents(client=client, domain=domain, limit=1)
        return found[0] if found else None

    def incident_by_id(self, incident_id: str) -> Incident | None:
        with self.reading("read incidents") as connection:
            return incident_by_id(connection, incident_id)

    def open_incidents(self) -> list[Incident]:
        """Live incidents that were not closed when the last process ended, to go on with."""
        with self.reading("read incidents") as connection:
            return incidents(connection, Filter(open_only=True, source=""), None)

    def severity_counts(self, *, since: float, until: float, replayed: bool = False) -> list[tuple[str, int]]:
        """(severity name, live queries with since <= ts < until), mildest first, every severity once.

        replayed: those of replays, too.
        """
        with self.reading("count queries") as connection:
            counts = severity_counts(connection, since, until, replayed)
        return [(severity.name, counts.get(int(severity), 0)) for severity in Severity]

    def sample_normal(
        self,
        *,
        since: float,
        until: float,
        limit: int,
        max_score: float,
        client_share: float,
        domain_share: float,
        features_version: int,
        seed: int,
        replayed: bool = False,
    ) -> Sample:
        """NORMAL live queries to learn from: see agents.store.sampling. replayed: those of replays, too.

        Queries of labelled flows are not among them, nor below domains that people look at or decided about.
        """
        wanted = sampling.Wanted(since, until, limit, max_score, client_share, domain_share, features_version, seed)
        with self.reading("sample queries", LONG_S) as connection:
            wanted = replace(wanted, labelled=labelled_flows(connection, since, until))
            shelves = self._shelves(connection) if replayed else ()
            return sampling.sample(connection, wanted, self._found, shelves)

    def save_run(self, run_id: str, *, started_at: float, state: str, payload: dict[str, Any]) -> None:
        """Keep a retraining, or what has become of it. `payload` must be JSON."""
        values = {"run_id": run_id, "started_at": started_at, "state": state, "payload": json.dumps(payload)}
        statement = self.upsert(RUNS).values(values)
        statement = statement.on_conflict_do_update(index_elements=["run_id"], set_=values)
        with self._guard(f"save run {run_id}"), self._writer.begin() as connection:
            connection.execute(statement)

    def runs(self, *, limit: int) -> list[dict[str, Any]]:
        """Retrainings, newest first: run_id, started_at, state, payload."""
        with self.reading("read runs") as connection:
            return runs(connection, limit)

    def jobs(self) -> list[ScheduledJob]:
        """The jobs of the scheduler."""
        with self.reading("read the schedule") as connection:
            return [ScheduledJob(**row) for row in connection.execute(select(JOBS)).mappings()]

    def save_job(self, job: ScheduledJob) -> None:
        """Keep a job's schedule and times."""
        values = asdict(job)
        statement = self.upsert(JOBS).values(values).on_conflict_do_update(index_elements=["name"], set_=values)
        with self._guard("save the schedule"), self._writer.begin() as connection:
            connection.execute(statement)

    def take_job(self, job: ScheduledJob, now: float, next_run: float) -> bool:
        """Note that a due job runs now, and when it is due next; False where somebody else has done that."""
        due = (JOBS.c.name == job.name, JOBS.c.next_run == job.next_run)
        statement = update(JOBS).where(*due).values(last_run=now, next_run=next_run)
        with self._guard("save the schedule"), self._writer.begin() as connection:
            return bool(connection.execute(statement).rowcount)

    @contextmanager
    def reading(self, what: str, limit_s: float = READ_S) -> Iterator[Connection]:
        """A transaction that reads; what: the end of "cannot …" in a StoreError."""
        with self._guard(what, limit_s), self._engine.begin() as connection:
            self._allow(connection, limit_s)
            yield connection

    @contextmanager
    def writing(self, what: str, limit_s: float = WRITE_S) -> Iterator[Connection]:
        """A transaction that writes; what: the end of "cannot …" in a StoreError."""
        with self._guard(what, limit_s), self._writer.begin() as connection:
            self._allow(connection, limit_s)
            yield connection

    @contextmanager
    def _guard(self, what: str, limit_s: float = WRITE_S) -> Iterator[None]:
        """Turn the database's errors into ours, and end what takes longer than `limit_s`."""
        with self._watchdog.within(limit_s) as operation:
            try:
                yield
            except _REFUSALS as error:
                raise BatchRefusedError(f"cannot {what}: {self._one_line(error)}") from None
            except (SQLAlchemyError, psycopg2.Error, sqlite3.Error) as error:
                if operation.cut:
                    raise StoreError(f"cannot {what}: no answer within {limit_s:g} s") from None
                raise self._failure(f"cannot {what}: {self._one_line(error)}", error) from None

    def _failure(self, text: str, error: Exception) -> StoreError:
        return StoreError(text)

    def _one_line(self, error: Exception) -> str:
        text = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        if text in _NO_TABLE:
            return "the database has no tables yet"
        password = self._engine.url.password
        return text.replace(str(password), "***") if password else text


def _check(verdicts: Verdicts) -> None:
    ts = verdicts.queries.ts
    if not np.all((ts >= 0) & (ts < TS_MAX)):
        raise BatchRefusedError("cannot write a batch: a query has no usable time")
