"""Flow-hours of the slots of a bus: an hour of a slot ends at the same message, whichever host judges it.

What the counters were when the hour began, and the domains of the hour, travel with the slot's saved state. So a slot
that is judged again gives the same flow-hours again, and the database keeps each of them once. State is not saved while
flow-hours wait for the database: else they would be lost with the process.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import structlog
from pydantic import TypeAdapter, ValidationError

from agents.core.columns import Coded
from agents.core.errors import AgentsError, BatchRefusedError, FencedError
from agents.core.npz import FormatError
from agents.core.types import HOUR_S, Verdicts
from agents.detection.shared.slotted import SlottedDetector, slot_files_of
from agents.learning.loop.collector import (
    AGAIN_S,
    APPRAISED_S,
    DOMAINS_MAX,
    KEPT_MAX,
    WAITING_MAX,
    EndedHour,
    appraise_open,
)
from agents.learning.loop.flow_hours import (
    HOUR_ROWS_MAX,
    SCHEMA,
    CounterReading,
    copied_flows,
    load_reading,
    reading_of_counters,
)
from agents.learning.loop.flow_model import FlowModel
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore

READING_FILE, DOMAINS_FILE = "flow_hours.npz", "hour_domains.json"
"""Files of a slot's saved state."""
REST_S = 60.0
"""A slot that has had no message for so long ends its hour so long after it; what comes later counts for the next."""
SETTLED_S = 10.0
"""What follows an hour begins when no flow-hours of it have come for so long: slots end it one after the other."""
_TEXTS = TypeAdapter(list[str])
_log = structlog.get_logger()


class EndedSlotHour(NamedTuple):
    """The hour of a slot that is over, with the token of the slot's lease."""

    slot: int
    token: int
    left: EndedHour


class WaitingRows(NamedTuple):
    """Flow-hours that are to be written for a slot, with the token of its lease."""

    slot: int
    token: int
    rows: FlowHours


@dataclass(slots=True)
class SlotHour:
    """The present hour of a slot. before: the counters when it began; None = it has not begun. heard: when its last
    message came (time.monotonic)."""

    token: int
    heard: float
    before: CounterReading | None = None
    domains: set[str] = field(default_factory=set)


class SlotHours:
    """Keeps the flow-hours of the open slots of a detector: a runtime.judging.hours.SlotHourKeeper.

    slots: of the bus. then, model: see HourCollector.
    """

    def __init__(
        self,
        detector: SlottedDetector,
        store: FlowHourStore,
        slots: int,
        then: Callable[[int], None] = lambda hour: None,
        model: Callable[[], FlowModel | None] = lambda: None,
    ) -> None:
        self._detector, self._store, self._then, self._model = detector, store, then, model
        self._rows_max, self._domains_max = max(HOUR_ROWS_MAX // slots, 2), DOMAINS_MAX // slots
        self._waiting_max, self._appraise_at = WAITING_MAX * slots, 0.0
        self._open: dict[int, SlotHour] = {}
        self._ended: SimpleQueue[EndedSlotHour | None] = SimpleQueue()
        self._unwritten, self._counting = Counter[int](), threading.Lock()
        self._settling: dict[int, float] = {}  # hours, and when the last flow-hours of them were written
        self._draw = np.random.default_rng()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flow-hours", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def open_slot(self, slot: int, token: int, state: bytes) -> None:
        """Go on with a slot's hour from its saved state; where that has none, with the first message."""
        self._open[slot] = one = SlotHour(token, time.monotonic())
        try:
            files = slot_files_of(state) if state else {}
            if READING_FILE in files:
                one.before = load_reading(files[READING_FILE])
                one.domains = set(_TEXTS.validate_json(files.get(DOMAINS_FILE, b"[]")))
        except (FormatError, ValidationError):
            self._open[slot] = SlotHour(token, time.monotonic())
            _log.warning("state_not_restored", slot=slot, name=READING_FILE, error="the hour begins anew")

    def close_slot(self, slot: int) -> None:
        """Keep flow-hours of a slot no more; what its ended hours gave is written yet."""
        self._open.pop(slot, None)

    def saved_files(self, slot: int) -> Mapping[str, bytes]:
        """What a slot's saved state must have with it."""
        one = self._open[slot]
        if one.before is None:
            return {}
        return {READING_FILE: one.before.dump(), DOMAINS_FILE: json.dumps(sorted(one.domains)).encode()}

    def has_unwritten(self, slot: int) -> bool:
        """Whether flow-hours of a slot wait for the database."""
        with self._counting:
            return self._unwritten[slot] > 0

    def see(self, verdicts: Verdicts) -> None:
        """Note the domains of a batch of one slot."""
        if not len(verdicts):
            return
        one = self._open.get(self._detector.slot_of(verdicts.queries.client[0]))
        if one is not None and len(one.domains) < self._domains_max:
            domains = verdicts.domain
            one.domains.update(domains.values if isinstance(domains, Coded) else domains)

    def begin_message(self, slot: int, ts: float, lock: AbstractContextManager[Any]) -> None:
        """End the slot's hour, if the newest query of the message that comes, at `ts`, is of a later one."""
        self._open[slot].heard = time.monotonic()
        self._end_hour(slot, int(ts // HOUR_S), lock)

    def _end_hour(self, slot: int, hour: int, lock: AbstractContextManager[Any]) -> None:
        one = self._open[slot]
        if (before := one.before) is not None and hour <= before.hour:
            return
        judging = self._detector.open[slot]
        with lock:
            copy = copied_flows(judging.flows, (hour if before is None else before.hour) * HOUR_S)
        domains, one.domains = one.domains, set()
        one.before = reading_of_counters(copy, hour)
        if before is not None:
            self._count(slot, 1)
            factor = judging.model.limit_factor
            left = EndedHour(before.hour, copy, before, domains, judging.flows, factor)
            self._ended.put(EndedSlotHour(slot, one.token, left))

    def rest(self, slot: int, now: float, lock: AbstractContextManager[Any]) -> None:
        """End the hour of a slot that has had no message for a while, some time after it. now: Unix seconds."""
        one = self._open[slot]
        if time.monotonic() - one.heard < REST_S:
            return
        if one.before is not None and one.before.hour > now // HOUR_S:  # by a clock that was ahead
            one.before = None
        self._end_hour(slot, int((now - REST_S) // HOUR_S), lock)

    def turn(self, ts: float, lock: AbstractContextManager[Any] | None = None) -> None:
        """Nothing: messages end the hours of slots, and `rest`."""

    def appraise(self, ts: float, lock: AbstractContextManager[Any] | None = None) -> None:
        """Tell the detectors how probable it is that open incidents are tunnels; at most every APPRAISED_S seconds."""
        if abs(ts - self._appraise_at) < APPRAISED_S:
            return
        self._appraise_at = ts
        for slot, one in list(self._open.items()):
            judging, before = self._detector.open.get(slot), one.before
            if judging is not None and before is not None and before.hour == int(ts // HOUR_S):
                appraise_open(judging, self._model, before, ts, lock if lock is not None else nullcontext())

    def close(self, wait_s: float = 5.0) -> None:
        """Write what waits, if that can be done in so many seconds."""
        self._stop.set()
        self._ended.put(None)
        if self._thread.ident is not None:
            self._thread.join(wait_s)

    def _count(self, slot: int, more: int) -> None:
        with self._counting:
            self._unwritten[slot] += more

    def _run(self) -> None:
        pending: deque[WaitingRows] = deque()
        while not (self._stop.is_set() and self._ended.empty()):
            wait_s = AGAIN_S if pending else SETTLED_S if self._settling else None
            with suppress(Empty):
                if (ended := self._ended.get(timeout=wait_s)) is not None:
                    self._keep(pending, ended)
                del ended
            while pending and self._written(pending[0]):
                self._count(pending.popleft().slot, -1)
            self._follow(time.monotonic() - SETTLED_S)
        self._follow(time.monotonic())

    def _keep(self, pending: deque[WaitingRows], ended: EndedSlotHour) -> None:
        if len(pending) >= self._waiting_max:
            self._count(ended.slot, -1)
            _log.error("flow_hours_lost", hour=ended.left.hour, error="the database has been away for too long")
            return
        rows = ended.left.rows(self._detector.privacy, self._draw, self._rows_max)
        pending.append(WaitingRows(ended.slot, ended.token, rows))

    def _written(self, waiting: WaitingRows) -> bool:
        """Whether the rows are done with: stored, or refused for good."""
        rows = waiting.rows
        if not len(rows):
            return True
        hour = int(rows.hour[0])
        try:
            self._store.add(rows, (str(waiting.slot), waiting.token))
        except FencedError:
            _log.info("flow_hours_left", slot=waiting.slot, hour=hour)  # to whoever has the slot by now
        except BatchRefusedError as error:
            _log.error("flow_hours_lost", hour=hour, error=str(error))
        except AgentsError as error:
            _log.warning("flow_hours_wait_for_store", hour=hour, error=str(error))
            return False
        else:
            self._settling[hour] = time.monotonic()
            _log.info("flow_hours_written", slot=waiting.slot, hour=hour, rows=len(rows))
        return True

    def _follow(self, settled: float) -> None:
        """Do what follows hours of which nothing has been written since that time (time.monotonic)."""
        for hour in sorted(hour for hour, at in self._settling.items() if at <= settled):
            try:
                self._store.shrink(KEPT_MAX, SCHEMA)
                self._then(hour)
            except AgentsError as error:
                _log.warning("flow_hours_wait_for_store", hour=hour, error=str(error))
                self._settling[hour] = time.monotonic() + AGAIN_S
            else:
                del self._settling[hour]
