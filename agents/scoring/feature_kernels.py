"""The feature matrix in one walk over each name's bytes. The definitions are the functions of features.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from agents.core.jit import kernel
from agents.dns.characters import DASH, LOWER_A, LOWER_W, UNDERSCORE

DIGIT, HEX, LETTER, VOWEL, CONSONANT, HOST = 1, 2, 4, 8, 16, 32
"""Classes of bytes, bits."""
FULL = 40
"""A label with more bytes counts as full."""
_FEW, _SHORT = 4, 8
"""With fewer letters or pairs, or in a shorter label, a share takes the value of words."""
_WORDS_VOWELS, _WORDS_DISTINCT = 0.4, 0.7
_DIGITS, _LETTERS, _VOWELS, _HYPHENS, _STRANGE, _HEX_RUN, _DIGIT_RUN, _CONSONANT_RUN = range(8)
_CHANGES, _REPEATS, _REPEAT_RUN, _RARE, _HEXES, _PAIRS, _COUNTS = range(8, 15)


@kernel
def _tally(data: Any, start: Any, end: Any, counts: Any, order: Any, distinct: Any) -> Any:
    """Count bytes and note distinct ones in order of appearance; returns the number of distinct bytes so far."""
    for at in range(start, end):
        byte = data[at]
        if counts[byte] == 0:
            order[distinct] = byte
            distinct += 1
        counts[byte] += 1
    return distinct


@kernel
def _entropy(size: Any, distinct: Any, terms: Any, counts: Any, order: Any) -> Any:
    """Shannon entropy of the counted bytes, bits per byte. Leaves counts at zero."""
    total = 0.0
    for i in range(distinct):
        count = counts[order[i]]
        counts[order[i]] = 0
        if size < len(terms):
            total += terms[size, count]
        else:
            total += count / size * math.log2(count / size)
    return -total if size > 1 else 0.0


@kernel
def _look(data: Any, start: Any, end: Any, classes: Any, rare: Any, seen: Any) -> None:
    """Add the counts of one label to `seen` (i64): its bytes and pairs, and its longest runs."""
    digits = letters = vowels = hyphens = strange = hexes = repeats = pairs = changes = 0
    rares = np.int64(0)
    hex_run = digit_run = consonant_run = same = most_hex = most_digit = most_consonant = most_same = 0
    before, last = np.int64(0), np.int64(-1)
    for at in range(start, end):
        byte = np.int64(data[at])
        kind = np.int64(classes[byte])
        digit, letter, is_hex = (kind & DIGIT) != 0, (kind & LETTER) != 0, (kind & HEX) != 0
        digits, letters, hexes = digits + digit, letters + letter, hexes + is_hex
        vowels += (kind & VOWEL) != 0
        strange += (kind & HOST) == 0
        hyphens += byte in (DASH, UNDERSCORE)
        repeats += byte == last
        digit_run = digit_run + 1 if digit else 0
        hex_run = hex_run + 1 if is_hex else 0
        consonant_run = consonant_run + 1 if kind & CONSONANT else 0
        same = same + 1 if byte == last else 1
        most_digit, most_hex = max(most_digit, digit_run), max(most_hex, hex_run)
        most_consonant, most_same = max(most_consonant, consonant_run), max(most_same, same)
        if letter and before & LETTER:
            pairs += 1
            rares += np.int64(rare[(last - LOWER_A) * 26 + byte - LOWER_A])
        changes += (letter and (before & DIGIT) != 0) or (digit and (before & LETTER) != 0)
        before, last = kind, byte
    seen[_DIGITS] += digits
    seen[_LETTERS] += letters
    seen[_VOWELS] += vowels
    seen[_HYPHENS] += hyphens
    seen[_STRANGE] += strange
    seen[_HEXES] += hexes
    seen[_REPEATS] += repeats
    seen[_PAIRS] += pairs
    seen[_RARE] += rares
    seen[_CHANGES] += changes
    seen[_HEX_RUN] = max(seen[_HEX_RUN], most_hex)
    seen[_DIGIT_RUN] = max(seen[_DIGIT_RUN], most_digit)
    seen[_CONSONANT_RUN] = max(seen[_CONSONANT_RUN], most_consonant)
    seen[_REPEAT_RUN] = max(seen[_REPEAT_RUN], most_same)


@kernel
def _is_www(data: Any, start: Any, end: Any) -> Any:
    return end - start == 3 and data[start] == LOWER_W and data[start + 1] == LOWER_W and data[start + 2] == LOWER_W


@kernel
def _write(row: Any, seen: Any, long: Any, text: Any, longest: Any, entropy: Any, distinct: Any) -> None:
    """Write the columns that follow from counts: `seen` over all labels, `long` over the longest label."""
    row[4], row[6], row[8], row[9] = seen[_REPEATS], entropy, text * entropy / 8, distinct
    row[10] = seen[_DIGITS] / max(text, 1)
    row[11] = long[_HEXES] / max(longest, 1)
    row[12], row[13] = seen[_HEX_RUN], seen[_DIGIT_RUN]
    row[14] = seen[_VOWELS] / seen[_LETTERS] if seen[_LETTERS] >= _FEW else _WORDS_VOWELS
    row[15], row[16] = seen[_CONSONANT_RUN], seen[_CHANGES]
    row[17] = long[_REPEATS] / (longest - 1) if longest >= _FEW else 0.0
    row[18], row[19] = seen[_REPEAT_RUN], seen[_RARE]
    row[20] = long[_RARE] / long[_PAIRS] if long[_PAIRS] >= _FEW else 0.0
    row[21], row[22] = seen[_HYPHENS], seen[_STRANGE]


@kernel
def feature_rows(
    data: Any, starts: Any, part_starts: Any, cuts: Any, classes: Any, rare: Any, terms: Any, out: Any
) -> None:
    """Features of n packed lower-case names (data u8, starts i64[n + 1]) into out, f32 (n, 25).

    part_starts and cuts are those of dns.name.Splits; classes u8[256] holds the bits above; rare u8[676] is 1 for rare
    letter pairs; terms[size, n] f64 is n/size * log2(n/size), the term of entropy for n equal bytes of `size`.
    """
    counts, order = np.zeros(256, np.int32), np.empty(256, np.uint8)
    seen, long = np.empty(_COUNTS, np.int64), np.empty(_COUNTS, np.int64)
    for name in range(len(starts) - 1):
        row = out[name]
        start, end, labels = starts[name], starts[name + 1], part_starts[name + 1] - part_starts[name]
        stop = start + cuts[name]
        seen[:] = 0
        at, where, text = start, start, stop - start - labels
        distinct = longest = full = np.int64(0)
        while at < stop:
            size = np.int64(data[at])
            if size > longest:
                longest, where = size, at + 1
            full += size > FULL
            at += 1
            distinct = _tally(data, at, at + size, counts, order, distinct)
            if _is_www(data, at, at + size):
                seen[_LETTERS] += 3
            else:
                _look(data, at, at + size, classes, rare, seen)
            at += size
        entropy = _entropy(text, distinct, terms, counts, order)
        row[0], row[1], row[2], row[3], row[5] = end - start, text, labels, longest, full
        row[23] = data[stop] if stop < end else 0
        if labels == 1:
            _write(row, seen, seen, text, longest, entropy, distinct)
            row[7], row[24] = entropy, distinct / longest if longest >= _SHORT else _WORDS_DISTINCT
            continue
        long[:] = 0
        _look(data, where, where + longest, classes, rare, long)
        _write(row, seen, long, text, longest, entropy, distinct)
        distinct = _tally(data, where, where + longest, counts, order, 0)
        row[7] = _entropy(longest, distinct, terms, counts, order)
        row[24] = distinct / longest if longest >= _SHORT else _WORDS_DISTINCT
