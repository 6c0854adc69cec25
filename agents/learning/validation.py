"""Measures a candidate: known cases, golden names and traffic, real tunnels; and the gates that it must pass."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import lowered
from agents.core.errors import NameFormatError, SettingsError
from agents.core.types import CaseResult, Gate, Incident, QueryBatch, Severity, ValidationCase
from agents.detection import limits as policy
from agents.detection.limits import Scale
from agents.detection.runner import ReplayDetector, verdicts_of
from agents.dns.name import from_text_folded, wires_of
from agents.learning.baseline import golden_names, golden_sessions, golden_traffic
from agents.learning.comparison.bounds import USUAL_BOUNDS, GateBounds
from agents.learning.run import Distribution, Validation
from agents.scoring.features import extract
from agents.scoring.model import Model

HEX_LABEL = hashlib.sha256(b"dns-tunnel-detector").hexdigest()

CASES = (
    ValidationCase("www.google.com", Severity.NORMAL, "a common legitimate name"),
    ValidationCase("youtube.com", Severity.NORMAL, "a common legitimate name"),
    ValidationCase(f"{HEX_LABEL}.evil.com", Severity.HIGH, "64 hex characters, as exfiltrated data looks"),
    ValidationCase("aaaabbbbccccddddeeeeffffgggg.malware.net", Severity.HIGH, "a label unlike any word"),
)
"""Names of which every model must be right."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What validation found of a candidate."""

    cases_failed: int
    own_cases: int
    own_cases_failed: int
    benign_above_normal: float  # share of the golden names
    false_incidents: int  # in the golden traffic
    sessions: int
    sessions_found: int
    bytes_worst: float  # before detection, over the sessions found
    tunnel_share: float  # golden tunnel names above NORMAL by the query model alone
    anchor_tunnel_share: float  # the same by the frozen shipped model
    anchor_drift: float  # mean absolute difference to the shipped model's scores of golden names
    reviewed: int = 0  # names that people labelled
    reviewed_wrong: int = 0
    reviewed_wrong_before: int = 0  # by the model in use
    champion_above_normal: float | None = None  # as the candidate's; None: the model in use is not compared
    champion_tunnel_share: float = 0.0
    fixed_tunnel_share: float | None = None  # of the anchor, where it is another than the shipped model
    fixed_drift: float = 0.0


def gates_of(found: Measured, bounds: GateBounds = USUAL_BOUNDS) -> tuple[Gate, ...]:
    """Each condition with its number, threshold and margin."""
    sessions = f"{found.sessions_found} of {found.sessions} tunnel sessions"
    return (
        Gate("wrong validation cases", found.cases_failed, 0, False, f"{len(CASES)} names every model must know"),
        Gate("wrong own cases", found.own_cases_failed, 0, False, f"{found.own_cases} cases of VALIDATION_CASES"),
        Gate(
            "wrong reviewed names",
            found.reviewed_wrong,
            found.reviewed_wrong_before,
            False,
            f"{found.reviewed} names that people labelled; the model in use has so many wrong as the threshold says",
        ),
        Gate(
            "golden names above NORMAL",
            found.benign_above_normal,
            bounds.golden_above_normal,
            False,
            "share of benign names that the model never learned from",
        ),
        Gate(
            "false incidents",
            found.false_incidents,
            bounds.false_incidents,
            False,
            "on a day of golden traffic with look-alikes",
        ),
        Gate(
            "tunnel sessions found",
            found.sessions_found / max(found.sessions, 1),
            bounds.sessions_found,
            True,
            sessions,
        ),
        Gate("bytes before detection, worst", found.bytes_worst, bounds.bytes_before, False, sessions),
        Gate(
            "tunnel names above NORMAL",
            found.tunnel_share,
            max(found.anchor_tunnel_share - bounds.tunnel_drop, 0.0),
            True,
            f"by the name alone; the shipped model has {found.anchor_tunnel_share:.3f}",
        ),
        Gate(
            "drift from the shipped model", found.anchor_drift, bounds.score_drift, False, "mean difference of scores"
        ),
        *_gates_against(found, bounds),
    )


def _gates_against(found: Measured, bounds: GateBounds) -> list[Gate]:
    """Candidate against the model in use, and against the anchor."""
    gates: list[Gate] = []
    if found.champion_above_normal is not None:
        most = found.champion_above_normal + bounds.false_alarm_rise
        gates += [
            Gate(
                "golden names above NORMAL, beside the model in use",
                found.benign_above_normal,
                most,
                False,
                f"the model in use has {found.champion_above_normal:.5f}",
            ),
            Gate(
                "tunnel names above NORMAL, beside the model in use",
                found.tunnel_share,
                max(found.champion_tunnel_share - bounds.tunnel_drop, 0.0),
                True,
                f"the model in use has {found.champion_tunnel_share:.3f}",
            ),
        ]
    if found.fixed_tunnel_share is not None:
        least = max(found.fixed_tunnel_share - bounds.tunnel_drop, 0.0)
        gates += [
            Gate(
                "tunnel names above NORMAL, beside the anchor",
                found.tunnel_share,
                least,
                True,
                f"the anchor has {found.fixed_tunnel_share:.3f}; `models anchor` moves it",
            ),
            Gate("drift from the anchor", found.fixed_drift, bounds.score_drift, False, "mean difference of scores"),
        ]
    return gates


def load_cases(path: Path) -> tuple[ValidationCase, ...]:
    """The user's own cases: a CSV with the columns qname, expected, purpose. Raises SettingsError naming the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return tuple(_cases(csv.DictReader(file), path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise SettingsError(f"cannot read VALIDATION_CASES {path}: {why}") from None


def _cases(rows: csv.DictReader[str], path: Path) -> Iterable[ValidationCase]:
    if rows.fieldnames is None or not {"qname", "expected"} <= set(rows.fieldnames):
        raise SettingsError(f"cannot read VALIDATION_CASES {path}: the header must name qname and expected")
    for row in rows:
        where = f"cannot read VALIDATION_CASES {path}, line {rows.line_num}"
        expected = (row["expected"] or "").strip().upper()
        if expected not in ("NORMAL", "HIGH"):
            raise SettingsError(f"{where}: expected is NORMAL or HIGH")
        qname = row["qname"].strip()
        try:
            if not from_text_folded(qname):
                raise SettingsError(f"{where}: there is no name")
        except NameFormatError as error:
            raise SettingsError(f"{where}: {error}") from None
        yield ValidationCase(qname, Severity[expected], (row.get("purpose") or "").strip())


BINS = 20


@dataclass(frozen=True)
class Validator:
    """Callable as a retraining wants it: (candidate, champion) to Validation. `anchor` is the shipped model.

    fixed: the version that the registry calls its anchor, if there is one; asked for at each validation.

    detector_of: a detector with a model that has seen nothing yet, such as production runs it: with the operator's
    known services, quiet time, caps and scores. reviewed: cases of people's labels, asked for at each validation. A
    candidate may have as many of them wrong as the champion: a label that no model can meet must not stop all of them.
    """

    anchor: Model
    detector_of: Callable[[Model], ReplayDetector]
    own_cases: tuple[ValidationCase, ...] = ()
    reviewed: Callable[[], tuple[ValidationCase, ...]] = tuple
    bounds: GateBounds = USUAL_BOUNDS
    fixed: Callable[[], Model | None] = lambda: None

    @cached_property
    def _usual(self) -> ReplayDetector:
        """For its scale and known services."""
        return self.detector_of(self.anchor)

    @property
    def _scale(self) -> Scale:
        return self._usual.scale

    def __call__(self, candidate: Model, champion: Model) -> Validation:
        known = self._results(CASES, candidate, champion)
        own = self._results(self.own_cases, candidate, champion, services=True)
        reviewed = self._results(self.reviewed(), candidate, champion, services=True)
        benign = wires_of(golden_names())
        new, old, anchor = (model.score(extract(benign), benign) for model in (candidate, champion, self.anchor))
        found = [self._first_incident(candidate, session) for session in golden_sessions().values()]
        seen = [incident for incident in found if incident is not None]
        measured = Measured(
            cases_failed=sum(not result.passed for result in known),
            own_cases=len(own),
            own_cases_failed=sum(not result.passed for result in own),
            benign_above_normal=float((self._votes(new, benign) >= self._scale.suspicious).mean()),
            false_incidents=len(self._incidents(candidate, golden_traffic())),
            sessions=len(found),
            sessions_found=len(seen),
            bytes_worst=max((incident.bytes_before_detection for incident in seen), default=0.0),
            tunnel_share=self._tunnel_share(candidate),
            anchor_tunnel_share=self._tunnel_share(self.anchor),
            anchor_drift=float(np.abs(new - anchor).mean()),
            reviewed=len(reviewed),
            reviewed_wrong=sum(not result.passed for result in reviewed),
            reviewed_wrong_before=sum(not self._was_right(one) for one in reviewed),
            **self._against(candidate, champion, new, old, benign),
        )
        return Validation(
            gates=gates_of(measured, self.bounds),
            cases=(*known, *own, *(one for one in reviewed if not one.passed and self._was_right(one))),
            blind_spots=blind_spots(seen, candidate.limit_factor),
            old=self._distribution(old),
            new=self._distribution(new),
        )

    def _against(
        self,
        candidate: Model,
        champion: Model,
        new: NDArray[np.float32],
        old: NDArray[np.float32],
        benign: Sequence[bytes],
    ) -> dict[str, float]:
        """The values of Measured about model in use and anchor. new, old: scores of the benign names."""
        found: dict[str, float] = {}
        if champion.model_id != candidate.model_id:
            above = float((self._votes(old, benign) >= self._scale.suspicious).mean())
            found |= {"champion_above_normal": above, "champion_tunnel_share": self._tunnel_share(champion)}
        fixed = self.fixed()
        if fixed is not None and fixed.model_id not in (candidate.model_id, self.anchor.model_id):
            drift = float(np.abs(new - fixed.score(extract(benign), benign)).mean())
            found |= {"fixed_tunnel_share": self._tunnel_share(fixed), "fixed_drift": drift}
        return found

    def _results(
        self, cases: Sequence[ValidationCase], candidate: Model, champion: Model, services: bool = False
    ) -> list[CaseResult]:
        """services: as production judges a name; without, by the model alone, as every model must be right."""
        names = [from_text_folded(case.qname) for case in cases]
        if not names:
            return []
        features = extract(names)
        scores = [model.score(features, names) for model in (candidate, champion)]
        new, old = (self._votes(one, names).tolist() if services else one.tolist() for one in scores)
        return [self._result(case, *scores) for case, *scores in zip(cases, new, old, strict=True)]

    def _votes(self, scores: NDArray[np.float32], names: Sequence[bytes]) -> NDArray[np.float32]:
        """A model's scores of n lower-case names, with the known services considered, as a detector does."""
        return self._scale.votes(scores, self._usual.services.factors(lowered(names)))

    def _result(self, case: ValidationCase, score: float, champion_score: float) -> CaseResult:
        return CaseResult(case, score, self._scale.severity(score), self._is_right(case, score), champion_score)

    def _was_right(self, one: CaseResult) -> bool:
        """Whether the champion was."""
        return self._is_right(one.case, one.champion_score or 0.0)

    def _is_right(self, case: ValidationCase, score: float) -> bool:
        severity = self._scale.severity(score)
        return severity == Severity.NORMAL if case.expected == Severity.NORMAL else severity >= case.expected

    def _incidents(self, model: Model, traffic: QueryBatch) -> list[Incident]:
        found = {
            incident.incident_id: incident
            for verdicts in verdicts_of(self.detector_of(model), [traffic])
            for incident in verdicts.incidents
        }
        return [incident for incident in found.values() if incident.severity >= Severity.HIGH]

    def _first_incident(self, model: Model, session: QueryBatch) -> Incident | None:
        return min(self._incidents(model, session), key=lambda incident: incident.detected_at, default=None)

    def _tunnel_share(self, model: Model) -> float:
        names = [qname.lower() for session in golden_sessions().values() for qname in session.qname]
        return float((model.score(extract(names), names) >= self._scale.suspicious).mean())

    def _distribution(self, scores: NDArray[np.float32]) -> Distribution:
        counts, _ = np.histogram(scores, bins=BINS, range=(0.0, 1.0))
        severities = [self._scale.severity(score) for score in scores.tolist()]
        return Distribution(
            histogram=tuple(int(count) for count in counts),
            severities=tuple((level.name, severities.count(level)) for level in Severity),
        )


def blind_spots(found: Sequence[Incident], factor: float) -> tuple[str, ...]:
    """What stays unseen with the limits at this factor, in words, for the report."""
    encoded, words, spread, choice, answers = (
        {seconds: limit * factor for seconds, limit in limits.items()}
        for limits in (
            policy.ENCODED_BYTES,
            policy.INFORMATION_BYTES,
            policy.SPREAD_BYTES,
            policy.CHOICE_BYTES,
            policy.ANSWER_BYTES,
        )
    )
    worst = max((incident.bytes_before_detection for incident in found), default=0.0)
    return (
        f"Encoded data below {encoded[86_400]:.0f} bytes a day and {encoded[604_800]:.0f} bytes a week, per client and "
        "domain: the limits of the long windows.",
        f"Data spelled in words below {words[3600]:.0f} bytes an hour and {words[86_400]:.0f} bytes a day.",
        f"Data split over domains while each client stays below {spread[3600]:.0f} bytes an hour in all.",
        f"The first bytes of a fast tunnel: at worst {worst:.0f} bytes left in the golden sessions before detection.",
        f"Data in the choice of record types and in the order of known names below {choice[3600]:.0f} bytes an hour "
        f"and {choice[86_400]:.0f} a day, or in the types alone among seven of them.",
        f"Data that comes in below {answers[86_400]:.0f} bytes a day and domain, beside its largest answer.",
        "Data hidden in the time between queries.",
    )
