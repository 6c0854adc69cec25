"""Blocks in the database: who blocked what, why, until when, and how often it was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from sqlalchemy import desc, distinct, func, select

from agents.core.types import clean
from agents.dns.blocks import Block, BlockAction
from agents.store.feedback.tables import BLOCK_ROWS
from agents.store.rows import QUERIES
from agents.store.sql import Database, between

_B = BLOCK_ROWS.c
_NAMES = [one.name for one in fields(Block)]


class BlockStore:
    """What was blocked, in a store. Every method raises StoreError."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def write(self, blocks: Sequence[Block], hits: Mapping[str, int]) -> None:
        """Write blocks as they are now. hits: by their ids."""
        statement = self._store.upsert(BLOCK_ROWS)
        changing = {name: statement.excluded[name] for name in ("until", "ended_at", "ended_by", "hits")}
        updating = statement.on_conflict_do_update(index_elements=["block_id"], set_=changing)
        rows = [{name: getattr(one, name) for name in _NAMES} | {"hits": hits.get(one.block_id, 0)} for one in blocks]
        for row in rows:
            row |= {"action": str(row["action"])}
        if rows:
            with self._store.writing("write blocks") as connection:
                connection.execute(updating, rows)

    def history(self, *, limit: int = 100) -> list[tuple[Block, int]]:
        """Blocks with their hits, newest first."""
        statement = select(BLOCK_ROWS).order_by(desc(_B.began_at), _B.block_id).limit(limit)
        with self._store.reading("read blocks") as connection:
            found = [dict(row) for row in connection.execute(statement).mappings()]
        return [
            (Block(**{name: row[name] for name in _NAMES} | {"action": BlockAction(row["action"])}), int(row["hits"]))
            for row in found
        ]

    def clients_since(self, domain: str, since: float) -> int:
        """How many clients asked for a registered domain, or below it, since a time (Unix seconds)."""
        asked = (QUERIES.c.domain == clean(domain), QUERIES.c.source == "", *between(since, None))
        with self._store.reading("count a domain's clients") as connection:
            return int(connection.execute(select(func.count(distinct(QUERIES.c.client))).where(*asked)).scalar_one())
