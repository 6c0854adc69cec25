"""What runs in the process that serves blocks to other resolvers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agents.enforcement.rpz.server import PolicyServer
from agents.runtime.signals import Beat, beat_on, crashes_end, live, stopping


def serve_zone(server: PolicyServer, ready: Callable[[], None], beat: Beat) -> int:
    """Serve until SIGTERM; while the event loop turns, it gives `beat`."""
    return live(_serve(server, ready, beat))


async def _serve(server: PolicyServer, ready: Callable[[], None], beat: Beat) -> int:
    stop, loop = stopping(), asyncio.get_running_loop()
    with crashes_end(lambda: loop.call_soon_threadsafe(stop.set)) as crashed:
        await server.start()
        ready()
        beating = loop.create_task(beat_on(beat))
        await stop.wait()
        beating.cancel()
        await server.stop()
    return int(bool(crashed))
