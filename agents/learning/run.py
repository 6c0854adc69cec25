"""The nouns of a retraining, frozen: options, findings and outcome of it, and of a cycle that learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np

from agents.core.types import CaseResult, ChannelResult, Gate, Severity

REPORT_PREFIX = "training_report_"
"""Of file names of reports; the id of the run follows."""


class RunState(StrEnum):
    """How a retraining ended, or, in a report and message made before the end, how it is about to end."""

    DEPLOYED = "DEPLOYED"
    REJECTED = "REJECTED"
    WAITING = "WAITING"
    CANARY = "CANARY"
    """It judges some clients beside the model in use; rules promote it or turn it down."""
    FAILED = "FAILED"
    RUNNING = "RUNNING"
    """It is under way. A record that still says so while nobody holds the registry's lock was broken off."""
    UNCHANGED = "UNCHANGED"
    """There was nothing new to learn: no candidate was trained."""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What a trainer gets beside the sample; all of it goes into the manifest."""

    seed: int
    since: float  # Unix seconds
    until: float
    parent: str  # model id of the champion
    live: int  # queries of the sample that came from the store
    topped_up: int  # queries of the sample that came from the shipped baseline
    data_sha256: str = ""  # lineage.sample_digest of the sample
    profile: Mapping[str, Any] = field(default_factory=dict)  # NetworkProfile.summary; {} = none was made


@dataclass(frozen=True, slots=True)
class Distribution:
    """How one model scores the benign part of the validation set."""

    histogram: tuple[int, ...]  # counts over equal bins of 0..1
    severities: tuple[tuple[str, int], ...]  # (Severity name, count), NORMAL first


@dataclass(frozen=True, slots=True)
class Validation:
    """What the gates say of a candidate, and what stands behind them."""

    gates: tuple[Gate, ...]
    cases: tuple[CaseResult, ...]
    blind_spots: tuple[str, ...]  # what the run would not see
    old: Distribution
    new: Distribution

    @property
    def passed(self) -> bool:
        """True if there is a gate, and every gate and every case passed."""
        return bool(self.gates) and all(gate.passed for gate in self.gates) and not self.failed

    @property
    def failed(self) -> tuple[CaseResult, ...]:
        """The cases that the candidate got wrong."""
        return tuple(case for case in self.cases if not case.passed)


@dataclass(frozen=True, slots=True)
class TypeResult:
    """What one type found in one scene. Shares are 0..1; problem: why there are none, in one line."""

    scene: str
    type: str
    false_alarms: float = 0.0  # share of benign rows above the threshold
    found: float = 0.0  # share of tunnel rows above it; the mean over tools
    by_tool: Mapping[str, float] = field(default_factory=dict)
    fit_s: float = 0.0
    score_us: float = 0.0  # a row, 1,000 at once
    problem: str = ""

    @property
    def missed(self) -> float:
        """The false-negative rate."""
        return 1.0 - self.found

    @property
    def accuracy(self) -> float:
        """Balanced: half of it benign rows, half of it tunnels."""
        return (self.found + 1.0 - self.false_alarms) / 2


@dataclass(frozen=True, slots=True)
class AlertChange:
    """What changes below one domain between the alerts of two models. old, new: the worst severity, "" = no alert."""

    domain: str
    clients: int  # whose alert changes
    added: int  # alerts that the candidate alone raises
    lost: int  # alerts that the model in use alone raises
    changed: int  # alerts of another severity
    old: str
    new: str
    names: tuple[str, ...]  # samples, presentation form
    certain: bool = False  # what is lost is a tunnel, by a rule or a person
    label: str = ""  # what people said of the domain


@dataclass(frozen=True, slots=True)
class AlertDiff:
    """The alerts of candidate and model in use on stored traffic. Counts are of clients and domains."""

    queries: int = 0  # judged by both; 0 = nothing was compared
    share: float = 1.0  # of the stored queries
    days: float = 0.0
    old_a_week: float = 0.0  # alerts to expect
    new_a_week: float = 0.0
    added: int = 0
    lost: int = 0
    changed: int = 0
    tunnels_lost: int = 0
    benign_added: int = 0
    changes: tuple[AlertChange, ...] = ()


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """One change between two network profiles.

    what: looser, tighter, fleet, known, forgotten, elsewhere, proposal, kind.
    """

    what: str
    domain: str  # presentation form; "" = none
    text: str


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """How far one feature moved since the last training: see comparison/drift.py. old, new: shares of the same bins."""

    name: str
    wasserstein: float  # in earlier standard deviations
    jensen_shannon: float  # 0..1
    psi: float
    old: tuple[float, ...]
    new: tuple[float, ...]
    psi_anchor: float | None = None  # against the sample that the anchor learned from


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """Where a run's sample came from."""

    live: int
    topped_up: int
    clients: int  # distinct, in the live part
    domains: int  # distinct, in the live part
    by_day: tuple[tuple[str, int], ...]  # (YYYY-MM-DD in UTC, live queries)
    stored: tuple[tuple[str, int], ...] = ()  # (Severity name, queries stored in the window)
    top_client: str = ""  # the client with the most live queries
    top_client_share: float = 0.0  # its share of the live queries
    fresh: int | None = None  # NORMAL queries stored since the model in use was trained, where that was asked
    data_sha256: str = ""  # of what was learned from
    known: bool = False  # the model in use has learned the same from it, with the same settings

    @property
    def dominated(self) -> bool:
        """True if one client gives more than half of the live queries."""
        return self.top_client_share > 0.5


@dataclass(frozen=True, slots=True)
class RetrainOptions:
    """Options of one run; see the settings RETRAIN_*, DEPLOY, BACKUP_DAYS and SCORE_*."""

    days: int = 7
    samples: int = 10_000
    max_score: float = 0.5
    client_share: float = 0.1
    domain_share: float = 0.02
    seed: int = 42
    deploy: str = "auto"  # or "manual", or "canary"
    backup_days: int = 56
    scores: tuple[float, float, float] = (0.5, 0.7, 0.9)  # from which a query is SUSPICIOUS, HIGH, CRITICAL
    replayed: bool = False  # learn from queries of stored replays, too
    new_min: int = 0  # with fewer NORMAL queries since the model in use was trained, nothing is learned
    supplement: tuple[int, int] | None = None
    """Stored queries below which shipped names fill the sample up, and below which as many of them are mixed in; from
    there on stored queries alone are learned. None: shipped names always fill the sample up."""


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One retraining, with everything its report needs. Times are Unix seconds, paths text."""

    run_id: str  # YYYYMMDD_HHMMSS, UTC
    state: RunState
    started: float
    options: RetrainOptions
    finished: float = 0.0
    step: str = ""  # the last step that was begun
    error: str = ""
    since: float = 0.0
    until: float = 0.0
    sample: SampleFacts | None = None
    labels: tuple[tuple[str, int], ...] = ()  # (label and where it comes from, flow-hours)
    champion_id: str = ""
    champion_origin: str = ""  # "champion" or "baseline"
    champion: Mapping[str, Any] = field(default_factory=dict)  # manifest
    candidate_id: str = ""
    candidate: Mapping[str, Any] = field(default_factory=dict)  # manifest
    validation: Validation | None = None
    paths: Mapping[str, str] = field(default_factory=dict)  # backup, candidate, model, report, report_json
    seconds: Mapping[str, float] = field(default_factory=dict)  # duration of each step
    channels: tuple[ChannelResult, ...] = ()
    warnings: tuple[str, ...] = ()
    types: tuple[TypeResult, ...] = ()  # detector types on the same data
    alerts: AlertDiff | None = None  # candidate and model in use on the network's own traffic
    drift: tuple[FeatureDrift, ...] = ()  # of the stored queries learned from, since the last training
    profile: tuple[ProfileChange, ...] = ()  # from the network profile of the model in use to the candidate's

    @property
    def passed(self) -> bool:
        """True if every gate and every case passed."""
        return self.validation is not None and self.validation.passed

    @property
    def missed(self) -> tuple[Gate, ...]:
        """The gates that the candidate missed."""
        return tuple(gate for gate in self.validation.gates if not gate.passed) if self.validation else ()

    def to_json(self) -> dict[str, Any]:
        """The run as JSON values; severities by name, gates with `passed` and `margin`."""
        out: dict[str, Any] = plain(self)
        out["passed"] = self.passed
        if self.validation is not None:
            out["validation"]["gates"] = _gates_json(self.validation.gates)
        return out


@dataclass(frozen=True, slots=True)
class LearntCycle:
    """A cycle of a flow, sequence or image model, with everything its report needs. Times are Unix seconds."""

    run_id: str  # cycle_run_id
    state: RunState
    kind: str  # flow, sequences or images
    started: float
    finished: float
    model_id: str = ""  # of the candidate; "" = none was made
    parent: str = ""  # of the model in use, "" = none was
    reason: str = ""
    gates: tuple[Gate, ...] = ()
    data: tuple[tuple[str, str], ...] = ()  # what was learnt: a word for it, and how much of it or since when
    labels: tuple[tuple[str, int], ...] = ()  # origin, new labels
    sides: tuple[tuple[str, str, str], ...] = ()  # what, by the model in use, by the candidate
    listed: Mapping[str, Any] = field(default_factory=dict)  # comparison.listed_diff.ListedDiff, as JSON
    drift: tuple[FeatureDrift, ...] = ()

    @property
    def report(self) -> str:
        """The file name of its report."""
        return report_name(self.kind, self.started)

    @property
    def missed(self) -> tuple[Gate, ...]:
        """The gates that the candidate missed."""
        return tuple(gate for gate in self.gates if not gate.passed)

    def to_json(self) -> dict[str, Any]:
        """The cycle as JSON values, gates with `passed` and `margin`."""
        found: dict[str, Any] = plain(self)
        return found | {"gates": _gates_json(self.gates)}


Report = Callable[[LearntCycle, Collection[str]], object]
"""Writes the report of a cycle; the file names are those of reports that stay."""


def cycle_run_id(kind: str, started: float) -> str:
    """The id of a cycle of a kind that began then (Unix seconds): YYYYMMDD_HHMMSS, UTC, and the kind."""
    return f"{datetime.fromtimestamp(started, UTC):%Y%m%d_%H%M%S}_{kind}"


def report_name(kind: str, started: float) -> str:
    """The file name of the report of a cycle of a kind that began then, Unix seconds."""
    return f"{REPORT_PREFIX}{cycle_run_id(kind, started)}.html"


def _gates_json(gates: Sequence[Gate]) -> list[dict[str, Any]]:
    return [plain(gate) | {"passed": gate.passed, "margin": plain(gate.margin)} for gate in gates]


def alerts_text(found: AlertDiff) -> str:
    """An alert diff in a sentence or two."""
    part = "" if found.share >= 1 else f" ({found.share:.0%} of what is stored; clients with incidents are among it)"
    return (
        f"Both models judged {found.queries:,} stored queries of {found.days:.1f} days{part}. Alerts to expect a week: "
        f"{found.old_a_week:.1f} by the model in use, {found.new_a_week:.1f} by the candidate. "
        f"New: {found.added}, lost: {found.lost}, of another severity: {found.changed}."
    )


def change_text(one: AlertChange) -> str:
    """What changes below a domain: numbers of alerts."""
    parts = ((one.added, "new"), (one.lost, "lost"), (one.changed, "changed"))
    return ", ".join(f"{count} {what}" for count, what in parts if count)


def plain(value: Any) -> Any:
    """Dataclasses, enums, numpy numbers and mappings as JSON values (numbers that are not finite as null)."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Severity):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
