"""Who may put a record into a ring that fills up: the client with the largest backlog is refused first.

A client may put while its own records in the ring are fewer than SHARE times the room that is left (dynamic thresholds:
Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", IEEE/ACM Transactions on
Networking 6, 1998). One client that floods gets 8/9 of a ring, ten get 80/81 together: there is always room for others.

Backlogs are counted only while a ring is filling, in two tables by keyed hash (a count-min sketch: Cormode and
Muthukrishnan 2005). The smaller of a client's two numbers holds: another client's flood must share both places with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import siphash
from agents.core.jit import kernel, kernel_in_place

SHARE = 8
"""A power of two near 8 is what switches use: one client alone loses little of the ring, and ten leave room."""
PLACES = 4096
"""Of each table; a power of two."""
BEGIN, END = 2, 4
"""Backlogs are counted from a half of the ring on, until a quarter of it is left: below, nobody can be refused."""
_MASK, _SHIFT = np.uint64(PLACES - 1), np.uint64(32)


@kernel_in_place
def _places(client: Any, key: Any) -> Any:
    """The client's place in each table: of its address, IPv6 by the network of 64 bits that one host has (RFC 4291)."""
    mapped = client[0] == 0 and client[10] == 0xFF and client[11] == 0xFF
    found = siphash(client, 0, 16 if mapped else 8, key[0], key[1])
    return np.int64(found & _MASK), np.int64((found >> _SHIFT) & _MASK)


@kernel_in_place
def _count(backlog: NDArray[np.int32], key: NDArray[np.uint64], client: Any, change: int) -> None:
    one, other = _places(client, key)
    backlog[0, one] += change
    backlog[1, other] += change


@kernel_in_place
def admits(
    backlog: NDArray[np.int32],
    counted: NDArray[np.int64],
    key: NDArray[np.uint64],
    records: Any,
    head: int,
    tail: int,
    client: Any,
) -> bool:
    """Whether the client's next record may be written at `head`; then it counts. There must be room for it.

    backlog: i32[2, PLACES]. counted: i64[1], the tail up to which records that were taken are subtracted, -1 = nothing
    is counted. key: u64[2]. client: u8[16].
    """
    capacity, waiting = len(records), head - tail
    if counted[0] < 0:
        if waiting * BEGIN < capacity:
            return True
        for place in range(PLACES):
            backlog[0, place] = backlog[1, place] = 0
        for at in range(tail, head):
            _count(backlog, key, records[at % capacity]["client"], 1)
    else:
        for at in range(counted[0], tail):
            _count(backlog, key, records[at % capacity]["client"], -1)
        if waiting * END < capacity:
            counted[0] = -1
            return True
    counted[0] = tail
    one, other = _places(client, key)
    if min(backlog[0, one], backlog[1, other]) >= SHARE * (capacity - waiting):
        return False
    backlog[0, one] += 1
    backlog[1, other] += 1
    return True


@kernel
def place(
    backlog: NDArray[np.int32],
    counted: NDArray[np.int64],
    key: NDArray[np.uint64],
    records: Any,
    head: int,
    tail: int,
    given: Any,
) -> int:
    """Copy those of the given records that are admitted and find room behind `head`; how many. The caller publishes."""
    accepted = 0
    for at in range(len(given)):
        after = head + accepted
        if after - tail >= len(records):
            break
        if admits(backlog, counted, key, records, after, tail, given[at]["client"]):
            records[after % len(records)] = given[at]
            accepted += 1
    return accepted
