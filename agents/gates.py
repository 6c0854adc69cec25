"""The conditions that a candidate must meet, and the names whose severity is known."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agents.errors import NameFormatError, SettingsError
from agents.names import from_text_folded
from agents.types import Gate, Severity, ValidationCase

HEX_LABEL = hashlib.sha256(b"dns-tunnel-detector").hexdigest()

CASES = (
    ValidationCase("www.google.com", Severity.NORMAL, "a common legitimate name"),
    ValidationCase("youtube.com", Severity.NORMAL, "a common legitimate name"),
    ValidationCase(f"{HEX_LABEL}.evil.com", Severity.HIGH, "64 hex characters, as exfiltrated data looks"),
    ValidationCase("aaaabbbbccccddddeeeeffffgggg.malware.net", Severity.HIGH, "a label unlike any word"),
)
"""Names of which every model must be right."""

BENIGN_ABOVE_NORMAL_MAX = 0.002
"""Twice what calibration aims at: golden names were made apart from those it saw."""
FALSE_INCIDENTS_MAX = 0
SESSIONS_FOUND_MIN = 1.0
BYTES_BEFORE_WORST_MAX = 500.0
TUNNEL_SHARE_DROP_MAX = 0.05
DRIFT_MAX = 0.1


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


def gates_of(found: Measured) -> tuple[Gate, ...]:
    """Each condition with its number, threshold and margin."""
    sessions = f"{found.sessions_found} of {found.sessions} tunnel sessions"
    return (
        Gate("validation cases failed", found.cases_failed, 0, False, f"{len(CASES)} names every model must know"),
        Gate("own cases failed", found.own_cases_failed, 0, False, f"{found.own_cases} cases of VALIDATION_CASES"),
        Gate(
            "golden names above NORMAL",
            found.benign_above_normal,
            BENIGN_ABOVE_NORMAL_MAX,
            False,
            "share of benign names that the model never learned from",
        ),
        Gate(
            "false incidents",
            found.false_incidents,
            FALSE_INCIDENTS_MAX,
            False,
            "on a day of golden traffic with look-alikes",
        ),
        Gate(
            "tunnel sessions found", found.sessions_found / max(found.sessions, 1), SESSIONS_FOUND_MIN, True, sessions
        ),
        Gate("bytes before detection, worst", found.bytes_worst, BYTES_BEFORE_WORST_MAX, False, sessions),
        Gate(
            "tunnel names above NORMAL",
            found.tunnel_share,
            max(found.anchor_tunnel_share - TUNNEL_SHARE_DROP_MAX, 0.0),
            True,
            f"by the name alone; the shipped model has {found.anchor_tunnel_share:.3f}",
        ),
        Gate("drift from the shipped model", found.anchor_drift, DRIFT_MAX, False, "mean difference of scores"),
    )


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
