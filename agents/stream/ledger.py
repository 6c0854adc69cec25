"""What becomes of each batch, in shared memory: after a detector that was killed, the next goes on exactly there.

Before a batch is judged its intent is written: a number and how many records of each ring it takes. When the sinks
have it, the totals as they are to be and the rings' new tails are already written down, so one store decides, and
what follows (copying the totals, moving the tails) may be repeated. A batch whose intent stands undecided is done
again under the same id; the store leaves a batch alone that it has (a write-ahead log of one entry).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import select
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.stream.counters import Counters, summed
from agents.stream.record import RECORD
from agents.stream.ring import LINE, Ring, barrier

TOTALS = ("scored", "stored", "spooled", "sampled_out", "lost", "unexplained")
"""Queries since the start of the first process. scored = stored + spooled + sampled_out + lost."""
CARRIED = (
    "replayed",
    "damaged",
    "already",
    "sent",
    "failed",
    "suppressed",
    "dropped",
    "flows_refused",
    "flows_forgotten",
)
"""What a detector counts by itself and its successor goes on from; as it was a few seconds before a kill -9."""
ATTEMPTS_MAX = 3
"""A batch that has ended so many detectors is given up: it would end all that follow. What was not kept is lost."""
_NONE, _BEGUN, _DECIDED = range(3)
_STATE, _NUMBER, _LEVEL, _ATTEMPTS = range(4)
_NOW = 4
_NEXT = _NOW + len(TOTALS)
_CARRIED = _NEXT + len(TOTALS)
_TAILS = _CARRIED + len(CARRIED)


class Intent(NamedTuple):
    """A batch that is to be judged. counts: records of each ring, from its tail on."""

    batch_id: str
    counts: tuple[int, ...]
    level: int  # of shedding, when it was begun
    attempts: int  # 1 = this is the first


class Ledger:
    """cells: shared memory of `size_of(len(rings))` bytes as signed 64-bit numbers, zeros at first.

    run_id: tells the batches of one start of the program from those of all others.
    """

    def __init__(self, cells: memoryview, rings: Sequence[Ring], run_id: str) -> None:
        self._cells, self._rings, self._run_id = cells, rings, run_id

    @staticmethod
    def size_of(rings: int) -> int:
        """Bytes of memory for so many rings."""
        return 8 * (_TAILS + rings)

    @property
    def level(self) -> int:
        """The level of shedding (shedding.py); set between two batches."""
        return self._cells[_LEVEL]

    @level.setter
    def level(self, value: int) -> None:
        assert self._cells[_STATE] == _NONE
        self._cells[_LEVEL] = value

    def totals(self) -> dict[str, int]:
        """TOTALS by name, each as it is now."""
        return dict(zip(TOTALS, self._cells[_NOW:_NEXT].tolist(), strict=True))

    def begin(self, counts: Sequence[int]) -> Intent:
        """Write down what the next batch takes."""
        cells = self._cells
        assert cells[_STATE] == _NONE
        cells[_NUMBER] += 1
        cells[_ATTEMPTS] = 1
        for at, (ring, count) in enumerate(zip(self._rings, counts, strict=True)):
            cells[_TAILS + at] = ring.tail + count
        barrier()
        cells[_STATE] = _BEGUN
        return self._intent()

    def resume(self) -> Intent | None:
        """Bring to its end what a killed process had decided; the batch that it had begun and not decided, if any."""
        if self._cells[_STATE] == _DECIDED:
            self._apply()
        if self._cells[_STATE] == _NONE:
            return None
        self._cells[_ATTEMPTS] += 1
        return self._intent()

    def _intent(self) -> Intent:
        cells = self._cells
        counts = tuple(cells[_TAILS + at] - ring.tail for at, ring in enumerate(self._rings))
        batch_id = f"{self._run_id}{cells[_NUMBER]:016x}"
        return Intent(batch_id, counts, cells[_LEVEL], cells[_ATTEMPTS])

    def finish(self, changes: Mapping[str, int]) -> None:
        """The sinks have the batch: add `changes` to the totals and give its records back to the rings."""
        cells = self._cells
        for at, name in enumerate(TOTALS):
            cells[_NEXT + at] = cells[_NOW + at] + changes.get(name, 0)
        barrier()
        cells[_STATE] = _DECIDED
        self._apply()

    def _apply(self) -> None:
        cells = self._cells
        cells[_NOW:_NEXT] = cells[_NEXT:_CARRIED]
        for at, ring in enumerate(self._rings):
            ring.advance_to(cells[_TAILS + at])
        barrier()
        cells[_STATE] = _NONE

    def carried(self) -> dict[str, int]:
        """CARRIED as it was written last: what the next process adds to."""
        return dict(zip(CARRIED, self._cells[_CARRIED:_TAILS].tolist(), strict=True))

    def carry(self, values: Mapping[str, int]) -> None:
        """Write CARRIED."""
        for at, name in enumerate(CARRIED):
            self._cells[_CARRIED + at] = values[name]


class Bell:
    """A pipe that wakes one sleeper; ringing never blocks, and rings that nobody heard are one."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        for end in (self.reading, self.writing):
            os.set_blocking(end, False)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it rings already
            os.write(self.writing, b"!")

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reading)
        os.close(self.writing)

    def wait(self, timeout_s: float) -> None:
        """Return when it rings, or after `timeout_s`."""
        if select.select([self.reading], [], [], timeout_s)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self.reading, 4096)


class ChildState:
    """What the supervisor says of one process, in 24 bytes."""

    SIZE = 24

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells

    @property
    def up(self) -> bool:
        """Whether it runs and is ready."""
        return bool(self._cells[0])

    @up.setter
    def up(self, value: bool) -> None:
        self._cells[0] = int(value)

    def note_start(self, pid: int) -> None:
        """It has been started, once more."""
        self._cells[1] += 1
        self._cells[2] = pid

    def values(self) -> dict[str, int]:
        """up (0 or 1), restarts, pid."""
        up, starts, pid = self._cells.tolist()
        return {"up": up, "restarts": max(starts - 1, 0), "pid": pid}


class Shared:
    """A ring and counters for each thread of a listener that writes, of two; a ledger, and the state of each process.

    Each kind of ring has room for `queue_max` records between the listeners.
    """

    def __init__(self, listeners: int, queue_max: int, names: Sequence[str]) -> None:
        """names: of the processes whose state is told."""
        capacity = -(-queue_max // listeners)
        writers = 2 * listeners
        sizes = [Ledger.size_of(writers), *[Counters.size()] * writers, *[ChildState.SIZE] * len(names)]
        sizes += [Ring.size_of(capacity)] * writers
        ends = list(accumulate(-(-size // LINE) * LINE for size in sizes))
        memory = memoryview(mmap.mmap(-1, ends[-1]))
        parts = [memory[end - -(-size // LINE) * LINE :][:size] for end, size in zip(ends, sizes, strict=True)]
        self.listeners, self.bell = listeners, Bell()
        self.rings = [Ring(part, capacity, self.bell.writing) for part in parts[-writers:]]
        self.ledger = Ledger(parts[0].cast("q"), self.rings, secrets.token_hex(8))
        self.counters = [Counters(part.cast("q")) for part in parts[1 : 1 + writers]]
        states = parts[1 + writers : -writers]
        self.children = {name: ChildState(part.cast("q")) for name, part in zip(names, states, strict=True)}

    def close(self) -> None:
        """Close what is not memory."""
        self.bell.close()

    def written_by(self, listener: int) -> tuple[tuple[Ring, Counters], tuple[Ring, Counters]]:
        """What one listener writes: its event loop, and its datapath's thread."""
        mine = [(self.rings[at], self.counters[at]) for at in (2 * listener, 2 * listener + 1)]
        return mine[0], mine[1]

    @property
    def waiting(self) -> int:
        """Records in all rings."""
        return sum(ring.waiting for ring in self.rings)

    @property
    def fill(self) -> float:
        """Part of the fullest ring that is in use, 0..1."""
        return max(ring.waiting / ring.capacity for ring in self.rings)

    def shares(self, most: int) -> list[int]:
        """How many records to take of each ring, `most` in all: as much of each, and what one leaves for the others."""
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
        """The oldest `counts` records of the rings in order of time; what is equal in order of the rings."""
        records = np.concatenate([ring.peek(count) for ring, count in zip(self.rings, counts, strict=True)])
        assert records.dtype == RECORD
        return records[np.argsort(records["ts"], kind="stable")]

    def counted(self) -> dict[str, int]:
        """The listeners' counters, summed."""
        return summed(self.counters).values()
