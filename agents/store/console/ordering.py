"""Orders of a list of incidents: by a column, up or down, ties by their ids; and cursors, which are of one order."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    """What a list is sorted by. first: the direction that people want first. attribute: of an incident."""

    column: ColumnElement[Any]
    attribute: str
    first: str = DOWN


_KEYS: Mapping[str, _OrderKey] = {
    "last_seen": _OrderKey(_I.last_seen, "last_seen"),
    "first_seen": _OrderKey(_I.first_seen, "first_seen"),
    "severity": _OrderKey(_I.severity, "severity"),
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
    """By what, and in which direction; those that are equal by their ids, upwards."""

    name: str = "last_seen"
    direction: str = DOWN

    def __str__(self) -> str:
        return f"{self.name}:{self.direction}"

    @property
    def column(self) -> ColumnElement[Any]:
        """What it sorts by."""
        return _KEYS[self.name].column

    def clauses(self, *, backwards: bool = False) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """For ORDER BY."""
        down = (self.direction == DOWN) != backwards
        return (desc if down else asc)(self.column), (desc if backwards else asc)(_I.incident_id)

    def behind(self, value: Any, incident_id: str, *, backwards: bool = False) -> ColumnElement[bool]:
        """Whether an incident comes after the one with this value and id; backwards: before it."""
        down = (self.direction == DOWN) != backwards
        further = self.column < value if down else self.column > value
        tied = _I.incident_id < incident_id if backwards else _I.incident_id > incident_id
        return or_(further, and_(self.column == value, tied))

    def place_of(self, incident: Incident) -> tuple[Any, str]:
        """Value and id of an incident."""
        value = getattr(incident, _KEYS[self.name].attribute)
        return int(value) if self.name == "severity" else value, incident.incident_id

    def cursor_at(self, value: Any, incident_id: str) -> str:
        """The cursor of what comes after that value and id."""
        said = value if isinstance(value, str) else repr(value)
        return _APART.join((str(self), said, incident_id))

    def after(self, cursor: str) -> ColumnElement[bool]:
        """What comes after a cursor. Raises UsageError for one of another order."""
        order, _, rest = cursor.partition(_APART)
        said, apart, incident_id = rest.rpartition(_APART)
        if apart and order != str(self) and order in _ORDERS:
            raise UsageError(f"cannot read incidents: the cursor is of the order {order}, the list is {self}")
        value = _value(said, isinstance(self.column, _ByBytes))
        if not apart or order != str(self) or value is None:
            raise UsageError("cannot read incidents: the cursor is not one that a page gave")
        return self.behind(value, clean(incident_id))


_ORDERS = frozenset(f"{name}:{direction}" for name in SORTS for direction in (UP, DOWN))


def _value(said: str, is_text: bool) -> str | float | None:
    """A value of a cursor; None for what is none."""
    if is_text:
        return clean(said)
    try:
        value = float(said)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def order_of(text: str) -> IncidentOrder:
    """The order that a person names: "score", "score:up"; "" = last seen first. Raises UsageError."""
    name, apart, direction = text.strip().lower().replace("-", "_").partition(":")
    if not text.strip():
        return IncidentOrder()
    if name not in SORTS or direction not in ((UP, DOWN) if apart else ("",)):
        raise UsageError(f"cannot sort incidents by {printable(text, 40)!r}: possible are {SORT_HELP}")
    return IncidentOrder(name, direction or SORTS[name])
