"""The parent of `listen`, `run` and `collect`: forks listeners, a collector, a detector and others; starts again what
dies or hangs.

`api` and `schedule` have one, too, with one process each. It has one thread, no event loop and no database: what it
forks shares its pages. It holds the listeners' sockets, so that what is asked while a listener is started again waits
in the kernel and is answered, and the memory with all that is seen and not yet judged (stream/shared.py).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import structlog

from agents.core.errors import AgentsError, SettingsError, UsageError
from agents.dns.message import QR
from agents.runtime import warmup
from agents.runtime.bus.network_mirror import Detecting, run_mirror
from agents.runtime.bus.publisher_process import BATCH_MAX, BATCH_WAIT_S, Publishing, run_publisher
from agents.runtime.bus.worker_process import run_worker
from agents.runtime.judging.judge import JudgeParts
from agents.runtime.judging.loop import run_detector
from agents.runtime.listener_process import (
    COLLECTOR,
    RECEIVER,
    ListenerConfig,
    ListenerSockets,
    answer,
    follow,
    receive,
)
from agents.runtime.privileges import LIBC, PRIVILEGED_PORTS, User, become, drop_capabilities
from agents.runtime.several.exchange import Several
from agents.runtime.several.network_process import NETWORK_PROCESS, run_network
from agents.runtime.signals import ENDING, Beat, Signals
from agents.sources.collector import Collecting
from agents.sources.listener.sockets import UDP_MAX, bind_pairs, bind_probe
from agents.sources.live.addresses import PACKET
from agents.sources.live.receiver import Receiving
from agents.sources.live.sockets import LiveSocket, open_sockets
from agents.stream.shared import ChildState, SharedStream, shared_states
from agents.stream.slots import NO_PARTED

Work = Callable[[Callable[[], None], Beat], int]
"""What a process does: told what to call when it is ready and what as a sign of life, returns its exit code."""
PAUSE_S, PAUSE_MAX_S, LISTENER_PAUSE_MAX_S = 0.5, 30.0, 1.0
"""A process that dies is started again at once; where it dies again within STEADY_S, after so many seconds, twice as
many each time up to the most. A listener's share of the queries waits for it all the while."""
STEADY_S = 10.0
LISTENER_STOP_S, DETECTOR_STOP_S = 5.0, 20.0
"""A process that does not end within so many seconds of SIGTERM is killed. docker-compose.yml grants 30 in all."""
READY_S = 60.0
"""A process that is not ready after so many seconds hangs; it takes a few, also with 200,000 saved flows."""
SLOW_S = 2.0
"""After so many seconds the log says which processes have not ended."""
AT_ONCE_S = 1.0
"""Signals to end within so many seconds are one: make, a terminal or a service manager may each send theirs."""
LOOK_S = 0.1
WATCH_S = 1.0
"""Each listener is asked so often, and each process looked at."""
DETECTOR, PUBLISHER = "detector", "publisher"
"""Names of the process that judges, and of the one in its place that sends to where that is done."""
_SIGNALS = {*ENDING, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1  # prctl(2)
_QUESTION = b"\0\0\1\0\0\1\0\0\0\0\0\0\0\0\2\0\1"  # RFC 1035 section 4.1: . NS IN
_log = structlog.get_logger()


@dataclass(slots=True)
class Child:
    """One process of ours. stop_s: how long it may take to end, None = as long as it likes.

    needed: where it cannot start, none is started; else it is tried again while the others run.
    """

    name: str
    work: Work
    stop_s: float | None
    pid: int = 0  # 0 = it does not run
    reading: int = -1  # where it says how it does: "\n" when it is ready, an error as JSON
    started: float = 0.0
    pause_s: float = 0.0
    due: float = 0.0  # when it is to be started again; times are time.monotonic()
    code: int = 0  # how it ended last, negative = by that signal
    probe: tuple[str, int] | None = None  # where a listener is asked
    needed: bool = True


@dataclass(frozen=True)
class Plan:
    """What a supervisor runs: listeners, a collector, a receiver, a detector, and others by name.

    Of the first three there is one at least, but where `detecting` is set. judge_parts: called in the detector.
    optional: others that may fail to start without holding up an answer.
    """

    listener: ListenerConfig | None
    judge_parts: Callable[[], JudgeParts]
    queue_max: int
    batch_max: int
    batch_wait_s: float
    hang_s: float
    others: Sequence[tuple[str, Work]] = ()
    optional: Sequence[tuple[str, Work]] = ()
    run_as: User | None = None  # from the moment when the ports are held
    folders: Sequence[Path] = ()  # must be writable then
    collecting: Collecting | None = None
    receiving: Receiving | None = None
    several: Several | None = None  # detectors, in place of one with `judge_parts`
    publishing: Publishing | None = None  # in place of a detector: others judge
    detecting: Detecting | None = None  # detectors of what is heard elsewhere

    @property
    def names(self) -> list[str]:
        """Names of the processes that hear queries."""
        listeners = self.listener.names if self.listener else ()
        return [*listeners, *[COLLECTOR] * bool(self.collecting), *[RECEIVER] * bool(self.receiving)]

    @property
    def judging(self) -> list[str]:
        """Names of the processes that judge, or send to where that is done."""
        if self.publishing is not None:
            return [PUBLISHER]
        many = self.several or self.detecting
        return [DETECTOR] if many is None else [*many.exchange.names, NETWORK_PROCESS]


def supervise(plan: Plan, ready: Callable[[], None]) -> int:
    """Run all of a plan until SIGINT or SIGTERM; the exit code, 1 where one process did not end well.

    Raises AgentsError where one of them cannot start; then none is left.
    """
    config, names = plan.listener, plan.names
    sockets = _held(plan)
    warmup.up(lambda text: _log.info("kernels_compiling", note=text))
    warmup.judging()  # once, and all that is forked has it
    if plan.several is not None or plan.detecting is not None:
        warmup.sharing()
    if config:
        warmup.listening()
    _give_up_rights(plan)
    pairs = sockets.listeners[0].pairs if sockets.listeners else ()
    addresses = [f"{sock.getsockname()[0]} port {sock.getsockname()[1]}" for sock, _ in pairs]
    others = [(*one, True) for one in plan.others] + [(*one, False) for one in plan.optional]
    judging = plan.judging
    children, count = [*names, *judging, *(name for name, _, _ in others)], max(len(judging) - 1, 1)
    most, wait_s = plan.batch_max, plan.batch_wait_s
    if plan.publishing is not None:
        most, wait_s = max(most, BATCH_MAX), max(wait_s, BATCH_WAIT_S)
    parted = plan.several.exchange.parted.ranges if plan.several is not None else NO_PARTED
    stream = SharedStream(max(len(names), 1), plan.queue_max, children, most, wait_s, count, parted)
    signals = Signals(_SIGNALS)
    supervisor = ListeningSupervisor(
        signals,
        stream,
        _hearing(plan, stream, sockets),
        _judging(plan, stream, sockets),
        [Child(name, partial(_without, sockets, work), None, needed=needed) for name, work, needed in others],
        plan.hang_s,
    )
    gc.freeze()  # so that a collection in one process copies none of the pages that all share
    started = False
    with signals:
        try:
            if started := supervisor.start():
                _tell_started(plan, addresses)
                ready()
                supervisor.watch()
                _log.info("stopping")
        finally:
            sockets.end()
            code = supervisor.stop()
            if started:  # counts begin anew with the next start
                _log.info("stopped", **stream.sums())
            gc.unfreeze()
            stream.close()
    return code


def _judging(plan: Plan, stream: SharedStream, sockets: HeldSockets) -> list[Child]:
    """The processes that judge: a detector, or several and then the one that counts for all of them; or a publisher."""
    if plan.publishing is not None:
        works: list[tuple[str, Work]] = [(PUBLISHER, partial(run_publisher, plan.publishing, stream, plan.names))]
    elif plan.detecting is not None:
        detecting = plan.detecting
        works = [
            (name, partial(run_worker, detecting.working, name, stream.of(number)))
            for number, name in enumerate(detecting.exchange.names)
        ]
        works.append((NETWORK_PROCESS, partial(run_mirror, detecting, stream)))
    elif plan.several is None:
        works = [(DETECTOR, partial(run_detector, stream, plan.names, plan.judge_parts))]
    else:
        several, works = plan.several, []
        for number, name in enumerate(several.exchange.names):
            make = partial(several.make, name)
            works.append((name, partial(run_detector, stream.of(number), plan.names, make, alone=False)))
        works.append((NETWORK_PROCESS, partial(run_network, several, stream, plan.listener is not None)))
    return [Child(name, partial(_without, sockets, work), DETECTOR_STOP_S) for name, work in works]


def _give_up_rights(plan: Plan) -> None:
    """Give up what only opening the sockets needed, or say that root stays."""
    hears_packets = plan.receiving is not None and any(one.kind == PACKET for one in plan.receiving.addresses)
    low_port = plan.listener is not None and plan.listener.port < PRIVILEGED_PORTS
    if plan.run_as is not None:
        become(plan.run_as, plan.folders)
    if os.geteuid() != 0:
        drop_capabilities()  # also what was given to RUN_AS without root, by systemd or setcap
    elif low_port or hears_packets:
        needs = "the port needs" if low_port else "opening packet:// needs"
        _log.warning("runs_as_root", hint=f"set RUN_AS to a user that owns DATA_DIR: only {needs} root")


def _tell_started(plan: Plan, addresses: Sequence[str]) -> None:
    if plan.detecting:
        _log.info("detectors_started", processes=len(plan.detecting.exchange.names))
    if plan.listener:
        _log.info("listener_started", addresses=addresses, processes=len(plan.listener.names))
    if plan.collecting:
        _log.info("collector_started", files=plan.collecting.names)
    if plan.receiving:
        _log.info("receiver_started", intakes=plan.receiving.names)


def _hearing(plan: Plan, stream: SharedStream, sockets: HeldSockets) -> list[Child]:
    """The processes that hear queries, listeners first."""
    children = []
    if config := plan.listener:
        for at, (name, one) in enumerate(zip(config.names, sockets.listeners, strict=True)):
            work = partial(_answer, config, stream, at, sockets)
            children.append(Child(name, work, LISTENER_STOP_S, probe=one.probe.getsockname()))
    if plan.collecting:
        following = partial(follow, plan.collecting, stream, len(children))
        children.append(Child(COLLECTOR, partial(_without, sockets, following), LISTENER_STOP_S))
    if plan.receiving:
        hearing = partial(_receive, plan.receiving, stream, len(children), sockets)
        children.append(Child(RECEIVER, hearing, LISTENER_STOP_S))
    return children


def supervise_one(name: str, work: Work, hang_s: float) -> int:
    """Run one process until SIGINT or SIGTERM, and start it again where it dies or hangs; the exit code.

    Raises AgentsError where it cannot start.
    """
    signals, states = Signals(_SIGNALS), shared_states([name])
    supervisor = Supervisor(signals, states, [Child(name, work, None)], hang_s)
    with signals:
        try:
            if supervisor.start():
                supervisor.watch()
                _log.info("stopping")
        finally:
            code = supervisor.stop()
    return code


@dataclass(frozen=True, slots=True)
class HeldSockets:
    """What the supervisor holds for the processes that hear queries."""

    listeners: Sequence[ListenerSockets]
    live: Sequence[LiveSocket]

    def end(self) -> None:
        """Close all for good."""
        _close(self.listeners)
        for one in self.live:
            one.end()


def _held(plan: Plan) -> HeldSockets:
    """The sockets of a plan. Raises AgentsError where one cannot be opened; then none is left.

    Beside a listener no live intake raises: DNS is answered, and the receiver tries again.
    """
    listeners = _bound(plan.listener) if plan.listener else []
    if plan.receiving is None:
        return HeldSockets(listeners, [])
    try:
        hears = plan.receiving
        return HeldSockets(listeners, open_sockets(hears.addresses, hears.values, hears.ports, later=bool(listeners)))
    except AgentsError:
        _close(listeners)
        raise


def _bound(config: ListenerConfig) -> list[ListenerSockets]:
    pairs = bind_pairs(config.hosts, config.port, len(config.names))
    return [ListenerSockets(each, bind_probe()) for each in pairs]


def _answer(
    config: ListenerConfig,
    stream: SharedStream,
    at: int,
    sockets: HeldSockets,
    ready: Callable[[], None],
    beat: Beat,
) -> int:
    _close([*(other for number, other in enumerate(sockets.listeners) if number != at), *sockets.live])
    return answer(config, stream, at, sockets.listeners[at], ready, beat)


def _receive(
    receiving: Receiving,
    stream: SharedStream,
    at: int,
    sockets: HeldSockets,
    ready: Callable[[], None],
    beat: Beat,
) -> int:
    _close(sockets.listeners)
    return receive(receiving, sockets.live, stream, at, ready, beat)


def _without(sockets: HeldSockets, work: Work, ready: Callable[[], None], beat: Beat) -> int:
    _close([*sockets.listeners, *sockets.live])
    return work(ready, beat)


def _close(sockets: Sequence[ListenerSockets | LiveSocket]) -> None:
    for one in sockets:
        one.close()


class Watch:
    """Sees which processes do not move: it asks each listener, and looks at their cells in the shared memory.

    A listener is asked at a socket of its own, through the same thread that answers its clients; SO_REUSEPORT would
    hide which one answers. The question takes no upstream.
    """

    def __init__(self, children: Sequence[Child], states: Mapping[str, ChildState], hang_s: float) -> None:
        self._children, self._states, self._hang_s = children, states, hang_s
        self._asker = socket.socket(type=socket.SOCK_DGRAM)
        self._asker.setblocking(False)
        self._looked = self._since = time.monotonic()

    def close(self) -> None:
        self._asker.close()

    def hanging(self) -> list[Child]:
        """Processes that have not moved for `hang_s`, or not become ready; to be called every WATCH_S.

        Where this process itself was stopped meanwhile, or the machine, all have that time once more.
        """
        now, before = time.monotonic(), self._looked
        self._looked = now
        if now - before > 2 * WATCH_S:
            self._since = now
        self._hear()
        self._ask()
        if now - self._since < self._hang_s:
            return []
        return [child for child in self._children if child.pid and self._hangs(child, now)]

    def _hangs(self, child: Child, now: float) -> bool:
        state = self._states[child.name]
        if state.up:
            return state.still_s() > self._hang_s
        return now - max(child.started, self._since) > READY_S

    def _hear(self) -> None:
        asked = {child.probe: child for child in self._children if child.probe}
        with contextlib.suppress(OSError):  # no more has come, or one of them is just being started
            while True:
                message, peer = self._asker.recvfrom(UDP_MAX)
                if peer in asked and message[2] & QR:
                    self._states[asked[peer].name].note_answer()

    def _ask(self) -> None:
        for child in self._children:
            if child.probe:
                with contextlib.suppress(OSError):
                    self._asker.sendto(_QUESTION, child.probe)


class Supervisor:
    """Starts, watches and ends; the signals in _SIGNALS are waited for."""

    def __init__(
        self, signals: Signals, states: Mapping[str, ChildState], children: Sequence[Child], hang_s: float
    ) -> None:
        self._signals, self._asked = signals, 0.0
        self._states, self._children = states, children
        self._watch, self._hang_s = Watch(children, states, hang_s), hang_s

    def start(self) -> bool:
        """Start all, each when the one before is ready; False where a signal came first.

        Raises what one raised that is needed; `watch` starts others again.
        """
        for child in self._children:
            self._spawn(child)
            while not self._states[child.name].up:
                if self._signals.wait(0) in ENDING:
                    return False
                if not child.needed and (child.reading < 0 or time.monotonic() - child.started > LOOK_S):
                    break
                if select.select([child.reading], [], [], LOOK_S)[0]:
                    self._hear(child) if child.needed else self._note_word(child)
                elif time.monotonic() - child.started > READY_S:
                    raise AgentsError(f"cannot start process {child.name}: it was not ready after {READY_S:g} s")
        return True

    def watch(self) -> None:
        """Start again what dies or hangs, until SIGINT or SIGTERM."""
        look_at = 0.0
        while True:
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + WATCH_S
                self._end_hanging()
            for child in self._children:
                if _ended(child):
                    self._note_death(child)
                if not child.pid and time.monotonic() >= child.due:
                    self._spawn(child)
                elif child.pid and not self._states[child.name].up:
                    self._note_word(child)
            if self._signals.wait(self._pause()) in ENDING:
                return

    def stop(self) -> int:
        """End all; the exit code."""
        self._watch.close()
        self._asked = time.monotonic()
        self._end_all()
        return int(any(child.code for child in self._children))

    def _end_all(self) -> None:
        self._end(self._children)

    def _pause(self) -> float:
        """Seconds to wait for a signal: until the next start, or the next look."""
        dues = [child.due - time.monotonic() for child in self._children if not child.pid]
        dues += [LOOK_S for child in self._children if child.pid and not self._states[child.name].up]
        return max(min(dues, default=WATCH_S), 0.0)

    def _end_hanging(self) -> None:
        """Kill what does not move; it is started again like what dies by itself."""
        for child in self._watch.hanging():
            self._states[child.name].note_hang()
            _log.error(
                "process_hangs", process=child.name, still_s=self._hang_s if self._states[child.name].up else READY_S
            )
            os.kill(child.pid, signal.SIGKILL)
            self._states[child.name].beat(self._hang_s)  # the kernel may take its time

    def _hear(self, child: Child) -> None:
        """What a process says of its start. Raises its error."""
        said = os.read(child.reading, 65536)
        if said.startswith(b"\n"):
            self._states[child.name].up = True
            return
        os.close(child.reading)  # that was its last word
        child.reading = -1
        if said:
            error = json.loads(said)
            raise (SettingsError if error["usage"] else AgentsError)(error["text"])
        raise AgentsError(f"cannot start process {child.name}: see the log")

    def _note_word(self, child: Child) -> None:
        """Note what it has said of its start, if anything."""
        if child.reading < 0 or not select.select([child.reading], [], [], 0)[0]:
            return
        try:
            self._hear(child)
        except AgentsError as error:
            _log.error("process_not_started", process=child.name, error=str(error))

    def _note_death(self, child: Child) -> None:
        if not self._states[child.name].up:
            self._note_word(child)
        self._states[child.name].up = False
        now = time.monotonic()
        if now - child.started >= STEADY_S:
            child.pause_s = 0.0
        child.due = now + child.pause_s
        _log.error("process_died", process=child.name, code=child.code, restart_in_s=child.pause_s)
        most = LISTENER_PAUSE_MAX_S if child.probe else PAUSE_MAX_S
        child.pause_s = min(max(2 * child.pause_s, PAUSE_S), most)

    def _spawn(self, child: Child) -> None:
        reading, writing = os.pipe()
        parent = os.getpid()
        with self._signals.held():
            pid = os.fork()
            if pid == 0:
                os.close(reading)
                self._signals.leave()
                _end_with(parent)
                _run(child, writing, self._states[child.name].beat)
        os.close(writing)
        if child.reading >= 0:
            os.close(child.reading)
        child.pid, child.reading, child.started = pid, reading, time.monotonic()
        self._states[child.name].note_start(pid)

    def _end(self, children: Sequence[Child]) -> None:
        """SIGTERM, and SIGKILL for what takes too long, or for all where a signal comes after AT_ONCE_S."""
        begun, told = time.monotonic(), False
        for child in children:
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)
        while left := [child for child in children if child.pid and not _ended(child)]:
            impatient = self._signals.wait(LOOK_S) in ENDING and time.monotonic() - self._asked >= AT_ONCE_S
            took = time.monotonic() - begun
            if took >= SLOW_S and not told:
                told = True
                _log.info("waiting_for_end", processes=[child.name for child in left])
            for child in left:
                if impatient or (child.stop_s is not None and took >= child.stop_s):
                    _log.error("process_killed", process=child.name)
                    os.kill(child.pid, signal.SIGKILL)


class ListeningSupervisor(Supervisor):
    """Ends what judges after what answers, so that nothing is left unjudged."""

    def __init__(
        self,
        signals: Signals,
        stream: SharedStream,
        listeners: list[Child],
        judging: list[Child],
        others: list[Child],
        hang_s: float,
    ) -> None:
        """judging: detectors, and what hears them last."""
        super().__init__(signals, stream.children, [*listeners, *judging, *others], hang_s)
        self._stream, self._listeners, self._judging, self._others = stream, listeners, judging, others

    def _end_all(self) -> None:
        """End listeners, then the detectors, which judge what they left, what hears them, and the others."""
        self._end(self._listeners)
        detectors = self._judging[: self._stream.detectors]
        for number, detector in enumerate(detectors):
            _ended(detector)  # whoever sent us a signal may have sent it to each process of the group
            if not detector.pid and self._stream.of(number).waiting:
                self._spawn(detector)
        if len(detectors) < len(self._judging):
            self._end(detectors)
        self._end([*self._judging, *self._others])
        if waiting := sum(self._stream.of(number).waiting for number in range(len(detectors))):
            _log.error("queries_lost_at_stop", queries=waiting)  # a detector was ended before its time


def _ended(child: Child) -> bool:
    """Whether it has ended since it was looked at last; notes how."""
    if not child.pid:
        return False
    pid, status = os.waitpid(child.pid, os.WNOHANG)
    if pid:
        child.pid, child.code = 0, os.waitstatus_to_exitcode(status)
    return bool(pid)


def _end_with(parent: int) -> None:
    """Let the kernel end this process when its parent ends, however that ends; Linux alone does so."""
    if LIBC is None:
        return
    LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _run(child: Child, writing: int, beat: Beat) -> NoReturn:
    """Be the process that was forked. It never returns into what its parent was doing."""

    def say(text: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(writing, text)

    code = 1
    try:
        code = child.work(lambda: say(b"\n"), beat)
    except (AgentsError, OSError) as error:
        text = str(error) if isinstance(error, AgentsError) else f"cannot start process {child.name}: {error}"
        say(json.dumps({"text": text, "usage": isinstance(error, SettingsError | UsageError)}).encode())
    finally:
        if sys.exc_info()[0] is not None:
            _log.critical("process_failed", process=child.name, exc_info=True)
        os._exit(code)
