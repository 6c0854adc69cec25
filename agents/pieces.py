"""Columns of bytes cut out of a buffer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.columns import Names
from agents.kernels import packing
from agents.kernels.listed import numbered


def gathered(array: NDArray[np.uint8], begins: NDArray[np.int64], sizes: NDArray[np.int64]) -> Names:
    """Pieces of a buffer as a column; begins and sizes have shape (n,)."""
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    out = np.empty(starts[-1], np.uint8)
    packing.gather(array, begins, sizes, out)
    return Names(out.tobytes(), starts)


class Pieces(NamedTuple):
    """n byte strings that lie anywhere in a buffer; begins and sizes have shape (n,)."""

    array: NDArray[np.uint8]
    begins: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Names:
        """Some of them, copied out."""
        return gathered(self.array, self.begins[rows], self.sizes[rows])


def pieces_of(column: Names) -> Pieces:
    """A packed column as pieces of its buffer."""
    return Pieces(column.array, column.starts[:-1], np.diff(column.starts))


def distinct_rows(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number n keys in the order of their first row: (the number of each row, the first row of each number)."""
    codes, firsts = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64)
    slots = np.full(1 << max(2 * len(keys), 1).bit_length(), -1, np.int32)
    return codes, firsts[: numbered(keys, slots, codes, firsts)]
