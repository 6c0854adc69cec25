"""The audit log: who changed what, when, and by which way. Rows are only ever added."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, desc, insert, select

from agents.core.types import clean
from agents.store.console.tables import AUDIT
from agents.store.sql import Database

KNOWN_KEPT = "known service kept"
"""The action of whoever takes a service for known, and so silences what it explains."""
ENTRIES_AT_ONCE = 1_000
DETAIL_MAX = 1_000
"""Characters of an entry's detail, at most."""
_A = AUDIT.c


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change. Times are Unix seconds."""

    audit_id: int
    at: float
    author: str
    way: str  # console, API or command line
    action: str
    object: str
    detail: str


class AuditLog:
    """The log in a store. Every method raises StoreError."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def add(self, author: str, way: str, action: str, thing: str, detail: str = "") -> None:
        """Note a change that was made."""
        with self._store.writing("write the audit log") as connection:
            note_change(connection, author, way, action, thing, detail)

    def entries(
        self, *, author: str = "", action: str = "", thing: str = "", before_id: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """Entries, newest first. before_id: those that were written before that one."""
        statement = select(AUDIT).order_by(desc(_A.audit_id)).limit(limit)
        for column, value in ((_A.author, author), (_A.action, action), (_A.object, thing)):
            if value:
                statement = statement.where(column == clean(value))
        if before_id is not None:
            statement = statement.where(_A.audit_id < before_id)
        with self._store.reading("read the audit log") as connection:
            return [AuditEntry(**dict(row)) for row in connection.execute(statement).mappings()]

    def all_entries(self, *, author: str = "", action: str = "", thing: str = "") -> Iterator[AuditEntry]:
        """All entries, newest first, read some at a time."""
        before: int | None = None
        while True:
            some = self.entries(author=author, action=action, thing=thing, before_id=before, limit=ENTRIES_AT_ONCE)
            yield from some
            if len(some) < ENTRIES_AT_ONCE:
                return
            before = some[-1].audit_id


def note_change(connection: Connection, author: str, way: str, action: str, thing: str, detail: str = "") -> None:
    """AuditLog.add within the transaction that makes the change."""
    row = {
        "at": time.time(),
        "author": clean(author),
        "way": way,
        "action": action,
        "object": clean(thing),
        "detail": clean(detail)[:DETAIL_MAX],
    }
    connection.execute(insert(AUDIT).values(row))
