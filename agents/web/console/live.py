"""What is going on now: the newest rates and the last hour, made once for all who look, as server-sent events."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from agents.core.errors import AgentsError
from agents.core.text import counted
from agents.web.charts.hours import step_chart
from agents.web.console.last_hour import SLOT_S, SUMS, RateSlot
from agents.web.pages import InSession, rendered
from agents.web.parts import Parts

STRIP_EVERY_S = 2.0
"""Seconds between two of the newest rates."""
HOUR_EVERY_S = 10.0
"""Seconds between two charts of the last hour: a slot lasts longer, and they are the larger part of what is sent."""
STREAM_S = 45.0
"""How long one stream lasts; the browser asks again by itself. A connection's answer may take a minute at most."""
RETRY_MS = 1_000
STRIP_WAIT_S = 1.0
"""What the strip waits for a sign of life of the database: all who look wait for it."""
CLOSING_S = 0.5
"""A stream notices within so many seconds that the server is about to end."""
LOUD = ("critical", "high", "suspicious")
"""Severities above NORMAL, the loudest first."""
page_router = APIRouter(include_in_schema=False)


class LiveStrip:
    """The live strip as HTML, made once for all who look: the newest rates, and charts of the last hour."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._guard = threading.Lock()
        self._made_at, self._hour_at = -STRIP_EVERY_S, -HOUR_EVERY_S
        self._html, self._hour = "", ""

    def html(self) -> tuple[str, str]:
        """Rates and charts, as a rule at most STRIP_EVERY_S and HOUR_EVERY_S seconds old.

        While one makes them, others get those before.
        """
        if time.monotonic() - self._made_at >= STRIP_EVERY_S and self._guard.acquire(blocking=not self._html):
            try:
                self._make()
            finally:
                self._guard.release()
        return self._html, self._hour

    def _make(self) -> None:
        now, slots = self._parts.last_hour.look()
        waiting: Mapping[str, int] | None = None
        try:
            if not self._parts.database_hangs(STRIP_WAIT_S):
                waiting = self._parts.console.finder.waiting()
        except AgentsError:
            waiting = None
        if time.monotonic() - self._hour_at >= HOUR_EVERY_S:
            self._hour, self._hour_at = hour_html(slots), time.monotonic()
        self._html = rendered("_strip.html", now=now, waiting=waiting, at=time.time())
        self._made_at = time.monotonic()


def hour_html(slots: Sequence[RateSlot | None]) -> str:
    """Charts of the last hour, and what they show in words. slots: oldest first; None = it is not known."""
    known = [one for one in slots if one is not None]
    all_of = {name: sum(one.sums[name] for one in known) for name in SUMS}
    unknown_s = (len(slots) - len(known)) * SLOT_S
    said = {
        "most": max((one.rate("queries") for one in known), default=0.0),
        "loud": {name: int(all_of[name]) for name in LOUD if all_of[name]},
        "mean_ms": all_of["answer_s"] / all_of["timed"] * 1e3 if all_of["timed"] else None,
        "slowest_ms": max((one.latency_ms or 0.0 for one in known), default=0.0),
        "shed": all_of["shed"],
        "spooled": all_of["spooled"],
        "unknown": "" if not unknown_s else counted(unknown_s / 60, "minute") if unknown_s >= 60 else "half a minute",
    }
    gap = f"; unknown for {said['unknown']}" if unknown_s else ""
    labels = (
        f"queries a second in the last hour, by the loudest severity, at most {said['most']:,.0f}{gap}",
        f"milliseconds to an answer in the last hour, at most {said['slowest_ms']:,.0f}{gap}",
        f"queries in the last hour that were shed, {said['shed']:,.0f}, and spooled, {said['spooled']:,.0f}{gap}",
    )
    layers: tuple[Mapping[str, Sequence[float | None]], ...] = (
        {level or "plain": _queries_of(slots, level) for level in ("", *reversed(LOUD))},
        {"took": [one.latency_ms if one else None for one in slots]},
        {name: [(one.rate(name) or None) if one else None for one in slots] for name in ("spooled", "shed")},
    )
    gaps = [one is None for one in slots]
    units = ("queries a second", "ms", "queries a second")
    drawn = zip(layers, labels, units, strict=True)
    charts = [step_chart(some, gaps, label, unit) for some, label, unit in drawn]
    return rendered("_hour.html", said=said, charts=charts, any_known=bool(known))


def _queries_of(slots: Sequence[RateSlot | None], level: str) -> list[float | None]:
    """Queries a second of slots whose loudest severity is this one; "" = NORMAL."""
    return [one.rate("queries") if one and _loudest(one) == level else None for one in slots]


def _loudest(slot: RateSlot) -> str:
    return next((name for name in LOUD if slot.sums[name]), "")


@page_router.get("/console/events", dependencies=[InSession])
async def events(request: Request) -> Response:
    """The strip again and again, as server-sent events (WHATWG HTML, section 9.2)."""
    return StreamingResponse(_events(request), media_type="text/event-stream")


async def _events(request: Request) -> AsyncIterator[str]:
    ends, sent = time.monotonic() + STREAM_S, ""
    yield f"retry: {RETRY_MS}\n\n"
    while time.monotonic() < ends:
        html, hour = await asyncio.to_thread(strip_of(request).html)
        yield _event("strip", html)
        if hour != sent:
            sent = hour
            yield _event("hour", hour)
        following = time.monotonic() + STRIP_EVERY_S
        while time.monotonic() < following:
            if request.app.state.closing.is_set():
                return
            await asyncio.sleep(CLOSING_S)


def _event(name: str, html: str) -> str:
    return f"event: {name}\n" + "".join(f"data: {line}\n" for line in html.splitlines()) + "\n"


def strip_of(request: Request) -> LiveStrip:
    """The strip of the application that answers this request."""
    found: LiveStrip = request.app.state.strip
    return found
