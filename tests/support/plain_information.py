"""What one label carries, byte by byte: the oracle of scoring/lexical_kernels.costs_of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agents.scoring.information import (
    _INDEX,
    ALPHABETS,
    ANY_BITS,
    EDGE,
    ENCODED_BYTES,
    ENCODED_MARGIN,
    CharModel,
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one label carries, bits, and whether it reads as encoded data instead of words."""

    bits: float
    encoded: bool


def cost(model: CharModel, label: bytes) -> Cost:
    """Description length of one lower-case label: the shortest of dictionary, trigram and spelled code."""
    known, spelled = model.common.get(label), _spelled(label)
    if known is not None:
        return Cost(min(known, spelled), False)
    modelled = _modelled(model, label)
    return Cost(min(modelled, spelled), modelled - spelled >= ENCODED_MARGIN * max(len(label), ENCODED_BYTES))


def encoded_bits(model: CharModel, subdomain: Iterable[bytes]) -> float:
    """Bits in the labels that read as encoded data."""
    return sum(found.bits for found in (cost(model, label) for label in subdomain) if found.encoded)


def _spelled(label: bytes) -> float:
    used = frozenset(label)
    for alphabet, bits in ALPHABETS:
        if used <= alphabet:
            return len(label) * bits
    return len(label) * ANY_BITS


def _modelled(model: CharModel, label: bytes) -> float:
    total, a, b = 0.0, EDGE, EDGE
    for c in label.translate(_INDEX):
        total += float(model.bits[a, b, c])
        a, b = b, c
    return total + float(model.bits[a, b, EDGE])
