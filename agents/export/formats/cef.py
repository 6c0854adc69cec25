"""Common Event Format 0 (ArcSight, "Implementing ArcSight Common Event Format", revision 25)."""

from __future__ import annotations

from agents import __version__
from agents.alerting.grouping import Event
from agents.core.text import printable
from agents.core.types import Severity
from agents.export.formats.base import PRODUCT, VENDOR, Format, millis
from agents.export.record import Record

SEVERITIES = {Severity.NORMAL: 1, Severity.SUSPICIOUS: 5, Severity.HIGH: 8, Severity.CRITICAL: 10}
"""0 to 3 are low, 4 to 6 medium, 7 and 8 high, 9 and 10 very high."""


def head_field(text: str) -> str:
    """A field of the header: backslash and bar are escaped, and it is one line."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\r", " ").replace("\n", " ")


def extension(text: str) -> str:
    """A value of the extension: backslash, equals sign and ends of lines are escaped."""
    escaped = text.replace("\\", "\\\\").replace("=", "\\=")
    return escaped.replace("\r", "\\r").replace("\n", "\\n")


def values_of(record: Record) -> dict[str, str]:
    """The extension's keys and values, unescaped."""
    one = record.incident
    found = {
        "rt": str(millis(record.at)),
        "start": str(millis(one.first_seen)),
        "end": str(millis(one.last_seen)),
        "externalId": one.incident_id,
        "act": str(record.event),
        "app": "dns",
        "cnt": str(one.queries),
        "out": str(round(one.leaked_bytes)),
        "destinationDnsDomain": record.domain,
        "msg": record.reasons,
        "cs1": " ".join(record.names[:3]),
        "cs1Label": "sampleNames",
        "cs2": " ".join(record.techniques),
        "cs2Label": "attackTechniques",
        "cs3": printable(one.tool or "", 40),
        "cs3Label": "tool",
        "cn1": str(one.unique_names),
        "cn1Label": "uniqueNames",
        "cfp1": f"{one.score:.3f}",
        "cfp1Label": "score",
    }
    if ":" in record.address:
        found |= {"c6a2": record.address, "c6a2Label": "Source IPv6 Address"}
    else:
        found["src" if record.address else "shost"] = record.address or record.client
    if record.link:
        found["request"] = record.link
    return {name: value for name, value in found.items() if value}


def text(record: Record) -> str:
    """The event in one line."""
    name = "DNS tunnel has ended" if record.event == Event.ENDED else "DNS tunnel"
    head = (VENDOR, PRODUCT, __version__, "dns-tunnel", name, str(SEVERITIES[record.severity]))
    values = " ".join(f"{key}={extension(value)}" for key, value in values_of(record).items())
    return f"CEF:0|{'|'.join(map(head_field, head))}|{values}"


FORMAT = Format("cef", "Common Event Format", text)
