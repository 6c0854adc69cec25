"""Flow-hours for people: of a client or a domain, those that carried most in words, those nearest to a limit."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.detection.network import HOUR_S
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.sql import Store

READ_MAX = 50_000
"""Flow-hours that a question reads, at most."""


class FlowLook:
    """Flow-hours in a store. Every method raises StoreError."""

    def __init__(self, store: Store) -> None:
        self._hours = FlowHourStore(store)

    def hours(
        self, *, client: str | None = None, domain: str | None = None, since: float, limit: int = 200
    ) -> list[dict[str, Any]]:
        """Flow-hours since a time (Unix seconds), newest first."""
        first = int(since // HOUR_S)
        found = self._hours.read(SCHEMA, since=first, client=client, domain=domain, limit=READ_MAX, newest=True)
        return [_told(found, row) for row in np.argsort(-found.hour, kind="stable")[:limit].tolist()]

    def most_in_words(self, since: float, until: float, limit: int = 50) -> list[dict[str, Any]]:
        """Flow-hours whose names carried most information that does not read as encoded."""
        found = self._between(since, until)
        if not len(found):
            return []
        words = _column(found, "information_bytes") - _column(found, "encoded_bytes")
        return [_told(found, row) | {"words_bytes": float(words[row])} for row in np.argsort(-words)[:limit].tolist()]

    def nearest_to_limits(self, since: float, until: float, limit: int = 50) -> list[dict[str, Any]]:
        """Flow-hours that came nearest to a limit."""
        found = self._between(since, until)
        if not len(found):
            return []
        return [_told(found, row) for row in np.argsort(-_column(found, "peak_today"))[:limit].tolist()]

    def _between(self, since: float, until: float) -> FlowHours:
        """The newest flow-hours of a span."""
        first, last = int(since // HOUR_S), int(until // HOUR_S) + 1
        return self._hours.read(SCHEMA, since=first, until=last, limit=READ_MAX, newest=True)


def _column(found: FlowHours, name: str) -> np.ndarray[Any, Any]:
    return found.numbers[:, NUMBERS.index(name)].astype(np.float64)


def _told(found: FlowHours, row: int) -> dict[str, Any]:
    numbers = {name: float(value) for name, value in zip(NUMBERS, found.numbers[row], strict=True)}
    at = {"at": int(found.hour[row]) * HOUR_S, "client": found.client[row], "domain": found.domain[row]}
    nearest = max(value for name, value in numbers.items() if name.startswith("ratio_"))
    return at | {"sample_names": list(found.names[row]), "nearest": nearest, **numbers}
