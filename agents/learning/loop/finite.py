"""Flow-hours of finite traffic: of sessions and captures what a collector keeps of live queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from agents.core.types import HOUR_S, QueryBatch
from agents.detection.incidents import domain_hash
from agents.detection.limits import limits_of
from agents.detection.runner import FlowDetector, verdicts_of
from agents.learning.loop.flow_hours import copied_flows, flow_hours, reading_of_counters
from agents.store.feedback.flow_hours import FlowHours


def hours_of(detector: FlowDetector, batches: Iterable[QueryBatch], cuts: Sequence[int] = ()) -> Iterator[FlowHours]:
    """The flow-hours of each hour of traffic in time order, the last hour's among them.

    detector: one that has seen nothing. cuts: also what there is of an hour after so many queries in all.
    """
    before, draw = reading_of_counters(copied_flows(detector.flows, 0.0), 0), np.random.default_rng(0)
    domains: dict[int, str] = {}
    pieces = _pieces(batches, cuts)
    piece = next(pieces, None)
    while piece is not None:
        hour, is_cut, part = piece
        piece = next(pieces, None)
        for verdicts in verdicts_of(detector, [part], explain=False, flush=False):
            domains |= {domain_hash(domain, detector.flows): domain for domain in set(verdicts.domain)}
        is_over = piece is None or piece[0] != hour
        if is_over or is_cut:
            copy, factor = copied_flows(detector.flows, hour * float(HOUR_S)), detector.model.limit_factor
            yield flow_hours(copy, before, hour, limits_of(factor), factor, domains, draw)
            before = reading_of_counters(copy, hour + 1) if is_over else before


def _pieces(batches: Iterable[QueryBatch], cuts: Sequence[int]) -> Iterator[tuple[int, bool, QueryBatch]]:
    """Traffic in pieces of one hour and batch each: the hour, whether a cut follows, and the queries."""
    seen = 0
    for batch in batches:
        hours = (batch.ts // HOUR_S).astype(np.int64)
        turns, inside = np.flatnonzero(np.diff(hours)) + 1, {cut - seen for cut in cuts if 0 < cut - seen < len(batch)}
        for begin, end in pairwise(sorted({0, *turns.tolist(), *inside, len(batch)})):
            yield int(hours[begin]), end in inside, batch.part(begin, end)
        seen += len(batch)
