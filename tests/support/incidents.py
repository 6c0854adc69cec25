"""Incidents as test material."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agents.core.types import Incident, Severity


def incident(**changed: Any) -> Incident:
    """A HIGH incident of 192.0.2.7 and evil.com, with `changed` fields."""
    usual = Incident(
        client="192.0.2.7",
        domain="evil.com",
        severity=Severity.HIGH,
        score=0.93,
        reasons=("41 unique names below evil.com in 60 s",),
        tool="iodine",
        first_seen=1_763_604_800.0,
        last_seen=1_763_604_860.0,
        detected_at=1_763_604_812.0,
        queries=120,
        unique_names=118,
        leaked_bytes=9120.0,
        queries_before_detection=14,
        bytes_before_detection=812.0,
        sample_names=("4a6f.evil.com",),
    )
    return replace(usual, **changed)
