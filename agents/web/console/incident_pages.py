"""Pages of incidents: the list with its facets and bulk actions, and one incident with all that helps to judge it.

Filters, range and page stand in the address, so that a reload keeps them and a colleague sees the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, HTTPException, Request, Response

from agents.core.errors import AgentsError, UsageError
from agents.core.text import NETWORK, counted
from agents.core.types import Incident
from agents.store.console.finding import FACETS, IncidentPage, IncidentSearch
from agents.store.console.ordering import DOWN, SORTS, UP, IncidentOrder
from agents.store.console.triage import AT_ONCE_MAX, FOUND_MAX, Change
from agents.store.console.views import PASSING
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewState
from agents.store.people.roles import AccessScope
from agents.web.auth import author_of
from agents.web.console.incident_context import context_of
from agents.web.console.incidents import PageCursor, Search, changed_found, shown
from agents.web.console.notices import led_to, noticed
from agents.web.console.words import claim, decoded
from agents.web.pages import InSession, page, range_of, sent_form
from agents.web.parts import Parts, parts_of

ON_PAGE = 50
"""Incidents of one page of the list."""
FORM_MAX = 65_536
"""Longest form, bytes: the ids of AT_ONCE_MAX incidents."""
WAY = "console"
LIST = "/console/incidents"
HUNT = "/console/hunt"
TO_BLOCK = "block"
"""What the button sends that labels a tunnel and leads to the block of its domain."""
page_router = APIRouter(include_in_schema=False)


@page_router.get(LIST, dependencies=[InSession])
def incident_list(request: Request, search: Search, cursor: PageCursor = None) -> Response:
    """Incidents that the address asks for."""
    console, told = parts_of(request).console, noticed(request)
    try:
        found = console.finder.page(search, limit=ON_PAGE, cursor=cursor)
        said = console.triage.of(one.incident_id for one in found.incidents)
        views = console.views.all()
    except AgentsError as error:
        found, said, views = IncidentPage((), None, 0), {}, []
        told["problem"] = str(error)
    kept = kept_of(request)
    return page(
        request,
        "incidents.html",
        found=found,
        said=said,
        views=views,
        q=request.query_params.get("q", ""),
        terms=search.terms,
        facets=_facets(found, kept),
        older=f"{LIST}?{urlencode([*kept, ('cursor', found.cursor)])}" if found.cursor else "",
        first=f"{LIST}?{urlencode(kept)}" if cursor else "",
        export=f"/incidents/export?{urlencode(kept)}",
        query=urlencode(kept),
        cursor=cursor or "",
        now=time.time(),
        found_max=FOUND_MAX,
        narrowed=any(name != "sort" for name, _ in kept),
        order=search.order,
        sorts=_sorts(search.order, kept),
        labels=list(Label),
        **told,
    )


def kept_of(request: Request) -> list[tuple[str, str]]:
    """The filters of an address, without its page and what was done last."""
    said = request.query_params.multi_items()
    return [(name, value) for name, value in said if (value or name == "source") and name not in PASSING]


def _sorts(order: IncidentOrder, kept: Sequence[tuple[str, str]]) -> dict[str, str]:
    """By what the list can be sorted: its address, in the other direction where it is sorted so."""
    rest = [pair for pair in kept if pair[0] != "sort"]
    found = {}
    for name, first in SORTS.items():
        turned = {UP: DOWN, DOWN: UP}[order.direction] if name == order.name else first
        found[name] = f"{LIST}?{urlencode([*rest, ('sort', f'{name}:{turned}')])}"
    return found


def _facets(found: IncidentPage, kept: Sequence[tuple[str, str]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Of each facet its values, each with the address that adds or takes it away."""
    out = []
    for name in FACETS:
        values = []
        for value, count in found.facets.get(name, ()):
            said = shown(name, value)
            chosen = (name, said) in kept
            rest = [pair for pair in kept if pair != (name, said)]
            address = f"{LIST}?{urlencode(rest if chosen else [*rest, (name, said)])}"
            values.append({"shown": said, "count": count, "chosen": chosen, "address": address})
        if len(values) > 1 or any(one["chosen"] for one in values):
            out.append((name, values))
    return out


@page_router.get("/console/incidents/{incident_id}", dependencies=[InSession])
def incident_page(request: Request, incident_id: str, search: Search) -> Response:
    """One incident; the filters of the list that it was opened from stay in its address."""
    parts = parts_of(request)
    found = parts.store.incident_by_id(incident_id)
    if found is None:
        raise HTTPException(404, "cannot find that incident")
    query = urlencode(kept_of(request))
    above, below = parts.console.finder.neighbours(search, found)
    return page(
        request,
        "incident.html",
        incident=found,
        claim=claim(found),
        decoded=decoded(found),
        said=parts.console.triage.of([found.incident_id])[found.incident_id],
        history=parts.console.triage.history(found.incident_id),
        context=context_of(parts, found),
        days=range_of(found.first_seen, found.last_seen, time.time()),
        above=f"{LIST}/{above}?{query}" if above else "",
        below=f"{LIST}/{below}?{query}" if below else "",
        back=f"{LIST}?{query}",
        query=query,
        block_link=_block_link(found) if parts.blocks.mode != "off" else "",
        allow_link=_allow_link(found),
        labels=list(Label),
        **noticed(request),
    )


def _block_link(incident: Incident) -> str:
    """Where a person blocks the incident's domain; "" where it has none."""
    if incident.domain in (NETWORK, "."):
        return ""
    wanted = {"domain": incident.domain, "client": incident.client, "reason": f"incident {incident.incident_id}"}
    return "/console/blocks?" + urlencode(wanted)


def _allow_link(incident: Incident) -> str:
    """Where a person takes the incident's domain for a known service; "" where it has none."""
    if incident.domain in (NETWORK, "."):
        return ""
    wanted = {"suffix": incident.domain, "reason": f"incident {incident.incident_id}", "incident": incident.incident_id}
    return "/console/services?" + urlencode(wanted)


@page_router.post(f"{LIST}/found")
async def found_form(request: Request, search: Search) -> Response:
    """Carry out for all that the address finds what the form of the list asks for, and go back there."""
    form = await sent_form(request, AccessScope.TRIAGE, FORM_MAX)
    sent = {name: values[0] for name, values in form.items()}
    author = author_of(request)
    try:
        told = await asyncio.to_thread(_carried_out_for_all, request, search, sent, author)
    except UsageError as error:
        told = {"problem": str(error)[:300]}
    return led_to(request, LIST, kept_of(request), **told)


def _carried_out_for_all(
    request: Request, search: IncidentSearch, sent: Mapping[str, str], author: str
) -> dict[str, str]:
    action = sent.get("do", "")
    if sent.get("confirm") != "all":
        raise UsageError("cannot do that: confirm with the box beside the buttons that all that is found is meant")
    try:
        shown_at = float(sent.get("shown_at", ""))
    except ValueError:
        raise UsageError("cannot do that: the form does not say when its list was read") from None
    change = _change_of(action, sent, author)
    action_id, ids = changed_found(request, search, change, author, WAY, shown_at)
    return {
        "done": f"All {counted(len(ids), 'incident')} that were found: {_said(action, sent, author)}.",
        "undo": action_id,
    }


@page_router.post(LIST)
async def incident_form(request: Request) -> Response:
    """Carry out what a form of the list or of an incident asks for, and go back there."""
    form = await sent_form(request, AccessScope.TRIAGE, FORM_MAX)
    sent = {name: values[0] for name, values in form.items()}
    author = author_of(request)
    try:
        told = await asyncio.to_thread(_carried_out, parts_of(request), sent, form.get("incident", []), author)
    except UsageError as error:
        told = {"problem": str(error)[:300]}
    page_id = sent.get("page", "")
    kept = parse_qsl(sent.get("query", ""))
    if (cursor := sent.get("cursor", "")) and sent.get("do") not in ("save", "forget"):
        kept.append(("cursor", cursor))
    if sent.get("do") == TO_BLOCK and "problem" not in told:
        found = await asyncio.to_thread(parts_of(request).store.incident_by_id, page_id)
        if found is not None and (link := _block_link(found)):
            return led_to(request, link, (), **told)
    back = f"{LIST}/{page_id}" if page_id.isalnum() else _list_of(sent)
    return led_to(request, back, kept, **told)


def _list_of(sent: Mapping[str, str]) -> str:
    """The page whose list a form is about."""
    return HUNT if sent.get("of") == HUNT else LIST


def _carried_out(parts: Parts, sent: Mapping[str, str], incidents: Sequence[str], author: str) -> dict[str, str]:
    """What came of it, and by what it is undone. Raises UsageError."""
    console, action = parts.console, sent.get("do", "")
    if action == "undo":
        ids = console.triage.undo(sent.get("action", ""), author, WAY)
        return {"done": f"Undone for {counted(len(ids), 'incident')}."}
    if action == "save":
        view = console.views.save(sent.get("view", ""), f"{_list_of(sent)}?{sent.get('query', '')}", author, WAY)
        return {"done": f"The view {view.name} is kept."}
    if action == "forget":
        console.views.remove(sent.get("view", ""), author, WAY)
        return {"done": "The view is gone."}
    if not incidents:
        raise UsageError("cannot do that: no incident is marked")
    if len(incidents) > AT_ONCE_MAX:
        raise UsageError(f"cannot change more than {AT_ONCE_MAX} incidents at once")
    change = _change_of(action, sent, author)
    action_id = console.triage.change(incidents, change, author, WAY)
    return {"done": f"{counted(len(incidents), 'incident')}: {_said(action, sent, author)}.", "undo": action_id}


def _change_of(action: str, sent: Mapping[str, str], author: str) -> Change:
    reason, comment = sent.get("reason", "").strip(), sent.get("comment", "").strip()
    if action in set(Label):
        return Change(label=Label(action), comment=comment, reason=reason)
    if action in set(ReviewState):
        return Change(state=ReviewState(action), comment=comment, reason=reason)
    offered = {
        TO_BLOCK: Change(label=Label.TUNNEL, comment=comment, reason=reason),
        "mine": Change(assignee=author),
        "nobody": Change(assignee=""),
        "assign": Change(assignee=sent.get("assignee", "").strip()),
        "unlabel": Change(label="", state=ReviewState.NEW),
        "comment": Change(comment=comment),
    }
    if action not in offered:
        raise UsageError("cannot do that: the form names nothing that this page offers")
    return offered[action]


def _said(action: str, sent: Mapping[str, str], author: str) -> str:
    words = {
        TO_BLOCK: f"labelled {Label.TUNNEL}",
        "mine": f"in work by {author}",
        "nobody": "nobody's",
        "assign": f"in work by {sent.get('assignee', '').strip() or 'nobody'}",
        "unlabel": "no longer labelled",
        "comment": "comment kept",
    }
    return words.get(action) or (f"labelled {action}" if action in set(Label) else action)
