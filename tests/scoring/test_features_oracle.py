"""The whole-text operations of features.py against plain loops."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.dns.name import wire_of
from agents.scoring import features
from agents.scoring import features as letters


def _longest_run(text: bytes, of: frozenset[int]) -> int:
    best = run = 0
    for byte in text:
        run = run + 1 if byte in of else 0
        best = max(best, run)
    return best


@given(st.binary(min_size=1, max_size=63))
def test_the_fast_counts_agree_with_plain_loops(label: bytes) -> None:
    view = features.view_of(wire_of((label.lower(), b"evil", b"net")))
    label = label.lower()
    pairs = list(pairwise(label))
    assert features.digit_share(view) == sum(byte in letters.DIGITS for byte in label) / len(label)
    assert features.strange_bytes(view) == sum(byte not in letters.HOST_BYTES for byte in label)
    if label != b"www":
        assert features.longest_hex_run(view) == _longest_run(label, letters.HEX)
        assert features.longest_consonant_run(view) == _longest_run(label, letters.CONSONANTS)
        assert features.repeats(view) == sum(a == b for a, b in pairs)
        assert features.rare_pairs(view) == sum(
            a in letters.LETTERS and b in letters.LETTERS and bytes((a, b)) not in letters.COMMON_PAIRS
            for a, b in pairs
        )
    counts = [label.count(byte) for byte in set(label)]
    plain = -sum(n / len(label) * math.log2(n / len(label)) for n in counts)
    assert features.entropy(label) == pytest.approx(plain, abs=1e-9)
