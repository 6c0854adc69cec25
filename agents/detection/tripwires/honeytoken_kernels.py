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

from agents.core.column_kernels import siphash
from agents.core.jit import kernel, kernel_in_place

FILTER_BITS = 24
"""Bits of a window's hash that the filter knows."""
WINDOW_MAX = 64
"""Longest window, in characters."""
HITS_A_NAME = 16
"""Hits of one name, at most."""
ENDS = 1 << 12
"""Flows whose last name's end is kept, at a place that the flow's hash decides; a later flow takes it over."""
_DOT = 0x2E
_SHIFT, _BYTE, _BITS = np.uint64(64 - FILTER_BITS), 3, 7
_TEXT_ROOM = 256 + WINDOW_MAX


class Ends(NamedTuple):
    """The end of the last name's longest label, of flows."""

    flows: NDArray[np.uint64]  # (ENDS,)
    names: NDArray[np.uint64]  # (ENDS,): hash of the last name
    sizes: NDArray[np.int64]  # (ENDS,)
    texts: NDArray[np.uint8]  # (ENDS, WINDOW_MAX)


class Hits(NamedTuple):
    """Windows that passed the filter."""

    rows: NDArray[np.int64]  # (h,): of the names
    sizes: NDArray[np.int64]  # (h,)
    texts: NDArray[np.uint8]  # (h, WINDOW_MAX)


@kernel_in_place
def _search(
    text: Any, size: Any, seam: Any, lengths: Any, low: Any, high: Any, filter_: Any, row: int, hits: Hits, count: int,
    most: int,
) -> int:  # fmt: skip
    """Add the windows of text[:size] that pass the filter to `hits`, up to `most`; returns their number then.

    seam: 0, or an offset that a window must lie across. lengths: ascending.
    """
    for length in lengths:
        begin = max(0, seam - length + 1) if seam > 0 else 0
        end = min(seam, size - length + 1) if seam > 0 else size - length + 1
        for at in range(begin, end):
            found = np.int64(siphash(text, at, at + length, low, high) >> _SHIFT)
            if count < most and filter_[found >> _BYTE] >> (found & _BITS) & 1:
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


@kernel
def search(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    cuts: NDArray[np.int64],
    joins: NDArray[np.uint8],
    flows: NDArray[np.uint64],
    names: NDArray[np.uint64],
    ends: Ends,
    lengths: NDArray[np.int64],
    low: Any,
    high: Any,
    filter_: NDArray[np.uint8],
    row: int,
    hits: Hits,
) -> tuple[int, int]:
    """Search n packed lower-case names from `row` on; returns the number of hits, and the row to go on from.

    cuts: offset of the registered domain in each; joins: whether it may go on with what its flow's last name ended in;
    flows, names: hashes of client and domain, and of the name; filter_: a bit for each value of a hash's first bits.
    """
    text, count = np.empty(_TEXT_ROOM, np.uint8), 0
    while row < len(starts) - 1 and count + HITS_A_NAME <= len(hits.rows):
        at, end, cut, most = starts[row], starts[row + 1], starts[row] + cuts[row], count + HITS_A_NAME
        size, longest, longest_at = 0, np.int64(0), starts[row]
        while at < end:
            label, at = np.int64(data[at]), at + 1
            if at <= cut and label > longest:
                longest, longest_at = label, at
            for place in range(at, at + label):
                if data[place] != _DOT:
                    text[size] = data[place]
                    size += 1
            at += label
        count = _search(text, size, 0, lengths, low, high, filter_, row, hits, count, most)
        if joins[row] and longest > 0:
            slot = np.int64(flows[row] % np.uint64(ENDS))
            seam = ends.sizes[slot] if ends.flows[slot] == flows[row] else np.int64(0)
            if seam == 0 or ends.names[slot] != names[row]:
                for i in range(seam):
                    text[i] = ends.texts[slot, i]
                for i in range(longest):
                    text[seam + i] = data[longest_at + i]
                if seam > 0:
                    count = _search(text, seam + longest, seam, lengths, low, high, filter_, row, hits, count, most)
                ends.flows[slot], ends.names[slot] = flows[row], names[row]
                _keep_end(ends, slot, text, seam + longest)
        row += 1
    return count, row
