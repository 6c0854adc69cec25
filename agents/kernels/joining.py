"""Joins captured queries with their answers and gives them out by time. The definition is sources/join.Joiner.

Rows wait in a pool. A ring holds their numbers in order of time, first come first of equals; an open-addressing table
finds the first that waits by the keyed 64-bit identity of client, server, port, id and question.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel_in_place
from agents.kernels.answer import FACTS, answer_facts, tell
from agents.kernels.hashing import siphash
from agents.kernels.question import HEADER_SIZE, NAME_MAX, question_end, u16

WAIT_S, WAITING_MAX = 5.0, 65_536
"""As in sources/join."""
POOL = WAITING_MAX + 32_768
"""More than can come in one datagram's frame. A segment that fills a gap may release more: those are refused."""
RING, SLOTS = 1 << 17, 1 << 18
FIRST, WAITING, FREE = range(3)
_KEY_ROOM = 16 + 16 + 4 + NAME_MAX + 5
_UNKNOWN = -1


class Joint(NamedTuple):
    """What waits."""

    pool: NDArray[np.void]  # RECORDs
    keys: NDArray[np.uint64]  # (POOL,)
    free: NDArray[np.int32]  # (POOL,): numbers of free rows, the last one next
    ring: NDArray[np.int32]  # (RING,): numbers of waiting rows
    slots: NDArray[np.int32]  # (SLOTS,): number of a row plus one, 0 = free
    numbers: NDArray[np.int64]  # FIRST in the ring, how many are WAITING, how many are FREE
    key: NDArray[np.uint8]  # scratch
    facts: NDArray[np.int64]  # scratch
    secret: NDArray[np.uint64]  # (2,)


def joint(record: np.dtype[np.void], secret: tuple[int, int]) -> Joint:
    """Nothing waits; `record` is the type of rows."""
    return Joint(
        np.zeros(POOL, record),
        np.zeros(POOL, np.uint64),
        np.arange(POOL, dtype=np.int32),
        np.zeros(RING, np.int32),
        np.zeros(SLOTS, np.int32),
        np.array((0, 0, POOL), np.int64),
        np.zeros(_KEY_ROOM, np.uint8),
        np.zeros(FACTS, np.int64),
        np.array(secret, np.uint64),
    )


@kernel_in_place
def _identity(data: Any, start: Any, end: Any, client: Any, port: Any, server: Any, joint: Any) -> Any:
    """Identity of who asks whom for what; the question lies before `end` in the message at `start`, in any case."""
    key, size = joint.key, 36
    for i in range(16):
        key[i], key[16 + i] = client[i], server[i]
    key[32], key[33], key[34], key[35] = port >> 8, port & 0xFF, data[start], data[start + 1]
    for at in range(start + HEADER_SIZE, end):
        byte = data[at]
        key[size] = byte + 32 if 0x41 <= byte <= 0x5A else byte
        size += 1
    return siphash(key, 0, size, joint.secret[0], joint.secret[1])


@kernel_in_place
def _find(joint: Any, key: Any) -> Any:
    """The slot of the first row that waits under the key, or the free slot where it would be."""
    at = np.int64(key & np.uint64(SLOTS - 1))
    while joint.slots[at] and joint.keys[joint.slots[at] - 1] != key:
        at = (at + 1) & (SLOTS - 1)
    return at


@kernel_in_place
def _remove(joint: Any, at: Any) -> None:
    """Empty a slot and move up what lies behind it (Knuth volume 3, section 6.4, algorithm R)."""
    slots = joint.slots
    hole = at
    while True:
        at = (at + 1) & (SLOTS - 1)
        if not slots[at]:
            break
        home = np.int64(joint.keys[slots[at] - 1] & np.uint64(SLOTS - 1))
        if (at - home) & (SLOTS - 1) >= (at - hole) & (SLOTS - 1):
            slots[hole] = slots[at]
            hole = at
    slots[hole] = 0


@kernel_in_place
def _queue(joint: Any, ts: Any, number: Any) -> None:
    """Put a row in its place in the ring: behind all that are not later."""
    first, waiting = joint.numbers[FIRST], joint.numbers[WAITING]
    at = first + waiting
    while at > first and joint.pool[joint.ring[(at - 1) & (RING - 1)]].ts > ts:
        joint.ring[at & (RING - 1)] = joint.ring[(at - 1) & (RING - 1)]
        at -= 1
    joint.ring[at & (RING - 1)] = number
    joint.numbers[WAITING] = waiting + 1


@kernel_in_place
def query(joint: Any, ts: Any, data: Any, start: Any, end: Any, size: Any, client: Any, port: Any, server: Any) -> Any:
    """Take the query data[start:end] of `size` bytes; client and server u8[16]. False if malformed, or without room."""
    stop = question_end(data, start, end)
    if stop == 0:
        return False
    if joint.numbers[FREE] == 0:
        return False
    joint.numbers[FREE] -= 1
    number = joint.free[joint.numbers[FREE]]
    row = joint.pool[number]
    row.ts, row.qlen, row.qtype = ts, size, u16(data, stop - 4)
    row.ttl_min = row.ancount = row.rlen = row.rcode = _UNKNOWN
    row.rtt_ms = np.nan
    for i in range(len(row.ans_types)):
        row.ans_types[i] = 0
    for i in range(16):
        row.client[i] = client[i]
    first = start + HEADER_SIZE
    row.qname_size = stop - 5 - first
    for i in range(stop - 5 - first):
        row.qname[i] = data[first + i]
    key = _identity(data, start, stop, client, port, server, joint)
    joint.keys[number] = key
    at = _find(joint, key)
    if not joint.slots[at]:
        joint.slots[at] = number + 1
    _queue(joint, ts, number)
    return True


@kernel_in_place
def answer(joint: Any, ts: Any, data: Any, start: Any, end: Any, size: Any, client: Any, port: Any, server: Any) -> Any:
    """Take the answer data[start:end]; one that answers nothing is ignored. False if it is malformed."""
    stop = question_end(data, start, end)
    if stop == 0:
        return False
    at = _find(joint, _identity(data, start, stop, client, port, server, joint))
    if joint.slots[at]:
        row = joint.pool[joint.slots[at] - 1]
        _remove(joint, at)
        if ts - row.ts <= WAIT_S:
            answer_facts(data, start, stop, end, joint.facts)
            tell(joint.facts, row)
            row.rlen, row.rtt_ms = size, (ts - row.ts) * 1000
    return True


@kernel_in_place
def _copy(row: Any, to: Any) -> None:
    """Make the record `to` the same as `row`, bytes behind its name apart: most of a record is room for a long one."""
    to.ts, to.ttl_min, to.rtt_ms, to.qlen = row.ts, row.ttl_min, row.rtt_ms, row.qlen
    to.ancount, to.rlen, to.qtype, to.rcode = row.ancount, row.rlen, row.qtype, row.rcode
    for i in range(len(row.ans_types)):
        to.ans_types[i] = row.ans_types[i]
    for i in range(16):
        to.client[i] = row.client[i]
    to.qname_size = row.qname_size
    for i in range(row.qname_size):
        to.qname[i] = row.qname[i]


@kernel_in_place
def ready(joint: Any, now: Any, out: Any, written: Any) -> Any:
    """Move rows older than the wait, and the oldest beyond the bound, behind the `written` ones of `out`; how many
    there are then. Where `out` is full the rest waits on. With `now` infinite all rows are moved."""
    numbers = joint.numbers
    while written < len(out) and numbers[WAITING]:
        number = joint.ring[numbers[FIRST] & (RING - 1)]
        row = joint.pool[number]
        if not (now - row.ts > WAIT_S or numbers[WAITING] > WAITING_MAX):
            break
        at = _find(joint, joint.keys[number])
        if joint.slots[at] == number + 1:
            _remove(joint, at)
        _copy(row, out[written])
        written += 1
        numbers[FIRST] += 1
        numbers[WAITING] -= 1
        joint.free[numbers[FREE]] = number
        numbers[FREE] += 1
    return written
