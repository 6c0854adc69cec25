"""Columns of byte strings: keyed identities, look-up tables, gathering slices, numbering distinct values.

Identities are SipHash-1-3 (Aumasson, Bernstein 2012): 64 bits. Without the key, an attacker cannot make two collide.
The key is two u64, bytes 0 to 7 and 8 to 15 of the 128-bit key, little-endian.

A look-up table is open addressing over packed keys. A slot holds a key's number plus one, or 0 if it is free
(linear probing, Knuth volume 3, section 6.4). Bytes are compared, so there are no false matches. The keys are fixed and
use few of the slots, so an attacker cannot fill the table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel, kernel_in_place, kernel_that_wraps

_V0, _V1, _V2, _V3 = map(np.uint64, (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573))
_13, _16, _17, _21, _32, _43, _47, _48, _51, _56 = map(np.uint64, (13, 16, 17, 21, 32, 43, 47, 48, 51, 56))
_FINAL, _BYTE, _NONE, _ONE = map(np.uint64, (0xFF, 8, 0, 1))
Key = tuple[int, int]
"""The two halves of a key, as Python numbers."""


@kernel_in_place
def _round(v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
    """SipRound: figure 2.1 of the paper."""
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


@kernel_that_wraps
def fill_words(text: Any, size: Any, words: Any) -> None:
    """The little-endian number in the eight bytes from each place of text[:size] (u8) on; bytes behind the end are 0.

    words: u64, at least size + 9.
    """
    words[size : size + 9] = _NONE
    for at in range(size - 1, -1, -1):
        words[at] = words[at + 1] << _BYTE | np.uint64(text[at])


@kernel_that_wraps
def siphash_of_words(words: Any, start: Any, size: Any, low: Any, high: Any) -> Any:
    """`siphash` of text[start : start + size], for many overlapping slices of one text. words: of fill_words."""
    v0, v1, v2, v3 = _V0 ^ low, _V1 ^ high, _V2 ^ low, _V3 ^ high
    at, whole = start, start + size // 8 * 8
    while at < whole:
        word = words[at]
        v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
        v0 ^= word
        at += 8
    rest = _BYTE * np.uint64(size & 7)
    word = words[at] & ((_ONE << rest) - _ONE) | np.uint64(size & 0xFF) << _56
    v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
    v0 ^= word
    v2 ^= _FINAL
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


def keyed_hash(data: bytes, key: Key) -> int:
    """SipHash-1-3 of the bytes: 0 <= result < 2**64."""
    return int(siphash(np.frombuffer(data, np.uint8), 0, len(data), np.uint64(key[0]), np.uint64(key[1])))


@kernel
def hash_pieces(data: Any, begins: Any, sizes: Any, low: Any, high: Any, out: Any) -> None:
    """Identities, u64[n], of n slices of data (u8); begins and sizes i64[n]."""
    for piece in range(len(begins)):
        out[piece] = siphash(data, begins[piece], begins[piece] + sizes[piece], low, high)


ROOM = 4
"""Slots a key, at least: the search for an absent key ends after 1.2 slots on average."""
_PRIME, _MASK = 0x01000193, 0xFFFFFFFF
BEGIN = 0x811C9DC5
"""The hash of the empty string. FNV-1a, 32 bits (RFC 9923), from the last byte to the first."""


@kernel
def mixed(found: Any, data: Any, start: Any, end: Any) -> Any:
    """Extend a hash to the left by data[start:end] (u8). found: the hash of the bytes after `end`."""
    for at in range(end - 1, start - 1, -1):
        found = ((found ^ np.int64(data[at])) * _PRIME) & _MASK
    return found


@kernel
def fill_slots(keys: Any, starts: Any, slots: Any) -> None:
    """Put r packed keys (u8, i64[r + 1]) into zeroed slots, i32; the number of slots is a power of two above r."""
    last = len(slots) - 1
    for key in range(len(starts) - 1):
        at = mixed(np.int64(BEGIN), keys, starts[key], starts[key + 1]) & last
        while slots[at]:
            at = (at + 1) & last
        slots[at] = key + 1


@kernel
def find_key(hashed: Any, data: Any, start: Any, end: Any, keys: Any, starts: Any, slots: Any) -> Any:
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
    fill_slots(keys, starts, slots)
    return slots


@kernel
def gather(data: Any, begins: Any, sizes: Any, out: Any) -> None:
    """Write n slices of data (u8) into out, one after the other; begins and sizes i64 (n,)."""
    to = 0
    for row in range(len(begins)):
        begin, size = begins[row], sizes[row]
        out[to : to + size] = data[begin : begin + size]
        to += size


@kernel
def numbered(keys: NDArray[np.uint64], slots: NDArray[np.int32], codes: NDArray[np.int32], firsts: Any) -> int:
    """Number n keys in the order of their first row; returns the number of different keys.

    codes: shape (n,), the number of each row; firsts: shape (n,), first row of each number. slots: all -1, its length
    a power of two, at least 2 n.
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
