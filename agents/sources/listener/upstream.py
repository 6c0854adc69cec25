"""Where questions go: zones with their upstream servers, and the sockets that reach them.

Source ports and ids against forged answers (RFC 5452 sections 4.3 and 9.2). Each upstream has a pool of
connected UDP sockets on random ports from 1024..65535; a query takes a random socket of the pool and a random
id on it, both from the kernel's generator. A socket is replaced after USES_MAX queries or AGE_MAX_S seconds.
A forger who does not see the traffic must send, from the upstream's address and with the client's exact
question bytes, the one port of 64,512 and the one id that this query has: one chance in 2^32 a packet, or
in 2^21 if the forger has found the pool's ports before they change. A fresh socket a query would keep 2^32
there, but costs 14 microseconds a query where all the forwarding costs 20; the pool's sockets cost 0.03.
A connected socket also lets the kernel discard other senders' datagrams and report a dead upstream at once.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import NameFormatError, SettingsError
from agents.dns import name as names
from agents.dns.message import HEADER_SIZE

POOL_SIZE = 32
USES_MAX = 512
AGE_MAX_S = 10.0
FAILURES_BEFORE_SWITCH = 3
"""Failures in a row after which a zone's next upstream comes first."""

RANDOM_BLOCK = 4096
"""Bytes drawn at once from the kernel's generator."""
BIND_TRIES = 8
PORT_MIN = 1024
"""Lowest source port: those below belong to services."""
_RESOLV_CONF = Path("/etc/resolv.conf")

Endpoint = tuple[str, int]


def parse_upstreams(text: str) -> list[tuple[str, list[Endpoint]]]:
    """Parse UPSTREAMS into [(zone, [(address, port), …]), …]; zone "" = everything else.

    A zone stands before "="; addresses without a zone belong to "". `a=1.1.1.1,b=2.2.2.2,3.3.3.3`
    gives zone a, zone b and one default. Raises ValueError.
    """
    zones: dict[str, list[Endpoint]] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        zone, equals, address = part.rpartition("=")
        if equals and not zone.strip("."):
            raise ValueError(f"{part!r} has no zone before '='")
        _must_be_a_name(zone.strip())
        zones.setdefault(zone.strip().rstrip(".").lower(), []).append(_endpoint(address.strip()))
    return list(zones.items())


def _must_be_a_name(zone: str) -> None:
    try:
        names.from_text(zone)
    except NameFormatError as error:
        raise ValueError(str(error)) from None


def _endpoint(text: str) -> Endpoint:
    host, port = text, "53"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not [address]:port")
        port = rest[1:] or "53"
    elif text.count(":") == 1:
        host, port = text.split(":")
    ipaddress.ip_address(host)
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


class Where(Protocol):
    """Takes an answer: a UDP port or a TCP connection; `back` is its own business."""

    def send(self, message: bytes, back: Any) -> None: ...


class Pending:
    """One forwarded query until it is answered or given up.

    end: offset behind the question; client: 16 address bytes; ts: Unix seconds; current: index of the upstream
    that has the query now; tries: upstreams that failed; started and deadline: monotonic seconds.
    """

    __slots__ = (
        *("query", "end", "client", "where", "back", "udp", "zone", "ts"),
        *("current", "tries", "started", "deadline"),
    )

    def __init__(
        self, query: bytes, end: int, client: bytes, where: Where, back: Any, udp: bool, zone: Zone, ts: float
    ) -> None:
        self.query, self.end, self.client, self.ts = query, end, client, ts
        self.where, self.back, self.udp, self.zone = where, back, udp, zone
        self.current = zone.preferred[0]
        self.tries = 0
        self.deadline = self.started = 0.0

    def matches(self, answer: bytes) -> bool:
        """True if the answer is a response (QR set, opcode QUERY) to this very question, case included."""
        return (
            answer[2] & 0xF8 == 0x80
            and answer[4:6] == b"\0\1"
            and answer.startswith(self.query[HEADER_SIZE : self.end], HEADER_SIZE)
        )


class UpstreamSocket:
    """One connected UDP socket; `pending` holds the queries sent on it that wait, by id, oldest first."""

    __slots__ = ("born", "pending", "slot", "sock", "upstream", "uses")

    def __init__(self, sock: socket.socket, upstream: Upstream, slot: int, now: float) -> None:
        self.sock, self.upstream, self.slot, self.born = sock, upstream, slot, now
        self.uses = 0
        self.pending: dict[int, Pending] = {}


class Upstream:
    """One server: its address, its failures in a row (one number, which kernels share), and its pool of sockets."""

    def __init__(self, endpoint: Endpoint, failures: NDArray[np.int64]) -> None:
        self.host, self.port = endpoint
        self.failures = failures.data
        self.slots: list[UpstreamSocket | None] = [None] * POOL_SIZE

    def open(self, slot: int, random: Random16, now: float) -> UpstreamSocket:
        """Put a fresh socket on a random port into a slot of the pool. Raises OSError."""
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

    def note_failure(self, index: int) -> None:
        """Count a failure; a preferred upstream that keeps silent hands over to the next."""
        upstream = self.upstreams[index]
        upstream.failures[0] += 1
        if index == self.preferred[0] and upstream.failures[0] >= FAILURES_BEFORE_SWITCH:
            self.preferred[0] = (index + 1) % len(self.upstreams)


class Routes:
    """Longest zone that a name lies in, at label boundaries, case-insensitively; zone "" takes the rest.

    Raises SettingsError for a zone that is no domain name. Upstreams named in several zones are shared.
    `failures` (one an upstream) and `preferred` (one a zone) are arrays, which kernels share.
    """

    def __init__(self, upstreams: Sequence[tuple[str, Sequence[Endpoint]]]) -> None:
        wanted = {_zone_name(zone): endpoints for zone, endpoints in upstreams if endpoints}
        distinct = list(dict.fromkeys(endpoint for endpoints in wanted.values() for endpoint in endpoints))
        self.failures, self.preferred = np.zeros(len(distinct), np.int64), np.zeros(len(wanted), np.int64)
        self.upstreams = {
            endpoint: Upstream(endpoint, self.failures[at : at + 1]) for at, endpoint in enumerate(distinct)
        }
        self.zones = {
            name: Zone([self.upstreams[endpoint] for endpoint in endpoints], self.preferred[at : at + 1])
            for at, (name, endpoints) in enumerate(wanted.items())
        }
        self._default = self.zones.get(b"")
        self._only_default = set(self.zones) == {b""}

    def find(self, qname: bytes) -> Zone | None:
        """The zone for a wire name, or None if no upstream is responsible."""
        if self._only_default:
            return self._default
        name, at = qname.lower(), 0
        while at < len(name):
            zone = self.zones.get(name[at:])
            if zone is not None:
                return zone
            at += name[at] + 1
        return self._default


def _zone_name(zone: str) -> bytes:
    try:
        return names.from_text(zone.strip().rstrip(".")).lower()
    except NameFormatError as error:
        raise SettingsError(f"cannot use upstream zone {zone[:80]!r}: {error}") from None


def system_resolvers(path: Path = _RESOLV_CONF) -> list[Endpoint]:
    """Name servers of resolv.conf(5), port 53; [] if the file is missing or names none."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    named = [word[1] for word in words if len(word) >= 2 and word[0] == "nameserver"]
    return [(host, 53) for host in named if _is_address(host)]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
