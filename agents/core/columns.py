"""Columns without an object a row: names packed into one buffer, and numbered texts. Both are plain sequences too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, compress, pairwise
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import gather, numbered


class Names(Sequence[bytes]):
    """n byte strings in one buffer: the i-th is data[starts[i] : starts[i + 1]]. starts has length n + 1."""

    __slots__ = ("array", "data", "starts")

    def __init__(self, data: bytes, starts: NDArray[np.int64]) -> None:
        self.data, self.starts = data, starts
        self.array = np.frombuffer(data, np.uint8)
        """The buffer as numbers, for kernels; shares its memory."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[bytes]:
        data = self.data
        return iter([data[start:end] for start, end in pairwise(self.starts.tolist())])

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        return self.data[int(self.starts[at]) : int(self.starts[at + 1])]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class Coded(Sequence[str]):
    """n texts with few different values: the i-th is values[codes[i]]."""

    __slots__ = ("codes", "values")

    def __init__(self, codes: NDArray[np.int32], values: Sequence[str]) -> None:
        self.codes, self.values = codes, values

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[str]:
        return map(self.values.__getitem__, self.codes.tolist())

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self.values[code] for code in self.codes[at].tolist()]
        return self.values[int(self.codes[at])]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def packed(names: Sequence[bytes]) -> Names:
    """The names as one packed column; a packed column is returned as it is."""
    if isinstance(names, Names):
        return names
    return Names(b"".join(names), _starts(names))


def _starts(names: Sequence[bytes]) -> NDArray[np.int64]:
    return np.fromiter(accumulate(map(len, names), initial=0), np.int64, len(names) + 1)


def lowered(names: Sequence[bytes]) -> Names:
    """The names as one packed column in lower case. Wire names stay valid: a length is never an upper-case letter."""
    if isinstance(names, Names):
        return Names(names.data.lower(), names.starts)
    return Names(b"".join(names).lower(), _starts(names))


def coded(texts: Sequence[str]) -> Coded:
    """The texts as a coded column; a coded column is returned as it is."""
    if isinstance(texts, Coded):
        return texts
    numbers: dict[str, int] = {}
    codes = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int32, len(texts))
    return Coded(codes, list(numbers))


def distinct(texts: Sequence[str]) -> Iterable[str]:
    """The different texts, each at least once; a coded column is not read row by row."""
    if not isinstance(texts, Coded):
        return texts
    used = np.bincount(texts.codes, minlength=len(texts.values)) > 0
    return texts.values if used.all() else compress(texts.values, used)


def gathered(array: NDArray[np.uint8], begins: NDArray[np.int64], sizes: NDArray[np.int64]) -> Names:
    """Slices of a buffer as a column; begins and sizes have shape (n,)."""
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    out = np.empty(starts[-1], np.uint8)
    gather(array, begins, sizes, out)
    return Names(out.tobytes(), starts)


class Pieces(NamedTuple):
    """n byte strings anywhere in a buffer; begins and sizes have shape (n,)."""

    array: NDArray[np.uint8]
    begins: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Names:
        """A packed copy of some rows."""
        return gathered(self.array, self.begins[rows], self.sizes[rows])


def pieces_of(column: Names) -> Pieces:
    """A packed column as slices of its buffer."""
    return Pieces(column.array, column.starts[:-1], np.diff(column.starts))


def distinct_rows(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number n keys in the order of their first row: (the number of each row, the first row of each number)."""
    codes, firsts = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64)
    slots = np.full(1 << max(2 * len(keys), 1).bit_length(), -1, np.int32)
    return codes, firsts[: numbered(keys, slots, codes, firsts)]
