"""Measures a candidate: the known cases, the golden names, the golden traffic and real tunnel sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents import policy
from agents.detection import TunnelDetector
from agents.features import extract
from agents.gates import CASES, Measured, gates_of
from agents.model import Model
from agents.names import from_text_folded
from agents.policy import Scale
from agents.presentation import wires_of
from agents.runs import Distribution, Validation
from agents.shipped import golden_names, golden_sessions, golden_traffic
from agents.types import CaseResult, Incident, QueryBatch, Severity, ValidationCase

BINS = 20
KEYS_MAX = 200_000
QUIET_S = 3600.0


def fresh_detector(model: Model, scale: Scale, keys_max: int = KEYS_MAX, quiet_s: float = QUIET_S) -> TunnelDetector:
    """A detector that has seen nothing yet."""
    return TunnelDetector(model, keys_max, quiet_s, scale)


@dataclass(frozen=True)
class Validator:
    """Callable as the cold flow wants it: (candidate, champion) to Validation. `anchor` is the shipped model."""

    anchor: Model
    scale: Scale
    own_cases: tuple[ValidationCase, ...] = ()

    def __call__(self, candidate: Model, champion: Model) -> Validation:
        known = self._results(CASES, candidate, champion)
        own = self._results(self.own_cases, candidate, champion)
        benign = wires_of(golden_names())
        new, old, anchor = (model.score(extract(benign), benign) for model in (candidate, champion, self.anchor))
        found = [self._first_incident(candidate, session) for session in golden_sessions().values()]
        seen = [incident for incident in found if incident is not None]
        measured = Measured(
            cases_failed=sum(not result.passed for result in known),
            own_cases=len(own),
            own_cases_failed=sum(not result.passed for result in own),
            benign_above_normal=float((new >= self.scale.suspicious).mean()),
            false_incidents=len(self._incidents(candidate, golden_traffic())),
            sessions=len(found),
            sessions_found=len(seen),
            bytes_worst=max((incident.bytes_before_detection for incident in seen), default=0.0),
            tunnel_share=self._tunnel_share(candidate),
            anchor_tunnel_share=self._tunnel_share(self.anchor),
            anchor_drift=float(np.abs(new - anchor).mean()),
        )
        return Validation(
            gates=gates_of(measured),
            cases=(*known, *own),
            blind_spots=blind_spots(seen, candidate.limit_factor),
            old=self._distribution(old),
            new=self._distribution(new),
        )

    def _results(self, cases: Sequence[ValidationCase], candidate: Model, champion: Model) -> list[CaseResult]:
        names = [from_text_folded(case.qname) for case in cases]
        if not names:
            return []
        features = extract(names)
        new, old = candidate.score(features, names).tolist(), champion.score(features, names).tolist()
        return [self._result(case, *scores) for case, *scores in zip(cases, new, old, strict=True)]

    def _result(self, case: ValidationCase, score: float, champion_score: float) -> CaseResult:
        severity = self.scale.severity(score)
        passed = severity == Severity.NORMAL if case.expected == Severity.NORMAL else severity >= case.expected
        return CaseResult(case, score, severity, passed, champion_score)

    def _incidents(self, model: Model, traffic: QueryBatch) -> list[Incident]:
        detector = fresh_detector(model, self.scale)
        verdicts = (detector.detect(traffic), detector.flush())
        found = {incident.incident_id: incident for part in verdicts if part for incident in part.incidents}
        return list(found.values())

    def _first_incident(self, model: Model, session: QueryBatch) -> Incident | None:
        return min(self._incidents(model, session), key=lambda incident: incident.detected_at, default=None)

    def _tunnel_share(self, model: Model) -> float:
        names = [qname.lower() for session in golden_sessions().values() for qname in session.qname]
        return float((model.score(extract(names), names) >= self.scale.suspicious).mean())

    def _distribution(self, scores: NDArray[np.float32]) -> Distribution:
        counts, _ = np.histogram(scores, bins=BINS, range=(0.0, 1.0))
        severities = [self.scale.severity(score) for score in scores.tolist()]
        return Distribution(
            histogram=tuple(int(count) for count in counts),
            severities=tuple((level.name, severities.count(level)) for level in Severity),
        )


def blind_spots(found: Sequence[Incident], factor: float) -> tuple[str, ...]:
    """What stays unseen with the limits at this factor, in words, for the report."""
    encoded, words, spread = (
        {seconds: limit * factor for seconds, limit in limits.items()}
        for limits in (policy.ENCODED_BYTES, policy.INFORMATION_BYTES, policy.SPREAD_BYTES)
    )
    worst = max((incident.bytes_before_detection for incident in found), default=0.0)
    return (
        f"Encoded data below {encoded[86_400]:.0f} bytes a day and {encoded[604_800]:.0f} bytes a week, per client and "
        "domain: the limits of the long windows.",
        f"Data spelled in words below {words[3600]:.0f} bytes an hour and {words[86_400]:.0f} bytes a day.",
        f"Data split over domains while each client stays below {spread[3600]:.0f} bytes an hour in all.",
        f"The first bytes of a fast tunnel: at worst {worst:.0f} bytes left in the golden sessions before detection.",
        f"Data in the choice of record types below {policy.CHOICE_BYTES[3600] * factor:.0f} bytes an hour, or among "
        "seven of them.",
        "Data hidden in the time between queries, in the order of names asked for before, or in answers alone.",
    )
