"""The stream between the processes of one machine: rings in shared memory, merged by time, each batch judged once.

All state lies in memory that a supervisor makes before it forks; it is lost when the supervisor ends. Each listener
has two rings, one for its event loop and one for its datapath's thread. One detector takes.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import select
import threading
import time
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.types import Taken
from agents.stream.counters import Counters, summed
from agents.stream.ledger import ATTEMPTS_MAX, TOTALS, Intent, Ledger
from agents.stream.record import RECORD, batch_of_records
from agents.stream.ring import LINE
from agents.stream.rings import Rings
from agents.stream.slots import NO_PARTED

IDLE_S = 1.0
"""The taker looks into the rings at least so often, even if it is not woken."""
LOOK_S = 0.005
"""While a batch fills, the taker looks into the rings so often."""
EVERYTHING, NO_EXPLANATION, SAMPLED = range(3)
"""Levels of load: everything is kept; reasons outside incidents are left out; only some NORMAL verdicts are stored."""
STEPS = (0.25, 0.5)
"""Level 1 and level 2 begin at this fill of the fullest ring, and end at half of it."""


def level_at(fill: float, before: int) -> int:
    """The level for a fill (0..1) of the fullest ring and the level before, so that it does not flicker at a step."""
    level = sum(fill >= step for step in STEPS)
    while before > level and fill < STEPS[before - 1] / 2:
        before -= 1
    return max(level, before)


class Bell:
    """A pipe that wakes one sleeper. `ring` never blocks; several rings before a `wait` count as one."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        for end in (self.reading, self.writing):
            os.set_blocking(end, False)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it rings already
            os.write(self.writing, b"!")

    def close(self) -> None:
        """Close both ends of the pipe."""
        os.close(self.reading)
        os.close(self.writing)

    def wait(self, timeout_s: float) -> None:
        """Return when it rings, or after `timeout_s`."""
        if select.select([self.reading], [], [], timeout_s)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self.reading, 4096)


class ChildState:
    """The state of one process, in memory that it shares with the supervisor.

    Two cells say until when it need not move, on the clock of time.monotonic(), which all processes of a machine
    share: it moves one itself, and the supervisor moves the other when the process has answered a question of DNS.
    """

    SIZE = 48

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells

    @property
    def up(self) -> bool:
        """Whether the process runs and is ready."""
        return bool(self._cells[0])

    @up.setter
    def up(self, value: bool) -> None:
        self._cells[0] = int(value)
        self._cells[4] = max(self._cells[4], time.monotonic_ns())  # it may have asked for more by now
        self._cells[5] = 0

    def note_start(self, pid: int) -> None:
        """Count a start of the process and note its pid."""
        self._cells[1] += 1
        self._cells[2] = pid

    def note_hang(self) -> None:
        """Count that it was killed because it did not move."""
        self._cells[3] += 1

    def beat(self, allow_s: float = 0.0) -> None:
        """It moves, and need not do so again for `allow_s` seconds: what it begins may take so long."""
        self._cells[4] = time.monotonic_ns() + int(allow_s * 1e9)

    def note_answer(self) -> None:
        """It has answered a question; from then on it is asked."""
        self._cells[5] = time.monotonic_ns()

    def still_s(self) -> float:
        """Seconds for which it has not moved beyond what it was allowed, or not answered where it is asked."""
        moved, answered = self._cells[4:6].tolist()
        oldest = min(moved, answered) if answered else moved
        return max(time.monotonic_ns() - oldest, 0) / 1e9

    def values(self) -> dict[str, int]:
        """up (0 or 1), restarts, pid, hangs (restarts that ended one), still_s (for how long it has not moved)."""
        up, starts, pid, hangs, *_ = self._cells.tolist()
        still_s = int(self.still_s()) * up
        return {"up": up, "restarts": max(starts - 1, 0), "pid": pid, "hangs": hangs, "still_s": still_s}


def shared_states(names: Sequence[str]) -> dict[str, ChildState]:
    """States of processes that share nothing else, in memory made before they are forked."""
    cells = memoryview(mmap.mmap(-1, ChildState.SIZE * len(names))).cast("q")
    size = ChildState.SIZE // cells.itemsize
    return {name: ChildState(cells[size * at : size * (at + 1)]) for at, name in enumerate(names)}


class SharedStream:
    """Rings and counters for each of the two writing threads of a listener; a ledger; the state of each process.

    The rings of one kind of thread have room for `queue_max` records together. A `Stream` (core.protocols):
    listeners put into the rings, the detector calls `take` and `commit`. With several detectors each has its rings,
    its ledger and its bell: the stream itself is that of the first, `of` gives the others.
    """

    def __init__(
        self,
        listeners: int,
        queue_max: int,
        names: Sequence[str],
        batch_max: int = 1024,
        wait_s: float = 0.05,
        detectors: int = 1,
        parted: NDArray[np.uint64] = NO_PARTED,
    ) -> None:
        """names: of all processes. A batch holds `batch_max` records, or fewer once it has waited for `wait_s`. parted:
        slots.PartedClients.ranges."""
        capacity = -(-queue_max // (listeners * detectors))
        writers = 2 * listeners
        sizes = [*[Ledger.size_of(writers)] * detectors, *[Counters.size()] * writers, *[ChildState.SIZE] * len(names)]
        sizes += [Rings.size_of(detectors, capacity)] * writers
        ends = list(accumulate(-(-size // LINE) * LINE for size in sizes))
        memory = memoryview(mmap.mmap(-1, ends[-1]))
        parts = [memory[end - -(-size // LINE) * LINE :][:size] for end, size in zip(ends, sizes, strict=True)]
        self.listeners, self._bells = listeners, [Bell() for _ in range(detectors)]
        bells = [bell.writing for bell in self._bells]
        self.groups = [Rings(part, capacity, bells, parted) for part in parts[-writers:]]
        self._ledgers = [
            Ledger(part.cast("q"), [group.rings[number] for group in self.groups], secrets.token_hex(8))
            for number, part in enumerate(parts[:detectors])
        ]
        counters = parts[detectors : detectors + writers]
        self.counters = [Counters(part.cast("q")) for part in counters]
        states = parts[detectors + writers : -writers]
        self.children = {name: ChildState(part.cast("q")) for name, part in zip(names, states, strict=True)}
        self._batch_max, self._wait_s, self.detectors = batch_max, wait_s, detectors
        self._choose(0)

    def _choose(self, number: int) -> None:
        self.bell, self.ledger = self._bells[number], self._ledgers[number]
        self.rings = [group.rings[number] for group in self.groups]

    def of(self, number: int) -> SharedStream:
        """The same memory, as one of the detectors uses it."""
        found = copy(self)
        found._choose(number)
        return found

    def close(self) -> None:
        """Close the bells' descriptors."""
        for bell in self._bells:
            bell.close()

    def writers(self, listener: int) -> tuple[tuple[Rings, Counters], tuple[Rings, Counters]]:
        """Rings and counters of one listener: of its event loop, and of its datapath's thread."""
        mine = [(self.groups[at], self.counters[at]) for at in (2 * listener, 2 * listener + 1)]
        return mine[0], mine[1]

    @property
    def waiting(self) -> int:
        """Records in all rings."""
        return sum(ring.waiting for ring in self.rings)

    @property
    def dropped(self) -> int:
        """Records dropped because their ring was full."""
        return sum(ring.dropped for ring in self.rings)

    @property
    def capacity(self) -> int:
        """Records that all rings have room for."""
        return sum(ring.capacity for ring in self.rings)

    @property
    def fill(self) -> float:
        """Share of the fullest ring that is in use, 0..1."""
        return max(ring.waiting / ring.capacity for ring in self.rings)

    def take(self, stop: threading.Event) -> Taken | None:
        """The next batch, to be committed before the next call; None after IDLE_S without records, or at `stop`.

        A batch that a killed process had begun comes first, under the same id.
        """
        intent = self.begun(stop)
        return None if intent is None else self._taken(intent)

    def begun(self, stop: threading.Event) -> Intent | None:
        """The intent of the batch that `take` would return; `records` has what it is about."""
        intent = self.ledger.resume()
        if intent is None:
            self._wait(stop)
            self.ledger.level = level_at(self.fill, self.ledger.level)
            if not self.waiting:
                return None
            intent = self.ledger.begin(self.shares(self._batch_max))
        return intent

    @property
    def take_s(self) -> float:
        """How long `take` may wait."""
        return IDLE_S + self._wait_s

    def commit(self, **changes: int) -> None:
        """Call when the sinks have the batch: adds `changes` to the ledger's totals and gives its slots back."""
        self.ledger.finish(changes)

    def _taken(self, intent: Intent) -> Taken:
        records = self.records(intent.counts)
        batch = batch_of_records(records) if intent.attempts <= ATTEMPTS_MAX else None
        return Taken(batch, records["ts"].copy(), intent.batch_id, intent.level, intent.attempts > 1)

    def _wait(self, stop: threading.Event) -> None:
        """Wait until a batch is full or has waited for `wait_s`; return without records after IDLE_S."""
        for ring in self.rings:
            ring.sleep(True)
        if not self.waiting and not stop.is_set():
            self.bell.wait(IDLE_S)
        for ring in self.rings:
            ring.sleep(False)
        end = time.monotonic() + self._wait_s
        while 0 < self.waiting < self._batch_max and not stop.is_set() and (left := end - time.monotonic()) > 0:
            stop.wait(min(left, LOOK_S))

    def shares(self, most: int) -> list[int]:
        """How many records to take from each ring, at most `most` in all: equal shares; unused shares are divided."""
        waiting = [ring.waiting for ring in self.rings]
        shares, left = [0] * len(waiting), most
        while left and any(share < there for share, there in zip(shares, waiting, strict=True)):
            hungry = [at for at, there in enumerate(waiting) if shares[at] < there]
            part = max(left // len(hungry), 1)
            for at in hungry[:left]:
                more = min(part, waiting[at] - shares[at])
                shares[at] += more
                left -= more
        return shares

    def records(self, counts: Sequence[int]) -> NDArray[np.void]:
        """The oldest `counts` records of the rings in order of time, those of equal time in the order of the rings."""
        records = np.concatenate([ring.peek(count) for ring, count in zip(self.rings, counts, strict=True)])
        assert records.dtype == RECORD
        return records[np.argsort(records["ts"], kind="stable")]

    def carried(self) -> Mapping[str, int]:
        """Sums that earlier detector processes left (ledger.CARRIED)."""
        return self.ledger.carried()

    def carry(self, sums: Mapping[str, int]) -> None:
        """Leave sums to the next detector process."""
        self.ledger.carry(sums)

    @property
    def oldest_at(self) -> float:
        """When the oldest query that is not judged was asked, Unix seconds; 0 = none waits."""
        waiting = (ring.peek(1)["ts"] for ring in self.rings)
        return min((float(ts[0]) for ts in waiting if len(ts)), default=0.0)

    def health(self) -> dict[str, Any]:
        """Totals of committed batches, the listeners' counters, the level of load, and the state of each process."""
        return self.ledger.totals() | {
            "run_id": self.ledger.run_id,
            "counters": summed(self.counters).values(),
            "queue_dropped": self.dropped,
            "queue_waiting": self.waiting,
            "load_level": self.ledger.level,
            "oldest_unjudged_at": self.oldest_at,
            "processes": {name: child.values() for name, child in self.children.items()},
        }

    def sums(self) -> dict[str, Any]:
        """What all detectors left (carried), and their health as one."""
        each = [self.of(number) for number in range(self.detectors)]
        found = {name: sum(one.carried()[name] for one in each) for name in self.carried()} | self.health()
        for name in (*TOTALS, "queue_dropped", "queue_waiting"):
            found[name] = sum(one.health()[name] for one in each)
        return found

    def wake(self) -> None:
        """Make a waiting `take` return."""
        self.bell.ring()

    @property
    def wakeup_fd(self) -> int:
        """Descriptor that wakes a waiting `take` when a byte is written to it."""
        return self.bell.writing
