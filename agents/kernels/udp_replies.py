"""Replies to clients: gathered, then sent with one system call."""

from __future__ import annotations

from typing import Any

from agents.kernels import kernel_in_place
from agents.kernels.udp_libc import EINTR, errno, sendmmsg
from agents.kernels.udp_state import State


@kernel_in_place
def reply(s: State, way: Any, base: int, size: int) -> None:
    """Put a reply of `size` bytes at `base` among those to send, on the way that a received MESSAGE describes."""
    header, part = s.to_clients[s.cells[0].replies], s.to_clients_parts[s.cells[0].replies]
    header.name, header.name_size = way.name, way.name_size
    header.control, header.control_size = way.control, way.control_size
    part.base, part.size = base, size
    s.cells[0].replies += 1


@kernel_in_place
def send_replies(s: State, port: int) -> None:
    """Send them. A client that is gone, or a full socket buffer, loses its answer: that is UDP."""
    c, at = s.cells[0], 0
    while at < c.replies:
        sent = sendmmsg(s.ports[port].fd, s.to_clients[at:].ctypes.data, c.replies - at, 0)
        if sent > 0:
            at += sent
        elif errno() != EINTR:
            at += 1
    c.replies = 0
