"""Lists that people keep and share: a name, and the page with its query string."""

from __future__ import annotations

import time
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from sqlalchemy import delete, select

from agents.core.errors import UsageError
from agents.core.text import printable, said_text
from agents.core.types import clean
from agents.store.console.audit import note_change
from agents.store.console.tables import SAVED_VIEWS
from agents.store.feedback.reviews import TEXT_MAX_AUTHOR
from agents.store.sql import Database

NAME_MAX, ADDRESS_MAX = 60, 2_000
"""Characters of a view's name and of its address, at most."""
PASSING = frozenset({"cursor", "follow", "done", "problem", "undo", "sign"})
"""Parameters that say what was done last, and where in a list somebody is: no part of a view."""
PAGES = ("/console/incidents", "/console/hunt")
"""Pages that views are of."""


@dataclass(frozen=True, slots=True)
class SavedView:
    """A list that somebody kept. Times are Unix seconds."""

    name: str
    address: str
    author: str
    saved_at: float


class SavedViews:
    """The views in a store. Every method raises StoreError; what people do, UsageError too."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def all(self) -> list[SavedView]:
        """Every view, by name."""
        with self._store.reading("read saved views") as connection:
            found = connection.execute(select(SAVED_VIEWS).order_by(SAVED_VIEWS.c.name)).mappings()
            return [SavedView(**dict(row)) for row in found]

    def save(self, name: str, address: str, author: str, way: str) -> SavedView:
        """Keep a view, in place of the one of that name."""
        name, author = said_text(name, "a name", NAME_MAX), said_text(author, "an author", TEXT_MAX_AUTHOR)
        page, _, query = address.partition("?")
        if page not in PAGES or len(address) > ADDRESS_MAX or not address.isprintable():
            raise UsageError(f"cannot keep {printable(address, 60)!r}: it is no list of the console")
        kept = urlencode([one for one in parse_qsl(query, keep_blank_values=True) if one[0] not in PASSING])
        values = {"name": name, "address": f"{page}?{kept}", "author": author, "saved_at": time.time()}
        statement = self._store.upsert(SAVED_VIEWS).values(values)
        with self._store.writing("save a view") as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))
            note_change(connection, author, way, "view saved", name, address)
        return SavedView(**values)  # type: ignore[arg-type]

    def remove(self, name: str, author: str, way: str) -> None:
        """Forget a view."""
        author = said_text(author, "an author", TEXT_MAX_AUTHOR)
        with self._store.writing("remove a view") as connection:
            if not connection.execute(delete(SAVED_VIEWS).where(SAVED_VIEWS.c.name == clean(name))).rowcount:
                raise UsageError(f"cannot remove {printable(name, 60)!r}: there is no such view")
            note_change(connection, author, way, "view removed", name)
