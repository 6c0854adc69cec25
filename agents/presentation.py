"""Names in presentation form by the batch. names.to_text is the definition; any byte is escaped as it says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from agents.columns import Names, packed
from agents.kernels import COMPILED, presentation
from agents.names import to_text


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
