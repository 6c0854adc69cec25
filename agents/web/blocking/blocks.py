"""Blocks: JSON routes, and a page whose forms work without scripts; one click undoes all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from agents.core.errors import AgentsError, UsageError
from agents.core.text import NETWORK, counted
from agents.dns.blocks import Block, BlockAction, BlockList
from agents.store.people.roles import AccessScope
from agents.web.api import PROBLEMS, known_parameters
from agents.web.auth import author_of, noted
from agents.web.console.notices import led_to, noticed
from agents.web.pages import InSession, page, sent_form
from agents.web.parts import BlockBook, parts_of
from agents.web.schemas import BlockAdd, BlockAuthor, BlockEntry, BlockRemove, BlocksAnswer

BLOCK_FORM_MAX = 16_384
"""Longest form, bytes: a domain and a reason, each byte percent-encoded."""
BLOCKS_SHOWN = 500
"""Blocks on the page, those that last first."""
router = APIRouter(prefix="/blocks", responses=PROBLEMS, dependencies=[Depends(known_parameters)])
page_router = APIRouter(include_in_schema=False)


@router.get("", summary="What is blocked, or would be")
def blocks_listed(
    request: Request, ended: Annotated[bool, Query(description="also those that ended within a week")] = False
) -> BlocksAnswer:
    """Blocks with who made them, why, until when and how often they were met."""
    book = parts_of(request).blocks
    found = book.blocks()
    shown = found.blocks if ended else found.lasting(time.time())
    entries = _entries(book, shown)
    return BlocksAnswer(mode=book.mode, counts_alone=book.counts_alone(found), paused=found.paused, blocks=entries)  # type: ignore[arg-type]


@router.post("", summary="Block a domain")
def block_made(request: Request, sent: BlockAdd) -> BlockEntry:
    """Block a domain and all names below it, for one client or for all, until a time."""
    made = _blocked(
        request,
        sent.domain,
        sent.client,
        sent.action or "",
        reason=sent.reason,
        author=author_of(request, sent.author, ""),
        hours=sent.hours or 0.0,
        anyway=sent.anyway,
    )
    return _entries(parts_of(request).blocks, [made])[0]


@router.post("/remove", summary="End blocks")
def block_ended(request: Request, sent: BlockRemove) -> list[BlockEntry]:
    """End the block with this id, or all of this domain."""
    gone = _ended(request, sent.which, author_of(request, sent.author, ""))
    return _entries(parts_of(request).blocks, gone)


@router.post("/undo-all", summary="End all blocks")
def all_blocks_ended(request: Request, sent: BlockAuthor) -> list[BlockEntry]:
    """End all blocks, and make none without a person until /blocks/resume. Needs no database."""
    return _entries(parts_of(request).blocks, _undone(request, author_of(request, sent.author, "")))


@router.post("/pause", summary="Make no block without a person")
def blocks_paused(request: Request, sent: BlockAuthor) -> BlocksAnswer:
    """What is blocked stays so; no more is blocked without a person until /blocks/resume."""
    author = author_of(request, sent.author, "")
    parts_of(request).blocks.pause(author)
    noted(request, "blocks paused", NETWORK, author=author)
    return blocks_listed(request)


@router.post("/resume", summary="Make blocks without a person again")
def blocks_resumed(request: Request) -> BlocksAnswer:
    """End a pause."""
    _resumed(request)
    return blocks_listed(request)


def _entries(book: BlockBook, blocks: Sequence[Block]) -> list[BlockEntry]:
    hits = book.hits()
    return [BlockEntry(**asdict(one), hits=hits.get(one.block_id, 0)) for one in blocks]


@page_router.get("/console/blocks", dependencies=[InSession])
def block_page(request: Request) -> Response:
    """The page; `domain`, `client` and `reason` of the address are filled in."""
    asked = {name: request.query_params.get(name, "")[:1024] for name in ("domain", "client", "reason")}
    return _page_of(request, 200, **noticed(request), **asked)


def _page_of(request: Request, status: int = 200, **said: str) -> Response:
    book, now = parts_of(request).blocks, time.time()
    values = {"done": "", "problem": "", "undo": "", "domain": "", "client": "", "reason": ""} | said
    try:
        found, hits = book.blocks(), book.hits()
    except AgentsError as error:
        found, hits = BlockList(), {}
        values["problem"] = values["problem"] or str(error)
    lasting = found.lasting(now)
    return page(
        request,
        "blocks.html",
        status,
        mode=book.mode,
        paused=found.paused,
        counts_alone=book.counts_alone(found),
        lasting=lasting[:BLOCKS_SHOWN],
        more=max(len(lasting) - BLOCKS_SHOWN, 0),
        ended=[one for one in reversed(found.blocks) if not one.lasts(now)][:BLOCKS_SHOWN],
        hits=hits,
        now=now,
        actions=list(BlockAction),
        network=NETWORK,
        **values,
    )


@page_router.post("/console/blocks")
async def block_form(request: Request) -> Response:
    """Carry out what a form of the page asks for, and lead to the page with what came of it."""
    form = await sent_form(request, AccessScope.OPERATE, BLOCK_FORM_MAX)
    sent = {name: values[0] for name, values in form.items()}
    kept = {name: sent.get(name, "") for name in ("domain", "client", "reason")}
    try:
        done = await asyncio.to_thread(_work(request, sent))
    except AgentsError as error:
        return await asyncio.to_thread(_page_of, request, 422, problem=str(error), **kept)
    return led_to(request, "/console/blocks", done=done)


def _work(request: Request, sent: dict[str, str]) -> Callable[[], str]:
    """What a form asks for; returns a sentence about what came of it. Raises AgentsError."""

    def block_one() -> str:
        hours = _hours(sent.get("hours", ""))
        made = _blocked(
            request,
            sent.get("domain", ""),
            sent.get("client", "").strip() or NETWORK,
            sent.get("action", ""),
            reason=sent.get("reason", ""),
            author=author_of(request),
            hours=hours,
            anyway=bool(sent.get("anyway")),
        )
        return f"{made.domain} is {'counted' if made.dry else 'blocked'}."

    def end_one() -> str:
        return f"{counted(len(_ended(request, sent.get('which', ''), author_of(request))), 'block')} ended."

    def end_all() -> str:
        gone = counted(len(_undone(request, author_of(request))), "block")
        return f"{gone} undone; none is made without a person until you resume."

    def go_on() -> str:
        return "Blocks are made again." if _resumed(request) else "Blocks were made all the while."

    def nothing() -> str:
        raise UsageError("cannot do that: the form names nothing that this page offers")

    offered = {"block": block_one, "end": end_one, "undo-all": end_all, "resume": go_on}
    return offered.get(sent.get("do", ""), nothing)


def _blocked(request: Request, domain: str, client: str, action: str, **how: Any) -> Block:
    made = parts_of(request).blocks.add(domain, client, action, **how)
    noted(request, "blocked", made.domain, f"{made.client}, {made.action}: {made.reason}", made.author)
    return made


def _ended(request: Request, which: str, author: str) -> Sequence[Block]:
    gone = parts_of(request).blocks.remove(which, author)
    noted(request, "block ended", which, counted(len(gone), "block"), author)
    return gone


def _undone(request: Request, author: str) -> Sequence[Block]:
    """All blocks end first: noting it needs the database, and may wait for it."""
    gone = parts_of(request).blocks.undo_all(author)
    noted(request, "all blocks undone", NETWORK, counted(len(gone), "block"), author)
    return gone


def _resumed(request: Request) -> bool:
    done = parts_of(request).blocks.resume()
    noted(request, "blocks are made again", NETWORK)
    return done


def _hours(text: str) -> float:
    try:
        return float(text) if text.strip() else 0.0
    except ValueError:
        raise UsageError("cannot block: the hours are no number") from None
