"""Flow-hours of the golden sessions and the golden traffic: what the online learner knows before anybody labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agents.core.types import QueryBatch
from agents.detection.detector import TunnelDetector
from agents.detection.incidents import domain_hash
from agents.detection.limits import Scale, limits_of
from agents.detection.network import HOUR_S
from agents.learning.baseline import golden_sessions, golden_traffic, model_bytes
from agents.learning.loop.flow_hours import CounterReading, copied_flows, flow_hours, reading_of_counters
from agents.scoring.model import Model

CUTS = (10, 20, 50)
"""A golden session gives flow-hours after so many queries, too: most tunnels are slower than those."""
FLOWS_MAX, QUIET_S = 200_000, 3600.0
NOTHING: tuple[NDArray[np.uint64], NDArray[np.float64]] = np.empty(0, np.uint64), np.empty((0, 0))


def hours_of(traffic: QueryBatch, model: Model, cuts: Sequence[int] = ()) -> Iterator[NDArray[np.float32]]:
    """The numbers of all flow-hours of one stretch of traffic, and of what there is after `cuts` queries."""
    detector, hours = TunnelDetector(model, FLOWS_MAX, QUIET_S, Scale()), traffic.ts // HOUR_S
    ends = {*(np.flatnonzero(np.diff(hours)) + 1).tolist(), len(traffic)}
    before, domains, begin = CounterReading(int(hours[0]), *NOTHING), dict[int, str](), 0
    for end in sorted({*ends, *(cut for cut in cuts if cut < len(traffic))}):
        hour = int(hours[begin])
        for domain in set(detector.detect(traffic.part(begin, end)).domain):
            domains[domain_hash(domain, detector.flows)] = domain
        copy, factor = copied_flows(detector.flows, hour * float(HOUR_S)), model.limit_factor
        yield flow_hours(copy, before, hour, limits_of(factor), factor, domains, np.random.default_rng(0)).numbers
        before, begin = reading_of_counters(copy, hour + 1) if end in ends else before, end


@lru_cache(maxsize=1)
def golden_flow_hours() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Numbers of n golden flow-hours, and which of them are a tunnel's. Shapes (n, 26) and (n,)."""
    model = Model.from_bytes(model_bytes())
    tunnels = [rows for session in golden_sessions().values() for rows in hours_of(session, model, CUTS)]
    benign = list(hours_of(golden_traffic(), model))
    counts = [sum(map(len, some)) for some in (tunnels, benign)]
    return np.concatenate([*tunnels, *benign]), np.repeat([True, False], counts)
