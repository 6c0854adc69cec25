"""Incidents over the API: searched, exported as they are shown, triaged in bulk, undone; and views that are shared."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date, timedelta
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from pydantic import StringConstraints
from starlette.responses import StreamingResponse

from agents.core.errors import UsageError
from agents.core.types import Incident, Severity
from agents.store.console.exporting import csv_lines, row_of
from agents.store.console.finding import IncidentSearch
from agents.store.console.ordering import SORT_HELP, order_of
from agents.store.console.terms import OF_QUERIES, parse_search
from agents.store.console.triage import FOUND_MAX, Change, Triage
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewState
from agents.web.api import (
    PROBLEMS,
    Limit,
    Replayed,
    Severities,
    Since,
    Until,
    known_parameters,
)
from agents.web.auth import author_of
from agents.web.console.incident_context import context_of
from agents.web.console.schemas import (
    IncidentContext,
    SavedViewEntry,
    SavedViewKeep,
    SavedViewList,
    SavedViewRemove,
    TriageChange,
    TriageDone,
    TriageEntry,
    TriageHistory,
    TriageOfFound,
    TriageSaid,
    TriageUndo,
)
from agents.web.parts import Parts, parts_of
from agents.web.schemas import (
    IncidentDetail,
    IncidentList,
    LabelName,
    Problem,
    ReviewStateName,
    TriageItem,
    incident_brief,
    incident_detail,
    incident_item,
)

CURSOR_MAX = 1_200
"""Characters of a cursor: it may hold a domain in presentation form."""
Text = Annotated[
    str | None,
    Query(
        max_length=1024,
        description="client, CIDR, domain, *, part of a name, `last 2h`, `2026-11-20..21`, severity:high, tool:x …",
        examples=["10.0.0.0/8 last 2h"],
    ),
]
Clients = Annotated[
    list[Annotated[str, StringConstraints(max_length=64)]] | None,
    Query(max_length=100, description="address of the client: repeat it for several", examples=[["192.0.2.7"]]),
]
Domains = Annotated[
    list[Annotated[str, StringConstraints(max_length=1024)]] | None,
    Query(max_length=100, description="registered domain: repeat it for several", examples=[["evil.example"]]),
]
States = Annotated[list[ReviewStateName] | None, Query(description="what people said: repeat it for several")]
Labels = Annotated[list[LabelName | Literal["none"]] | None, Query(description="none = not labelled")]
Names = Annotated[list[str] | None, Query(max_length=100, description="none = nobody's, no known tool, kind or model")]
Days = Annotated[
    list[date] | None, Query(max_length=100, description="last seen on it, UTC: repeat it", examples=[["2026-01-04"]])
]
Sort = Annotated[str, Query(max_length=40, description=SORT_HELP, examples=["severity", "first_seen:up"])]
PageCursor = Annotated[
    str | None, Query(max_length=CURSOR_MAX, description="what the page before gave as its cursor, in the same order")
]
Cursor = Annotated[str | None, Query(max_length=80, description="what the page before gave as its cursor")]
IncidentId = Annotated[
    str, Path(pattern="^[0-9a-f]{16}$", examples=["9c1f0a7be2d34455"], description="as /incidents gives it")
]
EXPORT_MAX = 100_000
"""Incidents, or queries, of one export, at most."""
NONE = "none"
router = APIRouter(prefix="/incidents", responses=PROBLEMS)
views_router = APIRouter(prefix="/views", responses=PROBLEMS, dependencies=[Depends(known_parameters)])


def search_of(
    client: Clients = None,
    domain: Domains = None,
    severity: Severities = None,
    since: Since = None,
    until: Until = None,
    open_only: Annotated[bool, Query(alias="open", description="only those that are not closed")] = False,
    source: Replayed = None,
    q: Text = None,
    state: States = None,
    label: Labels = None,
    assignee: Names = None,
    tool: Names = None,
    kind: Names = None,
    model: Names = None,
    day: Days = None,
    explained: Annotated[bool | None, Query(description="whether a kind of benign service may explain it")] = None,
    sort: Sort = "",
) -> IncidentSearch:
    """The search that the parameters of a request ask for. Times are of `last_seen`."""
    return IncidentSearch(
        terms=parse_search(q or "", time.time(), OF_QUERIES).narrowed(since, until),
        client=client or (),
        domain=domain or (),
        severity=[int(Severity[name]) for name in severity or ()],
        state=state or (),
        label=["" if one == NONE else one for one in label or ()],
        assignee=["" if one == NONE else one for one in assignee or ()],
        tool=["" if one == NONE else one for one in tool or ()],
        kind=["" if one == NONE else one for one in kind or ()],
        model=["" if one == NONE else one for one in model or ()],
        day=[(one - date(1970, 1, 1)).days for one in day or ()],
        explained=explained,
        going_on=True if open_only else None,
        source=source,
        order=order_of(sort),
    )


Search = Annotated[IncidentSearch, Depends(search_of)]


@router.get("", summary="Incidents, sorted", dependencies=[Depends(known_parameters)])
def incidents(request: Request, search: Search, limit: Limit = 100, cursor: PageCursor = None) -> IncidentList:
    """One incident is one tunnel: a client and a registered domain. With what people said of each."""
    console = parts_of(request).console
    page = console.finder.page(search, limit=limit, cursor=cursor)
    said = console.triage.of(one.incident_id for one in page.incidents)
    items = [incident_item(one, triage_item(said[one.incident_id])) for one in page.incidents]
    facets = {name: [(shown(name, value), count) for value, count in found] for name, found in page.facets.items()}
    terms = search.terms
    return IncidentList(
        incidents=items, cursor=page.cursor, count=page.count, facets=facets, counted_at=page.counted_at,
        understood=terms.understood, not_understood=list(terms.not_understood),
    )  # fmt: skip


def shown(facet: str, value: Any) -> str:
    """A value of a facet, as an address and the API name it."""
    if facet == "day":
        return (date(1970, 1, 1) + timedelta(days=value)).isoformat()
    return Severity(value).name if facet == "severity" else str(value) or NONE


def triage_item(said: Triage) -> TriageItem:
    return TriageItem(**asdict(said) | {"changed_at": said.changed_at or None})


@router.get(
    "/export", summary="All incidents of a search, as CSV or JSON lines", dependencies=[Depends(known_parameters)]
)
def export(request: Request, search: Search, format: Literal["csv", "json"] = "csv") -> Response:
    """Exactly what the same parameters list, all pages of it in their order, up to 100,000."""
    rows = _exported(parts_of(request), search)
    lines = csv_lines(rows) if format == "csv" else (json.dumps(row) + "\n" for row in rows)
    return export_file("incidents", "csv" if format == "csv" else "ndjson", lines)


def export_file(name: str, kind: Literal["csv", "ndjson"], lines: Iterator[str]) -> Response:
    """Lines as a file that a browser keeps."""
    media = "text/csv" if kind == "csv" else "application/x-ndjson"
    named = {"Content-Disposition": f'attachment; filename="{name}.{kind}"'}
    return StreamingResponse(lines, media_type=f"{media}; charset=utf-8", headers=named)


def _exported(parts: Parts, search: IncidentSearch) -> Iterator[dict[str, object]]:
    yield from islice((row_of(*one) for one in parts.console.said_of_all(search)), EXPORT_MAX)


_ONE_OF: dict[str, Any] = {"responses": {404: {"model": Problem}}, "dependencies": [Depends(known_parameters)]}


@router.get("/{incident_id}", summary="One incident", **_ONE_OF)
def incident(request: Request, incident_id: IncidentId) -> IncidentDetail:
    """An incident with its claim in a sentence, all its evidence, what its names decode to, and what people said."""
    found = _stored(request, incident_id)
    said = parts_of(request).console.triage.of([found.incident_id])[found.incident_id]
    return incident_detail(found, triage_item(said))


def _stored(request: Request, incident_id: str) -> Incident:
    found = parts_of(request).store.incident_by_id(incident_id)
    if found is None:
        raise HTTPException(404, f"cannot find incident {incident_id}")
    return found


@router.get("/{incident_id}/context", summary="What else is known around an incident", **_ONE_OF)
def incident_context(request: Request, incident_id: IncidentId) -> IncidentContext:
    """What else its client did in that hour, who else asks for its domain, since when, and other incidents of both."""
    found = context_of(parts_of(request), _stored(request, incident_id))
    earlier = None if found["earlier"] is None else [incident_brief(one) for one in found["earlier"]]
    return IncidentContext(**found | {"earlier": earlier})


@router.get("/{incident_id}/history", summary="What people said of an incident, newest first")
def incident_history(request: Request, incident_id: IncidentId) -> TriageHistory:
    """Every change and comment; what was undone says by whom."""
    found = parts_of(request).console.triage.history(incident_id)
    entries = [TriageEntry(**{name: getattr(one, name) for name in TriageEntry.model_fields}) for one in found]
    return TriageHistory(history=entries)


@router.post("/change", summary="Say something of incidents")
def change(request: Request, sent: TriageChange) -> TriageDone:
    """State, label, assignee, comment: of all of them, or of none. A label is told to the learning loop, too."""
    author = author_of(request, sent.author)
    done = parts_of(request).console.triage.change(sent.incidents, _wanted(sent), author, "API")
    return TriageDone(action_id=done, incidents=sent.incidents)


def _wanted(sent: TriageSaid) -> Change:
    label = "" if sent.unlabel else (Label(sent.label) if sent.label else None)
    state = ReviewState(sent.state) if sent.state else None
    return Change(state, label, sent.assignee, sent.comment, sent.reason)


@router.post(
    "/change-found", summary="Say something of all incidents of a search", dependencies=[Depends(known_parameters)]
)
def change_found(request: Request, search: Search, sent: TriageOfFound) -> TriageDone:
    """Of all that the same parameters list, up to 10,000, or of none; undone at once; one entry of the audit log."""
    author = author_of(request, sent.author)
    done, ids = changed_found(request, search, _wanted(sent), author, "API", sent.detected_until)
    return TriageDone(action_id=done, incidents=ids)


def changed_found(
    request: Request, search: IncidentSearch, change: Change, author: str, way: str, detected_until: float | None
) -> tuple[str, list[str]]:
    """Change all that a search finds; by which id that is undone, and of which incidents. Raises UsageError."""
    console = parts_of(request).console
    ids = console.finder.ids(replace(search, detected_until=detected_until), FOUND_MAX + 1)
    if not ids:
        raise UsageError("cannot change incidents: nothing is found")
    if len(ids) > FOUND_MAX:
        raise UsageError(f"cannot change more than {FOUND_MAX:,} incidents at once: narrow the search")
    filters = [(name, value) for name, value in request.query_params.multi_items() if value or name == "source"]
    said = " ".join(f"{name}={value}" for name, value in filters if name != "sort")
    return console.triage.change(ids, change, author, way, found_by=said), ids


@router.post("/undo", summary="Take a change back")
def undo(request: Request, sent: TriageUndo) -> TriageDone:
    """All that one call or click changed, unless it was changed again since."""
    ids = parts_of(request).console.triage.undo(sent.action_id, author_of(request, sent.author), "API")
    return TriageDone(action_id=sent.action_id, incidents=ids)


@views_router.get("", summary="Lists that people keep and share")
def views(request: Request) -> SavedViewList:
    """By name."""
    found = parts_of(request).console.views.all()
    return SavedViewList(views=[SavedViewEntry(**asdict(one)) for one in found])


@views_router.post("", summary="Keep a list")
def keep_view(request: Request, sent: SavedViewKeep) -> SavedViewEntry:
    """A page of the console with its query string, under a name; in place of the one of that name."""
    author = author_of(request, sent.author)
    return SavedViewEntry(**asdict(parts_of(request).console.views.save(sent.name, sent.address, author, "API")))


@views_router.post("/remove", summary="Forget a list")
def remove_view(request: Request, sent: SavedViewRemove) -> SavedViewList:
    """The list is gone for all."""
    parts_of(request).console.views.remove(sent.name, author_of(request, sent.author), "API")
    return views(request)
