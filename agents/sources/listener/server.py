"""The forwarding DNS server: UDP and TCP, IPv4 and IPv6. It answers first; the detector judges afterwards.

The client's bytes are forwarded and so are the upstream's: only the id is rewritten. A finished query becomes
a RECORD (see stream/record.py) that is offered, never waited for. Ordinary UDP queries take the compiled way of
datapath.py where kernels are compiled; this module is the definition, and the way of all others. A query that no
upstream answered is offered with rcode 2 (SERVFAIL, the client's answer), ancount 0 and unknown size, TTL and latency.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import AgentsError, SettingsError
from agents.core.types import UNKNOWN
from agents.dns import message as wire
from agents.sources.listener import upstream as pools
from agents.sources.listener.forwarder import Forwarder
from agents.sources.listener.sockets import (
    DRAIN_MAX,
    Pair,
    UdpPort,
    bind_pair,
    endpoint_text,
    is_local_address,
)
from agents.sources.listener.tcp import TcpClient, TcpClients
from agents.sources.listener.upstream import Endpoint, Pending, Routes, Where
from agents.stream.counters import Counters, summed
from agents.stream.record import mapped
from agents.stream.ring import Ring

if TYPE_CHECKING:
    from agents.sources.listener.datapath import Datapath


def can_compile() -> bool:
    """Whether datapath.py can serve UDP: kernels are on, and structures are those of 64-bit Linux, little-endian."""
    # Imported here, as datapath.py is below: it loads numba, and only a process that listens needs it.
    from agents.core.jit import COMPILED

    return COMPILED and sys.platform == "linux" and sys.byteorder == "little" and sys.maxsize > 2**32


_TRANSFERS = (wire.AXFR.to_bytes(2), wire.IXFR.to_bytes(2))
_UNANSWERED = wire.Answer(wire.SERVFAIL, 0, (), UNKNOWN, False)


_REMEMBERED_MAX = 65536
"""Addresses that are remembered; sources can be forged, so the memory is dropped when it is full."""


class AccessList:
    """Networks whose addresses may ask, "10.0.0.0/8" or a single address: no open resolver by accident.

    `known` maps the textual address of each client seen to its 16 bytes, or to None if it may not ask. Raises
    ValueError.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network.strip(), strict=False) for network in networks]
        self.known: dict[str, bytes | None] = {}

    def look_up(self, client: str) -> bytes | None:
        """The address as 16 bytes if it is in one of the networks, else None. client: text without a zone index."""
        if client in self.known:
            return self.known[client]
        address = ipaddress.ip_address(client)
        found = mapped(address.packed) if any(address in network for network in self._networks) else None
        if len(self.known) >= _REMEMBERED_MAX:
            self.known.clear()
        self.known[client] = found
        return found

    def allows(self, client: str) -> bool:
        """Whether the address may ask."""
        return self.look_up(client) is not None

    def ranges(self, version: int) -> NDArray[np.uint64]:
        """The networks of IPv4 or IPv6 (version 4 or 6) as the kernel `allowed` takes them."""
        own: list[ipaddress.IPv4Network] = [one for one in self._networks if one.version == version]  # type: ignore[misc]
        merged = ipaddress.collapse_addresses(own)
        ends = [(int(one.network_address), int(one.broadcast_address)) for one in merged]
        low = 2**64 - 1
        rows = [(first >> 64, first & low, last >> 64, last & low) for first, last in ends]
        return np.array(rows, np.uint64).reshape(-1, 4)


class Listener:
    """Answers DNS on every address of `hosts`. `upstreams` is what upstream.parse_upstreams returns.

    hosts: textual addresses; "::" is IPv6 only, so that "0.0.0.0" and "::" go together. port: 0 = a free one
    each. upstreams: [(zone, [(address, port), …]), …], zone "" = everything else. allowed_clients: networks.
    timeout_s: seconds per upstream. tcp_idle_s: seconds. offer: takes rows of Ring.put_rows, must not block. ring:
    takes those of datapath.py, which serves UDP where it can unless `compiled` is False. pairs: sockets that are bound
    already, a pair a host. counters: for this and for datapath.py, its own unless given. probe: a UDP socket at which
    the supervisor asks (sockets.UdpPort).
    """

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        upstreams: Sequence[tuple[str, Sequence[Endpoint]]],
        *,
        allowed_clients: Sequence[str],
        timeout_s: float,
        tcp_clients_max: int,
        tcp_idle_s: float,
        inflight_max: int,
        offer: Callable[[list[tuple[Any, ...]]], object],
        ring: Ring,
        compiled: bool = True,
        pairs: Sequence[Pair] = (),
        counters: tuple[Counters, Counters] | None = None,
        probe: socket.socket | None = None,
    ) -> None:
        self._hosts, self._port, self._offer, self._ring = hosts, port, offer, ring
        self._timeout_s, self._inflight_max, self._compiled = timeout_s, inflight_max, compiled
        self._pairs, self._probe = pairs, probe
        self._counters, self._fast_counters = counters or (Counters(), Counters())
        self._routes = Routes(upstreams)
        self._access = AccessList(allowed_clients)
        self._forwarder = Forwarder(timeout_s=timeout_s, counters=self._counters, finish=self._finish)
        self._datapath: Datapath | None = None
        self._tcp = TcpClients(self._handle, self._access.allows, self._counters, tcp_clients_max, tcp_idle_s)
        self._udp: list[UdpPort] = []
        self._rows: list[tuple[Any, ...]] = []
        self._servers: list[asyncio.Server] = []
        self.addresses: list[Endpoint] = []

    @property
    def ports(self) -> list[int]:
        """Bound ports, one a host."""
        return [port for _, port in self.addresses]

    @property
    def inflight(self) -> int:
        """Queries that wait for an upstream now."""
        compiled = self._datapath.inflight if self._datapath else 0
        return compiled + self._forwarder.waiting[0]

    @property
    def counters(self) -> Counters:
        """The counts up to now: a copy."""
        return summed((self._counters, self._fast_counters))

    async def start(self) -> None:
        """Bind and serve. Raises AgentsError if a host cannot be bound, SettingsError for itself as an upstream."""
        self._loop = loop = asyncio.get_running_loop()
        pairs: list[socket.socket] = []
        try:
            for host, (udp, tcp) in self._sockets():
                self._udp.append(UdpPort(udp))
                pairs.append(tcp)
                self.addresses.append((host, udp.getsockname()[1]))
            refuse_loops(self._routes.upstreams, self.addresses)
        except AgentsError:
            for sock in [*pairs, *(port.sock for port in self._udp)]:
                sock.close()
            self._udp, self.addresses = [], []
            raise
        self._forwarder.start()
        if self._probe:
            self._udp.append(UdpPort(self._probe, probe=True))
        for tcp in pairs:
            self._servers.append(await loop.create_server(lambda: TcpClient(self._tcp), sock=tcp))
        if self._compiled and can_compile():
            self._start_datapath()
            return
        for port in self._udp:
            loop.add_reader(port.sock, self._on_probes if port.probe else self._on_queries, port)

    def _sockets(self) -> Iterator[tuple[str, Pair]]:
        for number, host in enumerate(self._hosts):
            yield host, self._pairs[number] if self._pairs else bind_pair(host, self._port)

    def _start_datapath(self) -> None:
        from agents.sources.listener.datapath import Datapath

        self._datapath = Datapath(
            self._udp,
            self._routes,
            self._access,
            self._forwarder,
            self._fast_counters,
            timeout_s=self._timeout_s,
            inflight_max=self._inflight_max,
            uses_max=pools.USES_MAX,
            age_max_s=pools.AGE_MAX_S,
            ring=self._ring,
        )
        self._datapath.start()

    async def stop(self) -> None:
        """Take no more queries, answer SERVFAIL to the UDP ones in flight, close every socket."""
        loop = asyncio.get_running_loop()
        for port in self._udp:
            loop.remove_reader(port.sock)
        for server in self._servers:
            server.close()
        # Connections first: an answered one would hand on its next query.
        self._tcp.close()
        if self._datapath:
            self._datapath.stop()
        await self._forwarder.stop()
        self._offer_records()
        for port in self._udp:
            port.sock.close()
        self._udp, self._servers = [], []

    def _on_queries(self, port: UdpPort) -> None:
        receive, handle = port.receive, self._handle
        for _ in range(DRAIN_MAX):
            try:
                message, client, back = receive()
            except OSError:
                return
            handle(message, client, port, back, True)

    def _on_probes(self, port: UdpPort) -> None:
        """Answer the supervisor without an upstream."""
        with contextlib.suppress(OSError):
            while True:
                message, _, back = port.receive()
                if len(message) >= wire.HEADER_SIZE and (end := wire.question_end(message)):
                    port.send(wire.error_reply(message, wire.SERVFAIL, end), back)

    def _handle(self, message: bytes, client: str, where: Where, back: Any, udp: bool) -> bool:
        """Forward a query, or answer it at once; False if it can never be answered (it is no query)."""
        self._counters.received += 1
        if len(message) < wire.HEADER_SIZE or message[2] & 0x80:
            self._counters.malformed += 1
            return False
        address = self._access.known.get(client) or self._access.look_up(client)
        if address is None:
            self._counters.refused += 1
            where.send(wire.error_reply(message, wire.REFUSED), back)
            return True
        if message[2] & 0x78:
            self._counters.notimp += 1
            where.send(wire.error_reply(message, wire.NOTIMP), back)
            return True
        end = wire.question_end(message)
        if not end:
            self._counters.malformed += 1
            where.send(wire.error_reply(message, wire.FORMERR), back)
            return True
        # A zone transfer is answered in many messages; a forwarder has no zone to transfer.
        if message[end - 4 : end - 2] in _TRANSFERS:
            self._counters.notimp += 1
            where.send(wire.error_reply(message, wire.NOTIMP, end), back)
            return True
        zone = self._routes.find(message[wire.HEADER_SIZE : end - 5])
        inflight = self.inflight if self._datapath else self._forwarder.waiting[0]
        if zone is None or inflight >= self._inflight_max:
            self._counters.rejected += 1
            where.send(wire.error_reply(message, wire.SERVFAIL, end), back)
            return True
        self._forwarder.submit(Pending(message, end, address, where, back, udp, zone, time.time()))
        return True

    def _finish(self, pending: Pending, answer: bytes | None) -> None:
        """Answer the client, then keep the record for the end of this turn of the event loop."""
        if not self._rows:
            self._loop.call_soon(self._offer_records)  # first: before a connection that the answer ends is gone
        query, end = pending.query, pending.end
        if answer is None:
            # The client gets SERVFAIL; size, TTL and latency of an answer are unknown.
            self._counters.servfail += 1
            pending.where.send(wire.error_reply(query, wire.SERVFAIL, end), pending.back)
            rlen, rtt_ms = UNKNOWN, math.nan
            rcode, ancount, types, ttl_min, _ = _UNANSWERED
        else:
            rtt_ms = (time.monotonic() - pending.started) * 1000
            self._counters.answered += 1
            reply, rlen = query[:2] + answer[2:], len(answer)
            if pending.udp and rlen > wire.PLAIN_UDP_SIZE and rlen > wire.udp_size(query, end):
                reply = wire.truncate(reply, end)
            pending.where.send(reply, pending.back)
            # Records behind damage in the answer are unknown.
            rcode, ancount, types, ttl_min, _ = wire.parse_answer(answer, question_end=end, partial=True)
        qname, qtype = query[wire.HEADER_SIZE : end - 5], query[end - 4] << 8 | query[end - 3]
        self._rows.append(
            (pending.ts, pending.client, qname, qtype, len(query), rcode, ancount, rlen, ttl_min, rtt_ms, types)
        )

    def _offer_records(self) -> None:
        """Offer the records of one turn of the event loop at once: all of it costs little more than one."""
        rows, self._rows = self._rows, []
        if rows:
            self._offer(rows)


def refuse_loops(upstreams: Iterable[Endpoint], addresses: Sequence[Endpoint]) -> None:
    """Raise SettingsError where an upstream is one of the addresses that are listened on."""
    for host, port in upstreams:
        for mine, my_port in addresses:
            if port == my_port and _same_host(host, mine):
                raise SettingsError(f"cannot forward to {endpoint_text(host, port)}: that is this listener itself")


def _same_host(host: str, mine: str) -> bool:
    """True if datagrams to `host` arrive at a socket bound to `mine`."""
    address, bound = ipaddress.ip_address(host), ipaddress.ip_address(mine)
    if bound.is_unspecified:
        return address.version == bound.version and (address.is_unspecified or is_local_address(host))
    return address == bound or (address.is_unspecified and bound.is_loopback)
