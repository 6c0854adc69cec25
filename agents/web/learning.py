"""The learning loop over the API and on a page: the online learner, and cycles of the sequence model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from markupsafe import Markup

from agents.core.errors import AgentsError, UsageError
from agents.core.text import said_text
from agents.store.feedback.reviews import TEXT_MAX_REASON
from agents.store.people.roles import AccessScope
from agents.web.api import PROBLEMS, Limit, known_parameters
from agents.web.auth import author_of, noted
from agents.web.charts.learning import labels_chart, measures_chart, origins_of, progress_bar
from agents.web.console.notices import led_to, noticed
from agents.web.pages import InSession, page, sent_form
from agents.web.parts import LEARNT_NAMES, parts_of
from agents.web.schemas import (
    CycleAsked,
    CycleHistory,
    CycleStart,
    CycleStatus,
    FeatureStoreAnswer,
    LearningBack,
    LearningHistory,
    LearningStarted,
    LearningStatus,
    LearningTakenBack,
    Problem,
)

LEARNING_FORM_MAX = 4096
"""Longest form of the page, bytes."""
CYCLES_ON_PAGE, CYCLES_DRAWN = 20, 200
LIVE_PHASES = ("collecting", "training")
"""While a cycle does this, the page loads itself again."""
NOTHING_JUDGES: dict[int | str, dict[str, Any]] = {409: {"model": Problem}}
page_router = APIRouter(include_in_schema=False)
router = APIRouter(prefix="/learning", responses=PROBLEMS, dependencies=[Depends(known_parameters)])


@router.get("/status", summary="What the online learner is doing and has done")
def learning_status(request: Request) -> LearningStatus:
    """Whether cycles begin by themselves, whether one is under way, and how many there were."""
    return LearningStatus.model_validate(parts_of(request).learner.status())


@router.get("/history", summary="Cycles of the online learner, newest first")
def learning_history(request: Request, limit: Limit = 10) -> LearningHistory:
    """Each with its new labels, measures, gates and model."""
    learner = parts_of(request).learner
    found = [dict(one) for one in learner.history(limit)]
    return LearningHistory(total_cycles=learner.status()["total_training_cycles"], history=found)


@router.get("/store", summary="What the feature store holds")
def learning_store(request: Request) -> FeatureStoreAnswer:
    """Flow-hours, the weeks that are represented, their bytes, and labels by origin."""
    return FeatureStoreAnswer.model_validate(parts_of(request).flows.kept())


@router.post("/train-now", status_code=202, summary="Learn now", responses={409: {"model": Problem}})
def learning_train_now(request: Request) -> LearningStarted:
    """Begin a cycle and return at once; 409 while one is under way, or while too few labels are new."""
    parts_of(request).learner.begin()
    noted(request, "learning", "online learner", "learn now")
    return LearningStarted(message="Training cycle started", status="in_progress")


@router.post("/start", summary="Let cycles begin by themselves")
def learning_start(request: Request) -> LearningStatus:
    """One every LEARNING_INTERVAL seconds."""
    return _switched(request, True)


@router.post("/stop", summary="No cycle begins by itself any more")
def learning_stop(request: Request) -> LearningStatus:
    """It holds after a restart, too; the flow model in use stays."""
    return _switched(request, False)


def _switched(request: Request, on: bool) -> LearningStatus:
    parts_of(request).learner.enable(on)
    noted(request, "learning", "online learner", "started" if on else "stopped")
    return learning_status(request)


@router.post("/rollback", summary="Use the model before this one again", responses={409: {"model": Problem}})
def learning_rollback(request: Request, sent: LearningBack) -> LearningTakenBack:
    """The flow, sequence or image model. What is labelled stays labelled."""
    return LearningTakenBack(model_id=_taken_back(request, sent.model, sent.reason))


def _taken_back(request: Request, which: str, reason: str) -> str:
    """Use the model before this one again; its id. Raises AgentsError."""
    parts, reason = parts_of(request), said_text(reason, "a reason", TEXT_MAX_REASON)
    model_id = parts.learnt.take_back(which, reason, author_of(request))
    noted(request, "learning", LEARNT_NAMES[which], f"taken back: {reason}")
    return model_id


@router.get("/cycle", summary="The cycle of the sequence model")
def cycle_status(request: Request) -> CycleStatus:
    """What it is doing, or how the last one ended."""
    return CycleStatus.model_validate(parts_of(request).cycles.state())


@router.get("/cycle/history", summary="Cycles of the sequence model, newest first")
def cycle_history(request: Request, limit: Limit = 20) -> CycleHistory:
    """When each began, how long it took, what it collected and trained, its loss, the decision and why."""
    return CycleHistory(history=[dict(one) for one in parts_of(request).cycles.history(limit)])


@router.post(
    "/cycle/start", status_code=202, summary="Begin a cycle: collect, train, validate, deploy", responses=NOTHING_JUDGES
)
def cycle_start(request: Request, sent: CycleStart) -> CycleAsked:
    """What judges takes it up within a second or two; what is collected is deleted after the training.

    409 where nothing that judges runs beside this API.
    """
    return _asked(request, "start", **sent.model_dump())


@router.post("/cycle/train-now", status_code=202, summary="End collecting, and train", responses=NOTHING_JUDGES)
def cycle_train(request: Request) -> CycleAsked:
    """Nothing happens where no cycle collects."""
    return _asked(request, "train")


@router.post("/cycle/stop", status_code=202, summary="End cycles, and delete what was collected")
def cycle_stop(request: Request) -> CycleAsked:
    """A training under way comes to its end; no cycle begins after it."""
    return _asked(request, "stop")


def _asked(request: Request, action: str, **chosen: Any) -> CycleAsked:
    parts_of(request).cycles.ask(action, **chosen)
    noted(request, "learning", "sequence model", action)
    return CycleAsked(message=f"{action}: asked for")


@page_router.get("/console/learning", dependencies=[InSession])
def learning_page(request: Request) -> Response:
    """How learning goes, and a form for cycles."""
    return _shown_learning(request, 200, **noticed(request))


def _shown_learning(request: Request, status: int = 200, **said: str) -> Response:
    parts = parts_of(request)
    cycle, learner, history = parts.cycles.state(), parts.learner.status(), list(parts.learner.history(CYCLES_DRAWN))
    ended = list(parts.cycles.history(CYCLES_DRAWN))
    return page(
        request,
        "learning.html",
        status,
        learner=learner,
        kept=parts.flows.kept(),
        history=history[:CYCLES_ON_PAGE],
        charts=_charts(history[::-1]),
        progress=_progress(learner, cycle),
        cycle=cycle,
        ended=ended[:CYCLES_ON_PAGE],
        ended_chart=_surprise_chart(ended[::-1]),
        live=cycle["phase"] in LIVE_PHASES or learner["is_training"],
        **({"done": "", "problem": ""} | said),
    )


def _charts(cycles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Charts of cycles, oldest first; {} while there is none."""
    if not cycles:
        return {}
    return {
        "accuracy": measures_chart(cycles, ("accuracy", "balanced_accuracy"), 1.0, "accuracy by cycle"),
        "loss": measures_chart(cycles, ("loss",), 0.1, "loss by cycle"),
        "labels": labels_chart(cycles, "new labels by day and origin"),
        "origins": origins_of(cycles),
    }


def _surprise_chart(cycles: Sequence[Mapping[str, Any]]) -> Markup | str:
    """The loss of ended cycles that were measured, oldest first; "" without one."""
    rows = [one for one in cycles if one["loss"] is not None]
    points = [{"started_at": one["began_at"], "metrics": {"loss": one["loss"]}} for one in rows]
    return measures_chart(points, ("loss",), 0.1, "loss of the sequence model by cycle") if points else ""


def _progress(learner: Mapping[str, Any], cycle: Mapping[str, Any]) -> dict[str, Any]:
    """How far a running cycle is, of either kind, as a bar."""
    found: dict[str, Any] = {"learner": "", "cycle": ""}
    if learner["is_training"]:
        share = learner["progress"] or 0.0
        found["learner"] = progress_bar(share, f"{share:.0%} of the cycle's batches are learnt")
    if cycle["phase"] == "collecting" and cycle["minutes"] > 0:
        share = 1 - cycle["remaining_s"] / (cycle["minutes"] * 60)
        found["cycle"] = progress_bar(share, f"{share:.0%} of the time to collect is over")
    return found


@page_router.post("/console/learning")
async def learning_form(request: Request) -> Response:
    """Carry out what a form of the page asks for, and lead to the page with what came of it."""
    form = await sent_form(request, AccessScope.OPERATE, LEARNING_FORM_MAX)
    try:
        sent = {name: values[0] for name, values in form.items()}
        done = await asyncio.to_thread(_carried_out, request, sent)
        if sent["do"] != "back":
            await asyncio.to_thread(noted, request, "learning", "console", sent["do"])
    except UsageError as error:
        return await asyncio.to_thread(_shown_learning, request, 422, problem=str(error))
    except AgentsError as error:
        return await asyncio.to_thread(_shown_learning, request, 409, problem=str(error))
    return led_to(request, "/console/learning", done=done)


def _carried_out(request: Request, form: Mapping[str, str]) -> str:
    """Do what a form asks for; a sentence about what came of it. Raises AgentsError."""
    parts, action = parts_of(request), form.get("do", "")
    if action in ("start", "train", "stop"):
        chosen = {name: form[name] for name in ("minutes", "length", "epochs") if name in form}
        again = {"again": "again" in form} if action == "start" else {}
        parts.cycles.ask(action, **(chosen if action == "start" else {}), **again)
        return "Asked for: what judges takes it up within seconds."
    if action == "learn":
        parts.learner.begin()
        return "A cycle of the online learner has begun."
    if action == "back":
        if form.get("confirm") != "yes":
            raise UsageError("cannot go back: confirm it with the box beside the button")
        return f"In use: {_taken_back(request, form.get('model', 'flow'), form.get('reason', ''))}."
    if action in ("enable", "disable"):
        parts.learner.enable(action == "enable")
        return "Cycles begin by themselves." if action == "enable" else "No cycle begins by itself any more."
    raise UsageError("cannot do that: the form names nothing that this page offers")
