"""The week in one page, to print or to send on: what was found, listed, silenced, left out and missed."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from agents.alerting.manager import is_paged
from agents.core.errors import AgentsError, UsageError
from agents.core.text import printable
from agents.core.types import DAY_S, Incident, Severity
from agents.store.console.audit import KNOWN_KEPT, AuditEntry
from agents.store.console.exporting import WEEK_COLUMNS
from agents.store.console.finding import IncidentSearch
from agents.store.console.terms import Terms
from agents.store.console.triage import Triage
from agents.web import reports
from agents.web.api import PROBLEMS, known_parameters
from agents.web.console.hunting import told_file
from agents.web.console.schemas import WeekAnswer
from agents.web.pages import InSession, page
from agents.web.parts import Parts, parts_of

DAYS_OF_PAGE = 7
FIRST_DAY = date(1971, 1, 1)
"""No week is older: Unix seconds begin a year before."""
INCIDENTS_MAX = 10_000
"""Incidents of a week that are looked at, last seen first."""
DOMAINS_SHOWN, CHANGES_SHOWN = 50, 500
"""Domains of a list; entries of the audit log that are looked at for what was silenced."""
Until = Annotated[str, Query(max_length=10, description="the last day, UTC; empty = today", examples=["2026-01-11"])]
router = APIRouter(responses=PROBLEMS, dependencies=[Depends(known_parameters)])
page_router = APIRouter(include_in_schema=False)


def summed_week(parts: Parts, until: str, domains: int = DOMAINS_SHOWN) -> dict[str, Any]:
    """See WeekAnswer. domains: of each list, at most. Raises UsageError for a day that is none, StoreError."""
    last = _day(until)
    ends = datetime(last.year, last.month, last.day, tzinfo=UTC).timestamp() + DAY_S
    since = ends - DAYS_OF_PAGE * DAY_S
    search = IncidentSearch(terms=Terms(since=since, until=ends), source="")
    found = list(islice(parts.console.said_of_all(search), INCIDENTS_MAX))
    told = [(one, said) for one, said in found if is_paged(one)]
    listed = [(one, said) for one, said in found if not is_paged(one)]
    silenced = _changes(parts, since, ends)
    return {
        "since": since,
        "until": ends,
        "told": _domains(told)[:domains],
        "listed": _domains(listed)[:domains],
        "severities": _severities(found),
        "labels": dict(Counter(str(said.label) for _, said in found if said.label)),
        "paged": len(told),
        "unpaged": len(listed),
        "unanswered": sum(said.state == "new" for _, said in told),
        "silenced": [{"at": one.at, "suffix": one.object, "author": one.author, "why": one.detail} for one in silenced],
        "runs": [one for one in reports.listed(parts.reports_dir) if since <= one["created"] < ends],
        **parts.week(since, ends),
    }


def _day(text: str) -> date:
    today = datetime.now(UTC).date()
    if not text:
        return today
    try:
        return min(max(date.fromisoformat(text), FIRST_DAY), today)
    except ValueError:
        raise UsageError(f"cannot use the day {printable(text, 12)!r}: write it as 2026-01-11") from None


def _domains(found: Sequence[tuple[Incident, Triage]]) -> list[dict[str, Any]]:
    """Incidents by domain, those through which most left first."""
    by_domain: dict[str, list[tuple[Incident, Triage]]] = defaultdict(list)
    for one, said in found:
        by_domain[one.domain].append((one, said))
    rows = [_domain(domain, some) for domain, some in by_domain.items()]
    return sorted(rows, key=lambda row: (-row["leaked_bytes"], row["domain"]))


def _domain(domain: str, some: Sequence[tuple[Incident, Triage]]) -> dict[str, Any]:
    explained = [str(one.evidence["explanation"].get("kind", "")) for one, _ in some if one.evidence.get("explanation")]
    return {
        "domain": domain,
        "severity": max(one.severity for one, _ in some).name,
        "incidents": len(some),
        "clients": len({one.client for one, _ in some}),
        "leaked_bytes": sum(one.leaked_bytes for one, _ in some),
        "tools": sorted({one.tool for one, _ in some if one.tool}),
        "may_be": sorted(set(filter(None, explained))),
        "labels": sorted({str(said.label) for _, said in some if said.label}),
        "incident_id": some[0][0].incident_id,
    }


def _severities(found: Sequence[tuple[Incident, Triage]]) -> dict[str, int]:
    counted = Counter(one.severity for one, _ in found)
    return {level.name: counted[level] for level in reversed(Severity) if counted[level]}


def _changes(parts: Parts, since: float, until: float) -> list[AuditEntry]:
    """Services that were taken for known, newest first; asked for by themselves, so that logins leave none out."""
    entries = parts.console.audit.entries(action=KNOWN_KEPT, limit=CHANGES_SHOWN)
    return [one for one in entries if since <= one.at < until]


@router.get("/weekly/export", summary="All domains of a week, and what was silenced, as CSV or JSON lines")
def weekly_export(request: Request, until: Until = "", format: Literal["csv", "json"] = "csv") -> Response:
    """Those that somebody was paged for, those that were listed, and services that were taken for known."""
    week = summed_week(parts_of(request), until, INCIDENTS_MAX)
    rows = [{"what": what, **one} for what, key in (("paged", "told"), ("listed", "listed")) for one in week[key]]
    rows += [{"what": "silenced", "domain": one["suffix"], **one} for one in week["silenced"]]
    name = f"week-{_day_text(week['since'])}"
    return told_file(name, format, ({column: row.get(column) for column in WEEK_COLUMNS} for row in rows), WEEK_COLUMNS)


def _day_text(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


@router.get("/weekly", summary="A week in one answer")
def weekly(request: Request, until: Until = "") -> WeekAnswer:
    """Incidents by domain, those that somebody was paged for and those that were listed; what was silenced, left out
    under load, and missed by the test tunnel; retrainings; what was heard."""
    return WeekAnswer(**summed_week(parts_of(request), until))


@page_router.get("/console/weekly", dependencies=[InSession])
def weekly_page(request: Request, until: str = "") -> Response:
    """The same to read and to print."""
    problem, found = "", dict[str, Any]()
    try:
        found = summed_week(parts_of(request), until[:10])
    except AgentsError as error:
        problem = str(error)
    days = _neighbours(found)
    export = f"/weekly/export?until={_day_text(found['until'] - DAY_S)}" if found else ""
    return page(request, "weekly.html", week=found, problem=problem, now=time.time(), export=export, **days)


def _neighbours(week: Mapping[str, Any]) -> dict[str, str]:
    """Days by which the weeks before and after are asked for; "" = there is none after this one."""
    if not week:
        return {"before": "", "after": ""}
    last = datetime.fromtimestamp(week["until"] - DAY_S, UTC).date()
    after = last + timedelta(days=DAYS_OF_PAGE)
    today = datetime.now(UTC).date()
    return {"before": str(last - timedelta(days=DAYS_OF_PAGE)), "after": str(min(after, today)) if last < today else ""}
