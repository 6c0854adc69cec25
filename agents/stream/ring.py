"""A bounded ring of records in shared memory: one process puts, one takes, and either may be killed at any moment.

Only the shared memory holds state. `head` and `tail` count records since the beginning. The store of `head`, after a
record's bytes, publishes it; the store of `tail` gives its slot back. Both are single stores of eight aligned bytes.
The scheme is Lamport's ("Proving the Correctness of Multiprocess Programs", 1977): with one writer for each of the
two counters no lock is needed between the processes.

A ring that fills up drops from the client with the largest backlog first (ring_kernels.py). What the writer counts for
that is its own: a process that follows a killed one counts what it finds in the ring.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.stream.record import RECORD, packed_record
from agents.stream.ring_kernels import PLACES, place

LINE = 64
"""Bytes of a cache line on supported processors: each counter has a line of its own."""
HEADER = 4 * LINE
HEAD, TAIL, DROPPED, SLEEPING = (line * LINE // 8 for line in range(4))
"""Where the numbers are among the 64-bit ones of the header."""
_SIZE = RECORD.itemsize
_lock = threading.Lock()


def barrier() -> None:
    """Make all earlier stores visible before any later store: x86-64 keeps that order by itself, ARMv8 does not.

    A lock is taken twice: stores before the first release are visible before stores after the second acquisition.
    """
    with _lock:
        pass
    with _lock:
        pass


class RingArrays(NamedTuple):
    """The memory of a ring for compiled code. The numbers are int64 of length 1."""

    head: NDArray[np.int64]
    tail: NDArray[np.int64]
    dropped: NDArray[np.int64]
    sleeping: NDArray[np.int64]
    records: NDArray[np.void]  # (capacity,), RECORD
    backlog: NDArray[np.int32]  # of the writer alone, as `key` and `counted`: see ring_kernels.admits
    counted: NDArray[np.int64]
    key: NDArray[np.uint64]


class Ring:
    """`capacity` slots of RECORD in `memory`; zeroed memory is an empty ring.

    memory: shared, writable, `size_of(capacity)` bytes, aligned to 8. bell: non-blocking descriptor; `put` writes a
    byte to it if the taker sleeps; -1 = none. slots: where the slots are, if not behind the HEADER bytes of memory.
    """

    def __init__(self, memory: memoryview, capacity: int, bell: int = -1, slots: memoryview | None = None) -> None:
        slots = memory[HEADER:] if slots is None else slots
        assert capacity > 0 and len(memory[:HEADER]) + len(slots) == self.size_of(capacity)
        self.capacity, self.bell = capacity, bell
        self._cells = memory[:HEADER].cast("Q")
        self._slots = np.frombuffer(slots, np.uint8).reshape(capacity, RECORD.itemsize)
        numbers = np.frombuffer(memory, np.int64, HEADER // 8)
        head, tail, dropped, sleeping = (numbers[at : at + 1] for at in (HEAD, TAIL, DROPPED, SLEEPING))
        own = np.zeros((2, PLACES), np.int32), np.full(1, -1), np.frombuffer(secrets.token_bytes(16), np.uint64)
        self.arrays = RingArrays(head, tail, dropped, sleeping, self._slots.reshape(-1).view(RECORD), *own)

    @staticmethod
    def size_of(capacity: int) -> int:
        """Bytes of memory for so many records."""
        return HEADER + capacity * RECORD.itemsize

    @property
    def head(self) -> int:
        """Records put since the beginning."""
        return self._cells[HEAD]

    @property
    def tail(self) -> int:
        """Records taken since the beginning."""
        return self._cells[TAIL]

    @property
    def dropped(self) -> int:
        """Records dropped because the ring was full."""
        return self._cells[DROPPED]

    @property
    def waiting(self) -> int:
        """Records put and not yet taken."""
        return self._cells[HEAD] - self._cells[TAIL]

    def put_rows(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """Pack and put queries; a row is what record.packed_record takes."""
        return self.put(b"".join([packed_record(*row) for row in rows]))

    def put(self, records: bytes) -> int:
        """Copy and publish the records that are admitted and fit; the rest is counted as dropped. Never waits.

        records: bytes of RECORDs, one after the other. Returns how many were accepted. One process at a time may call
        this method.
        """
        cells, arrays, count = self._cells, self.arrays, len(records) // _SIZE
        head, given = cells[HEAD], np.frombuffer(records, RECORD)
        accepted = place(arrays.backlog, arrays.counted, arrays.key, arrays.records, head, cells[TAIL], given)
        if accepted:
            barrier()
            cells[HEAD] = head + accepted
        if accepted < count:
            cells[DROPPED] += count - accepted
        barrier()
        if cells[SLEEPING]:
            cells[SLEEPING] = 0
            with contextlib.suppress(BlockingIOError):  # the pipe is full, so the taker wakes anyway
                os.write(self.bell, b"!")
        return accepted

    def peek(self, most: int) -> NDArray[np.void]:
        """The oldest records, at most `most`; they stay until `advance_to`. A view, or a copy if they wrap around."""
        cells = self._cells
        tail = cells[TAIL]
        count = min(most, cells[HEAD] - tail)
        barrier()
        at = tail % self.capacity
        rows = self._slots[at : at + count]
        if len(rows) < count:
            rows = np.concatenate((rows, self._slots[: count - len(rows)]))
        return rows.reshape(-1).view(RECORD)

    def advance_to(self, tail: int) -> None:
        """Give back the slots of all records before number `tail`; a repeated call changes nothing."""
        assert self._cells[TAIL] <= tail <= self._cells[HEAD]
        barrier()
        self._cells[TAIL] = tail

    def sleep(self, asleep: bool) -> None:
        """Set whether the next put shall wake the taker. The taker must look at `waiting` afterwards."""
        self._cells[SLEEPING] = int(asleep)
        barrier()
