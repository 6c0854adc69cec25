"""Versions of models: JSON routes, and pages whose forms work without scripts and ask for reason and confirmation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response

from agents.core.drawing.spark import sparkline
from agents.core.errors import AgentsError, BusyError, ModelError, UsageError
from agents.detection.explanations.budget_trade import budget_trade
from agents.store.people.roles import AccessScope
from agents.web import reports
from agents.web.api import PROBLEMS, Limit, known_parameters
from agents.web.auth import author_of, noted
from agents.web.console.notices import led_to, noticed
from agents.web.models.jobs import jobs_shown
from agents.web.models.learnt import learnt_overview
from agents.web.models.schemas import (
    CanaryAnswer,
    DecisionAnswer,
    DifferenceAnswer,
    ModelDecision,
    PeriodEntry,
    ProductionHistory,
    TransitionEntry,
    TransitionList,
    VersionAnswer,
    VersionDecision,
)
from agents.web.pages import InSession, page, sent_form
from agents.web.parts import ModelControl, ModelDecided, parts_of
from agents.web.schemas import Problem

VERSION = "^([0-9a-f]{16}|champion|candidate|canary|anchor|shipped)$"
"""Names of versions here: no paths of files, as on the command line."""
MODELS_FORM_MAX = 8_192
"""Longest form, bytes."""
PAGE = "/console/models"
VERSIONS_SHOWN = 100
"""Versions, periods and transitions on a page, each."""
DRIFT_SHOWN = 5
"""Features of names on the page of all models, those that moved most; the page of a model has all."""
LEARNT_SHOWN = 10
"""Periods of each kind that cycles learn; the API has all."""
_OF_ONE = ("approve", "reject", "canary", "anchor")
_OF_ALL = ("rollback", "pin", "unpin")
"""Decisions about a version, and about what is in production."""
_ONE = threading.Lock()
"""One form at a time: of two clicks on one button the second finds another model in use."""
router = APIRouter(
    prefix="/models", responses={**PROBLEMS, 409: {"model": Problem}}, dependencies=[Depends(known_parameters)]
)
page_router = APIRouter(include_in_schema=False)
Named = Annotated[str, Path(pattern=VERSION, examples=["champion"], description="id, or one of the aliases")]
Side = Annotated[str, Query(pattern=VERSION, examples=["anchor"], description="id, or one of the aliases")]


@router.get("/history", summary="What was in production when, newest first")
def model_history(request: Request) -> ProductionHistory:
    """Periods, with what put each model there, by whom and why."""
    return ProductionHistory(history=[PeriodEntry(**one) for one in _desk(request).history()])


@router.get("/log", summary="What became of models, newest first")
def model_log(
    request: Request,
    people: Annotated[bool, Query(description="only what people decided")] = False,
    limit: Limit = 100,
) -> TransitionList:
    """Each transition; models/CHANGELOG.md has the same as text."""
    found = _desk(request).log(people)[::-1][:limit]
    return TransitionList(transitions=[TransitionEntry(**one) for one in found])


@router.get("/canary", summary="The canary that runs")
def model_canary(request: Request) -> CanaryAnswer:
    """Its terms, when it ends, and what was seen of it so far."""
    return CanaryAnswer(canary=_desk(request).canary())


@router.get("/diff", summary="Two versions side by side")
def model_diff(request: Request, old: Side, new: Side) -> DifferenceAnswer:
    """Settings, origin, gates, limits, and which shipped names change severity."""
    return DifferenceAnswer(**_desk(request).diff(old, new))


@router.get("/{name}", summary="One version with its lineage")
def model_version(request: Request, name: Named) -> VersionAnswer:
    """Where it comes from, what its gates said, who approved it and why."""
    found = _desk(request).version(name)
    return VersionAnswer(**found, budget=_budget(found).get("sentence", ""))


def _budget(version: Mapping[str, Any]) -> dict[str, Any]:
    """What the alert budget of a version buys, in words and as a chart; {} where nothing was weighed."""
    limits = version["manifest"].get("limits")
    return budget_trade(limits) if isinstance(limits, Mapping) else {}


def _drift(version: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How far names had moved when a version was trained, what moved most first, each with its small chart."""
    found = version["lineage"].get("drift")
    rows = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    return [{**one, "spark": sparkline(one["old"], one["new"], f"{one['name']}, then and now")} for one in rows]


def _made(request: Request, action: str, model_id: str, author: str, reason: str) -> ModelDecided:
    """Carry out a decision, and note it. Raises AgentsError."""
    if not author:
        raise UsageError(f"cannot {action}: an author must be given")
    done = _desk(request).decide(action, model_id, author, reason)
    noted(request, f"model: {action}", model_id or "in production", f"{done.made.text}: {reason}", author)
    return done


def _decided(request: Request, action: str, sent: ModelDecision, model_id: str = "") -> DecisionAnswer:
    done = _made(request, action, model_id, author_of(request, sent.author, ""), sent.reason)
    made = TransitionEntry(**done.made.to_json(), text=done.made.text)
    return DecisionAnswer(made=made, problems=list(done.problems))


@router.post("/approve", summary="Deploy a candidate that waits, or a canary")
def model_approved(request: Request, sent: VersionDecision) -> DecisionAnswer:
    """With APPROVALS=2 another author has to approve it, too."""
    return _decided(request, "approve", sent, sent.model_id)


@router.post("/reject", summary="Turn down a candidate that waits, or a canary")
def model_rejected(request: Request, sent: VersionDecision) -> DecisionAnswer:
    """The model in use stays."""
    return _decided(request, "reject", sent, sent.model_id)


@router.post("/canary", summary="Let a candidate that waits judge some clients")
def model_put_to_canary(request: Request, sent: VersionDecision) -> DecisionAnswer:
    """Rules promote it or stop it; settings CANARY_…."""
    return _decided(request, "canary", sent, sent.model_id)


@router.post("/anchor", summary="Compare candidates with this version")
def model_anchored(request: Request, sent: VersionDecision) -> DecisionAnswer:
    """Beside the model in use."""
    return _decided(request, "anchor", sent, sent.model_id)


@router.post("/rollback", summary="Back to the model before")
def model_rolled_back(request: Request, sent: ModelDecision) -> DecisionAnswer:
    """Running detectors load it without a restart."""
    return _decided(request, "rollback", sent)


@router.post("/pin", summary="Keep the model in use")
def model_pinned(request: Request, sent: ModelDecision) -> DecisionAnswer:
    """No retraining and no person replaces it until it is unpinned."""
    return _decided(request, "pin", sent)


@router.post("/unpin", summary="Let the model in use be replaced again")
def model_unpinned(request: Request, sent: ModelDecision) -> DecisionAnswer:
    """Ends a pin."""
    return _decided(request, "unpin", sent)


def _desk(request: Request) -> ModelControl:
    return parts_of(request).desk


@page_router.get("/console/models", dependencies=[InSession])
def models_page(request: Request) -> Response:
    return _overview(request, 200, **noticed(request))


@page_router.get("/console/models/diff", dependencies=[InSession])
def diff_page(request: Request) -> Response:
    old, new = (request.query_params.get(side, "")[:40] for side in ("old", "new"))
    try:
        if not all(_is_named(one) for one in (old, new)):
            raise UsageError("cannot compare: choose two versions")
        return page(request, "model_diff.html", found=_desk(request).diff(old, new))
    except (UsageError, ModelError) as error:
        return _overview(request, 422, problem=str(error))


@page_router.get("/console/models/{name}", dependencies=[InSession])
def version_page(request: Request, name: str) -> Response:
    return _version_of(request, name, 200, **noticed(request))


@page_router.post("/console/models")
async def model_form(request: Request) -> Response:
    """Carry out what a form of these pages asks for, and lead to the page with what came of it."""
    form = await sent_form(request, AccessScope.OPERATE, MODELS_FORM_MAX)
    sent = {name: values[0].strip() for name, values in form.items()}
    reason = sent.get("reason", "")
    try:
        done = await asyncio.to_thread(_carry_out, request, sent)
    except (UsageError, BusyError, ModelError) as error:
        return await asyncio.to_thread(_after, request, sent, 422, problem=str(error), reason=reason)
    except OSError as error:  # something may be done by now
        return led_to(request, _back(sent), problem=f"cannot do that: {error.strerror or error}")
    return led_to(request, _back(sent), done=done)


def _carry_out(request: Request, sent: dict[str, str]) -> str:
    """What a form asks for; returns a sentence about what came of it. Raises AgentsError."""
    action, model_id = sent.get("do", ""), sent.get("model_id", "")
    if action not in (*_OF_ONE, *_OF_ALL):
        raise UsageError("cannot do that: the form names nothing that this page offers")
    if not sent.get("reason"):
        raise UsageError(f"cannot {action}: a reason must be given")
    if sent.get("confirm") != "yes":
        raise UsageError(f"cannot {action}: confirm it with the box beside the button")
    with _ONE:
        if sent.get("in_use", in_use := _in_use(request)) != in_use:
            raise UsageError(f"cannot {action}: the model in use is another one by now, {in_use}")
        done = _made(request, action, model_id if action in _OF_ONE else "", author_of(request), sent["reason"])
    return ". ".join([done.made.text, *(f"Not told: {problem}" for problem in done.problems)]) + "."


def _in_use(request: Request) -> str:
    history = _desk(request).history()
    return str(history[0]["model_id"]) if history else ""


def _back(sent: dict[str, str]) -> str:
    """The page that a form was sent from."""
    return f"{PAGE}/{sent['model_id']}" if _is_named(sent.get("model_id", "")) else PAGE


def _after(request: Request, sent: dict[str, str], status: int, **said: str) -> Response:
    if _is_named(sent.get("model_id", "")):
        return _version_of(request, sent["model_id"], status, **said)
    return _overview(request, status, **said)


def _overview(request: Request, status: int = 200, **said: str) -> Response:
    desk = _desk(request)
    values: dict[str, Any] = {"done": "", "problem": "", "reason": ""} | said
    try:
        values |= {"versions": desk.versions()[:VERSIONS_SHOWN], "canary": desk.canary()}
        values |= {"history": desk.history()[:VERSIONS_SHOWN], "log": desk.log()[::-1][:VERSIONS_SHOWN]}
        values |= {"learnt": learnt_overview(request, LEARNT_SHOWN)}
        in_use = desk.version("champion")
        values |= {"budget": _budget(in_use), "drift": _drift(in_use)[:DRIFT_SHOWN]}
    except AgentsError as error:
        values |= {
            "versions": [],
            "canary": None,
            "history": [],
            "log": [],
            "learnt": {},
            "budget": {},
            "drift": [],
        }
        values["problem"] = values["problem"] or str(error)
    try:
        values["jobs"] = jobs_shown(request)
    except AgentsError as error:  # the database is away: models are files
        values["jobs"], values["problem"] = [], values["problem"] or str(error)
    return page(request, "models.html", status, **values)


def _version_of(request: Request, name: str, status: int = 200, **said: str) -> Response:
    values: dict[str, Any] = {"done": "", "problem": "", "reason": ""} | said
    if not _is_named(name):
        raise HTTPException(404, "cannot find that model")
    try:
        found = _desk(request).version(name)
    except (UsageError, ModelError) as error:
        return _overview(request, 404, problem=str(error))
    shown = {one["name"] for one in reports.listed(parts_of(request).reports_dir)}
    report = found["report"] if found["report"] in shown else None
    origin = {name: value for name, value in found["lineage"].items() if name not in ("gates", "reference", "drift")}
    values |= {"found": found, "report": report, "origin": origin, "budget": _budget(found), "drift": _drift(found)}
    return page(request, "model.html", status, **values)


def _is_named(name: str) -> bool:
    aliases = ("champion", "candidate", "canary", "anchor", "shipped")
    return name in aliases or (len(name) == 16 and set(name) <= set("0123456789abcdef"))
