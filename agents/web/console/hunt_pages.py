"""Pages of hunting: a search over all queries, a client, a domain, an analyst's questions; health, and who did what."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from agents.core.errors import AgentsError
from agents.core.types import DAY_S, Severity
from agents.store.console.audit import AuditEntry
from agents.store.console.finding import IncidentSearch
from agents.store.console.hunting import TOP
from agents.store.console.searching import Found
from agents.store.console.terms import OF_INCIDENTS, Terms, parse_search
from agents.web.charts.hours import hours_chart
from agents.web.console.hunting import (
    CLIENTS_MAX,
    QUESTIONS,
    RANKED_MAX,
    RankPlace,
    place_of,
    ranked,
    summed_up,
)
from agents.web.console.incident_pages import HUNT, kept_of
from agents.web.console.incidents import Cursor, Text
from agents.web.console.notices import noticed
from agents.web.pages import InSession, page
from agents.web.parts import Parts, parts_of

QUERIES_ON_PAGE = 100
"""Queries of one page."""
CLIENTS_ON_PAGE = 100
"""Clients of one page."""
FLOWS_SHOWN, NEW_SHOWN, INCIDENTS_SHOWN = 30, 50, 20
"""Flow-hours, new domains and incidents of a client or domain that its page shows at once."""
SPANS = {"last 1h": 3_600.0, "last 24h": float(DAY_S), "last 7d": 7.0 * DAY_S, "last 30d": 30.0 * DAY_S}
"""Ranges of client and domain pages."""
page_router = APIRouter(include_in_schema=False)


Chosen = Annotated[list[str] | None, Query(max_length=len(Severity))]
"""What the form's list has; "" = any."""
Follow = Annotated[str | None, Query(max_length=3)]
Span = Annotated[str, Query(alias="range", max_length=40)]
Passed = Annotated[int, Query(ge=0, le=RANKED_MAX)]
"""Rows of a list of a page that were shown before."""


@page_router.get("/console/hunt", dependencies=[InSession])
def hunt_page(
    request: Request, q: Text = None, severity: Chosen = None, cursor: Cursor = None, follow: Follow = None
) -> Response:
    """A search over all stored queries. follow: it is made again every few seconds."""
    levels = [int(Severity[name]) for name in severity or () if name in Severity.__members__]
    console, told, terms = parts_of(request).console, noticed(request), parse_search(q or "", time.time(), OF_INCIDENTS)
    try:
        found = console.hunter.search(terms, severity=levels, limit=QUERIES_ON_PAGE, cursor=cursor)
        views = [view for view in console.views.all() if view.address.startswith(f"{HUNT}?")]
    except AgentsError as error:
        found, views = Found((), None, None), []
        told["problem"] = str(error)
    kept = kept_of(request)
    following = f"{HUNT}?{urlencode([*kept, ('follow', 'on')])}"
    return page(
        request,
        "hunt.html",
        found=found,
        q=q or "",
        terms=terms,
        severity=severity or [],
        levels=[level.name for level in Severity],
        older=f"{HUNT}?{urlencode([*kept, ('cursor', found.cursor)])}" if found.cursor else "",
        first=f"{HUNT}?{urlencode(kept)}" if cursor else "",
        export=f"/hunt/export?{urlencode(kept)}",
        questions={name: told for name, (told, _) in QUESTIONS.items()},
        query=urlencode(kept),
        views=views,
        following=following,
        follows=follow == "on" and not cursor,
        **told,
    )


def _span(wanted: str) -> tuple[str, float, float]:
    """A range as it is shown, and its times: one of SPANS, or what a search may say of time; "last 24h" for others."""
    now = time.time()
    if wanted in SPANS:
        return wanted, now - SPANS[wanted], now
    terms = parse_search(wanted, now)
    others = replace(terms, since=None, until=None)
    if terms.since is None or others != Terms():
        return "last 24h", now - DAY_S, now
    return wanted, terms.since, now if terms.until is None else terms.until


@page_router.get("/console/clients", dependencies=[InSession])
def clients_page(request: Request, wanted: Span = "", cursor: Cursor = None) -> Response:
    """Clients, those with most queries first."""
    chosen, since, until = _span(wanted)
    problem, rows, following, after = "", list[dict[str, Any]](), None, 0
    try:
        place = place_of(cursor, since, until)
        after = place.after
        rows, following = ranked(place, CLIENTS_ON_PAGE, parts_of(request).console.hunter.clients, CLIENTS_MAX)
    except AgentsError as error:
        problem = str(error)
    return page(
        request,
        "clients.html",
        rows=rows,
        after=after,
        following=following,
        most=CLIENTS_MAX,
        chosen=chosen,
        spans=SPANS,
        problem=problem,
    )


class _Seen(NamedTuple):
    """Where the lists of a summary begin: its domains or clients by cursor, hours and new domains by their number."""

    cursor: str | None
    hours: int
    new: int


def _seen_of(cursor: Cursor = None, hours: Passed = 0, new: Passed = 0) -> _Seen:
    return _Seen(cursor, hours, new)


Seen = Annotated[_Seen, Depends(_seen_of)]


@page_router.get("/console/clients/{client:path}", dependencies=[InSession])
def client_page(request: Request, client: str, seen: Seen, wanted: Span = "") -> Response:
    """What one client did: hours, domains, types, new domains, distance to limits, incidents."""
    return _summary_page(request, "client", client, seen, wanted)


@page_router.get("/console/domains/{domain:path}", dependencies=[InSession])
def domain_page(request: Request, domain: str, seen: Seen, wanted: Span = "") -> Response:
    """What was asked below one registered domain, and by whom."""
    return _summary_page(request, "domain", domain, seen, wanted)


def _summary_page(request: Request, kind: str, name: str, seen: _Seen, wanted: str) -> Response:
    chosen, since, until = _span(wanted)
    problem, summary, place = "", dict[str, Any](), RankPlace(since, until)
    try:
        place = place_of(seen.cursor, since, until)
        summary = _summary_of(parts_of(request), kind, name, place, seen)
    except AgentsError as error:
        problem = str(error)
    span = place.since, place.until
    chart = hours_chart(summary["hours"], *span) if summary.get("hours") else ""
    return page(
        request,
        "summary.html",
        kind=kind,
        which=name,
        summary=summary,
        after=place.after,
        seen=seen,
        further=lambda **changes: f"?{urlencode({'range': chosen} | _said_in(seen._replace(**changes)))}",
        chart=chart,
        chosen=chosen,
        spans=SPANS,
        problem=problem,
    )


def _said_in(seen: _Seen) -> dict[str, Any]:
    return {name: value for name, value in seen._asdict().items() if value}


def _summary_of(parts: Parts, kind: str, name: str, place: RankPlace, seen: _Seen) -> dict[str, Any]:
    """What a client or a domain did in a span, and which of its hours, new domains and incidents are shown."""
    hunter, is_client = parts.console.hunter, kind == "client"
    found = summed_up(hunter.client if is_client else hunter.domain, name, place, TOP)
    new = hunter.new_domains(name, place.since, place.until) if is_client else []
    flows = parts.flows.hours(
        client=name if is_client else None, domain=None if is_client else name,
        since=place.since, until=place.until, limit=FLOWS_SHOWN + 1, offset=seen.hours,
    )  # fmt: skip
    mine = IncidentSearch(client=[name]) if is_client else IncidentSearch(domain=[name])
    incidents = parts.console.finder.page(mine, limit=INCIDENTS_SHOWN, counted=False)
    return found | {
        "new_domains": new[seen.new : seen.new + NEW_SHOWN],
        "new_count": len(new),
        "first_ever": None if is_client else hunter.first_seen([name]).get(name),
        "flows": flows[:FLOWS_SHOWN],
        "flows_after": seen.hours + FLOWS_SHOWN if len(flows) > FLOWS_SHOWN else 0,
        "incidents": incidents.incidents,
        "incidents_further": incidents.cursor is not None,
        "further_types": found["queries"] - sum(count for _, count in found["types"]),
    }


@page_router.get("/console/questions/{question}", dependencies=[InSession])
def question_page(request: Request, question: str, wanted: Span = "", cursor: Cursor = None) -> Response:
    """One of an analyst's questions about a span."""
    if question not in QUESTIONS:
        raise HTTPException(404, "cannot answer that question")
    chosen, since, until = _span(wanted)
    told, answer = QUESTIONS[question]
    problem, rows, following, after, place = "", list[dict[str, Any]](), None, 0, RankPlace(since, until)
    try:
        place = place_of(cursor, since, until)
        after = place.after
        rows, following = ranked(place, QUERIES_ON_PAGE, answer(parts_of(request)))
    except AgentsError as error:
        problem = str(error)
    return page(
        request,
        "question.html", question=question, told=told, rows=rows, chosen=chosen, spans=SPANS, problem=problem,
        questions={name: text for name, (text, _) in QUESTIONS.items()},
        after=after, following=following, most=RANKED_MAX,
        export=f"/questions/{question}/export?{urlencode({'since': place.since, 'until': place.until})}",
    )  # fmt: skip


@page_router.get("/console/audit", dependencies=[InSession])
def audit_page(request: Request, before: Annotated[int | None, Query(ge=0, lt=2**63)] = None) -> Response:
    """Who changed what, newest first: all, or of an author, an action, an object."""
    asked = {name: request.query_params.get(name, "").strip()[:1024] for name in ("author", "action", "object")}
    log, problem, entries = parts_of(request).console.audit, "", list[AuditEntry]()
    try:
        entries = log.entries(
            author=asked["author"], action=asked["action"], thing=asked["object"], before_id=before,
            limit=QUERIES_ON_PAGE,
        )  # fmt: skip
    except AgentsError as error:
        problem = str(error)
    kept = {name: text for name, text in asked.items() if text}
    more = {"before": entries[-1].audit_id} if len(entries) == QUERIES_ON_PAGE else {}
    older = f"/console/audit?{urlencode(kept | more)}" if more else ""
    return page(
        request, "audit.html", entries=entries, asked=asked, kept=kept, older=older, problem=problem,
        export=f"/audit/export?{urlencode(kept)}",
    )  # fmt: skip
