"""Versions of what cycles learn, flow, sequence and image models, and what people decide: JSON routes and pages."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response

from agents.core.drawing.spark import sparkline
from agents.core.errors import AgentsError, BusyError, ModelError, UsageError
from agents.store.people.roles import AccessScope
from agents.web.api import PROBLEMS, Limit, known_parameters
from agents.web.auth import author_of, noted
from agents.web.models.schemas import (
    DecisionAnswer,
    LearntDifference,
    LearntSummary,
    LearntVersion,
    LearntVersionList,
    ModelDecision,
    PeriodEntry,
    ProductionHistory,
    TransitionEntry,
    TransitionList,
    VersionDecision,
)
from agents.web.pages import InSession, page, sent_form
from agents.web.parts import LEARNT_NAMES, LearntModels, ModelDecided, parts_of
from agents.web.schemas import Problem

LEARNT_NAME = "^([0-9a-f]{16}|champion|candidate|previous|anchor|taken-back|canary)$"
LEARNT_FORM_MAX = 4_096
"""Longest form, bytes."""
_NAMES = "id, champion, candidate, previous, anchor, taken-back or canary"
Kind = Literal["flow", "sequences", "images"]
router = APIRouter(prefix="/learning/models", responses=PROBLEMS, dependencies=[Depends(known_parameters)])
page_router = APIRouter(include_in_schema=False)
LEARNT_DECISIONS = ("approve", "reject", "rollback", "anchor", "pin", "unpin")
"""What forms of the page of a version ask for."""
_SAID = {"done": "", "problem": "", "reason": ""}
NamedLearnt = Annotated[str, Path(pattern=LEARNT_NAME, examples=["champion"], description=_NAMES)]
LearntSide = Annotated[str, Query(pattern=LEARNT_NAME, examples=["previous"], description=_NAMES)]


@router.get("/{kind}", summary="Versions of flow, sequence or image models, the one in use first")
def learnt_versions(request: Request, kind: Kind) -> LearntVersionList:
    """Each with its parent, data and their hash, and who or what decided."""
    return LearntVersionList(versions=[LearntSummary(**one) for one in _learnt(request).versions(kind)])


@router.get("/{kind}/history", summary="What was in production when, newest first")
def learnt_history(request: Request, kind: Kind, limit: Limit = 100) -> ProductionHistory:
    """Periods, with what put each model there, by whom and why."""
    found = _learnt(request).history(kind)[:limit]
    return ProductionHistory(history=[PeriodEntry(**one) for one in found])


@router.get("/{kind}/log", summary="What became of them, newest first")
def learnt_log(request: Request, kind: Kind, limit: Limit = 100) -> TransitionList:
    """Each transition; models/CHANGELOG.md has the same as text."""
    found = _learnt(request).log(kind)[::-1][:limit]
    return TransitionList(transitions=[TransitionEntry(**one) for one in found])


@router.post("/{kind}/approve", summary="Put what waits into use", responses={409: {"model": Problem}})
def learnt_approved(request: Request, kind: Kind, sent: VersionDecision) -> DecisionAnswer:
    """With APPROVALS=2 another author has to approve it, too."""
    return _answered(_made(request, kind, "approve", sent.model_id, author_of(request, sent.author, ""), sent.reason))


@router.post("/{kind}/reject", summary="Turn down what waits", responses={409: {"model": Problem}})
def learnt_rejected(request: Request, kind: Kind, sent: VersionDecision) -> DecisionAnswer:
    """The model in use stays."""
    return _answered(_made(request, kind, "reject", sent.model_id, author_of(request, sent.author, ""), sent.reason))


@router.post("/{kind}/rollback", summary="Use a version that is kept again", responses={409: {"model": Problem}})
def learnt_rolled_back(request: Request, kind: Kind, sent: VersionDecision) -> DecisionAnswer:
    """The one in use is kept as taken-back; labels stay."""
    return _answered(_made(request, kind, "rollback", sent.model_id, author_of(request, sent.author, ""), sent.reason))


@router.post("/{kind}/anchor", summary="Compare candidates with a version", responses={409: {"model": Problem}})
def learnt_anchored(request: Request, kind: Kind, sent: VersionDecision) -> DecisionAnswer:
    """Beside the model in use, from the next cycle on."""
    return _answered(_made(request, kind, "anchor", sent.model_id, author_of(request, sent.author, ""), sent.reason))


@router.post("/{kind}/pin", summary="Keep the model in use", responses={409: {"model": Problem}})
def learnt_pinned(request: Request, kind: Kind, sent: ModelDecision) -> DecisionAnswer:
    """No cycle and no person replaces it until it is unpinned; what passes its gates waits."""
    return _answered(_made(request, kind, "pin", "", author_of(request, sent.author, ""), sent.reason))


@router.post("/{kind}/unpin", summary="Let the model in use be replaced again", responses={409: {"model": Problem}})
def learnt_unpinned(request: Request, kind: Kind, sent: ModelDecision) -> DecisionAnswer:
    """Ends a pin."""
    return _answered(_made(request, kind, "unpin", "", author_of(request, sent.author, ""), sent.reason))


@router.get("/{kind}/diff", summary="Two of them side by side")
def learnt_diff(request: Request, kind: Kind, old: LearntSide, new: LearntSide) -> LearntDifference:
    """What differs, what both would have listed of the last week, and what they say of golden flow-hours."""
    return LearntDifference(**_learnt(request).diff(kind, old, new))


@router.get("/{kind}/{name}", summary="One of them with its lineage")
def learnt_version(request: Request, kind: Kind, name: NamedLearnt) -> LearntVersion:
    """Where it comes from, what its gates said, and what became of it."""
    return LearntVersion(**_learnt(request).version(kind, name))


def _learnt(request: Request) -> LearntModels:
    return parts_of(request).learnt


def _made(request: Request, kind: str, action: str, model_id: str, author: str, reason: str) -> ModelDecided:
    """Carry out a decision, and note it. Raises AgentsError."""
    if not author:
        raise UsageError(f"cannot {action}: an author must be given")
    done = _learnt(request).decide(kind, action, model_id, author, reason)
    noted(request, f"model: {action}", f"{LEARNT_NAMES[kind]} {model_id}", f"{done.made.text}: {reason}", author)
    return done


def _answered(done: ModelDecided) -> DecisionAnswer:
    made = TransitionEntry(**done.made.to_json(), text=done.made.text)
    return DecisionAnswer(made=made, problems=list(done.problems))


def learnt_overview(request: Request, shown: int) -> dict[str, dict[str, Any]]:
    """Versions and history by kind, for the page of all models. shown: periods of each. Raises AgentsError."""
    learnt = _learnt(request)
    return {
        kind: {"title": f"{title.capitalize()}s", "versions": versions, "history": learnt.history(kind)[:shown]}
        for kind, title in LEARNT_NAMES.items()
        if (versions := learnt.versions(kind))
    }


@page_router.get("/console/models/{kind}/diff", dependencies=[InSession])
def learnt_diff_page(request: Request, kind: str) -> Response:
    sides = [request.query_params.get(side, "")[:40] for side in ("old", "new")]
    _must_be_kind(kind)
    try:
        if not all(sides):
            raise UsageError("cannot compare: choose two versions")
        diff = _learnt(request).diff(kind, *sides)
        return page(request, "learnt.html", kind=kind, found=None, diff=diff, **_SAID)
    except (UsageError, ModelError) as error:
        return page(request, "learnt.html", 422, kind=kind, found=None, diff=None, **_SAID | {"problem": str(error)})


@page_router.get("/console/models/{kind}/{name}", dependencies=[InSession])
def learnt_page(request: Request, kind: str, name: str) -> Response:
    return _shown(request, kind, name)


@page_router.post("/console/models/{kind}")
async def learnt_form(request: Request, kind: str) -> Response:
    """Carry out a decision, and show the page with what came of it."""
    _must_be_kind(kind)
    form = await sent_form(request, AccessScope.OPERATE, LEARNT_FORM_MAX)
    sent = {name: values[0].strip() for name, values in form.items()}
    model_id, reason = sent.get("model_id", "")[:40], sent.get("reason", "")
    try:
        done = await asyncio.to_thread(_carried_out, request, kind, sent)
    except AgentsError as error:
        status = 409 if isinstance(error, BusyError) else 422
        return await asyncio.to_thread(_shown, request, kind, model_id, status, problem=str(error), reason=reason)
    except OSError as error:
        problem = f"cannot do that: {error.strerror or error}"
        return await asyncio.to_thread(_shown, request, kind, model_id, 500, problem=problem, reason=reason)
    return await asyncio.to_thread(_shown, request, kind, model_id, done=done)


def _carried_out(request: Request, kind: str, sent: dict[str, str]) -> str:
    """What a form asks for; a sentence about what came of it. Raises AgentsError."""
    action, reason = sent.get("do", ""), sent.get("reason", "")
    if action not in LEARNT_DECISIONS:
        raise UsageError("cannot do that: the form names nothing that this page offers")
    if not reason:
        raise UsageError(f"cannot {action}: a reason must be given")
    if sent.get("confirm") != "yes":
        raise UsageError(f"cannot {action}: confirm it with the box beside the button")
    done = _made(request, kind, action, sent.get("model_id", ""), author_of(request), reason)
    return ". ".join([done.made.text, *(f"Not told: {problem}" for problem in done.problems)]) + "."


def _must_be_kind(kind: str) -> None:
    if kind not in LEARNT_NAMES:
        raise HTTPException(404, "cannot find that page")


def _shown(request: Request, kind: str, name: str, status: int = 200, **said: str) -> Response:
    _must_be_kind(kind)
    try:
        found = _learnt(request).version(kind, name)
    except AgentsError as error:  # what was rejected is not kept: then what came of it is all there is to say
        told = _SAID | {"problem": str(error)} | said if not said.get("done") else _SAID | said
        return page(request, "learnt.html", status if said else 404, kind=kind, found=None, diff=None, **told)
    drift = [
        one | {"spark": sparkline(one["old"], one["new"], f"{one['name']}, then and now")} for one in found["drift"]
    ]
    return page(request, "learnt.html", status, kind=kind, found=found | {"drift": drift}, diff=None, **_SAID | said)
