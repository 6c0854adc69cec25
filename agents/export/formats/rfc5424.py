"""Structured data of RFC 5424 section 6.3, and a message for people after it."""

from __future__ import annotations

from agents.core.text import printable
from agents.export.formats.base import Format
from agents.export.record import Record, stamp

SD_ID = "incident@32473"
"""32473 is the enterprise number of documents (RFC 5612): this project has none of its own."""


def param(text: str) -> str:
    """A PARAM-VALUE: double quote, backslash and closing bracket are escaped (section 6.3.3)."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def element(record: Record) -> str:
    """The SD-ELEMENT."""
    one = record.incident
    found = {
        "id": one.incident_id,
        "event": str(record.event),
        "severity": one.severity.name,
        "score": f"{one.score:.3f}",
        "client": record.client,
        "domain": record.domain,
        "tool": printable(one.tool or "", 40),
        "firstSeen": stamp(one.first_seen),
        "lastSeen": stamp(one.last_seen),
        "queries": str(one.queries),
        "uniqueNames": str(one.unique_names),
        "leakedBytes": str(round(one.leaked_bytes)),
        "techniques": " ".join(record.techniques),
        "link": record.link,
    }
    params = " ".join(f'{name}="{param(value)}"' for name, value in found.items() if value)
    return f"[{SD_ID} {params}]"


def sentence(record: Record) -> str:
    """The message for people."""
    return f"{record.title}: {record.reasons}"


FORMAT = Format("rfc5424", "structured data and a sentence", lambda record: f"{element(record)} {sentence(record)}")
