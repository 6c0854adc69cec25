"""The gates of a model of images: golden tunnels that are strange to it, and what it lists beside the one in use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.core.text import NETWORK
from agents.core.types import DAY_S, HOUR_S, Gate
from agents.learning.comparison.bounds import GateBounds
from agents.learning.comparison.flow_listing import certain_tunnels
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
from agents.learning.images.image_judge import LISTED_FROM, with_history
from agents.learning.images.image_model import ImageModel
from agents.learning.loop.flow_images import SLICES, image_rows
from agents.learning.loop.golden import golden_flow_hours
from agents.learning.loop.review import RARE_FROM
from agents.store.feedback.flow_hours import FlowHours
from agents.store.sql import IncidentDatabase

GOLDEN_LEAST = 0.5
"""Share of golden tunnels that must be strange, whatever else there is. On captures the type that finds least finds
0.59 of the tool that it finds least of (docs/learning.md): a model with less has learnt tunnels, or nothing."""


def golden_gates(
    made: ImageModel, in_use: ImageModel | None, anchor: ImageModel | None, bounds: GateBounds
) -> list[Gate]:
    """How many golden tunnels a candidate must find strange, also beside others; None: there is none."""
    found = golden_share(made)
    gates = [Gate("golden tunnels that are strange", found, GOLDEN_LEAST, True, "whatever is in use")]
    for what, other in (("the model in use", in_use), ("the anchor", anchor)):
        if other is not None:
            share = golden_share(other)
            least, detail = max(share - bounds.tunnel_drop, 0.0), f"{what} has {share:.3f}"
            gates.append(Gate(f"golden tunnels that are strange, beside {what}", found, least, True, detail))
    return gates


def golden_share(model: ImageModel) -> float:
    """The share of golden tunnels' flow-hours that are strange as an image of nothing else."""
    numbers, tunnel = golden_flow_hours()
    slices = np.log1p(np.maximum(numbers[tunnel], 0)).astype(np.float32)
    return float((model.rarity(np.tile(slices, (1, SLICES))) >= RARE_FROM).mean())


def listed_images(store: IncidentDatabase, old: ImageModel, new: ImageModel, rows: FlowHours) -> ListedDiff:
    """What two models would list of the last days of flow-hours. Raises StoreError."""
    last = int(rows.hour.max(initial=0))
    chosen = with_history(rows, np.arange(last + 1 - int(COMPARED_DAYS * DAY_S / HOUR_S), last + 1))
    if not len(chosen):
        return ListedDiff()
    first = int(rows.hour[chosen].min())
    images, over = image_rows(rows, chosen=chosen), passed_over(store, first * float(HOUR_S))
    rarities = old.rarity(images), new.rarity(images)
    named = {rows.domain[row]: rows.names[row] for row in chosen.tolist()}

    def domains(rarity: NDArray[np.float64], least: float) -> set[str]:
        return {rows.domain[row] for row in chosen[rarity >= least].tolist()}

    sides = ListedSides(
        old=_listings(rows, chosen, rarities[0], over),
        new=_listings(rows, chosen, rarities[1], over),
        taken=(domains(rarities[0], RARE_FROM), domains(rarities[1], RARE_FROM)),
        alarming=(domains(rarities[0], LISTED_FROM), domains(rarities[1], LISTED_FROM)),
        tunnels=certain_tunnels(store, rows, over),
        over=over,
        names=lambda domain: named.get(domain, ()),
    )
    days = compared_days_of(first * float(HOUR_S), (last + 1) * float(HOUR_S))
    return listed_diff(sides, len(chosen), "images of flows", days)


def _listings(rows: FlowHours, chosen: NDArray[np.int64], rarity: NDArray[np.float64], over: PassedOver) -> Listings:
    """As hours are judged one after another, the strangest flow below a domain first."""
    strange = np.flatnonzero(rarity >= LISTED_FROM)
    order = chosen[strange[np.lexsort((-rarity[strange], rows.hour[chosen[strange]]))]].tolist()
    found = (((int(rows.hour[row]) + 1) * float(HOUR_S), rows.client[row], rows.domain[row]) for row in order)
    return once_a_day((one for one in found if one[1] != NETWORK), over)
