"""Which names may belong to a listed service, or give a secret away: few do, and those are looked at one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel
from agents.kernels.hashing import siphash

SECRET_BYTES = 8
"""Decoded text shorter than this proves nothing."""
HEX_DIGITS, BASE32_DIGITS, BASE64_DIGITS = 16, 13, 11
"""Digits that make SECRET_BYTES bytes (RFC 4648 sections 8, 6 and 4)."""
NO_DIGIT = 255
ZERO = np.uint64(0)


def _digits(*runs: str) -> NDArray[np.uint8]:
    table = np.full(256, NO_DIGIT, np.uint8)
    for alphabet in runs:
        for value, letter in enumerate(alphabet):
            table[ord(letter)] = value
    return table


_UPPER, _LOWER, _DECIMAL = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789"
HEX = _digits(_DECIMAL + "abcdef", _DECIMAL + "ABCDEF")
BASE32 = _digits(_UPPER + "234567", _LOWER + "234567")
BASE64 = _digits(_UPPER + _LOWER + _DECIMAL + "+/", _UPPER + _LOWER + _DECIMAL + "-_")


@kernel
def listed(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    keys: NDArray[np.uint64],
    numbers: NDArray[np.int32],
    out: NDArray[np.int32],
) -> int:
    """The listed suffix that each of n packed lower-case names ends in, the longest; -1 where there is none.

    keys: open addressing of siphash(suffix), 0 = free, its length a power of two; numbers: of the suffix in each place.
    Fills out: shape (n,); returns how many end in one.
    """
    found, mask = 0, len(keys) - 1
    for name in range(len(starts) - 1):
        out[name] = -1
        at, end = starts[name], starts[name + 1]
        while at < end and out[name] < 0:
            key = siphash(data, at, end, ZERO, ZERO)
            place = np.int64(key & np.uint64(mask))
            while keys[place] != 0 and keys[place] != key:
                place = (place + 1) & mask
            if keys[place] == key:
                out[name] = numbers[place]
                found += 1
            at += np.int64(data[at]) + 1
    return found


@kernel
def _is_text(byte: Any) -> bool:
    return bool(0x20 <= byte <= 0x7E or byte == 0x09 or byte == 0x0A or byte == 0x0D)


@kernel
def _begins_as_text(digits: NDArray[np.uint8], count: Any, table: NDArray[np.uint8], bits: int, need: int) -> bool:
    """Whether the first SECRET_BYTES bytes that `need` digits of so many bits decode to are text."""
    if count < need:
        return False
    held, held_bits, found = np.int64(0), 0, 0
    for i in range(need):
        value = np.int64(table[digits[i]])
        if value == NO_DIGIT:
            return False
        held = (held << bits) | value
        held_bits += bits
        if held_bits >= 8:
            held_bits -= 8
            if not _is_text((held >> held_bits) & 0xFF):
                return False
            held &= (1 << held_bits) - 1
            found += 1
            if found == SECRET_BYTES:
                return True
    return True


@kernel
def _may_decode(digits: NDArray[np.uint8], count: int) -> bool:
    return (
        _begins_as_text(digits, count, HEX, 4, HEX_DIGITS)
        or _begins_as_text(digits, count, BASE32, 5, BASE32_DIGITS)
        or _begins_as_text(digits, count, BASE64, 6, BASE64_DIGITS)
    )


@kernel
def may_tell(data: NDArray[np.uint8], at: Any, end: Any, digits: NDArray[np.uint8]) -> bool:
    """Whether subdomain labels (data[at:end], in the case they were sent) may give a secret away.

    Never False where decoding.secret_in finds one, but for call-back domains. digits: shape (HEX_DIGITS,), overwritten.
    """
    if end - at < SECRET_BYTES:
        return False
    for i in range(at, end - 1):
        plain = data[i] == 0x3D or (data[i] == 0x49 and data[i + 1] == 0x41)  # "=" and "IA"
        if plain or (data[i] == 0x65 and data[i + 1] == 0x79 and i + 2 < end and data[i + 2] == 0x4A):  # "eyJ"
            return True
    if data[end - 1] == 0x3D:
        return True
    joined, label = 0, at
    while label < end:
        size = np.int64(data[label])
        for i in range(label + 1, label + 1 + size):
            if joined < HEX_DIGITS:
                digits[joined] = data[i]
                joined += 1
        label += size + 1
    if _may_decode(digits, joined):
        return True
    label = at + np.int64(data[at]) + 1
    while label < end:
        size = np.int64(data[label])
        if size >= 2 * SECRET_BYTES:
            for i in range(HEX_DIGITS):
                digits[i] = data[label + 1 + i]
            if _may_decode(digits, HEX_DIGITS):
                return True
        label += size + 1
    return False


@kernel
def all_may_tell(
    data: NDArray[np.uint8], starts: NDArray[np.int64], cuts: NDArray[np.int64], out: NDArray[np.uint8]
) -> None:
    """may_tell for n packed names; cuts: offset of the registered domain in its name; out: shape (n,)."""
    digits = np.zeros(HEX_DIGITS, np.uint8)
    for name in range(len(starts) - 1):
        out[name] = may_tell(data, starts[name], starts[name] + cuts[name], digits)


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
