"""The faults: what each does to the system, and what says that the product has come through it."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from agents.learning.baseline import model_bytes
from agents.runtime.bootstrap import load_settings, registry_of
from agents.scoring.model import Model
from tests.chaos.clients import FLOOD, FUZZ, ORDINARY, SLOTS, SLOW_ZONE, Flood, query
from tests.chaos.system import System, can_mount, soon
from tests.support.patience import patient

PAUSES_S = {"webhook": (8.0, 20.0)}
"""Between two faults of a lane; others take PAUSE_S. A channel that fails is not tried for a while."""
PAUSE_S = (0.5, 2.0)
LONG_S, HALF_SENT, SLOTS_TAKEN = 6.0, 1100, 300
FLOOD_PER_S, SILENT_PER_S, FUZZ_PER_S = 6000, 4000, 20_000


@dataclass
class Notes:
    """What faults found out on their way; times are time.monotonic()."""

    hostile: int = 0  # datagrams of hostile clients
    malformed: int = 0  # of those, noise
    restarts: list[tuple[float, float]] = field(default_factory=list)  # from when to when nobody listened
    timeline: list[tuple[float, float, str]] = field(default_factory=list)

    def apart(self, spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Those in which the product was not being started again."""
        return [one for one in spans if not any(one[0] < end and begin < one[1] for begin, end in self.restarts)]

    def during(self, begin: float, end: float) -> str:
        """Names of the faults that were done then."""
        return " + ".join(name for since, until, name in self.timeline if since < end and begin < until) or "nothing"

    tcp_asked: int = 0
    tcp_failed: list[tuple[float, float]] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    full_disks: int = 0


Act = Callable[[System, random.Random, Notes], None]


@dataclass(frozen=True)
class Fault:
    """One kind. Faults of one lane follow each other, lanes go on side by side. act: does it, and returns after it."""

    lane: str
    name: str
    act: Act


def _replaced(system: System, name: str, old: int) -> bool:
    process = system.product.state().get("processes", {}).get(name, {})
    return bool(process.get("up")) and process["pid"] != old


def _ends(name: str, sent: signal.Signals) -> Act:
    def act(system: System, _: random.Random, __: Notes) -> None:
        old = system.product.pid(name)
        os.kill(old, sent)
        soon(lambda: _replaced(system, name, old), 40)

    return act


def _restart(system: System, _: random.Random, notes: Notes) -> None:
    begun = time.monotonic()
    system.restart()
    notes.restarts.append((begun, time.monotonic()))


def _reload(system: System, random_: random.Random, _: Notes) -> None:
    registry = registry_of(load_settings(data_dir=system.product.folder))
    shipped = Model.from_bytes(model_bytes())
    model = replace(shipped, manifest={**shipped.manifest, "parent": f"chaos {random_.random()}"})
    with registry.lock():
        registry.save_candidate(model)
        registry.promote(model.model_id)
    soon(lambda: system.product.state().get("model_id") == model.model_id, 20)


def _half_sent(system: System, _: random.Random, notes: Notes) -> None:
    held = []
    try:
        for _number in range(HALF_SENT):
            sock = socket.create_connection(("127.0.0.1", system.product.api_port), timeout=patient(20))
            held.append(sock)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it had enough of us
                sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        begun = time.monotonic()
        while time.monotonic() - begun < LONG_S:
            asked = time.monotonic()
            with httpx.Client(trust_env=False, timeout=patient(10)) as fresh:  # idle connections make room
                fresh.get(f"http://127.0.0.1:{system.product.api_port}/health")
            notes.health_s.append(time.monotonic() - asked)
            time.sleep(0.5)
    finally:
        for sock in held:
            sock.close()


def _frozen(system: System, _: random.Random, __: Notes) -> None:
    system.postgres.freeze()
    try:
        time.sleep(LONG_S)
    finally:
        system.postgres.thaw()


def _killed(system: System, _: random.Random, __: Notes) -> None:
    system.postgres.kill()
    time.sleep(LONG_S / 2)
    system.postgres.start()


def _slow(system: System, _: random.Random, __: Notes) -> None:
    system.relay.delay_s = 0.3
    try:
        time.sleep(LONG_S)
    finally:
        system.relay.delay_s = 0.0


def _full(system: System, _: random.Random, notes: Notes) -> None:
    """No room on the spool's disk while the database does not answer: verdicts are lost, and counted."""
    filler, before = system.spool / "filler", system.product.state().get("lost", 0)
    system.postgres.freeze()
    try:
        with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(bytes(4096))
        soon(lambda: system.product.state().get("lost", 0) != before, 30)
    finally:
        filler.unlink()
        system.postgres.thaw()
    notes.full_disks += 1


def _channel(mode: str) -> Act:
    def act(system: System, _: random.Random, __: Notes) -> None:
        system.channel.mode = mode
        time.sleep(LONG_S)
        system.channel.mode = "takes"

    return act


def _upstream(mode: str) -> Act:
    def act(system: System, _: random.Random, __: Notes) -> None:
        system.upstreams["first"].mode = mode
        time.sleep(LONG_S)
        system.upstreams["first"].mode = "true"

    return act


def _floods(address: str, kind: str, per_s: int) -> Act:
    def act(system: System, random_: random.Random, notes: Notes) -> None:
        flood = Flood(address, system.port, per_s, kind, random_.randrange(1 << 30))
        time.sleep(LONG_S)
        sent = flood.stop()
        notes.hostile += sent
        notes.malformed += sent if kind == "malformed" else 0

    return act


def _ask_by_tcp(port: int, number: int) -> None:
    message = query(number & 0xFFFF, f"tcp{number}.site1.example", 1)
    with socket.create_connection(("127.0.0.1", port), patient(5), (ORDINARY[0], 0)) as client:
        client.sendall(len(message).to_bytes(2) + message)
        size = client.recv(2, socket.MSG_WAITALL)
        answer = client.recv(int.from_bytes(size), socket.MSG_WAITALL)
        if answer[:2] != message[:2]:
            raise OSError(errno.ECONNRESET, "no answer")


def _slots(system: System, _: random.Random, notes: Notes) -> None:
    """All connections for TCP are held by one client, which asks nothing; another asks over TCP."""
    held: list[socket.socket] = []
    try:
        for _number in range(SLOTS_TAKEN):
            with contextlib.suppress(OSError):
                held.append(socket.create_connection(("127.0.0.1", system.port), 2, (SLOTS, 0)))
        begun = time.monotonic()
        while time.monotonic() - begun < LONG_S:
            notes.tcp_asked, asked = notes.tcp_asked + 1, time.monotonic()
            try:
                _ask_by_tcp(system.port, notes.tcp_asked)
            except OSError:
                notes.tcp_failed.append((asked, time.monotonic()))
            time.sleep(0.2)
    finally:
        for sock in held:
            sock.close()


def _kinds() -> Iterator[Fault]:
    for name in ("listener-1", "listener-2", "detector", "console"):
        yield Fault("processes", f"SIGSTOP of {name}", _ends(name, signal.SIGSTOP))
        yield Fault("processes", f"SIGKILL of {name}", _ends(name, signal.SIGKILL))
    yield Fault("processes", "SIGTERM and start again, as at an upgrade", _restart)
    yield Fault("processes", "another model is deployed", _reload)
    yield Fault("processes", f"{HALF_SENT:,} half-sent requests at the API", _half_sent)
    yield Fault("database", "SIGSTOP of Postgres", _frozen)
    yield Fault("database", "SIGKILL of Postgres", _killed)
    yield Fault("database", "Postgres slow, 0.3 s a message", _slow)
    if can_mount():
        yield Fault("database", "SIGSTOP of Postgres and the spool's disk full", _full)
    for mode, words in (("hangs", "never answers"), ("refuses", "answers 503"), ("closes", "closes at once")):
        yield Fault("webhook", f"webhook {words}", _channel(mode))
    yield Fault("webhook", "webhook answers a byte a second", _channel("dribbles"))
    yield Fault("upstreams", "first upstream silent", _upstream("silent"))
    yield Fault("upstreams", "first upstream forges: wrong ids before each answer", _upstream("lying"))
    yield Fault(
        "floods", f"random names, {FLOOD_PER_S:,} a second from one client", _floods(FLOOD, "names", FLOOD_PER_S)
    )
    silent = _floods(SLOW_ZONE, "silent", SILENT_PER_S)
    yield Fault("floods", f"a zone whose upstream is silent, {SILENT_PER_S:,} a second", silent)
    yield Fault("floods", f"noise, {FUZZ_PER_S:,} datagrams a second", _floods(FUZZ, "malformed", FUZZ_PER_S))
    yield Fault("floods", f"{SLOTS_TAKEN} TCP connections that ask nothing", _slots)


FAULTS = tuple(_kinds())


@dataclass
class Done:
    """How often a fault was done, and how long the longest took, with what the product did about it."""

    times: int = 0
    longest_s: float = 0.0
    error: str = ""


class Lane:
    """The faults of one lane in random order, round after round, the first round whole."""

    def __init__(self, faults: list[Fault], seed: str) -> None:
        self._faults, self._random = faults, random.Random(seed)
        self.done = {fault.name: Done() for fault in faults}

    def run(self, system: System, notes: Notes, until: float) -> None:
        """Until the time on time.monotonic() has come."""
        first = True
        while first or time.monotonic() < until:
            for fault in self._random.sample(self._faults, len(self._faults)):
                if not first and time.monotonic() >= until:
                    return
                self._do(fault, system, notes)
                time.sleep(self._random.uniform(*PAUSES_S.get(fault.lane, PAUSE_S)))
            first = False

    def _do(self, fault: Fault, system: System, notes: Notes) -> None:
        done, begun = self.done[fault.name], time.monotonic()
        try:
            fault.act(system, self._random, notes)
        except (AssertionError, OSError, httpx.HTTPError) as error:
            done.error = f"{type(error).__name__}: {error}"
        done.times += 1
        done.longest_s = max(done.longest_s, time.monotonic() - begun)
        notes.timeline.append((begun, time.monotonic(), fault.name))


def lanes(seed: int, only: str = "") -> list[Lane]:
    """All lanes, or those faults whose name holds `only`."""
    names = dict.fromkeys(fault.lane for fault in FAULTS)
    chosen: dict[str, Any] = {
        name: [fault for fault in FAULTS if fault.lane == name and only in fault.name] for name in names
    }
    return [Lane(faults, f"{seed} {name}") for name, faults in chosen.items() if faults]
