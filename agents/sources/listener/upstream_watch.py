"""Watches the upstreams: finds the addresses of host names, and loops that lead back to this listener.

A probe is a question with a random name that nobody else knows. Each upstream gets one at the start, every PROBE_S
seconds, and while many queries wait. One that comes back, through however many forwarders, proves a loop: that upstream
is not asked until no probe has come back for a while. A probe holds nothing of a client. (dnsmasq's --dns-loop-detect
does the same at its start.)
"""

from __future__ import annotations

import asyncio
import mmap
import secrets
import socket
from collections.abc import Callable
from time import monotonic, monotonic_ns
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.dns import message as wire
from agents.dns import name as names
from agents.sources.listener.forwarder import Forwarder
from agents.sources.listener.upstream import Pending, Routes, Upstream, Zone
from agents.stream.counters import Counters

WATCH_EVERY_S = 1.0
RESOLVE_S, RESOLVE_AGAIN_S, RESOLVE_START_S = 60.0, 5.0, 5.0
"""Seconds between two look-ups of a host name, after a failed one, and that the start waits for the first."""
PROBE_S, PROBE_TIMEOUT_S, LOOP_S = 30.0, 2.0, 75.0
"""Seconds between two probes of an upstream, for one, and that one which came back is remembered."""
BUSY_SHARE = 0.25
"""With this share of the table in use, each upstream is probed every WATCH_EVERY_S: a loop fills it."""
_PROBED_BELOW = names.from_text("loop-probe.example")
"""Probes of the default zone. Nobody answers names below "example" by a rule of their own (RFC 6761 section 6.5)."""
_LOOPS_MAX = 1024
_log = structlog.get_logger()


def shared_counts(count: int) -> NDArray[np.int64]:
    """So many zeros in memory that processes forked later share."""
    return np.frombuffer(mmap.mmap(-1, 8 * max(count, 1)), np.int64)[:count]


class LoopProbes:
    """The secret in the probes' names, and when each came back; both are shared with processes forked later."""

    def __init__(self) -> None:
        self.secret = secrets.token_hex(12)
        self.seen = shared_counts(_LOOPS_MAX)

    def label(self, number: int) -> bytes:
        """The first label of the probes of one upstream, in wire form."""
        text = f"{self.secret}{number:04x}".encode()
        return bytes((len(text),)) + text


class LoopProbe:
    """What one upstream is asked, and must not ask us. `name` is a special name of the listener's routes."""

    recorded = False

    def __init__(self, probes: LoopProbes, number: int, below: bytes, on_loop: Callable[[int], None]) -> None:
        self.name = probes.label(number) + (below or _PROBED_BELOW)
        self._number, self._on_loop = number, on_loop

    def reply(self, query: bytes, end: int) -> bytes:
        """Note the loop, and end it here."""
        self._on_loop(self._number)
        return wire.error_reply(query, wire.REFUSED, end)

    def query(self) -> bytes:
        """The probe as a message."""
        return b"\0\0\1\0\0\1" + bytes(6) + self.name + b"\0\0\x10\0\1"


class UpstreamWatch:
    """Runs beside one listener. refresh: called when an upstream's address or state has changed."""

    def __init__(
        self,
        routes: Routes,
        probes: LoopProbes | None,
        counters: Counters,
        busy: Callable[[], float],
        refresh: Callable[[], None],
    ) -> None:
        self._upstreams = list(routes.upstreams.values())
        self._probes, self._counters, self._busy, self._refresh = probes, counters, busy, refresh
        self._asked: list[tuple[LoopProbe, Zone]] = self._probes_of(routes) if probes else []
        for probe, _ in self._asked:
            routes.special[probe.name] = probe
        self._forwarder = Forwarder(
            timeout_s=PROBE_TIMEOUT_S, wait_s=PROBE_TIMEOUT_S, retry_failed=False, counters=Counters(), finish=_ignore
        )
        self._resolved_at: dict[Upstream, float] = {}
        self._task: asyncio.Task[None] | None = None

    def _probes_of(self, routes: Routes) -> list[tuple[LoopProbe, Zone]]:
        """A probe for each upstream, in the first zone that has it; it is asked by sockets of its own."""
        assert self._probes
        found = []
        for number, upstream in enumerate(self._upstreams[:_LOOPS_MAX]):
            below = next(name for name, zone in routes.zones.items() if upstream in zone.upstreams)
            alone = Upstream(upstream.endpoint, np.zeros(1, np.int64))
            zone = Zone([alone], np.zeros(1, np.int64))
            found.append((LoopProbe(self._probes, number, below, self._on_loop), zone))
        return found

    async def start(self) -> None:
        """Look host names up, for RESOLVE_START_S at most, and send the first probes."""
        self._forwarder.start()
        await self._resolve()
        self._send_probes()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End, and close every socket."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._forwarder.stop()

    async def _run(self) -> None:
        probed = monotonic()
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            await self._resolve()
            self._see_loops()
            if monotonic() - probed >= PROBE_S or self._busy() >= BUSY_SHARE:
                probed = monotonic()
                self._send_probes()

    def _send_probes(self) -> None:
        for (probe, zone), upstream in zip(self._asked, self._upstreams, strict=False):
            zone.upstreams[0].host = upstream.host
            query = probe.query()
            pending = Pending(query, len(query), bytes(16), _Nowhere(), None, False, 0.0)
            pending.route_to(zone, 0)
            self._forwarder.submit(pending)

    def _on_loop(self, number: int) -> None:
        assert self._probes
        self._counters.loops += 1
        self._probes.seen[number] = monotonic_ns()
        self._see_loops()

    def _see_loops(self) -> None:
        """Take over what this process or another one has seen."""
        if not self._probes:
            return
        now, changed = monotonic_ns(), False
        for upstream, seen in zip(self._upstreams, self._probes.seen.tolist(), strict=False):
            looping = seen > 0 and now - seen < LOOP_S * 1e9
            if looping != upstream.looping:
                upstream.looping, changed = looping, True
                (_log.error if looping else _log.info)(
                    "upstream_loops" if looping else "upstream_loops_no_more", upstream=str(upstream.endpoint)
                )
        if changed:
            self._refresh()

    async def _resolve(self) -> None:
        """Find addresses of the host names that are due."""
        now = monotonic()
        due = [
            one for one in self._upstreams if not one.endpoint.has_address and now >= self._resolved_at.get(one, now)
        ]
        if due:
            await asyncio.gather(*map(self._resolve_one, due))
            self._refresh()

    async def _resolve_one(self, upstream: Upstream) -> None:
        host = upstream.endpoint.host
        try:
            async with asyncio.timeout(RESOLVE_START_S):
                found = await asyncio.get_running_loop().getaddrinfo(host, upstream.port, type=socket.SOCK_DGRAM)
        except OSError as error:  # a TimeoutError is one
            self._resolved_at[upstream] = monotonic() + RESOLVE_AGAIN_S
            if not upstream.host:
                _log.warning("upstream_not_found", upstream=str(upstream.endpoint), error=str(error) or "no answer")
            return
        self._resolved_at[upstream] = monotonic() + RESOLVE_S
        addresses = [str(address[0]) for *_, address in found]
        if upstream.host not in addresses:
            upstream.host = addresses[0]


class _Nowhere:
    """Takes the answer to a probe."""

    def send(self, message: bytes, back: Any) -> None:
        """Nobody waits for it."""


def _ignore(pending: Pending, answer: bytes | None) -> None:
    """A probe that comes back is seen where it comes back."""
