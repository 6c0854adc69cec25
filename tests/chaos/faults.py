"""The faults: what each does to the system, and what says that the product has come through it."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from agents.core.errors import BusyError
from agents.learning.baseline import model_bytes
from agents.runtime.bootstrap import load_settings, registry_of
from agents.scoring.model import Model
from agents.sources.listener.cache_kernels import FAILURE_S
from tests.chaos.clients import (
    FLOOD,
    FUZZ,
    HAMMER,
    NOERROR,
    ORDINARY,
    PATIENCE_S,
    SLOTS,
    SLOW_ZONE,
    TRIES,
    Flood,
    query,
)
from tests.chaos.surroundings import TTL_S, fill_up
from tests.chaos.system import System, can_mount, can_set_clock, soon
from tests.support.commands import BASE, environment
from tests.support.patience import patient

PAUSES_S = {"webhook": (8.0, 20.0), "clock": (10.0, 25.0), "dead upstreams": (25.0, 45.0)}
"""Between two faults of a lane; others take PAUSE_S. A channel that fails is not tried for a while."""
PAUSE_S = (0.5, 2.0)
LONG_S, HALF_SENT, SLOTS_TAKEN = 6.0, 1100, 300
FLOOD_PER_S, SILENT_PER_S, FUZZ_PER_S, HAMMER_PER_S = 6000, 4000, 20_000, 10_000
STEP_S = 400 * 86_400
STALE_NAMES = 40


@dataclass
class Notes:
    """What faults found out on their way; times are time.monotonic()."""

    hostile: int = 0  # datagrams of hostile clients
    malformed: int = 0  # of those, noise
    restarts: list[tuple[float, float]] = field(default_factory=list)  # from when to when nobody listened
    dark: list[tuple[float, float]] = field(default_factory=list)  # from when to when no upstream answered
    clock_steps: int = 0
    tidied: list[str] = field(default_factory=list)  # what tidy said while the clock was ahead
    disk: threading.Lock = field(default_factory=threading.Lock)  # held by who fills it, and by who deploys a model
    timeline: list[tuple[float, float, str]] = field(default_factory=list)

    def apart(self, spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Those in which the product was not being started again, and some upstream answered."""
        excused = (*self.restarts, *self.dark)
        return [one for one in spans if not any(one[0] < end and begin < one[1] for begin, end in excused)]

    def during(self, begin: float, end: float) -> str:
        """Names of the faults that were done then."""
        return " + ".join(name for since, until, name in self.timeline if since < end and begin < until) or "nothing"

    def with_their_caches(self, spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Those in which no listener was ended: one that is made anew has an empty cache."""
        return [one for one in spans if not any(word in self.during(*one) for word in ("listener", "SIGTERM"))]

    stale_asked: int = 0
    stale_failed: list[tuple[float, float]] = field(default_factory=list)  # when asked first, and when in vain
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


def _reload(system: System, random_: random.Random, notes: Notes) -> None:
    with notes.disk:
        _deploy(system, random_)


def _deploy(system: System, random_: random.Random) -> None:
    registry = registry_of(load_settings(data_dir=system.product.folder))
    shipped = Model.from_bytes(model_bytes())
    model = replace(shipped, manifest={**shipped.manifest, "parent": f"chaos {random_.random()}"})

    def deployed() -> bool:
        try:
            with registry.lock():
                registry.save_candidate(model)
                registry.promote(model.model_id)
        except BusyError:  # what was stopped while it held the lock; a person would ask again, too
            return False
        return True

    soon(deployed, 40)
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


def _component(system: System, name: str) -> dict[str, Any]:
    """A component of /health; nothing while the console does not answer."""
    try:
        found: dict[str, Any] = system.product.client.get("/health").json()["components"].get(name, {})
    except httpx.TransportError:
        return {}
    return found


def _full(everywhere: bool) -> Act:
    """No room while the database does not answer: verdicts are lost, counted, and /health names the disk.

    everywhere: on the disk of DATA_DIR, too, where windows, outbox, models and signs of life lie.
    """

    def act(system: System, _: random.Random, notes: Notes) -> None:
        fillers: list[Path] = []
        with notes.disk:
            before = _component(system, "queue").get("lost")
            system.postgres.freeze()
            try:
                fillers += map(fill_up, system.disks if everywhere else system.disks[1:])
                soon(lambda: _component(system, "queue").get("lost", before) != before, 40)
                soon(lambda: _component(system, "disk").get("ok") is False, 40)
            finally:
                for filler in fillers:
                    filler.unlink()
                system.postgres.thaw()
        notes.full_disks += 1

    return act


def _stepped(system: System, _: random.Random, notes: Notes) -> None:
    """The wall clock goes 400 days ahead and back; somebody tidies meanwhile."""
    assert system.clock is not None
    system.clock.set_ahead(STEP_S)
    try:
        time.sleep(LONG_S / 2)
        done = subprocess.run(
            [*BASE, "tidy"],
            cwd=system.product.folder,
            env=environment(**system.product.settings),
            capture_output=True,
            timeout=patient(90),
            check=False,
        )
        notes.tidied.append(done.stdout.decode(errors="replace").strip())
    finally:
        system.clock.set_ahead(0)
    notes.clock_steps += 1


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


def _all_dead(system: System, random_: random.Random, notes: Notes) -> None:
    """No upstream answers: what is in the cache is answered, though it has expired."""
    names = [f"stale{random_.getrandbits(32):08x}.example" for _ in range(STALE_NAMES)]
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.bind((ORDINARY[0], 0))
        client.connect(("127.0.0.1", system.port))
        begun = time.monotonic()
        for _number in range(2):  # what was asked for twice stays in the cache
            known = _answered(client, names, random_)
        for upstream in system.upstreams.values():
            upstream.dead = True
        since = time.monotonic()
        try:
            time.sleep(TTL_S + 1)
            missing = known - _answered(client, sorted(known), random_)
        finally:
            for upstream in system.upstreams.values():
                upstream.dead = False
            notes.dark.append((since, time.monotonic() + FAILURE_S))
    notes.stale_asked += len(known)
    notes.stale_failed += [(begun, time.monotonic())] * len(missing)


def _answered(client: socket.socket, names: Sequence[str], random_: random.Random) -> set[str]:
    """Those of the names for which the listener has an address, asked as often as a patient client asks."""
    found: set[str] = set()
    for _ in range(TRIES):
        asked = {random_.randrange(65536): name for name in names if name not in found}
        with contextlib.suppress(ConnectionRefusedError):
            for ident, name in asked.items():
                client.send(query(ident, name, 1))
        end = time.monotonic() + PATIENCE_S
        while asked and (left := end - time.monotonic()) > 0:
            client.settimeout(left)
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                answer = client.recv(4096)
                name = asked.pop(int.from_bytes(answer[:2]), "")
                if name and answer[3] & 15 == NOERROR:
                    found.add(name)
    return found


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
        yield Fault("database", "SIGSTOP of Postgres and the spool's disk full", _full(everywhere=False))
        yield Fault("database", "SIGSTOP of Postgres and all disks full, DATA_DIR's too", _full(everywhere=True))
    if can_set_clock():
        yield Fault("clock", f"the wall clock {STEP_S // 86_400} days ahead, and back", _stepped)
    for mode, words in (("hangs", "never answers"), ("refuses", "answers 503"), ("closes", "closes at once")):
        yield Fault("webhook", f"webhook {words}", _channel(mode))
    yield Fault("webhook", "webhook answers a byte a second", _channel("dribbles"))
    yield Fault("upstreams", "first upstream silent", _upstream("silent"))
    yield Fault("dead upstreams", "all upstreams dead, the cache on", _all_dead)
    yield Fault("upstreams", "first upstream forges: wrong ids before each answer", _upstream("lying"))
    yield Fault(
        "floods", f"random names, {FLOOD_PER_S:,} a second from one client", _floods(FLOOD, "names", FLOOD_PER_S)
    )
    silent = _floods(SLOW_ZONE, "silent", SILENT_PER_S)
    yield Fault("floods", f"a zone whose upstream is silent, {SILENT_PER_S:,} a second", silent)
    yield Fault("floods", f"noise, {FUZZ_PER_S:,} datagrams a second", _floods(FUZZ, "malformed", FUZZ_PER_S))
    hammer = _floods(HAMMER, "cached", HAMMER_PER_S)
    yield Fault("floods", f"cached names, {HAMMER_PER_S:,} a second from one client", hammer)
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
        except (AssertionError, OSError, httpx.HTTPError, subprocess.TimeoutExpired) as error:
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
