"""Images of flows: what one client did below one domain in its last hours, slice of time by number.

Detectors for images look for a strange place, or a strange whole, among ordinary ones; here a place is an hour.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.store.feedback.flow_hours import FlowHours

SLICES = 7
"""Hours of an image: about a working day, and one that began just now shows empty hours before. A forest names a column
in one byte (scoring.types.forest), so an image has at most 256 of them."""


def vector_rows(rows: FlowHours) -> NDArray[np.float32]:
    """The numbers of n flow-hours on a logarithmic scale, log(1 + x), shape (n, numbers): most of them span decades."""
    return np.log1p(np.maximum(rows.numbers, 0)).astype(np.float32)


def image_rows(rows: FlowHours, slices: int = SLICES, chosen: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """An image for each of n chosen flow-hours, or of all: shape (n, slices * numbers), its own slice last.

    Slices are the same client's below the same domain, an hour each; an hour without a flow-hour is zeros.
    """
    numbers = vector_rows(rows)
    wanted = np.arange(len(numbers)) if chosen is None else chosen
    count, width = len(wanted), numbers.shape[1]
    images = np.zeros((count, slices, width), np.float32)
    keys = list(zip(rows.client, rows.domain, rows.hour.tolist(), strict=True))
    at = {key: row for row, key in enumerate(keys)}
    for row, (client, domain, hour) in enumerate(keys[one] for one in wanted.tolist()):
        for back in range(slices):
            found = at.get((client, domain, hour - back))
            if found is not None:
                images[row, slices - 1 - back] = numbers[found]
    return images.reshape(count, slices * width)
