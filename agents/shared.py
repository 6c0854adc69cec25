"""All the memory that a supervisor's processes share: made before the fork, kept by the supervisor, lost with it."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import select
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from agents.ledger import Ledger
from agents.records import RECORD
from agents.ring import LINE, Ring
from agents.sources.counters import Counters, summed


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
