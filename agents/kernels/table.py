"""Byte strings by number: an open-addressing table over packed keys, for the rules and labels that are looked up.

A slot holds a key's number plus one, and 0 where it is free (linear probing, Knuth volume 3, section 6.4). Bytes are
compared, so there are no false matches. The keys are fixed and few of the slots are taken: nobody can crowd it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel

ROOM = 4
"""Slots a key, at least: what is not there is told after 1.2 slots on average."""
_PRIME, _MASK = 0x01000193, 0xFFFFFFFF
BEGIN = 0x811C9DC5
"""The hash of nothing. FNV-1a, 32 bits (RFC 9923), from the last byte to the first."""


@kernel
def mixed(found: Any, data: Any, start: Any, end: Any) -> Any:
    """The hash `found` of what follows data[start:end] (u8), extended to the left by it."""
    for at in range(end - 1, start - 1, -1):
        found = ((found ^ np.int64(data[at])) * _PRIME) & _MASK
    return found


@kernel
def fill(keys: Any, starts: Any, slots: Any) -> None:
    """Put r packed keys (u8, i64[r + 1]) into zeroed slots, i32; their number is a power of two above r."""
    last = len(slots) - 1
    for key in range(len(starts) - 1):
        at = mixed(np.int64(BEGIN), keys, starts[key], starts[key + 1]) & last
        while slots[at]:
            at = (at + 1) & last
        slots[at] = key + 1


@kernel
def find(hashed: Any, data: Any, start: Any, end: Any, keys: Any, starts: Any, slots: Any) -> Any:
    """Number of the key data[start:end], whose hash is given, or -1."""
    last = len(slots) - 1
    at, size = hashed & last, end - start
    while slots[at]:
        key = np.int64(slots[at]) - 1
        begin = starts[key]
        if starts[key + 1] - begin == size:
            i = 0
            while i < size and keys[begin + i] == data[start + i]:
                i += 1
            if i == size:
                return key
        at = (at + 1) & last
    return -1


def slots_of(keys: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.int32]:
    """The table over r packed keys, starts (r + 1,)."""
    slots = np.zeros(1 << (ROOM * len(starts)).bit_length(), np.int32)
    fill(keys, starts, slots)
    return slots
