"""What is going on now: rates of the last minutes, sampled once for all who look, and sent as server-sent events."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from agents.core.errors import AgentsError
from agents.web.console.charts import strip_chart
from agents.web.pages import InSession, rendered
from agents.web.parts import Parts

STRIP_EVERY_S = 2.0
"""Seconds between two readings."""
KEPT_S = 600.0
"""Seconds of readings that are kept."""
UNWATCHED_S = 900.0
"""After so long without anybody who looks, nothing is read any more."""
STREAM_S = 45.0
"""How long one stream lasts; the browser asks again by itself. A connection's answer may take a minute at most."""
RETRY_MS = 1_000
STRIP_WAIT_S = 1.0
"""What the strip waits for a sign of life of the database: all who look wait for it."""
CLOSING_S = 0.5
"""A stream notices within so many seconds that the server is about to end."""
SUMS = {
    "queries": ("detector_scored_total",),
    "answered": ("listener_answered_total", "listener_cache_hits_total", "listener_local_total"),
    "failed": ("listener_servfail_total",),
    "shed": ("detector_queue_dropped_total", "detector_sampled_out_total"),
    "spooled": ("store_spooled_total",),
}
"""Counters that are added up for a rate; those that are not there are none."""
page_router = APIRouter(include_in_schema=False)


class RateReading(NamedTuple):
    """Counters at one time."""

    at: float  # seconds of the monotonic clock
    sums: Mapping[str, float]


class LiveRates:
    """Readings of /metrics, taken on a thread of its own while somebody looks."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._guard = threading.Lock()
        self._readings: deque[RateReading] = deque(maxlen=int(KEPT_S / STRIP_EVERY_S))
        self._looked_at = 0.0
        self._thread: threading.Thread | None = None

    def look(self) -> dict[str, Any]:
        """Rates a second by name, oldest first, and the newest of each; begins to read where nobody has looked."""
        with self._guard:
            self._looked_at = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._read_on, name="live rates", daemon=True)
                self._thread.start()
            readings = list(self._readings)
        rates: dict[str, list[float]] = {name: [] for name in SUMS}
        for before, after in pairwise(readings):
            for name in SUMS:
                grown = after.sums[name] - before.sums[name]
                rates[name].append(max(grown, 0.0) / (after.at - before.at))
        return {"rates": rates, "now": {name: values[-1] if values else 0.0 for name, values in rates.items()}}

    def _read_on(self) -> None:
        try:
            while time.monotonic() - self._looked_at <= UNWATCHED_S:
                self.read()
                time.sleep(STRIP_EVERY_S)
        finally:
            with self._guard:
                self._readings.clear()
                self._thread = None

    def read(self) -> None:
        """Take one reading."""
        try:
            found = {metric.name: metric.value for metric in self._parts.metrics()}
        except AgentsError:
            return
        sums = {name: sum(found.get(one, 0.0) for one in counters) for name, counters in SUMS.items()}
        with self._guard:
            self._readings.append(RateReading(time.monotonic(), sums))


class LiveStrip:
    """The live strip as HTML, made once for all who look."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._rates = parts, LiveRates(parts)
        self._guard = threading.Lock()
        self._made_at, self._html = -STRIP_EVERY_S, ""

    def html(self) -> str:
        """The strip, as a rule at most STRIP_EVERY_S seconds old: while one makes it, others get the one before."""
        if time.monotonic() - self._made_at >= STRIP_EVERY_S and self._guard.acquire(blocking=not self._html):
            try:
                self._html, self._made_at = self._made(), time.monotonic()
            finally:
                self._guard.release()
        return self._html

    def _made(self) -> str:
        found = self._rates.look()
        chart = strip_chart(found["rates"]["queries"], "queries a second in the last ten minutes")
        waiting: Mapping[str, int] | None = None
        try:
            if not self._parts.database_hangs(STRIP_WAIT_S):
                waiting = self._parts.console.finder.waiting()
        except AgentsError:
            waiting = None
        return rendered("_strip.html", now=found["now"], chart=chart, waiting=waiting, at=time.time())


@page_router.get("/console/events", dependencies=[InSession])
async def events(request: Request) -> Response:
    """The strip again and again, as server-sent events (WHATWG HTML, section 9.2)."""
    return StreamingResponse(_events(request), media_type="text/event-stream")


async def _events(request: Request) -> AsyncIterator[str]:
    ends = time.monotonic() + STREAM_S
    yield f"retry: {RETRY_MS}\n\n"
    while time.monotonic() < ends:
        html = await asyncio.to_thread(strip_of(request).html)
        yield "event: strip\n" + "".join(f"data: {line}\n" for line in html.splitlines()) + "\n"
        following = time.monotonic() + STRIP_EVERY_S
        while time.monotonic() < following:
            if request.app.state.closing.is_set():
                return
            await asyncio.sleep(CLOSING_S)


def strip_of(request: Request) -> LiveStrip:
    """The strip of the application that answers this request."""
    found: LiveStrip = request.app.state.strip
    return found
