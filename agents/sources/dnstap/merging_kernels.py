"""Queries and answers of several senders, joined and put into order of time.

A query and its answer are known by client, port, id and question. An answer alone suffices: it is a query, too. Each is
held for a while (`hold`), since senders flush late and in no common order; then it goes on as it is, and its other
half, if that comes later still, is not counted again. How many halves stayed alone is counted for each sender: frames
were lost there.

A row's order is its time where that is not later than the frame arrived and not older than the hold; others are ordered
by their arrival, so that no sender's clock holds back the rest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.core.types import UNKNOWN
from agents.dns.message_kernels import (
    HASH_MASK,
    answer_facts,
    copy_bytes,
    int64,
    new_facts,
    piece_hash,
    uint64,
    write_facts,
)
from agents.dns.name import NAME_MAX
from agents.sources.capture.capture_kernels import SLOTS, copy_record, find_slot, free_slot
from agents.stream.record import ANSWER_KEY, RECORD

POOL = 1 << 17
"""Rows that are held, at most; at half a load of the slots."""
_CHAIN_MAX = 8
"""Rows of one key that look for their other halves; a client that asks the same again does so after seconds."""
_GIVEN, _WAYS = 1 << 17, 4
"""Places for halves that went on alone; a key has four of them, of which the oldest is used again."""
GIVEN_S = 30.0
"""A half that comes so much later is something new."""
SENDERS = 256
"""Senders that are counted apart; a power of two."""
QUERIES, ANSWERS, UNASKED, UNANSWERED = range(4)
"""Counts of a sender: frames with queries, with answers; answers without a query, and the reverse."""
COUNTS = 4
WAITING, FREE, SEQUENCE, LATE, AHEAD = range(5)
"""Numbers: rows that are held, places that are free, rows up to now; rows older than the hold when they came, and rows
from the future."""
ASKED, ANSWERED = 1, 2
"""States of a row: which half it has."""
_KEY_ROOM = 16 + 4 + NAME_MAX + 3


class Merger(NamedTuple):
    """Rows that are held."""

    pool: NDArray[np.void]  # (POOL,), RECORDs; the arrays below have a place for each
    keys: NDArray[np.uint64]
    states: NDArray[np.int64]  # ASKED, ANSWERED
    senders: NDArray[np.int64]
    sequence: NDArray[np.int64]  # rows before it
    nexts: NDArray[np.int32]  # the next row of the same key plus one, 0 = none, -1 = the row looks for no other half
    free: NDArray[np.int32]  # numbers of free rows, the last one next
    heap: NDArray[np.int32]  # numbers of held rows, a binary heap
    heap_order: NDArray[np.float64]  # the times by which they are ordered; those of equal time by their sequence
    slots: NDArray[np.int32]  # (SLOTS,): number of a key's first row plus one, 0 = free
    given: NDArray[np.uint64]  # (_GIVEN,): keys of halves that went on alone
    given_at: NDArray[np.float64]  # when
    owed: NDArray[np.int64]  # answers that are still to come, below 0: queries
    counts: NDArray[np.int64]  # (SENDERS, COUNTS)
    origins: NDArray[np.uint8]  # (SENDERS,): of what each one's rows are, see sources.origins
    numbers: NDArray[np.int64]  # WAITING …
    newest: NDArray[np.float64]  # (1,): the newest time of a row up to now
    key: NDArray[np.uint8]  # scratch
    facts: NDArray[np.int64]  # scratch
    secret: NDArray[np.uint64]  # (2,)


def new_merger(secret: tuple[int, int]) -> Merger:
    """No row is held. secret: two numbers of 64 bits that no sender knows."""
    return Merger(
        np.zeros(POOL, RECORD),
        np.zeros(POOL, np.uint64),
        np.zeros(POOL, np.int64),
        np.zeros(POOL, np.int64),
        np.zeros(POOL, np.int64),
        np.zeros(POOL, np.int32),
        np.arange(POOL, dtype=np.int32)[::-1].copy(),
        np.zeros(POOL, np.int32),
        np.zeros(POOL),
        np.zeros(SLOTS, np.int32),
        np.zeros(_GIVEN, np.uint64),
        np.full(_GIVEN, -np.inf),
        np.zeros(_GIVEN, np.int64),
        np.zeros((SENDERS, COUNTS), np.int64),
        np.zeros(SENDERS, np.uint8),
        np.array((0, POOL, 0, 0, 0), np.int64),
        np.full(1, -np.inf),
        np.zeros(_KEY_ROOM, np.uint8),
        new_facts(ANSWER_KEY),
        np.array((secret[0] & HASH_MASK, secret[1] & HASH_MASK), np.uint64),
    )


class Exchange(NamedTuple):
    """One half of an exchange, as a frame has it."""

    client: NDArray[np.uint8]  # (16,): address, an IPv4 one mapped (RFC 4291 section 2.5.5.2)
    numbers: NDArray[np.int64]  # IS_ANSWER …
    times: NDArray[np.float64]  # AT_ASKED, AT_ANSWERED: Unix seconds, NaN = the frame has none


IS_ANSWER, PORT, IDENT, NAME, NAME_END, QTYPE, SIZE, WIRE, WIRE_END = range(9)
"""Whether it is an answer; the client's port, the message's id; where the name lies, in wire form without the root's
byte; its type; bytes of the message; where the message lies, end 0 = the facts of the answer have been read."""
AT_ASKED, AT_ANSWERED = range(2)


def new_exchange() -> Exchange:
    """Room for one half after another."""
    return Exchange(np.zeros(16, np.uint8), np.zeros(9, np.int64), np.zeros(2))


# The heap of held rows, by time and then by sequence.


@kernel_in_place
def _is_before(merger: Any, at: Any, order: Any, number: Any) -> Any:
    """Whether the row at a place of the heap comes before another one with this order and number."""
    if merger.heap_order[at] != order:
        return merger.heap_order[at] < order
    return merger.sequence[merger.heap[at]] < merger.sequence[number]


@kernel_in_place
def _push(merger: Any, order: Any, number: Any) -> None:
    heap, orders, at = merger.heap, merger.heap_order, merger.numbers[WAITING]
    merger.numbers[WAITING] = at + 1
    while at > 0:
        above = (at - 1) // 2
        if _is_before(merger, above, order, number):
            break
        heap[at], orders[at] = heap[above], orders[above]
        at = above
    heap[at], orders[at] = number, order


@kernel_in_place
def _pop(merger: Any) -> None:
    """Take the first row out."""
    heap, orders, size = merger.heap, merger.heap_order, merger.numbers[WAITING] - 1
    merger.numbers[WAITING] = size
    last, order, at = heap[size], orders[size], int64(0)
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and _is_before(merger, below + 1, orders[below], heap[below]):
            below += 1
        if not _is_before(merger, below, order, last):
            break
        heap[at], orders[at] = heap[below], orders[below]
        at = below
    heap[at], orders[at] = last, order


# Rows that look for their other halves, by key.


@kernel_in_place
def _identity(merger: Any, found: Any, names: Any) -> Any:
    """Identity of an exchange: client, port, id, name and type. A server's address would be better still, but not each
    server writes it into both halves."""
    key, numbers, size = merger.key, found.numbers, int64(20)
    copy_bytes(key, 0, found.client, 0, 16)
    key[16], key[17] = numbers[PORT] >> 8 & 0xFF, numbers[PORT] & 0xFF
    key[18], key[19] = numbers[IDENT] >> 8 & 0xFF, numbers[IDENT] & 0xFF
    for at in range(numbers[NAME], numbers[NAME_END]):
        byte = names[at]
        key[size] = byte + 32 if 0x41 <= byte <= 0x5A else byte
        size += 1
    key[size], key[size + 1] = numbers[QTYPE] >> 8 & 0xFF, numbers[QTYPE] & 0xFF
    return piece_hash(key, 0, size + 2, merger.secret[0], merger.secret[1])


@kernel_in_place
def _link(merger: Any, number: Any) -> None:
    """Let a row look for its other half, behind others of the same key."""
    merger.nexts[number] = 0
    at = find_slot(merger, merger.keys[number])
    if not merger.slots[at]:
        merger.slots[at] = number + 1
        return
    last = merger.slots[at] - 1
    for _ in range(_CHAIN_MAX - 1):
        if merger.nexts[last] == 0:
            merger.nexts[last] = number + 1
            return
        last = merger.nexts[last] - 1
    merger.nexts[number] = -1


@kernel_in_place
def _unlink_first(merger: Any, at: Any) -> None:
    """Take the first row of a slot out of its chain."""
    first = merger.slots[at] - 1
    if merger.nexts[first] > 0:
        merger.slots[at] = merger.nexts[first]
    else:
        free_slot(merger, at)
    merger.nexts[first] = -1


@kernel_in_place
def _unlink(merger: Any, number: Any) -> None:
    """Take a row out of its chain, if it is in one."""
    if merger.nexts[number] < 0:
        return
    at = find_slot(merger, merger.keys[number])
    before = merger.slots[at] - 1
    if before == number:
        _unlink_first(merger, at)
        return
    while merger.nexts[before] - 1 != number:
        before = merger.nexts[before] - 1
    merger.nexts[before] = merger.nexts[number]
    merger.nexts[number] = -1


# Halves that went on alone.


@kernel_in_place
def _given_place(merger: Any, key: Any, now: Any) -> Any:
    """The place of a half that went on alone within GIVEN_S, or -1."""
    first = int64(key & uint64(_GIVEN - 1)) & ~(_WAYS - 1)
    for at in range(first, first + _WAYS):
        if merger.given[at] == key and now - merger.given_at[at] <= GIVEN_S and merger.owed[at]:
            return at
    return int64(-1)


@kernel_in_place
def _note_given(merger: Any, key: Any, owed: Any, now: Any) -> None:
    """Note that a half of this key went on alone."""
    at = _given_place(merger, key, now)
    if at < 0:
        first = int64(key & uint64(_GIVEN - 1)) & ~(_WAYS - 1)
        at = first
        for other in range(first + 1, first + _WAYS):
            if merger.given_at[other] < merger.given_at[at]:
                at = other
        merger.given[at], merger.owed[at] = key, 0
    merger.given_at[at] = now
    merger.owed[at] += owed


# Taking a half, and giving rows on.


@kernel_in_place
def _answer_row(merger: Any, row: Any, found: Any, data: Any) -> None:
    """Write what an answer says into a row."""
    numbers = found.numbers
    if numbers[WIRE_END]:
        start, question = numbers[WIRE], numbers[NAME_END] + 5
        answer_facts(data, start, question, numbers[WIRE_END], merger.facts)
    write_facts(merger.facts, row)
    row["rlen"] = numbers[SIZE]


@kernel_in_place
def _new_row(merger: Any, found: Any, names: Any, data: Any, ts: Any) -> Any:
    """Fill a free row with a half; its number. There must be one."""
    numbers = found.numbers
    merger.numbers[FREE] -= 1
    number = int64(merger.free[merger.numbers[FREE]])
    row = merger.pool[number]
    row["ts"], row["qtype"], row["rtt_ms"] = ts, numbers[QTYPE], np.nan
    row["qlen"] = row["ttl_min"] = row["ancount"] = row["rlen"] = row["rcode"] = row["cached"] = UNKNOWN
    row["ans_hash"], row["ans_bytes"], row["negative_ttl"] = 0, UNKNOWN, UNKNOWN
    row["ans_types"][:] = 0
    copy_bytes(row["client"], 0, found.client, 0, 16)
    size = numbers[NAME_END] - numbers[NAME]
    row["qname_size"] = size
    copy_bytes(row["qname"], 0, names, numbers[NAME], size)
    if numbers[IS_ANSWER]:
        _answer_row(merger, row, found, data)
        row["rtt_ms"] = (found.times[AT_ANSWERED] - found.times[AT_ASKED]) * 1000
    else:
        row["qlen"] = numbers[SIZE]
    return number


@kernel_in_place
def _join(merger: Any, number: Any, found: Any, data: Any, ts: Any) -> None:
    """Complete a row with its other half."""
    row, times = merger.pool[number], found.times
    if found.numbers[IS_ANSWER]:
        _answer_row(merger, row, found, data)
        asked = times[AT_ASKED] if times[AT_ASKED] == times[AT_ASKED] else row["ts"]
        row["rtt_ms"] = max((times[AT_ANSWERED] - asked) * 1000, 0.0)
    else:
        row["qlen"] = found.numbers[SIZE]
        if row["rtt_ms"] != row["rtt_ms"]:
            row["rtt_ms"] = max((row["ts"] - ts) * 1000, 0.0)
        row["ts"] = min(row["ts"], ts)
    merger.states[number] = ASKED | ANSWERED


@kernel_in_place
def _is_late_half(merger: Any, key: Any, is_answer: Any, sender: Any, now: Any) -> Any:
    """Whether the other half of this one went on alone; then it counts no more, and neither does that half's loss."""
    at = _given_place(merger, key, now)
    if at < 0 or (merger.owed[at] > 0) != is_answer:
        return False
    merger.owed[at] -= 1 if is_answer else -1
    merger.counts[sender, UNANSWERED if is_answer else UNASKED] -= 1
    return True


@kernel_in_place
def take_half(merger: Any, found: Any, names: Any, data: Any, sender: Any, arrived: Any, hold: Any) -> None:
    """Take one half; there must be a free row. names: where its name lies. data: where its message lies.

    arrived: when it came, Unix seconds; NaN = in a file, whose clock is its newest time. Without a time it gets that.
    """
    numbers, times = merger.numbers, found.times
    is_answer = found.numbers[IS_ANSWER] != 0
    ts = times[AT_ANSWERED] if is_answer and times[AT_ASKED] != times[AT_ASKED] else times[AT_ASKED]
    now = arrived if arrived == arrived else max(merger.newest[0], ts)
    merger.newest[0] = max(merger.newest[0], now)
    if not ts <= now:
        numbers[AHEAD] += ts == ts
        ts = now
    merger.counts[sender, ANSWERS if is_answer else QUERIES] += 1
    key = _identity(merger, found, names)
    at = find_slot(merger, key)
    other = int64(merger.slots[at]) - 1
    if other >= 0 and merger.states[other] == (ASKED if is_answer else ANSWERED):
        _unlink_first(merger, at)
        _join(merger, other, found, data, ts)
        return
    if _is_late_half(merger, key, is_answer, sender, now):
        return
    number = _new_row(merger, found, names, data, ts)
    merger.keys[number], merger.senders[number] = key, sender
    merger.states[number] = ANSWERED if is_answer else ASKED
    is_late = ts < now - hold
    numbers[LATE] += is_late
    merger.sequence[number] = numbers[SEQUENCE]
    numbers[SEQUENCE] += 1
    _link(merger, number)
    _push(merger, now if is_late else ts, number)


@kernel_in_place
def give(merger: Any, now: Any, hold: Any, most: Any, out: Any, written: Any) -> Any:
    """Move rows older than the hold, and the oldest beyond `most`, behind the `written` ones of `out`, RECORDs; how
    many there are then. Where `out` is full the rest waits on. now: Unix seconds, infinite = all rows are moved."""
    numbers = merger.numbers
    while written < len(out) and numbers[WAITING]:
        number = int64(merger.heap[0])
        if now - merger.heap_order[0] < hold and numbers[WAITING] <= most:
            break
        _pop(merger)
        _unlink(merger, number)
        state, sender = merger.states[number], merger.senders[number]
        if state == ASKED:
            merger.counts[sender, UNANSWERED] += 1
            _note_given(merger, merger.keys[number], 1, merger.newest[0])
        elif state == ANSWERED:
            merger.counts[sender, UNASKED] += 1
            _note_given(merger, merger.keys[number], -1, merger.newest[0])
        copy_record(merger.pool[number], out[written])
        out[written]["origin"] = merger.origins[sender]
        written += 1
        merger.free[numbers[FREE]] = number
        numbers[FREE] += 1
    return written
