"""Rates of the last hour, by slots of half a minute: what the processes count is read again and again.

A time for which nobody read, or nobody counted, has no rate: it is unknown, which is not zero. The slots lie in a file,
so that they outlive this process.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from agents.core.errors import AgentsError
from agents.core.files import PRIVATE_MODE, json_state, write_atomic
from agents.core.types import Metric

LAST_HOUR = "last_hour.json"
"""The file, in the folder of the state."""
SLOT_S = 30
"""Seconds of one slot: those of the Unix clock that give one number, divided by this."""
SLOTS = 120
"""Slots that are kept and shown."""
WATCHED_S, UNWATCHED_S = 2.0, 10.0
"""Seconds between two readings while somebody looks at the page, and while nobody does."""
LOOKED_S = 15.0
"""Whoever has looked so recently still looks."""
NOW_S = 10.0
"""The newest rates are those of so many seconds, or a little more."""
JOINED_S = 60.0
"""Two readings that lie further apart say nothing of the time between them."""
UP = "detector_up"
SUMS: Mapping[str, tuple[str, ...]] = {
    "queries": ("detector_scored_total",),
    "suspicious": ("detector_suspicious_total",),
    "high": ("detector_high_total",),
    "critical": ("detector_critical_total",),
    "answered": ("listener_answered_total", "listener_cache_hits_total", "listener_local_total"),
    "failed": ("listener_servfail_total",),
    "timed": ("detector_answers_timed_total",),
    "answer_s": ("detector_answer_seconds_total",),
    "shed": ("detector_queue_dropped_total", "detector_sampled_out_total"),
    "spooled": ("store_spooled_total",),
}
"""Counters that are added up by name; those that are not there are none."""


class RateReading(NamedTuple):
    """Counters at one time of the monotonic clock, seconds."""

    at: float
    sums: Mapping[str, float]


class RateSlot(NamedTuple):
    """What was counted in a slot, by the names of SUMS, in the seconds of it for which that is known."""

    seconds: float
    sums: Mapping[str, float]

    def rate(self, *names: str) -> float:
        """The sum of some counts, a second."""
        return sum(self.sums[name] for name in names) / self.seconds

    @property
    def latency_ms(self) -> float | None:
        """How long an answer took, on average; None where that is known of none."""
        return self.sums["answer_s"] / self.sums["timed"] * 1e3 if self.sums["timed"] else None

    def joined(self, other: RateSlot) -> RateSlot:
        """Both together."""
        return RateSlot(self.seconds + other.seconds, {name: self.sums[name] + other.sums[name] for name in SUMS})


class LastHour:
    """Slots of the last hour, and the newest rates. path: the file; None = they end with the process."""

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._guard = path, threading.Lock()
        self._slots = _slots_in(json_state(path)) if path is not None else {}
        self._readings: deque[RateReading] = deque()
        self._looked_at = self._read_at = -math.inf
        self._written = 0

    def read_when_due(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        """Take a reading where the last one is old enough, and write down slots that are over."""
        now = time.monotonic()
        every_s = WATCHED_S if now - self._looked_at < LOOKED_S else UNWATCHED_S
        if now - self._read_at < every_s - WATCHED_S / 2:
            return
        self._read_at = now
        try:
            found = {metric.name: metric.value for metric in metrics()}
        except AgentsError:
            found = {}
        self.note(found, time.time(), time.monotonic())
        slot = int(time.time() // SLOT_S)
        if slot != self._written:
            self._written = slot
            self.write()

    def note(self, metrics: Mapping[str, float], now: float, at: float) -> None:
        """Take over what /metrics says at a time: now by the wall clock, at by the steady one, seconds."""
        reading = None
        if metrics.get(UP):
            sums = {name: sum(metrics.get(one, 0.0) for one in counters) for name, counters in SUMS.items()}
            reading = RateReading(at, sums)
        with self._guard:
            before = self._readings[-1] if self._readings else None
            grown = _grown(before, reading)
            if grown is None:
                self._readings.clear()
            else:
                slot = int((now - grown.seconds / 2) // SLOT_S)
                self._slots[slot] = self._slots[slot].joined(grown) if slot in self._slots else grown
            if reading is not None:
                self._readings.append(reading)
                while len(self._readings) > 2 and at - self._readings[1].at >= NOW_S:
                    self._readings.popleft()
            last = int(now // SLOT_S)
            self._slots = {number: one for number, one in self._slots.items() if last - SLOTS < number <= last}

    def look(self) -> tuple[RateSlot | None, list[RateSlot | None]]:
        """What was counted lately, and in each slot of the last hour, oldest first; None = it is not known."""
        last = int(time.time() // SLOT_S)
        with self._guard:
            self._looked_at = time.monotonic()
            ends = (self._readings[0], self._readings[-1]) if len(self._readings) > 1 else (None, None)
            is_new = ends[1] is not None and self._looked_at - ends[1].at < 2 * UNWATCHED_S
            lately = _grown(*ends) if is_new else None
            return lately, [self._slots.get(number) for number in range(last - SLOTS + 1, last + 1)]

    def write(self) -> None:
        """Write the slots down."""
        if self._path is None:
            return
        with self._guard:
            slots = {number: [one.seconds, *one.sums.values()] for number, one in self._slots.items()}
        with suppress(OSError):  # health says that the disk takes nothing, and it is tried again
            write_atomic(self._path, json.dumps({"names": list(SUMS), "slots": slots}).encode(), PRIVATE_MODE)


def _grown(before: RateReading | None, after: RateReading | None) -> RateSlot | None:
    """What came between two readings; None where that is not known: counters that fell began anew."""
    if before is None or after is None or not 0 < after.at - before.at <= JOINED_S:
        return None
    grown = {name: after.sums[name] - before.sums[name] for name in SUMS}
    return None if min(grown.values()) < 0 else RateSlot(after.at - before.at, grown)


def _slots_in(kept: Mapping[str, Any]) -> dict[int, RateSlot]:
    """The slots of a file; none of one that is damaged, or of another release."""
    found: dict[int, RateSlot] = {}
    slots = kept.get("slots")
    if kept.get("names") != list(SUMS) or not isinstance(slots, dict):
        return {}
    for number, values in slots.items():
        whole = isinstance(values, list) and len(values) == len(SUMS) + 1
        if not whole or not _NUMBER.fullmatch(number) or not all(map(_is_amount, values)) or not values[0]:
            return {}
        found[int(number)] = RateSlot(float(values[0]), dict(zip(SUMS, map(float, values[1:]), strict=True)))
    return found


_NUMBER = re.compile("[0-9]{1,12}")


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1e18
