"""Hunting over the API: queries over all stored history, clients, domains, an analyst's questions; the audit log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response

from agents.core.errors import UsageError
from agents.core.types import DAY_S, Severity
from agents.store.console.exporting import AUDIT_COLUMNS, QUERY_COLUMNS, csv_lines, query_row, told_row
from agents.store.console.hunting import TOP
from agents.store.console.terms import OF_INCIDENTS, Terms, parse_search
from agents.web.api import (
    LIMIT_MAX,
    PROBLEMS,
    Client,
    Domain,
    Limit,
    Replayed,
    Severities,
    Since,
    Until,
    known_parameters,
)
from agents.web.console.incidents import EXPORT_MAX, Cursor, Text, export_file
from agents.web.console.schemas import (
    AuditItem,
    AuditList,
    ClientEntry,
    ClientList,
    FlowHourList,
    HuntAnswer,
    QuestionAnswer,
    Summary,
)
from agents.web.parts import Parts, parts_of

RANKED_MAX, CLIENTS_MAX = 5_000, 100_000
"""Rows that the pages of a ranking go down to, and of that of clients."""
router = APIRouter(responses=PROBLEMS, dependencies=[Depends(known_parameters)])
Named = Annotated[str, Path(max_length=1024)]
Lines = dict[str, Any]
Others = Annotated[int, Query(ge=1, le=LIMIT_MAX, description=f"of `others`, up to {LIMIT_MAX}")]


AuditAuthor = Annotated[str, Query(max_length=80)]
AuditAction = Annotated[str, Query(max_length=80)]
AuditObject = Annotated[str, Query(max_length=1024, description="what was changed")]


class RankPlace(NamedTuple):
    """Where a page of a ranking begins: its span (Unix seconds), which stays from page to page, and after how many."""

    since: float
    until: float
    after: int = 0

    def __str__(self) -> str:
        return f"{self.since!r}~{self.until!r}~{self.after}"


def place_of(cursor: str | None, since: float, until: float) -> RankPlace:
    """The place that a cursor names; without one, the beginning of a span. Raises UsageError."""
    if not cursor:
        return RankPlace(since, until)
    try:
        begin, end, after = cursor.split("~")
        place = RankPlace(float(begin), float(end), int(after))
    except ValueError:
        place = RankPlace(math.nan, math.nan)
    if not (math.isfinite(place.since) and math.isfinite(place.until) and 0 <= place.after <= CLIENTS_MAX):
        raise UsageError("cannot read further: the cursor is not one that a page gave")
    return place


def ranked(
    place: RankPlace, limit: int, read: Callable[[float, float, int, int], list[Lines]], most: int = RANKED_MAX
) -> tuple[list[Lines], str | None]:
    """A page of a ranking, and the cursor of the next one. read: (since, until, limit, offset); most: rows of all."""
    wanted = min(limit, most - place.after)
    rows = read(place.since, place.until, wanted + 1, place.after) if wanted > 0 else []
    following = place._replace(after=place.after + wanted)
    return rows[:wanted], str(following) if len(rows) > wanted and following.after < most else None


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
def clients_listed(
    request: Request, since: Since = None, until: Until = None, limit: Limit = 100, cursor: Cursor = None
) -> ClientList:
    """Of the last day, unless a time is named."""
    place = place_of(cursor, *day_of(since, until))
    found, following = ranked(place, limit, parts_of(request).console.hunter.clients, CLIENTS_MAX)
    return ClientList(clients=[ClientEntry(**one) for one in found], cursor=following)


@router.get("/clients/{client:path}", summary="What one client did")
def client_summary(
    request: Request,
    client: Named,
    since: Since = None,
    until: Until = None,
    limit: Others = TOP,
    cursor: Cursor = None,
) -> Summary:
    """Of the last day, unless a time is named. limit and cursor are of its domains."""
    place, hunter = place_of(cursor, *day_of(since, until)), parts_of(request).console.hunter
    found = summed_up(hunter.client, client, place, limit)
    return Summary(**found, new_domains=hunter.new_domains(client, place.since, place.until))


@router.get("/domains/{domain:path}", summary="What was asked below one registered domain")
def domain_summary(
    request: Request,
    domain: Named,
    since: Since = None,
    until: Until = None,
    limit: Others = TOP,
    cursor: Cursor = None,
) -> Summary:
    """Of the last day, unless a time is named. limit and cursor are of its clients."""
    place, hunter = place_of(cursor, *day_of(since, until)), parts_of(request).console.hunter
    found = summed_up(hunter.domain, domain, place, limit)
    return Summary(**found, first_ever=hunter.first_seen([domain]).get(domain))


def summed_up(read: Callable[..., Lines], name: str, place: RankPlace, limit: int) -> Lines:
    """What a client or a domain did, with some of its others, and the cursor of further ones."""
    found = read(name, place.since, place.until, limit=limit, offset=place.after)
    following = place._replace(after=place.after + limit)
    further = following.after < min(found["others_count"], CLIENTS_MAX)
    return found | {"others_cursor": str(following) if further else None}


@router.get("/flow-hours", summary="What a client asked below a domain in an hour, as sums, newest first")
def hours_of_flows(
    request: Request,
    client: Client = None,
    domain: Domain = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> FlowHourList:
    """Of the last day, unless a time is named: how much its names carried, and how near it came to each limit."""
    place, flows = place_of(cursor, *day_of(since, until)), parts_of(request).flows

    def read(begin: float, end: float, most: int, offset: int) -> list[Lines]:
        return flows.hours(client=client, domain=domain, since=begin, until=end, limit=most, offset=offset)

    rows, following = ranked(place, limit, read)
    return FlowHourList(flow_hours=rows, cursor=following)


def day_of(since: float | None, until: float | None) -> tuple[float, float]:
    """A span: the last day, unless it is named."""
    last = time.time() if until is None else until
    return (last - DAY_S if since is None else since), last


QUESTIONS: Mapping[str, tuple[str, Callable[[Parts], Callable[[float, float, int, int], list[Lines]]]]] = {
    "rarest-domains": (
        "The rarest domains: those below which the fewest clients asked",
        lambda parts: parts.console.hunter.rarest,
    ),
    "new-domains": (
        "New domains: those that nobody had asked for before",
        lambda parts: parts.console.hunter.new,
    ),
    "largest-answers": (
        "The largest answers",
        lambda parts: parts.console.hunter.largest_answers,
    ),
    "most-in-words": (
        "Most bytes in words: names that carry much and do not read as encoded",
        lambda parts: parts.flows.most_in_words,
    ),
    "failing-domains": (
        "Names that do not exist: domains below which most look-ups fail",
        lambda parts: parts.console.hunter.failing,
    ),
    "nearest-to-limits": (
        "Nearest to a limit: what almost was an incident",
        lambda parts: parts.flows.nearest_to_limits,
    ),
}
"""What an analyst asks of a day: by name, in words, and who answers: (since, until, limit, offset)."""


@router.get("/questions/{question}", summary="An analyst's questions about a day")
def question(
    request: Request,
    question: Annotated[str, Path(max_length=40, examples=["rarest-domains"], description=", ".join(QUESTIONS))],
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> QuestionAnswer:
    """Of the last day, unless a time is named; the first 5,000."""
    if question not in QUESTIONS:
        raise HTTPException(404, f"cannot answer that question; there are {', '.join(QUESTIONS)}")
    asked, answer = QUESTIONS[question]
    place = place_of(cursor, *day_of(since, until))
    rows, following = ranked(place, limit, answer(parts_of(request)))
    return QuestionAnswer(question=asked, rows=[dict(row) for row in rows], cursor=following)


@router.get("/questions/{question}/export", summary="All rows of an answer, as CSV or JSON lines")
def question_export(
    request: Request,
    question: Annotated[str, Path(max_length=40, examples=["rarest-domains"], description=", ".join(QUESTIONS))],
    since: Since = None,
    until: Until = None,
    format: Literal["csv", "json"] = "csv",
) -> Response:
    """Of the last day, unless a time is named; the first 5,000."""
    if question not in QUESTIONS:
        raise HTTPException(404, f"cannot answer that question; there are {', '.join(QUESTIONS)}")
    first, last = day_of(since, until)
    rows = QUESTIONS[question][1](parts_of(request))(first, last, RANKED_MAX, 0)
    return told_file(question, format, rows, list(rows[0]) if rows else [])


def told_file(name: str, format: Literal["csv", "json"], rows: Iterable[Lines], columns: Sequence[str]) -> Response:
    """Rows of facts as a file: a table of these columns, or each row as it is."""
    if format == "json":
        return export_file(name, "ndjson", (json.dumps(row) + "\n" for row in rows))
    return export_file(name, "csv", csv_lines(map(told_row, rows), columns))


@router.get("/audit/export", summary="The audit log as CSV or JSON lines, newest first")
def audit_export(
    request: Request,
    author: AuditAuthor = "",
    action: AuditAction = "",
    object: AuditObject = "",
    format: Literal["csv", "json"] = "csv",
) -> Response:
    """All pages of what the same parameters list, up to 100,000."""
    log = parts_of(request).console.audit
    rows = islice(map(asdict, log.all_entries(author=author, action=action, thing=object)), EXPORT_MAX)
    return told_file("audit", format, rows, AUDIT_COLUMNS)


@router.get("/audit", summary="Who changed what, newest first")
def audit(
    request: Request,
    author: AuditAuthor = "",
    action: AuditAction = "",
    object: AuditObject = "",
    before: Annotated[
        int | None, Query(ge=0, lt=2**63, description="audit_id of the last entry of the page before")
    ] = None,
    limit: Limit = 100,
) -> AuditList:
    """Entries are only ever added."""
    log = parts_of(request).console.audit
    found = log.entries(author=author, action=action, thing=object, before_id=before, limit=limit)
    return AuditList(entries=[AuditItem(**asdict(one)) for one in found])
