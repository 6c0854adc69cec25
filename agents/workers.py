"""What runs in the processes behind `listen` and `run`: listeners that answer, and one detector that judges."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from agents import bootstrap, heartbeat
from agents.crashes import crashes_end
from agents.judge import Judge, Outcome
from agents.ledger import ATTEMPTS_MAX, CARRIED, Intent
from agents.records import batch_of_records
from agents.settings import Settings
from agents.shared import Shared
from agents.shedding import level_at
from agents.signals import live
from agents.sources.listener import Listener
from agents.sources.sockets import Pair

IDLE_S = 1.0
"""The detector looks into the rings at least so often, rung for or not."""
LOOK_S = 0.005
"""While a batch fills, the rings are looked into so often."""
WARN_EVERY_S = 10.0
_log = structlog.get_logger()


def listener_names(count: int) -> list[str]:
    """Names of the listener processes."""
    return [f"listener-{number + 1}" for number in range(count)]


def hosts_of(settings: Settings) -> list[str]:
    """Addresses to listen on."""
    return [host.strip() for host in settings.listen_host.split(",")]


def answer(settings: Settings, shared: Shared, number: int, pairs: Sequence[Pair], ready: Callable[[], None]) -> int:
    """One listener process: answers on `pairs` until SIGTERM, and puts what it saw into its ring."""
    return live(_answer(settings, shared, number, pairs, ready))


async def _answer(
    settings: Settings, shared: Shared, number: int, pairs: Sequence[Pair], ready: Callable[[], None]
) -> int:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    (ring, counters), (fast_ring, fast_counters) = shared.written_by(number)
    counters.tcp_clients = 0  # those of a process that was killed are gone
    listener = Listener(
        hosts_of(settings),
        settings.listen_port,
        bootstrap.upstreams_of(settings),
        allowed_clients=[part.strip() for part in settings.allowed_clients.split(",") if part.strip()],
        timeout_s=settings.upstream_timeout_s,
        tcp_clients_max=max(settings.tcp_clients_max // shared.listeners, 1),
        tcp_idle_s=settings.tcp_idle_s,
        inflight_max=max(settings.inflight_max // shared.listeners, 1),
        offer=ring.put,
        ring=fast_ring,
        pairs=pairs,
        counters=(counters, fast_counters),
    )
    with crashes_end(lambda: loop.call_soon_threadsafe(stop.set)) as crashed:
        await listener.start()
        ready()
        await stop.wait()
        await listener.stop()
    return int(bool(crashed))


def detect(settings: Settings, shared: Shared, ready: Callable[[], None]) -> int:
    """The detector process: judges what is in the rings until SIGTERM, then what is left in them."""
    stop = threading.Event()
    signal.set_wakeup_fd(shared.bell.writing, warn_on_full_buffer=False)  # whichever thread a signal finds
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def end() -> None:
        stop.set()
        shared.bell.ring()

    with crashes_end(end) as crashed:
        judge = Judge(settings)
        detector = Detecting(settings, shared, judge)
        beat = heartbeat.Heartbeat(settings.state_dir / "listener.json", detector.state)
        try:
            judge.start()
            beat.start()
            ready()
            detector.run(stop)
        finally:
            judge.close()
            detector.state()
            beat.stop()
    return int(bool(crashed))


class Detecting:
    """Batches from the rings to the judge: each is judged once, or again where a process before this one died of it."""

    def __init__(self, settings: Settings, shared: Shared, judge: Judge) -> None:
        self._shared, self._ledger, self._judge = shared, shared.ledger, judge
        self._batch_max, self._wait_s = settings.batch_max, settings.batch_wait_ms / 1000
        self._carried = self._ledger.carried()
        self._told = self._dropped
        self._tell_at = 0.0

    @property
    def _dropped(self) -> int:
        return sum(ring.shed for ring in self._shared.rings)

    def run(self, stop: threading.Event) -> None:
        """Judge until `stop` is set and the rings are empty."""
        intent = self._ledger.resume()
        if intent is not None:
            self._judge_one(intent)
        while not (stop.is_set() and not self._shared.waiting):
            self._wait(stop)
            self._ledger.level = level_at(self._shared.fill, self._ledger.level)
            if self._shared.waiting:
                self._judge_one(self._ledger.begin(self._shared.shares(self._batch_max)))
            self._warn()

    def _wait(self, stop: threading.Event) -> None:
        """Return with a full batch, or one that has waited long enough, or with none after IDLE_S."""
        shared = self._shared
        for ring in shared.rings:
            ring.sleep(True)
        if not shared.waiting and not stop.is_set():
            shared.bell.wait(IDLE_S)
        for ring in shared.rings:
            ring.sleep(False)
        end = time.monotonic() + self._wait_s
        while 0 < shared.waiting < self._batch_max and not stop.is_set() and (left := end - time.monotonic()) > 0:
            stop.wait(min(left, LOOK_S))

    def _judge_one(self, intent: Intent) -> None:
        count = sum(intent.counts)
        records, given_up = self._shared.records(intent.counts), intent.attempts > ATTEMPTS_MAX
        if given_up:
            found = self._judge.kept(intent.batch_id, records["ts"]) or Outcome(count, 0, 0, 0)
        else:
            batch = batch_of_records(records)
            found = self._judge.consume(batch, intent.batch_id, intent.level, again=intent.attempts > 1)
        lost = found.rows - found.stored - found.spooled
        if given_up:
            _log.error("batch_given_up", queries=count, attempts=ATTEMPTS_MAX, lost=lost)
        changes = {"stored": found.stored, "spooled": found.spooled, "unexplained": found.unexplained}
        self._ledger.finish(changes | {"scored": count, "sampled_out": count - found.rows, "lost": lost})

    def _warn(self) -> None:
        dropped, now = self._dropped, time.monotonic()
        if dropped > self._told and now >= self._tell_at:
            queue_max = sum(ring.capacity for ring in self._shared.rings)
            _log.warning("queries_dropped", dropped=dropped - self._told, queue_max=queue_max)
            self._told, self._tell_at = dropped, now + WARN_EVERY_S

    def state(self) -> dict[str, Any]:
        """What the sign of life tells: sums over all processes since the supervisor began."""
        shared, state = self._shared, self._judge.state()
        spool, alerts = state["spool"], state["alerts"]
        current = spool | alerts | {name: state[name] for name in ("flows_refused", "flows_forgotten")}
        carried = {name: self._carried[name] + current[name] for name in CARRIED}
        self._ledger.carry(carried)
        totals, children = self._ledger.totals(), shared.children
        return {
            **state,
            "scored": totals["scored"],
            "flows_refused": carried["flows_refused"],
            "flows_forgotten": carried["flows_forgotten"],
            "spool": {name: carried[name] if name in carried else totals.get(name, spool[name]) for name in spool},
            "alerts": {name: carried[name] for name in alerts},
            "counters": shared.counted(),
            "queue_dropped": self._dropped,
            "queue_waiting": shared.waiting,
            "shed": {"level": self._ledger.level} | {name: totals[name] for name in ("unexplained", "sampled_out")},
            "processes": {name: child.values() for name, child in children.items()},
            "judging": state["alive"] and all(children[name].up for name in listener_names(shared.listeners)),
        }
