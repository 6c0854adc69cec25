"""What becomes of each batch, in shared memory: after a detector that was killed, the next goes on exactly there.

Before a batch is judged its intent is written: a number and how many records of each ring it takes. When the sinks
have it, the totals as they are to be and the rings' new tails are already written down, so one store decides, and
what follows (copying the totals, moving the tails) may be repeated. A batch whose intent stands undecided is done
again under the same id; the store leaves a batch alone that it has (a write-ahead log of one entry).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agents.stream.ring import Ring, barrier

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
        """The level of load (shared.py); set between two batches."""
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
