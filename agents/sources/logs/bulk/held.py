"""Rows in columns that are held until their other halves have come; batches put together and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import Coded, Names, coded, packed, pieces_of
from agents.core.types import QueryBatch
from agents.sources.intake import Observed

_ASKED = ("ts", "client", "qname", "qtype", "qlen")
"""LineColumns that are those of the query; others are the answer's."""


_COLUMNS = [field.name for field in fields(QueryBatch) if field.name in Observed._fields]
"""Columns that an Observed has, too."""


class HeldRows:
    """Batches of rows, numbered on and on in the order in which they came."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, QueryBatch]] = deque()  # the number of each one's first row
        self._next = 0

    @property
    def size(self) -> int:
        """Rows that are held."""
        return self._next - self._blocks[0][0] if self._blocks else 0

    def add(self, batch: QueryBatch) -> int:
        """Hold rows; the number of the first one."""
        first, self._next = self._next, self._next + len(batch)
        if len(batch):
            self._blocks.append((first, batch))
        return first

    def forget(self, oldest: int | None) -> None:
        """Let go of what came before a row; None = of all."""
        while self._blocks and (oldest is None or self._blocks[0][0] + len(self._blocks[0][1]) <= oldest):
            self._blocks.popleft()

    def observed(self, number: int) -> Observed:
        """One row."""
        first, batch = next(block for block in reversed(self._blocks) if block[0] <= number)
        at = number - first
        row = {name: getattr(batch, name)[at] for name in _COLUMNS}
        return Observed(
            **{name: one.item() if isinstance(one, np.generic) else one for name, one in row.items()}
            | {"qtype": str(row["qtype"])}
        )

    def take(self, queries: NDArray[np.int64], answers: NDArray[np.int64]) -> QueryBatch:
        """Rows of queries, in rising order of their numbers, with what is known of their answers.

        answers: their numbers; a query without one has its own. Neither has a response time: it is what lies between.
        """
        asked, answered = self._rows(queries), self._rows(answers)
        own = queries == answers
        rtt_ms = np.where(own, asked.rtt_ms, np.maximum(answered.ts - asked.ts, 0) * 1000).astype(np.float32)
        return replace(answered, **{name: getattr(asked, name) for name in _ASKED}, rtt_ms=rtt_ms)

    def _rows(self, numbers: NDArray[np.int64]) -> QueryBatch:
        firsts = np.array([first for first, _ in self._blocks])
        which = np.searchsorted(firsts, numbers, "right") - 1
        order = np.argsort(which, kind="stable")
        used, begins = np.unique(which[order], return_index=True)
        ends = [*begins[1:].tolist(), len(numbers)]
        parts = [
            picked(self._blocks[block][1], numbers[order[begin:end]] - firsts[block])
            for block, begin, end in zip(used.tolist(), begins.tolist(), ends, strict=True)
        ]
        whole = joined_batches(parts)
        if (order[1:] > order[:-1]).all():
            return whole
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        return picked(whole, places)


def picked(batch: QueryBatch, rows: NDArray[np.int64]) -> QueryBatch:
    """Some rows of a batch, in the order given."""
    return QueryBatch(*(_picked(getattr(batch, field.name), rows) for field in fields(batch)))


def _picked(column: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(column, np.ndarray):
        return column[rows]
    if isinstance(column, Coded):
        return Coded(column.codes[rows], column.values)
    if isinstance(column, Names):
        return pieces_of(column).take(rows)
    return [column[row] for row in rows.tolist()]


def joined_batches(batches: Sequence[QueryBatch]) -> QueryBatch:
    """The rows of batches, one at least, one after the other."""
    if len(batches) == 1:
        return batches[0]
    names = [field.name for field in fields(QueryBatch)]
    return QueryBatch(*(_joined([getattr(batch, name) for batch in batches], name) for name in names))


def _joined(columns: Sequence[Any], name: str) -> Any:
    if isinstance(columns[0], np.ndarray):
        return np.concatenate(columns)
    if name == "qname":
        parts = [packed(column) for column in columns]
        sizes = np.cumsum([0, *(len(part.data) for part in parts)])
        starts = [part.starts[:-1] + size for part, size in zip(parts, sizes[:-1], strict=True)]
        return Names(b"".join(part.data for part in parts), np.concatenate([*starts, sizes[-1:]]))
    numbers: dict[str, int] = {}
    codes = []
    for column in map(coded, columns):
        own = np.array([numbers.setdefault(text, len(numbers)) for text in column.values], np.int32)
        codes.append(own[column.codes])
    return Coded(np.concatenate(codes), list(numbers))


def in_order(batch: QueryBatch) -> QueryBatch:
    """The rows in order of time, those of equal times as they are."""
    if (np.diff(batch.ts) >= 0).all():
        return batch
    return picked(batch, np.argsort(batch.ts, kind="stable"))
