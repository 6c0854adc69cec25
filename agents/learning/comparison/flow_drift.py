"""How far this network's flow-hours have moved since a flow model was learnt, number by number.

Compared are logarithms, as the model reads the numbers; measures are those of names (comparison.drift).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.core.types import DAY_S, HOUR_S
from agents.learning.comparison.drift import drift, reference_of, with_anchor
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.learning.loop.flow_images import vector_rows
from agents.learning.run import FeatureDrift
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.sql import Database

WEEK_S = 7 * DAY_S
ROWS_MAX = 20_000
"""Flow-hours of a week that are compared, the newest: half a second while somebody waits."""


def flow_drift(store: Database, learnt_at: float, anchor_at: float | None, now: float) -> tuple[FeatureDrift, ...]:
    """The last week's flow-hours beside those of the week before a model was learnt, what moved most first.

    psi_anchor: beside the week before the anchor was, None = there is none. () where a week has too few. Times are Unix
    seconds. Raises StoreError.
    """
    then, this_week = _week_before(store, learnt_at), vector_rows(FlowHourStore(store).read(SCHEMA, **_span(now)))
    found = drift(then, this_week, NUMBERS, SCHEMA)
    if found and anchor_at is not None:
        found = with_anchor(found, drift(_week_before(store, anchor_at), this_week, NUMBERS, SCHEMA))
    return tuple(sorted(found, key=lambda one: -one.psi))


def drift_since(
    store: Database, now: float, manifest: Mapping[str, Any] | None, anchor: Mapping[str, Any] | None
) -> tuple[FeatureDrift, ...]:
    """`flow_drift` since a model of this manifest was learnt, and its anchor; () where either is not known.

    now: Unix seconds. Raises StoreError.
    """
    learnt_at, anchor_at = ((one or {}).get("trained") for one in (manifest, anchor))
    if not isinstance(learnt_at, int | float):
        return ()
    return flow_drift(store, float(learnt_at), float(anchor_at) if isinstance(anchor_at, int | float) else None, now)


def _week_before(store: Database, at: float) -> dict[str, Any]:
    """What a later week is compared with; the store keeps some of each week (its reservoir)."""
    return reference_of(vector_rows(FlowHourStore(store).read(SCHEMA, **_span(at))), SCHEMA)


def _span(until: float) -> dict[str, Any]:
    hour = int(until // HOUR_S)
    return {"since": hour - int(WEEK_S // HOUR_S), "until": hour, "limit": ROWS_MAX, "newest": True}
