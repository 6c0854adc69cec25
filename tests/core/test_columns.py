"""Keyed hashes of overlapping slices are those of the slices themselves."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.core.column_kernels import fill_words, siphash_of_words
from tests.support.siphash import siphash

HALF = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(st.binary(max_size=70), st.tuples(HALF, HALF))
@example(bytes(range(24)), (1, 2))
def test_each_slice_of_a_text_has_its_hash(text: bytes, key: tuple[int, int]) -> None:
    words = np.full(len(text) + 9, 7, np.uint64)
    fill_words(np.frombuffer(text, np.uint8), len(text), words)
    for start in range(0, len(text) + 1, 3):
        for end in range(start, len(text) + 1, 5):
            found = siphash_of_words(words, start, end - start, *map(np.uint64, key))
            assert int(found) == siphash(text[start:end], key)
