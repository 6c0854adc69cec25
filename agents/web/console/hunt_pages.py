"""Pages of hunting: a search over all queries, a client, a domain, an analyst's questions; health, and who did what."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Query, Request, Response

from agents.core.errors import AgentsError
from agents.core.types import DAY_S, Severity
from agents.store.console.audit import AuditEntry
from agents.store.console.finding import IncidentSearch
from agents.store.console.searching import Found
from agents.store.console.terms import OF_INCIDENTS, Terms, parse_search
from agents.web.charts.hours import hours_chart
from agents.web.console.hunting import QUESTIONS
from agents.web.console.incident_pages import HUNT, kept_of
from agents.web.console.incidents import Cursor, Text
from agents.web.console.notices import noticed
from agents.web.pages import InSession, page
from agents.web.parts import parts_of

QUERIES_ON_PAGE = 100
"""Queries of one page."""
CLIENTS_ON_PAGE, CLIENTS_MOST = 100, 100_000
"""Clients of one page, and before it at most."""
FLOWS_SHOWN = 30
"""Flow-hours of a client or domain that its page shows."""
SPANS = {"last 1h": 3_600.0, "last 24h": float(DAY_S), "last 7d": 7.0 * DAY_S, "last 30d": 30.0 * DAY_S}
"""Ranges of client and domain pages."""
page_router = APIRouter(include_in_schema=False)


Chosen = Annotated[list[str] | None, Query(max_length=len(Severity))]
"""What the form's list has; "" = any."""
Follow = Annotated[str | None, Query(max_length=3)]
Span = Annotated[str, Query(alias="range", max_length=40)]
After = Annotated[int, Query(ge=0, le=CLIENTS_MOST)]


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
def clients_page(request: Request, wanted: Span = "", after: After = 0) -> Response:
    """Clients, those with most queries first."""
    chosen, since, until = _span(wanted)
    problem, rows = "", list[dict[str, Any]]()
    try:
        rows = parts_of(request).console.hunter.clients(since, until, after + CLIENTS_ON_PAGE + 1)[after:]
    except AgentsError as error:
        problem = str(error)
    following = after + CLIENTS_ON_PAGE if len(rows) > CLIENTS_ON_PAGE else 0
    return page(
        request,
        "clients.html",
        rows=rows[:CLIENTS_ON_PAGE],
        after=after,
        following=following,
        chosen=chosen,
        spans=SPANS,
        problem=problem,
    )


@page_router.get("/console/clients/{client:path}", dependencies=[InSession])
def client_page(request: Request, client: str, wanted: Span = "") -> Response:
    """What one client did: hours, domains, types, new domains, distance to limits, incidents."""
    return _summary_page(request, "client", client, wanted)


@page_router.get("/console/domains/{domain:path}", dependencies=[InSession])
def domain_page(request: Request, domain: str, wanted: Span = "") -> Response:
    """What was asked below one registered domain, and by whom."""
    return _summary_page(request, "domain", domain, wanted)


def _summary_page(request: Request, kind: str, name: str, wanted: str) -> Response:
    parts = parts_of(request)
    chosen, since, until = _span(wanted)
    hunter, problem = parts.console.hunter, ""
    summary: dict[str, Any] = {}
    try:
        summary = hunter.client(name, since, until) if kind == "client" else hunter.domain(name, since, until)
        summary["new_domains"] = hunter.new_domains(name, since, until) if kind == "client" else []
        summary["first_ever"] = hunter.first_seen([name]).get(name) if kind == "domain" else None
        summary["flows"] = parts.flows.hours(
            client=name if kind == "client" else None,
            domain=name if kind == "domain" else None,
            since=since,
            limit=FLOWS_SHOWN,
        )
        mine = IncidentSearch(client=[name]) if kind == "client" else IncidentSearch(domain=[name])
        summary["incidents"] = parts.console.finder.page(mine, limit=20, counted=False).incidents
    except AgentsError as error:
        problem = str(error)
    chart = hours_chart(summary["hours"], since, until) if summary.get("hours") else ""
    return page(
        request,
        "summary.html",
        kind=kind,
        which=name,
        summary=summary,
        chart=chart,
        chosen=chosen,
        spans=SPANS,
        problem=problem,
    )


@page_router.get("/console/questions/{question}", dependencies=[InSession])
def question_page(request: Request, question: str, wanted: Span = "") -> Response:
    """One of an analyst's questions about a span."""
    if question not in QUESTIONS:
        raise HTTPException(404, "cannot answer that question")
    chosen, since, until = _span(wanted)
    told, answer = QUESTIONS[question]
    problem, rows = "", list[dict[str, Any]]()
    try:
        rows = [dict(row) for row in answer(parts_of(request), since, until, QUERIES_ON_PAGE)]
    except AgentsError as error:
        problem = str(error)
    return page(
        request,
        "question.html", question=question, told=told, rows=rows, chosen=chosen, spans=SPANS, problem=problem,
        questions={name: text for name, (text, _) in QUESTIONS.items()},
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
    return page(request, "audit.html", entries=entries, asked=asked, kept=kept, older=older, problem=problem)
