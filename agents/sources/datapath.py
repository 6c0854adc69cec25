"""UDP in compiled code, on a thread of its own that never takes Python's lock: see kernels/udp_pump.py.

It answers what can be answered at once, forwards ordinary queries to the upstream that a zone prefers, and sends the
answers back. What is rare comes to Python, which does what it does without kernels: a query without an answer in time,
one that could not be sent, a truncated answer (to be asked again over TCP), a query above 512 bytes.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from struct import Struct
from threading import Thread
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agents import wire
from agents.kernels.udp_libc import fence, watch
from agents.kernels.udp_pump import WAKE_EVENT, pump
from agents.kernels.udp_state import LONG, TIMED_OUT, TRUNCATED, UNSENT, State
from agents.ring import Ring
from agents.sources.access import AccessList
from agents.sources.counters import Counters
from agents.sources.datapath_state import make_state, peer_of
from agents.sources.forwarder import Forwarder
from agents.sources.sockets import UdpPort
from agents.sources.upstream import Pending, Routes

_AT_ONCE = 256
"""Queries taken over before the event loop may do something else."""
_SLOW_S = 1.0
_CONTROL = Struct("=Qii")  # struct cmsghdr of cmsg(3)
_log = structlog.get_logger()


class Datapath:
    """Serves UDP ports from `start` to `stop`. Rare queries go to the forwarder, finished ones into the ring."""

    def __init__(
        self,
        ports: list[UdpPort],
        routes: Routes,
        access: AccessList,
        forwarder: Forwarder,
        counters: Counters,
        *,
        timeout_s: float,
        inflight_max: int,
        uses_max: int,
        age_max_s: float,
        ring: Ring,
    ) -> None:
        self._ports, self._forwarder = ports, forwarder
        self._zones = list(routes.zones.values())
        self._state: State = make_state(ports, routes, access, forwarder.waiting, inflight_max, ring.arrays, counters)
        self._cells: dict[str, NDArray[np.int64]] = {
            name: self._state.cells[name] for name in self._state.cells.dtype.names or ()
        }
        self._set("timeout_ns", int(timeout_s * 1e9))
        self._set("uses_max", uses_max)
        self._set("taker", ring.bell)
        self._set("age_max_ns", int(age_max_s * 1e9))
        self._thread: Thread | None = None

    @property
    def inflight(self) -> int:
        """Queries in flight here, or on their way to the forwarder."""
        # In this order a query that is handed over meanwhile counts twice at worst, and is never missed.
        active = self._get("active")
        return active + self._get("handed_head") - self._get("handed_tail")

    def start(self) -> None:
        """Compile, or load what was compiled before, and serve."""
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._wake, self._bell = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2))
        for name, fd in (("epoll", self._epoll.fileno()), ("wake", self._wake), ("bell", self._bell)):
            self._set(name, fd)
        self._compile()
        watched = [(self._wake, WAKE_EVENT), *((port.sock.fileno(), at) for at, port in enumerate(self._ports))]
        for fd, data in watched:
            watch(self._epoll.fileno(), fd, data, self._state.scratch_event)
        self._loop.add_reader(self._bell, self._on_bell)
        self._thread = Thread(target=pump, args=(self._state,), name="datapath", daemon=True)
        self._thread.start()

    def _compile(self) -> None:
        begun = time.monotonic()
        _log.debug("datapath_loading")
        self._set("stop", 1)
        pump(self._state)
        self._set("stop", 0)
        took = time.monotonic() - begun
        if took > _SLOW_S:
            _log.info("datapath_compiled", seconds=round(took, 1), hint="the next start finds it in the cache")

    def stop(self) -> None:
        """Take no more queries, give up those in flight, close the sockets to the upstreams."""
        if self._thread is None:
            return
        self._set("stop", 1)
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._loop.remove_reader(self._bell)
        while self._get("handed_tail") < self._get("handed_head"):
            self._take_handed()
        while (number := self._get("oldest")) >= 0:
            self._set("oldest", int(self._state.slots[number]["newer"]))
            self._set("active", self._get("active") - 1)
            self._forwarder.abandon(self._pending(number))
        for fd in self._state.sockets["fd"].tolist():
            if fd >= 0:
                os.close(fd)
        self._epoll.close()
        os.close(self._wake)
        os.close(self._bell)

    def _get(self, name: str) -> int:
        return int(self._cells[name][0])

    def _set(self, name: str, value: int) -> None:
        self._cells[name][0] = value

    def _on_bell(self) -> None:
        os.eventfd_read(self._bell)
        self._take_handed()

    def _take_handed(self) -> None:
        """Take over what the kernels handed on."""
        self._set("called", 0)
        fence()
        head, tail, ring = self._get("handed_head"), self._get("handed_tail"), self._state.handed
        fence()
        if head - tail > _AT_ONCE:
            head = tail + _AT_ONCE
            self._loop.call_soon(self._take_handed)
        for at in range(tail, head):
            reason, number, carried, size = ring[at % len(ring)].item()
            bytes_ = self._state.carried[carried, :size].tobytes() if carried >= 0 else b""
            if carried >= 0:
                self._set("carried_tail", self._get("carried_tail") + 1)
            pending = self._pending(number, bytes_ if reason == LONG else None)
            self._give_back(number)
            self._take_over(pending, reason, bytes_)
            self._set("handed_tail", at + 1)

    def _take_over(self, pending: Pending, reason: int, answer: bytes) -> None:
        assert reason in (TIMED_OUT, UNSENT, TRUNCATED, LONG)
        if reason == LONG:
            self._forwarder.submit(pending)
        elif reason == TRUNCATED:
            self._forwarder.resume(pending, answer)
        else:
            self._forwarder.resubmit(pending, timed_out=reason == TIMED_OUT)

    def _give_back(self, number: int) -> None:
        head = self._get("returned_head")
        self._state.returned[head % len(self._state.returned)] = number
        fence()
        self._set("returned_head", head + 1)

    def _pending(self, number: int, query: bytes | None = None) -> Pending:
        """The query of a slot as the forwarder knows it. `query`: its bytes, if the slot does not hold them."""
        slot = self._state.slots[number]
        message = slot["query"][: slot["size"]].tobytes() if query is None else query
        message = int(slot["id"]).to_bytes(2) + message[2:]
        question = wire.parse_question(message)
        port, zone = self._ports[slot["port"]], self._zones[slot["zone"]]
        peer = peer_of(slot["address"][: slot["address_size"]].tobytes())
        back: Any = (peer, _ancillary(slot["control"][: slot["control_size"]].tobytes())) if port.wildcard else peer
        return Pending(
            message, question, peer[0], port, back, True, zone, float(slot["ts"]),
            question_bytes=message[wire.HEADER_SIZE : question.end],
            asked=int(slot["asked"]),
            started=int(slot["started"]) / 1e9,
        )  # fmt: skip


def _ancillary(control: bytes) -> list[tuple[int, int, bytes]]:
    """Control data as the socket module's sendmsg takes it."""
    if not control:
        return []
    size, level, kind = _CONTROL.unpack_from(control)
    return [(level, kind, control[_CONTROL.size : size])]
