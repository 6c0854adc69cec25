"""Staging at the console: candidates that go to a second installation, those that come from one, and verdicts."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Request, Response
from fastapi.responses import FileResponse

from agents.core.errors import AgentsError, BusyError, StoreError, UsageError
from agents.store.people.roles import AccessScope
from agents.web.api import PROBLEMS, known_parameters
from agents.web.auth import author_of, noted
from agents.web.console.notices import led_to, noticed
from agents.web.models.schemas import DecisionAnswer, StagedFile, StagedFiles, StageImport, TransitionEntry
from agents.web.models.schemas import VersionDecision as StageExport
from agents.web.pages import InSession, page, sent_form
from agents.web.parts import ModelDecided, StageControl, parts_of
from agents.web.schemas import Problem

STAGED = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.stage(\.verdict)?$"
STAGING = "/console/models/staging"
STAGE_FORM_MAX = 4_096
"""Longest form, bytes."""
router = APIRouter(
    prefix="/models/staging", responses={**PROBLEMS, 409: {"model": Problem}}, dependencies=[Depends(known_parameters)]
)
page_router = APIRouter(include_in_schema=False)


def _control(request: Request) -> StageControl:
    found = parts_of(request).staging
    if found is None:
        raise HTTPException(404, "cannot find staging: it is not set up in this process")
    return found


@router.get("", summary="Files of staging, the newest first")
def staged_files(request: Request) -> StagedFiles:
    """Candidates and verdicts in DATA_DIR/staging."""
    return StagedFiles(files=[StagedFile(**one) for one in _control(request).files()])


@router.get("/{name}", summary="One of these files", response_class=FileResponse)
def staged_file(
    request: Request, name: Annotated[str, Path(pattern=STAGED, examples=["1f0c9d2e7a554b13.stage"])]
) -> FileResponse:
    """As `dns-tunnel stage import` reads it at the other installation."""
    return _sent(request, name)


@router.post("/export", summary="Write a version as a file")
def staged_export(request: Request, sent: StageExport) -> DecisionAnswer:
    """DATA_DIR/staging/MODEL_ID.stage, with lineage and report: it has names of domains and clients."""
    return _answered(_exported(request, sent.model_id, author_of(request, sent.author, ""), sent.reason))


@router.post("/import", summary="Validate a candidate of another installation, or note a verdict")
def staged_import(request: Request, sent: StageImport) -> DecisionAnswer:
    """A file in DATA_DIR/staging. A candidate is validated here, which takes a minute; its verdict lies beside it."""
    return _answered(_taken(request, sent.name, author_of(request, sent.author, ""), sent.reason))


def _answered(done: ModelDecided) -> DecisionAnswer:
    made = TransitionEntry(**done.made.to_json(), text=done.made.text)
    return DecisionAnswer(made=made, problems=list(done.problems))


def _sent(request: Request, name: str) -> FileResponse:
    try:
        found = _control(request).path(name)
    except UsageError as error:
        raise HTTPException(404, str(error)) from None
    return FileResponse(found, media_type="application/octet-stream", filename=name)


def _exported(request: Request, model_id: str, author: str, reason: str) -> ModelDecided:
    if not author:
        raise UsageError("cannot export: an author must be given")
    done = _control(request).export(model_id, author, reason)
    noted(request, "stage: export", model_id, reason, author)
    return done


def _taken(request: Request, name: str, author: str, reason: str) -> ModelDecided:
    if not author:
        raise UsageError("cannot import: an author must be given")
    done = _control(request).take(name, author, reason)
    noted(request, "stage: import", name, f"{done.made.text}: {reason}", author)
    return done


@page_router.get("/console/models/staging", dependencies=[InSession])
def staging_page(request: Request) -> Response:
    return _shown(request, 200, **noticed(request))


@page_router.get("/console/models/staging/{name}", dependencies=[InSession])
def staged_download(request: Request, name: str) -> Response:
    return _sent(request, name)


@page_router.post("/console/models/staging")
async def staging_form(request: Request) -> Response:
    """Export or import, and lead to the page with what came of it."""
    form = await sent_form(request, AccessScope.OPERATE, STAGE_FORM_MAX)
    sent = {name: values[0].strip() for name, values in form.items()}
    try:
        done = await asyncio.to_thread(_carried_out, request, sent)
    except UsageError as error:
        return await asyncio.to_thread(_shown, request, 422, problem=str(error), reason=sent.get("reason", ""))
    except AgentsError as error:
        status = 409 if isinstance(error, BusyError) else 503 if isinstance(error, StoreError) else 422
        return await asyncio.to_thread(_shown, request, status, problem=str(error), reason=sent.get("reason", ""))
    except OSError as error:  # something may be done by now
        return led_to(request, STAGING, problem=f"cannot do that: {error.strerror or error}")
    return led_to(request, STAGING, done=done)


def _carried_out(request: Request, sent: dict[str, str]) -> str:
    """What a form asks for; a sentence about what came of it. Raises AgentsError, OSError."""
    action, reason = sent.get("do", ""), sent.get("reason", "")
    if action not in ("export", "import"):
        raise UsageError("cannot do that: the form names nothing that this page offers")
    if not reason:
        raise UsageError(f"cannot {action}: a reason must be given")
    make = _exported if action == "export" else _taken
    done = make(request, sent.get("model_id" if action == "export" else "name", ""), author_of(request), reason)
    return ". ".join([done.made.text, *(f"Not told: {problem}" for problem in done.problems)]) + "."


def _shown(request: Request, status: int = 200, **said: str) -> Response:
    desk = parts_of(request).desk
    values: dict[str, Any] = {"done": "", "problem": "", "reason": ""} | said
    try:
        found = [desk.version(one["model_id"]) for one in desk.versions() if one["kind"] == "candidate"]
        values |= {"files": _control(request).files(), "waiting": [one for one in found if one["state"] == "waiting"]}
        values["verdicts"] = [(one, verdict) for one in found for verdict in one["lineage"].get("verdicts", [])]
    except (AgentsError, OSError) as error:
        values |= {"files": [], "waiting": [], "verdicts": []}
        values["problem"] = values["problem"] or str(error)
    return page(request, "staging.html", status, **values)
