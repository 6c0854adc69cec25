"""Where questions go: zones with their upstream servers, and the sockets that reach them.

Source ports and ids against forged answers (RFC 5452 sections 4.3 and 9.2). Each upstream has a pool of
connected UDP sockets on random ports from 1024..65535; a query takes a random socket of the pool and a random
id on it, both from the kernel's generator. A socket is replaced after USES_MAX queries or AGE_MAX_S seconds.
A forger who does not see the traffic must send the upstream's address, the client's exact question bytes, one
of the POOL_SIZE open ports among 64,512, and the one id that the question has on just that port: one chance
in 2^32, or in 2^27 for one who has found the pool's ports out otherwise and must only guess socket and id before
they change. COST_NOTE
A connected socket also lets the kernel discard other senders' datagrams and report a dead upstream at once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agents import names, wire
from agents.errors import NameFormatError, SettingsError

POOL_SIZE = 32
USES_MAX = 512
AGE_MAX_S = 10.0
FAILURES_BEFORE_SWITCH = 3
"""Time-outs in a row after which a zone's next upstream is asked first."""

_RANDOM_BLOCK = 4096
_BIND_TRIES = 8
_RESOLV_CONF = Path("/etc/resolv.conf")

Endpoint = tuple[str, int]


class Random16:
    """Random numbers 0..65535 from the kernel's generator, drawn in blocks: one system call per 2,048."""

    def __init__(self) -> None:
        self._block, self._at = b"", 0

    def draw(self) -> int:
        if self._at == len(self._block):
            self._block, self._at = os.urandom(_RANDOM_BLOCK), 0
        at = self._at
        self._at = at + 2
        return self._block[at] << 8 | self._block[at + 1]


class Where(Protocol):
    """What an answer is handed to: a UDP port or a TCP connection; `back` is its own business."""

    def send(self, message: bytes, back: Any) -> None: ...


@dataclass(slots=True, eq=False)
class Pending:
    """One forwarded query until it is answered or given up. ts: Unix seconds; others: monotonic."""

    query: bytes
    question: wire.Question
    client: str
    where: Where
    back: Any
    udp: bool
    zone: Zone
    ts: float
    question_bytes: bytes
    asked: int  # index of the upstream that is asked now
    tries: int = 0
    started: float = 0.0
    deadline: float = 0.0

    def matches(self, answer: bytes) -> bool:
        """True if the answer is a response (QR set, opcode QUERY) to this very question, case included."""
        return (
            answer[2] & 0xF8 == 0x80
            and answer[4:6] == b"\0\1"
            and answer.startswith(self.question_bytes, wire.HEADER_SIZE)
        )


class UpstreamSocket:
    """One connected UDP socket; `pending` holds what was asked on it, by id, oldest first."""

    __slots__ = ("born", "pending", "sock", "upstream", "uses")

    def __init__(self, sock: socket.socket, upstream: Upstream, now: float) -> None:
        self.sock, self.upstream, self.born = sock, upstream, now
        self.uses = 0
        self.pending: dict[int, Pending] = {}


class Upstream:
    """One server: its address and its pool of sockets."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.host, self.port = endpoint
        self.failures = 0
        self.slots: list[UpstreamSocket | None] = [None] * POOL_SIZE

    def open(self, random: Random16, now: float) -> UpstreamSocket:
        """A fresh socket on a random port. Raises OSError (no route, no file descriptors)."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            _bind_random(sock, random)
            sock.connect((self.host, self.port))
        except OSError:
            sock.close()
            raise
        return UpstreamSocket(sock, self, now)


def _bind_random(sock: socket.socket, random: Random16) -> None:
    """Bind to a random unprivileged port; the kernel chooses (at random too) if luck is bad."""
    host = "::" if sock.family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104 - an upstream may be anywhere
    for _ in range(_BIND_TRIES):
        port = random.draw()
        if port < 1024:
            continue
        try:
            sock.bind((host, port))
        except OSError:
            continue
        return
    sock.bind((host, 0))


class Zone:
    """Upstreams that share a zone's questions; `preferred` is the one that is asked first."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = tuple(upstreams)
        self.preferred = 0

    def note_timeout(self, index: int) -> None:
        """Count a time-out; a preferred upstream that keeps silent hands over to the next."""
        upstream = self.upstreams[index]
        upstream.failures += 1
        if index == self.preferred and upstream.failures >= FAILURES_BEFORE_SWITCH:
            self.preferred = (index + 1) % len(self.upstreams)


class Routes:
    """Longest zone that a name lies in, at label boundaries, case-insensitively; zone "" takes the rest.

    Raises SettingsError for a zone that is no domain name. Upstreams named in several zones are shared.
    """

    def __init__(self, upstreams: Sequence[tuple[str, Sequence[Endpoint]]]) -> None:
        self.upstreams: dict[Endpoint, Upstream] = {}
        self._zones: dict[bytes, Zone] = {}
        for zone, endpoints in upstreams:
            if endpoints:
                servers = [self.upstreams.setdefault(endpoint, Upstream(endpoint)) for endpoint in endpoints]
                self._zones[_zone_name(zone)] = Zone(servers)
        self._default = self._zones.get(b"")
        self._only_default = set(self._zones) == {b""}

    def find(self, qname: bytes) -> Zone | None:
        """The zone for a wire name, or None if no upstream is responsible."""
        if self._only_default:
            return self._default
        name, at = qname.lower(), 0
        while at < len(name):
            zone = self._zones.get(name[at:])
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
    return [(word[1], 53) for word in words if len(word) >= 2 and word[0] == "nameserver"]
