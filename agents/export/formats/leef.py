"""Log Event Extended Format 2.0 (IBM, "LEEF event components"); values are divided by tabs."""

from __future__ import annotations

from agents import __version__
from agents.core.text import printable
from agents.export.formats.base import PRODUCT, VENDOR, Format, millis
from agents.export.formats.cef import SEVERITIES, head_field
from agents.export.record import Record


def value(text: str) -> str:
    """A value in one line without the divider."""
    return text.replace("\t", " ").replace("\r", " ").replace("\n", " ")


def text(record: Record) -> str:
    """The event in one line."""
    one = record.incident
    found = {
        "cat": "DNS tunnel",
        "sev": str(SEVERITIES[record.severity]),
        "devTime": str(millis(record.at)),
        "src": record.address,
        "proto": "UDP",
        "dstPort": "53",
        "srcBytes": str(round(one.leaked_bytes)),
        "domain": record.domain,
        "incident": one.incident_id,
        "queries": str(one.queries),
        "uniqueNames": str(one.unique_names),
        "tool": printable(one.tool or "", 40),
        "techniques": " ".join(record.techniques),
        "names": " ".join(record.names[:3]),
        "url": record.link,
        "msg": record.reasons,
    }
    head = "|".join(map(head_field, (VENDOR, PRODUCT, __version__, f"dns-tunnel-{record.event}")))
    values = "\t".join(f"{key}={value(held)}" for key, held in found.items() if held)
    return f"LEEF:2.0|{head}|x09|{values}"


FORMAT = Format("leef", "Log Event Extended Format 2.0", text)
