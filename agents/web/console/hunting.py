"""Hunting over the API: queries over all stored history, clients, domains, an analyst's questions; the audit log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response

from agents.core.types import DAY_S, Severity
from agents.store.console.exporting import QUERY_COLUMNS, csv_lines, query_row
from agents.store.console.terms import OF_INCIDENTS, Terms, parse_search
from agents.web.api import PROBLEMS, Limit, Replayed, Severities, Since, Until, known_parameters
from agents.web.console.incidents import EXPORT_MAX, Cursor, Text, export_file
from agents.web.console.schemas import (
    AuditItem,
    AuditList,
    ClientEntry,
    ClientList,
    HuntAnswer,
    QuestionAnswer,
    Summary,
)
from agents.web.parts import Parts, parts_of

router = APIRouter(responses=PROBLEMS, dependencies=[Depends(known_parameters)])
Named = Annotated[str, Path(max_length=1024)]
Lines = dict[str, Any]


class HuntSearch(NamedTuple):
    """What the parameters of a hunt ask for, as Hunter.search has it."""

    terms: Terms
    severity: Sequence[int]
    source: str | None


def hunt_of(
    q: Text = None,
    severity: Severities = None,
    since: Since = None,
    until: Until = None,
    source: Replayed = None,
) -> HuntSearch:
    """The search that the parameters of a request ask for."""
    terms = parse_search(q or "", time.time(), OF_INCIDENTS).narrowed(since, until)
    return HuntSearch(terms, [int(Severity[name]) for name in severity or ()], source)


Asked = Annotated[HuntSearch, Depends(hunt_of)]


@router.get("/hunt", summary="Search stored queries, newest first")
def hunt(request: Request, asked: Asked, limit: Limit = 100, cursor: Cursor = None) -> HuntAnswer:
    """Over all stored history. A search that takes too long gives what it found, and where to go on."""
    (terms, severity, source), hunter = asked, parts_of(request).console.hunter
    found = hunter.search(terms, severity=severity, source=source, limit=limit, cursor=cursor)
    said = {"understood": terms.understood, "not_understood": list(terms.not_understood)}
    return HuntAnswer.model_validate(asdict(found) | said)


@router.get("/hunt/export", summary="All queries of a search, newest first, as CSV or JSON lines")
def hunt_export(request: Request, asked: Asked, format: Literal["csv", "json"] = "csv") -> Response:
    """All pages of what the same parameters find, up to 100,000."""
    (terms, severity, source), hunter = asked, parts_of(request).console.hunter
    found = islice(hunter.search_all(terms, severity=severity, source=source), EXPORT_MAX)
    if format == "json":
        return export_file("queries", "ndjson", (json.dumps(row) + "\n" for row in found))
    return export_file("queries", "csv", csv_lines(map(query_row, found), QUERY_COLUMNS))


@router.get("/clients", summary="Clients, those with most queries first")
def clients_listed(request: Request, since: Since = None, until: Until = None, limit: Limit = 100) -> ClientList:
    """Of the last day, unless a time is named."""
    first, last = day_of(since, until)
    found = parts_of(request).console.hunter.clients(first, last, limit)
    return ClientList(clients=[ClientEntry(**one) for one in found])


@router.get("/clients/{client:path}", summary="What one client did")
def client_summary(request: Request, client: Named, since: Since = None, until: Until = None) -> Summary:
    """Of the last day, unless a time is named."""
    first, last = day_of(since, until)
    hunter = parts_of(request).console.hunter
    found = hunter.client(client, first, last)
    return Summary(**found, new_domains=hunter.new_domains(client, first, last))


@router.get("/domains/{domain:path}", summary="What was asked below one registered domain")
def domain_summary(request: Request, domain: Named, since: Since = None, until: Until = None) -> Summary:
    """Of the last day, unless a time is named."""
    first, last = day_of(since, until)
    hunter = parts_of(request).console.hunter
    return Summary(**hunter.domain(domain, first, last), first_ever=hunter.first_seen([domain]).get(domain))


def day_of(since: float | None, until: float | None) -> tuple[float, float]:
    """A span: the last day, unless it is named."""
    last = time.time() if until is None else until
    return (last - DAY_S if since is None else since), last


QUESTIONS: Mapping[str, tuple[str, Callable[[Parts, float, float, int], list[Lines]]]] = {
    "rarest-domains": (
        "The rarest domains: those below which the fewest clients asked",
        lambda parts, since, until, limit: parts.console.hunter.rarest(since, until, limit),
    ),
    "new-domains": (
        "New domains: those that nobody had asked for before",
        lambda parts, since, until, limit: parts.console.hunter.new(since, until, limit),
    ),
    "largest-answers": (
        "The largest answers",
        lambda parts, since, until, limit: parts.console.hunter.largest_answers(since, until, limit),
    ),
    "most-in-words": (
        "Most bytes in words: names that carry much and do not read as encoded",
        lambda parts, since, until, limit: parts.flows.most_in_words(since, until, limit),
    ),
    "failing-domains": (
        "Names that do not exist: domains below which most look-ups fail",
        lambda parts, since, until, limit: parts.console.hunter.failing(since, until, limit),
    ),
    "nearest-to-limits": (
        "Nearest to a limit: what almost was an incident",
        lambda parts, since, until, limit: parts.flows.nearest_to_limits(since, until, limit),
    ),
}
"""What an analyst asks of a day: by name, in words, and who answers."""


@router.get("/questions/{question}", summary="An analyst's questions about a day")
def question(
    request: Request,
    question: Annotated[str, Path(max_length=40, examples=["rarest-domains"], description=", ".join(QUESTIONS))],
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
) -> QuestionAnswer:
    """Of the last day, unless a time is named."""
    if question not in QUESTIONS:
        raise HTTPException(404, f"cannot answer that question; there are {', '.join(QUESTIONS)}")
    first, last = day_of(since, until)
    rows = QUESTIONS[question][1](parts_of(request), first, last, limit)
    return QuestionAnswer(question=QUESTIONS[question][0], rows=[dict(row) for row in rows])


@router.get("/audit", summary="Who changed what, newest first")
def audit(
    request: Request,
    author: Annotated[str, Query(max_length=80)] = "",
    action: Annotated[str, Query(max_length=80)] = "",
    object: Annotated[str, Query(max_length=1024, description="what was changed")] = "",
    before: Annotated[
        int | None, Query(ge=0, lt=2**63, description="audit_id of the last entry of the page before")
    ] = None,
    limit: Limit = 100,
) -> AuditList:
    """Entries are only ever added."""
    log = parts_of(request).console.audit
    found = log.entries(author=author, action=action, thing=object, before_id=before, limit=limit)
    return AuditList(entries=[AuditItem(**asdict(one)) for one in found])
