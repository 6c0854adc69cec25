"""What two models that cycles learn would have listed of this network's own last week, side by side.

The counterpart of alert_diff.py for the flow model and the sequence model, which list incidents and page nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.core.text import printable
from agents.core.types import DAY_S, Gate
from agents.detection.reasons import LEARNT_REASONS
from agents.learning.comparison.bounds import GateBounds
from agents.learning.loop.suspects import LATELY_S, READ_MAX
from agents.learning.run import plain
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore
from agents.store.sql import IncidentDatabase

COMPARED_DAYS = 7.0
"""Days that both models look at."""
LISTED_CHANGES_MAX = 50
"""Domains with changes that a comparison keeps, tunnels for certain first."""
LISTED_NAMES = 3
"""Sample names of a domain."""
Listings = Mapping[str, Sequence[tuple[float, str]]]
"""By domain what a model lists below it: when (Unix seconds), and which client."""


@dataclass(frozen=True, slots=True)
class ListedChange:
    """A domain below which two models list something else. what: new, lost or changed (at another time, or of another
    client)."""

    domain: str
    what: str
    times: int  # that the candidate lists it; of a lost one, that the model in use does
    names: tuple[str, ...] = ()  # samples, presentation form
    certain: bool = False  # a tunnel, by a rule or a person
    label: str = ""  # what people said of the domain


@dataclass(frozen=True, slots=True)
class ListedDiff:
    """What candidate and model in use list. Counts are of domains, but for those a week, which are of incidents."""

    rows: int = 0  # looked at by both; 0 = nothing was compared
    of: str = "flow-hours"  # or queries
    days: float = 0.0
    old_a_week: float = 0.0  # before the alert budget
    new_a_week: float = 0.0
    added: int = 0
    lost: int = 0
    changed: int = 0
    tunnels_lost: int = 0
    benign_added: int = 0
    changes: tuple[ListedChange, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        found: dict[str, Any] = plain(self)
        return found


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Domains below which nothing is listed: those that people decided about, and those with an incident lately."""

    labels: Mapping[str, Label] = field(default_factory=dict)
    incidents: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)  # from, until

    def holds(self, domain: str, at: float) -> bool:
        """Whether nothing is listed below a domain at a time, Unix seconds."""
        spans = self.incidents.get(domain, ())
        return domain in self.labels or any(since <= at <= until + LATELY_S for since, until in spans)


def passed_over(store: IncidentDatabase, since: float) -> PassedOver:
    """What stands since a time (Unix seconds); what learnt models themselves listed is left out. Raises StoreError."""
    labels = {one.domain: one.label for one in ReviewStore(store).decisions(standing=True, limit=READ_MAX)}
    spans: dict[str, list[tuple[float, float]]] = {}
    for one in store.incidents(since=since - LATELY_S, source="", limit=READ_MAX):
        if not one.reasons[0].startswith(LEARNT_REASONS):
            spans.setdefault(one.domain, []).append((one.first_seen, one.last_seen))
    return PassedOver(labels, spans)


def once_a_day(found: Iterable[tuple[float, str, str]], over: PassedOver) -> Listings:
    """Of (time, client, domain) in the order of time, what would be listed: one a domain and LATELY_S."""
    kept: dict[str, list[tuple[float, str]]] = {}
    for at, client, domain in found:
        before = kept.setdefault(domain, [])
        if (not before or at - before[-1][0] >= LATELY_S) and not over.holds(domain, at):
            before.append((at, client))
    return {domain: rows for domain, rows in kept.items() if rows}


@dataclass(frozen=True, slots=True)
class ListedSides:
    """What a comparison is made of. taken: domains that each model takes for a tunnel's, whether it lists them or not.

    alarming: the same, of what would be listed if nobody had decided anything. tunnels: domains that are tunnels for
    certain. stands_for: how many clients one that was read stands for.
    """

    old: Listings
    new: Listings
    taken: tuple[set[str], set[str]]
    alarming: tuple[set[str], set[str]]
    tunnels: set[str]
    over: PassedOver
    names: Callable[[str], Sequence[str]]
    stands_for: Callable[[str], float] = lambda client: 1.0


def listed_diff(sides: ListedSides, rows: int, of: str, days: float) -> ListedDiff:
    """Both sides compared. rows: of what (`of`) was looked at in so many days."""
    gone = sides.tunnels & (sides.taken[0] - sides.taken[1])
    benign = {domain for domain, label in sides.over.labels.items() if label is Label.BENIGN}
    alarms = benign & (sides.alarming[1] - sides.alarming[0])
    listed = [_change(domain, sides) for domain in {**sides.old, **sides.new} if _differs(domain, sides)]
    told = {one.domain for one in listed}
    listed += [_named(domain, "lost", 0, sides) for domain in sorted(gone - told)]
    listed += [_named(domain, "new", 0, sides) for domain in sorted(alarms - told)]
    a_week = [
        sum(sides.stands_for(client) for found in side.values() for _, client in found) * 7 / max(days, 1.0)
        for side in (sides.old, sides.new)
    ]
    return ListedDiff(
        rows=rows,
        of=of,
        days=days,
        old_a_week=a_week[0],
        new_a_week=a_week[1],
        added=len(sides.new.keys() - sides.old.keys()),
        lost=len(sides.old.keys() - sides.new.keys()),
        changed=sum(one.what == "changed" for one in listed),
        tunnels_lost=len(gone),
        benign_added=len(alarms),
        changes=tuple(sorted(listed, key=lambda one: (not one.certain, -one.times, one.domain))[:LISTED_CHANGES_MAX]),
    )


def _differs(domain: str, sides: ListedSides) -> bool:
    return list(sides.old.get(domain, ())) != list(sides.new.get(domain, ()))


def _change(domain: str, sides: ListedSides) -> ListedChange:
    old, new = sides.old.get(domain, ()), sides.new.get(domain, ())
    return _named(domain, "changed" if old and new else "new" if new else "lost", len(new or old), sides)


def _named(domain: str, what: str, times: int, sides: ListedSides) -> ListedChange:
    label = str(sides.over.labels.get(domain, ""))
    names = tuple(dict.fromkeys(sides.names(domain)))[:LISTED_NAMES]
    return ListedChange(domain, what, times, names, domain in sides.tunnels, label)


def listed_gates(found: ListedDiff, bounds: GateBounds) -> tuple[Gate, ...]:
    """The gates of a comparison; none where there was nothing to look at."""
    if not found.rows:
        return ()
    week = f"{found.rows:,} stored {found.of} of {found.days:.1f} days"
    most = max(bounds.budget_per_week, found.old_a_week * (1 + bounds.alert_rise))
    return (
        Gate("listed a week", found.new_a_week, most, False, f"{week}; the model in use has {found.old_a_week:.1f}"),
        Gate(
            "certain tunnels lost",
            found.tunnels_lost,
            bounds.tunnels_lost,
            False,
            f"that the model in use takes for one; {week}",
        ),
        Gate("benign domains listed", found.benign_added, bounds.benign_alarms, False, "that people had called benign"),
    )


def counts_alone(found: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison, as JSON, without domains and names: for what is kept longer than these are."""
    return {name: value for name, value in found.items() if name != "changes"}


def listed_text(found: Mapping[str, Any]) -> str:
    """A comparison, as JSON, in a sentence or two; "" where nothing was compared."""
    if not found.get("rows"):
        return ""
    return (
        f"Both models looked at {found['rows']:,} stored {found['of']} of {found['days']:.1f} days. Incidents to list a"
        f" week, before the alert budget: {found['old_a_week']:.1f} by the one, {found['new_a_week']:.1f} by the other."
        f" Domains new: {found['added']}, lost: {found['lost']}, changed: {found['changed']}."
    )


def listed_lines(found: Mapping[str, Any], shown: Callable[[str, int], str] = printable) -> list[str]:
    """The domains of a comparison, as JSON, a line each. shown: makes a name fit to be shown."""
    lines = []
    for one in found.get("changes", ()):
        names = f", as {', '.join(shown(name, 60) for name in one['names'])}" if one["names"] else ""
        said = f", people said {one['label']}" if one["label"] else ", a tunnel for certain" if one["certain"] else ""
        lines.append(f"{shown(one['domain'], 80)}: {one['what']}, {one['times']} times{said}{names}")
    return lines


def compared_days_of(first: float, last: float) -> float:
    """Days between two times, at least one."""
    return max((last - first) / DAY_S, 1.0)
