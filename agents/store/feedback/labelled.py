"""Which queries are no longer normal: those of labelled flows, of domains that people look at or decided about, and of
clients near an incident of theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from agents.core.columns import Coded
from agents.core.text import NETWORK
from agents.core.types import DAY_S, Severity
from agents.store.feedback.tables import FLOW_HOURS, FLOW_LABELS, REVIEW_ITEMS, LabelOrigin, labelled_by_people
from agents.store.rows import INCIDENTS

NEAR_S = 1.0 * DAY_S
"""Nothing that a client asks within a day of an incident of its own, HIGH or above, is learnt."""


@dataclass(frozen=True, slots=True)
class LabelledFlows:
    """domains: of any client; flows: of one client below one domain; spans: times of clients, Unix seconds."""

    domains: frozenset[str] = field(default=frozenset())
    flows: frozenset[tuple[str, str]] = field(default=frozenset())  # (client, domain)
    spans: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    def left(self, clients: Coded, domains: Coded, ts: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of n queries are not theirs. Shape (n,)."""
        labelled = np.array([domain in self.domains for domain in domains.values], np.bool_)
        numbers = {client: number for number, client in enumerate(clients.values)}
        known = {domain: number for number, domain in enumerate(domains.values)}
        width = len(domains.values)
        pairs = [
            numbers[client] * width + known[domain]
            for client, domain in self.flows
            if client in numbers and domain in known
        ]
        pair = clients.codes.astype(np.int64) * width + domains.codes
        left: NDArray[np.bool_] = ~labelled[domains.codes] & ~np.isin(pair, np.array(pairs, np.int64))
        for client, number in numbers.items():
            for begin, end in self.spans.get(client, ()):
                left &= (clients.codes != number) | (ts < begin) | (ts > end)
        return left


def labelled_flows(connection: Connection) -> LabelledFlows:
    """What is labelled now."""
    waiting = select(REVIEW_ITEMS.c.domain).where(REVIEW_ITEMS.c.state != "closed")
    domains = [str(row.domain) for row in connection.execute(labelled_by_people().union(waiting))]
    tunnels = (
        select(FLOW_HOURS.c.client, FLOW_HOURS.c.domain)
        .join(FLOW_LABELS, FLOW_LABELS.c.flow_hour_id == FLOW_HOURS.c.id)
        .where(FLOW_LABELS.c.label == "tunnel", FLOW_LABELS.c.origin != str(LabelOrigin.LEARNED))
        .distinct()
    )
    loud = select(INCIDENTS).where(INCIDENTS.c.severity >= int(Severity.HIGH), INCIDENTS.c.source == "")
    spans = defaultdict[str, list[tuple[float, float]]](list)
    for row in connection.execute(loud):
        if row.client == NETWORK:
            domains.append(row.domain)
        else:
            spans[row.client].append((row.detected_at - NEAR_S, row.last_seen + NEAR_S))
    return LabelledFlows(
        frozenset(domains), frozenset((client, domain) for client, domain in connection.execute(tunnels)), spans
    )
