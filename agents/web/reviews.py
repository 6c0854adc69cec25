"""The review queue: JSON routes, and a page whose forms work without scripts and with the keyboard alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from agents.core.errors import UsageError
from agents.core.text import counted
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import DOMAINS_AT_ONCE, ReviewDecision, ReviewState
from agents.store.people.roles import AccessScope
from agents.web.api import LIMIT_MAX, PROBLEMS, Limit, known_parameters
from agents.web.auth import author_of, noted
from agents.web.console.notices import led_to, noticed
from agents.web.pages import InSession, page, sent_form
from agents.web.parts import parts_of
from agents.web.schemas import (
    DecisionEntry,
    DecisionList,
    ReviewDecide,
    ReviewEntry,
    ReviewQueue,
    ReviewStateName,
    ReviewTake,
    ReviewUndo,
)

REVIEW_FORM_MAX = 2_048 * DOMAINS_AT_ONCE
"""Longest form, bytes: so many domains of 255 bytes each, each byte written as \\DDD and then percent-encoded."""
ON_PAGE = 100
"""Domains and decisions on the page, each."""
router = APIRouter(prefix="/reviews", responses=PROBLEMS, dependencies=[Depends(known_parameters)])
page_router = APIRouter(include_in_schema=False)


@router.get("", summary="Domains that a person is asked about, most informative first")
def review_queue(
    request: Request,
    state: Annotated[ReviewStateName | None, Query(description="without it: those that are not closed")] = None,
    limit: Limit = 100,
) -> ReviewQueue:
    """The queue, and how many domains are in each state."""
    reviews = parts_of(request).reviews
    items = reviews.items(ReviewState(state) if state else None, limit=limit)
    return ReviewQueue(reviews=[ReviewEntry(**asdict(item)) for item in items], counts=reviews.counts())


@router.get("/decisions", summary="What people decided, newest first")
def review_decisions(request: Request, limit: Limit = 100) -> DecisionList:
    """Decisions with reason and author; those that were undone say by whom and why."""
    return _listed(parts_of(request).reviews.decisions(limit=limit))


@router.post("/decide", summary="Label domains")
def review_decide(request: Request, sent: ReviewDecide) -> DecisionList:
    """Label all that clients ask below these domains, now and later, until it is undone. All of them, or none."""
    author = author_of(request, sent.author, "")
    made = parts_of(request).reviews.decide(sent.domains, Label(sent.label), sent.reason, author, time.time())
    _note_labelled(request, made)
    return _listed(made)


def _note_labelled(request: Request, made: Sequence[ReviewDecision]) -> None:
    if made:
        thing = made[0].domain if len(made) == 1 else counted(len(made), "domain")
        noted(request, f"labelled {made[0].label}", thing, made[0].reason, made[0].author)


@router.post("/take", summary="Say that you look at a domain")
def review_take(request: Request, sent: ReviewTake) -> ReviewEntry:
    """The domain is in work."""
    reviews = parts_of(request).reviews
    author = author_of(request, sent.author, "")
    reviews.take(sent.domain, author)
    noted(request, "review taken", sent.domain, author=author)
    item = reviews.item(sent.domain)
    if item is None:  # a more informative one has just taken its place
        raise HTTPException(404, "cannot find that review")
    return ReviewEntry(**asdict(item))


@router.post("/undo", summary="Take a decision back")
def review_undo(request: Request, sent: ReviewUndo) -> DecisionEntry:
    """The decision about a domain no longer stands."""
    author = author_of(request, sent.author, "")
    undone = parts_of(request).reviews.undo(sent.domain, sent.reason, author, time.time())
    noted(request, "label undone", undone.domain, sent.reason, author)
    return DecisionEntry(**asdict(undone))


def _listed(decisions: Sequence[ReviewDecision]) -> DecisionList:
    return DecisionList(decisions=[DecisionEntry(**asdict(one)) for one in decisions])


@page_router.get("/console/reviews", dependencies=[InSession])
def review_page(request: Request) -> Response:
    return _shown(request, 200, **noticed(request))


def _shown(request: Request, status: int = 200, **said: str) -> Response:
    reviews = parts_of(request).reviews
    values = {"done": "", "problem": "", "reason": ""} | said
    return page(
        request,
        "reviews.html",
        status,
        items=reviews.items(limit=ON_PAGE),
        counts=reviews.counts(),
        decisions=reviews.decisions(limit=ON_PAGE),
        **values,
    )


@page_router.post("/console/reviews")
async def review_form(request: Request) -> Response:
    """Carry out what a form of the page asks for, and lead to the page with what came of it."""
    form = await sent_form(request, AccessScope.TRIAGE, REVIEW_FORM_MAX)
    action, domains = form.get("do", [""])[0], form.get("domain", [])
    reason = form.get("reason", [""])[0]
    work = _work(request, action, domains, reason)
    try:
        done = await asyncio.to_thread(work)
    except UsageError as error:
        return await asyncio.to_thread(_shown, request, 422, problem=str(error), reason=reason)
    return led_to(request, "/console/reviews", done=done)


def _work(request: Request, action: str, domains: Sequence[str], reason: str) -> Callable[[], str]:
    """What a form asks for; returns a sentence about what came of it. Raises UsageError."""
    reviews, author = parts_of(request).reviews, author_of(request)

    def take_all() -> str:
        if not domains:
            raise UsageError("cannot take: no domain is marked")
        for domain in domains[:LIMIT_MAX]:
            reviews.take(domain, author)
        noted(request, "review taken", domains[0] if len(domains) == 1 else counted(len(domains), "domain"))
        return f"{counted(len(domains), 'domain')} in work by {author}."

    def undo_one() -> str:
        one = reviews.undo(domains[0] if domains else "", reason, author, time.time())
        noted(request, "label undone", one.domain, reason)
        return f"{one.domain} is no longer labelled {one.label}."

    def label_all() -> str:
        if action not in set(Label):
            raise UsageError("cannot do that: the form names nothing that this page offers")
        made = reviews.decide(domains, Label(action), reason, author, time.time())
        _note_labelled(request, made)
        return f"{counted(len(made), 'domain')} labelled {action}."

    return {"take": take_all, "undo": undo_one}.get(action, label_all)
