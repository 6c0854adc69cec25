"""What alerts say of a query and of an incident. A queried name is hostile text."""

from __future__ import annotations

from typing import Any

from agents.core.text import counted, harmless, printable, utc
from agents.core.types import Incident, Message, Severity

REASONS_MAX = 6


def alert_message(query: str, client: str, score: float, severity: str, details: dict[str, Any]) -> Message:
    """One query as an alert; an unknown `severity` is shown as it is and coloured as HIGH."""
    known = Severity.__members__.get(severity.upper(), Severity.HIGH)
    facts = [("Query", harmless(query)), ("Client", printable(client)), ("Score", f"{score:.3f}")]
    facts += [("Severity", printable(severity.upper(), 20))]
    facts += [(printable(key, 60), harmless(value)) for key, value in list(details.items())[:10]]
    summary = f"{harmless(query)} asked by {printable(client, 60)} scored {score:.2f}."
    return Message(f"DNS tunnel alert: {printable(severity.upper(), 20)}", summary, facts, known)


def incident_message(incident: Incident, link_base: str = "") -> Message:
    """An incident as an alert: who, where to, how sure, why, and how much has left."""
    domain, client = harmless(incident.domain, 120), printable(incident.client, 60)
    tool = f" It looks like {printable(incident.tool, 40)}." if incident.tool else ""
    leaked = f"{incident.leaked_bytes:,.0f} bytes"
    facts = [
        ("Client", client),
        ("Domain", domain),
        ("Severity", incident.severity.name),
        ("Score", f"{incident.score:.2f}"),
        ("Queries", f"{incident.queries:,} ({incident.unique_names:,} unique names)"),
        ("Leaked", f"about {leaked}"),
        ("First seen", utc(incident.first_seen)),
        ("Last seen", utc(incident.last_seen)),
        *([("Seen before", before)] if (before := seen_before(incident)) else ()),
        *(("Reason", harmless(reason)) for reason in incident.reasons[:REASONS_MAX]),
        *(("Example", harmless(name)) for name in incident.sample_names[:3]),
    ]
    return Message(
        title=f"{incident.severity.name}: {client} sends data through {domain}",
        summary=f"About {leaked} left in {incident.queries:,} queries.{tool}",
        facts=facts,
        severity=incident.severity,
        thread_id=f"incident {incident.client} {incident.domain}",
        link=f"{link_base}/" if link_base else None,
        link_text="Open console",
    )


def seen_before(incident: Incident) -> str:
    """How many incidents of the same client and domain were over when this one began, and since when; "" for none."""
    before = incident.evidence.get("before")
    return f"{counted(before['incidents'], 'incident')} since {utc(before['first_seen'])}" if before else ""
