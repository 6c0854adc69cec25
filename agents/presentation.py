"""Names to presentation form and back by the batch. names.to_text and names.from_text are the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from agents.columns import Names, packed
from agents.kernels import COMPILED, presentation
from agents.names import MAX_LABEL, MAX_NAME, from_text, to_text


def packed_texts(names: Names, cuts: NDArray[np.int64] | None = None) -> Names:
    """The texts of n wire names as one packed column of ASCII, each from its cuts[i]-th byte on (default: all).

    A cut is the beginning of a label, or the name's length for the root. Raises NameFormatError.
    """
    if cuts is None:
        cuts = np.zeros(len(names), np.int64)
    if not COMPILED:
        return packed([to_text(name[cut:]).encode("ascii") for name, cut in zip(names, cuts.tolist(), strict=True)])
    starts = np.empty(len(names) + 1, np.int64)
    bad = presentation.sizes(names.array, names.starts, cuts, starts)
    if bad >= 0:
        to_text(names[bad][cuts[bad] :])
    out = np.empty(starts[-1], np.uint8)
    presentation.fill(names.array, names.starts, cuts, out)
    return Names(out.tobytes(), starts)


def texts(names: Names, cuts: NDArray[np.int64] | None = None) -> list[str]:
    """As packed_texts, one string a name."""
    column = packed_texts(names, cuts)
    text = column.data.decode("ascii")
    return [text[start:end] for start, end in pairwise(column.starts.tolist())]


def wires_of(texts: Sequence[str]) -> Names:
    """The wire forms of n presentation names as one packed column. Raises NameFormatError for the first bad one."""
    text = "".join(["." + one for one in texts])
    if "\\" in text or ".." in text or text.endswith(".") or not text.isascii():  # escapes; final dots, empty labels
        return packed([from_text(one) for one in texts])
    data = np.frombuffer(text.encode("ascii"), np.uint8).copy()
    starts = np.fromiter(accumulate((len(one) + 1 for one in texts), initial=0), np.int64, len(texts) + 1)
    dots = np.flatnonzero(data == ord("."))
    sizes = np.diff(dots, append=len(data)) - 1
    if np.max(sizes, initial=0) > MAX_LABEL or np.max(np.diff(starts), initial=0) > MAX_NAME:
        return packed([from_text(one) for one in texts])
    data[dots] = sizes  # each label has one dot before it, where its length belongs
    return Names(data.tobytes(), starts)
