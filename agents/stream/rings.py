"""What one thread writes into: a ring for each detector, of which each has the queries of its slots (slots.py)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.stream.record import RECORD, packed_record
from agents.stream.ring import DROPPED, HEAD, HEADER, SLEEPING, TAIL, Ring
from agents.stream.ring_kernels import PLACES
from agents.stream.slots import NO_PARTED, owners_of

__all__ = ["DROPPED", "HEAD", "SLEEPING", "TAIL", "Rings", "RingsArrays"]


class RingsArrays(NamedTuple):
    """The memory of n rings for a writer in compiled code."""

    numbers: NDArray[np.int64]  # (n, HEADER / 8): see HEAD, TAIL, DROPPED, SLEEPING
    records: NDArray[np.void]  # (n, capacity), RECORD
    bells: NDArray[np.int64]  # (n,)
    recorded: NDArray[np.int64]  # (n,): records behind each head that are yet to be published
    backlog: NDArray[np.int32]  # (n, 2, ring_kernels.PLACES)
    counted: NDArray[np.int64]  # (n, 1)
    key: NDArray[np.uint64]  # (2,)
    parted: NDArray[np.uint64]  # (m, 4), see slots.PartedClients.ranges


class Rings:
    """n rings of `capacity` slots each in zeroed memory of `size_of(n, capacity)` bytes. bells: of their takers;
    parted: slots.PartedClients.ranges."""

    def __init__(
        self,
        memory: memoryview,
        capacity: int,
        bells: Sequence[int] = (-1,),
        parted: NDArray[np.uint64] = NO_PARTED,
    ) -> None:
        count, size = len(bells), capacity * RECORD.itemsize
        assert len(memory) == self.size_of(count, capacity)
        heads, slots = memory[: count * HEADER], memory[count * HEADER :]
        self.rings = [
            Ring(heads[at * HEADER :][:HEADER], capacity, bell, slots[at * size :][:size])
            for at, bell in enumerate(bells)
        ]
        self.capacity, self._count = capacity, count
        self.arrays = RingsArrays(
            np.frombuffer(heads, np.int64).reshape(count, HEADER // 8),
            np.frombuffer(slots, RECORD).reshape(count, capacity),
            np.array(bells, np.int64),
            np.zeros(count, np.int64),
            np.zeros((count, 2, PLACES), np.int32),
            np.full((count, 1), -1),
            np.frombuffer(secrets.token_bytes(16), np.uint64).copy(),
            parted,
        )

    @staticmethod
    def size_of(count: int, capacity: int) -> int:
        """Bytes of memory for so many rings."""
        return count * Ring.size_of(capacity)

    @property
    def waiting(self) -> int:
        """Records in the fullest ring."""
        return max(ring.waiting for ring in self.rings)

    @property
    def dropped(self) -> int:
        """Records dropped because their ring was full."""
        return sum(ring.dropped for ring in self.rings)

    def mark(self) -> tuple[int, ...]:
        """How much has been put so far."""
        return tuple(ring.head for ring in self.rings)

    def passed(self, mark: Sequence[int]) -> bool:
        """Whether all that was put before a mark has been taken."""
        return all(ring.tail >= head for ring, head in zip(self.rings, mark, strict=True))

    def put_rows(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """Pack and put queries; a row is what record.packed_record takes."""
        return self.put(b"".join([packed_record(*row) for row in rows]))

    def put(self, records: bytes) -> int:
        """Put each record into the ring of its detector (Ring.put); how many were accepted. Never waits."""
        if self._count == 1:
            return self.rings[0].put(records)
        given = np.frombuffer(records, RECORD)
        of = owners_of(given, self._count, self.arrays.parted)
        return sum(self.rings[at].put(given[of == at].tobytes()) for at in np.unique(of).tolist())
