"""One process' newest note, in memory that it shares with others: read whole or not at all, also on a full disk."""

from __future__ import annotations

import mmap
import time

from agents.stream.ring import barrier

SIZE = 1 << 18
"""Bytes of memory, where nothing else is said; a note is shorter."""
_HEAD = 16
NOTE_MAX = SIZE - _HEAD
"""Bytes of the longest note then."""
_TRIES, _PAUSE_S = 20, 0.001


class SharedNote:
    """Made before the processes are forked. One process writes at a time; any may read.

    A number goes up before and after each change, so it is odd while a note is written (a seqlock).
    """

    def __init__(self, size: int = SIZE) -> None:
        self._memory = memoryview(mmap.mmap(-1, size))
        self.most = size - _HEAD  # bytes of the longest note
        self._cells = self._memory[:_HEAD].cast("q")

    def write(self, data: bytes) -> None:
        """Replace the note. Raises ValueError for one that is too long."""
        if len(data) > self.most:
            raise ValueError(f"cannot keep a note of {len(data)} bytes")
        self._cells[0] |= 1  # a writer that was killed may have left it odd
        barrier()
        self._memory[_HEAD : _HEAD + len(data)] = data
        self._cells[1] = len(data)
        barrier()
        self._cells[0] += 1

    @property
    def version(self) -> int:
        """A number that changes with the note."""
        return self._cells[0]

    def read(self) -> bytes:
        """The newest note; b"" where there is none, or its writer was killed while it wrote."""
        for _ in range(_TRIES):
            before = self._cells[0]
            barrier()
            data = bytes(self._memory[_HEAD : _HEAD + self._cells[1]])
            barrier()
            if before == self._cells[0] and not before & 1:
                return data
            time.sleep(_PAUSE_S)
        return b""
