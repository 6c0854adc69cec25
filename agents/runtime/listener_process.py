"""What runs in the processes that hear queries, and put them into their rings: listeners answer, a collector follows
logs, a receiver hears live intakes."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.core.protocols import Stream
from agents.dns.strict_groups import StrictGroups
from agents.runtime.signals import Beat, beat_on, crashes_end, live, stopping
from agents.sources.collector import Collecting, Collector
from agents.sources.listener.blocking.blocking import BlockConfig
from agents.sources.listener.cache import CacheLimits
from agents.sources.listener.server import Listener
from agents.sources.listener.sockets import Pair
from agents.sources.listener.traffic import TrafficLimits
from agents.sources.listener.upstream import AnsweredHere, Outgoing, UpstreamAddress, distinct_of
from agents.sources.listener.upstream_watch import LoopProbes
from agents.sources.live.receiver import LiveReceiver, Receiving
from agents.sources.live.sockets import LiveSocket
from agents.stream.answer_key import ANSWERS

COLLECTOR = "collector"
"""Name of the process that follows logs."""
RECEIVER = "receiver"
"""Name of the process that hears live intakes."""


KEY_LOOK_S = 1.0
"""How often a listener looks which key answers are hashed under."""


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """What all listeners of one machine are to do; they share its bounds. Arguments: see Listener.

    It is made before they are forked: rates and loops lie in memory that they share.
    """

    hosts: Sequence[str]
    port: int
    processes: int
    upstreams: Sequence[tuple[str, Sequence[UpstreamAddress]]]
    allowed_clients: Sequence[str]
    timeout_s: float
    tcp_clients_max: int
    tcp_idle_s: float
    inflight_max: int
    client_wait_s: float
    retry_failed: bool
    limits: TrafficLimits
    cache: CacheLimits
    outgoing: Outgoing
    special: Sequence[AnsweredHere]
    strict: StrictGroups
    blocks: BlockConfig | None
    probes: LoopProbes | None
    mismatched: NDArray[np.int64]

    def mismatched_by_upstream(self) -> dict[str, int]:
        """Datagrams of each upstream that answered nothing, of all listeners."""
        named = map(str, distinct_of(endpoints for _, endpoints in self.upstreams))
        return dict(zip(named, self.mismatched.tolist(), strict=True))

    @property
    def names(self) -> list[str]:
        """Names of the processes."""
        return [f"listener-{number + 1}" for number in range(self.processes)]


@dataclass(frozen=True, slots=True)
class ListenerSockets:
    """What one listener process answers at: a pair a host, and the supervisor's own way to ask it."""

    pairs: Sequence[Pair]
    probe: socket.socket

    def close(self) -> None:
        """Close all."""
        for sock in (self.probe, *(sock for pair in self.pairs for sock in pair)):
            sock.close()


def answer(
    config: ListenerConfig,
    stream: Stream,
    number: int,
    sockets: ListenerSockets,
    ready: Callable[[], None],
    beat: Beat,
) -> int:
    """One listener process: answers on its sockets until SIGTERM; while its event loop turns, it gives `beat`."""
    return live(_answer(config, stream, number, sockets, ready, beat))


async def _answer(
    config: ListenerConfig,
    stream: Stream,
    number: int,
    sockets: ListenerSockets,
    ready: Callable[[], None],
    beat: Beat,
) -> int:
    stop, loop = stopping(), asyncio.get_running_loop()
    (ring, counters), (fast_ring, fast_counters) = stream.writers(number)
    counters.tcp_clients = 0  # those of a process that was killed are gone
    listener = Listener(
        config.hosts,
        config.port,
        config.upstreams,
        allowed_clients=config.allowed_clients,
        timeout_s=config.timeout_s,
        tcp_clients_max=max(config.tcp_clients_max // config.processes, 1),
        tcp_idle_s=config.tcp_idle_s,
        inflight_max=max(config.inflight_max // config.processes, 1),
        offer=ring.put_rows,
        ring=fast_ring,
        pairs=sockets.pairs,
        counters=(counters, fast_counters),
        probe=sockets.probe,
        client_wait_s=config.client_wait_s,
        retry_failed=config.retry_failed,
        limits=config.limits,
        special=config.special,
        strict=config.strict,
        blocks=config.blocks,
        probes=config.probes,
        mismatched=config.mismatched,
        outgoing=config.outgoing,
        cache=config.cache._replace(size=config.cache.size // config.processes),
    )
    with crashes_end(lambda: loop.call_soon_threadsafe(stop.set)) as crashed:
        await listener.start()
        ready()
        turning = [loop.create_task(beat_on(beat)), loop.create_task(_follow_key(listener))]
        await stop.wait()
        for task in turning:
            task.cancel()
        await listener.stop()
    return int(bool(crashed))


async def _follow_key(listener: Listener) -> None:
    """Hash answers under the key that all on the bus share, once it is known."""
    while True:
        listener.use_answer_key(ANSWERS.key)
        await asyncio.sleep(KEY_LOOK_S)


def follow(collecting: Collecting, stream: Stream, number: int, ready: Callable[[], None], beat: Beat) -> int:
    """The collector process: follows logs until SIGTERM. number: of its rings among the stream's."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    (ring, _), _ = stream.writers(number)
    collector = Collector(collecting, ring)
    ready()
    collector.run(stop, lambda: beat(0.0))
    return 0


def receive(
    receiving: Receiving,
    sockets: Sequence[LiveSocket],
    stream: Stream,
    number: int,
    ready: Callable[[], None],
    beat: Beat,
) -> int:
    """The receiver process: hears live intakes until SIGTERM. number: of its rings among the stream's."""
    return live(_receive(receiving, sockets, stream, number, ready, beat))


async def _receive(
    receiving: Receiving,
    sockets: Sequence[LiveSocket],
    stream: Stream,
    number: int,
    ready: Callable[[], None],
    beat: Beat,
) -> int:
    stop, loop = stopping(), asyncio.get_running_loop()
    (ring, _), _ = stream.writers(number)
    receiver = LiveReceiver(receiving, sockets, ring)
    with crashes_end(lambda: loop.call_soon_threadsafe(stop.set)) as crashed:
        await receiver.run(stop, ready, lambda: beat(0.0))
    return int(bool(crashed))
