"""What a model of images says of an hour that is over: rarity of each image, and what is to be listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agents.core.text import NETWORK
from agents.core.types import HOUR_S
from agents.detection.detector import Suspect
from agents.detection.reasons import IMAGE_REASON
from agents.learning.images.image_model import ImageModel
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.flow_images import SLICES, image_rows
from agents.scoring.types.base import DECADES_MAX
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from agents.store.sql import Database

LISTED_FROM = 5.0
"""Rarity from which a flow is listed: one ordinary image in a hundred thousand."""


@dataclass(frozen=True, slots=True)
class ImageHour:
    """The images of an hour. rarity: by the id of the flow-hour; keys: client and domain of each."""

    rarity: dict[int, float] = field(default_factory=dict)
    keys: dict[int, tuple[str, str]] = field(default_factory=dict)

    def of_rows(self, rows: FlowHours) -> NDArray[np.float64]:
        """The rarity of n flow-hours, (n,); 0 where there is no image."""
        return np.array([self.rarity.get(one, 0.0) for one in rows.id.tolist()])

    def by_key(self) -> dict[tuple[str, str], float]:
        """Rarity by client and domain."""
        return {self.keys[one]: rarity for one, rarity in self.rarity.items()}

    def suspects(self, hour: int, now: float, mine: Callable[[str], bool] = lambda client: True) -> list[Suspect]:
        """What is to be listed, the strangest first. hour: since 1970-01-01; now: Unix seconds."""
        order = sorted(
            (one for one in self.rarity if self.rarity[one] >= LISTED_FROM), key=lambda one: -self.rarity[one]
        )
        at = min((hour + 1) * float(HOUR_S), now)
        return [
            (at, *self.keys[one], self.rarity[one] / DECADES_MAX, _why(self.rarity[one]))
            for one in order
            if self.keys[one][0] != NETWORK and mine(self.keys[one][0])
        ]


def _why(rarity: float) -> str:
    return f"{IMAGE_REASON}: one ordinary image in {10**rarity:,.0f} is as strange"


def with_history(rows: FlowHours, hours: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of these hours whose client asked below the same domain in one of the hours before that an image shows."""
    known = set(zip(rows.client, rows.domain, rows.hour.tolist(), strict=True))
    return np.array(
        [
            row
            for row in np.flatnonzero(np.isin(rows.hour, hours)).tolist()
            if any(
                (rows.client[row], rows.domain[row], int(rows.hour[row]) - back) in known for back in range(1, SLICES)
            )
        ],
        np.int64,
    )


def images_of_hour(store: Database, model: ImageModel | None, hour: int) -> ImageHour:
    """The images of the flow-hours of an hour that have a history, as the model finds them. Raises StoreError."""
    if model is None:
        return ImageHour()
    rows = FlowHourStore(store).read(SCHEMA, since=hour - SLICES + 1, until=hour + 1)
    chosen = with_history(rows, np.array([hour]))
    rarity = model.rarity(image_rows(rows, chosen=chosen)) if len(chosen) else np.empty(0)
    ids = [int(rows.id[row]) for row in chosen.tolist()]
    keys = [(rows.client[row], rows.domain[row]) for row in chosen.tolist()]
    return ImageHour(dict(zip(ids, rarity.tolist(), strict=True)), dict(zip(ids, keys, strict=True)))
