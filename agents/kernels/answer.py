"""Facts of an answer, in place. The definitions: wire.parse_answer with `partial`, and wire.udp_size for OPT."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel
from agents.kernels.question import LABEL_MAX, NAME_MAX, int64, u16

OPT = 41
"""The EDNS pseudo record (RFC 6891 section 6.1)."""
RCODE, ANCOUNT, TTL_MIN, OPT_CLASS, OPT_START, OPT_END, TYPES = range(7)
"""Places in `facts`; the distinct answer types follow from TYPES on."""
TYPES_MAX = 8
"""wire.ANSWER_TYPES_MAX."""
FACTS = TYPES + TYPES_MAX
_POINTER = 0xC0
_TTL_SIGN = 0x7FFFFFFF


@kernel
def name_end(message: NDArray[np.uint8], size: int, at: int) -> int:
    """Offset behind the name at `at`, or -1. Pointers must point strictly backwards (RFC 1035 section 4.1.4)."""
    start = at
    while at < size:
        length = int64(message[at])
        if length == 0:
            return at + 1
        if length >= _POINTER:
            if at + 2 > size or u16(message, at) & 0x3FFF >= start:
                return -1
            return at + 2
        if length > LABEL_MAX or at - start > NAME_MAX:
            return -1
        at += length + 1
    return -1


@kernel
def answer_facts(message: NDArray[np.uint8], size: int, at: int, facts: NDArray[np.int64]) -> None:
    """Read the records behind the question that ends at `at`, up to the first damaged one, into `facts`.

    facts: int64 of length FACTS. TTL_MIN is -1 without an answer record, OPT_START 0 without an OPT record in any
    section, types behind the last 0. The caller has seen that size >= HEADER_SIZE.
    """
    facts[:] = 0
    facts[RCODE] = int64(message[3]) & 0xF
    facts[ANCOUNT] = ancount = u16(message, 6)
    facts[TTL_MIN] = -1
    kinds = 0
    for seen in range(ancount + u16(message, 8) + u16(message, 10)):
        start = at
        at = name_end(message, size, at)
        if at < 0 or at + 10 > size:
            return
        kind, ttl = u16(message, at), u16(message, at + 4) << 16 | u16(message, at + 6)
        end = at + 10 + u16(message, at + 8)
        if end > size:
            return
        if kind == OPT and facts[OPT_START] == 0:
            facts[OPT_CLASS], facts[OPT_START], facts[OPT_END] = u16(message, at + 2), start, end
        if seen < ancount:
            kinds = _note(facts, kinds, kind, ttl)
        elif kind == OPT:
            facts[RCODE] |= ttl >> 24 << 4
        at = end


@kernel
def _note(facts: NDArray[np.int64], kinds: int, kind: int, ttl: int) -> int:
    """Count an answer record in; the number of distinct types so far."""
    # RFC 2181 section 8: a TTL with the top bit set counts as zero.
    ttl = 0 if ttl > _TTL_SIGN else ttl
    if facts[TTL_MIN] < 0 or ttl < facts[TTL_MIN]:
        facts[TTL_MIN] = ttl
    if kinds == TYPES_MAX:
        return kinds
    for place in range(kinds):
        if facts[TYPES + place] == kind:
            return kinds
    facts[TYPES + kinds] = kind
    return kinds + 1
