"""What the learnt model lists though no limit was reached: as many flows a week as the alert budget allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from agents.core.text import NETWORK
from agents.core.types import DAY_S, HOUR_S
from agents.detection.detector import Suspect
from agents.detection.reasons import LEARNT_REASONS
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.flow_model import FlowModel
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.reviews import ReviewStore
from agents.store.sql import IncidentDatabase

LATELY_S, BUDGET_S = 1.0 * DAY_S, 7.0 * DAY_S
"""A domain with an incident within LATELY_S is none; the budget is one of BUDGET_S."""
READ_MAX = 10_000
"""Incidents and decisions that are looked at, at most."""


def suspects_of(
    store: IncidentDatabase,
    model: FlowModel,
    tunnel_from: float,
    budget: float,
    hour: int,
    now: float,
    mine: Callable[[str], bool] = lambda client: True,
) -> list[Suspect]:
    """Flows of an hour to be listed: time, client, domain and probability; one below a domain, the most probable first.

    tunnel_from: the least probability. budget: incidents a week. A domain that a person decided about, or that had an
    incident lately, is none. hour: since 1970-01-01; now: Unix seconds. mine: clients that this process lists, of those
    that it would list if it were alone: what others list is not listed twice. Raises StoreError.
    """
    room, known = room_of(store, budget, now)
    rows = FlowHourStore(store).read(SCHEMA, since=hour, until=hour + 1)
    if room <= 0 or not len(rows):
        return []
    chance = model.probabilities(rows.numbers)
    found: dict[str, Suspect] = {}
    for row in np.argsort(-chance, kind="stable").tolist():
        if chance[row] < tunnel_from or len(found) == room:
            break
        client, domain = rows.client[row], rows.domain[row]
        if domain not in known and client != NETWORK:
            at = min((hour + 1) * float(HOUR_S), now)
            found.setdefault(domain, (at, client, domain, float(chance[row]), ""))
    return [one for one in found.values() if mine(one[1])]


def room_of(store: IncidentDatabase, budget: float, now: float) -> tuple[int, set[str]]:
    """How many incidents may still be listed by learnt models, and domains that are none. Raises StoreError."""
    lately = store.incidents(since=now - BUDGET_S, source="", limit=READ_MAX)
    learnt = [one for one in lately if one.reasons[0].startswith(LEARNT_REASONS) and one.detected_at > now - BUDGET_S]
    known = {one.domain for one in lately if one.last_seen > now - LATELY_S or one.closed_at is None}
    known |= {one.domain for one in ReviewStore(store).decisions(standing=True, limit=READ_MAX)}
    return int(budget) - len(learnt), known


def within_budget(store: IncidentDatabase, found: Iterable[Suspect], budget: float, now: float) -> list[Suspect]:
    """Of what another model found, what may be listed: one below a domain. Raises StoreError."""
    room, known = room_of(store, budget, now)
    kept: dict[str, Suspect] = {}
    for one in found:
        if len(kept) < room and one[2] not in known:
            kept.setdefault(one[2], one)
    return list(kept.values())
