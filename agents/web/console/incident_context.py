"""What is known around one incident: what else its client did, who else asks below its domain, earlier incidents.

The page of an incident and the API show the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agents.core.errors import AgentsError
from agents.core.text import NETWORK
from agents.core.types import DAY_S, HOUR_S, Incident
from agents.store.console.hunting import TOP
from agents.web.parts import Parts

OTHERS_DAYS = 7
"""Days before an incident was last seen over which others that ask below its domain are counted."""
ALL = 1_000_000
"""Others that are read, at most: some are listed, all are counted."""
EARLIER_MAX = 20
"""Other incidents of the client or the domain, at most."""


def context_of(parts: Parts, incident: Incident) -> dict[str, Any]:
    """What else is known around an incident; what cannot be read is None. See schemas.IncidentContext."""
    hunter, finder = parts.console.hunter, parts.console.finder
    near = incident.detected_at - HOUR_S, incident.detected_at + HOUR_S
    lately = incident.last_seen - OTHERS_DAYS * DAY_S, incident.last_seen + 1.0
    one_client, one_domain = incident.client not in ("", NETWORK), incident.domain not in (NETWORK, ".")
    reads: Mapping[str, Callable[[], Any]] = {
        "near": lambda: hunter.client(incident.client, *near, incident.source, limit=ALL) if one_client else None,
        "others": lambda: hunter.domain(incident.domain, *lately, incident.source, limit=ALL) if one_domain else None,
        "first_seen": lambda: hunter.first_seen([incident.domain]).get(incident.domain) if one_domain else None,
        "earlier": lambda: finder.around(incident, EARLIER_MAX),
    }
    found: dict[str, Any] = {}
    for name, read in reads.items():
        try:
            found[name] = read()
        except AgentsError:
            found[name] = None
    return found | {
        "near": _without(found["near"], incident.domain),
        "others": _without(found["others"], incident.client),
        "near_span": near,
        "others_span": lately,
    }


def _without(summary: Mapping[str, Any] | None, other: str) -> Mapping[str, Any] | None:
    """A summary whose list of others leaves one of them out, which the incident is about."""
    if summary is None:
        return None
    rest = [one for one in summary["others"] if one["other"] != other]
    return {**summary, "others": rest[:TOP], "others_count": len(rest)}
