"""The gates that compare flow models: with the one in use on the last week, with the anchor on golden hours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.core.text import NETWORK
from agents.core.types import DAY_S, HOUR_S, Gate
from agents.learning.comparison.bounds import GateBounds
from agents.learning.comparison.listed_diff import (
    COMPARED_DAYS,
    ListedDiff,
    ListedSides,
    Listings,
    PassedOver,
    compared_days_of,
    listed_diff,
    once_a_day,
    passed_over,
)
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.flow_model import FlowModel
from agents.learning.loop.golden import stored_golden
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.feedback.labels import Label, LabelStore
from agents.store.sql import IncidentDatabase

ROWS_COMPARED = 50_000
"""Flow-hours that both models look at, at most, the newest: two seconds an hour beside the detector, at worst."""
TAKEN_FROM = 0.5
"""Probability from which a flow-hour is taken for a tunnel's."""


@dataclass(frozen=True, slots=True)
class FlowListing:
    """Compares flow models. tunnel_from: probability from which a flow-hour is listed."""

    store: IncidentDatabase
    tunnel_from: float
    bounds: GateBounds

    def diff(self, old: FlowModel, new: FlowModel, now: float) -> ListedDiff:
        """What both would have listed in the days before now (Unix seconds). Raises StoreError."""
        first = int((now - COMPARED_DAYS * DAY_S) // HOUR_S)
        rows = FlowHourStore(self.store).read(SCHEMA, since=first, limit=ROWS_COMPARED, newest=True)
        if not len(rows):
            return ListedDiff()
        chances = [model.probabilities(rows.numbers) for model in (old, new)]
        over, at = passed_over(self.store, first * float(HOUR_S)), rows.hour * float(HOUR_S)
        named = {domain: rows.names[row] for row, domain in enumerate(rows.domain)}
        sides = ListedSides(
            old=self._listings(rows, chances[0], over),
            new=self._listings(rows, chances[1], over),
            taken=(_domains(rows, chances[0], TAKEN_FROM), _domains(rows, chances[1], TAKEN_FROM)),
            alarming=(_domains(rows, chances[0], self.tunnel_from), _domains(rows, chances[1], self.tunnel_from)),
            tunnels=certain_tunnels(self.store, rows, over),
            over=over,
            names=lambda domain: named.get(domain, ()),
        )
        return listed_diff(sides, len(rows), "flow-hours", compared_days_of(float(at.min()), float(at.max()) + HOUR_S))

    def _listings(self, rows: FlowHours, chance: NDArray[np.float64], over: PassedOver) -> Listings:
        """As suspects.suspects_of lists hour by hour, the most probable flow below a domain first."""
        loud = np.flatnonzero(chance >= self.tunnel_from)
        order = loud[np.lexsort((-chance[loud], rows.hour[loud]))].tolist()
        found = (
            ((int(rows.hour[row]) + 1) * float(HOUR_S), rows.client[row], rows.domain[row])
            for row in order
            if rows.client[row] != NETWORK
        )
        return once_a_day(found, over)

    def anchor_gates(self, new: FlowModel, anchor: FlowModel, now: float) -> tuple[Gate, ...]:
        """How far a candidate may fall from the anchor on the golden sessions. Raises StoreError."""
        numbers, tunnel = stored_golden(self.store, now)
        found, fixed = new.probabilities(numbers), anchor.probabilities(numbers)
        shares = [float((chance[tunnel] > TAKEN_FROM).mean()) for chance in (found, fixed)]
        return (
            Gate(
                "golden tunnels found, beside the anchor",
                shares[0],
                max(shares[1] - self.bounds.tunnel_drop, 0.0),
                True,
                f"of {int(tunnel.sum())} flow-hours; the anchor has {shares[1]:.3f}",
            ),
            Gate(
                "drift from the anchor",
                float(np.abs(found - fixed).mean()),
                self.bounds.score_drift,
                False,
                "mean difference of probabilities of golden flow-hours",
            ),
        )


def certain_tunnels(store: IncidentDatabase, rows: FlowHours, over: PassedOver) -> set[str]:
    """Domains that people or rules call a tunnel's; rows: flow-hours, one at least. Raises StoreError."""
    hours = {"since": int(rows.hour.min()), "until": int(rows.hour.max()) + 1}
    certain = LabelStore(store).certain_ids(SCHEMA, **hours)
    by_rule = {rows.domain[row] for row, one in enumerate(rows.id.tolist()) if one in certain}
    said = {domain for domain, label in over.labels.items() if label is not Label.TUNNEL}
    return (by_rule - said) | {domain for domain, label in over.labels.items() if label is Label.TUNNEL}


def _domains(rows: FlowHours, chance: NDArray[np.float64], least: float) -> set[str]:
    return {rows.domain[row] for row in np.flatnonzero(chance >= least).tolist()}
