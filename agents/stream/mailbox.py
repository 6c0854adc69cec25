"""Messages of any length from one process to another, in shared memory: whole or not at all, each read once.

As the rings of records (ring.py): the store of `head` publishes, that of `tail` gives room back, and only the memory
holds state, so that a process that follows a killed one goes on.
"""

from __future__ import annotations

import mmap

from agents.stream.ring import barrier

MAILBOX_BYTES = 16 << 20
"""Room for messages: some 100,000 queries that carry something."""
_HEAD, _TAIL, _DROPPED = range(3)
_COUNTERS = 64
_SIZE = 8


class Mailbox:
    """Made before the processes are forked. One process puts, one takes."""

    def __init__(self, size: int = MAILBOX_BYTES) -> None:
        self._memory = memoryview(mmap.mmap(-1, _COUNTERS + size))
        self._cells, self._data, self._room = self._memory[:_COUNTERS].cast("q"), self._memory[_COUNTERS:], size

    @property
    def waiting(self) -> int:
        """Bytes that are put and not taken."""
        return self._cells[_HEAD] - self._cells[_TAIL]

    @property
    def room(self) -> int:
        """Bytes of room in all."""
        return self._room

    @property
    def dropped(self) -> int:
        """Messages for which there was no room."""
        return self._cells[_DROPPED]

    def put(self, message: bytes) -> bool:
        """Publish a message; False, and it is counted, where there is no room for it. Never waits."""
        cells, size = self._cells, _SIZE + len(message)
        if self.waiting + size > self._room:
            cells[_DROPPED] += 1
            return False
        at = self._write(cells[_HEAD], len(message).to_bytes(_SIZE, "little"))
        at = self._write(at, message)
        barrier()
        cells[_HEAD] = at
        return True

    def peek(self) -> tuple[list[bytes], int]:
        """All that waits, oldest first, and what to give to `advance_to` once it is dealt with."""
        at, head, found = self._cells[_TAIL], self._cells[_HEAD], []
        barrier()
        while at < head:
            size = int.from_bytes(self._read(at, _SIZE), "little")
            found.append(self._read(at + _SIZE, size))
            at += _SIZE + size
        return found, at

    def advance_to(self, at: int) -> None:
        """Give back the room of all before this place."""
        barrier()
        self._cells[_TAIL] = at

    def _write(self, at: int, data: bytes) -> int:
        begin = at % self._room
        first = min(len(data), self._room - begin)
        self._data[begin : begin + first] = data[:first]
        self._data[: len(data) - first] = data[first:]
        return at + len(data)

    def _read(self, at: int, size: int) -> bytes:
        begin = at % self._room
        first = min(size, self._room - begin)
        return bytes(self._data[begin : begin + first]) + bytes(self._data[: size - first])
