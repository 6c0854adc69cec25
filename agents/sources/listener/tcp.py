"""DNS over TCP (RFC 7766): clients that send us queries, and one query to an upstream."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agents.sources.listener.upstream import Where
from agents.stream.counters import Counters

OUTSTANDING_MAX = 128
"""Pipelined queries of one connection that wait for answers; beyond it the connection is not read."""
CLIENT_PART = 4
"""One address may hold one in so many of the connections served at once."""
_NO_QUERIES_MAX = 16
"""Messages of one connection that are no queries; with one more it is closed, since its stream is not DNS."""
_UNSENT_MAX = 1 << 20
"""Bytes of answers that a client may leave unread in our memory before it is cut off."""


class Handle(Protocol):
    """Takes one message; False = it will never be answered, since it is no query."""

    def __call__(self, message: bytes, client: str, where: Where, back: Any, udp: bool) -> bool: ...


class TcpClients:
    """The connections being served: their number is bounded, and so is the time that each may stay idle."""

    def __init__(
        self,
        handle: Handle,
        allows: Callable[[str], bool],
        counters: Counters,
        clients_max: int,
        idle_s: float,
    ) -> None:
        self.handle, self.allows, self.counters = handle, allows, counters
        self.clients_max, self.idle_s = clients_max, idle_s
        self.each_max = max(1, clients_max // CLIENT_PART)
        self.open: set[TcpClient] = set()
        self._of: Counter[str] = Counter()

    def admit(self, client: TcpClient, address: str) -> bool:
        """False for a connection from outside the access list, or for one too many.

        Where all or those of this address are too many, the longest idle one is closed (RFC 7766 section 6.2.3).
        """
        if not self.allows(address):
            self.counters.tcp_refused += 1
            return False
        if self._of[address] >= self.each_max:
            rivals = [one for one in self.open if one.address == address]
        else:
            rivals = list(self.open) if len(self.open) >= self.clients_max else []
        if rivals and not self._close_idle(rivals):
            self.counters.tcp_rejected += 1
            return False
        self.open.add(client)
        self._of[address] += 1
        self.counters.tcp_clients += 1
        return True

    def _close_idle(self, rivals: Sequence[TcpClient]) -> bool:
        """Close the connection that is idle for longest, of the addresses that hold most; False if none is idle."""
        idle = [one for one in rivals if one.idle_since is not None]
        if not idle:
            return False
        chosen = min(idle, key=lambda one: (-self._of[one.address], one.idle_since))
        self.counters.tcp_evicted += 1
        self.leave(chosen)
        chosen.abort()
        return True

    def leave(self, client: TcpClient) -> None:
        """A connection is gone; nothing happens if it was not admitted, or has left."""
        if client not in self.open:
            return
        self.open.discard(client)
        self.counters.tcp_clients -= 1
        self._of[client.address] -= 1
        if not self._of[client.address]:
            del self._of[client.address]

    def close(self) -> None:
        for client in list(self.open):
            client.abort()


class TcpClient(asyncio.Protocol):
    """One connection. Queries are length-prefixed, may be pipelined, and are answered as answers come in.

    A message that is no query gets no answer, and those around it get theirs.

    Idle means: no whole query and no answer for `idle_s` while none of its queries waits for an upstream; so a client
    that sends a byte now and then, or does not read its answers, is cut off as well.
    """

    def __init__(self, clients: TcpClients) -> None:
        self._clients = clients
        self._buffer = bytearray()
        self._outstanding = self._no_queries = 0
        self._pumping = self._ended = self._stalled = False

    @property
    def idle_since(self) -> float | None:
        """Since when none of its queries waits, in seconds of the loop's clock; None while one does."""
        return None if self._outstanding else self._last

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        peer = transport.get_extra_info("peername")
        # A connection reset before it was accepted has no peer any more.
        self.address = peer[0].partition("%")[0] if peer else ""
        self._timer = self._loop.call_later(self._clients.idle_s, self._check_idle)
        if not peer or not self._clients.admit(self, self.address):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.leave(self)
        self._timer.cancel()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._pump()

    def eof_received(self) -> bool:
        """A client that stops sending still gets its answers."""
        self._ended = True
        return self._outstanding > 0

    def pause_writing(self) -> None:
        self._stalled = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._stalled = False
        self._pump()

    def send(self, message: bytes, back: Any) -> None:
        """One answer; dropped if the connection is gone."""
        self._outstanding -= 1
        if self._transport.is_closing():
            return
        self._last = self._loop.time()
        self._transport.write(len(message).to_bytes(2) + message)
        if self._transport.get_write_buffer_size() > _UNSENT_MAX:
            self.abort()
        elif self._ended and not self._outstanding:
            self._transport.close()
        else:
            self._pump()

    def _pump(self) -> None:
        """Hand on whole queries while few enough wait; an answer given at once leads back here."""
        if self._pumping or self._transport.is_closing():
            return
        self._pumping = True
        while not self._stalled and self._outstanding < OUTSTANDING_MAX and self._take():
            continue
        self._pumping = False
        if self._transport.is_closing() or self._ended:
            return
        if self._stalled or self._outstanding >= OUTSTANDING_MAX:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _take(self) -> bool:
        """Take one message out of the buffer; False if none is whole, or the client sends too much else."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        end = 2 + (buffer[0] << 8 | buffer[1])
        if len(buffer) < end:
            return False
        message = bytes(buffer[2:end])
        del buffer[:end]
        self._outstanding += 1
        if self._clients.handle(message, self.address, self, None, False):
            self._last = self._loop.time()
        else:
            self._outstanding -= 1
            self._no_queries += 1
            if self._no_queries > _NO_QUERIES_MAX:
                self.abort()
        return not self._transport.is_closing()

    def _check_idle(self) -> None:
        left = self._last + self._clients.idle_s - self._loop.time()
        if left <= 0 and not self._outstanding:
            self.abort()
            return
        self._timer = self._loop.call_later(max(left, 0.05), self._check_idle)


async def query_over_tcp(host: str, port: int, query: bytes, timeout_s: float) -> bytes:
    """Send one query to an upstream over a connection of its own. Raises OSError, TimeoutError or EOFError."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(len(query).to_bytes(2) + query)
            return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        finally:
            writer.transport.abort()
