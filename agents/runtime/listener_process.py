"""What runs in a listener process: it answers DNS and puts what it saw into its ring."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence

from agents.runtime import bootstrap
from agents.runtime.signals import crashes_end, live
from agents.settings import Settings
from agents.sources.listener.server import Listener
from agents.sources.listener.sockets import Pair
from agents.stream.ledger import Shared


def listener_names(count: int) -> list[str]:
    """Names of the listener processes."""
    return [f"listener-{number + 1}" for number in range(count)]


def hosts_of(settings: Settings) -> list[str]:
    """Addresses to listen on."""
    return [host.strip() for host in settings.listen_host.split(",")]


def answer(settings: Settings, shared: Shared, number: int, pairs: Sequence[Pair], ready: Callable[[], None]) -> int:
    """One listener process: answers on `pairs` until SIGTERM, and puts what it saw into its ring."""
    return live(_answer(settings, shared, number, pairs, ready))


async def _answer(
    settings: Settings, shared: Shared, number: int, pairs: Sequence[Pair], ready: Callable[[], None]
) -> int:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    (ring, counters), (fast_ring, fast_counters) = shared.written_by(number)
    counters.tcp_clients = 0  # those of a process that was killed are gone
    listener = Listener(
        hosts_of(settings),
        settings.listen_port,
        bootstrap.upstreams_of(settings),
        allowed_clients=[part.strip() for part in settings.allowed_clients.split(",") if part.strip()],
        timeout_s=settings.upstream_timeout_s,
        tcp_clients_max=max(settings.tcp_clients_max // shared.listeners, 1),
        tcp_idle_s=settings.tcp_idle_s,
        inflight_max=max(settings.inflight_max // shared.listeners, 1),
        offer=ring.put,
        ring=fast_ring,
        pairs=pairs,
        counters=(counters, fast_counters),
    )
    with crashes_end(lambda: loop.call_soon_threadsafe(stop.set)) as crashed:
        await listener.start()
        ready()
        await stop.wait()
        await listener.stop()
    return int(bool(crashed))
