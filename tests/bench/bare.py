"""The listener with nothing behind it: forwarding alone. python -m tests.bench.bare PORT UPSTREAM [MiB of cache]"""

from __future__ import annotations

import asyncio
import signal
import sys

from agents.sources.listener.cache import CacheLimits
from agents.sources.listener.server import Listener
from tests.support.listening import ring_of

_EMPTIED_S = 0.1
"""As long as there is room in the ring, every record is written."""


async def main() -> None:
    port, upstream, *cache_mb = map(int, sys.argv[1:])
    ring = ring_of(65_536)
    listener = Listener(
        ["127.0.0.1"],
        port,
        [("", [("127.0.0.1", upstream)])],
        allowed_clients=["127.0.0.0/8"],
        timeout_s=2.0,
        tcp_clients_max=8,
        tcp_idle_s=5.0,
        inflight_max=16_384,
        offer=len,
        ring=ring,
        cache=CacheLimits(sum(cache_mb) << 20),
    )
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await listener.start()
    while not ended.is_set():
        await asyncio.sleep(_EMPTIED_S)
        ring.rings[0].advance_to(ring.rings[0].head)
    await listener.stop()


if __name__ == "__main__":
    asyncio.run(main())
