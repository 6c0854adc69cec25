"""Orders of a list of incidents: by a column, up or down, then by what sets those apart that are equal; and cursors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, asc, desc, or_
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal

from agents.core.errors import UsageError
from agents.core.text import printable
from agents.core.types import Incident, clean
from agents.store.rows import INCIDENTS

UP, DOWN = "up", "down"
_I = INCIDENTS.c
_APART = "~"
"""Stands between the parts of a cursor: order, value, id. A value may hold it."""
_NEXT = ","
"""Stands between numbers of a cursor."""


class _ByBytes(ColumnElement[str]):
    """A text column in the order of its bytes, whatever the database's language is."""

    inherit_cache = True
    type = Text()
    _traverse_internals = [("name", InternalTraversal.dp_string)]  # noqa: RUF012 - as the base class has it

    def __init__(self, name: str) -> None:
        self.name = name


@compiles(_ByBytes, "sqlite")
def _bytes_in_sqlite(element: _ByBytes, compiler: SQLCompiler, **_: Any) -> str:
    return f"incidents.{element.name}"


@compiles(_ByBytes, "postgresql")
def _bytes_in_postgres(element: _ByBytes, compiler: SQLCompiler, **_: Any) -> str:
    return f'incidents.{element.name} COLLATE "C"'


@dataclass(frozen=True, slots=True)
class _OrderKey:
    """What a list is sorted by. first: the direction that people want first. attribute: of an incident.

    newest: those that are equal begin with the one that was detected last; what changes while an incident goes on
    would let pages leave one out.
    """

    column: ColumnElement[Any]
    attribute: str
    first: str = DOWN
    newest: bool = False


_KEYS: Mapping[str, _OrderKey] = {
    "last_seen": _OrderKey(_I.last_seen, "last_seen"),
    "first_seen": _OrderKey(_I.first_seen, "first_seen"),
    "severity": _OrderKey(_I.severity, "severity", newest=True),
    "score": _OrderKey(_I.score, "score"),
    "bytes": _OrderKey(_I.leaked_bytes, "leaked_bytes"),
    "client": _OrderKey(_ByBytes("client"), "client", UP),
    "domain": _OrderKey(_ByBytes("domain"), "domain", UP),
}
SORTS: Mapping[str, str] = {name: key.first for name, key in _KEYS.items()}
"""What incidents are sorted by, and in which direction where none is named. Texts: by their bytes."""
SORT_HELP = f"{', '.join(SORTS)}; with :up or :down"


@dataclass(frozen=True, slots=True)
class IncidentOrder:
    """By what, and in which direction; those that are equal by time of detection where their key says so, and by id."""

    name: str = "last_seen"
    direction: str = DOWN

    def __str__(self) -> str:
        return f"{self.name}:{self.direction}"

    @property
    def _sorted(self) -> list[tuple[ColumnElement[Any], bool]]:
        """What it sorts by, and whether downwards."""
        key = _KEYS[self.name]
        ties: list[tuple[ColumnElement[Any], bool]] = [(_I.detected_at, True)] if key.newest else []
        return [(key.column, self.direction == DOWN), *ties, (_I.incident_id, False)]

    @property
    def columns(self) -> list[ColumnElement[Any]]:
        """What it sorts by; the last one is the id."""
        return [column for column, _ in self._sorted]

    def clauses(self, *, backwards: bool = False) -> list[ColumnElement[Any]]:
        """For ORDER BY."""
        return [(desc if down != backwards else asc)(column) for column, down in self._sorted]

    def behind(self, place: Sequence[Any], *, backwards: bool = False) -> ColumnElement[bool]:
        """Whether an incident comes after the one at this place (values of `columns`); backwards: before it."""
        further, alike = list[ColumnElement[bool]](), list[ColumnElement[bool]]()
        for (column, down), value in zip(self._sorted, place, strict=True):
            further.append(and_(*alike, column < value if down != backwards else column > value))
            alike.append(column == value)
        return or_(*further)

    def place_of(self, incident: Incident) -> tuple[Any, ...]:
        """Values of `columns` of an incident."""
        key = _KEYS[self.name]
        value = getattr(incident, key.attribute)
        ties = (incident.detected_at,) if key.newest else ()
        return int(value) if self.name == "severity" else value, *ties, incident.incident_id

    def cursor_at(self, place: Sequence[Any]) -> str:
        """The cursor of what comes after that place."""
        *numbers, incident_id = place
        said = _NEXT.join(one if isinstance(one, str) else repr(one) for one in numbers)
        return _APART.join((str(self), said, incident_id))

    def after(self, cursor: str) -> ColumnElement[bool]:
        """What comes after a cursor. Raises UsageError for one of another order."""
        order, _, rest = cursor.partition(_APART)
        said, apart, incident_id = rest.rpartition(_APART)
        if apart and order != str(self) and order in _ORDERS:
            raise UsageError(f"cannot read incidents: the cursor is of the order {order}, the list is {self}")
        values = _values(said, self.columns[:-1])
        if not apart or order != str(self) or not values:
            raise UsageError("cannot read incidents: the cursor is not one that a page gave")
        return self.behind([*values, clean(incident_id)])


_ORDERS = frozenset(f"{name}:{direction}" for name in SORTS for direction in (UP, DOWN))


def _values(said: str, columns: Sequence[ColumnElement[Any]]) -> list[str | float]:
    """Values of a cursor, of these columns; [] for what is none. A text is one by itself."""
    if isinstance(columns[0], _ByBytes):
        return [clean(said)]
    try:
        values = [float(one) for one in said.split(_NEXT)]
    except ValueError:
        return []
    return [*values] if len(values) == len(columns) and all(map(math.isfinite, values)) else []


def order_of(text: str) -> IncidentOrder:
    """The order that a person names: "score", "score:up"; "" = last seen first. Raises UsageError."""
    name, apart, direction = text.strip().lower().replace("-", "_").partition(":")
    if not text.strip():
        return IncidentOrder()
    if name not in SORTS or direction not in ((UP, DOWN) if apart else ("",)):
        raise UsageError(f"cannot sort incidents by {printable(text, 40)!r}: possible are {SORT_HELP}")
    return IncidentOrder(name, direction or SORTS[name])
