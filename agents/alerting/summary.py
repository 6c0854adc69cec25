"""The weekly summary: incidents that nobody was paged for, by domain, with what would settle them; and what was heard.

A week without an incident has one, too: "nothing was found" is told from "nothing was heard".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from agents.alerting.manager import is_paged
from agents.core.text import OWN_ZONES, command, counted, harmless, printable
from agents.core.types import Incident, Message, Severity

DOMAINS_SHOWN = 20
"""Domains that a summary lists, those through which most left first."""
INTAKES_SHOWN = 20
"""Intakes that it lists, silent ones first."""


def summary_message(incidents: Sequence[Incident], heard: Mapping[str, int], days: int, link_base: str = "") -> Message:
    """What was listed, how much was told at once, and what was heard, in so many days. heard: queries by intake."""
    listed = [one for one in incidents if not is_paged(one)]
    told = len(incidents) - len(listed)
    is_deaf = not any(heard.values())
    if is_deaf:
        title = f"nothing was heard in {counted(days, 'day')}"
    else:
        title = f"{counted(len(listed), 'incident') if listed else 'no incident'} listed in {counted(days, 'day')}"
    text = "No query came in: see dns-tunnel doctor. " if is_deaf else ""
    text += "Nobody was paged for them. " if listed else ""
    text += f"{counted(told, 'more incident' if listed else 'incident')} {'was' if told == 1 else 'were'} told at once."
    worst = max((one.severity for one in listed), default=Severity.NORMAL)
    return Message(
        f"DNS tunnel detector: {title}",
        text,
        [*(_facts(listed) if listed else ()), ("Heard", intakes_line(heard))],
        max(worst, Severity.HIGH) if is_deaf else worst,
        thread_id="summary",
        link=f"{link_base}/console/weekly" if link_base else None,
        link_text="Open the week",
    )


def intakes_line(heard: Mapping[str, int]) -> str:
    """What was heard from each intake, silent ones first."""
    if not heard:
        return "nothing: no intake was there"
    names = sorted(heard, key=lambda name: heard[name] > 0)
    texts = [f"{printable(name, 120)} {counted(heard[name], 'query') if heard[name] else 'none'}" for name in names]
    more = len(texts) - INTAKES_SHOWN
    return "; ".join(texts[:INTAKES_SHOWN]) + (f"; and {counted(more, 'more intake')}" if more > 0 else "")


def _facts(listed: Sequence[Incident]) -> list[tuple[str, str]]:
    """Incidents by domain, and what would settle them."""
    domains: dict[str, list[Incident]] = defaultdict(list)
    for one in listed:
        domains[one.domain].append(one)
    loudest = sorted(domains, key=lambda domain: (-sum(one.leaked_bytes for one in domains[domain]), domain))
    facts = [(harmless(domain, 120), _line(domains[domain])) for domain in loudest[:DOMAINS_SHOWN]]
    if (more := len(loudest) - len(facts)) > 0:
        facts.append(("And", f"{counted(more, 'more domain')}, see the console"))
    own = set(likely_own(listed))
    zones = [harmless(domain, 120) for domain in loudest if domain in own]
    if zones:
        facts.append(
            ("Your own?", f"{OWN_ZONES}={','.join(zones[:DOMAINS_SHOWN])}, if these are zones of your network")
        )
    if any(one.evidence.get("burn_in") for one in listed):
        facts.append(("Habits", "were being learnt: what you neither allow nor stop becomes usual"))
    facts.append(("If one is wanted", command("allow preview DOMAIN")))
    return facts


def likely_own(incidents: Sequence[Incident]) -> list[str]:
    """Domains of incidents that look like asking of a zone of this network's own, in their order."""
    return list(dict.fromkeys(one.domain for one in incidents if _remedy(one) == OWN_ZONES))


def _remedy(incident: Incident) -> str:
    return str(_explanation(incident).get("remedy", ""))


def _explanation(incident: Incident) -> dict[str, Any]:
    found: dict[str, Any] = incident.evidence.get("explanation") or {}
    return found


def _line(incidents: Sequence[Incident]) -> str:
    kinds = sorted({str(_explanation(one)["kind"]) for one in incidents if _explanation(one)})
    what = f"; may be {printable(', '.join(kinds), 120)}" if kinds else "; no kind of service explains it"
    clients = counted(len({one.client for one in incidents}), "client")
    worst = max(one.severity for one in incidents).name
    leaked = counted(sum(one.leaked_bytes for one in incidents), "byte")
    return f"{worst}, {clients}, {counted(len(incidents), 'incident')}, about {leaked}{what}"
