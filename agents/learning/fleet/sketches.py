"""HyperLogLog: how many distinct clients ask below a domain, so that several sites' sketches become one.

Two resolvers of one network see the same clients: a sum of counts counts them twice, a union of sketches once. A client
goes in as a hash with the sites' secret and the round's number; the coordinator has no secret, and gives no sketch on.

Flajolet, Fusy, Gandouet, Meunier 2007: m = 2^P registers; a hash chooses one by its first P bits, and leaves there the
largest rank (place of the first 1) of the other bits. With Z the sum of 2^-M over the registers M:

    E = alpha m^2 / Z,  alpha = 0.7213 / (1 + 1.079 / m)

and m ln(m / V) where E <= 5/2 m and V registers are empty. The standard error is 1.04 / sqrt(m), 3.3 % here. Hashes
have 64 bits, so the correction for large counts is not needed (Heule, Nunkesser, Hall 2013).
"""

from __future__ import annotations

import hashlib
import hmac
import string
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

P = 10
REGISTERS = 1 << P
RANK_MAX = 64 - P + 1
"""Rank of a hash whose other bits are all 0."""
_ALPHA = 0.7213 / (1 + 1.079 / REGISTERS)
_LETTERS = (string.digits + string.ascii_uppercase + string.ascii_lowercase)[: RANK_MAX + 1]
SKETCH_PATTERN = f"^[0-9A-Z{_LETTERS[36]}-{_LETTERS[-1]}]{{{REGISTERS}}}$"
"""A sketch as text: a letter a register."""
_CODES = np.frombuffer(_LETTERS.encode(), np.uint8)
_VALUES = np.zeros(256, np.uint8)
_VALUES[_CODES] = np.arange(len(_CODES), dtype=np.uint8)


def client_place(secret: str, number: int, client: str) -> tuple[int, int]:
    """A client's register and rank in a round. A sketch of another round says nothing of the same client."""
    text = f"client {number} {client}".encode("utf-8", "surrogatepass")
    value = int.from_bytes(hmac.new(secret.encode(), text, hashlib.sha256).digest()[:8], "big")
    rest = value & ((1 << (64 - P)) - 1)
    return value >> (64 - P), RANK_MAX - rest.bit_length()


def sketch_of(places: Iterable[tuple[int, int]]) -> NDArray[np.uint8]:
    """The sketch of clients, by their places. Shape (REGISTERS,)."""
    found = np.zeros(REGISTERS, np.uint8)
    for register, rank in places:
        found[register] = max(found[register], rank)
    return found


def sketch_text(registers: NDArray[np.uint8]) -> str:
    """A sketch as it is sent."""
    return _CODES[registers].tobytes().decode()


def registers_of(text: str) -> NDArray[np.uint8]:
    """The registers of a text of SKETCH_PATTERN."""
    return _VALUES[np.frombuffer(text.encode(), np.uint8)]


def estimated(registers: NDArray[np.uint8]) -> float:
    """How many different ones a sketch has seen."""
    raw = _ALPHA * REGISTERS**2 / float(np.exp2(-registers.astype(np.float64)).sum())
    empty = REGISTERS - int(np.count_nonzero(registers))
    return REGISTERS * float(np.log(REGISTERS / empty)) if empty and raw <= 2.5 * REGISTERS else raw


def joined_estimate(sketches: Sequence[NDArray[np.uint8]]) -> float:
    """Distinct clients of several sites, of which none adds more than another one has; 0 for fewer than two.

    For each site i: the union of the others, and at most the largest of them once more; of these, and of the union of
    all, the least. The term of a hostile site holds nothing that it sent, so whatever that is, the result stays within
    what the others say.
    """
    if len(sketches) < 2:
        return 0.0
    rows = np.stack(sketches)
    one = [estimated(row) for row in rows]
    before = np.maximum.accumulate(np.vstack([np.zeros_like(rows[:1]), rows[:-1]]), axis=0)
    after = np.maximum.accumulate(np.vstack([np.zeros_like(rows[:1]), rows[:0:-1]]), axis=0)[::-1]
    ranked = sorted(one)
    bounds = [
        estimated(np.maximum(before[at], after[at])) + (ranked[-2] if value == ranked[-1] else ranked[-1])
        for at, value in enumerate(one)
    ]
    return min(*bounds, estimated(rows.max(axis=0)))
