"""Hunts over months over the API: those with a name, and any SELECT; read alone, bounded, two at once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response

from agents.core.errors import BusyError, StoreError
from agents.store.console.exporting import csv_lines
from agents.store.hunting.answers import HuntFound
from agents.store.hunting.columns import HUNT_COLUMNS
from agents.store.hunting.days import day_text
from agents.store.hunting.hunts import HUNTS, HuntQuestion
from agents.store.hunting.options import HUNT_DAYS_MAX
from agents.web.api import LIMIT_MAX, PROBLEMS, known_parameters
from agents.web.console.incidents import EXPORT_MAX, export_file
from agents.web.months.schemas import CoveredDays, HuntedColumn, MonthsAnswer, NamedHuntEntry, NamedHuntList
from agents.web.parts import parts_of
from agents.web.schemas import Problem

SECONDS_MAX = 45.0
"""Of one hunt; with what its process takes beside that, it is less than a connection may wait for its answer."""
SECONDS = 20.0
"""Of a hunt that names none."""
GONE_EVERY_S = 0.2
"""Whether the client still waits for its answer is looked at as often."""
SQL_MAX = 4_000
"""Characters of a SELECT: an address, and a server's headers, hold no more where each is percent-encoded."""
AGAIN_S = 5
"""When to ask again where too many hunts run."""
Sql = Annotated[
    str,
    Query(
        min_length=1, max_length=SQL_MAX,
        description="one SELECT over `queries`",
        examples=["SELECT domain, count(*) AS n FROM queries GROUP BY domain ORDER BY n DESC"],
    ),
]  # fmt: skip
Days = Annotated[int, Query(ge=1, le=HUNT_DAYS_MAX, description="a hunt with a name is about the last so many days")]
Rows = Annotated[int, Query(ge=1, le=LIMIT_MAX, description=f"at most so many rows, up to {LIMIT_MAX:,}")]
Seconds = Annotated[
    float, Query(ge=1, le=SECONDS_MAX, description=f"the hunt ends after so many, up to {SECONDS_MAX:g}")
]
Closed = Annotated[bool, Query(description="leave out days that are in no file yet, which is quicker (DuckDB alone)")]
Exported = Annotated[int, Query(ge=1, le=EXPORT_MAX, description=f"at most so many rows, up to {EXPORT_MAX:,}")]
Name = Annotated[str, Path(max_length=40, examples=["rarest-domains"], description=", ".join(HUNTS))]
router = APIRouter(
    prefix="/hunts",
    responses=PROBLEMS
    | {
        429: {"model": Problem, "description": "too many hunts are running"},
        503: {"model": Problem, "description": "no answer in time, the store is away, or none is set up"},
    },
    dependencies=[Depends(known_parameters)],
)


class HuntBounds(NamedTuple):
    """What a hunt may take. closed: it is about days in files alone."""

    seconds: float
    closed: bool


def hunt_bounds_of(seconds: Seconds = SECONDS, closed: Closed = False) -> HuntBounds:
    """The bounds that a request names."""
    return HuntBounds(seconds, closed)


Bounds = Annotated[HuntBounds, Depends(hunt_bounds_of)]


@router.get("", summary="Hunts over months that have a name, and the columns that others may ask")
def hunts(request: Request) -> NamedHuntList:
    """What `/hunts/{hunt}` answers, and what `/hunts/sql` may ask for."""
    desk = parts_of(request).hunts
    return NamedHuntList(
        engine=desk.engine if desk else "",
        hunts=[NamedHuntEntry(name=name, what=one.words) for name, one in HUNTS.items()],
        columns=[HuntedColumn(name=one.name, meaning=one.meaning) for one in HUNT_COLUMNS],
    )


@router.get("/sql", summary="Ask all kept queries in SQL")
async def hunt_by_sql(request: Request, sql: Sql, bounds: Bounds, limit: Rows = 100) -> MonthsAnswer:
    """One SELECT over `queries`, which can change nothing and reach nothing else."""
    return answer_of(await hunted(request, HuntQuestion(sql, limit=limit, **bounds._asdict())))


@router.get("/sql/export", summary="All rows of a SELECT, as CSV or JSON lines")
async def hunt_by_sql_export(
    request: Request, sql: Sql, bounds: Bounds, limit: Exported = EXPORT_MAX, format: Literal["csv", "json"] = "csv"
) -> Response:
    """As `/hunts/sql`; no cell of the table begins a formula."""
    return _file("hunt", format, await hunted(request, HuntQuestion(sql, limit=limit, **bounds._asdict())))


@router.get("/{hunt}", summary="One hunt over months")
async def hunt_by_name(request: Request, hunt: Name, bounds: Bounds, days: Days = 1, limit: Rows = 100) -> MonthsAnswer:
    """Of the last day, unless more are named."""
    return answer_of(await hunted(request, _named(hunt, days, limit, bounds)))


@router.get("/{hunt}/export", summary="All rows of a hunt over months, as CSV or JSON lines")
async def hunt_by_name_export(
    request: Request,
    hunt: Name,
    bounds: Bounds,
    days: Days = 1,
    limit: Exported = EXPORT_MAX,
    format: Literal["csv", "json"] = "csv",
) -> Response:
    """As `/hunts/{hunt}`; no cell of the table begins a formula."""
    return _file(hunt, format, await hunted(request, _named(hunt, days, limit, bounds)))


def _named(name: str, days: int, limit: int, bounds: HuntBounds) -> HuntQuestion:
    if name not in HUNTS:
        raise HTTPException(404, f"cannot hunt that; there are {', '.join(HUNTS)}, and sql")
    return HuntQuestion("", name, days, limit, **bounds._asdict())


async def hunted(request: Request, question: HuntQuestion) -> HuntFound:
    """The answer, waited for on a thread; a client that goes away, or a server that ends, ends the hunt.

    Raises AgentsError, and HTTPException where too many run.
    """
    desk, closing = parts_of(request).hunts, request.app.state.closing
    if desk is None:
        raise StoreError("cannot hunt: this process keeps no queries for months")
    stopped = threading.Event()
    asked = asyncio.create_task(asyncio.to_thread(desk.ask, question, stopped.is_set))
    try:
        while not (await asyncio.wait({asked}, timeout=GONE_EVERY_S))[0]:
            if closing.is_set() or await request.is_disconnected():
                stopped.set()
        return asked.result()
    except BusyError as error:
        raise HTTPException(429, str(error), {"Retry-After": str(AGAIN_S)}) from None
    finally:
        stopped.set()


def answer_of(found: HuntFound) -> MonthsAnswer:
    """An answer as the API gives it."""
    return MonthsAnswer(
        columns=list(found.names), rows=list(_rows(found)), cut=found.cut, sql=found.sql,
        seconds=round(found.seconds, 3), days=covered_days(found),
    )  # fmt: skip


def covered_days(found: HuntFound) -> CoveredDays:
    """Which days an answer is about."""
    days = found.days
    first, last = (day_text(days[0]), day_text(days[-1])) if days else (None, None)
    return CoveredDays(first=first, last=last, count=len(days), missing=[day_text(day) for day in found.missing])


def _rows(found: HuntFound) -> Iterator[dict[str, Any]]:
    return (dict(zip(found.names, row, strict=True)) for row in found.rows)


def _file(name: str, format: Literal["csv", "json"], found: HuntFound) -> Response:
    if format == "json":
        return export_file(name, "ndjson", (json.dumps(row) + "\n" for row in _rows(found)))
    rows = ({name: _cell(value) for name, value in row.items()} for row in _rows(found))
    return export_file(name, "csv", csv_lines(rows, list(found.names)))


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value
