"""Known services: this network's own list over the API and on a page, with a preview before an entry is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from agents.core.errors import AgentsError, UsageError
from agents.core.text import counted, printable
from agents.detection.explanations.known_desk import WEEKS, KnownDesk, Preview
from agents.detection.known_services import Entry
from agents.store.console.audit import KNOWN_KEPT
from agents.store.console.triage import Change
from agents.store.feedback.labels import Label
from agents.store.people.roles import AccessScope
from agents.web.api import PROBLEMS, known_parameters
from agents.web.auth import author_of
from agents.web.console.notices import led_to, noticed
from agents.web.console.schemas import (
    ServiceEntry,
    ServiceKeep,
    ServiceList,
    ServicePreview,
    ServiceRemove,
    ServiceUndo,
    ServiceUndone,
)
from agents.web.pages import InSession, page, sent_form
from agents.web.parts import Parts, parts_of

FORM_MAX = 16_384
"""Longest form, bytes."""
_AND = " "
"""Between the id of a label and what takes an entry back."""
FIELDS = ("suffix", "factor", "reason", "expires", "incident", "client", "weeks")
router = APIRouter(prefix="/services", responses=PROBLEMS, dependencies=[Depends(known_parameters)])
page_router = APIRouter(include_in_schema=False)


@router.get("", summary="Known services of this network")
def services_listed(request: Request) -> ServiceList:
    """Entries of people; what the product ships is not among them."""
    now = time.time()
    return ServiceList(services=[_entry(one, now) for one in parts_of(request).known.entries()])


def _entry(entry: Entry, now: float) -> ServiceEntry:
    factor = None if entry.is_own else entry.factor
    return ServiceEntry(
        suffix=entry.suffix, factor=factor, reason=entry.reason, author=entry.author, added=entry.added,
        expires=entry.expires, holds=entry.holds(now), client=entry.client,
    )  # fmt: skip


@router.post("/preview", summary="What an entry would silence")
def service_preview(request: Request, sent: ServiceKeep) -> ServicePreview:
    """Live incidents of the last weeks below it: those that would be silent, and those that would stay."""
    return _previewed(parts_of(request).known.preview(_made(request, sent), sent.weeks))


@router.post("", summary="Keep an entry")
def service_keep(request: Request, sent: ServiceKeep) -> ServicePreview:
    """In place of the one of that suffix. Stored incidents of these weeks that it silences are closed."""
    entry = _made(request, sent)
    return _previewed(_kept(parts_of(request), entry, "API", sent.weeks))


@router.post("/undo", summary="Take back that an entry was kept")
def service_undo(request: Request, sent: ServiceUndo) -> ServiceUndone:
    """The one before it, if any, is in force again; incidents that it closed are as before."""
    suffix, reopened = _taken_back(parts_of(request), sent.undo, author_of(request, sent.author), "API")
    return ServiceUndone(suffix=suffix, reopened=reopened)


@router.post("/remove", summary="Take an entry away")
def service_remove(request: Request, sent: ServiceRemove) -> ServiceList:
    """From now on its names count as any other."""
    _removed(parts_of(request), sent.suffix, sent.client, author_of(request, sent.author), "API")
    return services_listed(request)


def _made(request: Request, sent: ServiceKeep) -> Entry:
    factor = "own" if sent.own else f"{sent.factor:g}"
    author = author_of(request, sent.author)
    return parts_of(request).known.entry(sent.suffix, factor, sent.reason, author, sent.expires or "", sent.client)


def _previewed(found: Preview) -> ServicePreview:
    return ServicePreview(
        silenced=[one.incident_id for one in found.silenced],
        stay={one.incident_id: factor for one, factor in found.stay},
        looked_at=found.looked_at,
        weeks=found.weeks,
        oldest=found.oldest,
        is_cut=found.is_cut,
        undo=found.undo,
    )


def _kept(parts: Parts, entry: Entry, way: str, weeks: int) -> Preview:
    found = parts.known.add(entry, weeks)
    size = "own zone" if entry.is_own else f"x{entry.factor:g}"
    detail = f"{size} until {entry.expires}: {entry.reason}"
    parts.console.audit.add(entry.author, way, KNOWN_KEPT, entry.shown, detail)
    return found


def _taken_back(parts: Parts, undo: str, author: str, way: str) -> tuple[str, list[str]]:
    entry, reopened = parts.known.take_back(undo)
    parts.console.audit.add(author, way, "known service undone", entry.shown, counted(len(reopened), "incident"))
    return entry.shown, reopened


def _removed(parts: Parts, suffix: str, client: str, author: str, way: str) -> str:
    gone = parts.known.remove(suffix, client)
    parts.console.audit.add(author, way, "known service removed", gone)
    return gone


@page_router.get("/console/services", dependencies=[InSession])
def services_page(request: Request) -> Response:
    """The page with the form filled in by the address, and what the entry would do: one click keeps it."""
    filled = {name: request.query_params.get(name, "")[:1024] for name in FIELDS}
    found = None
    problem = ""
    if filled["suffix"]:
        try:
            filled, found = _filled_in(parts_of(request).known, filled)
        except AgentsError as error:
            problem = str(error)
    told = noticed(request)
    return _shown(request, filled, 200, found=found, **told | {"problem": problem or told["problem"]})


def _filled_in(desk: KnownDesk, asked: Mapping[str, str]) -> tuple[dict[str, str], Preview]:
    """The form with its end, and where no factor is asked for, with the one that silences the incident it is about."""
    entry = _typed(desk, asked, "preview")
    weeks = _weeks(asked)
    found = desk.preview(entry, weeks)
    filled = dict(asked) | {"expires": entry.expires}
    needed = [factor for one, factor in found.stay if one.incident_id == asked["incident"]]
    if needed and not asked["factor"]:
        filled["factor"] = str(needed[0])
        with suppress(UsageError):  # more than an entry may have: the page says that the incident stays
            found = desk.preview(_typed(desk, filled, "preview"), weeks)
    return filled, found


def _weeks(sent: Mapping[str, str]) -> int:
    text = sent.get("weeks", "")
    if text and not (text.isascii() and text.isdigit()):
        raise UsageError(f"cannot look back {printable(text, 12)!r} weeks")
    return int(text[:4] or 1)


def _typed(desk: KnownDesk, sent: Mapping[str, str], author: str) -> Entry:
    reason = sent.get("reason", "").strip() or "preview" * (author == "preview")
    return desk.entry(
        sent.get("suffix", ""), sent.get("factor", "").strip() or "10", reason, author, sent.get("expires", ""),
        sent.get("client", ""),
    )  # fmt: skip


def _shown(request: Request, filled: Mapping[str, str], status: int = 200, **said: Any) -> Response:
    values = {"done": "", "problem": "", "undo": "", "found": None} | said
    try:
        entries = parts_of(request).known.entries()
    except AgentsError as error:
        entries, values["problem"] = [], values["problem"] or str(error)
    return page(
        request, "services.html", status, entries=entries, filled=filled, now=time.time(), choices=WEEKS, **values
    )


@page_router.post("/console/services")
async def services_form(request: Request) -> Response:
    """Preview, or keep or take away and lead to the page with what came of it."""
    form = await sent_form(request, AccessScope.TRIAGE, FORM_MAX)
    sent = {name: values[0] for name, values in form.items()}
    filled = {name: sent.get(name, "") for name in FIELDS}
    author = author_of(request)
    try:
        found, told = await asyncio.to_thread(_carried_out, parts_of(request), sent, author)
    except AgentsError as error:
        return await asyncio.to_thread(_shown, request, filled, 422, problem=str(error))
    if told:
        return led_to(request, "/console/services", (), **told)
    return await asyncio.to_thread(_shown, request, filled, found=found)


def _carried_out(parts: Parts, sent: Mapping[str, str], author: str) -> tuple[Preview | None, dict[str, str]]:
    """A preview, or what came of a form and what takes it back."""
    action = sent.get("do", "")
    which = sent.get("suffix", ""), sent.get("client", "")
    if action == "remove":
        return None, {"done": f"{_removed(parts, *which, author, 'console')} is no longer known."}
    if action == "undo":
        return None, {"done": _undone(parts, sent.get("action", ""), author)}
    entry = _typed(parts.known, sent, author if action == "keep" else "preview")
    if action != "keep":
        return parts.known.preview(entry, _weeks(sent)), {}
    incident = sent.get("incident", "")
    if incident and parts.store.incident_by_id(incident) is None:
        raise UsageError("cannot label the incident: it is not stored any more; keep the entry alone")
    found, action_id = _kept(parts, entry, "console", _weeks(sent)), ""
    done = f"{entry.shown} is known until {entry.expires}; {counted(len(found.silenced), 'incident')} closed"
    if incident:
        said = Change(label=Label.BENIGN, reason=entry.reason)
        action_id = parts.console.triage.change([incident], said, author, "console")
        done += ", its incident labelled benign"
    return None, {"done": f"{done}.", "undo": f"{action_id}{_AND}{found.undo}"}


def _undone(parts: Parts, undo: str, author: str) -> str:
    """Take back an entry with the label that came with it; a sentence about what came of it."""
    action_id, _, kept = undo.partition(_AND)
    suffix, reopened = _taken_back(parts, kept, author, "console")
    done = f"{suffix} is as before; {counted(len(reopened), 'incident')} open again"
    if action_id:
        try:
            parts.console.triage.undo(action_id, author, "console")
            done += ", its label taken back"
        except UsageError as error:  # somebody has said something else since
            done += f"; its label stays ({error})"
    return f"{done}."
