"""What runs in the process that serves blocks to other resolvers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from agents.enforcement.rpz.server import PolicyServer
from agents.runtime.signals import Beat, beat_on, crashes_end, live


def serve_zone(server: PolicyServer, ready: Callable[[], None], beat: Beat) -> int:
    """Serve until SIGTERM; while the event loop turns, it gives `beat`."""
    return live(_serve(server, ready, beat))


async def _serve(server: PolicyServer, ready: Callable[[], None], beat: Beat) -> int:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    with crashes_end(lambda: loop.call_soon_threadsafe(stop.set)) as crashed:
        await server.start()
        ready()
        beating = loop.create_task(beat_on(beat))
        await stop.wait()
        beating.cancel()
        await server.stop()
    return int(bool(crashed))
