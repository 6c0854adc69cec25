"""The page of hunts over months: those with a name as links, a SELECT in a form, rows that lead to their clients."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Query, Request, Response
from markupsafe import Markup

from agents.core.errors import AgentsError, UsageError
from agents.core.text import printable
from agents.core.types import Severity
from agents.dns.message import type_name
from agents.store.hunting.columns import HUNT_COLUMNS
from agents.store.hunting.hunts import HUNTS, HuntQuestion
from agents.store.hunting.options import HUNT_DAYS_MAX
from agents.web.api import LIMIT_MAX
from agents.web.errors import status_of
from agents.web.months.hunts import SECONDS, SECONDS_MAX, SQL_MAX, covered_days, hunted
from agents.web.pages import InSession, client_link, domain_link, page, when
from agents.web.parts import parts_of

MONTHS = "/console/hunt/months"
SPANS_OF_DAYS = (1, 7, 30, 90, 365)
"""Days that a named hunt's links offer."""
SHOWN_DAYS = "last 30d"
"""What the pages of clients and domains show that rows lead to."""
LONG = 24
"""Characters from which a text gets a wide column, so that it does not become a tall one."""
CELL_MAX = 300
"""Characters of a cell, at most."""
MISSING_SHOWN = 10
"""Missing days that are named, at most."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
page_router = APIRouter(include_in_schema=False)


@page_router.get(MONTHS, dependencies=[InSession])
async def months_page(
    request: Request,
    sql: Annotated[str, Query(max_length=SQL_MAX)] = "",
    hunt: Annotated[str, Query(max_length=40)] = "",
    days: Annotated[int, Query(ge=1, le=HUNT_DAYS_MAX)] = 1,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
    seconds: Annotated[float, Query(ge=1, le=SECONDS_MAX)] = SECONDS,
    closed: bool = False,
) -> Response:
    """A hunt with a name, or else a SELECT, and the form in which another one can be written."""
    desk, name = parts_of(request).hunts, hunt if hunt in HUNTS else ""
    question = HuntQuestion("" if name else sql.strip(), name, days, limit, seconds, closed)
    problem, status, found = "", 200, None
    try:
        if hunt and not name:
            raise UsageError(f"cannot hunt {printable(hunt, 40)!r}: there are {', '.join(HUNTS)}")
        if desk is not None and desk.engine and (question.name or question.sql):
            found = await hunted(request, question)
    except AgentsError as error:
        problem, status = str(error), status_of(error)
    except HTTPException as error:  # too many of them
        problem, status = str(error.detail), error.status_code
    return page(
        request,
        "months.html",
        status,
        problem=problem,
        engine=desk.engine if desk else "",
        hunts=HUNTS,
        spans=SPANS_OF_DAYS,
        columns=HUNT_COLUMNS,
        asked=question,
        sql=found.sql if found else sql,
        found=found,
        rows=[[cell_of(*one) for one in zip(found.names, row, strict=True)] for row in found.rows] if found else [],
        covered=covered_days(found) if found else None,
        missing_shown=MISSING_SHOWN,
        at=MONTHS,
        export=export_of(question),
        most={"limit": LIMIT_MAX, "seconds": SECONDS_MAX, "sql": SQL_MAX},
    )


def export_of(question: HuntQuestion) -> str:
    """Where all rows of a question are, as a file."""
    rest = {"seconds": f"{question.seconds:g}"} | ({"closed": "true"} if question.closed else {})
    if question.name:
        return f"/hunts/{question.name}/export?{urlencode({'days': question.days} | rest)}"
    return f"/hunts/sql/export?{urlencode({'sql': question.sql} | rest)}"


def cell_of(name: str, value: Any) -> tuple[str, Any]:
    """A value for people, and the class of its cell. name: of its column."""
    if value is None:
        return "", "–"
    if isinstance(value, bool | dict | list):
        return "name", printable(json.dumps(value), CELL_MAX)
    if name == "qtype" and isinstance(value, int):
        return "id", f"{value} {type_name(value)}"
    if isinstance(value, int):
        return "number", f"{value:,}"
    if isinstance(value, float):
        return "number", f"{value:,.4f}".rstrip("0").rstrip(".")
    return _text_cell(name, str(value))


def _text_cell(name: str, text: str) -> tuple[str, Any]:
    if name == "client":
        return "name client", client_link(text, SHOWN_DAYS)
    if name == "domain":
        return "name domain", domain_link(text, days=SHOWN_DAYS)
    if name == "severity" and text in Severity.__members__:
        return "", Markup('<span class="badge {}">{}</span>').format(text.lower(), text)
    if _TIME.fullmatch(text):
        with suppress(ValueError):
            return "time", when(datetime.fromisoformat(text).timestamp())
    return ("name long" if len(text) > LONG else "name"), printable(text, CELL_MAX)
