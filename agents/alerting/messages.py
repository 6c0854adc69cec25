"""What alerts say of a query and of an incident. A queried name is hostile text."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from agents.alerting.grouping import Due, Event, Group
from agents.core.text import NETWORK, command, counted, explanation_text, harmless, printable, senders_text, utc, who
from agents.core.types import Incident, Message, Severity

REASONS_MAX, LOSSES_MAX, INTAKES_MAX = 6, 4, 5
DOMAINS_MAX = 10
"""Incidents of a client that a message lists; it says how many more there are."""
CLIENTS_MAX = 20
"""Clients that a digest lists."""
TEST_MESSAGE = Message(
    "DNS tunnel detector: a test", "Nothing was found; somebody asked for this message.", (), Severity.NORMAL
)
"""A harmless message, to see whether channels work."""


def alert_message(query: str, client: str, score: float, severity: str, details: dict[str, Any]) -> Message:
    """One query as an alert; an unknown `severity` is shown as it is and coloured as HIGH."""
    known = Severity.__members__.get(severity.upper(), Severity.HIGH)
    facts = [("Query", harmless(query)), ("Client", printable(client)), ("Score", f"{score:.3f}")]
    facts += [("Severity", printable(severity.upper(), 20))]
    facts += [(printable(key, 60), harmless(value)) for key, value in list(details.items())[:10]]
    summary = f"{harmless(query)} asked by {printable(client, 60)} scored {score:.2f}."
    return Message(f"DNS tunnel alert: {printable(severity.upper(), 20)}", summary, facts, known)


def incident_message(incident: Incident, link_base: str = "", event: Event = Event.NEW) -> Message:
    """An incident as an alert: who, where to, how sure, why, how much has left, and what to do."""
    domain, client = harmless(incident.domain, 120), who(incident.client, 60)
    tool = f" It looks like {printable(incident.tool, 40)}." if incident.tool else ""
    leaked = counted(incident.leaked_bytes, "byte")
    facts = [
        ("Client", client),
        *([("Clients", harmless(senders_text(sent)))] if (sent := incident.evidence.get("clients")) else ()),
        ("Domain", domain),
        ("Severity", incident.severity.name),
        ("Score", f"{incident.score:.2f}"),
        ("Queries", f"{incident.queries:,} ({counted(incident.unique_names, 'unique name')})"),
        ("Leaked", f"about {leaked}"),
        ("First seen", utc(incident.first_seen)),
        ("Last seen", utc(incident.last_seen)),
        *([("Seen before", before)] if (before := seen_before(incident)) else ()),
        *(("Reason", harmless(reason)) for reason in incident.reasons[:REASONS_MAX]),
        *([("May be", explanation_text(found))] if (found := incident.evidence.get("explanation")) else ()),
        *(
            [("Learnt probability", f"{learnt:.2f}")]
            if (learnt := incident.evidence.get("probability")) is not None
            else ()
        ),
        *(
            [("Image of its last hours", f"one ordinary one in {10**rare:,.0f} is as strange")]
            if (rare := incident.evidence.get("image")) is not None
            else ()
        ),
        *(("Example", harmless(name)) for name in incident.sample_names[:3]),
        *([("Heard by", heard)] if (heard := _heard_by(incident)) else ()),
        *(("Not known", text) for text in incident.evidence.get("losses", ())[:LOSSES_MAX]),
        *_commands(incident),
    ]
    update = "Update: now " if event == Event.UPDATE else ""
    return Message(
        title=f"{update}{incident.severity.name}: {client} {_verb(incident.client)} data through {domain}",
        summary=f"About {leaked} left in {counted(incident.queries, 'query')}.{tool}",
        facts=facts,
        severity=incident.severity,
        thread_id=_thread(incident),
        link=incident_link(incident, link_base),
        link_text="Open incident",
    )


def _heard_by(incident: Incident) -> str:
    """The intakes that heard it, where it says so."""
    return ", ".join(harmless(name) for name in incident.evidence.get("intakes", ())[:INTAKES_MAX])


def _verb(client: str) -> str:
    return "send" if client == NETWORK else "sends"


def group_message(group: Group, link_base: str = "") -> Message:
    """What is new about one client: an incident, several, or that they ended."""
    entries = group.entries
    first = entries[0]
    if group.incidents == 1 and first.event != Event.ENDED:
        return incident_message(first.incident, link_base, first.event)
    client = who(group.client, 60)
    ended = all(due.event == Event.ENDED for due in entries)
    facts = [(harmless(due.incident.domain, 120), _line(due)) for due in entries[:DOMAINS_MAX]]
    if (more := group.incidents - len(facts)) > 0:
        facts.append(("And", f"{counted(more, 'more incident')}, see the console"))
    domains = harmless(first.incident.domain, 120) if group.incidents == 1 else counted(group.incidents, "domain")
    verb = ("no longer " if ended else "") + _verb(group.client)
    severity = "Ended" if ended else group.worst.name
    return Message(
        title=f"{severity}: {client} {verb} data through {domains}",
        summary=_total(entries),
        facts=facts + ([] if ended else _commands(first.incident)),
        severity=group.worst,
        thread_id=_thread(first.incident) if group.incidents == 1 else f"client {group.client}",
        link=incident_link(first.incident, link_base),
        link_text="Open incident",
    )


def digest_message(groups: Sequence[Group], link_base: str = "") -> Message:
    """Many clients in one message, where the hourly ceiling leaves no room for one each."""
    worst = max(group.worst for group in groups)
    facts = []
    for group in groups[:CLIENTS_MAX]:
        names = ", ".join(harmless(due.incident.domain, 60) for due in group.entries[:3])
        severity = group.worst.name if group.worst else "ended"
        others = f" and {group.incidents - 3:,} more" if group.incidents > 3 else ""
        facts.append((who(group.client, 60), f"{severity}: {names}{others}"))
    if (more := len(groups) - len(facts)) > 0:
        facts.append(("And", counted(more, "more client")))
    incidents = counted(sum(group.incidents for group in groups), "incident")
    return Message(
        title=f"{worst.name if worst else 'Ended'}: {incidents} of {counted(len(groups), 'client')}",
        summary="More messages than ALERTS_PER_HOUR_MAX would be due; the gravest come first.",
        facts=[*facts, *_commands(groups[0].entries[0].incident)],
        severity=worst,
        thread_id="digest",
        link=f"{link_base}/" if link_base else None,
        link_text="Open console",
    )


def _line(due: Due) -> str:
    incident = due.incident
    tool = f", {printable(incident.tool, 40)}" if incident.tool else ""
    amount = f"{counted(incident.leaked_bytes, 'byte')} in {counted(incident.queries, 'query')}{tool}"
    word = {Event.NEW: "", Event.UPDATE: "now ", Event.ENDED: "ended, was "}[due.event]
    return f"{word}{incident.severity.name}, about {amount}"


def _total(entries: Sequence[Due]) -> str:
    leaked = sum(due.incident.leaked_bytes for due in entries)
    queries = sum(due.incident.queries for due in entries)
    return f"About {counted(leaked, 'byte')} left in {counted(queries, 'query')}."


def _commands(incident: Incident) -> list[tuple[str, str]]:
    """The commands take a domain in this harmless form, too."""
    client, domain = printable(incident.client, 60), harmless(incident.domain, 260)
    return [
        ("Look", command(shlex.join(["explain", client, domain]))),
        ("If it is wanted", command(shlex.join(["allow", "preview", domain]))),
    ]


def _thread(incident: Incident) -> str:
    return f"incident {incident.client} {incident.domain}"


def incident_link(incident: Incident, link_base: str) -> str | None:
    """An incident's page in the console; None without one."""
    return f"{link_base}/console/incidents/{incident.incident_id}" if link_base else None


def seen_before(incident: Incident) -> str:
    """How many incidents of the same client and domain were over when this one began, and since when; "" for none."""
    before = incident.evidence.get("before")
    return f"{counted(before['incidents'], 'incident')} since {utc(before['first_seen'])}" if before else ""
