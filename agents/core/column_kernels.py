"""Byte strings by the column: keyed identities, look-up tables, pieces gathered, distinct values numbered."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel, kernel_in_place, kernel_that_wraps

_V0, _V1, _V2, _V3 = map(np.uint64, (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573))
_13, _16, _17, _21, _32, _43, _47, _48, _51, _56 = map(np.uint64, (13, 16, 17, 21, 32, 43, 47, 48, 51, 56))
_FINAL, _BYTE, _NONE = map(np.uint64, (0xFF, 8, 0))
_DOT = np.uint8(0x2E)
LABEL_ROOM = 64
"""A dot and the longest label."""


@kernel_in_place
def _round(v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
    v0 += v1
    v2 += v3
    v1 = (v1 << _13 | v1 >> _51) ^ v0
    v3 = (v3 << _16 | v3 >> _48) ^ v2
    v0 = v0 << _32 | v0 >> _32
    v2 += v1
    v0 += v3
    v1 = (v1 << _17 | v1 >> _47) ^ v2
    v3 = (v3 << _21 | v3 >> _43) ^ v0
    v2 = v2 << _32 | v2 >> _32
    return v0, v1, v2, v3


@kernel_in_place
def _word(data: Any, at: Any, size: Any) -> Any:
    """The little-endian number in `size` (at most 8) bytes."""
    word, first = _NONE, np.uint64(at)
    for i in range(np.uint64(size)):
        word |= np.uint64(data[first + i]) << (_BYTE * i)
    return word


@kernel_that_wraps
def siphash(data: Any, start: Any, end: Any, low: Any, high: Any) -> Any:
    """u64 SipHash-1-3 of data[start:end] (u8)."""
    v0, v1, v2, v3 = _V0 ^ low, _V1 ^ high, _V2 ^ low, _V3 ^ high
    size = end - start
    at, whole = start, start + size // 8 * 8
    while at < whole:
        word = _word(data, at, 8)
        v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
        v0 ^= word
        at += 8
    word = _word(data, at, end - at) | np.uint64(size & 0xFF) << _56
    v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
    v0 ^= word
    v2 ^= _FINAL
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@kernel
def identities_of(
    data: Any, starts: Any, part_starts: Any, cuts: Any, low: Any, high: Any, parts: Any, names: Any, domains: Any
) -> None:
    """Fill the identities (u64) of p subdomain labels of n packed lower-case names, of the names and of their domains.

    A name's and a domain's is that of their wire form without the root byte; a label's that of "." and the label.
    cuts i64[n] and part_starts i64[n + 1] are those of suffix.split.
    """
    label = np.empty(LABEL_ROOM, np.uint8)
    label[0] = _DOT
    for name in range(len(starts) - 1):
        at, end = starts[name], starts[name + 1]
        names[name] = siphash(data, at, end, low, high)
        domains[name] = siphash(data, at + cuts[name], end, low, high)
        for part in range(part_starts[name], part_starts[name + 1]):
            size = np.int64(data[at])
            for i in range(1, size + 1):
                label[i] = data[at + i]
            parts[part] = siphash(label, 0, size + 1, low, high)
            at += size + 1


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


@kernel
def gather(data: Any, begins: Any, sizes: Any, out: Any) -> None:
    """Write n pieces of data (u8) into out, one behind the other; begins and sizes i64 (n,)."""
    to = 0
    for row in range(len(begins)):
        begin, size = begins[row], sizes[row]
        out[to : to + size] = data[begin : begin + size]
        to += size


@kernel
def numbered(keys: NDArray[np.uint64], slots: NDArray[np.int32], codes: NDArray[np.int32], firsts: Any) -> int:
    """Number n keys in the order of their first row; returns how many differ.

    codes: shape (n,), the number of each row; firsts: shape (n,), first row of each number. slots: all -1, its length
    a power of two of at least 2 n.
    """
    count, mask = 0, len(slots) - 1
    for row in range(len(keys)):
        place = np.int64(keys[row] >> np.uint64(17)) & mask
        while slots[place] >= 0 and keys[firsts[slots[place]]] != keys[row]:
            place = (place + 1) & mask
        if slots[place] < 0:
            slots[place] = count
            firsts[count] = row
            count += 1
        codes[row] = slots[place]
    return count
