"""The lines of one log, many at once: compiled code reads what it is certain of, the line reader the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from agents.core.types import QueryBatch
from agents.sources.intake import BlockReader, Observed
from agents.sources.logs.bulk.held import HeldRows, in_order, joined_batches, picked
from agents.sources.logs.bulk.rows import LineRows, read_rows
from agents.sources.logs.source import LogLines, joined_halves
from agents.sources.pairs import PAIRS_MAX, Pairs

HELD_MAX = 4 * PAIRS_MAX
"""Rows that are held for a query that waits, at most; then nothing waits any more."""


class BlockLines(LogLines):
    """Queries out of the lines of a log that has a compiled reader: those that LogLines finds, in the same order."""

    def __init__(self, reader: BlockReader) -> None:
        super().__init__(reader)
        self._scan, self._unix = reader.scan, reader.unix
        self._halves, self._held = Pairs[int | Observed](), HeldRows()

    def take(self, lines: Iterable[bytes | None]) -> QueryBatch | None:
        """See LogLines."""
        lines, begun = list(lines), self.at
        rows = read_rows([line or b"" for line in lines], self._scan, self._unix)
        self._timed |= len(rows.batch) > 0
        others = dict[int, Observed]()
        for line in rows.unread.tolist():
            self.at = begun + line
            if (found := self.observed(lines[line])) is not None:
                others[line] = found
        self.at = begun + len(lines)
        pairless = rows.pairs is None and all(one.pair is None for one in others.values())
        if pairless and self._halves.empty:
            return self._given(rows.batch, rows.lines, others)
        for ts, pair, is_answer, one in self._in_line_order(rows, others):
            self._halves.add(ts, pair, is_answer, one)
        return self._ready(self._held.size > HELD_MAX)

    def rest(self) -> QueryBatch | None:
        """See LogLines."""
        return self._ready(all_of_them=True)

    def _in_line_order(
        self, rows: LineRows, others: dict[int, Observed]
    ) -> Iterator[tuple[float, object, bool, int | Observed]]:
        """Time, pair, whether it is an answer, and a held row's number or what the line reader gave."""
        numbers = range(first := self._held.add(rows.batch), first + len(rows.batch))
        pairs, answers = rows.pairs or [None] * len(numbers), rows.answers
        if not others:
            yield from zip(rows.batch.ts.tolist(), pairs, answers, numbers, strict=True)
            return
        found: list[tuple[int, float, object, bool, int | Observed]] = list(
            zip(rows.lines.tolist(), rows.batch.ts.tolist(), pairs, answers, numbers, strict=True)
        )
        found += [(line, one.ts, one.pair, one.is_answer, one) for line, one in others.items()]
        for _, *rest in sorted(found, key=lambda row: row[0]):
            yield rest[0], rest[1], rest[2], rest[3]  # type: ignore[misc]

    def _ready(self, all_of_them: bool) -> QueryBatch | None:
        """What waits no more."""
        queries, answers, places, others = list[int](), list[int](), list[int](), dict[int, Observed]()
        for place, (query, answer) in enumerate(self._halves.ready(all_of_them)):
            if isinstance(query, int) and (answer is None or isinstance(answer, int)):
                queries.append(query)
                answers.append(query if answer is None else answer)
                places.append(place)
            else:
                others[place] = joined_halves(self._observed(query), None if answer is None else self._observed(answer))
        batch = self._held.take(np.array(queries, np.int64), np.array(answers, np.int64)) if queries else None
        oldest = self._halves.oldest
        if oldest is None or isinstance(oldest, int):
            self._held.forget(oldest)
        return self._given(batch, np.array(places, np.int64), others)

    def _observed(self, one: int | Observed) -> Observed:
        return self._held.observed(one) if isinstance(one, int) else one

    def _given(
        self, batch: QueryBatch | None, places: NDArray[np.int64], others: Mapping[int, Observed]
    ) -> QueryBatch | None:
        """Rows of both readers in order of time; None where there is none. places: of the rows, as of `others`."""
        self.queries += len(batch) if batch is not None else 0
        if not others:
            return in_order(batch) if batch is not None and len(batch) else None
        own = {id(row): place for place, row in others.items()}
        rows, other = self.usable(list(others.values()))
        if batch is None or not len(batch) or other is None:
            return other or (in_order(batch) if batch is not None and len(batch) else None)
        whole = joined_batches([batch, other])
        return picked(whole, np.lexsort(([*places.tolist(), *(own[id(row)] for row in rows)], whole.ts)))
