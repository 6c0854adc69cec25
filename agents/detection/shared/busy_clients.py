"""Clients that ask a large part of all queries: one detector judges all of each, so several detectors gain little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from agents.core.columns import Coded

PART_S = 1800
"""Counts are of this half hour and of the one before."""
BATCH_PART, BUSY_PART = 1 / 16, 1 / 8
"""A client counts with the batches of which it asks BATCH_PART or more, and is shown from BUSY_PART of all on."""
ALL = ""
KEPT, SHOWN = 4096, 64
"""Clients that are counted, and of these told of, the busiest."""


class BusyClients:
    """Queries of clients that ask much, and of all together (ALL), of the last hour by the queries' time."""

    def __init__(self) -> None:
        self._part, self._now, self._before = -1, Counter[str](), Counter[str]()

    def note(self, ts: float, clients: Coded) -> None:
        """Count a batch. ts: of its first query, Unix seconds."""
        if (part := int(ts // PART_S)) > self._part:
            self._before = self._now if part == self._part + 1 else Counter()
            self._part, self._now = part, Counter()
        count = len(clients.codes)
        self._now[ALL] += count
        asked = np.bincount(clients.codes)
        for code in np.flatnonzero(asked >= max(count * BATCH_PART, 1)).tolist():
            if client := clients.values[code]:
                self._now[client] += int(asked[code])
        if len(self._now) > KEPT:
            self._now = Counter(dict(self._now.most_common(KEPT // 2)))

    def counts(self) -> dict[str, int]:
        """Queries of each, and of ALL."""
        return dict((self._now + self._before).most_common(SHOWN + 1))


def busy_clients(counts: Iterable[Mapping[str, int]]) -> dict[str, float]:
    """The part of all queries that each client asks that asks BUSY_PART or more, of the counts of several detectors."""
    total = Counter[str]()
    for one in counts:
        total.update(one)
    every = max(total.pop(ALL, 0), 1)
    return {client: round(asked / every, 3) for client, asked in total.most_common() if asked >= BUSY_PART * every}
