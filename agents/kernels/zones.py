"""Which zone a name lies in. The definition is sources/upstream.Routes.find."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel
from agents.kernels.question import int64

ZONE_WIDTH = 256
"""Bytes of a row: the size of a zone's name (at most 254), then the name in wire form, lower case."""


@kernel
def zone_of(message: NDArray[np.uint8], start: int, end: int, zones: NDArray[np.uint8]) -> int:
    """Row of the longest zone that the wire name message[start:end] (without root byte) lies in, or -1.

    zones: shape (n, ZONE_WIDTH). A row of size 0 is the default.
    """
    while start < end:
        for number in range(len(zones)):
            if int64(zones[number, 0]) == end - start and _same(message, start, end, zones[number]):
                return number
        start += int64(message[start]) + 1
    for number in range(len(zones)):
        if zones[number, 0] == 0:
            return number
    return -1


@kernel
def _same(message: NDArray[np.uint8], start: int, end: int, zone: NDArray[np.uint8]) -> bool:
    for place in range(end - start):
        byte = int64(message[start + place])
        # Upper case to lower; length bytes are below 64, so that this leaves them as they are.
        if 65 <= byte <= 90:
            byte += 32
        if byte != zone[1 + place]:
            return False
    return True
