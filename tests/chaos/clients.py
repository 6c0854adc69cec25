"""Three kinds of clients, each at addresses of its own: ordinary, quiet (a tunnel), hostile."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from agents.dns.name import from_text, to_text
from agents.learning.baseline import golden_sessions
from tests.chaos.surroundings import SPAWN, Worker
from tests.support.patience import patient

ORDINARY = ("127.0.1.1", "127.0.1.2", "127.0.1.3")
QUIET = "127.0.2.1"
FLOOD, SLOW_ZONE, FUZZ, SLOTS, HAMMER = "127.0.3.1", "127.0.4.1", "127.0.5.1", "127.0.6.1", "127.0.7.1"
"""Addresses of hostile clients. Each has its network of 24 bits to itself, as limits of rate count by network."""
PATIENCE_S, TRIES = 5.0, 3
"""How long a client waits before it asks again, as glibc's resolver does, and how often it asks (resolv.conf(5))."""
SITES = ("www", "mail", "api", "cdn", "img", "login")
HAMMERED = 20
"""Names that the client asks for again and again which hammers the cache."""
TUNNEL_QUERIES, TUNNEL_PER_S = 60, 6.0
NOERROR, SERVFAIL = 0, 2


def query(ident: int, name: str, qtype: int) -> bytes:
    """A question with recursion desired (RFC 1035 section 4.1)."""
    return struct.pack("!HHHHHH", ident, 0x0100, 1, 0, 0, 0) + from_text(name) + b"\0" + struct.pack("!HH", qtype, 1)


@dataclass(slots=True)
class Told:
    """What a client met with."""

    queries: int = 0  # names it wanted
    sent: int = 0  # datagrams, repeated ones included
    rcodes: Counter[int] = field(default_factory=Counter)
    in_vain: list[tuple[float, float]] = field(default_factory=list)  # when asked first and given up, of each
    failed: list[tuple[float, float]] = field(default_factory=list)  # when asked and answered SERVFAIL, of each


class Client:
    """Asks `name()` so often a second from `address`, and again where nothing comes.

    window: with so many queries without an answer it asks for nothing new, and repeats them for ever; 0 = no window.
    """

    def __init__(
        self,
        address: str,
        port: int,
        per_s: float,
        name: Callable[[], tuple[str, int]],
        seed: int,
        window: int = 0,
    ) -> None:
        self.told, self._window = Told(), window
        self._name, self._gap_s, self._random = name, 1 / per_s, random.Random(seed)
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._waiting: dict[int, tuple[float, int, bytes]] = {}  # by id: when to ask again, how often asked, message
        self._due = time.monotonic()
        self.asking = True
        self._worker = Worker(self._step)

    def _step(self) -> None:
        now = time.monotonic()
        while self.asking and self._due <= now:
            self._due = max(self._due + self._gap_s, now - 1)
            if not self._window or len(self._waiting) < self._window:
                self._ask(now, *self._name())
        for ident, (again, tries, message) in list(self._waiting.items()):
            if again > now:
                break
            del self._waiting[ident]
            if tries == TRIES and not self._window:
                self.told.in_vain.append((now - TRIES * PATIENCE_S, now))
            else:
                self._send(now, ident, tries + 1, message)
        select.select([self._socket], [], [], max(min(self._due - now, 0.02), 0.001))
        self._receive()

    def _ask(self, now: float, name: str, qtype: int) -> None:
        ident = self._random.randrange(65536)
        if ident not in self._waiting:
            self.told.queries += 1
            self._send(now, ident, 1, query(ident, name, qtype))

    def _send(self, now: float, ident: int, tries: int, message: bytes) -> None:
        self._waiting[ident] = (now + PATIENCE_S, tries, message)
        self.told.sent += 1
        try:
            self._socket.send(message)
        except ConnectionRefusedError:  # nobody listens just now; the kernel says so once, and sends nothing
            self.told.sent -= 1

    def _receive(self) -> None:
        while True:
            try:
                answer = self._socket.recv(4096)
            except (BlockingIOError, ConnectionRefusedError):
                return
            waiting = self._waiting.pop(int.from_bytes(answer[:2]), None)
            if waiting is not None:
                self.told.rcodes[answer[3] & 15] += 1
                if answer[3] & 15 == SERVFAIL:
                    self.told.failed.append((waiting[0] - PATIENCE_S, time.monotonic()))

    def finish(self) -> None:
        """Ask for nothing new, wait for what is due, but not for ever, and end."""
        self.asking, end = False, time.monotonic() + patient(60)
        while self._waiting and time.monotonic() < end:
            time.sleep(0.05)
        self._worker.stop()
        self._socket.close()


def ordinary(address: str, port: int, per_s: float, seed: int) -> Client:
    """Hosts of a few hundred domains, popular ones more often."""
    random_ = random.Random(seed)

    def name() -> tuple[str, int]:
        domain = int(random_.paretovariate(1.0)) % 300
        return f"{random_.choice(SITES)}.site{domain}.example", random_.choice((1, 28))

    return Client(address, port, per_s, name, seed)


class QuietTunnel:
    """One tunnel after the other, each a real session's names below a new domain; little of it, and nothing else."""

    def __init__(self, port: int, seed: int) -> None:
        self.finished: dict[str, tuple[float, float]] = {}  # domains that were asked through, and when
        self._begun = 0.0
        labels = [to_text(one) for one in golden_sessions()["iodine-txt-base32"].qname]
        self._labels = [one.removesuffix("tunnel.test") for one in labels if one.endswith(".tunnel.test")]
        self._at = 0
        self.client = Client(QUIET, port, TUNNEL_PER_S, self._name, seed, window=8)

    def _name(self) -> tuple[str, int]:
        tunnel, number = divmod(self._at, TUNNEL_QUERIES)
        self._at += 1
        domain = f"q{tunnel}.test"  # no longer than the session's own: its names are as long as names can be
        if number == 0:
            self._begun = time.monotonic()
        if number == TUNNEL_QUERIES - 1:
            self.finished[domain] = self._begun, time.monotonic()
        return self._labels[number % len(self._labels)] + domain, 16


def _flood(address: str, port: int, per_s: int, kind: str, seed: int, sent: Synchronized[int], stop: Any) -> None:
    """Send until told to stop, whatever comes back; `sent` counts."""
    random_, begun = random.Random(seed), time.monotonic()
    make = {"names": _random_name, "silent": _silent_name, "malformed": _malformed, "cached": _cached_name}[kind]
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.bind((address, 0))
        while not stop.is_set():
            behind = int((time.monotonic() - begun) * per_s) - sent.value
            for _ in range(min(max(behind, 0), 500)):
                client.sendto(make(random_), ("127.0.0.1", port))
                sent.value += 1
            time.sleep(0.005)


def _random_name(random_: random.Random) -> bytes:
    return query(random_.randrange(65536), f"{random_.getrandbits(48):012x}.{random_.getrandbits(32):08x}.example", 1)


def _silent_name(random_: random.Random) -> bytes:
    return query(random_.randrange(65536), f"{random_.getrandbits(48):012x}.silent.test", 1)


def _cached_name(random_: random.Random) -> bytes:
    return query(random_.randrange(65536), f"hammered{random_.randrange(HAMMERED)}.example", 1)


def _malformed(random_: random.Random) -> bytes:
    """Noise, a torn question, or a question in which some bytes are others: at times a new name, at times nonsense."""
    whole = bytearray(_random_name(random_))
    kind = random_.randrange(3)
    if kind == 0:
        return random_.randbytes(random_.randrange(0, 80))
    if kind == 1:
        return bytes(whole[: random_.randrange(len(whole))])
    for _ in range(random_.randrange(1, 6)):
        whole[random_.randrange(len(whole))] = random_.randrange(256)
    return bytes(whole)


class Flood:
    """A hostile client: a process that sends `kind` ("names", "silent", "malformed", "cached"), per_s a second."""

    def __init__(self, address: str, port: int, per_s: int, kind: str, seed: int) -> None:
        self._sent, self._stop = SPAWN.Value("q", 0), SPAWN.Event()
        given = (address, port, per_s, kind, seed, self._sent, self._stop)
        self._process = SPAWN.Process(target=_flood, args=given, daemon=True)
        self._process.start()

    def stop(self) -> int:
        """End it; how many datagrams it sent."""
        self._stop.set()
        self._process.join()
        return int(self._sent.value)
