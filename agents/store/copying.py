"""A batch's rows in the binary format of PostgreSQL's COPY (its manual: "COPY", "Binary Format").

A signature, flags and the length of an extension; for each row the number of its fields and then each field as
length and bytes, all in network order; -1 at the end. Numbers and features take the same bytes in every row, so NumPy
lays them out; a kernel puts the texts behind them.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.columns import Coded, Names, packed
from agents.kernels import COMPILED, hashing, listed, packing
from agents.pieces import Pieces, gathered
from agents.store.rows import COLUMNS, NUMBERS, Columns

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
END = struct.pack("!h", -1)
_KINDS = {
    "ts": "f8",
    "day": "i4",
    "qtype": "i4",
    "score": "f4",
    "severity": "i2",
    "rcode": "i2",
    "ancount": "i4",
    "qlen": "i4",
    "rlen": "i4",
    "ttl_min": "i8",
    "rtt_ms": "f4",
    "rnd": "i4",
}
"""What each number is in the table; COPY converts nothing."""
_LENGTH = struct.Struct("!i")


def rows_of(columns: Columns) -> bytes:
    """The rows, as they go to the server."""
    fixed = _fixed(columns)
    values, which = _texts(columns.texts)
    body = _compiled(fixed, values, which) if COMPILED else _plain(fixed, values, which)
    return b"".join((HEADER, body, END))


def _compiled(fixed: NDArray[np.uint8], values: Names, which: NDArray[np.int64]) -> memoryview:
    sizes = np.diff(values.starts)
    out = np.empty(fixed.size + 4 * which.size + int(sizes[which].sum()), np.uint8)
    packing.rows(fixed, which, values.array, values.starts, out)
    return out.data


def _plain(fixed: NDArray[np.uint8], values: Names, which: NDArray[np.int64]) -> bytes:
    prefixed = [_LENGTH.pack(len(value)) + value for value in values]
    texts = [map(prefixed.__getitem__, column) for column in which.T.tolist()]
    return b"".join(chain.from_iterable(zip(map(bytes, fixed), *texts, strict=True)))


@lru_cache(maxsize=4)
def _template(width: int) -> NDArray[np.void]:
    """One row's fixed part with all lengths filled in, shape (1,); `width`: bytes of the features."""
    kinds = [_KINDS[name] for name in COLUMNS[:NUMBERS]]
    fields: list[Any] = [("fields", ">i2")]
    for name, kind in zip(COLUMNS, kinds, strict=False):
        fields += [(f"{name}_size", ">i4"), (name, f">{kind}")]
    fields += [("features_size", ">i4"), ("features", np.uint8, (width,))]
    row = np.zeros(1, np.dtype(fields))
    row["fields"], row["features_size"] = len(COLUMNS), width
    for name, kind in zip(COLUMNS, kinds, strict=False):
        row[f"{name}_size"] = int(kind[1])
    return row


def _fixed(columns: Columns) -> NDArray[np.uint8]:
    """What begins every row, shape (n, bytes)."""
    width = columns.features.shape[1] * columns.features.itemsize
    rows = np.repeat(_template(width), len(columns.features))
    for name, column in zip(COLUMNS, columns.numbers, strict=False):
        rows[name] = column
    rows["features"] = columns.features.view(np.uint8)
    return rows.view(np.uint8).reshape(len(rows), rows.itemsize)


def _texts(columns: Sequence[Coded | Names]) -> tuple[Names, NDArray[np.int64]]:
    """All texts in one column, and the numbers of those of each row, shape (n, len(columns))."""
    which = np.empty((len(columns[0]), len(columns)), np.int64)
    tables: list[Names] = []
    first = size = 0
    starts = [np.zeros(1, np.int64)]
    for number, column in enumerate(columns):
        table = column if isinstance(column, Names) else packed([value.encode() for value in column.values])
        which[:, number] = first + (np.arange(len(table)) if isinstance(column, Names) else column.codes)
        starts.append(table.starts[1:] + size)
        tables.append(table)
        first, size = first + len(table), size + len(table.data)
    return Names(b"".join([table.data for table in tables]), np.concatenate(starts)), which


def columns_of(data: memoryview, count: int, width: int) -> list[Pieces]:
    """The fields of `count` rows as the server gives them, one column of bytes for each of `width`; none is NULL."""
    array = np.frombuffer(data.toreadonly(), np.uint8)
    begins, sizes = np.empty((width, count), np.int64), np.empty((width, count), np.int64)
    packing.fields(array, len(HEADER), begins, sizes)
    return [Pieces(array, *where) for where in zip(begins, sizes, strict=True)]


def numbers_of(column: Pieces, kind: str) -> NDArray[Any]:
    """A column of numbers; kind: as NumPy names it, in the order of bytes that the server gives."""
    found = gathered(*column)
    return np.frombuffer(found.data, kind).astype(np.dtype(kind).newbyteorder("="))


def texts_of(pieces: Pieces) -> Coded:
    """A column of UTF-8, of which few values differ."""
    column = gathered(*pieces)
    if COMPILED:
        codes, firsts = _numbered(column)
        return Coded(codes, [column[row].decode() for row in firsts])
    numbers: dict[bytes, int] = {}
    codes = np.fromiter([numbers.setdefault(value, len(numbers)) for value in column], np.int32, len(column))
    return Coded(codes, [value.decode() for value in numbers])


def _numbered(column: Names) -> tuple[NDArray[np.int32], list[int]]:
    """Each row's number, and the first row of each number. Told apart by 64 bits under a key that nobody knows."""
    count, low, high = len(column), secrets.randbits(64), secrets.randbits(64)
    keys, nothing = np.empty(count, np.uint64), np.empty(count, np.uint64)
    no_parts, sizes = np.zeros(count + 1, np.int64), np.diff(column.starts)
    where = column.array, column.starts, no_parts, sizes
    hashing.keys(*where, np.uint64(low), np.uint64(high), nothing[:0], keys, nothing)
    codes, firsts = np.empty(count, np.int32), np.empty(count, np.int64)
    slots = np.full(1 << max(2 * count, 1).bit_length(), -1, np.int32)
    differ = listed.numbered(keys, slots, codes, firsts)
    return codes, firsts[:differ].tolist()
