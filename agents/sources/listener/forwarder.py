"""The upstreams' side of the listener: sends queries, matches answers, tries the next upstream, gives up in time."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from time import monotonic

from agents.dns.message import HEADER_SIZE
from agents.sources.listener import upstream as pools
from agents.sources.listener.sockets import DRAIN_MAX, UDP_MAX
from agents.sources.listener.tcp import query_over_tcp
from agents.sources.listener.upstream import POOL_SIZE, Pending, Random16, Upstream, UpstreamSocket
from agents.stream.counters import Counters

_SWEEP_S = 0.05
_TCP_MAX = 128
"""Upstream connections at once; each is one file descriptor and up to 64 KiB."""
_TRUNCATED = 0x02

Finish = Callable[[Pending, bytes | None], None]
"""Called once a query: with the upstream's answer (its own id), or None if no upstream answered."""


class Forwarder:
    """Runs inside one asyncio loop; all but the rare query over TCP is done in callbacks, without tasks."""

    def __init__(self, *, timeout_s: float, counters: Counters, finish: Finish) -> None:
        self._timeout_s = timeout_s
        self._counters, self._finish = counters, finish
        self._random = Random16()
        self._sockets: dict[UpstreamSocket, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = memoryview(bytearray(8)).cast("q")
        """Queries that wait here: one number, which kernels share."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep)

    async def stop(self) -> None:
        """Give up the queries in flight and close every socket."""
        if self._timer:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for socket in list(self._sockets):
            for pending in socket.pending.values():
                self._done(pending, None)
            socket.pending.clear()
            self._close(socket)

    def submit(self, pending: Pending) -> None:
        """Take a query in; `finish` is called for it exactly once, possibly before this returns."""
        self.waiting[0] += 1
        pending.started = now = monotonic()
        self._send(pending, now)

    def resubmit(self, pending: Pending, *, timed_out: bool) -> None:
        """Take in a query that the datapath sent, or tried to, in vain: it goes to the next upstream."""
        self.waiting[0] += 1
        self._counters.timeouts += timed_out
        self._advance(pending)
        self._send(pending, monotonic())

    def resume(self, pending: Pending, truncated: bytes) -> None:
        """Take in a query that the datapath sent, and that was answered with TC set."""
        self.waiting[0] += 1
        self._on_match(pending.zone.upstreams[pending.current], pending, truncated)

    def abandon(self, pending: Pending) -> None:
        """Take in a query that the datapath sent, only to give it up."""
        self.waiting[0] += 1
        self._done(pending, None)

    def _done(self, pending: Pending, answer: bytes | None) -> None:
        self.waiting[0] -= 1
        self._finish(pending, answer)

    def _send(self, pending: Pending, now: float) -> None:
        """Send to the next upstream that takes the query, on a random socket with a random id; without one, give up."""
        upstreams, draw = pending.zone.upstreams, self._random.draw
        while pending.tries < len(upstreams):
            upstream, slot = upstreams[pending.current], draw() % POOL_SIZE
            chosen = upstream.slots[slot]
            try:
                if chosen is None or chosen.uses >= pools.USES_MAX:
                    chosen = self._open(upstream, slot, now)
                ident, waiting = draw(), chosen.pending
                while ident in waiting:
                    ident = draw()
                chosen.uses += 1
                chosen.sock.send(ident.to_bytes(2) + pending.query[2:])
            except OSError as error:
                if error.errno == errno.EMSGSIZE:  # the query's fault: no upstream has failed
                    break
                if chosen is not None and error.errno == errno.ECONNREFUSED:
                    # The kernel reports an earlier datagram: the socket's queries get no answer either.
                    self._loop.call_soon(self._fail_over, chosen)
                self._advance(pending)
                continue
            pending.deadline = now + self._timeout_s
            waiting[ident] = pending
            return
        self._done(pending, None)

    @staticmethod
    def _advance(pending: Pending) -> None:
        pending.zone.note_failure(pending.current)
        pending.tries += 1
        pending.current = (pending.current + 1) % len(pending.zone.upstreams)

    def _open(self, upstream: Upstream, slot: int, now: float) -> UpstreamSocket:
        """Put a fresh socket into the slot; the old one stays until its last answer or time-out."""
        fresh = upstream.open(slot, self._random, now)
        self._sockets[fresh] = None
        self._loop.add_reader(fresh.sock, self._on_answers, fresh)
        return fresh

    def _close(self, socket: UpstreamSocket) -> None:
        self._loop.remove_reader(socket.sock)
        socket.sock.close()
        del self._sockets[socket]

    def _on_answers(self, socket: UpstreamSocket) -> None:
        """Take the answers that have come. Once no query waits on the socket, no further answer is looked for."""
        receive, waiting = socket.sock.recv, socket.pending
        for _ in range(DRAIN_MAX):
            try:
                answer = receive(UDP_MAX)
            except BlockingIOError:
                return
            except OSError:
                self._fail_over(socket)
                return
            ident = int.from_bytes(answer[:2])
            pending = waiting.get(ident)
            if pending is None or len(answer) < HEADER_SIZE or not pending.matches(answer):
                self._counters.mismatched_answers += 1
                continue
            del waiting[ident]
            socket.upstream.failures[0] = 0
            if answer[2] & _TRUNCATED:
                self._on_match(socket.upstream, pending, answer)
            else:
                self._done(pending, answer)
            if not waiting:
                return

    def _on_match(self, upstream: Upstream, pending: Pending, answer: bytes) -> None:
        """An answer that matched: repeat the query over TCP where it is truncated."""
        if answer[2] & _TRUNCATED and len(self._tasks) < _TCP_MAX:
            self._counters.tcp_fallbacks += 1
            task = self._loop.create_task(self._retry_over_tcp(upstream, pending, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        self._done(pending, answer)

    async def _retry_over_tcp(self, upstream: Upstream, pending: Pending, truncated: bytes) -> None:
        """Repeat the query over TCP. If that fails, a UDP client gets the truncated answer and may try itself."""
        query = self._random.draw().to_bytes(2) + pending.query[2:]
        answer: bytes | None = None
        try:
            answer = await query_over_tcp(upstream.host, upstream.port, query, self._timeout_s)
        except asyncio.CancelledError:
            self._done(pending, None)
            raise
        except (OSError, EOFError):
            answer = None
        if answer is not None and (len(answer) < HEADER_SIZE or answer[:2] != query[:2] or not pending.matches(answer)):
            self._counters.mismatched_answers += 1
            answer = None
        if answer is None and not pending.udp:
            self._advance(pending)
            self._send(pending, monotonic())
            return
        self._done(pending, answer or truncated)

    def _fail_over(self, socket: UpstreamSocket) -> None:
        """The kernel reports that the upstream is unreachable: its questions go to the next one now."""
        waiting = list(socket.pending.values())
        socket.pending.clear()
        now = monotonic()
        for pending in waiting:
            self._advance(pending)
            self._send(pending, now)

    def _sweep(self) -> None:
        """Time out overdue queries and retire old sockets. Each socket's queries are in order of deadline."""
        now = monotonic()
        for socket in list(self._sockets):
            overdue = []
            for ident, pending in socket.pending.items():
                if pending.deadline > now:
                    break
                overdue.append(ident)
            for ident in overdue:
                pending = socket.pending.pop(ident)
                self._counters.timeouts += 1
                self._advance(pending)
                self._send(pending, now)
            self._retire(socket, now)
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep)

    def _retire(self, socket: UpstreamSocket, now: float) -> None:
        slots = socket.upstream.slots
        if slots[socket.slot] is socket:
            if now - socket.born < pools.AGE_MAX_S:
                return
            slots[socket.slot] = None
        if not socket.pending:
            self._close(socket)
