"""The loops of processes that judge: from the stream to the judge, until SIGTERM."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from agents.alerting.intake_losses import IntakeLosses
from agents.alerting.losses import Losses
from agents.core.protocols import Stream
from agents.core.types import Taken
from agents.runtime.heartbeat import PARTS, STILL_S, DetectorHealth, Heartbeat
from agents.runtime.judging.judge import FIRST_TRY_S, QUERY_S, Judge, JudgeParts, Outcome
from agents.runtime.listener_process import COLLECTOR, RECEIVER
from agents.runtime.signals import Beat, crashes_end
from agents.sources.heard_days import Listened
from agents.sources.live.loss import losing_intakes
from agents.store.sql import LOOK_S
from agents.stream.ledger import ATTEMPTS_MAX, CARRIED

WARN_LOOK_S, WARN_EVERY_S = 1.0, 10.0
"""How often dropped queries are looked for, and how often at most they are logged."""
_log = structlog.get_logger()


class DetectorLoop:
    """Batches from the stream to the judge: each is judged once, or again where a process died while it judged it."""

    def __init__(self, stream: Stream, judge: Judge, listeners: Iterable[str], alone: bool = True) -> None:
        """listeners: names of the processes without which nothing is judged. alone: see run_detector."""
        self._health = self._with_losses if alone else self._sums
        self._stream, self._judge, self._listeners = stream, judge, tuple(listeners)
        self._losses = Losses(judge.state_dir, judge.alerts.send)
        self._intake_losses = IntakeLosses(judge.alerts.send)
        self._listened = Listened(judge.state_dir) if alone and set(self._listeners) - {COLLECTOR, RECEIVER} else None
        self._carried, self._wait_s = stream.carried(), stream.take_s
        self._warned = stream.dropped
        self._warn_at = self._last_batch_at = 0.0

    def run(self, stop: threading.Event, beat: Beat = lambda allow_s: None) -> None:
        """Judge until `stop` is set and nothing waits. beat: signs of life; a large batch may take its time."""
        while True:
            beat(self._wait_s)
            taken = self._stream.take(stop)
            if taken is not None:
                beat(LOOK_S + FIRST_TRY_S + len(taken.ts) * QUERY_S)
                self._judge_one(taken)
            elif stop.is_set():
                return self._warn(last=True)
            self._warn()

    def _judge_one(self, taken: Taken) -> None:
        count = len(taken.ts)
        if taken.batch is None:
            outcome = self._judge.stored_before(taken.batch_id, taken.ts) or Outcome(count, 0, 0, 0)
        else:
            outcome = self._judge.consume(taken.batch, taken.batch_id, taken.level, taken.again)
        lost = outcome.rows - outcome.stored - outcome.spooled
        if taken.batch is None:
            _log.error("batch_given_up", queries=count, attempts=ATTEMPTS_MAX, lost=lost)
        else:
            self._judge.send_report(taken.batch_id)
        self._stream.commit(
            scored=count,
            stored=outcome.stored,
            spooled=outcome.spooled,
            unexplained=outcome.unexplained,
            sampled_out=count - outcome.rows,
            lost=lost,
            **outcome.seen,
        )
        self._last_batch_at = time.time()

    def _warn(self, last: bool = False) -> None:
        now = time.monotonic()
        if now < self._warn_at and not last:
            return
        dropped, self._warn_at = self._stream.dropped, now + WARN_LOOK_S
        if dropped > self._warned:
            _log.warning("queries_dropped", dropped=dropped - self._warned, queue_max=self._stream.capacity)
            self._warned, self._warn_at = dropped, now + WARN_EVERY_S

    def _sums(self) -> DetectorHealth:
        """How this detector is: sums over all processes since the supervisor began."""
        own, streamed = self._judge.health(), self._stream.health()
        current = dataclasses.asdict(own) | dict(own.alerts)
        carried = {name: self._carried[name] + current[name] for name in CARRIED}
        self._stream.carry(carried)
        summed = {name: carried[name] for name in CARRIED if name not in own.alerts}
        return dataclasses.replace(
            own,
            **{**streamed, **summed},
            alerts={name: carried[name] for name in own.alerts},
            last_batch_at=self._last_batch_at,
            judging=own.judging and all(self._answers(streamed["processes"][name]) for name in self._listeners),
        )

    def health(self) -> DetectorHealth:
        """What the heartbeat says."""
        return self._health()

    def _with_losses(self) -> DetectorHealth:
        """… and what was lost in all starts."""
        own = self._sums()
        why = "; ".join(f"{name}: {text}" for name, text in own.disk.items())
        total, unknown = self._losses.note(own.run_id, own.lost, why)
        if self._listened is not None:
            self._listened.note(own.run_id, own.counters["received"])
        self._intake_losses.note(losing_intakes(self._judge.state_dir))
        return dataclasses.replace(own, lost_in_all=total, lost_unacknowledged=unknown)

    def end(self) -> None:
        """Write down what the next process goes on from."""
        self._health()
        if self._listened is not None:
            self._listened.write()

    @staticmethod
    def _answers(process: Mapping[str, int]) -> bool:
        return bool(process["up"]) and process["still_s"] < STILL_S


class JudgingLoop(Protocol):
    """What a process does that has a Judge."""

    def run(self, stop: threading.Event, beat: Beat) -> None:
        """Work until `stop` is set and nothing waits."""

    def health(self) -> DetectorHealth:
        """What the heartbeat says."""

    def end(self) -> None:
        """Write down what the next process goes on from."""


def run_detector(
    stream: Stream,
    listeners: Iterable[str],
    make: Callable[[], JudgeParts],
    ready: Callable[[], None],
    beat: Beat,
    alone: bool = True,
) -> int:
    """The detector process: judges what is in the stream until SIGTERM, then what is left in it.

    alone: it is the only one; else another process sums up how all of them are.
    """

    def loop_of(judge: Judge) -> JudgingLoop:
        return DetectorLoop(stream, judge, listeners, alone)

    return run_judge(stream.wakeup_fd, stream.wake, make, loop_of, ready, beat)


def run_judge(
    wakeup_fd: int,
    wake: Callable[[], None],
    make: Callable[[], JudgeParts],
    loop_of: Callable[[Judge], JudgingLoop],
    ready: Callable[[], None],
    beat: Beat,
) -> int:
    """A process with a Judge, from its start to its end by SIGTERM. wake: ends a wait, as a byte to wakeup_fd does."""
    stop = threading.Event()
    signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)  # whichever thread a signal finds
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def end() -> None:
        stop.set()
        wake()

    with crashes_end(end) as crashed:
        parts = make()
        judge = Judge(parts)
        loop = loop_of(judge)
        path = parts.state_dir / PARTS["listener"]
        heartbeat = Heartbeat(path, lambda: loop.health().to_json(), note=parts.note, in_force=parts.in_force)
        try:
            judge.start()
            heartbeat.start()
            ready()
            loop.run(stop, beat)
        finally:
            judge.close()
            loop.end()
            heartbeat.stop()
    return int(bool(crashed))
