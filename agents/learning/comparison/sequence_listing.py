"""The gates that compare sequence models: with the one in use on stored queries, with the anchor on golden sessions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from agents.core.types import DAY_S, Gate, Verdicts
from agents.detection.runner import ReplayDetector, verdicts_of
from agents.dns.name import to_text
from agents.learning.baseline import golden_sessions
from agents.learning.comparison.bounds import GateBounds
from agents.learning.comparison.drift import largest_drift_gate
from agents.learning.comparison.listed_diff import (
    COMPARED_DAYS,
    LISTED_NAMES,
    ListedDiff,
    ListedSides,
    compared_days_of,
    listed_diff,
    listed_gates,
    once_a_day,
    passed_over,
)
from agents.learning.comparison.step_drift import step_drift
from agents.learning.loop.golden import golden_detector
from agents.learning.loop.labels import rule_of
from agents.learning.loop.suspects import READ_MAX
from agents.learning.sequences.bounds import USUAL_SEQUENCES, SequenceBounds
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.learning import SequenceComparison
from agents.learning.sequences.steps import StepRows, Windows, step_rows_of, step_windows
from agents.learning.sequences.watch import SequenceWatch
from agents.store.feedback.labels import Label
from agents.store.sql import IncidentDatabase
from agents.store.stored_traffic import stored_traffic


class _Side:
    """What one model would list, as its watch reports it."""

    def __init__(self, model: SequenceModel, listed: SequenceBounds) -> None:
        self._model, self._watch = model, SequenceWatch(lambda: None, lambda found: None, listed)
        self.found: list[tuple[float, str, str]] = []

    def hear(self, verdicts: Verdicts) -> None:
        """Look at a batch."""
        self.found += [(at, client, domain) for at, client, domain, _, _ in self._watch.judge(self._model, verdicts)]

    @property
    def domains(self) -> set[str]:
        return {domain for _, _, domain in self.found}


@dataclass(frozen=True, slots=True)
class SequenceListing:
    """Compares sequence models. detector_of: one that has seen nothing yet, with production's settings. listed: which
    windows are."""

    store: IncidentDatabase
    detector_of: Callable[[], ReplayDetector]
    bounds: GateBounds
    listed: SequenceBounds = USUAL_SEQUENCES

    def diff(self, old: SequenceModel, new: SequenceModel, now: float, most: int) -> ListedDiff:
        """What both would have listed of at most so many stored queries of the days before now (Unix seconds), of whole
        clients. Raises StoreError."""
        since = now - COMPARED_DAYS * DAY_S
        if not most:
            return ListedDiff()
        traffic, detector = stored_traffic(self.store, since, now, most), self.detector_of()
        sides, names, times = (_Side(old, self.listed), _Side(new, self.listed)), dict[str, list[str]](), list[float]()
        rows = 0
        for verdicts in verdicts_of(detector, traffic.batches(), explain=False, flush=False):
            rows, ts = rows + len(verdicts), verdicts.queries.ts
            times += [float(ts.min()), float(ts.max())]
            for side in sides:
                side.hear(verdicts)
            _note(names, verdicts)
        if not rows:
            return ListedDiff()
        over = passed_over(self.store, since)
        listings = [once_a_day(sorted(side.found), over) for side in sides]
        incidents = self.store.incidents(since=since, source="", limit=READ_MAX)
        tunnels = {one.domain for one in incidents if rule_of(one, detector.scale) is not None}
        tunnels -= {domain for domain, label in over.labels.items() if label is not Label.TUNNEL}
        taken = sides[0].domains, sides[1].domains
        return listed_diff(
            ListedSides(
                old=listings[0],
                new=listings[1],
                taken=taken,
                alarming=taken,
                tunnels=tunnels | {domain for domain, label in over.labels.items() if label is Label.TUNNEL},
                over=over,
                names=lambda domain: names.get(domain, ()),
                stands_for=traffic.stands_for,
            ),
            rows,
            "queries",
            compared_days_of(min(times), max(times)),
        )

    def __call__(
        self,
        new: SequenceModel,
        windows: Windows,
        in_use: SequenceModel | None,
        anchor: SequenceModel | None,
        now: float,
    ) -> SequenceComparison:
        """A candidate beside the model in use and the anchor; None: there is none. windows: what it learned from.

        Raises StoreError.
        """
        listed = ListedDiff() if in_use is None else self.diff(in_use, new, now, self.bounds.replayed_max)
        gates = listed_gates(listed, self.bounds)
        if anchor is not None:
            gates = (*gates, odd_sessions_gate(new, anchor, self.bounds))
        moved = step_drift(windows, in_use, anchor)
        return SequenceComparison(listed, (*gates, *largest_drift_gate(moved, self.bounds)), moved)


def _note(names: dict[str, list[str]], verdicts: Verdicts) -> None:
    """The first names below each domain."""
    for row, domain in enumerate(verdicts.domain):
        known = names.setdefault(domain, [])
        if len(known) < LISTED_NAMES and (name := to_text(verdicts.queries.qname[row])) not in known:
            known.append(name)


def odd_sessions_gate(new: SequenceModel, anchor: SequenceModel, bounds: GateBounds) -> Gate:
    """How far a candidate may fall from the anchor on the golden sessions."""
    found, fixed = odd_sessions(new), odd_sessions(anchor)
    return Gate(
        "golden sessions that are odd, beside the anchor",
        found,
        max(fixed - bounds.tunnel_drop, 0.0),
        True,
        f"share of {len(golden_steps())} sessions; the anchor has {fixed:.3f}",
    )


def odd_sessions(model: SequenceModel) -> float:
    """The share of the golden tunnel sessions with a window that is odd to a model."""
    odd = []
    for steps in golden_steps():
        windows = step_windows(steps, model.length)
        odd.append(len(windows) > 0 and bool((model.surprise(windows) >= model.odd_from).any()))
    return float(np.mean(odd))


@lru_cache(maxsize=1)
def golden_steps() -> tuple[StepRows, ...]:
    """What each golden tunnel session asks, as steps."""
    sessions = golden_sessions().values()
    return tuple(step_rows_of(golden_detector().detect(one, explain=False), {}, (0, 0)) for one in sessions)
