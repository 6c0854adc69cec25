"""Where questions go: zones with their upstream servers, and the sockets that reach them.

Source ports and ids against forged answers (RFC 5452 sections 4.3 and 9.2). Each upstream has a pool of
connected UDP sockets on random ports from 1024..65535; a query takes a random socket of the pool and a random
id on it, both from the kernel's generator. A socket is replaced after USES_MAX queries or AGE_MAX_S seconds.
A forger who does not see the traffic must send, from the upstream's address and with the client's exact
question bytes, the one port of 64,512 and the one id that this query has: one chance in 2^32 a packet, or
in 2^21 if the forger has found the pool's ports before they change. A fresh socket a query would keep 2^32
there, but costs 14 microseconds a query where all the forwarding costs 20; the pool's sockets cost 0.03.
A connected socket also lets the kernel discard other senders' datagrams and report a dead upstream at once.

A forger who hits the port must guess the id: of g datagrams with random ids, g / 65,536 are expected to hit. After
NEAR_MISSES_MAX datagrams that may be guesses a socket is given up, and its queries are asked again over TCP. A query
then meets ten guesses at most: one chance in 6,554, where 65,536 guesses in time would have had two in three.
"""

from __future__ import annotations

import errno
import ipaddress
import math
import os
import re
import socket
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import NameFormatError, SettingsError
from agents.dns import name as names
from agents.dns.message import AD, HEADER_SIZE, NOERROR, NXDOMAIN, RD, Opt, error_reply, find_opt, normalised
from agents.sources.listener.sockets import endpoint_text

POOL_SIZE = 32
USES_MAX = 512
AGE_MAX_S = 10.0
NEAR_MISSES_MAX = 10
"""Wrong datagrams on one socket, from the upstream's address, after which its queries are asked again over TCP."""
FAILURES_BEFORE_SWITCH = 3
"""Failures in a row after which a zone's next upstream comes first."""

RANDOM_BLOCK = 4096
"""Bytes drawn at once from the kernel's generator."""
BIND_TRIES = 8
PORT_MIN = 1024
"""Lowest source port: those below belong to services."""
_RESOLV_CONF = Path("/etc/resolv.conf")

PORTS = {"udp": 53, "tcp": 53, "tls": 853, "https": 443}
"""Transports and their ports: RFC 1035 section 4.2, RFC 7858 section 3.1, RFC 8484."""
DOH_PATH = "/dns-query"
"""The path of https upstreams that name none (RFC 8484 section 4.1, by its examples)."""
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")


class UpstreamAddress(NamedTuple):
    """Where an upstream is: an address or a host name, a port, and how it is asked.

    name: that the certificate of tls and https must have, empty = the host's. path: of https.
    """

    host: str
    port: int
    transport: str = "udp"
    name: str = ""
    path: str = ""

    def __str__(self) -> str:
        scheme = "" if self.transport == "udp" else f"{self.transport}://"
        return scheme + endpoint_text(self.host, self.port) + self.path + (f"#{self.name}" if self.name else "")

    @property
    def has_address(self) -> bool:
        """Whether the host is an address already."""
        return _is_address(self.host)


def parse_upstreams(text: str) -> list[tuple[str, list[UpstreamAddress]]]:
    """Parse UPSTREAMS into [(zone, [endpoint, …]), …]; zone "" = everything else.

    A zone stands before "="; upstreams without a zone belong to "". `a=1.1.1.1,b=2.2.2.2,tls://3.3.3.3#name`
    gives zone a, zone b and one default. Raises ValueError.
    """
    zones: dict[str, list[UpstreamAddress]] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        zone, equals, address = part.partition("=")
        if not equals or "/" in zone or "#" in zone:
            zone, address = "", part
        elif not zone.strip("."):
            raise ValueError(f"{part!r} has no zone before '='")
        _must_be_a_name(zone.strip())
        zones.setdefault(zone.strip().rstrip(".").lower(), []).append(_endpoint(address.strip()))
    return list(zones.items())


def _must_be_a_name(zone: str) -> None:
    try:
        names.from_text(zone)
    except NameFormatError as error:
        raise ValueError(str(error)) from None


def _endpoint(text: str) -> UpstreamAddress:
    transport, scheme, rest = text.rpartition("://")
    transport = transport.lower() if scheme else "udp"
    if transport not in PORTS:
        raise ValueError(f"{text!r} begins with none of udp://, tcp://, tls:// and https://")
    rest, hash_, name = rest.partition("#")
    place, slash, path = rest.partition("/")
    if (hash_ and transport not in ("tls", "https")) or (slash and transport != "https"):
        raise ValueError(f"{text!r} has a part that {transport} does not have")
    if hash_ and not (_HOST.fullmatch(name) or _is_address(name)):
        raise ValueError(f"{text!r} has no name after '#'")
    host, port = _host_and_port(place, str(PORTS[transport]), text)
    if transport == "https":
        path = slash + path if path else DOH_PATH
    return UpstreamAddress(host, port, transport, name, path)


def _host_and_port(place: str, default: str, text: str) -> tuple[str, int]:
    host, port = place, default
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [address]:port")
        port = rest[1:] or default
        ipaddress.IPv6Address(host)
    elif place.count(":") == 1:
        host, port = place.split(":")
    # What ends in a number is an address or nothing (RFC 1123 section 2.1).
    if not _is_address(host) and (not _HOST.fullmatch(host) or host.rstrip(".").rpartition(".")[2].isdigit()):
        raise ValueError(f"{host!r} is neither an address nor a host name")
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r} has no port between 1 and 65535")
    return host, int(port)


class Random16:
    """Random numbers 0..65535 from the kernel's generator, drawn in blocks: one system call per 2,048."""

    def __init__(self) -> None:
        self._numbers: list[int] = []

    def draw(self) -> int:
        if not self._numbers:
            self._numbers = array("H", os.urandom(RANDOM_BLOCK)).tolist()
        return self._numbers.pop()


FOLDS, PLAIN = 1, 2
"""What an upstream was seen to do (Upstream.quirks): it answers in another case than it was asked; it takes no EDNS."""


class Outgoing(NamedTuple):
    """How queries go upstream. normalised: made of lower-case name, type, CD and DO alone, else as they came.

    The name is sent in random case (0x20: Dagon et al., "Increased DNS forgery resistance", CCS 2008), and an answer
    must have it. prefixes: see message.normalised.
    """

    normalised: bool = False
    prefixes: tuple[int, int] = (0, 0)


class Where(Protocol):
    """Takes an answer: a UDP port or a TCP connection; `back` is its own business."""

    def send(self, message: bytes, back: Any) -> None: ...


class Pending:
    """One forwarded query until it is answered or given up.

    query: as it is sent; received: bytes as it came; end: offset behind the question; client: 16 address bytes; ts:
    Unix seconds; slot: in the datapath's table, -1 = none; current: index of the upstream asked last; running: whether
    its time runs; tries: upstreams that failed; open: questions that may still be answered; sent: sockets and ids of
    those; fallback: the answer if none is better; started, due and ends: monotonic seconds; shares: see traffic.Shares.
    bits: see cache_kernels.query_bits; stale: whether the cache has an expired answer; silent: no client waits, the
    answer is for the cache. payload: UDP answer that the client takes, 0 = it sent no OPT, None = not looked up yet;
    flags: RD and AD as the answer may have them, None = as it comes. name: as it is sent; doubted: an answer had it in
    another case; lower, plain: it is sent in lower case, and without OPT.
    """

    __slots__ = (
        *("query", "received", "end", "client", "where", "back", "udp", "zone", "ts", "slot", "exempt", "shares"),
        *("bits", "stale", "silent", "payload", "flags", "name", "doubted", "lower", "plain"),
        *("current", "running", "tries", "open", "sent", "fallback", "started", "due", "ends", "done"),
    )

    def __init__(self, query: bytes, end: int, client: bytes, where: Where, back: Any, udp: bool, ts: float) -> None:
        self.query, self.end, self.client, self.ts = query, end, client, ts
        self.where, self.back, self.udp = where, back, udp
        self.received, self.slot, self.exempt = len(query), -1, False
        self.shares: tuple[Any, Any, Any] | None = None
        self.bits, self.stale, self.silent = -1, False, False
        self.payload: int | None = None
        self.flags: int | None = None
        self.name: bytes | None = None
        self.doubted = self.lower = self.plain = False
        self.tries = self.open = 0
        self.running = self.done = False
        self.sent: list[tuple[UpstreamSocket, int]] = []
        self.fallback: bytes | None = None
        self.started = self.due = self.ends = 0.0

    def route_to(self, zone: Zone, current: int) -> None:
        """It goes to this zone's upstreams, to the one numbered `current` first."""
        self.zone, self.current = zone, current

    def normalise(self, outgoing: Outgoing, opt: Opt | None, random: Random16) -> None:
        """Leave nothing in the query but what was asked. opt: the query's."""
        self.payload = opt.udp_size if opt else 0
        self.flags = answer_flags(self.query[2] << 8 | self.query[3], opt)
        self.query = normalised(self.query, self.end, opt, outgoing.prefixes)
        self.mix_case(random)

    def mix_case(self, random: Random16) -> None:
        """Choose the case in which the name is sent."""
        mixed = bytearray(self.query[HEADER_SIZE : self.end - 4].lower())
        bits = 1
        for at, byte in enumerate(mixed):
            if 97 <= byte <= 122:
                bits = random.draw() | 1 << 16 if bits == 1 else bits
                mixed[at] -= 32 * (bits & 1)
                bits >>= 1
        self.name = bytes(mixed)

    def sent_to(self, upstream: Upstream, mixed: bool = True) -> bytes:
        """The query as this upstream is asked it, behind its id. mixed: False = in lower case whatever it keeps."""
        if self.name is None:
            return self.query[2:]
        keeps = mixed and not self.lower and not upstream.quirks[0] & FOLDS
        name = self.name if keeps else self.name.lower()
        head, rest = self.query[2:HEADER_SIZE], self.query[self.end - 4 :]
        if self.plain or upstream.quirks[0] & PLAIN:
            head, rest = head[:-1] + b"\0", rest[:4]
        return head + name + rest

    def is_recased(self, answer: bytes, upstream: Upstream) -> bool:
        """Whether an answer over UDP has the name in another case than it was sent in."""
        if self.name is None or self.lower or upstream.quirks[0] & FOLDS or answer[4:6] != b"\0\1":
            return False
        return answer[HEADER_SIZE : self.end - 4] != self.name

    @property
    def upstream(self) -> Upstream:
        """The one that was asked last."""
        return self.zone.upstreams[self.current]

    def usable(self, answer: bytes) -> bytes | None:
        """The answer with the question as it was asked, or None: it answers something else.

        It must be a response (QR set, opcode QUERY) to the question, in letters of any case, as old servers send them.
        An error may come without a question, from a server that could not read it (RFC 6891 section 7).
        """
        if len(answer) < HEADER_SIZE or answer[2] & 0xF8 != 0x80:
            return None
        end, question = self.end, self.query[HEADER_SIZE : self.end]
        if answer[4:6] == b"\0\0":
            return self._error_of(answer)
        if answer[4:6] != b"\0\1":
            return None
        found = answer[HEADER_SIZE:end]
        if found == question:
            return answer
        if found[-4:] != question[-4:] or found[:-4].lower() != question[:-4].lower():
            return None
        return answer[:HEADER_SIZE] + question + answer[end:]

    def _error_of(self, answer: bytes) -> bytes | None:
        opt, own = find_opt(answer, HEADER_SIZE), find_opt(self.query, self.end)
        rcode = answer[3] & 0xF | (opt.ttl >> 24 << 4 if opt and own else 0)
        return None if rcode in (NOERROR, NXDOMAIN) else error_reply(self.query, rcode, self.end)


def answer_flags(asked: int, opt: Opt | None) -> int:
    """RD as a client's query had it, and AD if its answer may have it (RFC 6840 section 5.8)."""
    return asked & (RD | AD) | (AD if opt and opt.dnssec_ok else 0)


class UpstreamSocket:
    """One connected UDP socket; `pending` holds the queries that wait for an answer on it, by id.

    answered: ids that had one; misses: datagrams that may be guesses.
    """

    __slots__ = ("answered", "born", "misses", "pending", "slot", "sock", "upstream", "uses")

    def __init__(self, sock: socket.socket, upstream: Upstream, slot: int, now: float) -> None:
        self.sock, self.upstream, self.slot, self.born = sock, upstream, slot, now
        self.uses = self.misses = 0
        self.pending: dict[int, Pending] = {}
        self.answered: set[int] = set()


class Upstream:
    """One server: its address, its failures in a row and its quirks (FOLDS | PLAIN), and its pool of sockets.

    Kernels share the two numbers.

    host: the address, empty while a name has none. looping: its questions come back to this listener.
    """

    def __init__(
        self,
        endpoint: UpstreamAddress,
        failures: NDArray[np.int64],
        mismatched: NDArray[np.int64] | None = None,
        quirks: NDArray[np.int64] | None = None,
    ) -> None:
        self.endpoint, self.port = endpoint, endpoint.port
        self.host = endpoint.host if endpoint.has_address else ""
        self.failures = failures.data
        self.looping = False
        self.mismatched = np.zeros(1, np.int64).data if mismatched is None else mismatched.data
        self.quirks = np.zeros(1, np.int64).data if quirks is None else quirks.data
        self.warned = -math.inf
        self.slots: list[UpstreamSocket | None] = [None] * POOL_SIZE

    @property
    def by_udp(self) -> bool:
        """Whether it can be asked in datagrams now."""
        return self.endpoint.transport == "udp" and bool(self.host) and not self.looping

    def open(self, slot: int, random: Random16, now: float) -> UpstreamSocket:
        """Put a fresh socket on a random port into a slot of the pool. Raises OSError."""
        if not self.host:
            raise OSError(errno.EHOSTUNREACH, "the name has no address")
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            _bind_random(sock, random)
            sock.connect((self.host, self.port))
        except OSError:
            sock.close()
            raise
        fresh = self.slots[slot] = UpstreamSocket(sock, self, slot, now)
        return fresh


def _bind_random(sock: socket.socket, random: Random16) -> None:
    """Bind to a random unprivileged port; the kernel chooses (at random too) if luck is bad."""
    host = "::" if sock.family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 - an upstream may be anywhere
    for _ in range(BIND_TRIES):
        port = random.draw()
        if port < PORT_MIN:
            continue
        try:
            sock.bind((host, port))
        except OSError:
            continue
        return
    sock.bind((host, 0))


class Zone:
    """Upstreams that share a zone's questions; `preferred` is the index of the first (kernels share the number)."""

    def __init__(self, upstreams: Sequence[Upstream], preferred: NDArray[np.int64]) -> None:
        self.upstreams = tuple(upstreams)
        self.preferred = preferred.data

    def places(self) -> list[int]:
        """Indexes of all upstreams, the preferred one first."""
        first, count = self.preferred[0], len(self.upstreams)
        return [(first + step) % count for step in range(count)]

    def note_failure(self, index: int) -> None:
        """Count a failure; a preferred upstream that keeps silent hands over to the next."""
        upstream = self.upstreams[index]
        upstream.failures[0] += 1
        if index == self.preferred[0] and upstream.failures[0] >= FAILURES_BEFORE_SWITCH:
            self.preferred[0] = (index + 1) % len(self.upstreams)


class AnsweredHere(Protocol):
    """Names that are not forwarded: `name`, in lower-case wire form, and all below it.

    recorded: whether a query for one becomes a record.
    """

    @property
    def recorded(self) -> bool: ...

    @property
    def name(self) -> bytes: ...

    def reply(self, query: bytes, end: int) -> bytes: ...


class Routes:
    """Longest zone that a name lies in, at label boundaries, case-insensitively; zone "" takes the rest.

    Raises SettingsError for a zone that is no domain name. Upstreams named in several zones are shared.
    `failures` and `quirks` (one an upstream) and `preferred` (one a zone) are arrays, which kernels share. special:
    names that are answered here; an upstream for the same name is asked instead. mismatched: counts each upstream's
    datagrams that answered nothing, in the order of `distinct_of`; its own memory unless given.
    """

    def __init__(
        self,
        upstreams: Sequence[tuple[str, Sequence[UpstreamAddress | tuple[str, int]]]],
        special: Iterable[AnsweredHere] = (),
        mismatched: NDArray[np.int64] | None = None,
    ) -> None:
        wanted = {
            _zone_name(zone): [UpstreamAddress(*one) for one in endpoints] for zone, endpoints in upstreams if endpoints
        }
        distinct = distinct_of(wanted.values())
        self.failures, self.preferred = np.zeros(len(distinct), np.int64), np.zeros(len(wanted), np.int64)
        self.mismatched = np.zeros(len(distinct), np.int64) if mismatched is None else mismatched
        self.quirks = np.zeros(len(distinct), np.int64)
        self.upstreams = {
            endpoint: Upstream(
                endpoint, self.failures[at : at + 1], self.mismatched[at : at + 1], self.quirks[at : at + 1]
            )
            for at, endpoint in enumerate(distinct)
        }
        self.zones = {
            name: Zone([self.upstreams[endpoint] for endpoint in endpoints], self.preferred[at : at + 1])
            for at, (name, endpoints) in enumerate(wanted.items())
        }
        self.special = {one.name: one for one in special if one.name not in self.zones}
        self._default = self.zones.get(b"")

    def find(self, qname: bytes) -> Zone | AnsweredHere | None:
        """The zone for a wire name, who answers it here, or None if no upstream is responsible."""
        name, at = qname.lower(), 0
        while at < len(name):
            found = self.zones.get(name[at:]) or self.special.get(name[at:])
            if found is not None:
                return found
            at += name[at] + 1
        return self._default


def distinct_of(zones: Iterable[Sequence[UpstreamAddress]]) -> list[UpstreamAddress]:
    """Each upstream once, in the order in which zones name them."""
    return list(dict.fromkeys(endpoint for endpoints in zones for endpoint in endpoints))


def _zone_name(zone: str) -> bytes:
    try:
        return names.from_text(zone.strip().rstrip(".")).lower()
    except NameFormatError as error:
        raise SettingsError(f"cannot use upstream zone {zone[:80]!r}: {error}") from None


def system_resolvers(path: Path = _RESOLV_CONF) -> list[UpstreamAddress]:
    """Name servers of resolv.conf(5), port 53; [] if the file is missing or names none."""
    named = [line[1] for line in _resolver_lines(path) if len(line) >= 2 and line[0] == "nameserver"]
    return [UpstreamAddress(host, PORTS["udp"]) for host in named if _is_address(host)]


def search_domains(path: Path = _RESOLV_CONF) -> list[str]:
    """Domains that resolv.conf(5) completes names with; of several such lines the last one counts."""
    lists = [line[1:] for line in _resolver_lines(path) if line and line[0] in ("search", "domain")]
    return lists[-1] if lists else []


def _resolver_lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text("utf-8", "replace").splitlines()]
    except OSError:
        return []


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
