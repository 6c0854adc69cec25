"""Two network profiles side by side, in words, and the gate that a candidate's has to pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import islice
from typing import Any

from agents.core.text import OWN_ZONES, amount_text, counted, printable
from agents.core.types import Gate
from agents.detection.explanations.network_profile import HABIT_TIMES, DomainHabit, NetworkProfile, beyond_cap
from agents.learning.run import ProfileChange

NO_PROFILE = NetworkProfile()
CHANGES_KEPT = 500
"""Changes that a run keeps, those that loosen most first."""
CAPS_NAMED = 5
"""What is beyond a cap that a gate names."""


def profile_gates(profile: NetworkProfile | None) -> tuple[Gate, ...]:
    """The gate of a candidate's profile: what it loosens ends at the caps of docs/bound.md. None without a profile."""
    if profile is None:
        return ()
    found = list(beyond_cap(profile))
    named = "; ".join(printable(one, 160) for one in islice(found, CAPS_NAMED))
    detail = named or "what may pass without a page, by docs/bound.md"
    return (Gate("profile beyond the bound", len(found), 0, False, detail),)


def profile_changes(old: NetworkProfile | None, new: NetworkProfile | None) -> tuple[ProfileChange, ...]:
    """What changes from one profile to another; what is loosened first, the most first."""
    before, after = old or NO_PROFILE, new or NO_PROFILE
    rows = [*_habits(before, after), *_limits(before, after), *_reach(before, after)]
    rows += _fleet(before, after)
    return tuple([*rows, *_elsewhere(before, after), *_zones(before, after), *_kinds(before, after)][:CHANGES_KEPT])


def change_lines(found: Sequence[ProfileChange | Mapping[str, Any]]) -> list[str]:
    """Changes in words, a line each, fit to be shown."""
    rows = [(one.domain, one.text) if isinstance(one, ProfileChange) else (one["domain"], one["text"]) for one in found]
    return [printable(text, 300) for _, text in rows]


def _habits(before: NetworkProfile, after: NetworkProfile) -> list[ProfileChange]:
    old, new = ({one.domain: one for one in side.habits} for side in (before, after))
    rows = []
    for domain in {**old, **new}:
        was, now = (side[domain].allows if domain in side else 0.0 for side in (old, new))
        if was != now:
            text = _habit_text(new.get(domain) or old[domain], was, now)
            rows.append((now - was, ProfileChange("looser" if now > was else "tighter", domain, text)))
    return [change for _, change in sorted(rows, key=lambda row: (-row[0], row[1].domain))]


def _habit_text(habit: DomainHabit, was: float, now: float) -> str:
    amount = f"would now allow {amount_text(now)} a day to {habit.domain}"
    if now < was:
        ends = f"would no longer allow {amount_text(was)} a day to {habit.domain}"
        return f"{ends}: {amount_text(now)} are left" if now else ends
    more = f" ({amount_text(was)} before)" if was else ""
    return f"{amount}{more}: {counted(habit.clients, 'client')}, since {month_text(habit.since)}, as {habit.kind}"


def _limits(before: NetworkProfile, after: NetworkProfile) -> Iterator[ProfileChange]:
    if before.factor != after.factor:
        what = "looser" if after.factor > before.factor else "tighter"
        yield ProfileChange(
            what, "", f"the alert budget sets limits to {after.factor:g} times, {before.factor:g} before"
        )


def _reach(before: NetworkProfile, after: NetworkProfile) -> Iterator[ProfileChange]:
    old, new = ({one.domain: one for one in side.reach} for side in (before, after))
    for domain in sorted(new.keys() - old.keys(), key=lambda one: (-new[one].clients, one)):
        asked = f"{counted(new[domain].clients, 'client')}, since {month_text(new[domain].since)}"
        yield ProfileChange("known", domain, f"would take {domain} for old and common here: {asked}")
    for domain in sorted(old.keys() - new.keys()):
        yield ProfileChange("forgotten", domain, f"would no longer take {domain} for old and common here")


def _elsewhere(before: NetworkProfile, after: NetworkProfile) -> Iterator[ProfileChange]:
    for domain in after.elsewhere:
        if domain not in before.elsewhere:
            yield ProfileChange("elsewhere", domain, f"{domain} is new here, and known at other sites of the fleet")


def _fleet(before: NetworkProfile, after: NetworkProfile) -> Iterator[ProfileChange]:
    """What a new site starts from, by kind: other sites' domains have no names here."""
    old, new = ({one.hash: one for one in side.fleet} for side in (before, after))
    for kind in sorted({one.kind for one in (*before.fleet, *after.fleet) if one.usual}):
        was, now = ([one for one in side.values() if one.kind == kind] for side in (old, new))
        if was == now:
            continue
        if not now:
            yield ProfileChange("tighter", "", f"the fleet's habits of {counted(len(was), 'domain')} end, as {kind}")
            continue
        most, sites = max(min(HABIT_TIMES * one.usual, one.cap) for one in now), max(one.sites for one in now)
        what = f"would start from the fleet's habits of {counted(len(now), 'domain')} ({len(was)} before)"
        yield ProfileChange("fleet", "", f"{what}: {amount_text(most)} a day at most, up to {sites} sites, as {kind}")


def _zones(before: NetworkProfile, after: NetworkProfile) -> Iterator[ProfileChange]:
    known = {one.zone for one in before.own_zones}
    for one in after.own_zones:
        if one.zone not in known:
            asked = counted(one.clients, "client")
            text = f"proposes {OWN_ZONES}={one.zone}: {asked}, {one.why}; only a person takes it"
            yield ProfileChange("proposal", one.zone, text)


def _kinds(before: NetworkProfile, after: NetworkProfile) -> Iterator[ProfileChange]:
    for kind in sorted({*before.kinds, *after.kinds}):
        was, now = before.kinds.get(kind, 0), after.kinds.get(kind, 0)
        if was != now:
            yield ProfileChange(
                "kind", "", f"kind of service seen here: {kind}, below {counted(now, 'domain')} ({was} before)"
            )


def month_text(day: str) -> str:
    """A day (YYYY-MM-DD) as month and year."""
    return f"{date.fromisoformat(day):%B %Y}"
