"""A network profile out of the detector's habits, the stored flow-hours, and the alert budget's choice.

What people look at or call a tunnel is left out. Amounts and counts are rounded, so that an ordinary week gives the
same profile as the week before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from agents.core.text import OWN_ZONES
from agents.core.types import DAY_S
from agents.detection.counting.flow_kernels import FAMILIAR_CLIENTS, YOUNG_S
from agents.detection.explanations.explainer import CLIENTS_MIN, is_inside
from agents.detection.explanations.habits import Usual
from agents.detection.explanations.kinds import KINDS
from agents.detection.explanations.network_profile import (
    HABITS_KEPT,
    REACH_KEPT,
    ZONES_KEPT,
    DomainHabit,
    DomainReach,
    FleetHabit,
    NetworkProfile,
    ZoneProposal,
    is_profile_domain,
)
from agents.detection.limits import KEPT_DAYS, BudgetChoice
from agents.detection.network import prefix_of
from agents.store.feedback.flow_hours import FlowHours

DIGITS = 2
"""Significant digits of amounts and counts."""
_REMEDIES = {kind.name: kind.remedy for kind in KINDS}


class Reach(NamedTuple):
    """Who asks below a domain. clients: most of one day, of IPv6 by prefix; first: first day, since 1970-01-01."""

    clients: int
    first: int


@dataclass(frozen=True, slots=True)
class Known:
    """What a profile is made of. left_out: domains that people look at or call a tunnel; own: zones that are taken.

    before: the profile of the model in use, which knows since when domains are known.
    """

    habits: Iterable[Usual]
    reach: Mapping[str, Reach]
    choice: BudgetChoice
    left_out: Collection[str]
    own: Collection[str]
    before: NetworkProfile | None
    now: float  # Unix seconds
    elsewhere: Callable[[str], bool] = lambda domain: False  # whether other sites of the fleet know a domain
    fleet: tuple[FleetHabit, ...] = ()  # what the other sites' domains usually carry


def reach_of(hours: FlowHours) -> dict[str, Reach]:
    """Who asked below each domain, by stored flow-hours."""
    days = (hours.hour // 24).tolist()
    asked = Counter(
        (domain, day) for domain, day, _ in set(zip(hours.domain, days, map(prefix_of, hours.client), strict=True))
    )
    found: dict[str, Reach] = {}
    for (domain, day), clients in asked.items():
        old = found.get(domain, Reach(0, day))
        found[domain] = Reach(max(old.clients, clients), min(old.first, day))
    return found


def make_profile(known: Known) -> NetworkProfile:
    """The profile. It has no client, and no name below a domain."""
    before = known.before
    first = _first_days(before) if before is not None else {}
    reach = {domain: one for domain, one in known.reach.items() if domain not in known.left_out}
    habits = sorted(_habits(known, reach, first), key=lambda one: (-one.usual, one.domain))[:HABITS_KEPT]
    today = int(known.now // DAY_S)
    common = [
        DomainReach(domain=domain, clients=_rounded(one.clients), since=_since(first.get(domain), one.first))
        for domain, one in reach.items()
        if one.clients >= FAMILIAR_CLIENTS and (today - one.first) * DAY_S >= YOUNG_S and is_profile_domain(domain)
    ]
    return NetworkProfile(
        days=known.choice.days,
        made=_day(today),
        factor=known.choice.factor,
        habits=tuple(sorted(habits, key=lambda one: one.domain)),
        reach=tuple(sorted(sorted(common, key=lambda one: -one.clients)[:REACH_KEPT], key=lambda one: one.domain)),
        elsewhere=tuple(sorted(_elsewhere(known, reach, {one.domain for one in common}))[:REACH_KEPT]),
        own_zones=tuple(_proposals(known, habits, reach)),
        kinds=dict(sorted(Counter(one.kind for one in habits).items())),
        fleet=known.fleet if known.choice.days < KEPT_DAYS else (),  # then its own four weeks say it better
    )


def _first_days(before: NetworkProfile) -> dict[str, str]:
    return {one.domain: one.since for one in before.habits} | {one.domain: one.since for one in before.reach}


def _habits(known: Known, reach: Mapping[str, Reach], first: Mapping[str, str]) -> Iterable[DomainHabit]:
    """One a domain: the most that it usually carries for one client, or for all."""
    most: dict[str, Usual] = {}
    for one in known.habits:
        domain = one.key.rpartition(" ")[2]
        if domain in known.left_out or not one.kind or not is_profile_domain(domain):
            continue
        if domain not in most or most[domain].amount < one.amount:
            most[domain] = one._replace(day=min(one.day, most[domain].day if domain in most else one.day))
    for domain, one in most.items():
        asked = reach.get(domain, Reach(1, one.day))
        yield DomainHabit(
            domain=domain,
            kind=one.kind,
            usual=_rounded(one.amount),
            clients=_rounded(asked.clients),
            since=_since(first.get(domain), min(one.day, asked.first)),
        )


def _elsewhere(known: Known, reach: Mapping[str, Reach], common: Collection[str]) -> Iterable[str]:
    return (one for one in reach if one not in common and is_profile_domain(one) and known.elsewhere(one))


def _proposals(known: Known, habits: Iterable[DomainHabit], reach: Mapping[str, Reach]) -> list[ZoneProposal]:
    """Zones that look like this network's own: nobody takes them but a person."""
    found: dict[str, ZoneProposal] = {}
    for domain, one in reach.items():
        if one.clients >= CLIENTS_MIN and is_profile_domain(domain) and is_inside(domain):
            why = "nobody in public owns its top level"
            found[domain] = ZoneProposal(zone=domain, clients=_rounded(one.clients), why=why)
    for habit in habits:
        if _REMEDIES.get(habit.kind) == OWN_ZONES and habit.clients >= CLIENTS_MIN:
            why = f"its names are those of a {habit.kind}"
            found.setdefault(habit.domain, ZoneProposal(zone=habit.domain, clients=habit.clients, why=why))
    left = [one for zone, one in found.items() if not any(_is_below(zone, own) for own in known.own)]
    return sorted(sorted(left, key=lambda one: -one.clients)[:ZONES_KEPT], key=lambda one: one.zone)


def _is_below(domain: str, zone: str) -> bool:
    return domain == zone or domain.endswith("." + zone)


def _since(before: str | None, day: int) -> str:
    return min(before, _day(day)) if before else _day(day)


def _day(number: int) -> str:
    return f"{datetime.fromtimestamp(number * DAY_S, UTC):%Y-%m-%d}"


def _rounded(amount: float) -> int:
    """Rounded up to DIGITS significant digits: a week like the last gives the same number."""
    if amount <= 0 or not np.isfinite(amount):
        return 0
    step: int = 10 ** max(math.floor(math.log10(amount)) + 1 - DIGITS, 0)
    return math.ceil(amount / step) * step
