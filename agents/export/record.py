"""A record: one incident, and what became of it, for other programs."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agents.alerting.grouping import Event
from agents.alerting.messages import incident_link
from agents.core.text import NETWORK, defang, printable
from agents.core.types import Incident, Severity, incident_of, incident_row

TECHNIQUES = {
    "T1071.004": "Application Layer Protocol: DNS",
    "T1048.003": "Exfiltration Over Alternative Protocol: Exfiltration Over Unencrypted Non-C2 Protocol",
    "T1572": "Protocol Tunneling",
    "T1132.001": "Data Encoding: Standard Encoding",
}
"""MITRE ATT&CK names of the techniques that incidents have."""


_MANY = NETWORK
"""As a domain, the same mark: names scattered over many domains."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is sent of an incident. at: Unix seconds when it was made; link: its page, "" without a console."""

    incident: Incident
    event: Event
    at: float
    link: str = ""

    @property
    def severity(self) -> Severity:
        """The gravest leave first."""
        return self.incident.severity

    @property
    def title(self) -> str:
        """One line, printable."""
        one = self.incident
        what = f"DNS tunnel ({printable(one.tool, 40)})" if one.tool else "DNS tunnel"
        ended = " has ended" if self.event == Event.ENDED else ""
        return f"{what}: {self.client} below {self.domain}{ended}"

    @property
    def registered(self) -> str:
        """The registered domain; "" where names are scattered over many domains, or have none."""
        return "" if self.incident.domain in (_MANY, ".") else self.incident.domain

    @property
    def domain(self) -> str:
        """Printable: hostile text."""
        return "many domains" if self.incident.domain == _MANY else printable(self.incident.domain, 255)

    @property
    def client(self) -> str:
        """Printable; several clients where it is not one's."""
        return "several clients" if self.incident.client == NETWORK else printable(self.incident.client, 64)

    @property
    def key(self) -> str:
        """Idempotency key: the same record after a restart has the same. Letters and digits."""
        return f"{self.incident.incident_id}{self.event}{self.incident.queries}"

    @property
    def techniques(self) -> dict[str, str]:
        """ATT&CK ids and names."""
        found = self.incident.evidence.get("attack", [])
        return {one: TECHNIQUES[one] for one in found if one in TECHNIQUES} if isinstance(found, list) else {}

    @property
    def names(self) -> tuple[str, ...]:
        """Sample names, printable: hostile text."""
        return tuple(printable(name, 255) for name in self.incident.sample_names)

    @property
    def reasons(self) -> str:
        """All reasons in a line, printable."""
        return printable("; ".join(self.incident.reasons), 1000)

    @property
    def address(self) -> str:
        """The client's address; "" where it is none, or of several clients."""
        try:
            return str(ipaddress.ip_address(self.incident.client))
        except ValueError:
            return ""

    def to_json(self) -> dict[str, Any]:
        """Our own format: the incident as the API gives it, and the event."""
        row = incident_row(self.incident)
        fields = {name: json.loads(row[name]) for name in ("reasons", "sample_names", "evidence")}
        return {
            "type": "incident",
            "event": str(self.event),
            "key": self.key,
            "at": stamp(self.at),
            "link": self.link,
            **row,
            **fields,
            "severity": self.severity.name,
            "domain_defanged": defang(row["domain"]),
        }


def record_row(record: Record) -> dict[str, Any]:
    """A record as JSON, for the disk."""
    return {
        "incident": incident_row(record.incident),
        "event": str(record.event),
        "at": record.at,
        "link": record.link,
    }


def record_of(row: Any) -> Record:
    """What record_row wrote. Raises ValueError for anything else."""
    at, link = (row.get("at"), row.get("link")) if isinstance(row, Mapping) else (None, None)
    if not isinstance(at, int | float) or not isinstance(link, str):
        raise ValueError("it is no record")
    return Record(incident_of(row.get("incident")), Event(str(row.get("event"))), float(at), link)


def stamp(seconds: float) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def made(incident: Incident, event: Event, link_base: str) -> Record:
    """A record of an incident as it is now."""
    return Record(incident, event, time.time(), incident_link(incident, link_base) or "")
