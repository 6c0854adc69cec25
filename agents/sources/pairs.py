"""Joins queries with their answers where a log has them apart."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
PAIR_WAIT_S = 5.0
"""A query without an answer is counted after so many seconds of the log's time."""
PAIRS_MAX = 65_536
"""Queries that wait for their answers, at most; the oldest goes first."""


class _Waiting(Generic[T]):
    """A query, and its answer once that came."""

    __slots__ = ("answer", "pair", "query", "ts")

    def __init__(self, ts: float, pair: Any, query: T, answer: T | None) -> None:
        self.ts, self.pair, self.query, self.answer = ts, pair, query, answer


class Pairs(Generic[T]):
    """Joins queries with their answers, in the order of the queries. T: what stands for one of them.

    An answer whose query was not seen stands for itself: a log may have answers alone. One whose query has its answer,
    or was given without one, is left out: it is no query of its own.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Waiting[T]] = deque()
        self._open: dict[Any, _Waiting[T] | deque[_Waiting[T]]] = {}  # a deque where several queries share a pair
        self._given: set[Any] = set()  # pairs of queries that wait no more: of the last ones, and of those before
        self._given_before: set[Any] = set()
        self._now = -math.inf

    @property
    def empty(self) -> bool:
        """Whether no query waits."""
        return not self._waiting

    @property
    def oldest(self) -> T | None:
        """The query that waits for longest."""
        return self._waiting[0].query if self._waiting else None

    def add(self, ts: float, pair: Any, is_answer: bool, one: T) -> None:
        """Take the next line's query or answer. ts: its time, Unix seconds; pair, is_answer: see intake.Observed."""
        if ts > self._now:
            self._now = ts
        if pair is None:
            self._waiting.append(_Waiting(ts, None, one, one))
        elif not is_answer:
            row = _Waiting(ts, pair, one, None)
            self._waiting.append(row)
            known = self._open.setdefault(pair, row)
            if known is not row:
                self._open[pair] = known = known if isinstance(known, deque) else deque([known])
                known.append(row)
        elif pair in self._open:
            self._first_open(pair).answer = one
        elif pair not in self._given and pair not in self._given_before:
            self._waiting.append(_Waiting(ts, None, one, one))

    def ready(self, all_of_them: bool = False) -> Iterator[tuple[T, T | None]]:
        """The oldest queries with their answers, up to the first one that may still be answered."""
        waiting = self._waiting
        while waiting:
            row = waiting[0]
            if row.answer is None:
                if not all_of_them and row.ts >= self._now - PAIR_WAIT_S and len(waiting) <= PAIRS_MAX:
                    return
                self._first_open(row.pair)  # which is this one: rows of a pair wait in order
            waiting.popleft()
            yield row.query, row.answer

    def _first_open(self, pair: Any) -> _Waiting[T]:
        """The oldest query of a pair that waits for its answer; it does so no more."""
        found = self._open[pair]
        if isinstance(found, deque):
            row = found.popleft()
            if not found:
                del self._open[pair]
        else:
            row = found
            del self._open[pair]
        self._given.add(pair)
        if len(self._given) >= PAIRS_MAX:
            self._given_before, self._given = self._given, set()
        return row
