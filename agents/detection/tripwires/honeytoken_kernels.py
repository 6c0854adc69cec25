"""The search for pieces of honeytokens in names: windows of a few lengths, through a filter of short hashes.

The text of a name is its labels in lower case without dots, so that a cut into labels hides nothing. A window whose
hash the filter has is a hit, which honeytokens.py confirms with a long hash; of other windows one in 2^FILTER_BITS is a
hit for each piece that the filter holds. A piece may also be cut over the names of one flow in a row: the end of each
name's longest label is kept for the flow, and the windows over the seam are searched, too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import fill_words, siphash_of_words
from agents.core.jit import kernel, kernel_in_place
from agents.dns.characters import DOT

FILTER_BITS = 24
"""Bits of a window's hash that the filter knows."""
WINDOW_MAX = 64
"""Longest window, in characters."""
HITS_A_NAME = 16
"""Hits of one name, at most."""
ENDS = 1 << 12
"""Flows whose last name's end is kept, at a place that the flow's hash decides; a later flow takes it over."""
CLEAN = 1 << 16
"""Names without a hit that are known: most names are asked for again and again."""
BITS_A_CHARACTER = 3.6
"""Bits of information a character from which on a label may be a part of a piece; random hex digits have 4."""
_SHIFT, _BYTE, _BITS = np.uint64(64 - FILTER_BITS), 3, 7
_TEXT_ROOM = 256 + WINDOW_MAX


class Ends(NamedTuple):
    """The end of the last name's longest label, of flows."""

    flows: NDArray[np.uint64]  # (ENDS,)
    names: NDArray[np.uint64]  # (ENDS,): hash of the last name
    sizes: NDArray[np.int64]  # (ENDS,)
    texts: NDArray[np.uint8]  # (ENDS, WINDOW_MAX)


class Sieve(NamedTuple):
    """What a window must have to be a piece.

    A bit of `fine` stands for a value of a hash's first FILTER_BITS bits; a bit of `coarse` for all values that begin
    like one, so that most windows are decided within a processor's nearest cache.
    """

    lengths: NDArray[np.int64]  # of pieces, ascending
    key: NDArray[np.uint64]  # (2,), of the hashes
    shift: NDArray[np.int64]  # (1,): from a bit of `fine` to one of `coarse`
    coarse: NDArray[np.uint8]
    fine: NDArray[np.uint8]


class Hits(NamedTuple):
    """Windows that passed the filter."""

    rows: NDArray[np.int64]  # (h,): of the names
    sizes: NDArray[np.int64]  # (h,)
    texts: NDArray[np.uint8]  # (h, WINDOW_MAX)


class Searched(NamedTuple):
    """What is known of names that were searched before."""

    clean: NDArray[np.uint64]  # (CLEAN,): hashes of names without a hit, each at a place that it decides
    ends: Ends


class Words(NamedTuple):
    """The values of n names that a search needs. Label p of name i is parts[i] + p; see scoring.lexical.Lexical."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]  # (n + 1,)
    parts: NDArray[np.int64]  # (n + 1,)
    bits: NDArray[np.float64]
    encoded: NDArray[np.uint8]
    names: NDArray[np.uint64]  # (n,): hashes of the names
    flows: NDArray[np.uint64]  # (n,): hashes of client and domain


@kernel_in_place
def _search(
    text: Any, words: Any, size: Any, seam: Any, sieve: Sieve, row: int, hits: Hits, count: int, most: int
) -> int:  # fmt: skip
    """Add the windows of text[:size] that pass the filter to `hits`, up to `most`; returns their number then.

    words: of the text (fill_words). seam: 0, or an offset that a window must lie across.
    """
    for length in sieve.lengths:
        if length > size:
            break
        begin = max(0, seam - length + 1) if seam > 0 else 0
        end = min(seam, size - length + 1) if seam > 0 else size - length + 1
        for at in range(begin, end):
            found = np.int64(siphash_of_words(words, at, length, sieve.key[0], sieve.key[1]) >> _SHIFT)
            coarse = found >> sieve.shift[0]
            if not sieve.coarse[coarse >> _BYTE] >> (coarse & _BITS) & 1:
                continue
            if sieve.fine[found >> _BYTE] >> (found & _BITS) & 1 and count < most:
                hits.rows[count], hits.sizes[count] = row, length
                for place in range(length):
                    hits.texts[count, place] = text[at + place]
                count += 1
    return count


@kernel_in_place
def _keep_end(ends: Ends, place: Any, text: Any, size: Any) -> None:
    begin = max(size - (WINDOW_MAX - 1), 0)
    ends.sizes[place] = size - begin
    for at in range(begin, size):
        ends.texts[place, at - begin] = text[at]


@kernel_in_place
def _longest(of: Words, row: int) -> tuple[Any, Any]:
    """Begin and size of a name's longest subdomain label, if it may be a part of a piece; else a size of 0."""
    at, begin, size, best = of.starts[row], of.starts[row], np.int64(0), of.parts[row]
    for part in range(of.parts[row], of.parts[row + 1]):
        if of.data[at] > size:
            begin, size, best = at + 1, np.int64(of.data[at]), part
        at += np.int64(of.data[at]) + 1
    if size > 0 and (of.encoded[best] or of.bits[best] >= BITS_A_CHARACTER * size):
        return begin, size
    return begin, np.int64(0)


@kernel_in_place
def _search_seam(
    of: Words, row: int, ends: Ends, text: Any, words: Any, sieve: Sieve, hits: Hits, count: int, most: int
) -> int:  # fmt: skip
    """Search where a name's longest label goes on with the last one of its flow; returns the number of hits then."""
    begin, size = _longest(of, row)
    if size == 0:
        return count
    place = np.int64(of.flows[row] % np.uint64(ENDS))
    seam = ends.sizes[place] if ends.flows[place] == of.flows[row] else np.int64(0)
    if seam > 0 and ends.names[place] == of.names[row]:
        return count
    for i in range(seam):
        text[i] = ends.texts[place, i]
    for i in range(size):
        text[seam + i] = of.data[begin + i]
    if seam > 0:
        fill_words(text, seam + size, words)
        count = _search(text, words, seam + size, seam, sieve, row, hits, count, most)
    ends.flows[place], ends.names[place] = of.flows[row], of.names[row]
    _keep_end(ends, place, text, seam + size)
    return count


@kernel
def search(of: Words, row: int, before: Searched, sieve: Sieve, hits: Hits) -> tuple[int, int]:
    """Search names from `row` on; returns the number of hits, and the row to go on from. before: brought up to date."""
    text, words, count = np.empty(_TEXT_ROOM, np.uint8), np.empty(_TEXT_ROOM + 9, np.uint64), 0
    while row < len(of.starts) - 1 and count + HITS_A_NAME <= len(hits.rows):
        most = count + HITS_A_NAME
        place = np.int64(of.names[row] % np.uint64(CLEAN))
        if before.clean[place] != of.names[row]:
            at, end, size, already = of.starts[row], of.starts[row + 1], 0, count
            while at < end:
                label, at = np.int64(of.data[at]), at + 1
                for i in range(at, at + label):
                    if of.data[i] != DOT:
                        text[size] = of.data[i]
                        size += 1
                at += label
            fill_words(text, size, words)
            count = _search(text, words, size, 0, sieve, row, hits, count, most)
            if count == already:
                before.clean[place] = of.names[row]
        count = _search_seam(of, row, before.ends, text, words, sieve, hits, count, most)
        row += 1
    return count, row
