"""Incidents that a search finds: a page by cursor, how many there are of each kind, and all of them for export."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Text, and_, cast, desc, false, func, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import KeyedColumnElement
from sqlalchemy.sql.visitors import InternalTraversal

from agents.core.text import NETWORK
from agents.core.types import DAY_S, Incident, Severity, clean, incident_of
from agents.store.console.counting import MANY, FacetAnswer, FacetCounts
from agents.store.console.ordering import IncidentOrder
from agents.store.console.tables import TRIAGE, TRIAGE_CHANGES
from agents.store.console.terms import NONE_TYPED, OF_QUERIES, Terms, registered_of
from agents.store.feedback.reviews import ReviewState
from agents.store.rows import INCIDENTS
from agents.store.sql import Database

_I, _T = INCIDENTS.c, TRIAGE.c
_FROM = INCIDENTS.outerjoin(TRIAGE, _T.incident_id == _I.incident_id)
_STATE = func.coalesce(_T.state, str(ReviewState.NEW))
_LABEL, _ASSIGNEE, _TOOL = func.coalesce(_T.label, ""), func.coalesce(_T.assignee, ""), func.coalesce(_I.tool, "")


class _OfEvidence(ColumnElement[str]):
    """A text of the evidence; "" where it has none. The database itself makes a column of each."""

    inherit_cache = True
    type = Text()
    _traverse_internals = [("name", InternalTraversal.dp_string)]  # noqa: RUF012 - as the base class has it

    def __init__(self, name: str) -> None:
        self.name = name


@compiles(_OfEvidence)
def _in_sql(element: _OfEvidence, compiler: SQLCompiler, **_: Any) -> str:
    return f"incidents.{element.name}"


FACETS: Mapping[str, ColumnElement[Any]] = {
    "severity": _I.severity,
    "state": _STATE,
    "label": _LABEL,
    "assignee": _ASSIGNEE,
    "tool": _TOOL,
    "kind": _OfEvidence("kind"),
    "model": _OfEvidence("model"),
    "day": cast(func.floor(_I.last_seen / DAY_S), Integer),
    "client": _I.client,
    "domain": _I.domain,
}
"""What a list is narrowed by, and counted for. kind: the sum that was beyond its limit; model: the one in use then;
day: when it was last seen, days since 1970-01-01."""
EXPORT_PAGE, EXPORT_IDS = 500, 20_000
"""Incidents that an export reads at once, and ids of those to come: for these, all that are found are sorted."""
NO_SUCH = -2
"""A number that no row has."""


@dataclass(frozen=True, slots=True)
class IncidentSearch:
    """Which incidents. Facets: () = any; "" is a value of label, assignee and tool: none."""

    terms: Terms = field(default_factory=Terms)
    client: Sequence[str] = ()  # exactly
    domain: Sequence[str] = ()
    severity: Sequence[int] = ()
    state: Sequence[str] = ()
    label: Sequence[str] = ()
    assignee: Sequence[str] = ()
    tool: Sequence[str] = ()
    kind: Sequence[str] = ()
    model: Sequence[str] = ()
    day: Sequence[int] = ()
    detected_until: float | None = None  # whether it was detected before, Unix seconds
    explained: bool | None = None  # whether a kind of benign service may explain it
    going_on: bool | None = None  # whether the detector still sees it
    source: str | None = None  # mark of a replay; "" = what was seen live
    order: IncidentOrder = field(default_factory=IncidentOrder)


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """One page, in the order of its search."""

    incidents: Sequence[Incident]
    cursor: str | None  # of the next page
    count: int  # of all pages
    facets: dict[str, list[tuple[Any, int]]] = field(default_factory=dict)
    counted_at: float = field(default_factory=time.time)  # Unix seconds


class IncidentFinder:
    """Searches in a store. Every method raises StoreError."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._counts = FacetCounts(FACETS, _FROM)

    def page(
        self, search: IncidentSearch, *, limit: int = 50, cursor: str | None = None, counted: bool = True
    ) -> IncidentPage:
        """One page. counted: with the number of all, and of each value of a facet under all other conditions."""
        with self._store.reading("read incidents") as connection:
            known = _known_clients(connection, search.terms)
            conditions = _conditions(search, known)
            places = _places(connection, search.order, conditions, cursor, limit + 1)
            found = _by_id(connection, places[:limit])
            told = self._counted(connection, search, known) if counted else FacetAnswer(len(places))
        following = search.order.cursor_at(places[limit - 1]) if len(places) > limit else None
        return IncidentPage(found, following, told.count, told.facets, told.at)

    def _counted(self, connection: Connection, search: IncidentSearch, known: Sequence[str] | None) -> FacetAnswer:
        chosen = {name: _values(search, name) for name in FACETS}
        none: dict[str, Any] = {name: () for name in FACETS if name not in MANY}
        alike = replace(search, order=IncidentOrder(), **none)
        changes = connection.execute(select(func.max(TRIAGE_CHANGES.c.change_id))).scalar()
        key = repr(alike), str(changes)
        return self._counts.of(connection, lambda without: _conditions(search, known, without), chosen, key)

    def ids(self, search: IncidentSearch, most: int) -> list[str]:
        """Ids of what is found, in its order, at most so many."""
        with self._store.reading("read incidents") as connection:
            conditions = _conditions(search, _known_clients(connection, search.terms))
            return [place[-1] for place in _places(connection, search.order, conditions, None, most)]

    def pages(self, search: IncidentSearch) -> Iterator[Sequence[Incident]]:
        """All that are found, some at a time, in the order of the search."""
        cursor: str | None = None
        while True:
            with self._store.reading("read incidents") as connection:
                conditions = _conditions(search, _known_clients(connection, search.terms))
                places = _places(connection, search.order, conditions, cursor, EXPORT_IDS)
            for at in range(0, len(places), EXPORT_PAGE):
                with self._store.reading("read incidents") as connection:
                    found = _by_id(connection, places[at : at + EXPORT_PAGE])
                yield found
            if len(places) < EXPORT_IDS:
                return
            cursor = search.order.cursor_at(places[-1])

    def waiting(self) -> dict[str, int]:
        """How many live incidents, HIGH and above, nobody has closed: by state, and how many are CRITICAL."""
        not_closed = _STATE.in_([str(ReviewState.NEW), str(ReviewState.IN_WORK)])
        loud: list[ColumnElement[bool]] = [_I.severity >= int(Severity.HIGH), _I.source == "", not_closed]
        by_state = select(_STATE, func.count()).select_from(_FROM).where(*loud).group_by(_STATE)
        critical = select(func.count()).select_from(_FROM).where(*loud, _I.severity == int(Severity.CRITICAL))
        with self._store.reading("count incidents") as connection:
            found = {str(state): int(count) for state, count in connection.execute(by_state)}
            loudest = int(connection.execute(critical).scalar_one())
        return {str(state): found.get(str(state), 0) for state in ReviewState} | {"critical": loudest}

    def around(self, incident: Incident, limit: int) -> list[Incident]:
        """Other incidents of its client or below its domain, last seen first."""
        client = and_(_I.client == incident.client, _I.client != NETWORK)
        same = or_(client, and_(_I.domain == incident.domain, _I.domain != "."))
        with self._store.reading("read incidents") as connection:
            return _rows(connection, [same, _I.incident_id != incident.incident_id], limit)[:limit]

    def neighbours(self, search: IncidentSearch, incident: Incident) -> tuple[str | None, str | None]:
        """Ids of the incidents before and after one in a list; None at its ends."""
        order, at = search.order, search.order.place_of(incident)
        with self._store.reading("read incidents") as connection:
            conditions = _conditions(search, _known_clients(connection, search.terms))
            beside = [
                select(_I.incident_id)
                .select_from(_FROM)
                .where(*conditions, order.behind(at, backwards=backwards))
                .order_by(*order.clauses(backwards=backwards))
                .limit(1)
                for backwards in (True, False)
            ]
            above, below = (connection.execute(one).scalar() for one in beside)
        return above, below


def _rows(connection: Connection, conditions: Sequence[ColumnElement[bool]], limit: int) -> list[Incident]:
    statement = select(INCIDENTS).select_from(_FROM).where(*conditions)
    statement = statement.order_by(desc(_I.last_seen), _I.incident_id).limit(limit + 1)
    return [incident_of(dict(row)) for row in connection.execute(statement).mappings()]


def _places(
    connection: Connection,
    order: IncidentOrder,
    conditions: Sequence[ColumnElement[bool]],
    cursor: str | None,
    limit: int,
) -> list[tuple[Any, ...]]:
    """Places of the incidents that come next; no more columns, since without an index they are all sorted."""
    further = [order.after(cursor)] if cursor else []
    statement = select(*order.columns).select_from(_FROM).where(*conditions, *further)
    return [tuple(row) for row in connection.execute(statement.order_by(*order.clauses()).limit(limit))]


def _by_id(connection: Connection, places: Sequence[tuple[Any, ...]]) -> list[Incident]:
    """The incidents in their order, but those that are gone by now."""
    ids = [place[-1] for place in places]
    rows = connection.execute(select(INCIDENTS).where(_I.incident_id.in_(ids))).mappings()
    found = {row["incident_id"]: incident_of(dict(row)) for row in rows}
    return [found[one] for one in ids if one in found]


def _known_clients(connection: Connection, terms: Terms) -> list[str] | None:
    """Clients of incidents within the networks of a search; None where it names no network."""
    if not terms.networks:
        return None
    clients = connection.execute(select(_I.client).distinct()).scalars()
    return within(clients.all(), terms.networks)


def within(clients: Sequence[str], networks: Sequence[str]) -> list[str]:
    """Those of the addresses that lie in one of the networks."""
    wanted = [ipaddress.ip_network(one) for one in networks]
    found = []
    for client in clients:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            continue
        if any(address in network for network in wanted if network.version == address.version):
            found.append(client)
    return found


def _conditions(
    search: IncidentSearch, known: Sequence[str] | None, without: Collection[str] = ()
) -> list[ColumnElement[bool]]:
    terms = search.terms
    found = _named(terms, known)
    if terms.since is not None:
        found.append(_I.last_seen >= terms.since)
    if terms.until is not None:
        found.append(_I.last_seen < terms.until)
    if terms.score_from is not None:
        found.append(_I.score >= terms.score_from)
    if terms.score_to is not None:
        found.append(_I.score <= terms.score_to)
    found += [_I.reasons.icontains(why, autoescape=True) for why in terms.of("why")]
    for name, column in FACETS.items():
        values = _values(search, name)
        if values and name not in without:
            found.append(_on_days(values) if name == "day" else column.in_(values))
    if any(map(terms.of, OF_QUERIES)):
        found.append(false())
    if search.detected_until is not None:
        found.append(_I.detected_at < search.detected_until)
    if search.explained is not None:
        explained = _I.evidence.contains('"explanation"')
        found.append(explained if search.explained else ~explained)
    if search.going_on is not None:
        found.append(_I.closed_at.is_(None) if search.going_on else _I.closed_at.is_not(None))
    if search.source is not None:
        found.append(_I.source == clean(search.source))
    return found


def _on_days(days: Sequence[int]) -> ColumnElement[bool]:
    """Whether an incident was last seen on one of these days; an index of times finds them."""
    return or_(*(and_(_I.last_seen >= day * DAY_S, _I.last_seen < (day + 1) * DAY_S) for day in days))


def _values(search: IncidentSearch, name: str) -> list[Any]:
    """Values of a facet that are given, or typed."""
    given = [clean(one) if isinstance(one, str) else one for one in getattr(search, name)]
    return [*given, *_typed(search.terms, name)]


def _typed(terms: Terms, name: str) -> list[Any]:
    """Values of a facet that the search names itself."""
    if name != "severity":
        return ["" if one == NONE_TYPED else one for one in terms.of(name)]
    return [*map(severity_number, terms.of(name))]


def severity_number(text: str) -> int:
    """A severity by its name; NO_SUCH for another word: it has no rows."""
    return int(Severity[text.upper()]) if text.upper() in Severity.__members__ else NO_SUCH


def _named(terms: Terms, known: Sequence[str] | None) -> list[ColumnElement[bool]]:
    """Who, and below which domain; every word has to be somewhere."""
    found: list[ColumnElement[bool]] = []
    if terms.clients or known is not None:
        found.append(_I.client.in_([*terms.clients, *(known or ())]))
    if terms.domains or terms.patterns:
        either: list[ColumnElement[bool]] = []
        either += [_I.domain.in_(sorted({*terms.domains, *map(registered_of, terms.domains)}))] if terms.domains else []
        either += [matches(_I.domain, pattern) for pattern in terms.patterns]
        either += [_I.sample_names.icontains(part, autoescape=True) for part in terms.domains]
        found.append(or_(false(), *either))
    for word in terms.words:
        texts = (_I.domain, _I.client, _TOOL, _ASSIGNEE, _I.sample_names)
        found.append(or_(*(text.icontains(word, autoescape=True) for text in texts)))
    return found


def matches(column: KeyedColumnElement[str], pattern: str) -> ColumnElement[bool]:
    """Whether a name matches a pattern in which * stands for any text, whatever its letter case."""
    escaped = pattern.replace("/", "//").replace("%", "/%").replace("_", "/_").replace("*", "%")
    return column.ilike(escaped, escape="/")
