"""Question and answer of a DNS message, read in place by compiled code; message.py does most of it in Python."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key, siphash
from agents.core.jit import COMPILED, kernel_in_place
from agents.dns.message import (
    AD,
    ADDRESS_BYTES,
    ANSWER_TYPES_MAX,
    CD,
    DO,
    ECS,
    HEADER_SIZE,
    HOP_BY_HOP,
    NXDOMAIN,
    OPT,
    OPT_HEAD,
    POINTER,
    RD,
    SOA,
    SOA_TAIL,
    SUBNET_HEAD,
    TTL_MAX,
    UDP_SIZE,
)
from agents.dns.name import NAME_MAX
from agents.dns.name_kernels import LABEL_MAX

int64: Any = np.int64 if COMPILED else int
uint64: Any = np.uint64 if COMPILED else int
"""Machine integers; int when the kernels run uncompiled. Any, since kernels mix them with int."""


def _copy_slice(into: Any, at: int, source: Any, start: int, size: int) -> None:
    into[at : at + size] = source[start : start + size]


@kernel_in_place
def _copy_each(into: Any, at: int, source: Any, start: int, size: int) -> None:
    for place in range(size):
        into[at + place] = source[start + place]


copy_bytes = _copy_each if COMPILED else _copy_slice
"""Copy source[start : start + size] into `into` from `at` on. (Compiled, a slice of a slice would allocate memory.)"""


@kernel_in_place
def u16(data: NDArray[np.uint8], at: int) -> int:
    """The 16-bit number in network order at an offset; the caller checked that it is inside."""
    return int64(data[at]) << 8 | int64(data[at + 1])  # type: ignore[no-any-return]


@kernel_in_place
def question_end(data: NDArray[np.uint8], start: int, end: int) -> int:
    """Offset after the one question of the message data[start:end]; 0 unless there is exactly one whole question."""
    if end - start < HEADER_SIZE or u16(data, start + 4) != 1:
        return 0
    at = start + HEADER_SIZE
    while at < end:
        length = int64(data[at])
        if length == 0:
            break
        if length > LABEL_MAX:
            return 0
        at += length + 1
    if at + 5 > end or at - start - HEADER_SIZE > NAME_MAX:
        return 0
    return at + 5


RCODE, ANCOUNT, TTL_MIN, OPT_CLASS, OPT_TTL, OPT_START, OPT_END, OPT_NUMBER = range(8)
ANS_HASH, ANS_BYTES, NEGATIVE_TTL, TYPES = range(8, 12)
"""Places in `facts`; the distinct answer types follow from TYPES on."""
KEY = TYPES + ANSWER_TYPES_MAX
"""Place of the key of ANS_HASH, two numbers; behind all that a message's facts overwrite."""
FACTS = KEY + 2
HASH_MASK = (1 << 63) - 1


def new_facts(key: Key) -> NDArray[np.int64]:
    """Room for the facts of one message after another. key: of ANS_HASH, each half below 2**63."""
    facts = np.zeros(FACTS, np.int64)
    facts[KEY:] = key
    return facts


def _keyed_hash(data: Any, start: int, end: int, low: Any, high: Any) -> int:
    """A keyed hash of data[start:end] that costs the interpreter little."""
    key = int(low).to_bytes(8) + int(high).to_bytes(8)
    return int.from_bytes(blake2b(bytes(data[start:end]), digest_size=8, key=key).digest())


piece_hash: Any = siphash if COMPILED else _keyed_hash
"""u64 of data[start:end] (u8) under a key of two u64; compiled and uncompiled kernels give different ones."""


@kernel_in_place
def name_end(data: NDArray[np.uint8], start: int, at: int, end: int) -> int:
    """Offset after the name at `at`, or -1. Pointers must point strictly backwards (RFC 1035 section 4.1.4)."""
    first = at
    while at < end:
        length = int64(data[at])
        if length == 0:
            return at + 1
        if length >= POINTER:
            if at + 2 > end or u16(data, at) & 0x3FFF >= first - start:
                return -1
            return at + 2
        if length > LABEL_MAX or at - first > NAME_MAX:
            return -1
        at += length + 1
    return -1


@kernel_in_place
def answer_facts(data: NDArray[np.uint8], start: int, at: int, end: int, facts: NDArray[np.int64]) -> None:
    """Read the records of the message data[start:end], up to the first damaged one, into `facts`.

    at: offset after its question. facts: see new_facts. TTL_MIN is -1 without an answer record, OPT_START is 0
    without an OPT record in any section, types after the last are 0. ANS_HASH is the sum of the hashes of the answer
    records, each of its type and data: owners, TTLs and the records' order do not matter. ANS_BYTES are the bytes of
    these data, names in them as they lie, compressed or not. NEGATIVE_TTL, seconds, is -1 if there are answer records,
    else as RFC 2308 section 5 has it, 0 without an SOA record. The caller checked that the header is whole.
    """
    for place in range(KEY):
        facts[place] = 0
    facts[RCODE] = int64(data[start + 3]) & 0xF
    facts[ANCOUNT] = ancount = u16(data, start + 6)
    facts[TTL_MIN] = -1
    facts[NEGATIVE_TTL] = -1 if ancount > 0 else 0
    kinds = 0
    for seen in range(ancount + u16(data, start + 8) + u16(data, start + 10)):
        first = at
        at = name_end(data, start, at, end)
        if at < 0 or at + 10 > end:
            return
        kind, ttl = u16(data, at), u16(data, at + 4) << 16 | u16(data, at + 6)
        behind = at + 10 + u16(data, at + 8)
        if behind > end:
            return
        if kind == OPT and facts[OPT_START] == 0:
            facts[OPT_CLASS], facts[OPT_START], facts[OPT_END] = u16(data, at + 2), first, behind
            facts[OPT_TTL], facts[OPT_NUMBER] = ttl, seen
        if seen < ancount:
            kinds = _note_answer(facts, kinds, kind, ttl)
            _note_data(data, at + 10, behind, kind, facts)
        elif kind == SOA and ancount == 0 and behind - at - 10 > SOA_TAIL and facts[RCODE] in (0, NXDOMAIN):
            lowest = min(ttl, u16(data, behind - 4) << 16 | u16(data, behind - 2))
            facts[NEGATIVE_TTL] = 0 if lowest > TTL_MAX else lowest
        elif kind == OPT:
            facts[RCODE] |= ttl >> 24 << 4
        at = behind


@kernel_in_place
def _note_data(data: NDArray[np.uint8], start: int, end: int, kind: int, facts: NDArray[np.int64]) -> None:
    """Add an answer record's type and its data[start:end] to the facts."""
    found = piece_hash(data, start, end, uint64(facts[KEY]) ^ uint64(kind), uint64(facts[KEY + 1]))
    facts[ANS_HASH] = (int64(facts[ANS_HASH]) + int64(found >> uint64(1))) & HASH_MASK
    facts[ANS_BYTES] += end - start


@kernel_in_place
def strip_hop_by_hop(data: Any, size: int, start: int, end: int) -> int:
    """Take the options for us alone out of the OPT record data[start:end] of a query; the query's new size.

    message.without_hop_by_hop is the definition.
    """
    if end != size or data[start] != 0:
        return size
    at = start + OPT_HEAD
    while at + 4 <= end:
        at += 4 + u16(data, at + 2)
    if at != end:
        return size
    at = to = start + OPT_HEAD
    while at < end:
        code, whole = u16(data, at), 4 + u16(data, at + 2)
        if code not in HOP_BY_HOP:
            if to != at:
                for place in range(whole):
                    data[to + place] = data[at + place]
            to += whole
        at += whole
    kept = to - start - OPT_HEAD
    data[start + OPT_HEAD - 2], data[start + OPT_HEAD - 1] = kept >> 8, kept & 0xFF
    return to


@kernel_in_place
def normalise(data: Any, end: int, start: int, stop: int, ttl: int, prefix4: int, prefix6: int) -> int:
    """Make the query of its question, CD and DO alone, in place; its new size (message.normalised is the definition).

    end: of its question. data[start:stop]: its OPT record, whose TTL is `ttl`; start 0 = it has none.
    """
    # The option moves towards the beginning, and its head is written last: nothing is overwritten that is still read.
    size = _move_subnet(data, start + OPT_HEAD, stop, end + OPT_HEAD, prefix4, prefix6) if start > 0 else 0
    data[2], data[3] = RD >> 8, AD | data[3] & CD
    for at in range(4, HEADER_SIZE):
        data[at] = 0
    data[5], data[11] = 1, 1
    for at in range(end, end + OPT_HEAD):
        data[at] = 0
    data[end + 2], data[end + 3], data[end + 4] = OPT, UDP_SIZE >> 8, UDP_SIZE & 0xFF
    if start > 0:
        data[end + 7] = (ttl & DO) >> 8
    data[end + OPT_HEAD - 1] = size
    return end + OPT_HEAD + size


@kernel_in_place
def _move_subnet(data: Any, at: int, stop: int, to: int, prefix4: int, prefix6: int) -> int:
    """Move the first client's subnet of the options data[at:stop], cut, to data[to:]; its bytes, 0 = it is dropped."""
    while at + 4 <= stop and u16(data, at) != ECS:
        at += 4 + u16(data, at + 2)
    if at + 4 + SUBNET_HEAD > stop:
        return 0
    size, family, bits = u16(data, at + 2), u16(data, at + 4), int64(data[at + 6])
    if at + 4 + size > stop or (family != 1 and family != 2):
        return 0
    limit, room = (prefix4, ADDRESS_BYTES[0]) if family == 1 else (prefix6, ADDRESS_BYTES[1])
    if limit == 0 or bits > 8 * room or size != SUBNET_HEAD + (bits + 7) // 8:
        return 0
    bits = min(bits, limit)
    kept = (bits + 7) // 8
    for place in range(kept):
        data[to + 4 + SUBNET_HEAD + place] = data[at + 4 + SUBNET_HEAD + place]
    if bits % 8 != 0:
        data[to + 3 + SUBNET_HEAD + kept] &= 0xFF << 8 - bits % 8 & 0xFF
    data[to], data[to + 1], data[to + 2], data[to + 3] = 0, ECS, 0, SUBNET_HEAD + kept
    data[to + 4], data[to + 5], data[to + 6], data[to + 7] = 0, family, bits, 0
    return 4 + SUBNET_HEAD + kept  # type: ignore[no-any-return]


@kernel_in_place
def write_facts(facts: NDArray[np.int64], record: Any) -> None:
    """Write the facts of answer_facts into a record."""
    record["ttl_min"], record["rcode"], record["ancount"] = facts[TTL_MIN], facts[RCODE], facts[ANCOUNT]
    record["ans_hash"], record["ans_bytes"] = facts[ANS_HASH], facts[ANS_BYTES]
    record["negative_ttl"] = facts[NEGATIVE_TTL]
    for place in range(ANSWER_TYPES_MAX):
        record["ans_types"][place] = facts[TYPES + place]


@kernel_in_place
def _note_answer(facts: NDArray[np.int64], kinds: int, kind: int, ttl: int) -> int:
    """Add an answer record to the facts; returns the number of distinct types so far."""
    # RFC 2181 section 8: a TTL with the top bit set counts as zero.
    ttl = 0 if ttl > TTL_MAX else ttl
    if facts[TTL_MIN] < 0 or ttl < facts[TTL_MIN]:
        facts[TTL_MIN] = ttl
    if kinds == ANSWER_TYPES_MAX:
        return kinds
    for place in range(kinds):
        if facts[TYPES + place] == kind:
            return kinds
    facts[TYPES + kinds] = kind
    return kinds + 1
