"""Incidents in sentences: what is claimed, with the numbers that stand behind it."""

from __future__ import annotations

from agents.core.text import NETWORK, amount_text, counted, printable, who
from agents.core.types import DAY_S, Incident
from agents.detection.secrets import preview
from agents.dns.name import from_text, labels_of, split_domain

NAMES_DECODED = 12
"""Names of an incident that are shown beside what they decode to."""


def lasting(seconds: float) -> str:
    """A span of time in its largest unit."""
    for size, noun in ((DAY_S, "day"), (DAY_S / 24, "hour"), (DAY_S / 1440, "minute")):
        if seconds >= 2 * size:
            return counted(seconds / size, noun)
    return counted(max(seconds, 1.0), "second")


def claim(incident: Incident) -> str:
    """What is claimed of an incident, in one sentence."""
    someone = who(incident.client) if incident.client != NETWORK else "Several clients"
    came = float(incident.evidence.get("bytes_in", 0) or 0)
    types = [*incident.evidence.get("qtypes", {})]
    through = f" through {types[0]} names" if types else ""
    by = f" of {printable(incident.tool, 60)}" if incident.tool else ""
    domain = "servers without a domain" if incident.domain == "." else printable(incident.domain)
    within = lasting(incident.last_seen - incident.first_seen)
    if came > incident.leaked_bytes:
        return f"{someone} took in at least {amount_text(came)} from {domain}{through}{by} within {within}."
    return f"{someone} sent at least {amount_text(incident.leaked_bytes)} to {domain}{through}{by} within {within}."


def decoded(incident: Incident) -> list[tuple[str, str]]:
    """Sample names, each with the text that its labels decode to; "" where they give none."""
    out = []
    for name in incident.sample_names[:NAMES_DECODED]:
        wire = from_text(name)
        below = labels_of(wire)[: len(split_domain(wire)[0])]  # in the letter case that codes need
        out.append((name, preview([below])))
    return out
