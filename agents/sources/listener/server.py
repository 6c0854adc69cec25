"""The forwarding DNS server: UDP and TCP, IPv4 and IPv6. It answers first; the detector judges afterwards.

A query goes upstream normalised, made of nothing but what it asks, or else as it came under another id (Outgoing); the
upstream's answer goes back with the question as the client asked it. A finished query becomes a RECORD (see
stream/record.py) that is offered, never waited for. Ordinary UDP queries take the compiled way of datapath.py where
kernels are compiled; this module is the definition, and the way of all others. A query that no upstream answered is
offered with rcode 2 (SERVFAIL, the client's answer), ancount 0 and unknown size, TTL and latency.
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
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key
from agents.core.errors import AgentsError, SettingsError
from agents.core.types import FORWARDED, FROM_CACHE, FROM_CACHE_STALE, UNKNOWN
from agents.dns import message as wire
from agents.dns.blocks import BlockAction
from agents.dns.message_kernels import (
    ANCOUNT,
    ANS_BYTES,
    ANS_HASH,
    KEY,
    NEGATIVE_TTL,
    RCODE,
    TTL_MIN,
    TYPES,
    answer_facts,
    new_facts,
)
from agents.dns.strict_groups import StrictGroups
from agents.sources.listener import upstream as pools
from agents.sources.listener.blocking.blocking import BlockConfig, Blocking
from agents.sources.listener.cache import AnswerCache, CacheLimits
from agents.sources.listener.cache_kernels import EXPIRED, HIT
from agents.sources.listener.forwarder import Forwarder
from agents.sources.listener.sockets import DRAIN_MAX, Pair, UdpPort, bind_pair, is_local_address
from agents.sources.listener.tcp import TcpClient, TcpClients
from agents.sources.listener.traffic import AccessList, Shares, TrafficLimits, address_bytes, default_limits, domain_of
from agents.sources.listener.traffic_kernels import DISCARD, PASS, SLIP
from agents.sources.listener.upstream import (
    AnsweredHere,
    Outgoing,
    Pending,
    Routes,
    Upstream,
    UpstreamAddress,
    Where,
    Zone,
)
from agents.sources.listener.upstream_watch import LoopProbes, UpstreamWatch
from agents.stream.counters import Counters, summed
from agents.stream.record import ANSWER_KEY
from agents.stream.rings import Rings

if TYPE_CHECKING:
    from agents.sources.listener.datapath import Datapath


def can_compile() -> bool:
    """Whether datapath.py can serve UDP: kernels are on, and structures are those of 64-bit Linux, little-endian."""
    # Imported here, as datapath.py is below: it loads numba, and only a process that listens needs it.
    from agents.core.jit import COMPILED

    return COMPILED and sys.platform == "linux" and sys.byteorder == "little" and sys.maxsize > 2**32


_TRANSFERS = (wire.AXFR.to_bytes(2), wire.IXFR.to_bytes(2))
_INTERNET = wire.IN.to_bytes(2)
SLOWED_SHARE = 16
"""One part in so many of INFLIGHT_MAX may be slowed queries that wait: whoever sends many takes no others' room."""
_UPSTREAM_SHARE = 2
"""The number of an upstream's share in Shares.refusal."""
DRAIN_S = 2.0
"""Seconds that queries in flight have for an upstream's answer when the listener stops; the supervisor grants five."""
_DRAIN_LOOK_S = 0.01
_UNANSWERED = wire.SERVFAIL, 0, UNKNOWN, 0, UNKNOWN, 0
"""RCODE, records, TTL, and then what the answer's data are, of a query without an answer: no cache keeps anything."""


class Listener:
    """Answers DNS on every address of `hosts`. `upstreams` is what upstream.parse_upstreams returns.

    hosts: textual addresses; "::" is IPv6 only, so that "0.0.0.0" and "::" go together. port: 0 = a free one
    each. upstreams: [(zone, [(address, port), …]), …], zone "" = everything else. allowed_clients: networks.
    timeout_s: seconds per upstream. tcp_idle_s: seconds. offer: takes rows of Rings.put_rows, must not block. ring:
    takes those of datapath.py, which serves UDP where it can unless `compiled` is False. pairs: sockets that are bound
    already, a pair a host. counters: for this and for datapath.py, its own unless given. probe: a UDP socket at which
    the supervisor asks (sockets.UdpPort). client_wait_s: seconds
    that a client waits for an answer. retry_failed: whether SERVFAIL and REFUSED go to the next upstream. limits:
    defaults unless given. special: names answered here. strict: clients that are answered for listed domains alone.
    probes: for loops, none without. mismatched: see Routes.
    cache: of this process, none unless given. outgoing: queries go upstream as they come unless given. blocks: where
    blocked domains are read, none unless given.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        upstreams: Sequence[tuple[str, Sequence[UpstreamAddress | tuple[str, int]]]],
        *,
        allowed_clients: Sequence[str],
        timeout_s: float,
        tcp_clients_max: int,
        tcp_idle_s: float,
        inflight_max: int,
        offer: Callable[[list[tuple[Any, ...]]], object],
        ring: Rings,
        compiled: bool = True,
        pairs: Sequence[Pair] = (),
        counters: tuple[Counters, Counters] | None = None,
        probe: socket.socket | None = None,
        client_wait_s: float = 5.0,
        retry_failed: bool = True,
        limits: TrafficLimits | None = None,
        special: Iterable[AnsweredHere] = (),
        strict: StrictGroups | None = None,
        probes: LoopProbes | None = None,
        mismatched: NDArray[np.int64] | None = None,
        cache: CacheLimits | None = None,
        outgoing: Outgoing | None = None,
        blocks: BlockConfig | None = None,
    ) -> None:
        self._hosts, self._port, self._offer, self._ring = hosts, port, offer, ring
        self._timeout_s, self._inflight_max, self._compiled = timeout_s, inflight_max, compiled
        self._pairs, self._probe = pairs, probe
        self._counters, self._fast_counters = counters or (Counters(), Counters())
        self._routes = Routes(upstreams, special, mismatched)
        self._access, self._strict = AccessList(allowed_clients), strict or StrictGroups()
        self._blocking, self._slowed = Blocking(blocks), dict[Pending, asyncio.TimerHandle]()
        self._limits, self._retry_failed = limits or default_limits(), retry_failed
        self._outgoing, self._random = outgoing or Outgoing(), pools.Random16()
        self._shares = Shares(self._limits.shares, inflight_max, len(self._routes.upstreams))
        self._cache, self._facts = AnswerCache(cache or CacheLimits(), self._fast_counters), new_facts(ANSWER_KEY)
        self._forwarder = self._make_forwarder(client_wait_s)
        self._watch = UpstreamWatch(self._routes, probes, self._counters, self._busy, self._refresh)
        self._datapath: Datapath | None = None
        self._tcp = TcpClients(self._handle, self._access.allows, self._counters, tcp_clients_max, tcp_idle_s)
        self._draining, self._servers = False, list[asyncio.Server]()
        self._udp, self.addresses = list[UdpPort](), list[tuple[str, int]]()

    def _make_forwarder(self, wait_s: float) -> Forwarder:
        return Forwarder(
            timeout_s=self._timeout_s,
            wait_s=wait_s,
            retry_failed=self._retry_failed,
            counters=self._counters,
            finish=self._finish,
            stale_wait_s=self._cache.limits.stale_wait_s,
            overdue=self._answer_stale,
        )

    @property
    def ports(self) -> list[int]:
        """Bound ports, one a host."""
        return [port for _, port in self.addresses]

    @property
    def inflight(self) -> int:
        """Queries that wait for an upstream now."""
        compiled = self._datapath.inflight if self._datapath else 0
        return compiled + self._forwarder.waiting[0]

    def _busy(self) -> float:
        """Share of the room for queries in flight that is used."""
        return self.inflight / self._inflight_max

    def _refresh(self) -> None:
        """An upstream's address or state has changed."""
        if self._datapath:
            self._datapath.refresh()

    @property
    def counters(self) -> Counters:
        """The counts up to now: a copy."""
        return summed((self._counters, self._fast_counters))

    def use_answer_key(self, key: Key) -> None:
        """Hash answers under another key from now on."""
        self._facts[KEY:] = key
        if self._datapath:
            self._datapath.use_answer_key(key)

    async def start(self) -> None:
        """Bind and serve. Raises AgentsError if a host cannot be bound, SettingsError for itself as an upstream."""
        loop = asyncio.get_running_loop()
        self._forwarder.start()
        pairs: list[socket.socket] = []
        try:
            for host, (udp, tcp) in self._sockets():
                self._udp.append(UdpPort(udp))
                pairs.append(tcp)
                self.addresses.append((host, udp.getsockname()[1]))
            await self._watch.start()
            refuse_loops(self._routes.upstreams.values(), self.addresses)
        except AgentsError:
            await self._watch.stop()
            await self._forwarder.stop()
            for sock in [*pairs, *(port.sock for port in self._udp)]:
                sock.close()
            self._udp, self.addresses = [], []
            raise
        if self._probe:
            self._udp.append(UdpPort(self._probe, probe=True))
        for tcp in pairs:
            self._servers.append(await loop.create_server(lambda: TcpClient(self._tcp), sock=tcp))
        self._blocking.look()
        self._blocking.start(self._take_blocks)
        if self._compiled and can_compile():
            self._start_datapath()
            return
        self._read_ports()

    def _sockets(self) -> Iterator[tuple[str, Pair]]:
        for number, host in enumerate(self._hosts):
            yield host, self._pairs[number] if self._pairs else bind_pair(host, self._port)

    def _start_datapath(self) -> None:
        from agents.sources.listener.datapath import Datapath

        self._datapath = Datapath(
            self._udp,
            self._routes,
            self._access,
            self._closely_watched(),
            self._forwarder,
            self._fast_counters,
            timeout_s=self._timeout_s,
            inflight_max=self._inflight_max,
            limits=self._limits,
            retry_failed=self._retry_failed,
            answer_here=self.answer_here,
            admit=self.admit,
            blocked=(self._blocking.names, self.admit_anyhow),
            uses_max=pools.USES_MAX,
            age_max_s=pools.AGE_MAX_S,
            ring=self._ring,
            cache=self._cache,
            outgoing=self._outgoing,
        )
        self._datapath.start()

    def _closely_watched(self) -> AccessList:
        """Clients each of whose queries datapath.py hands on: a list of theirs, or a block, decides by name."""
        return AccessList([*self._strict.networks, *self._blocking.clients])

    def _take_blocks(self) -> None:
        """Other blocks are in force."""
        if self._datapath:
            self._datapath.watch_for(self._closely_watched(), self._blocking.names)

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Forward no more queries, give those in flight `drain_s`, answer SERVFAIL to the rest, close every socket."""
        loop = asyncio.get_running_loop()
        self._blocking.stop()
        for asked, timer in list(self._slowed.items()):
            timer.cancel()
            self._go_on(asked, self._fail)
        await self._drain(drain_s)
        for port in self._udp:
            loop.remove_reader(port.sock)
        # Connections first: an answered one would hand on its next query.
        self._tcp.close()
        await self._watch.stop()
        if self._datapath:
            self._datapath.stop()
        await self._forwarder.stop()
        for port in self._udp:
            port.sock.close()
        self._udp, self._servers, self._datapath = [], [], None

    async def _drain(self, drain_s: float) -> None:
        """Wait for the queries in flight. New ones are answered from the cache, or with SERVFAIL: a client that hears
        nothing would wait for seconds before it asks another resolver."""
        for server in self._servers:
            server.close()
        self._draining = True
        if self._datapath:
            self._datapath.leave_ports()
            self._read_ports()
        end = time.monotonic() + drain_s
        while self.inflight and time.monotonic() < end:
            await asyncio.sleep(_DRAIN_LOOK_S)

    def _read_ports(self) -> None:
        loop = asyncio.get_running_loop()
        for port in self._udp:
            loop.add_reader(port.sock, self._on_probes if port.probe else self._on_queries, port)

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
        count = self._counters
        count.received += 1
        if len(message) < wire.HEADER_SIZE or message[2] & 0x80:
            count.malformed += 1
            return False
        end = wire.question_end(message)
        address = self._access.known.get(client) or self._access.look_up(client)
        asked = Pending(
            message, end or wire.HEADER_SIZE, address or address_bytes(client), where, back, udp, time.time()
        )
        asked.exempt = self._limits.exempt.allows(client)
        if address is None:
            count.refused += 1
            return self._refuse(asked, wire.REFUSED)
        if message[2] & 0x78:
            count.notimp += 1
            return self._refuse(asked, wire.NOTIMP)
        if not end:
            count.malformed += 1
            return self._refuse(asked, wire.FORMERR)
        # A zone transfer is answered in many messages; a forwarder has no zone to transfer.
        if message[end - 4 : end - 2] in _TRANSFERS:
            count.notimp += 1
            return self._refuse(asked, wire.NOTIMP)
        route = self._routes.find(message[wire.HEADER_SIZE : end - 5])
        if route is None:
            count.rejected += 1
            return self._refuse(asked, wire.SERVFAIL)
        if udp and not asked.exempt and not self._within_rate(asked):
            return True
        opt = wire.find_opt(message, end)
        if opt and opt.version:
            count.notimp += 1
            return self._refuse(asked, wire.BADVERS)
        if not self._outgoing.normalised:
            asked.query = wire.without_hop_by_hop(message, end)
        elif message[end - 2 : end] != _INTERNET:
            count.refused += 1
            return self._refuse(asked, wire.REFUSED)
        else:
            asked.normalise(self._outgoing, opt, self._random)
        self._take(asked, route)
        return True

    def _refuse(self, asked: Pending, rcode: int) -> bool:
        """Answer with an error; True, since that is an answer."""
        self._reply(asked, wire.error_reply(asked.query, rcode, asked.end))
        return True

    def _within_rate(self, asked: Pending) -> bool:
        """False for a query above the rate of its client's network: it is dropped, or answered with TC."""
        verdict = self._limits.on_query(asked.client)
        if verdict == PASS:
            return True
        if verdict == SLIP:
            self._counters.rate_slipped += 1
            asked.where.send(wire.error_reply(asked.query, wire.NOERROR, asked.end, flags=wire.TC), asked.back)
        else:
            self._counters.rate_dropped += 1
        return False

    def _take(self, asked: Pending, route: Zone | AnsweredHere) -> None:
        """Forward the query, or answer it here, from the cache, or as a special name, where there is room for it."""
        if isinstance(route, Zone):
            go_on = partial(self._forward, route=route)
            if self._is_blocked(asked, go_on) or self._refuse_strict(asked) or self._ask_cache(asked, route):
                return
        self._forward(asked, route)

    def _forward(self, asked: Pending, route: Zone | AnsweredHere) -> None:
        """Forward the query, or answer a special name, where there is room for it."""
        zone, special = (route, None) if isinstance(route, Zone) else (None, route)
        inflight = self.inflight if self._datapath else self._forwarder.waiting[0]
        if self._draining or inflight >= self._inflight_max or not self._hold(asked, zone):
            if not (asked.stale and self._answer_stale(asked)):
                self._counters.rejected += 1
                self._refuse(asked, wire.SERVFAIL)
        elif special:
            self.answer_here(asked, special)
        else:
            self._forwarder.submit(asked)

    def _refuse_strict(self, asked: Pending) -> bool:
        """Answer NXDOMAIN where the client is in a strict group whose list does not have the name; else False.

        The query is recorded like any other, and nothing of it leaves, nor does it meet the cache.
        """
        qname = asked.query[wire.HEADER_SIZE : asked.end - 5]
        if not self._strict or not self._strict.refuses(asked.client, qname):
            return False
        self._counters.local += 1
        self._answer(asked, wire.error_reply(asked.query, wire.NXDOMAIN, asked.end), 0.0)
        return True

    def _is_blocked(self, asked: Pending, go_on: Callable[[Pending], None]) -> bool:
        """Answer a query below a blocked domain, or let it wait for its turn; False where nothing blocks it.

        The query is recorded like any other, and the cache does not learn of it. go_on: what follows the wait.
        """
        table = self._blocking.table
        block = table.find(asked.client, asked.query[wire.HEADER_SIZE : asked.end - 5]) if table else None
        if block is None:
            return False
        room = len(self._slowed) < max(self._inflight_max // SLOWED_SHARE, 1)
        if block.action == BlockAction.SLOW and room and not self._draining:
            wait_s = self._blocking.wait_s(block, asked.client, time.monotonic())
            if wait_s is not None:
                timer = asyncio.get_running_loop().call_later(wait_s, self._go_on, asked, go_on)
                self._slowed[asked] = timer
                return True
        self._counters.local += 1
        self._answer(asked, self._blocking.reply(block, asked.query, asked.end), 0.0)
        self._free(asked)
        return True

    def _go_on(self, asked: Pending, go_on: Callable[[Pending], None]) -> None:
        """A slowed query's turn has come: its time begins now."""
        del self._slowed[asked]
        asked.started = 0.0
        go_on(asked)

    def _fail(self, asked: Pending) -> None:
        """There is no room for a query, or no time."""
        self._counters.rejected += 1
        self._refuse(asked, wire.SERVFAIL)
        self._free(asked)

    def admit(self, asked: Pending, zone: Zone) -> None:
        """Go on with a query of a closely watched client that datapath.py has given room."""
        if self._is_blocked(asked, self._forwarder.submit):
            return
        if self._refuse_strict(asked) or self._ask_cache(asked, zone):
            self._free(asked)
        else:
            self._forwarder.submit(asked)

    def admit_anyhow(self, asked: Pending) -> None:
        """Go on with a query below a domain that datapath.py has as blocked for all. The block may just have ended."""
        route = self._routes.find(asked.query[wire.HEADER_SIZE : asked.end - 5])
        if not isinstance(route, Zone):
            self.answer_here(asked, route) if route else self._fail(asked)
            return
        if self._is_blocked(asked, partial(self._submit_held, zone=route)):
            return
        if self._refuse_strict(asked) or self._ask_cache(asked, route):
            self._free(asked)
        else:
            self._submit_held(asked, route)

    def _submit_held(self, asked: Pending, zone: Zone) -> None:
        """Forward a query to which datapath.py has given room, but no upstream."""
        if self._hold(asked, zone):
            self._forwarder.submit(asked)
        else:
            self._fail(asked)

    def _ask_cache(self, asked: Pending, zone: Zone) -> bool:
        """Answer the query from the cache; False where that has no answer for use at once."""
        if not self._cache.limits.size:
            return False
        found = self._cache.look_up(asked.query, asked.end)
        asked.bits, asked.stale = found.bits, found.outcome == EXPIRED
        if not found.answer:
            return False
        self._answer(asked, found.answer, 0.0, FROM_CACHE if found.outcome == HIT else FROM_CACHE_STALE)
        if found.due:
            self._prefetch(asked, zone)
        return True

    def _prefetch(self, asked: Pending, zone: Zone) -> None:
        """Ask for a popular answer anew before it expires."""
        fresh = Pending(asked.query, asked.end, asked.client, asked.where, asked.back, asked.udp, asked.ts)
        fresh.bits, fresh.exempt, fresh.silent = asked.bits, asked.exempt, True
        fresh.name = asked.name
        if not self._draining and self.inflight < self._inflight_max and self._hold(fresh, zone):
            self._cache.count_prefetch()
            self._forwarder.submit(fresh)

    def _answer_stale(self, asked: Pending) -> bool:
        """Answer with what has expired; what an upstream still answers is for the cache. False if there is nothing."""
        found = self._cache.expired(asked.query, asked.end, asked.bits)
        if found.answer:
            self._answer(asked, found.answer, 0.0, FROM_CACHE if found.outcome == HIT else FROM_CACHE_STALE)
            asked.silent = True
        return bool(found.answer)

    def _hold(self, asked: Pending, zone: Zone | None) -> bool:
        """Count the query for its client, domain and upstream; False if each of one kind has its share already."""
        client = None if asked.exempt else asked.client
        domain = domain_of(asked.query[wire.HEADER_SIZE : asked.end - 5]) if zone else None
        number: int | None = None
        for place in zone.places() if zone else (0,):
            keys = client, domain, zone.upstreams[place] if zone else None
            number = self._shares.refusal(keys)
            if number is None:
                asked.shares = keys
                self._shares.hold(keys)
                if zone:
                    asked.route_to(zone, place)
                return True
            if number < _UPSTREAM_SHARE:
                break
        if asked.silent or asked.stale:
            return False
        name = ("rejected_client", "rejected_domain", "rejected_upstream")[number or 0]
        setattr(self._counters, name, getattr(self._counters, name) + 1)
        return False

    def answer_here(self, asked: Pending, route: AnsweredHere) -> None:
        """Answer a special name; the query is recorded like any other."""
        answer = route.reply(asked.query, asked.end)
        self._counters.local += 1
        self._answer(asked, answer, 0.0, FORWARDED, route.recorded)
        self._free(asked)

    def _finish(self, pending: Pending, answer: bytes | None) -> None:
        """Answer the client, if it waits still, and let the cache keep the answer, or that there was none."""
        failed = answer is None or answer[3] & 0xF not in (wire.NOERROR, wire.NXDOMAIN)
        if pending.bits >= 0:
            kept = wire.error_reply(pending.query, wire.SERVFAIL, pending.end) if answer is None else answer
            self._cache.store(kept, pending.end, pending.bits)
        if not pending.silent and not (failed and pending.stale and self._answer_stale(pending)):
            if answer is None:
                self._counters.servfail += 1
                self._answer(pending, None, math.nan)
            else:
                self._counters.answered += 1
                self._answer(pending, answer, (time.monotonic() - pending.started) * 1000)
        self._free(pending)

    def _answer(
        self, pending: Pending, answer: bytes | None, rtt_ms: float, cached: int = FORWARDED, recorded: bool = True
    ) -> None:
        """Record what came of a query, and reply: what is answered is judged even where this process is killed next.

        Record and count lie side by side, so that the counts of a killed process add up. answer None: SERVFAIL; size
        and TTL are unknown.
        """
        if recorded:
            self._record(pending, answer, rtt_ms, cached)
        query, end = pending.query, pending.end
        reply = wire.error_reply(query, wire.SERVFAIL, end) if answer is None else query[:2] + answer[2:]
        self._reply(pending, reply)

    def _free(self, pending: Pending) -> None:
        """A query's end: what it held is free."""
        if pending.shares:
            self._shares.free(pending.shares)
        if self._datapath and pending.slot >= 0:
            self._datapath.give_back(pending.slot)

    def _record(self, pending: Pending, answer: bytes | None, rtt_ms: float, cached: int) -> None:
        """Offer the query's record. answer None: size and TTL are unknown."""
        query, end = pending.query, pending.end
        rlen, types, known = UNKNOWN, tuple[int, ...](), _UNANSWERED
        if answer is not None:
            # Records behind damage in the answer are unknown.
            answer_facts(np.frombuffer(bytearray(answer), np.uint8), 0, end, len(answer), self._facts)
            facts = self._facts.tolist()
            rlen, types = len(answer), tuple(kind for kind in facts[TYPES:KEY] if kind)
            known = tuple(facts[place] for place in (RCODE, ANCOUNT, TTL_MIN, ANS_HASH, ANS_BYTES, NEGATIVE_TTL))
        rcode, ancount, ttl_min, *data = known
        qname, qtype = query[wire.HEADER_SIZE : end - 5], query[end - 4] << 8 | query[end - 3]
        client, received = pending.client, pending.received
        self._offer(
            [(pending.ts, client, qname, qtype, received, rcode, ancount, rlen, ttl_min, rtt_ms, types, cached, *data)]
        )

    def _reply(self, asked: Pending, reply: bytes) -> None:
        """Send a reply as its client takes it: no OPT where it sent none, and over UDP no more than it takes."""
        query, end = asked.query, asked.end
        if asked.payload is None:
            has_records = query[6:12] != bytes(6) and (end > wire.HEADER_SIZE or query[4:6] == b"\0\0")
            opt = wire.find_opt(query, end) if has_records else None
            asked.payload = opt.udp_size if opt else 0
        if asked.flags is not None:
            kept = (reply[2] << 8 | reply[3]) & (asked.flags | ~(wire.RD | wire.AD)) | asked.flags & wire.RD
            reply = reply[:2] + kept.to_bytes(2) + reply[4:]
        if not asked.payload:
            reply = wire.without_opt(reply, end)
        if asked.udp and len(reply) > (asked.payload or wire.PLAIN_UDP_SIZE):
            reply = wire.truncate(reply, end)
        if asked.udp and not asked.exempt and self._limits.limits_responses:
            named = end > wire.HEADER_SIZE
            qname = query[wire.HEADER_SIZE : end - 5] if named else b""
            qtype = int.from_bytes(query[end - 4 : end - 2]) if named else 0
            verdict = self._limits.on_response(asked.client, qname, qtype, reply[3] & 0xF)
            if verdict == DISCARD:
                self._counters.rrl_dropped += 1
                return
            if verdict == SLIP:
                self._counters.rrl_slipped += 1
                reply = wire.truncate(reply, end)
        asked.where.send(reply, asked.back)


def refuse_loops(upstreams: Iterable[Upstream], addresses: Sequence[tuple[str, int]]) -> None:
    """Raise SettingsError where an upstream is one of the addresses that are listened on."""
    for one in upstreams:
        for mine, my_port in addresses:
            if one.host and one.port == my_port and _same_host(one.host, mine):
                raise SettingsError(f"cannot forward to {one.endpoint}: that is this listener itself")


def _same_host(host: str, mine: str) -> bool:
    """True if datagrams to `host` arrive at a socket bound to `mine`."""
    address, bound = ipaddress.ip_address(host), ipaddress.ip_address(mine)
    if bound.is_unspecified:
        return address.version == bound.version and (address.is_unspecified or is_local_address(host))
    return address == bound or (address.is_unspecified and bound.is_loopback)
