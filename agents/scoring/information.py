"""The information in a label: its description length in bits, the shorter of two codes (two-part MDL, Rissanen 1978).

One code is a character trigram model of benign labels, under which words are cheap. The other spells the bytes out
in the smallest alphabet that holds them (digits, hex, base32, letters and digits, base64, any byte). There, random
text costs as many bits as it carries, even if the trigram model never saw it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import slots_of
from agents.core.columns import Names, packed
from agents.dns.name import Splits, wire_of
from agents.scoring.lexical_kernels import Costs, CostTables, costs_of

SYMBOLS = b"abcdefghijklmnopqrstuvwxyz0123456789-_"
OTHER, EDGE = len(SYMBOLS), len(SYMBOLS) + 1
SIZE = len(SYMBOLS) + 2
_BEGIN, _END = bytes((EDGE, EDGE)), bytes((EDGE,))
_INDEX = bytes(SYMBOLS.index(b) if b in SYMBOLS else OTHER for b in bytes(range(256)).lower())
OTHER_BITS = math.log2(256 - len(SYMBOLS))
"""Bits that say which of the other bytes it is."""
BACKOFF = 4.0
"""Pseudo-counts of the shorter context (Dirichlet prior, MacKay and Peto 1995)."""

ALPHABETS: tuple[tuple[frozenset[int], float], ...] = tuple(
    (frozenset(text), math.log2(len(text)))
    for text in (
        b"0123456789",
        b"0123456789abcdef",
        b"abcdefghijklmnopqrstuvwxyz234567",
        b"abcdefghijklmnopqrstuvwxyz0123456789-",
        b"abcdefghijklmnopqrstuvwxyz0123456789-_+/=.",
    )
)
"""Alphabets in order of size: their bytes, and bits per byte."""
ANY_BITS = 7.0
"""Bits a byte in any other text: iodine's Base128 is the densest code in use; random case (0x20) is not reliable."""
ENCODED_MARGIN = 1.5
"""A label reads as encoded if random text explains it better than a benign label by so many bits a byte."""
ENCODED_BYTES = 4
"""Shorter labels are judged as if they had this many bytes: three letters are not enough to decide."""
WORDLIKE_BYTES = 32
"""The trigram code does not learn from longer labels."""
_TWO_CHANGES = re.compile(rb"[^0-9]*[0-9]*[^0-9]*|[0-9]*[^0-9]*[0-9]*")
"""At most two changes between digits and other bytes."""
LIVE_MARGIN = 0.0
"""Live labels teach only where the code of the trusted labels explains them no worse than random text does: labels just
below ENCODED_MARGIN would drag random letters below it (docs/learning.md has the figures)."""
LIVE_SHARE = 0.125
"""Live labels that teach the trigram code, at most, as a share of the trusted ones."""
COMMON_SEEN = 3
"""A label enters the dictionary if it occurs in at least this many names."""
COMMON_LABELS = 4096
"""Labels in the dictionary, at most."""


@dataclass(frozen=True, eq=False)
class CharModel:
    """Code lengths in bits: of trigrams, shape (SIZE, SIZE, SIZE): [two before][one before][this]; of common labels."""

    bits: NDArray[np.float32]
    common: Mapping[bytes, float]

    def costs(self, names: Names, splits: Splits) -> Costs:
        """Description length of every subdomain label of n lower-case names: the shortest of the codes.

        A label reads as encoded if spelling it out is shorter than the trigram code by ENCODED_MARGIN bits a byte: a
        likelihood ratio of "random text" against "benign label". A label of the dictionary never reads as encoded.
        """
        return costs_of(names, splits, self.tables)

    def encoded(self, labels: Sequence[bytes], margin: float = ENCODED_MARGIN) -> NDArray[np.bool_]:
        """Which of n lower-case labels read as encoded, shape (n,). margin: as ENCODED_MARGIN."""
        names = packed([wire_of((label,)) for label in labels])
        whole = Splits(np.arange(len(labels) + 1), np.diff(names.starts))
        return costs_of(names, whole, self.tables._replace(margin=margin)).part_encoded.astype(np.bool_)

    def bits_of(self, labels: Sequence[bytes]) -> NDArray[np.float64]:
        """Bits of n lower-case labels, shape (n,)."""
        names = packed([wire_of((label,)) for label in labels])
        whole = Splits(np.arange(len(labels) + 1), np.diff(names.starts))
        return costs_of(names, whole, self.tables).part_bits

    @cached_property
    def tables(self) -> CostTables:
        """Both codes as costs_of reads them."""
        words = packed(list(self.common))
        members = [sum((byte in of) << k for k, (of, _) in enumerate(ALPHABETS)) for byte in range(256)]
        return CostTables(
            words.array,
            words.starts,
            slots_of(words.array, words.starts),
            np.array(list(self.common.values()), np.float64),
            np.frombuffer(_INDEX, np.uint8),
            np.ascontiguousarray(self.bits),
            np.array(members, np.uint8) | np.uint8(1 << len(ALPHABETS)),
            np.array([*(bits for _, bits in ALPHABETS), ANY_BITS]),
            ENCODED_MARGIN,
            ENCODED_BYTES,
        )


def learn(trusted: Iterable[tuple[bytes, ...]], live: Iterable[tuple[bytes, ...]] = ()) -> CharModel:
    """Learn both codes from the subdomain labels of trusted benign names, and of live names that may be poisoned.

    A label is common if it occurs in COMMON_SEEN names or more. The trigram code counts every label once, since it
    prices labels that were not seen before. Neither learns from live labels that random text explains better than the
    trusted labels' code does (LIVE_MARGIN): 200 random labels would be enough to make their alphabet cheap for good.
    """
    trusted_labels, live_labels = ([label for labels in names for label in labels] for names in (trusted, live))
    teaching = {label for label in trusted_labels if _wordlike(label)}
    trigrams = _trigrams(sorted(teaching))
    guard = CharModel(trigrams, {})
    live_kinds = sorted(set(live_labels))
    allowed = set(compress(live_kinds, (~guard.encoded(live_kinds, LIVE_MARGIN)).tolist()))
    seen = Counter([*trusted_labels, *(label for label in live_labels if label in allowed)])
    total = sum(seen.values())
    common = {
        label: round(-math.log2(count / total), 2)
        for label, count in sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:COMMON_LABELS]
        if count >= COMMON_SEEN and 0x0A not in label
    }
    words = sorted((label for label in allowed - teaching if _wordlike(label)), key=_shuffled)
    words = words[: int(LIVE_SHARE * len(teaching))]
    return CharModel(_trigrams(sorted(teaching | set(words))) if words else trigrams, common)


def _shuffled(label: bytes) -> bytes:
    """An order that a label's text says nothing of."""
    return hashlib.sha256(label).digest()


def _wordlike(label: bytes) -> bool:
    """Whether the trigram code may learn from a label: learning hashes would make hashes cheap, and poisoning easy."""
    return len(label) <= WORDLIKE_BYTES and _TWO_CHANGES.fullmatch(label) is not None


def _trigrams(labels: Iterable[bytes]) -> NDArray[np.float32]:
    chains = packed([_BEGIN + label.translate(_INDEX) + _END for label in labels])
    symbols = chains.array.astype(np.int64)
    inside = np.ones(len(symbols), np.bool_)  # symbols that may end a trigram: all but the first two of each chain
    inside[chains.starts[:-1]] = inside[chains.starts[:-1] + 1] = False
    numbers = (symbols[:-2] * SIZE + symbols[1:-1]) * SIZE + symbols[2:]
    counts = np.bincount(numbers[inside[2:]], minlength=SIZE**3).reshape(SIZE, SIZE, SIZE).astype(np.float64)
    one = (counts.sum((0, 1)) + 1) / (counts.sum() + SIZE)
    two = counts.sum(0)
    two = (two + BACKOFF * one) / (two.sum(1, keepdims=True) + BACKOFF)
    three = (counts + BACKOFF * two) / (counts.sum(2, keepdims=True) + BACKOFF)
    bits = -np.log2(three)
    bits[:, :, OTHER] += OTHER_BITS
    return np.asarray(np.round(bits, 2), dtype=np.float32)
