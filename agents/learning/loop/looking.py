"""Flow-hours for people: of a client or a domain, those that carried most in words, those nearest to a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.types import HOUR_S
from agents.learning.loop.collector import KEPT_MAX
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.learning.loop.golden import GOLDEN_SCHEMA
from agents.learning.loop.material import LATER_S
from agents.store.feedback.flow_hours import WEEK_HOURS, FlowHours, FlowHourStore
from agents.store.feedback.labels import LabelStore
from agents.store.sql import Database

READ_MAX = 50_000
"""Flow-hours that a question reads, at most."""


class FlowLook:
    """Flow-hours in a store. Every method raises StoreError."""

    def __init__(self, store: Database) -> None:
        self._hours, self._labels = FlowHourStore(store), LabelStore(store)

    def kept(self) -> dict[str, Any]:
        """What the feature store holds: see web.schemas.FeatureStoreAnswer."""
        weeks, shipped = self._hours.weeks(SCHEMA), self._hours.weeks(GOLDEN_SCHEMA)
        begin = [week * WEEK_HOURS * HOUR_S for week in sorted(weeks)]
        labels = self._labels.counts(SCHEMA, 0.0, LATER_S)
        return {
            "flow_hours": sum(weeks.values()),
            "flow_hours_max": KEPT_MAX,
            "shipped": sum(shipped.values()),
            "bytes": self._hours.held_bytes(),
            "weeks": [{"begin": at, "flow_hours": weeks[at // WEEK_HOURS // HOUR_S]} for at in begin],
            "labels": [{"label": one, "origin": origin, "flow_hours": count} for one, origin, count in labels],
        }

    def hours(
        self,
        *,
        client: str | None = None,
        domain: str | None = None,
        since: float,
        until: float = math.inf,
        limit: int,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        """Flow-hours of a span (Unix seconds), newest first; the first `offset` are passed over."""
        first, last = int(since // HOUR_S), int(min(until, 2.0**40) // HOUR_S) + 1
        found = self._hours.read(
            SCHEMA, since=first, until=last, client=client, domain=domain, limit=offset + limit, latest=True
        )
        return [_told(found, row) for row in range(offset, len(found))]

    def most_in_words(self, since: float, until: float, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """Flow-hours whose names carried most information that does not read as encoded; `offset` as of hours."""
        ids, numbers = self._between(since, until, ("information_bytes", "encoded_bytes"))
        words = numbers[:, 0] - numbers[:, 1]
        most = np.argsort(-words, kind="stable")[offset : offset + limit]
        bytes_of = dict(zip(ids[most].tolist(), words[most].tolist(), strict=True))
        found = self._hours.of(SCHEMA, list(bytes_of))
        return [_told(found, row) | {"words_bytes": bytes_of[int(found.id[row])]} for row in range(len(found))]

    def nearest_to_limits(self, since: float, until: float, limit: int = 50, offset: int = 0) -> list[dict[str, Any]]:
        """Flow-hours that came nearest to a limit; `offset` as of hours."""
        ids, numbers = self._between(since, until, ("peak_today",))
        nearest = np.argsort(-numbers[:, 0], kind="stable")[offset : offset + limit]
        found = self._hours.of(SCHEMA, ids[nearest].tolist())
        return [_told(found, row) for row in range(len(found))]

    def _between(
        self, since: float, until: float, names: Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ids and these numbers, shape (n, len(names)), of the newest flow-hours of a span."""
        first, last = int(since // HOUR_S), int(until // HOUR_S) + 1
        columns = [NUMBERS.index(name) for name in names]
        ids, numbers = self._hours.numbers(SCHEMA, columns, since=first, until=last, limit=READ_MAX)
        return ids, numbers.astype(np.float64)


def _told(found: FlowHours, row: int) -> dict[str, Any]:
    numbers = {name: float(value) for name, value in zip(NUMBERS, found.numbers[row], strict=True)}
    at = {"at": int(found.hour[row]) * HOUR_S, "client": found.client[row], "domain": found.domain[row]}
    nearest = max(value for name, value in numbers.items() if name.startswith("ratio_"))
    return at | {"sample_names": list(found.names[row]), "nearest": nearest, **numbers}
