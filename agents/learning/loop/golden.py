"""Flow-hours of the golden sessions and the golden traffic: what the online learner knows before anybody labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agents.core.types import QueryBatch
from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.learning.baseline import golden_sessions, golden_traffic, model_bytes
from agents.learning.loop.finite import hours_of
from agents.scoring.model import Model

CUTS = (10, 20, 50)
"""A golden session gives flow-hours after so many queries, too: most tunnels are slower than those."""
FLOWS_MAX, QUIET_S = 200_000, 3600.0


@lru_cache(maxsize=1)
def golden_flow_hours() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Numbers of n golden flow-hours, and which of them are a tunnel's. Shapes (n, 26) and (n,)."""
    model = Model.from_bytes(model_bytes())

    def numbers(traffic: QueryBatch, cuts: Sequence[int] = ()) -> list[NDArray[np.float32]]:
        detector = TunnelDetector(model, FLOWS_MAX, QUIET_S, Scale())
        return [rows.numbers for rows in hours_of(detector, [traffic], cuts)]

    tunnels = [rows for session in golden_sessions().values() for rows in numbers(session, CUTS)]
    benign = numbers(golden_traffic())
    counts = [sum(map(len, some)) for some in (tunnels, benign)]
    return np.concatenate([*tunnels, *benign]), np.repeat([True, False], counts)
