"""The online learner over the API: status, train now, history, start and stop."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from agents.web.api import PROBLEMS, Limit, known_parameters
from agents.web.parts import parts_of
from agents.web.schemas import LearningHistory, LearningStarted, LearningStatus, Problem

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


@router.post("/train-now", status_code=202, summary="Learn now", responses={409: {"model": Problem}})
def learning_train_now(request: Request) -> LearningStarted:
    """Begin a cycle and return at once; 409 while one is under way. Too few new labels end it at once."""
    parts_of(request).learner.begin()
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
    return learning_status(request)
