"""OCSF 1.3 (schema.ocsf.io/1.3.0): Detection Finding (2004) of an incident, DNS Activity (4003) of its names."""

from __future__ import annotations

from typing import Any

from agents import __version__
from agents.alerting.grouping import Event
from agents.core.types import Severity
from agents.export.formats.base import PRODUCT, VENDOR, Format, line, millis
from agents.export.record import Record

OCSF_VERSION = "1.3.0"
FINDING_CLASS, ACTIVITY_CLASS = 2004, 4003
SEVERITY_IDS = {Severity.NORMAL: 1, Severity.SUSPICIOUS: 3, Severity.HIGH: 4, Severity.CRITICAL: 5}
"""Informational, Medium, High, Critical."""
ACTIVITIES = {Event.NEW: 1, Event.UPDATE: 2, Event.ENDED: 3}
"""Create, Update, Close."""
QUERY_ACTIVITY = 1


def _metadata(record: Record) -> dict[str, Any]:
    product = {"name": PRODUCT, "vendor_name": VENDOR, "version": __version__}
    return {"version": OCSF_VERSION, "product": product, "uid": record.key, "profiles": []}


def _common(record: Record, category: int, kind: int, activity: int) -> dict[str, Any]:
    return {
        "category_uid": category,
        "class_uid": kind,
        "activity_id": activity,
        "type_uid": kind * 100 + activity,
        "severity_id": SEVERITY_IDS[record.severity],
        "metadata": _metadata(record),
    }


def _endpoint(record: Record) -> dict[str, Any]:
    return {"ip": record.address} if record.address else {"name": record.client}


def finding(record: Record) -> dict[str, Any]:
    """A Detection Finding."""
    one = record.incident
    attacks = [{"technique": {"uid": uid, "name": name}, "version": "15.1"} for uid, name in record.techniques.items()]
    hosts = [*([record.registered] if record.registered else []), *record.names]
    return _common(record, 2, FINDING_CLASS, ACTIVITIES[record.event]) | {
        "time": millis(record.at),
        "message": f"{record.title}: {record.reasons}",
        "status_id": 4 if record.event == Event.ENDED else 1,  # Resolved, New
        "confidence_score": round(100 * one.score),
        "finding_info": {
            "uid": one.incident_id,
            "title": record.title,
            "desc": record.reasons,
            "types": ["DNS tunnel"],
            "first_seen_time": millis(one.first_seen),
            "last_seen_time": millis(one.last_seen),
            "created_time": millis(one.detected_at),
            "attacks": attacks,
            **({"src_url": record.link} if record.link else {}),
        },
        "evidences": [{"src_endpoint": _endpoint(record), "query": {"hostname": name}} for name in hosts],
        "unmapped": {
            "queries": one.queries,
            "unique_names": one.unique_names,
            "leaked_bytes": round(one.leaked_bytes),
            **({"tool": one.tool} if one.tool else {}),
        },
    }


def activities(record: Record) -> list[dict[str, Any]]:
    """A DNS Activity for each sample name; its time is that of the incident's last query."""
    base = _common(record, 4, ACTIVITY_CLASS, QUERY_ACTIVITY) | {
        "time": millis(record.incident.last_seen),
        "src_endpoint": _endpoint(record),
    }
    return [base | {"query": {"hostname": name}} for name in record.names or (record.registered or ".",)]


FINDING = Format("ocsf", "OCSF Detection Finding (2004)", lambda record: line(finding(record)))
ACTIVITY = Format(
    "ocsf-dns",
    "OCSF DNS Activity (4003), a line for each sample name",
    lambda record: "\n".join(map(line, activities(record))),
    lines=True,
)
