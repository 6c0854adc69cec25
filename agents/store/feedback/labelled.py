"""Which queries are no longer normal: those of labelled flows, of domains that people look at or decided about, and of
clients near an incident of theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from agents.core.columns import Coded
from agents.core.text import NETWORK
from agents.core.types import DAY_S, Severity
from agents.store.feedback.tables import FLOW_HOURS, FLOW_LABELS, REVIEW_ITEMS, LabelOrigin, labelled_by_people
from agents.store.rows import INCIDENTS

Spans = list[tuple[float, float]]
_I = INCIDENTS.c
NEAR_S = 1.0 * DAY_S
"""Nothing that a client asks within a day of an incident of its own, HIGH or above, is learnt."""


@dataclass(frozen=True, slots=True)
class LabelledFlows:
    """domains: of any client; flows: of one client below one domain; spans: times of clients, Unix seconds."""

    domains: frozenset[str] = field(default=frozenset())
    flows: frozenset[tuple[str, str]] = field(default=frozenset())  # (client, domain)
    spans: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    shared: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)  # of domains, all clients

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
        for column, near in ((clients, self.spans), (domains, self.shared)):
            for number, value in enumerate(column.values):
                for begin, end in near.get(value, ()):
                    left &= (column.codes != number) | (ts < begin) | (ts > end)
        return left

    def renamed(self, rename: Callable[[Sequence[str]], Sequence[str]]) -> LabelledFlows:
        """The same, where domains have other names, as hashes. rename: other names of domains, in their order."""
        domains = sorted(self.domains | {domain for _, domain in self.flows} | self.shared.keys())
        other = dict(zip(domains, rename(domains), strict=True))
        return LabelledFlows(
            frozenset(other[domain] for domain in self.domains),
            frozenset((client, other[domain]) for client, domain in self.flows),
            self.spans,
            {other[domain]: spans for domain, spans in self.shared.items()},
        )


def labelled_flows(connection: Connection, since: float, until: float) -> LabelledFlows:
    """What is labelled now, and what lies near an incident, of queries with since <= ts < until, Unix seconds."""
    waiting = select(REVIEW_ITEMS.c.domain).where(REVIEW_ITEMS.c.state != "closed")
    domains = [str(row.domain) for row in connection.execute(labelled_by_people().union(waiting))]
    tunnels = (
        select(FLOW_HOURS.c.client, FLOW_HOURS.c.domain)
        .join(FLOW_LABELS, FLOW_LABELS.c.flow_hour_id == FLOW_HOURS.c.id)
        .where(FLOW_LABELS.c.label == "tunnel", FLOW_LABELS.c.origin != str(LabelOrigin.LEARNED))
        .distinct()
    )
    return LabelledFlows(
        frozenset(domains),
        frozenset((client, domain) for client, domain in connection.execute(tunnels)),
        *_near(connection, since, until),
    )


def _near(connection: Connection, since: float, until: float) -> tuple[dict[str, Spans], dict[str, Spans]]:
    """Times near incidents, HIGH and above and seen live: of clients, and of domains where several sent together."""
    columns = (_I.client, _I.domain, _I.detected_at, _I.last_seen)
    within = (_I.last_seen >= since - NEAR_S, _I.detected_at < until + NEAR_S)
    loud = select(*columns).where(_I.severity >= int(Severity.HIGH), _I.source == "", *within)
    found: tuple[dict[str, Spans], dict[str, Spans]] = {}, {}
    for client, domain, begin, end in connection.execute(loud.order_by(_I.detected_at)):
        together = client == NETWORK
        spans = found[together].setdefault(domain if together else client, [])
        if spans and begin - NEAR_S <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(spans[-1][1], end + NEAR_S)
        else:
            spans.append((begin - NEAR_S, end + NEAR_S))
    return found
