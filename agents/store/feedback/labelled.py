"""Which queries are no longer normal: those of labelled flows, and of domains that people look at or decided about."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from agents.core.columns import Coded
from agents.store.feedback.tables import FLOW_HOURS, FLOW_LABELS, REVIEW_ITEMS, LabelOrigin, labelled_by_people


@dataclass(frozen=True, slots=True)
class LabelledFlows:
    """domains: of any client; flows: of one client below one domain."""

    domains: frozenset[str] = field(default=frozenset())
    flows: frozenset[tuple[str, str]] = field(default=frozenset())  # (client, domain)

    def left(self, clients: Coded, domains: Coded) -> NDArray[np.bool_]:
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
    return LabelledFlows(
        frozenset(domains), frozenset((client, domain) for client, domain in connection.execute(tunnels))
    )
