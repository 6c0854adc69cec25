"""Counts one query for its flow: what its name and its answer newly carried, and what is kept of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel_in_place
from agents.kernels.flows import detail
from agents.kernels.numbering import COUNT_AT
from agents.kernels.seen import remember
from agents.kernels.state import ENCODED, INFORMATION, NONE, QTYPES_MAX, Asked, State, Told

SAMPLES = 24
"""First names of a flow that are kept, with their query types: as evidence, and to recognise a tool."""
EVIDENCE_BYTES = 20.0
"""A flow that showed less than this holds no evidence: it makes room for others, and keeps no samples."""
ANSWERED_BYTES = 1_000
"""Bytes in answers from which a flow keeps samples."""
CARRYING_TYPES = (5, 10, 13, 15, 16, 25, 29, 33, 35, 37, 99, 65399)
"""Types whose answers hold text or names of the answerer's choice: CNAME, NULL, HINFO, MX, TXT, KEY, LOC, SRV, NAPTR,
CERT, SPF, and iodine's PRIVATE."""
CARRYING = np.zeros(1 << 16, np.uint8)
CARRYING[list(CARRYING_TYPES)] = 1
ANSWER_FRAME = 30
"""Bytes of an answer beside question and data: header, question's end, one record's head (RFC 1035 section 4.1)."""
MIX_TYPE, MIX_SIZE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
DIGIT_BITS = math.log2(10)
DIGITS_MASK = np.uint64((1 << COUNT_AT) - 1)
EVENTS, SAMPLES_TOLD, PEAKS = range(3)
"""Places in Told.counts."""


@kernel_in_place
def answers(state: State, asked: Asked, i: int, flow: Any) -> float:
    """Bytes that an answer newly carried: the same name, type and size again carry nothing that is new."""
    size = np.int64(asked.rlen[i]) - asked.size[i] - ANSWER_FRAME
    if CARRYING[asked.qtype[i]] == 0 or size <= 0:
        return 0.0
    mixed = asked.name[i] ^ (np.uint64(asked.qtype[i]) * MIX_TYPE) ^ (np.uint64(asked.rlen[i]) * MIX_SIZE)
    if not remember(flow, state.clients[flow["client"]], state.pool, state.room, mixed):
        return 0.0
    flow["bytes_in"] += size
    return float(size)


@kernel_in_place
def _numbered(state: State, asked: Asked, i: int, flow: Any) -> float:
    """Bits of a new name that differs from earlier ones of its flow in its numbers alone; NONE for any other.

    Which digits are not those of the last one, and what they are instead, never more than all of them; and which shape,
    where it is not that of the last one.
    """
    shape, digits = asked.shape[i], asked.digits[i]
    if digits == 0:
        return NONE
    known = not remember(flow, state.clients[flow["client"]], state.pool, state.room, shape)
    count = int(digits >> np.uint64(COUNT_AT))
    bits = count * DIGIT_BITS
    if flow["shape"] == shape:
        differ, changed = (flow["digits"] ^ digits) & DIGITS_MASK, 0
        while differ:
            changed += (differ & np.uint64(15)) != 0
            differ >>= np.uint64(4)
        bits = min(bits, max(changed, 1) * (DIGIT_BITS + math.log2(count)))
    else:
        bits += math.log2(flow["names"] + 2)
    flow["shape"], flow["digits"] = shape, digits
    return bits if known else NONE


@kernel_in_place
def price(state: State, asked: Asked, i: int, flow: Any, amounts: NDArray[np.float32]) -> bool:
    """What a name newly carries, bytes; False if it was asked for before, or has nothing below its domain."""
    first, last = asked.parts[i], asked.parts[i + 1]
    if first == last or not remember(flow, state.clients[flow["client"]], state.pool, state.room, asked.name[i]):
        return False
    numbered = _numbered(state, asked, i, flow)
    information = encoded = 0.0
    for part in range(first, last):
        bits = asked.bits[part]
        if remember(flow, state.clients[flow["client"]], state.pool, state.room, asked.key[part]):
            information += bits
            encoded += bits * asked.encoded[part]
        else:  # one of those that were there before
            information += min(bits, math.log2(flow["names"] + 2))
    if numbered >= 0:
        information, encoded = min(information, numbered), 0.0
    amounts[INFORMATION], amounts[ENCODED] = information / 8, encoded / 8
    flow["names"] += 1
    flow["encoded_names"] += encoded > 0
    flow["leaked"] += information / 8
    flow["encoded"] += encoded / 8
    return True


@kernel_in_place
def keep(state: State, asked: Asked, i: int, row: int, new: bool, told: Told) -> None:
    """Count the query's type and keep its name, for flows that carry something."""
    flow = state.flows[row]
    fresh = flow["detail"] == NONE
    if fresh:
        shows = flow["encoded_names"] > 0 or flow["leaked"] >= EVIDENCE_BYTES or flow["bytes_in"] >= ANSWERED_BYTES
        if not shows and not asked.secret[i]:
            return
    at = detail(state, row)
    kept = state.details[at]
    for place in range(QTYPES_MAX):
        if kept["count"][place] == 0:
            kept["qtype"][place] = asked.qtype[i]
        if kept["qtype"][place] == asked.qtype[i]:
            kept["count"][place] += 1
            break
    if (new or fresh) and kept["samples"] < SAMPLES:
        sample = told.samples[told.counts[SAMPLES_TOLD]]
        sample["row"], sample["detail"], sample["number"] = i, at, kept["samples"]
        told.counts[SAMPLES_TOLD] += 1
        kept["samples"] += 1
