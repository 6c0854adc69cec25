"""Which names are numbered, their shape and their digits. The definition is numbering.shape_of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel
from agents.kernels.hashing import siphash

RUN_MAX = 4
"""Digits that may follow letters: a host's number. More are an id."""
ALONE_MAX = 3
"""Digits that may stand alone: an octet of an address."""
DIGITS_MAX = 15
"""Digits of one name."""
COUNT_AT = 60
"""Bit from which packed digits say how many they are."""
TEXT_ROOM = 256
_HASH, _DOT, _HYPHEN, _UNDERSCORE, _ZERO, _NINE, _A, _Z = b"#.-_09az"


@kernel
def _shape(data: Any, at: Any, end: Any, text: NDArray[np.uint8]) -> tuple[int, Any]:
    """Write the shape of the labels data[at:end] to text; (its size, packed digits), digits 0 where there is none."""
    none, digits, count, size = np.uint64(0), np.uint64(0), 0, 1
    text[0] = _HASH
    while at < end:
        stop = at + 1 + np.int64(data[at])
        letters = run = 0  # of the token so far
        for place in range(at + 1, stop):
            byte = data[place]
            if _ZERO <= byte <= _NINE:
                run, count = run + 1, count + 1
                if count > DIGITS_MAX or run > (RUN_MAX if letters else ALONE_MAX):
                    return 0, none
                digits = (digits << np.uint64(4)) | np.uint64(byte - _ZERO)
                byte = _ZERO
            elif _A <= byte <= _Z:
                if run:
                    return 0, none
                letters += 1
            elif byte in (_HYPHEN, _UNDERSCORE):
                letters = run = 0
            else:
                return 0, none
            text[size] = byte
            size += 1
        text[size] = _DOT
        size += 1
        at = stop
    return size, digits | (np.uint64(count) << np.uint64(COUNT_AT))


@kernel
def numbers(data: Any, starts: Any, cuts: Any, low: Any, high: Any, shapes: Any, digits: Any) -> None:
    """Fill the shapes' identities and the packed digits, u64[n], of n packed lower-case names; zeros for others.

    cuts i64[n]: offset of the registered domain in each.
    """
    text = np.empty(TEXT_ROOM, np.uint8)
    for name in range(len(starts) - 1):
        size, found = _shape(data, starts[name], starts[name] + cuts[name], text)
        shapes[name], digits[name] = np.uint64(0), np.uint64(0)
        if found >> np.uint64(COUNT_AT):
            shapes[name], digits[name] = siphash(text, 0, size, low, high), found
