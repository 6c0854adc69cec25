"""One stream with all that a detector tells of: a day's benign oddities, tunnels, throw-away domains, secrets."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from agents.core.types import Incident, Row, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.learning.baseline import golden_sessions
from tests.corpora.lookalikes import ROLES, START, traffic
from tests.support.detecting import fresh_detector, query, shipped_model

QUIET_S = 3600.0


def _code(number: int, size: int = 28) -> str:
    return base64.b32encode(hashlib.sha256(b"%d" % number).digest()).decode().lower()[:size]


@cache
def benign_day() -> list[Row]:
    """One client of each role."""
    return traffic(3, tuple(role._replace(clients=1) for role in ROLES))


def mixed(background: int = 1200) -> list[Row]:
    """Queries in time order; the first so many of the benign ones."""
    day = benign_day()
    rows = day[:: max(1, len(day) // background)]
    middle = START + 40_000
    rows += [query(middle + 3 * i, "10.20.0.4", f"{_code(i)}.evil-tunnel.net") for i in range(40)]
    rows += [query(middle + 9_000 + 3 * i, "10.20.0.4", f"{_code(i % 60)}.evil-tunnel.net", 16) for i in range(80)]
    rows += [query(middle + 20 * i, "10.20.0.9", f"{_code(1000 + i)}.throw{i}away.com") for i in range(40)]
    rows += [query(middle + 7 * i, "10.20.0.5", f"{_code(2000 + i, 16)}.part{i % 9}.org") for i in range(90)]
    secret = base64.b32encode(b"password=hunter22").decode().lower().rstrip("=")
    rows += [query(middle + 50, "10.20.0.6", f"{secret}.one-shot.net"), query(middle + 60, "10.20.0.6", "x1.oast.fun")]
    session = golden_sessions()["iodine-txt-base32"]
    shift = middle + 500 - float(session.ts[0])
    rows += [query(float(ts) + shift, "10.20.0.7", q, 16) for ts, q in zip(session.ts, session.qname, strict=True)]
    return sorted(rows, key=lambda row: row[:3])


@dataclass(frozen=True, slots=True)
class Judgement:
    """All that a detector said of a stream."""

    scores: list[float]
    severities: list[int]
    reasons: list[tuple[str, ...]]
    domains: list[str]
    incidents: dict[str, Incident]  # the last state of each


def judgement(rows: list[Row], ends: list[int], detector: TunnelDetector | None = None) -> Judgement:
    """Give a detector the rows as batches that end at these rows, and the last one at the end."""
    detector = detector or fresh_detector(shipped_model(), Scale(), quiet_s=QUIET_S)
    said = Judgement([], [], [], [], {})
    start = 0
    for end in [*sorted(set(ends)), len(rows)]:
        verdicts = detector.detect(batch_of(rows[start:end]))
        said.scores.extend(np.asarray(verdicts.score).tolist())
        said.severities.extend(verdicts.severity.tolist())
        said.reasons.extend(verdicts.reasons)
        said.domains.extend(verdicts.domain)
        said.incidents.update({one.incident_id: one for one in verdicts.incidents})
        start = end
    last = detector.flush()
    said.incidents.update({one.incident_id: one for one in (last.incidents if last else ())})
    return said
