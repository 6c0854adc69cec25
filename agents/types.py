"""The nouns, frozen. The unit of the hot flow is a columnar QueryBatch: parallel columns, one row a query."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""A number that the source did not see (rcode, counts, sizes, TTL)."""


class Severity(IntEnum):
    """How unusual a query is, or how sure we are that an incident is data leaving."""

    NORMAL = 0
    SUSPICIOUS = 1
    HIGH = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class QueryBatch:
    """n DNS questions with what is known of their answers. All columns have length n.

    qname is in wire form (RFC 1035 section 3.1: length-prefixed labels) without the final root byte,
    in the case it was sent in; the root itself is b"". Unknown numbers are UNKNOWN (-1), unknown times NaN.
    """

    ts: NDArray[np.float64]  # Unix seconds, UTC
    client: Sequence[str]  # textual IPv4 or IPv6 address
    qname: Sequence[bytes]
    qtype: NDArray[np.uint16]
    qlen: NDArray[np.int32]  # bytes of the query message
    rcode: NDArray[np.int16]
    ancount: NDArray[np.int32]  # records in the answer section
    rlen: NDArray[np.int32]  # bytes of the answer message
    ttl_min: NDArray[np.int64]  # lowest TTL in the answer section, seconds
    rtt_ms: NDArray[np.float32]  # answer latency, milliseconds
    ans_types: Sequence[str]  # distinct answer types in order, "CNAME,A"; "" = none or unknown

    def __len__(self) -> int:
        return len(self.ts)


@dataclass(frozen=True, slots=True)
class Incident:
    """One tunnel: a client and a registered domain, from first to last query. Times are Unix seconds."""

    client: str
    domain: str
    severity: Severity
    score: float  # 0..1, how sure we are that data leaves
    reasons: tuple[str, ...]
    tool: str | None
    first_seen: float
    last_seen: float
    detected_at: float
    queries: int
    unique_names: int
    leaked_bytes: float
    queries_before_detection: int
    bytes_before_detection: float
    sample_names: tuple[str, ...] = ()
    closed_at: float | None = None

    @property
    def incident_id(self) -> str:
        """Stable id: the same incident gets the same id in every replay and after every restart."""
        key = f"{self.client}|{self.domain}|{self.detected_at:.6f}"
        return hashlib.sha256(key.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the detector says of a batch. Columns have the batch's length."""

    queries: QueryBatch
    domain: Sequence[str]  # registered domain, lower-case presentation form
    features: NDArray[np.float32]  # shape (n, number of FEATURES)
    score: NDArray[np.float32]  # 0..1, calibrated, high = anomalous
    severity: NDArray[np.uint8]  # Severity values
    reasons: Sequence[tuple[str, ...]]  # empty for NORMAL
    model_id: str
    incidents: tuple[Incident, ...] = ()  # opened, updated or closed by this batch

    def __len__(self) -> int:
        return len(self.queries)


@dataclass(frozen=True, slots=True)
class Sample:
    """Training material: m queries, oldest first."""

    ts: NDArray[np.float64]
    client: Sequence[str]
    qname: Sequence[str]  # presentation form
    domain: Sequence[str]
    features: NDArray[np.float32]  # shape (m, number of FEATURES)

    def __len__(self) -> int:
        return len(self.ts)


@dataclass(frozen=True, slots=True)
class Gate:
    """One pass/fail condition of a retraining: a number, its threshold, and how far from it."""

    name: str
    value: float
    threshold: float
    at_least: bool  # True: value must be >= threshold; False: <= threshold
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.value >= self.threshold if self.at_least else self.value <= self.threshold

    @property
    def margin(self) -> float:
        """Distance to the threshold; negative = missed by that much."""
        return self.value - self.threshold if self.at_least else self.threshold - self.value


@dataclass(frozen=True, slots=True)
class ValidationCase:
    """A name whose severity is known: NORMAL means exactly NORMAL, HIGH means HIGH or above."""

    qname: str
    expected: Severity
    purpose: str
    qtype: str = "A"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What a candidate says of a validation case, beside what the champion says."""

    case: ValidationCase
    score: float
    severity: Severity
    passed: bool
    champion_score: float | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What a notifier sends, free of any channel's format. All text is plain; notifiers escape it."""

    title: str
    summary: str
    facts: Sequence[tuple[str, str]]
    severity: Severity
    thread_id: str = ""  # messages of one thread belong together (mail: Message-ID and References)
    link: str | None = None
    link_text: str = "Open report"
    attachments: Sequence[tuple[str, str, bytes]] = ()  # file name, content type, content
    extra: dict[str, Any] = field(default_factory=dict)


class RunState(StrEnum):
    """How a retraining ended, or, in a report and message made before the end, how it is about to end."""

    DEPLOYED = "DEPLOYED"
    REJECTED = "REJECTED"
    WAITING = "WAITING"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What a trainer is told beside the sample; all of it belongs into the manifest."""

    seed: int
    since: float  # Unix seconds
    until: float
    parent: str  # model id of the champion
    live: int  # queries of the sample that came from the store
    topped_up: int  # queries of the sample that came from the shipped baseline


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
        gates_passed = bool(self.gates) and all(gate.passed for gate in self.gates)
        return gates_passed and all(case.passed for case in self.cases)


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """Where a run's sample came from."""

    live: int
    topped_up: int
    clients: int  # distinct, in the live part
    domains: int  # distinct, in the live part
    by_day: tuple[tuple[str, int], ...]  # (YYYY-MM-DD in UTC, live queries)
    stored: tuple[tuple[str, int], ...] = ()  # (Severity name, queries stored in the window)


@dataclass(frozen=True, slots=True)
class ChannelResult:
    """Whether one channel took a message."""

    channel: str
    ok: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class RetrainOptions:
    """What one run is asked to do; see the settings RETRAIN_*, DEPLOY and BACKUP_DAYS."""

    days: int = 7
    samples: int = 10_000
    max_score: float = 0.5
    client_share: float = 0.1
    domain_share: float = 0.02
    seed: int = 42
    deploy: str = "auto"  # or "manual"
    backup_days: int = 30


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
            for row, gate in zip(out["validation"]["gates"], self.validation.gates, strict=True):
                row |= {"passed": gate.passed, "margin": gate.margin}
        return out


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
