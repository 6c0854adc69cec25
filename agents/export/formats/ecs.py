"""Elastic Common Schema 8.17 (elastic.co/guide/en/ecs/8.17): fields of the sets event, dns, source, threat, rule."""

from __future__ import annotations

from typing import Any

from agents import __version__
from agents.alerting.grouping import Event
from agents.core.types import Severity
from agents.export.formats.base import PRODUCT, VENDOR, Format, line
from agents.export.record import Record, stamp

ECS_VERSION = "8.17.0"
SEVERITIES = {Severity.NORMAL: 21, Severity.SUSPICIOUS: 47, Severity.HIGH: 73, Severity.CRITICAL: 99}
"""Numbers of low, medium, high and critical in Elastic's own rules."""
TACTICS = {"T1048.003": ("TA0010", "Exfiltration"), "default": ("TA0011", "Command and Control")}


def _event(record: Record) -> dict[str, Any]:
    one = record.incident
    return {
        "kind": "alert",
        "category": ["intrusion_detection", "network"],
        "type": ["end"] if record.event == Event.ENDED else ["info"],
        "id": record.key,
        "action": f"dns-tunnel-{record.event}",
        "provider": PRODUCT,
        "module": "dns_tunnel",
        "dataset": "dns_tunnel.incident",
        "severity": SEVERITIES[one.severity],
        "risk_score": round(100 * one.score, 1),
        "start": stamp(one.first_seen),
        "end": stamp(one.last_seen),
        "reason": record.reasons,
    } | ({"url": record.link} if record.link else {})


def _threat(record: Record) -> dict[str, Any]:
    """Techniques, tactics and the tool."""
    found: dict[str, Any] = {}
    if record.techniques:
        tactics = sorted({TACTICS.get(technique, TACTICS["default"]) for technique in record.techniques})
        found["framework"] = "MITRE ATT&CK"
        found["tactic"] = {"id": [uid for uid, _ in tactics], "name": [name for _, name in tactics]}
        found["technique"] = {"id": list(record.techniques), "name": list(record.techniques.values())}
    if record.incident.tool:
        found["software"] = {"name": record.incident.tool, "type": "Tool"}
    return found


def document(record: Record) -> dict[str, Any]:
    """One ECS document; what ECS has no field for lies below `dns_tunnel`."""
    one = record.incident
    found: dict[str, Any] = {
        "@timestamp": stamp(record.at),
        "ecs": {"version": ECS_VERSION},
        "message": f"{record.title}: {record.reasons}",
        "event": _event(record),
        "observer": {"vendor": VENDOR, "product": PRODUCT, "type": "ids", "version": __version__},
        "network": {"protocol": "dns", "application": "dns"},
        "rule": {"name": "DNS tunnel", "ruleset": PRODUCT},
        "related": {},
        "dns_tunnel": {
            "incident_id": one.incident_id,
            "severity": one.severity.name,
            "queries": one.queries,
            "unique_names": one.unique_names,
            "leaked_bytes": round(one.leaked_bytes),
            "names": list(record.names),
        },
    }
    if record.registered:
        found["dns"] = {"question": {"registered_domain": record.registered}}
        found["related"]["hosts"] = [record.registered]
    found["source"] = {"address": record.client}
    if record.address:
        found["source"]["ip"] = record.address
        found["related"]["ip"] = [record.address]
    if threat := _threat(record):
        found["threat"] = threat
    return found


FORMAT = Format("ecs", "Elastic Common Schema, a JSON object a line", lambda record: line(document(record)))
