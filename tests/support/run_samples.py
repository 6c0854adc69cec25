"""Finished runs as test material: names as long and as hostile as they come."""

from __future__ import annotations

from dataclasses import replace

from agents.core.types import DAY_S, CaseResult, ChannelResult, Gate, Severity, ValidationCase
from agents.detection.limits import Peaks, choose
from agents.learning.run import (
    Distribution,
    RetrainOptions,
    RunState,
    SampleFacts,
    TrainingRun,
    Validation,
)

HOSTILE = "<script>alert(1)</script>'\"&\\000\x1b[31m\u202e.evil.com"
HEX64 = "a3f8b2c1d4e5f60718293a4b5c6d7e8f" * 2

_FEATURES = [
    "name_length", "label_count", "longest_label", "subdomain_length", "entropy", "digit_share", "hex_share",
    "vowel_share", "consonant_run", "unique_characters", "bigram_surprise", "upper_share", "escape_share",
    "base32_share", "base64_share", "numeric_labels", "mean_label", "label_spread", "repeat_share",
    "qtype_rarity",
]  # fmt: skip


def manifest(seed: int, parent: str | None) -> dict[str, object]:
    return {
        "algorithm": "isolation forest",
        "feature_schema": "c0ffee" * 10 + "abcd",
        "features": _FEATURES,
        "params": {"trees": 200, "psi": 256},
        "seed": seed,
        "samples": {"live": 9_412, "baseline": 588},
        "window": {"since": 1_763_000_000.0, "until": 1_763_604_800.0},
        "metrics": {"benign above 0.5": 0.00098, "benign above 0.7": 0.0001},
        "parent": parent,
        "versions": {"python": "3.11.7", "numpy": "2.3.4", "scikit-learn": "1.7.2"},
    }


def gates(missed: bool = False) -> tuple[Gate, ...]:
    return (
        Gate("benign names NORMAL", 0.9952 if not missed else 0.9731, 0.99, True, "share of 5,120 golden names"),
        Gate("tunnel sessions found", 1.0, 0.98, True, "24 of 24 captures"),
        Gate("benign above HIGH", 0.0001, 0.001, False, "share of golden names that score 0.7 or more"),
        Gate("agreement with the anchor", 0.9312, 0.92, True, "rank correlation on the golden set"),
        Gate("cases", 4.0, 4.0, True, "names whose severity is known"),
    )


def _cases(missed: bool) -> tuple[CaseResult, ...]:
    tricky = (0.31, Severity.NORMAL) if missed else (0.88, Severity.HIGH)
    letters = "aaaabbbbccccddddeeeeffffgggg.malware.net"
    return (
        _case(ValidationCase("www.google.com", Severity.NORMAL, "common name"), 0.02, Severity.NORMAL),
        _case(ValidationCase("youtube.com", Severity.NORMAL, "common name"), 0.01, Severity.NORMAL),
        _case(ValidationCase(f"{HEX64}.evil.com", Severity.HIGH, "64 hex digits"), 0.97, Severity.CRITICAL),
        _case(ValidationCase(letters, Severity.HIGH, "28 repeated letters"), 0.74, Severity.HIGH),
        _case(ValidationCase(HOSTILE, Severity.HIGH, "hostile text", "TXT"), *tricky),
    )


def _case(case: ValidationCase, score: float, severity: Severity) -> CaseResult:
    passed = (severity >= Severity.HIGH) == (case.expected >= Severity.HIGH)
    return CaseResult(case, score, severity, passed, champion_score=max(score - 0.04, 0))


def validation(missed: bool = False) -> Validation:
    return Validation(
        gates=gates(missed),
        cases=_cases(missed),
        blind_spots=(
            "tunnels below 60 bytes an hour: no window of this run sees them",
            "names of 9 bytes or less, one at a time: behaviour finds them, the query model does not",
        ),
        old=Distribution(
            (3900, 640, 260, 120, 80, 40, 30, 20, 12, 6, 3, 2, 2, 1, 0, 1, 0, 0, 0, 0),
            (("NORMAL", 5112), ("SUSPICIOUS", 6), ("HIGH", 2), ("CRITICAL", 0)),
        ),
        new=Distribution(
            (4100, 560, 220, 100, 60, 30, 20, 12, 8, 4, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0),
            (("NORMAL", 5114), ("SUSPICIOUS", 5), ("HIGH", 1), ("CRITICAL", 0)),
        ),
    )


def sample_facts() -> SampleFacts:
    days = [("2026-11-14", 1490), ("2026-11-15", 990), ("2026-11-16", 1540), ("2026-11-17", 1502)]
    days += [("2026-11-18", 1480), ("2026-11-19", 1420), ("2026-11-20", 990)]
    stored = (("NORMAL", 1_840_220), ("SUSPICIOUS", 1_930), ("HIGH", 212), ("CRITICAL", 64))
    return SampleFacts(9_412, 588, 214, 1_802, tuple(days), stored)


def deployed() -> TrainingRun:
    started = 1_763_604_800.0
    return TrainingRun(
        run_id="20261120_020000",
        state=RunState.DEPLOYED,
        started=started,
        finished=started + 21.4,
        options=RetrainOptions(),
        step="decide",
        since=started - 7 * 86400,
        until=started,
        sample=sample_facts(),
        champion_id="0123456789abcdef",
        champion_origin="baseline",
        champion=manifest(42, None),
        candidate_id="fedcba9876543210",
        candidate=manifest(43, "0123456789abcdef"),
        validation=validation(),
        paths={
            "backup": "/app/models/backups/model_backup_20261120_020000.npz",
            "model": "/app/models/isolation_forest.npz",
            "candidate": "/app/models/candidates/fedcba9876543210.npz",
        },
        seconds={"backup": 0.05, "collect": 1.9, "train": 6.1, "validate": 12.8},
        channels=(
            ChannelResult("slack", ok=True),
            ChannelResult("teams", ok=False, error="cannot send to teams: it answered 500, tried 4 times"),
        ),
    )


def with_limits(days: int, flows: int, budget_per_week: float = 3.0) -> TrainingRun:
    """A run whose candidate was given limits by so many days of history, with so many flows between half and twice."""
    peaks = Peaks((day, "quiet", "quiet.test", 0.0) for day in range(days))
    for i in range(flows):
        peaks.note(i % max(days, 1) * DAY_S, f"192.0.2.{i}", "busy.test", 0.5 + 1.5 * i / flows)
    run = deployed()
    return replace(run, candidate={**run.candidate, "limits": choose(peaks, budget_per_week).to_json()})


def rejected() -> TrainingRun:
    return replace(deployed(), state=RunState.REJECTED, validation=validation(missed=True))


def failed() -> TrainingRun:
    return replace(
        deployed(),
        state=RunState.FAILED,
        step="collect",
        error="cannot reach the database: connection refused",
        sample=None,
        candidate_id="",
        candidate={},
        validation=None,
        paths={},
        warnings=("record: cannot reach the database",),
    )
