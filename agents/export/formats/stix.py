"""STIX 2.1 bundle (OASIS, 2021): identity, indicator, domain, observed data, sighting; ids are the same each time."""

from __future__ import annotations

from typing import Any

from agents.export.formats.base import PRODUCT, Format, line, uuid_of
from agents.export.record import Record, stamp

COUNT_MAX = 999_999_999
"""Most that a count may say (section 4.14)."""
EPOCH = "2026-01-01T00:00:00.000Z"
"""The identity's date: it never changes."""


def _id(kind: str, text: str) -> str:
    return f"{kind}--{uuid_of(f'{kind}/{text}')}"


def quoted(text: str) -> str:
    """A string of a pattern (STIX patterning section 9.2): backslash and quote are escaped."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _indicator(record: Record, seen: dict[str, str], identity: str) -> dict[str, Any]:
    one = record.incident
    return {
        "type": "indicator",
        "id": _id("indicator", one.incident_id),
        **seen,
        "created_by_ref": identity,
        "name": record.title,
        "description": record.reasons,
        "indicator_types": ["malicious-activity"],
        "pattern": f"[domain-name:value = {quoted(one.domain)}]",
        "pattern_type": "stix",
        "valid_from": stamp(one.first_seen),
        "confidence": round(100 * one.score),
        "kill_chain_phases": [{"kill_chain_name": "mitre-attack", "phase_name": "command-and-control"}],
    }


def _sighting(record: Record, seen: dict[str, str], identity: str) -> dict[str, Any]:
    one = record.incident
    return {
        "type": "sighting",
        "id": _id("sighting", one.incident_id),
        **seen,
        "created_by_ref": identity,
        "first_seen": stamp(one.first_seen),
        "last_seen": stamp(max(one.last_seen, one.first_seen)),
        "count": min(max(one.queries, 1), COUNT_MAX),
        "sighting_of_ref": _id("indicator", one.incident_id),
        "observed_data_refs": [_id("observed-data", one.incident_id)],
    }


def bundle(record: Record) -> dict[str, Any]:
    """All objects about one incident."""
    one = record.incident
    seen = {
        "created": stamp(one.detected_at),
        "modified": stamp(max(record.at, one.detected_at)),
        "spec_version": "2.1",
    }
    identity, observed = _id("identity", PRODUCT), _id("observed-data", one.incident_id)
    names = [record.registered] if record.registered else list(dict.fromkeys(record.names))
    domains = [{"type": "domain-name", "spec_version": "2.1", "id": _id("domain-name", x), "value": x} for x in names]
    times = {"first_observed": stamp(one.first_seen), "last_observed": stamp(max(one.last_seen, one.first_seen))}
    objects: list[dict[str, Any]] = [
        {
            "type": "identity",
            "spec_version": "2.1",
            "id": identity,
            "created": EPOCH,
            "modified": EPOCH,
            "name": PRODUCT,
            "identity_class": "system",
        },
        *domains,
    ]
    if domains:
        objects.append(
            {
                "type": "observed-data",
                "id": observed,
                **seen,
                "created_by_ref": identity,
                **times,
                "number_observed": min(max(one.queries, 1), COUNT_MAX),
                "object_refs": [domain["id"] for domain in domains],
            }
        )
    if record.registered:
        objects += [_indicator(record, seen, identity), _sighting(record, seen, identity)]
    return {"type": "bundle", "id": _id("bundle", record.key), "objects": objects}


FORMAT = Format("stix", "STIX 2.1 bundle", lambda record: line(bundle(record)))
