"""The cache of answers in compiled code: which answers are kept, how long, where, and which make room for others.

Whole messages lie in two logs, in units of ENTRY; a table with chains finds them by a keyed hash of the question. A
new answer goes into the small log. When that is full, its oldest answer moves to the main log if it was asked for
again, else it is dropped; so one client's random names pass through the small log and leave the rest alone. In the
main log an answer that was asked for goes round again. This is S3-FIFO (Yang et al., "FIFO queues are all you need for
cache eviction", SOSP 2023).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import siphash
from agents.core.jit import kernel_in_place
from agents.dns.message import (
    AD,
    CD,
    ECS,
    HEADER_SIZE,
    NOERROR,
    NXDOMAIN,
    OPCODE,
    OPT,
    OPT_HEAD,
    QR,
    RD,
    SOA,
    SOA_TAIL,
    TC,
    TTL_MAX,
)
from agents.dns.message_kernels import copy_bytes, int64, name_end, strip_hop_by_hop, u16, uint64
from agents.dns.name import NAME_MAX

ENTRY = np.dtype(
    [
        ("hash", np.uint64),
        ("stored", np.int64),  # monotonic nanoseconds
        ("expires", np.int64),
        ("again", np.int64),  # until then it is not asked for anew: an upstream was asked, or failed
        ("next", np.int32),  # unit of the next entry of the chain, NO_ENTRY = none
        ("units", np.int32),  # of the entry, with this head
        ("size", np.int32),  # bytes of the message
        ("end", np.int32),  # of its question
        ("ttl", np.int32),  # seconds that it was to be kept
        ("bits", np.uint8),  # see query_bits
        ("uses", np.uint8),  # since it was stored or went round
        ("asked", np.uint8),  # times since it was stored
        ("live", np.uint8),  # 1 = the table has it
        ("spare", np.uint64),
    ]
)
"""The head of an entry; its message follows, with the question in lower case. Also the unit of room."""
LOG = np.dtype([(name, np.int64) for name in ("first", "size", "head", "tail", "used")])
"""A log: its first unit and how many it has; where the next entry goes and the oldest is, from `first`; units used."""
SMALL, MAIN = range(2)
"""The logs."""
SMALL_SHARE = 8
"""One in so many units is the small log's. The paper has one in ten."""
USES_MAX = 3
"""Uses that are counted for going round again, as in the paper."""
ROUNDS_MAX = 32
"""Entries that go round at most while room for one is made."""
NO_ENTRY = -1
CACHE_CELLS = np.dtype(
    [(name, np.int64) for name in ("on", "lock", "stale_ns", "prefetch_percent")]
    + [(name, np.uint64) for name in ("low", "high")]
)
"""Whether there is a cache; the lock between threads; how long expired answers may be used; share of the TTL before
whose end a popular answer is asked for anew; the key of the hash."""
MISS, HIT, STALE_HIT, EXPIRED = range(4)
"""What the cache has: nothing; an answer; an expired one for use at once, since the upstreams failed just now; an
expired one for use if no upstream answers."""
KEEP_MAX_S = 86_400
"""Seconds that an answer is kept at most, as unbound's cache-max-ttl; RFC 8767 section 4 advises days to a week."""
NEGATIVE_MAX_S = 3600
"""The same of negative answers; RFC 2308 section 5 found one to three hours to work well."""
FAILURE_S = 5
"""Seconds that a failure is kept (RFC 9520 section 3.2: at least one, no more than 300)."""
STALE_TTL_S = 30
"""The TTL of expired answers (RFC 8767 section 4)."""
RECHECK_NS = 30_000_000_000
"""How long upstreams that failed are not asked again for an expired answer (RFC 8767 section 5)."""
PREFETCH_PAUSE_NS = 5_000_000_000
"""An answer is asked for anew at most once in this time, since that may fail."""
POPULAR = 2
"""Uses since it was stored from which on an answer is asked for anew before it expires."""
_SECOND_NS = 1_000_000_000
_SIG, _TSIG, _ANY = 24, 250, 255
_HAS_OPT, _DO = 0x02, 0x04
_FLAGS_HIGH, _FLAGS_LOW = RD >> 8, AD | CD
CACHE_KEYED = 1 + NAME_MAX + 5
"""Bytes that are hashed at most: the bits, and a question."""


class CacheState(NamedTuple):
    """All arrays of a cache; one thread at a time uses them."""

    cells: NDArray[Any]  # CACHE_CELLS, (1,)
    counted: NDArray[Any]  # (1,), with the fields of stream/counters.Counters
    entries: NDArray[Any]  # ENTRY
    data: NDArray[np.uint8]  # the same memory
    logs: NDArray[Any]  # LOG, (2,)
    table: NDArray[np.int32]  # unit of the first entry of each chain; a power of two
    ghosts: NDArray[np.uint32]  # halves of hashes that the small log dropped, by place in the table
    keyed: NDArray[np.uint8]  # (CACHE_KEYED,)


# What is kept, and how long.


@kernel_in_place
def query_bits(message: Any, size: int, end: int) -> int:
    """What the answer to a query depends on besides its question: RD, AD, CD, EDNS and DO; -1 = it is not cached.

    A query with EDNS options is not (RFC 7871 section 7.3 for a client's subnet), nor is one with other flags.
    """
    if int64(message[2]) & ~_FLAGS_HIGH or int64(message[3]) & ~_FLAGS_LOW:
        return -1
    bits = int64(message[2]) & _FLAGS_HIGH | int64(message[3]) & _FLAGS_LOW
    records = u16(message, 6) + u16(message, 8) + u16(message, 10)
    if records == 0:
        return bits if size == end else -1
    if records != 1 or u16(message, 10) != 1 or size != end + OPT_HEAD or message[end] != 0:
        return -1
    if u16(message, end + 1) != OPT or u16(message, end + 5) != 0 or u16(message, end + 7) & 0x7FFF != 0:
        return -1
    return bits | _HAS_OPT | (_DO if message[end + 7] else 0)  # type: ignore[no-any-return]


@kernel_in_place
def is_failure(rcode: int) -> bool:
    """Whether an answer with this rcode says nothing of its name (RFC 9520 section 1.1)."""
    return rcode not in (NOERROR, NXDOMAIN)


@kernel_in_place
def lifetime_of(message: Any, size: int, end: int) -> int:
    """Seconds that an answer may be kept, 0 = not at all. end: of its question.

    The lowest TTL of its records; of a negative answer also the SOA's MINIMUM, and without an SOA nothing (RFC 2308
    section 5). Failures are kept shortly (RFC 9520 section 2), whichever they are; nothing truncated, damaged, signed
    for one client or meant for one network.
    """
    rcode = int64(message[3]) & 0xF
    if message[2] & _NOT_WHOLE != QR >> 8:
        return 0
    answers, qtype = u16(message, 6), u16(message, end - 4)
    authority = answers + u16(message, 8)
    lowest, minimum, answered = KEEP_MAX_S, -1, False
    at = end
    for seen in range(authority + u16(message, 10)):
        at = name_end(message, 0, at, size)
        if at < 0 or at + 10 > size:
            return 0
        kind, behind = u16(message, at), at + 10 + u16(message, at + 8)
        if behind > size or kind in (_SIG, _TSIG):
            return 0
        if kind == OPT:
            if seen < authority or message[at + 4] != 0 or _has_subnet(message, at + 10, behind):
                return 0
        else:
            lowest = min(lowest, _ttl_at(message, at + 4))
            answered = answered or (seen < answers and (kind == qtype or qtype == _ANY))
            if kind == SOA and answers <= seen < authority and behind - at - 10 > SOA_TAIL:
                minimum = _ttl_at(message, behind - 4)
        at = behind
    if at != size:
        return 0
    if is_failure(rcode):
        return FAILURE_S
    if rcode == NOERROR and answered:
        return lowest
    return max(min(lowest, minimum, NEGATIVE_MAX_S), 0)


_NOT_WHOLE = (QR | OPCODE | TC) >> 8


@kernel_in_place
def _ttl_at(message: Any, at: int) -> int:
    """A TTL; one with the top bit set counts as zero (RFC 2181 section 8)."""
    ttl = u16(message, at) << 16 | u16(message, at + 2)
    return 0 if ttl > TTL_MAX else ttl


@kernel_in_place
def _has_subnet(message: Any, at: int, end: int) -> bool:
    """Whether the options message[at:end] hold a client's subnet (RFC 7871), or are damaged."""
    while at + 4 <= end:
        if u16(message, at) == ECS:
            return True
        at += 4 + u16(message, at + 2)
    return at != end


# Finding and using an answer.


@kernel_in_place
def _hash(s: CacheState, message: Any, end: int, bits: int) -> int:
    """Hash of a question, whose lower-case bytes are left in `keyed` from 1 on."""
    s.keyed[0] = bits
    for at in range(HEADER_SIZE, end):
        byte = int64(message[at])
        s.keyed[at - HEADER_SIZE + 1] = byte + 32 if 65 <= byte <= 90 and at < end - 4 else byte
    return siphash(s.keyed, 0, end - HEADER_SIZE + 1, s.cells[0]["low"], s.cells[0]["high"])  # type: ignore[no-any-return]


@kernel_in_place
def _place_in_table(s: CacheState, key: int) -> int:
    return int64(key & uint64(len(s.table) - 1))  # type: ignore[no-any-return]


@kernel_in_place
def _entry_of(s: CacheState, key: int, end: int, bits: int) -> int:
    """Unit of the entry for the question in `keyed`, or NO_ENTRY."""
    unit = int64(s.table[_place_in_table(s, key)])
    while unit != NO_ENTRY:
        entry = s.entries[unit]
        if entry["hash"] == key and entry["bits"] == bits and entry["end"] == end:
            start, at = (unit + 1) * s.entries.itemsize, HEADER_SIZE
            while at < end and s.data[start + at] == s.keyed[at - HEADER_SIZE + 1]:
                at += 1
            if at == end:
                return unit  # type: ignore[no-any-return]
        unit = int64(entry["next"])
    return NO_ENTRY


@kernel_in_place
def find_answer(s: CacheState, message: Any, end: int, bits: int, now: int) -> tuple[int, int]:
    """What the cache has for a query, and its unit. now: monotonic nanoseconds."""
    unit = _entry_of(s, _hash(s, message, end, bits), end, bits)
    if unit == NO_ENTRY:
        return MISS, unit
    entry = s.entries[unit]
    failed = is_failure(int64(s.data[(unit + 1) * s.entries.itemsize + 3]) & 0xF)
    if now < entry["expires"]:
        outcome = HIT
    elif failed or now >= entry["expires"] + s.cells[0]["stale_ns"]:
        return MISS, NO_ENTRY
    else:
        outcome = STALE_HIT if now < entry["again"] else EXPIRED
    entry["uses"] = min(int64(entry["uses"]) + 1, USES_MAX)
    entry["asked"] = min(int64(entry["asked"]) + 1, 0xFF)
    return outcome, unit


@kernel_in_place
def is_due(s: CacheState, unit: int, now: int) -> bool:
    """Whether to ask for an answer anew before it expires, since it is popular. True only once in a while."""
    entry = s.entries[unit]
    left_ns, share_ns = (
        entry["expires"] - now,
        int64(entry["ttl"]) * (_SECOND_NS // 100) * s.cells[0]["prefetch_percent"],
    )
    if entry["asked"] <= POPULAR or left_ns <= 0 or left_ns > share_ns or now < entry["again"]:
        return False
    if is_failure(int64(s.data[(unit + 1) * s.entries.itemsize + 3]) & 0xF):
        return False
    entry["again"] = now + PREFETCH_PAUSE_NS
    return True


@kernel_in_place
def write_answer(s: CacheState, unit: int, message: Any, end: int, now: int) -> int:
    """Make of a query its answer, in place: its id and its question stay; the answer's size.

    TTLs are counted down. An expired answer gets STALE_TTL_S, and upstreams are left alone for RECHECK_NS.
    """
    entry, start = s.entries[unit], (unit + 1) * s.entries.itemsize
    size = int64(entry["size"])
    copy_bytes(message, 2, s.data, start + 2, HEADER_SIZE - 2)
    copy_bytes(message, end, s.data, start + end, size - end)
    age, stale = (now - entry["stored"]) // _SECOND_NS, now >= entry["expires"]
    if stale and now >= entry["again"]:
        entry["again"] = now + RECHECK_NS
    at = end
    for _ in range(u16(message, 6) + u16(message, 8) + u16(message, 10)):
        at = name_end(message, 0, at, size)
        if u16(message, at) != OPT:
            ttl = STALE_TTL_S if stale else max(_ttl_at(message, at + 4) - age, 0)
            for place in range(4):
                message[at + 4 + place] = ttl >> (24 - 8 * place) & 0xFF
        at += 10 + u16(message, at + 8)
    return size  # type: ignore[no-any-return]


# Keeping an answer, and making room for it.


@kernel_in_place
def keep_answer(s: CacheState, message: Any, end: int, size: int, bits: int, now: int) -> bool:
    """Keep an answer to a query with these bits, if it may be kept. now: monotonic nanoseconds."""
    ttl = lifetime_of(message, size, end)
    units = 1 + (size + s.entries.itemsize - 1) // s.entries.itemsize
    if ttl <= 0 or units > s.logs[SMALL]["size"] // 2:
        return False
    key = _hash(s, message, end, bits)
    old = _entry_of(s, key, end, bits)
    if old != NO_ENTRY:
        if is_failure(int64(message[3]) & 0xF) and now < s.entries[old]["expires"] + s.cells[0]["stale_ns"]:
            return False
        _drop(s, old)
    half, place = key >> uint64(32), _place_in_table(s, key)
    log = MAIN if old != NO_ENTRY or s.ghosts[place] == half else SMALL
    unit = _small_room(s, units) if log == SMALL else _main_room(s, units)
    entry, start = s.entries[unit], (unit + 1) * s.entries.itemsize
    copy_bytes(s.data, start, message, 0, size)
    copy_bytes(s.data, start + HEADER_SIZE, s.keyed, 1, end - HEADER_SIZE)
    entry["hash"], entry["stored"], entry["expires"], entry["again"] = key, now, now + ttl * _SECOND_NS, 0
    entry["size"], entry["end"], entry["ttl"], entry["bits"] = _without_hops(s, start, size, end), end, ttl, bits
    entry["uses"], entry["asked"] = 0, 0
    _link(s, unit, units)
    return True


@kernel_in_place
def _without_hops(s: CacheState, start: int, size: int, end: int) -> int:
    """Take options between neighbours out of the message that begins at `start`; its new size."""
    message, at = s.data[start : start + size], end
    for _ in range(u16(message, 6) + u16(message, 8) + u16(message, 10)):
        first = at
        at = name_end(message, 0, at, size)
        kind, at = u16(message, at), at + 10 + u16(message, at + 8)
        if kind == OPT:
            return strip_hop_by_hop(message, size, first, at)
    return size


@kernel_in_place
def _link(s: CacheState, unit: int, units: int) -> None:
    """Enter an entry into the table, with its size in units."""
    entry, place = s.entries[unit], _place_in_table(s, s.entries[unit]["hash"])
    entry["next"], entry["units"], entry["live"] = s.table[place], units, 1
    s.table[place] = unit
    s.counted[0]["cache_entries"] += 1
    s.counted[0]["cache_bytes"] += units * s.entries.itemsize


@kernel_in_place
def _drop(s: CacheState, unit: int) -> None:
    """Take an entry out of the table. Its room is free when its log comes round to it."""
    entry, place = s.entries[unit], _place_in_table(s, s.entries[unit]["hash"])
    if s.table[place] == unit:
        s.table[place] = entry["next"]
    else:
        before = int64(s.table[place])
        while s.entries[before]["next"] != unit:
            before = int64(s.entries[before]["next"])
        s.entries[before]["next"] = entry["next"]
    entry["live"] = 0
    s.counted[0]["cache_entries"] -= 1
    s.counted[0]["cache_bytes"] -= int64(entry["units"]) * s.entries.itemsize


@kernel_in_place
def _room_at_head(s: CacheState, number: int, units: int) -> int:
    """Room at the head of a log; its first unit, or NO_ENTRY if an entry has to go first."""
    log = s.logs[number]
    rest, free = log["size"] - log["head"], log["size"] - log["used"]
    if rest < units and rest <= free:
        # An entry lies in one piece: the last units stay empty.
        unit = _advance_head(s, number, rest)
        s.entries[unit]["units"], s.entries[unit]["live"] = rest, 0
        rest, free = log["size"], free - rest
    return _advance_head(s, number, units) if units <= min(rest, free) else NO_ENTRY


@kernel_in_place
def _advance_head(s: CacheState, number: int, units: int) -> int:
    log = s.logs[number]
    unit = log["first"] + log["head"]
    log["head"] = (log["head"] + units) % log["size"]
    log["used"] += units
    return unit  # type: ignore[no-any-return]


@kernel_in_place
def _take_oldest(s: CacheState, number: int) -> int:
    """The oldest entry of a log, which is its no more; or NO_ENTRY where the table has let go of it already."""
    log = s.logs[number]
    unit = log["first"] + log["tail"]
    units = int64(s.entries[unit]["units"])
    log["tail"] = (log["tail"] + units) % log["size"]
    log["used"] -= units
    return unit if s.entries[unit]["live"] else NO_ENTRY


@kernel_in_place
def _small_room(s: CacheState, units: int) -> int:
    """Room in the small log. Its oldest entries move to the main log, if asked for again, else they are dropped."""
    unit = _room_at_head(s, SMALL, units)
    while unit == NO_ENTRY:
        old = _take_oldest(s, SMALL)
        if old != NO_ENTRY and s.entries[old]["uses"] > 0:
            _move(s, old, _main_room(s, int64(s.entries[old]["units"])))
        elif old != NO_ENTRY:
            s.ghosts[_place_in_table(s, s.entries[old]["hash"])] = s.entries[old]["hash"] >> uint64(32)
            _evict(s, old)
        unit = _room_at_head(s, SMALL, units)
    return unit


@kernel_in_place
def _main_room(s: CacheState, units: int) -> int:
    """Room in the main log. Its oldest entries go round again, if asked for, else they are dropped."""
    unit, rounds = _room_at_head(s, MAIN, units), 0
    while unit == NO_ENTRY:
        old = _take_oldest(s, MAIN)
        if old != NO_ENTRY:
            own, fresh = int64(s.entries[old]["units"]), NO_ENTRY
            if s.entries[old]["uses"] > 0 and rounds < ROUNDS_MAX:
                fresh = _room_at_head(s, MAIN, own)
            if fresh == NO_ENTRY:
                _evict(s, old)
            else:
                _move(s, old, fresh)
                rounds += 1
        unit = _room_at_head(s, MAIN, units)
    return unit


@kernel_in_place
def _evict(s: CacheState, unit: int) -> None:
    s.counted[0]["cache_evicted"] += 1
    _drop(s, unit)


@kernel_in_place
def _move(s: CacheState, unit: int, to: int) -> None:
    """Move an entry to other units; where they overlap, they begin before it."""
    units, width = int64(s.entries[unit]["units"]), s.entries.itemsize
    _drop(s, unit)
    copy_bytes(s.data, to * width, s.data, unit * width, units * width)
    s.entries[to]["uses"] = max(int64(s.entries[to]["uses"]) - 1, 0)
    _link(s, to, units)
