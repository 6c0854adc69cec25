"""The JSON routes. Plain functions: a slow database keeps a thread busy, not the event loop, and not /health."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from agents.core.text import printable
from agents.core.types import MARK_MAX, ChannelResult, Severity
from agents.web import reports
from agents.web.auth import noted
from agents.web.headers import report_policy
from agents.web.parts import Probe, parts_of
from agents.web.schemas import (
    ChannelsTested,
    ChannelTested,
    Health,
    HostsOnBus,
    ModelsAnswer,
    Problem,
    QueryList,
    ReportList,
    RetrainStarted,
    SeverityName,
)

LIMIT_MAX = 1000
HEALTH_WAIT_S = 0.7
"""What /health waits for an answer of the database and of the disk."""

Client = Annotated[str | None, Query(max_length=64, description="address of the client", examples=["192.0.2.7"])]
Domain = Annotated[
    str | None,
    Query(max_length=1024, description="registered domain, presentation form", examples=["evil.example"]),
]
Severities = Annotated[list[SeverityName] | None, Query(description="repeat it for several", examples=[["HIGH"]])]
Since = Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="from here on, Unix seconds")]
Until = Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="before this, Unix seconds")]
Replayed = Annotated[
    str | None,
    Query(
        max_length=MARK_MAX,
        description="mark of a stored replay; empty = only what was seen live",
        examples=["friday.pcap"],
    ),
]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description=f"at most so many, up to {LIMIT_MAX}")]

PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "no valid token"},
    422: {"model": Problem, "description": "a parameter cannot be used"},
    503: {"model": Problem, "description": "the database is away"},
}


def known_parameters(request: Request) -> None:
    """Refuse a parameter that the endpoint does not have: an answer without its filter would look like one with it."""
    known = _parameters(request.scope["route"].dependant)
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        offered = f"; there are {', '.join(sorted(known))}" if known else ""
        raise HTTPException(422, f"cannot use the parameter {printable(unknown[0], 40)!r}{offered}")


def _parameters(dependant: Any) -> set[str]:
    """Names of the parameters of a route, and of what it depends on."""
    below = [name for one in dependant.dependencies for name in _parameters(one)]
    return {field.alias for field in dependant.query_params}.union(below)


open_router = APIRouter()
router = APIRouter(responses=PROBLEMS, dependencies=[Depends(known_parameters)])


@open_router.get("/health", summary="How it is doing")
async def health(request: Request) -> Health:
    """Database, model, queue and scheduler. Works without a token; 200 whenever the API answers.

    It answers within a second: what has not answered by then is named with the time that it has been waited for.
    """
    parts = parts_of(request)
    asked = [asyncio.wrap_future(parts.database.answer()), asyncio.wrap_future(parts.processes.answer())]
    await asyncio.wait(asked, timeout=HEALTH_WAIT_S)
    database, processes = asked
    states: dict[str, Any] = {"database": database.result() if database.done() else _silent("database", parts.database)}
    states |= processes.result() if processes.done() else {"disk": _silent("disk", parts.processes)}
    components = {name: {**state, "ok": state["ok"] and "error" not in state} for name, state in states.items()}
    well = all(state["ok"] for state in components.values())
    return Health(status="ok" if well else "degraded", components=components)


def _silent(name: str, probe: Probe[Any]) -> dict[str, Any]:
    return {"ok": False, "error": f"cannot reach the {name}: no answer for {probe.waited_s:.0f} s"}


@router.get("/hosts", summary="Which host on a bus runs which model")
def hosts(request: Request) -> HostsOnBus:
    """As the scheduler of this installation has heard last; none where there is no bus (STREAM)."""
    return HostsOnBus.model_validate(parts_of(request).hosts())


@router.get("/queries", summary="Stored queries, newest first")
def queries(
    request: Request,
    client: Client = None,
    domain: Domain = None,
    severity: Severities = None,
    since: Since = None,
    until: Until = None,
    source: Replayed = None,
    limit: Limit = 100,
    cursor: Annotated[str | None, Query(max_length=64, description="what the page before gave as its cursor")] = None,
) -> QueryList:
    """Judged queries, with score, severity and reasons."""
    rows, following = parts_of(request).store.queries(
        client=client,
        domain=domain,
        severities=_numbers(severity),
        since=since,
        until=until,
        source=source,
        limit=limit,
        cursor=cursor,
    )
    return QueryList.model_validate({"queries": rows, "cursor": following})


def _numbers(names: list[SeverityName] | None) -> list[int]:
    return [int(Severity[name]) for name in names or ()]


@router.get("/models", summary="Models: the current one, backups, candidates")
def models(request: Request) -> ModelsAnswer:
    """Model files with their manifests."""
    return ModelsAnswer.model_validate({"models": parts_of(request).models.list()})


@router.get("/reports", summary="Training reports, newest first")
def report_list(request: Request) -> ReportList:
    """File names of the reports; each can be viewed at /reports/{name}."""
    return ReportList.model_validate({"reports": reports.listed(parts_of(request).reports_dir)})


@router.post("/retrain", status_code=202, summary="Retrain now", responses={409: {"model": Problem}})
def retrain(request: Request) -> RetrainStarted:
    """Start a retraining and return at once; 409 while one is running. Needs a token, not a browser's session."""
    run_id = parts_of(request).retrain()
    noted(request, "retraining", run_id, "started")
    return RetrainStarted(run_id=run_id)


@router.post("/channels/test", summary="Send a test message over every channel")
def channels_tested(request: Request) -> ChannelsTested:
    """What came of it, channel by channel; empty: no channel is set up."""
    return ChannelsTested(channels=[ChannelTested(**asdict(one)) for one in tested_channels(request)])


def tested_channels(request: Request) -> Sequence[ChannelResult]:
    """Send the test, and note it."""
    results = parts_of(request).send_test()
    said = "; ".join(f"{one.channel}: {'sent' if one.ok else one.error}" for one in results)
    noted(request, "channels tested", "channels", said or "none is set up")
    return results


def report_answer(request: Request, name: str) -> Response:
    """One report, as it was written."""
    content = reports.content(parts_of(request).reports_dir, name)
    if content is None:
        raise HTTPException(404, "cannot find that report")
    return Response(
        content, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": report_policy(content)}
    )
