"""Queries to an upstream: sent with one system call, those of one size as one message that the kernel cuts up.

Generic segmentation offload (UDP_SEGMENT of udp(7)): what leaves are the same datagrams, but all of a message take the
kernel's way once, and that way is most of what forwarding costs.
"""

from __future__ import annotations

from agents.kernels import kernel_in_place
from agents.kernels.question import int64
from agents.kernels.udp_libc import ECONNREFUSED, EINTR, errno, sendmmsg
from agents.kernels.udp_slots import give_up
from agents.kernels.udp_sockets import fail_over
from agents.kernels.udp_state import SEGMENT_AT, UNSENT, State


@kernel_in_place
def flush(s: State) -> None:
    """Send what waits for the upstream socket at hand. What it refuses goes to Python."""
    c, first = s.cells[0], 0
    count, target = c.outgoing, c.target
    c.outgoing = 0
    if count == 0:
        return
    server = s.upstreams[s.sockets[target].upstream]
    at, messages = 0, _grouped(s, 0, count, server.whole == 0)
    while at < messages:
        sent = sendmmsg(s.sockets[target].fd, s.to_upstream[at:].ctypes.data, messages - at, 0)
        for _ in range(max(sent, 0)):
            first += int64(s.to_upstream[at].parts_count)
            at += 1
        error = errno() if sent <= 0 else EINTR
        if error == ECONNREFUSED:
            # The kernel tells of an earlier datagram: what waits on this socket will get no answer either.
            fail_over(s, target)
            return
        if error == EINTR:
            continue
        if s.to_upstream[at].parts_count > 1:
            # Perhaps nothing on this way can cut (an old kernel, a device that computes no checksums).
            server.whole = 1
            at, messages = 0, _grouped(s, first, count, False)
        else:
            give_up(s, s.to_upstream_slots[first], UNSENT)
            first += 1
            at += 1


@kernel_in_place
def _grouped(s: State, first: int, count: int, together: bool) -> int:
    """Make messages of the queries from `first` on, one for each size if `together`, else one for each; how many."""
    parts, messages, at = s.to_upstream_parts, 0, first
    while at < count:
        size, end = parts[at].size, at + 1
        for other in range(end, count if together else end):
            if parts[other].size == size:
                _swap(s, other, end)
                end += 1
        header = s.to_upstream[messages]
        header.parts = int64(parts.ctypes.data) + at * parts.itemsize
        header.parts_count = end - at
        header.control_size = s.segments.shape[1] if end - at > 1 else 0
        s.segments[messages, SEGMENT_AT], s.segments[messages, SEGMENT_AT + 1] = size & 0xFF, size >> 8
        messages += 1
        at = end
    return messages


@kernel_in_place
def _swap(s: State, one: int, other: int) -> None:
    parts, slots = s.to_upstream_parts, s.to_upstream_slots
    base, slot = parts[one].base, slots[one]
    parts[one].base, slots[one] = parts[other].base, slots[other]
    parts[other].base, slots[other] = base, slot
    size = parts[one].size
    parts[one].size = parts[other].size
    parts[other].size = size
