"""The progress of each batch, in shared memory: if a detector is killed, the next one continues exactly there.

Before a batch is judged, its intent is written: a number, and how many records it takes from each ring. When the sinks
have the batch, the new totals and the rings' new tails are written first. Then one store of the state decides, and
the steps after it (copy the totals, move the tails) may be repeated. A batch whose intent is not decided is judged
again under the same id; the store ignores a batch that it already has (a write-ahead log of one entry).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agents.stream.ring import Ring, barrier

TOTALS = (
    "scored",
    "stored",
    "spooled",
    "sampled_out",
    "lost",
    "unexplained",
    "suspicious",
    "high",
    "critical",
    "timed",
    "answer_us",
)
"""Queries since the start of the first process. scored = stored + spooled + sampled_out + lost. Of those scored, some
are SUSPICIOUS, HIGH or CRITICAL; of `timed` it is known how long their answers took: microseconds in all."""
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
"""Counts of a detector that its successor continues; after a kill -9 they are a few seconds old."""
ATTEMPTS_MAX = 3
"""A batch that crashed so many detectors is given up: it would crash every later one. Its unstored queries are lost."""
NUMBER_DIGITS = 16
"""The last digits of a batch's id are its number, in base 16."""
_NONE, _BEGUN, _DECIDED = range(3)
_STATE, _NUMBER, _LEVEL, _ATTEMPTS = range(4)
_NOW = 4
_NEXT = _NOW + len(TOTALS)
_CARRIED = _NEXT + len(TOTALS)
_TAILS = _CARRIED + len(CARRIED)


class Intent(NamedTuple):
    """A batch to be judged. counts: records of each ring, from its tail on."""

    batch_id: str
    counts: tuple[int, ...]
    level: int  # of load, when it was begun
    attempts: int  # 1 = the first


class Ledger:
    """cells: shared memory of `size_of(len(rings))` bytes as signed 64-bit numbers, zeros at first.

    run_id: distinguishes the batches of one start of the program from those of all others.
    """

    def __init__(self, cells: memoryview, rings: Sequence[Ring], run_id: str) -> None:
        self._cells, self._rings, self.run_id = cells, rings, run_id

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
        """The present TOTALS by name."""
        return dict(zip(TOTALS, self._cells[_NOW:_NEXT].tolist(), strict=True))

    def begin(self, counts: Sequence[int]) -> Intent:
        """Write the intent of the next batch."""
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
        """Complete a batch that a killed process had decided; returns the batch that it had only begun, if any."""
        if self._cells[_STATE] == _DECIDED:
            self._apply()
        if self._cells[_STATE] == _NONE:
            return None
        self._cells[_ATTEMPTS] += 1
        return self._intent()

    def _intent(self) -> Intent:
        cells = self._cells
        counts = tuple(cells[_TAILS + at] - ring.tail for at, ring in enumerate(self._rings))
        batch_id = f"{self.run_id}{cells[_NUMBER]:0{NUMBER_DIGITS}x}"
        return Intent(batch_id, counts, cells[_LEVEL], cells[_ATTEMPTS])

    def finish(self, changes: Mapping[str, int]) -> None:
        """Call when the sinks have the batch: adds `changes` to the totals and gives its slots back to the rings."""
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
        """CARRIED as last written; the next process adds to it."""
        return dict(zip(CARRIED, self._cells[_CARRIED:_TAILS].tolist(), strict=True))

    def carry(self, values: Mapping[str, int]) -> None:
        """Write CARRIED."""
        for at, name in enumerate(CARRIED):
            self._cells[_CARRIED + at] = values[name]
