"""The upstreams' side of the listener: sends queries, matches answers, tries the next upstream, gives up in time.

An upstream has `timeout_s`, then the next is asked; an answer of the first still counts as long as the client may wait,
`wait_s`. SERVFAIL and REFUSED go to the next upstream at once, and reach the client if none does better. Where the
cache has an expired answer, the client gets that after `stale_wait_s`, and the query goes on for the cache.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
from collections.abc import Callable, Coroutine
from itertools import count
from time import monotonic
from typing import Any

import structlog

from agents.dns.message import FORMERR, HEADER_SIZE, NOTIMP, REFUSED, SERVFAIL
from agents.sources.listener import upstream as pools
from agents.sources.listener.sockets import DRAIN_MAX, UDP_MAX
from agents.sources.listener.streams import Exchange, exchange_of
from agents.sources.listener.tcp import query_over_tcp
from agents.sources.listener.upstream import (
    FOLDS,
    NEAR_MISSES_MAX,
    PLAIN,
    POOL_SIZE,
    Pending,
    Random16,
    Upstream,
    UpstreamSocket,
)
from agents.stream.counters import Counters

_SWEEP_S = 0.05
_TCP_MAX = 128
"""Queries repeated over TCP at once; each is one file descriptor and up to 64 KiB."""
_TRUNCATED = 0x02
_WARN_EVERY_S = 60.0
_QUIRKS = {FOLDS: "it does not keep the case of names", PLAIN: "it takes no EDNS"}
_log = structlog.get_logger()

Finish = Callable[[Pending, bytes | None], None]
"""Called once a query: with the upstream's answer (its own id), or None if no upstream answered."""


class Forwarder:
    """Runs inside one asyncio loop; all but the query over a stream is done in callbacks, without tasks."""

    def __init__(
        self,
        *,
        timeout_s: float,
        wait_s: float,
        retry_failed: bool,
        counters: Counters,
        finish: Finish,
        stale_wait_s: float = 0.0,
        overdue: Callable[[Pending], object] | None = None,
    ) -> None:
        self._timeout_s, self._wait_s, self._retry_failed = timeout_s, max(wait_s, timeout_s), retry_failed
        self._counters, self._finish = counters, finish
        self._stale_wait_s, self._overdue = stale_wait_s, overdue
        self._random = Random16()
        self._sockets: dict[UpstreamSocket, None] = {}
        self._exchanges: dict[Upstream, Exchange] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._over_tcp = 0
        self._alive: dict[Pending, None] = {}
        self._due: list[tuple[float, int, Pending]] = []
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = memoryview(bytearray(8)).cast("q")
        """Queries that wait here and have no slot in the datapath: one number, which kernels share."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep)

    async def stop(self) -> None:
        """Give up the queries in flight and close every socket."""
        if self._timer:
            self._timer.cancel()
        for pending in list(self._alive):
            self._done(pending, None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for exchange in self._exchanges.values():
            await exchange.close()
        for socket in list(self._sockets):
            self._close(socket)

    def submit(self, pending: Pending) -> None:
        """Take a query in; `finish` is called for it exactly once, possibly before this returns."""
        self._take_in(pending, monotonic())
        self._send(pending, monotonic())

    def resubmit(self, pending: Pending, *, timed_out: bool) -> None:
        """Take in a query that the datapath sent, or tried to, in vain: it goes to the next upstream."""
        self._take_in(pending, monotonic())
        self._counters.timeouts += timed_out
        pending.open = int(timed_out)
        self._advance(pending)
        self._send(pending, monotonic())

    def resume(self, pending: Pending, answer: bytes) -> None:
        """Take in a query that the datapath sent, with an answer that is no plain one."""
        self.go_on(pending)
        self.answer(pending.upstream, pending, answer)

    def go_on(self, pending: Pending) -> None:
        """Take in a query that the datapath sent, and that has some time left."""
        self._take_in(pending, monotonic())
        pending.open, pending.running = 1, True
        self._schedule(pending, pending.started + self._timeout_s)

    def distrust(self, pending: Pending) -> None:
        """Take in a query that the datapath sent on a socket with too many forged answers."""
        self._take_in(pending, monotonic())
        self._ask_anew(pending)

    def answer(self, upstream: Upstream, pending: Pending, answer: bytes, by_stream: bool = False) -> None:
        """An answer to a query that was taken in; what answers something else is counted."""
        usable = pending.usable(answer)
        if usable is None:
            self._counters.mismatched_answers += 1
            upstream.mismatched[0] += 1
        elif not by_stream and pending.is_recased(answer, upstream):
            self._doubt(upstream, pending)
        elif not pending.done:
            self._on_answer(upstream, pending, usable, by_stream)

    def abandon(self, pending: Pending) -> None:
        """Take in a query that the datapath sent, only to give it up."""
        self._take_in(pending, monotonic())
        self._done(pending, None)

    def _take_in(self, pending: Pending, now: float) -> None:
        self.waiting[0] += pending.slot < 0
        pending.started = pending.started or now
        pending.ends = pending.started + self._wait_s
        self._alive[pending] = None
        if pending.stale and not pending.silent:
            self._loop.call_later(pending.started + self._stale_wait_s - now, self._answer_overdue, pending)

    def _answer_overdue(self, pending: Pending) -> None:
        if not pending.done and self._overdue:
            self._overdue(pending)

    def _done(self, pending: Pending, answer: bytes | None) -> None:
        pending.done = True
        del self._alive[pending]
        for socket, ident in pending.sent:
            if socket.pending.get(ident) is pending:
                del socket.pending[ident]
        self.waiting[0] -= pending.slot < 0
        self._finish(pending, answer)

    def _schedule(self, pending: Pending, due: float) -> None:
        pending.due = min(due, pending.ends)
        heapq.heappush(self._due, (pending.due, next(self._numbers), pending))

    def _send(self, pending: Pending, now: float) -> None:
        """Ask the next upstream that takes the query; without one, wait for late answers, or end."""
        pending.running = False
        while pending.tries < len(pending.zone.upstreams):
            sent = self._ask(pending.upstream, pending, now)
            if sent is None:
                break
            if sent:
                pending.running = True
                pending.open += 1
                self._schedule(pending, now + self._timeout_s)
                return
            self._advance(pending)
        if pending.fallback or not pending.open:
            self._done(pending, pending.fallback)
        else:
            self._schedule(pending, pending.ends)

    def _ask(self, upstream: Upstream, pending: Pending, now: float) -> bool | None:
        """Ask one upstream, over UDP on a random socket with a random id; None = no upstream can be asked so."""
        if upstream.looping:
            return False
        if not upstream.by_udp:
            self._start(self._ask_exchange(upstream, pending))
            return True
        draw = self._random.draw
        slot = draw() % POOL_SIZE
        chosen = upstream.slots[slot]
        try:
            if chosen is None or chosen.uses >= pools.USES_MAX:
                chosen = self._open(upstream, slot, now)
            ident = draw()
            while ident in chosen.pending or ident in chosen.answered:
                ident = draw()
            chosen.uses += 1
            chosen.sock.send(ident.to_bytes(2) + pending.sent_to(upstream))
        except OSError as error:
            if error.errno == errno.EMSGSIZE:  # the query's fault: no upstream has failed
                return None
            if chosen is not None and error.errno == errno.ECONNREFUSED:
                # The kernel reports an earlier datagram: the socket's queries get no answer either.
                self._loop.call_soon(self._fail_over, chosen)
            return False
        chosen.pending[ident] = pending
        pending.sent.append((chosen, ident))
        return True

    @staticmethod
    def _advance(pending: Pending) -> None:
        pending.zone.note_failure(pending.current)
        Forwarder._next(pending)

    @staticmethod
    def _next(pending: Pending) -> None:
        pending.tries += 1
        pending.lower = pending.plain = False
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
            usable = pending.usable(answer) if pending else None
            if pending is None or usable is None:
                if self._is_forged(socket, ident, answer):
                    return
                continue
            if pending.is_recased(answer, socket.upstream):
                self._doubt(socket.upstream, pending)
                continue
            del waiting[ident]
            socket.answered.add(ident)
            self._on_answer(socket.upstream, pending, usable)
            if not waiting:
                return

    def _is_forged(self, socket: UpstreamSocket, ident: int, answer: bytes) -> bool:
        """Count a datagram that answers nothing; True if there were too many: the socket is given up.

        A second answer to an id that was asked here may be a copy; all else may be a guess.
        """
        self._counters.mismatched_answers += 1
        socket.upstream.mismatched[0] += 1
        if len(answer) < HEADER_SIZE or ident in socket.answered:
            return False
        socket.misses += 1
        if socket.misses < NEAR_MISSES_MAX:
            return False
        self._counters.forgeries += 1
        if socket.upstream.slots[socket.slot] is socket:
            socket.upstream.slots[socket.slot] = None
        waiting = list(socket.pending.values())
        socket.pending.clear()
        self._close(socket)
        for pending in waiting:
            if pending.running and pending.upstream is socket.upstream:
                pending.open -= 1
                self._ask_anew(pending)
            else:
                self._failed(socket.upstream, pending)
        return True

    def _doubt(self, upstream: Upstream, pending: Pending) -> None:
        """An answer has the name in another case than it was sent in: a guess of a forger, or a server that folds.

        The upstream is asked again over TCP, once a query; a true answer over UDP still counts.
        """
        self._counters.mismatched_answers += 1
        upstream.mismatched[0] += 1
        if not pending.doubted and not pending.done and pending.running and upstream is pending.upstream:
            pending.doubted = True
            self._ask_anew(pending)

    def _learn(self, upstream: Upstream, quirk: int) -> None:
        if not upstream.quirks[0] & quirk:
            upstream.quirks[0] |= quirk
            _log.info("upstream_quirk", upstream=str(upstream.endpoint), quirk=_QUIRKS[quirk])

    def _ask_anew(self, pending: Pending) -> None:
        """Ask the same upstream over TCP; on a fresh port where too many are asked so already."""
        if self._over_tcp < _TCP_MAX:
            pending.open += 1
            pending.running = True
            self._schedule(pending, pending.ends)
            self._start(self._retry_over_tcp(pending.upstream, pending))
        else:
            pending.lower = pending.doubted
            self._send(pending, monotonic())

    def _on_answer(self, upstream: Upstream, pending: Pending, answer: bytes, by_stream: bool = False) -> None:
        """An answer to the query: repeat it over TCP where it is truncated, ask the next upstream where it failed."""
        current = pending.running and upstream is pending.upstream
        if not current:
            self._counters.late_answers += 1
        rcode = answer[3] & 0xF
        if current and pending.name is not None and rcode in (FORMERR, NOTIMP) and not pending.plain:
            pending.plain = True
            pending.open -= 1
            self._send(pending, monotonic())
            return
        if answer[2] & _TRUNCATED and not by_stream and self._over_tcp < _TCP_MAX:
            self._counters.tcp_fallbacks += 1
            pending.fallback = answer if pending.udp else pending.fallback
            if current:
                self._schedule(pending, pending.ends)
            self._start(self._retry_over_tcp(upstream, pending))
            return
        if self._retry_failed and rcode in (SERVFAIL, REFUSED) and len(pending.zone.upstreams) > 1:
            pending.fallback = pending.fallback or answer
            pending.open -= 1
            if current:
                self._counters.failed_over += pending.tries + 1 < len(pending.zone.upstreams)
                (self._advance if rcode == REFUSED else self._next)(pending)
                self._send(pending, monotonic())
            elif not pending.running:
                self._done(pending, pending.fallback)
            return
        upstream.failures[0] = 0
        if current and pending.lower:
            self._learn(upstream, FOLDS)
        if current and pending.plain and rcode not in (FORMERR, NOTIMP):
            self._learn(upstream, PLAIN)
        self._done(pending, answer)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_exchange(self, upstream: Upstream, pending: Pending) -> None:
        """Ask an upstream over its stream; the answer counts as long as the client may wait."""
        exchange = self._exchanges.get(upstream)
        if exchange is None:
            exchange = self._exchanges[upstream] = exchange_of(upstream)
        try:
            async with asyncio.timeout(max(pending.ends - monotonic(), 0)):
                answer = await exchange.query(bytes(2) + pending.sent_to(upstream, mixed=False), pending.end)
        except (OSError, EOFError) as error:  # a TimeoutError is an OSError
            self._warn(upstream, error)
            self._failed(upstream, pending)
            return
        if not pending.done:
            self.answer(upstream, pending, answer, by_stream=True)

    async def _retry_over_tcp(self, upstream: Upstream, pending: Pending) -> None:
        """Repeat the query over TCP. If that fails, a UDP client gets the truncated answer and may try itself."""
        query = self._random.draw().to_bytes(2) + pending.sent_to(upstream)
        self._over_tcp += 1
        try:
            answer = await query_over_tcp(upstream.host, upstream.port, query, self._timeout_s)
        except (OSError, EOFError):
            if pending.doubted and not pending.done and pending.running and upstream is pending.upstream:
                pending.open -= 1
                pending.lower = True
                self._send(pending, monotonic())
            else:
                self._failed(upstream, pending)
            return
        finally:
            self._over_tcp -= 1
        usable = pending.usable(answer) if answer[:2] == query[:2] else None
        if usable is None:
            self._counters.mismatched_answers += 1
            upstream.mismatched[0] += 1
            self._failed(upstream, pending)
            return
        if pending.is_recased(answer, upstream):
            self._learn(upstream, FOLDS)
        if not pending.done:
            self._on_answer(upstream, pending, usable, by_stream=True)

    def _warn(self, upstream: Upstream, error: Exception) -> None:
        """Say why a stream to an upstream fails, a wrong certificate for one; a time-out explains itself by metrics."""
        now = monotonic()
        if not isinstance(error, TimeoutError) and now >= upstream.warned + _WARN_EVERY_S:
            upstream.warned = now
            _log.warning("upstream_failed", upstream=str(upstream.endpoint), error=str(error) or type(error).__name__)

    def _failed(self, upstream: Upstream, pending: Pending) -> None:
        """An upstream cannot be reached: the next one is asked, unless that has been done already."""
        if pending.done:
            return
        pending.open -= 1
        if pending.fallback and pending.fallback[2] & _TRUNCATED:
            self._done(pending, pending.fallback)
        elif pending.running and upstream is pending.upstream:
            self._advance(pending)
            self._send(pending, monotonic())
        elif not pending.running and (pending.fallback or not pending.open):
            self._done(pending, pending.fallback)

    def _fail_over(self, socket: UpstreamSocket) -> None:
        """The kernel reports that the upstream is unreachable: its questions go to the next one now."""
        waiting = list(socket.pending.values())
        socket.pending.clear()
        for pending in waiting:
            self._failed(socket.upstream, pending)

    def _sweep(self) -> None:
        """Time out overdue queries and retire old sockets."""
        now = monotonic()
        while self._due and self._due[0][0] <= now:
            due, _, pending = heapq.heappop(self._due)
            if not pending.done and pending.due == due:
                self._on_due(pending, now)
        for socket in list(self._sockets):
            self._retire(socket, now)
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep)

    def _on_due(self, pending: Pending, now: float) -> None:
        """The upstream's time is over, or the client's."""
        if pending.running:
            self._counters.timeouts += 1
            self._advance(pending)
            pending.running = False
        if now >= pending.ends:
            self._done(pending, pending.fallback)
        else:
            self._send(pending, now)

    def _retire(self, socket: UpstreamSocket, now: float) -> None:
        slots = socket.upstream.slots
        if slots[socket.slot] is socket:
            if now - socket.born < pools.AGE_MAX_S:
                return
            slots[socket.slot] = None
        if not socket.pending:
            self._close(socket)
