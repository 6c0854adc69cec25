"""A real listener on loopback, in a thread of its own, for tests."""

from __future__ import annotations

import asyncio
import mmap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dns.message
import dns.query
import numpy as np
from numpy.typing import NDArray

from agents.dns.message import type_name
from agents.sources.listener.server import Listener
from agents.sources.listener.traffic import default_limits
from agents.sources.listener.upstream import UpstreamAddress
from agents.stream.counters import Counters
from agents.stream.record import RECORD, batch_of_records, packed_record
from agents.stream.rings import Rings
from agents.stream.shared import Bell
from tests.support.patience import patient
from tests.support.stubs import StubServer

OPTIONS: dict[str, Any] = {
    "allowed_clients": ["127.0.0.0/8", "::1"],
    "timeout_s": 0.3,
    "tcp_clients_max": 8,
    "tcp_idle_s": 5.0,
    "inflight_max": 1000,
    "limits": default_limits(inflight_client_share=1.0, inflight_domain_share=1.0, inflight_upstream_share=1.0),
}
"""Of every listener, unless changed."""


def types_text(types: tuple[int, ...]) -> str:
    """Answer types as a column has them: "CNAME,A"."""
    return ",".join(map(type_name, types))


def rows_of(records: NDArray[np.void]) -> list[tuple[Any, ...]]:
    """Records as rows of plain values."""
    batch = batch_of_records(records)
    columns = [getattr(batch, name) for name in batch.__dataclass_fields__]
    lists = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns]
    return list(zip(*lists, strict=True))


@contextmanager
def listening(
    upstreams: Sequence[tuple[str, Sequence[UpstreamAddress | tuple[str, int]]]] | StubServer,
    hosts: Sequence[str] = ("127.0.0.1",),
    drain_s: float = 0.0,
    **changed: Any,
) -> Iterator[tuple[Listener, list[tuple[Any, ...]]]]:
    """Yield a serving listener and the rows that it offers. drain_s: what queries in flight have at the end."""
    rows: list[tuple[Any, ...]] = []
    zones = [("", [upstreams.endpoint])] if isinstance(upstreams, StubServer) else upstreams

    def take(records: NDArray[np.void]) -> None:
        rows.extend(rows_of(records))

    def offer(queries: list[tuple[Any, ...]]) -> None:
        take(np.frombuffer(b"".join(packed_record(*query) for query in queries), RECORD))

    with collecting(take) as ring:
        options = OPTIONS | {"offer": offer, "ring": ring} | changed
        timeout_s = patient(options["timeout_s"])
        waits = {"timeout_s": timeout_s, "client_wait_s": patient(options.get("client_wait_s", 0)) or 2.5 * timeout_s}
        listener = Listener(hosts, 0, zones, **(options | waits))
        loop = asyncio.new_event_loop()
        loop.run_until_complete(listener.start())
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield listener, rows
        finally:
            asyncio.run_coroutine_threadsafe(listener.stop(drain_s), loop).result(patient(10) + drain_s)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def ring_of(capacity: int, bell: int = -1) -> Rings:
    """An empty ring, the only one of its writer, in memory that children share."""
    return Rings(memoryview(mmap.mmap(-1, Rings.size_of(1, capacity))), capacity, (bell,))


@contextmanager
def collecting(take: Callable[[NDArray[np.void]], None]) -> Iterator[Rings]:
    """A ring, and a thread that takes what is put into it, as a detector does; all of it before the block is left."""
    bell, ended = Bell(), threading.Event()
    rings = ring_of(20_000, bell.writing)
    (ring,) = rings.rings

    def collect() -> None:
        while not ended.is_set() or ring.waiting:
            ring.sleep(True)
            if not ring.waiting and not ended.is_set():
                bell.wait(patient(60))
            ring.sleep(False)
            records = ring.peek(ring.capacity)
            take(records)
            ring.advance_to(ring.tail + len(records))

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield rings
    finally:
        ended.set()
        bell.ring()
        thread.join()
        bell.close()


def adds_up(counters: Counters) -> bool:
    """Whether each message that was received came to one end."""
    ended = counters.malformed + counters.refused + counters.notimp + counters.rejected
    ended += counters.rate_dropped + counters.rate_slipped + counters.local + counters.cache_hits
    return bool(counters.received == ended + counters.cache_stale + counters.answered + counters.servfail)


def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Return as soon as the condition holds; AssertionError if it does not in time."""
    deadline = time.monotonic() + patient(timeout_s)
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


UNUSED = ("127.0.0.1", 9)
"""Discard: nobody listens there."""


def udp(listener: Listener, query: dns.message.Message, host: str = "127.0.0.1") -> dns.message.Message:
    return dns.query.udp(query, host, port=listener.ports[0], timeout=patient(5), ignore_unexpected=False)


def tcp(listener: Listener, query: dns.message.Message, host: str = "127.0.0.1") -> dns.message.Message:
    return dns.query.tcp(query, host, port=listener.ports[0], timeout=patient(5))
