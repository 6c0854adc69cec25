"""Rows of PostgreSQL's binary COPY, put together from a fixed part and texts by number."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.core.jit import kernel


@kernel
def copy_rows(fixed: Any, which: Any, data: Any, starts: Any, out: Any) -> Any:
    """Write n rows into out, u8, and return how many bytes they take.

    fixed u8 (n, f): what begins each row. which i64 (n, c): numbers of its texts, of which the k-th is
    data[starts[k] : starts[k + 1]] (u8); each is written behind its length, four bytes in network order.
    """
    to = 0
    for row in range(fixed.shape[0]):
        for i in range(fixed.shape[1]):
            out[to + i] = fixed[row, i]
        to += fixed.shape[1]
        for column in range(which.shape[1]):
            start, end = starts[which[row, column]], starts[which[row, column] + 1]
            size = end - start
            for i in range(4):
                out[to + i] = size >> (24 - 8 * i) & 0xFF
            to += 4
            for i in range(size):
                out[to + i] = data[start + i]
            to += size
    return to


@kernel
def fields(data: Any, at: Any, begins: Any, sizes: Any) -> None:
    """Find the fields of n rows from data[at] on (u8): fills where they begin and their sizes, both i64 (c, n)."""
    for row in range(begins.shape[1]):
        at += 2  # how many fields follow
        for column in range(begins.shape[0]):
            size = np.int64(0)
            for i in range(4):
                size = size << 8 | np.int64(data[at + i])
            at += 4
            begins[column, row], sizes[column, row] = at, size
            at += size
