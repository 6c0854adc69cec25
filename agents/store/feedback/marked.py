"""Rows with a mark that are to go at once, such as those of a drill."""

from __future__ import annotations

from sqlalchemy import delete

from agents.store.rows import INCIDENTS, QUERIES
from agents.store.sql import LIVE, Database


def forget_marked(store: Database, source: str) -> int:
    """Delete queries and incidents with this mark; how many. Raises StoreError."""
    with store.writing("delete what was marked") as connection:
        gone = connection.execute(delete(QUERIES).where(~LIVE, QUERIES.c.source == source)).rowcount
        return gone + connection.execute(delete(INCIDENTS).where(INCIDENTS.c.source == source)).rowcount
