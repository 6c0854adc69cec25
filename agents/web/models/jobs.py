"""What runs by the calendar, retraining before all: looked up, paused, resumed, and a retraining begun now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from agents.core.errors import AgentsError, UsageError
from agents.core.text import said_text
from agents.store.feedback.reviews import TEXT_MAX_REASON
from agents.store.people.roles import AccessScope
from agents.web.api import PROBLEMS, known_parameters
from agents.web.auth import author_of, noted
from agents.web.console.notices import led_to
from agents.web.models.schemas import JobDecision, JobEntry, JobList
from agents.web.pages import sent_form
from agents.web.parts import JobControl, parts_of

BACK = "/console/models"
router = APIRouter(prefix="/jobs", responses=PROBLEMS, dependencies=[Depends(known_parameters)])
page_router = APIRouter(include_in_schema=False)


@router.get("", summary="What runs by the calendar")
def jobs_listed(request: Request) -> JobList:
    """Each job with its schedule, when it ran last and runs next, and who paused it."""
    return JobList(jobs=[JobEntry(**one) for one in jobs_shown(request)])


@router.post("/pause", summary="Pass a job over until it is resumed")
def job_paused(request: Request, sent: JobDecision) -> JobList:
    """By every scheduler of this installation, also after a restart. maintain is not paused: it deletes what is old."""
    _paused(request, sent.job, sent.reason, author_of(request, sent.author))
    return jobs_listed(request)


@router.post("/resume", summary="Let a paused job run again")
def job_resumed(request: Request, sent: JobDecision) -> JobList:
    """From its next time on; what was passed over is not made up for."""
    _resumed(request, sent.job, sent.reason, author_of(request, sent.author))
    return jobs_listed(request)


def jobs_shown(request: Request) -> list[dict[str, Any]]:
    """The jobs; [] where no scheduler keeps any. Raises StoreError."""
    desk = parts_of(request).jobs
    return desk.jobs() if desk else []


def _desk(request: Request) -> JobControl:
    desk = parts_of(request).jobs
    if desk is None:
        raise UsageError("cannot do that: no job runs by the calendar here")
    return desk


def _paused(request: Request, name: str, reason: str, author: str) -> None:
    said = said_text(reason, "a reason", TEXT_MAX_REASON)
    _desk(request).pause(name, author, said)
    noted(request, "job paused", name, said, author)


def _resumed(request: Request, name: str, reason: str, author: str) -> None:
    said = said_text(reason, "a reason", TEXT_MAX_REASON)
    _desk(request).resume(name)
    noted(request, "job resumed", name, said, author)


@page_router.post("/console/jobs")
async def jobs_form(request: Request) -> Response:
    """Carry out what a form of the page of models asks for, and lead back there with what came of it."""
    form = await sent_form(request, AccessScope.OPERATE)
    sent = {name: values[0].strip() for name, values in form.items()}
    try:
        return led_to(request, BACK, done=await asyncio.to_thread(_carried_out, request, sent))
    except AgentsError as error:
        return led_to(request, BACK, problem=str(error))


def _carried_out(request: Request, sent: Mapping[str, str]) -> str:
    """Do what a form asks for; a sentence about what came of it. Raises AgentsError."""
    action, job, reason = sent.get("do", ""), sent.get("job", ""), sent.get("reason", "")
    if action not in ("retrain", "pause", "resume"):
        raise UsageError("cannot do that: the form names nothing that this page offers")
    if sent.get("confirm") != "yes":
        raise UsageError(f"cannot {action}: confirm it with the box beside the button")
    said = said_text(reason, "a reason", TEXT_MAX_REASON)
    if action == "retrain":
        run_id = parts_of(request).retrain()
        noted(request, "retraining", run_id, f"started: {said}")
        return f"The retraining {run_id} has begun. Its report will be among the training reports."
    if action == "pause":
        _paused(request, job, said, author_of(request))
        return f"{job} is paused until somebody resumes it."
    _resumed(request, job, said, author_of(request))
    return f"{job} runs again, from its next time on."
