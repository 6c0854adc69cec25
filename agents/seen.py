"""What was seen before, by 64-bit identity, in bounded memory that does not fill up."""

from __future__ import annotations

import hashlib
from functools import lru_cache

EXACT_MAX = 500
"""Keys remembered one by one; beyond it Bloom filters (Bloom 1970) of SKETCH_BITS each take over."""
SKETCH_BITS = 1 << 17
SKETCH_HASHES = 4
FULL_BITS = SKETCH_BITS // 2
"""Bits set from which a filter is full: at half it overlooks one new key in SKETCH_HASHES**2 = 16. It then becomes the
older generation, and what was only in the one before that is forgotten."""


@lru_cache(maxsize=131_072)
def key_of(data: bytes) -> int:
    """64-bit identity of a label or name, the same in every process (BLAKE2, RFC 7693)."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class Memory:
    """Which 64-bit keys were seen: one by one while few, then in two generations of a Bloom filter.

    A filter may overlook a new key; it never takes one for new that it holds.
    """

    __slots__ = ("exact", "older", "sketch")

    def __init__(self) -> None:
        self.exact: set[int] = set()
        self.sketch: bytearray | None = None
        self.older: bytearray | None = None

    def add(self, key: int) -> bool:
        """Remember the key; True if it was new."""
        if self.sketch is None:
            if key in self.exact:
                return False
            self.exact.add(key)
            if len(self.exact) >= EXACT_MAX:
                self._begin_sketch()
            return True
        new = self._mark(self.sketch, key) and not (self.older is not None and _holds(self.older, key))
        if new and key % 256 == 0 and _bits(self.sketch) >= FULL_BITS:
            self.older, self.sketch = self.sketch, bytearray(SKETCH_BITS // 8)
        return new

    def _begin_sketch(self) -> None:
        self.sketch = bytearray(SKETCH_BITS // 8)
        for key in self.exact:
            self._mark(self.sketch, key)
        self.exact = set()

    @staticmethod
    def _mark(sketch: bytearray, key: int) -> bool:
        new = False
        for bit in _places(key):
            if not sketch[bit >> 3] >> (bit & 7) & 1:
                sketch[bit >> 3] |= 1 << (bit & 7)
                new = True
        return new


def _places(key: int) -> list[int]:
    step = (key >> 32) | 1  # double hashing (Kirsch, Mitzenmacher 2006)
    return [(key + i * step) % SKETCH_BITS for i in range(SKETCH_HASHES)]


def _holds(sketch: bytearray, key: int) -> bool:
    return all(sketch[bit >> 3] >> (bit & 7) & 1 for bit in _places(key))


def _bits(sketch: bytearray) -> int:
    return int.from_bytes(sketch, "little").bit_count()
