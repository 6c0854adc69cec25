"""What a client says by the types, the order and the times of what it asks for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from agents.core.jit import kernel_in_place
from agents.detection.counting.flow_kernels import FOLLOWER_BITS, GOLDEN, MIX_FOLLOWER
from agents.detection.counting.seen_kernels import remember
from agents.detection.state import NONE, OWN_TYPES, SHORT_MAX, Asked, Left, State

USUAL_TYPES = (1, 28, 65)
"""Types that every client asks for, of any name: A, AAAA, HTTPS (RFC 9460)."""
USUAL = np.zeros(1 << 16, np.uint8)
USUAL[list(USUAL_TYPES)] = 1
USUALLY = len(USUAL_TYPES)
MIX_CHOICE = np.uint64(0xD6E8FEB86659FD93)


@kernel_in_place
def choice(state: State, asked: Asked, i: int, flow: Any) -> float:
    """Bytes that a query's type carries: 0 for a usual type, and for the first OWN_TYPES unusual ones of the flow."""
    qtype = asked.qtype[i]
    if USUAL[qtype]:
        return 0.0
    for place in range(OWN_TYPES):
        if place == flow["types"]:
            flow["own_types"][place] = qtype
            flow["types"] += 1
            return 0.0
        if flow["own_types"][place] == qtype:
            return 0.0
    key = asked.domain[i] ^ (np.uint64(qtype) * MIX_CHOICE)
    if remember(flow, state.clients[flow["client"]], state.pool, state.room, key):
        flow["types"] += 1
    carried = math.log2(flow["types"] + USUALLY) / 8
    flow["leaked"] += carried
    return carried


FOLLOWERS = 1 << 18
"""Places in State.followers. All flows share them: a question may take the place of another, whose follower then counts
as not foretold. They are not saved: after a restart each follower is a choice once more."""
NO_QUESTION, NO_FOLLOWER = np.uint64(0), np.uint32(0)
STAYED, UNKEPT = int(Left.STAYED), int(Left.UNKEPT)


@kernel_in_place
def _foretold(state: State, flow: Any, before: np.uint64, question: np.uint64) -> int:
    """Whether this followed that in this flow the last time, too: 1, or 0; NONE if nothing did yet. It is foretold from
    now on."""
    own = flow["domain"] + np.uint64(np.int64(flow["first_seen"] * 1024)) * GOLDEN
    mixed = (before ^ own) * MIX_FOLLOWER
    place = np.int64(mixed >> FOLLOWER_BITS) & (FOLLOWERS - 1)
    follower = np.uint32((question * MIX_FOLLOWER) >> FOLLOWER_BITS)
    last, state.followers[place] = state.followers[place], follower
    if last == NO_FOLLOWER:
        return NONE
    return int(last == follower)


@kernel_in_place
def _type_order(state: State, flow: Any, qtype: np.uint16) -> float:
    """Bytes in the choice of a record type, where another followed the flow's type before it the last time."""
    kind, before = np.uint64(qtype), np.uint64(flow["type_last"])
    flow["type_last"] = qtype
    if before == NO_QUESTION or _foretold(state, flow, before * MIX_CHOICE, kind) != 0:
        return 0.0
    return math.log2(flow["types"] + USUALLY) / 8


@kernel_in_place
def _name_order(state: State, asked: Asked, i: int, flow: Any) -> float:
    """Bytes in the choice of a question, name and type, whose answer no cache keeps.

    A question is foretold if it followed the question before it the last time, too: what is asked in a fixed cycle
    carries nothing. Any other costs the choice among the flow's names and types, and after how many foretold ones it
    came.
    """
    question = asked.name[i] ^ (np.uint64(asked.qtype[i]) * MIX_CHOICE)
    before, flow["asked_last"] = flow["asked_last"], question
    if before == NO_QUESTION:
        return 0.0
    if _foretold(state, flow, before, question) == 1:
        flow["foretold"] += 1
        return 0.0
    foretold, flow["foretold"] = flow["foretold"], 0
    return (math.log2(flow["names"] + flow["types"] + 1) + math.log2(foretold + 1)) / 8


@kernel_in_place
def order(state: State, asked: Asked, i: int, flow: Any, known: bool, typed: bool) -> float:
    """Bytes in what a query that left asks for after the one before it.

    Where caches keep answers, a known name is asked for when it has expired: then its type alone is a choice.
    known: its name is; typed: what its type carries was counted.
    """
    left = asked.left[i]
    if left == STAYED:
        return 0.0
    types = _type_order(state, flow, asked.qtype[i])
    carried = 0.0 if typed else types
    if left == UNKEPT:
        names = _name_order(state, asked, i, flow)
        carried = names if known else carried
    flow["leaked"] += carried
    return carried


PACE_STEPS = 16
"""Steps of a second in which a pace is kept, up to an hour and eight minutes."""
PACE_PARTS, SWING_PARTS = 8, 4
"""A new value is one part of so many of a smoothed mean, and of its smoothed deviation (RFC 6298 section 2)."""


@kernel_in_place
def keep_pace(flow: Any, ts: float, burst_s: float) -> None:
    """Smooth the time between new names, after one of them; those within burst_s seconds are one."""
    gap = ts - flow["single_ts"]
    if flow["names"] > 1 and abs(gap) < burst_s:
        return
    flow["single_ts"] = ts
    if flow["names"] <= 1 or gap < 0:
        return
    steps, pace, swing = int(min(gap * PACE_STEPS, SHORT_MAX)), int(flow["pace"]), int(flow["swing"])
    if pace == 0:
        flow["pace"], flow["swing"] = steps, steps // 2
        return
    flow["swing"] = swing + (abs(steps - pace) - swing) // SWING_PARTS
    flow["pace"] = pace + (steps - pace) // PACE_PARTS


TEXT_TYPES = (10, 16, 25, 99, 65399)
"""Types whose answers hold any text, and that few programs ask for again and again: NULL, TXT, KEY, SPF, PRIVATE."""
TEXT = np.zeros(1 << 16, np.uint8)
TEXT[list(TEXT_TYPES)] = 1
POLL_TIMES = 2
"""A pause so many times longer than the smoothed one, or shorter, ends a row of polls."""


@kernel_in_place
def keep_polls(flow: Any, ts: float, burst_s: float) -> None:
    """Count a query for text that left, and smooth the time since the query before it. Those of a burst are one."""
    gap = ts - flow["last_seen"]
    if gap < burst_s:
        return
    steps, pace, swing = int(min(gap * PACE_STEPS, SHORT_MAX)), int(flow["poll_pace"]), int(flow["poll_swing"])
    if pace == 0 or steps > POLL_TIMES * pace or POLL_TIMES * steps < pace:
        flow["poll_pace"], flow["poll_swing"], flow["polls"] = steps, steps // 2, 1
        return
    flow["poll_swing"] = swing + (abs(steps - pace) - swing) // SWING_PARTS
    flow["poll_pace"] = pace + (steps - pace) // PACE_PARTS
    flow["polls"] = min(flow["polls"] + 1, SHORT_MAX)
