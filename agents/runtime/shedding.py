"""What is left out under load, in a fixed order: first explanations, then the storing of NORMAL verdicts.

What comes third, records that find no room, is the ring's own doing; answering clients is never given up.
"""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.types import QueryBatch, Severity, Verdicts

EVERYTHING, NO_EXPLANATION, SAMPLED = range(3)
"""Levels: all is kept; reasons outside incidents are left out; and only some NORMAL verdicts are stored."""
STEPS = (0.25, 0.5)
"""Fill of the fullest ring from which level 1 and level 2 hold; each is left at half of it."""
KEPT_ONE_IN = 16
"""One in so many NORMAL verdicts of a batch is stored at level 2: retraining learns from them."""


def level_at(fill: float, before: int) -> int:
    """The level at a fill (0..1) of the fullest ring, with the level before it: no flicker around a step."""
    level = sum(fill >= step for step in STEPS)
    while before > level and fill < STEPS[before - 1] / 2:
        before -= 1
    return max(level, before)


def unexplained(verdicts: Verdicts) -> int:
    """How many that are not NORMAL say no reason."""
    return int(np.count_nonzero(verdicts.severity)) - sum(map(bool, verdicts.reasons))


def sampled(verdicts: Verdicts) -> Verdicts:
    """The verdicts with one in KEPT_ONE_IN of the NORMAL ones and all others; the same of the same batch each time."""
    normal = verdicts.severity == Severity.NORMAL
    keep = ~normal | ((np.cumsum(normal) - 1) % KEPT_ONE_IN == 0)
    queries = QueryBatch(**{one.name: _kept(getattr(verdicts.queries, one.name), keep) for one in fields(QueryBatch)})
    columns = {name: _kept(getattr(verdicts, name), keep) for name in ("domain", "features", "score", "severity")}
    return replace(verdicts, queries=queries, reasons=_kept(verdicts.reasons, keep), **columns)


def _kept(column: Any, keep: NDArray[np.bool_]) -> Any:
    return column[keep] if isinstance(column, np.ndarray) else tuple(compress(column, keep.tolist()))
