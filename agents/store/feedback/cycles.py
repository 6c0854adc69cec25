"""What the online learner did, cycle by cycle: the newest ones are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, desc, func, insert, select

from agents.store.feedback.tables import LEARNING_CYCLES
from agents.store.sql import Database

_C = LEARNING_CYCLES.c


class CycleStore:
    """The cycles in a store. Every method raises StoreError."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def add(self, started_at: float, state: str, payload: Mapping[str, Any], kept: int) -> None:
        """Keep a cycle, and the newest `kept` ones. payload: JSON values."""
        values = {"started_at": started_at, "state": state, "payload": json.dumps(dict(payload))}
        with self._store.writing("keep a learning cycle") as connection:
            connection.execute(insert(LEARNING_CYCLES).values(values))
            newest = select(_C.cycle_id).order_by(desc(_C.cycle_id)).limit(kept)
            connection.execute(delete(LEARNING_CYCLES).where(_C.cycle_id.not_in(newest)))

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """Cycles, newest first: cycle_id, started_at, state, and what was kept with them."""
        statement = select(LEARNING_CYCLES).order_by(desc(_C.cycle_id)).limit(limit)
        with self._store.reading("read learning cycles") as connection:
            rows = connection.execute(statement).mappings().all()
        own = ("cycle_id", "started_at", "state")
        return [json.loads(row["payload"]) | {name: row[name] for name in own} for row in rows]

    def count(self) -> int:
        """How many cycles there were, those that are no longer kept among them."""
        with self._store.reading("count learning cycles") as connection:
            return int(connection.execute(select(func.max(_C.cycle_id))).scalar() or 0)
