"""MISP event (misp-project.org, core format): attributes for the domain, sample names and the client."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from agents.core.types import Severity
from agents.export.formats.base import Format, line, uuid_of
from agents.export.record import Record

THREAT_LEVELS = {Severity.NORMAL: "4", Severity.SUSPICIOUS: "3", Severity.HIGH: "2", Severity.CRITICAL: "1"}
"""Undefined, low, medium, high."""


def event(record: Record) -> dict[str, Any]:
    """The event; nothing in it is for automatic blocking but the domain."""
    one = record.incident

    def attribute(kind: str, category: str, value: str, to_ids: bool, comment: str) -> dict[str, Any]:
        return {
            "uuid": str(uuid_of(f"misp/{one.incident_id}/{kind}/{value}")),
            "type": kind,
            "category": category,
            "value": value,
            "to_ids": to_ids,
            "comment": comment,
            "first_seen": datetime.fromtimestamp(one.first_seen, UTC).isoformat(),
            "last_seen": datetime.fromtimestamp(max(one.last_seen, one.first_seen), UTC).isoformat(),
        }

    certain = one.severity >= Severity.HIGH  # what is listed may be a service
    domains = [record.registered] if record.registered else []
    attributes = [attribute("domain", "Network activity", name, certain, record.reasons) for name in domains]
    attributes += [
        attribute("hostname", "Network activity", name, False, "a name of the tunnel") for name in record.names
    ]
    if record.address:
        attributes.append(attribute("ip-src", "Network activity", record.address, False, "the client"))
    tags = [{"name": f'misp-galaxy:mitre-attack-pattern="{name} - {uid}"'} for uid, name in record.techniques.items()]
    return {
        "Event": {
            "uuid": str(uuid_of(f"misp/{one.incident_id}")),
            "info": record.title,
            "date": f"{datetime.fromtimestamp(one.detected_at, UTC):%Y-%m-%d}",
            "timestamp": str(int(record.at)),
            "threat_level_id": THREAT_LEVELS[one.severity],
            "analysis": "0",
            "distribution": "0",
            "published": False,
            "Attribute": attributes,
            "Tag": tags,
        }
    }


FORMAT = Format("misp", "MISP event", lambda record: line(event(record)))
