"""Upstreams over TCP (RFC 7766), TLS (RFC 7858) and HTTPS (RFC 8484): connections that stay, with many queries at once.

A certificate must be valid for the pinned name, else for the upstream's own name or address. Queries over TLS and HTTPS
that have an OPT record are padded to a multiple of 128 bytes (RFC 8467 section 4.1).
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from agents.dns.message import HEADER_SIZE, find_opt, without_hop_by_hop
from agents.sources.listener.upstream import Upstream

if TYPE_CHECKING:
    import httpx

PAD_TO = 128
"""Bytes: RFC 8467 section 4.1."""
_PADDING = (12).to_bytes(2)
"""RFC 7830 section 3."""
_MEDIA_TYPE = "application/dns-message"
_MESSAGE_MAX = 65535


class Exchange(Protocol):
    """Asks one upstream. `ask` raises OSError or EOFError where it cannot be reached, or says what is no answer."""

    async def query(self, query: bytes, end: int) -> bytes: ...

    async def close(self) -> None: ...


def exchange_of(upstream: Upstream) -> Exchange:
    """How an upstream is asked that is not asked over UDP."""
    return HttpsExchange(upstream) if upstream.endpoint.transport == "https" else TcpExchange(upstream)


def padded(query: bytes, end: int) -> bytes:
    """The query with EDNS padding, where its OPT record is the last. end: offset behind its question."""
    found = find_opt(query, end)
    if not found or found.end != len(query) or query[found.start]:
        return query
    room = -(len(query) + 4) % PAD_TO
    size = int.from_bytes(query[found.start + 9 : found.start + 11]) + 4 + room
    if size > _MESSAGE_MAX:
        return query
    head = query[: found.start + 9] + size.to_bytes(2) + query[found.start + 11 :]
    return head + _PADDING + room.to_bytes(2) + bytes(room)


class Connection(asyncio.Protocol):
    """One connection to an upstream: queries under ids of its own, answers in any order."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(EOFError("the upstream closed the connection"))
        self._waiting.clear()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 2 and len(buffer) >= (end := 2 + (buffer[0] << 8 | buffer[1])):
            message = bytes(buffer[2:end])
            del buffer[:end]
            future = self._waiting.pop(int.from_bytes(message[:2]), None)
            if future and not future.done():
                future.set_result(message)

    async def query(self, query: bytes) -> bytes:
        """One query; the answer has its id. Raises EOFError when the connection ends."""
        if self.closed:
            raise EOFError("the upstream closed the connection")
        ident = secrets.randbelow(1 << 16)
        while ident in self._waiting:
            ident = secrets.randbelow(1 << 16)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[ident] = future
        self._transport.write(len(query).to_bytes(2) + ident.to_bytes(2) + query[2:])
        try:
            answer = await future
        finally:
            self._waiting.pop(ident, None)
        return query[:2] + answer[2:]

    def abort(self) -> None:
        self._transport.abort()


class TcpExchange:
    """tcp:// and tls://. One connection; where the upstream has closed it since, another, once a query."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._secret = upstream.endpoint.transport == "tls"
        self._context = ssl.create_default_context() if self._secret else None
        self._opening = asyncio.Lock()
        self._connection: Connection | None = None

    async def query(self, query: bytes, end: int) -> bytes:
        """The answer, with the query's id. Raises OSError or EOFError."""
        connection, fresh = await self._connected()
        sent = padded(query, end) if self._secret else query
        try:
            answer = await connection.query(sent)
        except EOFError:
            if fresh:
                raise
            connection, _ = await self._connected()
            answer = await connection.query(sent)
        return without_hop_by_hop(answer, end) if self._secret and len(answer) > end else answer

    async def _connected(self) -> tuple[Connection, bool]:
        """The connection, and whether it is new."""
        async with self._opening:
            if self._connection and not self._connection.closed:
                return self._connection, False
            endpoint, loop = self._upstream.endpoint, asyncio.get_running_loop()
            if not self._upstream.host:
                raise OSError("the name has no address")
            name = (endpoint.name or endpoint.host) if self._secret else None
            _, self._connection = await loop.create_connection(
                Connection, self._upstream.host, endpoint.port, ssl=self._context, server_hostname=name
            )
            return self._connection, True

    async def close(self) -> None:
        if self._connection:
            self._connection.abort()


class HttpsExchange:
    """https://: POST with id 0 (RFC 8484 section 4.1), on connections that the client library keeps."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._context = ssl.create_default_context()
        self._client: httpx.AsyncClient | None = None

    async def query(self, query: bytes, end: int) -> bytes:
        """The answer, with the query's id. Raises OSError."""
        import httpx  # here: a listener without such an upstream starts without it

        endpoint = self._upstream.endpoint
        if not self._upstream.host:
            raise OSError("the name has no address")
        if self._client is None:
            self._client = httpx.AsyncClient(verify=self._context, trust_env=False)
        host = f"[{self._upstream.host}]" if ":" in self._upstream.host else self._upstream.host
        name = endpoint.name or endpoint.host
        try:
            response = await self._client.post(
                f"https://{host}:{endpoint.port}{endpoint.path}",
                content=bytes(2) + padded(query, end)[2:],
                headers={"host": name, "content-type": _MEDIA_TYPE, "accept": _MEDIA_TYPE},
                extensions={"sni_hostname": name},
            )
        except httpx.HTTPError as error:
            raise OSError(str(error)) from None
        if response.status_code != 200 or response.headers.get("content-type") != _MEDIA_TYPE:
            raise OSError(f"status {response.status_code}, {response.headers.get('content-type', 'no type')}")
        answer = response.content
        if not HEADER_SIZE <= len(answer) <= _MESSAGE_MAX:
            raise OSError(f"an answer of {len(answer)} bytes")
        answer = query[:2] + answer[2:]
        return without_hop_by_hop(answer, end) if len(answer) > end else answer

    async def close(self) -> None:
        if self._client:
            with suppress(RuntimeError):
                await self._client.aclose()
