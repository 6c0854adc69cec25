"""Whether an address lies in one of many networks. The definition is sources/access.AccessList."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel
from agents.kernels.question import uint64


@kernel
def allowed(high: int, low: int, ranges: NDArray[np.uint64]) -> bool:
    """True if the 128-bit address high << 64 | low (both uint64; an IPv4 one is all in low) is in a range.

    ranges: shape (n, 4), disjoint and sorted: first address (high, low) and last address (high, low).
    """
    begin, end = 0, len(ranges)
    while begin < end:
        middle = (begin + end) // 2
        if ranges[middle, 0] < high or (ranges[middle, 0] == high and ranges[middle, 1] <= low):
            begin = middle + 1
        else:
            end = middle
    if begin == 0:
        return False
    last = ranges[begin - 1]
    return bool(high < last[2] or (high == last[2] and low <= last[3]))


@kernel
def number64(data: NDArray[np.uint8], at: int) -> int:
    """Eight bytes in network order as uint64."""
    number = uint64(0)
    for place in range(8):
        number = number << uint64(8) | uint64(data[at + place])
    return number  # type: ignore[no-any-return]
