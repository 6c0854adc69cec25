"""How many incidents of a search have each value of each facet, cheap enough for every page of the list.

Facets with few values are grouped together in one statement, under no condition of theirs: what a chosen one leaves of
the others is summed up from that. Counts over very many incidents are used again for some seconds.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, desc, func, select

FACET_VALUES_MAX = 12
"""Values of one facet that are shown: the most frequent ones, of days the latest."""
MANY = ("client", "domain")
"""Facets that may have as many values as there are incidents: each is counted by itself."""
BY_VALUE = "day"
"""The facet whose values are shown in their own order, the highest first."""
KEPT_FROM, KEPT_FROM_CPU_S, KEPT_S = 20_000, 0.05, 10.0
"""Counts over so many incidents, or that took so many seconds of CPU, are used again, for so many seconds."""
KEPT_MAX = 64
Narrowed = Callable[[Collection[str]], list[ColumnElement[bool]]]
"""Conditions of a search but those of some facets."""
Grouped = Sequence[tuple[tuple[Any, ...], int]]


@dataclass(frozen=True, slots=True)
class FacetAnswer:
    """How many are found, and of each facet (value, incidents with it) under all other conditions."""

    count: int = 0
    facets: dict[str, list[tuple[Any, int]]] = field(default_factory=dict)
    at: float = field(default_factory=time.time)  # when they were counted, Unix seconds


class FacetCounts:
    """Counts of a store's incidents. columns: of each facet; rows: where these are."""

    def __init__(self, columns: Mapping[str, ColumnElement[Any]], rows: FromClause) -> None:
        self._columns, self._rows = columns, rows
        self._few = [name for name in columns if name not in MANY]
        self._guard = threading.Lock()
        self._kept: OrderedDict[tuple[str, ...], tuple[float, float, Grouped]] = OrderedDict()

    def of(
        self, connection: Connection, narrowed: Narrowed, chosen: Mapping[str, Collection[Any]], key: tuple[str, str]
    ) -> FacetAnswer:
        """Counts of a search. chosen: values of facets that it names; key: what the search is, and of which state.

        Searches that differ in facets with few values alone have the same key.
        """
        wanted = {name: frozenset(chosen.get(name, ())) for name in self._columns}
        at, together = self._grouped(connection, self._few, narrowed(self._few), key)
        found = {name: Counter[Any]() for name in self._few}
        count = 0
        for values, number in together:
            missed = [
                name
                for name, value in zip(self._few, values, strict=True)
                if wanted[name] and value not in wanted[name]
            ]
            count += 0 if missed else number
            for name, value in zip(self._few, values, strict=True):
                if not missed or missed == [name]:
                    found[name][value] += number
        facets = {name: _first(name, counter) for name, counter in found.items()}
        is_long = sum(number for _, number in together) >= KEPT_FROM
        for name in MANY:
            asked = (*key, name, *(str(sorted(map(str, wanted[one]))) for one in self._few))
            made, rows = self._grouped(connection, [name], narrowed([name]), asked, is_long)
            facets[name] = [(values[0], number) for values, number in rows]
            at = min(at, made)
        return FacetAnswer(count, {name: facets[name] for name in self._columns}, at)

    def _grouped(
        self,
        connection: Connection,
        names: Sequence[str],
        conditions: list[ColumnElement[bool]],
        key: tuple[str, ...],
        is_long: bool | None = None,
    ) -> tuple[float, Grouped]:
        """When they were counted, and how many incidents have which values: all, or of one facet the most frequent.

        is_long: whether that takes long; None = what is counted says so.
        """
        with self._guard:
            until, at, kept = self._kept.get(key, (0.0, 0.0, ()))
            if time.monotonic() < until:
                return at, kept
        columns = [self._columns[name] for name in names]
        statement = select(*columns, func.count()).select_from(self._rows).where(*conditions).group_by(*columns)
        if is_long is not None:
            statement = statement.order_by(desc(func.count()), *columns).limit(FACET_VALUES_MAX)
        at, began = time.time(), time.thread_time()
        found = [(tuple(values), int(number)) for *values, number in connection.execute(statement)]
        took_long = time.thread_time() - began >= KEPT_FROM_CPU_S
        if took_long or is_long or (is_long is None and sum(number for _, number in found) >= KEPT_FROM):
            self._keep(key, at, found)
        return at, found

    def _keep(self, key: tuple[str, ...], at: float, found: Grouped) -> None:
        with self._guard:
            self._kept[key] = time.monotonic() + KEPT_S, at, found
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)


def _first(name: str, counter: Counter[Any]) -> list[tuple[Any, int]]:
    if name == BY_VALUE:
        return sorted(counter.items(), reverse=True)[:FACET_VALUES_MAX]
    return sorted(counter.items(), key=lambda one: (-one[1], one[0]))[:FACET_VALUES_MAX]
