"""Columns of bytes cut out of a buffer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.columns import Names
from agents.kernels import packing


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
