"""Verdicts made by hand, for tests of what comes after the detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agents.core.types import Incident, QueryBatch, Severity, Verdicts
from agents.dns.name import domain_text, from_text

DAY_S = 86_400
START = 1_767_225_600.0  # 2026-01-01, a midnight
WIDTH = 25


def verdicts(
    names: Sequence[str | bytes],
    *,
    ts: Sequence[float] | None = None,
    client: str | Sequence[str] = "192.0.2.7",
    score: float | Sequence[float] = 0.1,
    severity: Severity = Severity.NORMAL,
    reasons: tuple[str, ...] = (),
    incidents: tuple[Incident, ...] = (),
    width: int = WIDTH,
) -> Verdicts:
    """One query a name (text, or bytes in wire form), a second apart from START on."""
    n = len(names)
    wire = [from_text(name) if isinstance(name, str) else name for name in names]
    batch = QueryBatch(
        ts=np.array(START + np.arange(n) if ts is None else ts, dtype=np.float64),
        client=[client] * n if isinstance(client, str) else client,
        qname=wire,
        qtype=np.full(n, 16, np.uint16),
        qlen=np.full(n, 50, np.int32),
        rcode=np.zeros(n, np.int16),
        ancount=np.ones(n, np.int32),
        rlen=np.full(n, 90, np.int32),
        ttl_min=np.full(n, -1, np.int64),
        rtt_ms=np.full(n, np.nan, np.float32),
        ans_types=["TXT"] * n,
    )
    return Verdicts(
        queries=batch,
        domain=[domain_text(name) for name in wire],
        features=np.arange(n * width, dtype=np.float32).reshape(n, width),
        score=np.broadcast_to(np.asarray(score, np.float32), n).copy(),
        severity=np.full(n, int(severity), np.uint8),
        reasons=[reasons] * n,
        model_id="model-1",
        incidents=incidents,
    )


def incident(**changes: Any) -> Incident:
    """An incident, with some of its facts changed."""
    facts: dict[str, Any] = {
        "client": "192.0.2.7",
        "domain": "evil.example",
        "severity": Severity.HIGH,
        "score": 0.9,
        "reasons": ("41 unique names below evil.example in 60 s",),
        "tool": None,
        "first_seen": START,
        "last_seen": START + 60,
        "detected_at": START + 20,
        "queries": 41,
        "unique_names": 41,
        "leaked_bytes": 912.0,
        "queries_before_detection": 12,
        "bytes_before_detection": 300.0,
        "sample_names": ("mzxw6.evil.example",),
    }
    return Incident(**(facts | changes))
