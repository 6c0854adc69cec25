"""The listener with nothing behind it: forwarding alone. python -m tests.bench.bare PORT UPSTREAM"""

from __future__ import annotations

import asyncio
import signal
import sys

from agents.sources.listener import Listener


async def main() -> None:
    port, upstream = map(int, sys.argv[1:])
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
    )
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await listener.start()
    await ended.wait()
    await listener.stop()


if __name__ == "__main__":
    asyncio.run(main())
