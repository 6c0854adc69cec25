"""The datapath's loop: waits for datagrams, moves them, gives up what is overdue, until it is told to stop."""

from __future__ import annotations

from agents.kernels import kernel, kernel_in_place
from agents.kernels.question import int64
from agents.kernels.udp_answers import on_answers
from agents.kernels.udp_libc import CLOCK_MONOTONIC, c_read, clock_ns, epoll_wait
from agents.kernels.udp_queries import on_queries
from agents.kernels.udp_slots import give_up
from agents.kernels.udp_sockets import UPSTREAM_EVENT, retire_old
from agents.kernels.udp_state import TIMED_OUT, State

WAKE_EVENT = 1 << 32
"""Marks the event that ends the wait; below it, the number of a port that clients write to."""
SWEEP_MS, IDLE_MS = 50, 1000
"""Between looks at what is overdue: with queries in flight, and without."""


@kernel
def pump(s: State) -> None:
    """Runs until CELLS.stop is set and the wake descriptor written."""
    c = s.cells[0]
    while c.stop == 0:
        wait = SWEEP_MS if c.active > 0 else IDLE_MS
        count = epoll_wait(c.epoll, s.events.ctypes.data, len(s.events), wait)
        now = clock_ns(CLOCK_MONOTONIC, s.scratch)
        for place in range(count):
            data = int64(s.events[place].data)
            if data >= UPSTREAM_EVENT:
                on_answers(s, data - UPSTREAM_EVENT, now)
            elif data == WAKE_EVENT:
                c_read(c.wake, s.scratch.ctypes.data, 8)
            else:
                on_queries(s, data, now)
        if now - c.swept >= SWEEP_MS * 1_000_000:
            sweep(s, now)


@kernel_in_place
def sweep(s: State, now: int) -> None:
    """Give up what is overdue, the oldest first, and retire old sockets."""
    c = s.cells[0]
    c.swept = now
    while c.oldest >= 0 and s.slots[c.oldest].started + c.timeout_ns <= now:
        give_up(s, c.oldest, TIMED_OUT)
    retire_old(s, now)
