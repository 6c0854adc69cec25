"""SipHash (Aumasson, Bernstein 2012), plain: the oracle of the keyed identities of core/column_kernels.py."""

from __future__ import annotations

_MASK = (1 << 64) - 1
_BEGIN = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
"""Section 2.1 of the paper: "somepseudorandomlygeneratedbytes"."""

Key = tuple[int, int]
"""The 128-bit key as two numbers: bytes 0 to 7 and 8 to 15, little-endian."""


def siphash(data: bytes, key: Key, compressions: int = 1, finalizations: int = 3) -> int:
    """SipHash-c-d of the bytes; SipHash-1-3 unless told. 0 <= result < 2**64."""
    low, high = key
    state = [_BEGIN[0] ^ low, _BEGIN[1] ^ high, _BEGIN[2] ^ low, _BEGIN[3] ^ high]
    whole = len(data) - len(data) % 8
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, 8)]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    for word in words:
        state[3] ^= word
        for _ in range(compressions):
            _round(state)
        state[0] ^= word
    state[2] ^= 0xFF
    for _ in range(finalizations):
        _round(state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _left(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _MASK


def _round(v: list[int]) -> None:
    """SipRound: figure 2.1 of the paper."""
    v[0] = (v[0] + v[1]) & _MASK
    v[2] = (v[2] + v[3]) & _MASK
    v[1], v[3] = _left(v[1], 13) ^ v[0], _left(v[3], 16) ^ v[2]
    v[0] = _left(v[0], 32)
    v[2] = (v[2] + v[1]) & _MASK
    v[0] = (v[0] + v[3]) & _MASK
    v[1], v[3] = _left(v[1], 17) ^ v[2], _left(v[3], 21) ^ v[0]
    v[2] = _left(v[2], 32)
