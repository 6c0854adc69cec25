"""Queries in flight: taken, kept in order of arrival, given up, handed to Python."""

from __future__ import annotations

from typing import Any

from agents.kernels import kernel_in_place
from agents.kernels.udp_libc import c_write, fence
from agents.kernels.udp_state import BUFFER, State

NONE = -1


@kernel_in_place
def copy(into: Any, at: int, source: Any, start: int, size: int) -> None:
    """Copy bytes, the first ones first. (A slice assigned to a slice would ask for memory.)"""
    for place in range(size):
        into[at + place] = source[start + place]


@kernel_in_place
def inflight(s: State) -> int:
    """Queries that wait for an upstream: here, on the way to Python, and there."""
    c = s.cells[0]
    return c.active + c.handed_head - c.handed_tail + s.elsewhere[0]  # type: ignore[no-any-return]


@kernel_in_place
def take_slot(s: State) -> int:
    """A free slot, or NONE. What Python gave back is free again."""
    c = s.cells[0]
    while c.returned_tail < c.returned_head:
        fence()
        release(s, s.returned[c.returned_tail % len(s.returned)])
        c.returned_tail += 1
    if c.free == 0:
        return NONE
    c.free -= 1
    return s.free[c.free]  # type: ignore[no-any-return]


@kernel_in_place
def release(s: State, number: int) -> None:
    """The slot is free."""
    c = s.cells[0]
    s.free[c.free] = number
    c.free += 1


@kernel_in_place
def link(s: State, number: int) -> None:
    """The slot is in flight, as the newest."""
    c, slot = s.cells[0], s.slots[number]
    slot.older, slot.newer = c.newest, NONE
    if c.newest >= 0:
        s.slots[c.newest].newer = number
    else:
        c.oldest = number
    c.newest = number
    c.active += 1


@kernel_in_place
def unlink(s: State, number: int) -> None:
    """The slot is no longer in flight, and its id no longer asked. The caller counts `active` down."""
    c, slot = s.cells[0], s.slots[number]
    if slot.older >= 0:
        s.slots[slot.older].newer = slot.newer
    else:
        c.oldest = slot.newer
    if slot.newer >= 0:
        s.slots[slot.newer].older = slot.older
    else:
        c.newest = slot.older
    if slot.socket >= 0:
        s.owners[slot.socket, slot.entry] = NONE
        s.sockets[slot.socket].pending -= 1
        slot.socket = NONE


@kernel_in_place
def hand_over(s: State, number: int, reason: int, carried: int, size: int) -> None:
    """Python takes the slot over. The ring has room for every slot there is."""
    c = s.cells[0]
    handed = s.handed[c.handed_head % len(s.handed)]
    handed.reason, handed.slot, handed.carried, handed.size = reason, number, carried, size
    fence()
    c.handed_head += 1
    ring(s)


@kernel_in_place
def give_up(s: State, number: int, reason: int) -> None:
    """A query in flight goes to Python without an answer."""
    unlink(s, number)
    hand_over(s, number, reason, NONE, 0)
    s.cells[0].active -= 1


@kernel_in_place
def carry(s: State, message: Any, size: int) -> int:
    """Keep the bytes for Python; their row, or NONE if all are taken."""
    c = s.cells[0]
    if c.carried_head - c.carried_tail >= len(s.carried) or size > BUFFER:
        return NONE
    row = c.carried_head % len(s.carried)
    copy(s.carried[row], 0, message, 0, size)
    c.carried_head += 1
    return row  # type: ignore[no-any-return]


@kernel_in_place
def ring(s: State) -> None:
    """Wake Python for queries that were handed over, unless that was done and not seen yet."""
    c = s.cells[0]
    fence()
    if c.called == 0:
        c.called = s.scratch[7] = 1
        c_write(c.bell, s.scratch[7:].ctypes.data, 8)
