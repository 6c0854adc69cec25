"""Columns out of records: names packed, and identities of what few records differ in. See agents/records.py."""

from __future__ import annotations

from typing import Any

from agents.core.column_kernels import siphash
from agents.core.jit import kernel, kernel_in_place


@kernel_in_place
def names(records: Any, starts: Any, out: Any) -> None:
    """Pack the names of n records into out, u8: the i-th at starts[i], i64[n + 1]."""
    for row in range(len(records)):
        record, begin = records[row], starts[row]
        for i in range(starts[row + 1] - begin):
            out[begin + i] = record.qname[i]


@kernel
def keys(rows: Any, low: Any, high: Any, out: Any) -> None:
    """Identity (u64) of each of n rows of bytes, u8 (n, w), under a key of two u64."""
    for row in range(len(rows)):
        out[row] = siphash(rows[row], 0, rows.shape[1], low, high)
