"""What is usual below domains, between sites: said by each of its own, joined so that none moves more than its share.

A domain is a keyed hash. A site says something of those that K_ANONYMOUS of its clients ask below, other sites learn of
those that SITES_AGREE of them spoke of, with PREVALENCE_MIN distinct clients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agents.detection.explanations.kinds import KINDS
from agents.detection.explanations.network_profile import (
    HABITS_KEPT,
    PREVALENCE_MIN,
    SITES_AGREE,
    FleetHabit,
    NetworkProfile,
    domain_hash_of,
    kind_cap,
)
from agents.detection.network import prefix_of
from agents.learning.fleet.sketches import (
    SKETCH_PATTERN,
    client_place,
    joined_estimate,
    registers_of,
    sketch_of,
    sketch_text,
)
from agents.store.feedback.flow_hours import FlowHours

K_ANONYMOUS = 5
"""Clients of a site that ask below a domain before anything is sent of it."""
HABITS_SENT = 500
"""Domains that a site speaks of, at most: those that carry most, then those that most clients ask below."""
_NAMES = frozenset(kind.name for kind in KINDS)


def _as_kind(text: str) -> str:
    if text and text not in _NAMES:
        raise ValueError("no kind of service")
    return text


class HabitPart(BaseModel):
    """What a site says of one domain. kind, usual: "" and 0 where it is common there, and carries nothing by habit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    hash: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    kind: Annotated[str, Field(max_length=64), AfterValidator(_as_kind)]
    usual: Annotated[int, Field(ge=0, le=1_000_000)]
    clients: Annotated[str, Field(pattern=SKETCH_PATTERN)]


def site_habits(profile: NetworkProfile | None, hours: FlowHours, secret: str, number: int) -> list[HabitPart]:
    """What this site says in a round, of its own profile alone; nothing without a secret.

    hours: the flow-hours of the last week; number: of the round.
    """
    if profile is None or not secret:
        return []
    asking: dict[str, set[str]] = {}
    for domain, client in zip(hours.domain, map(prefix_of, hours.client), strict=True):
        asking.setdefault(domain, set()).add(client)
    carried = {one.domain: (one.kind, int(min(one.usual, one.cap))) for one in profile.habits}
    known = {one.domain: ("", 0) for one in profile.reach} | carried
    common = [domain for domain in known if len(asking.get(domain, ())) >= K_ANONYMOUS]
    chosen = sorted(common, key=lambda one: (-known[one][1], -len(asking[one]), one))[:HABITS_SENT]
    places = {client: client_place(secret, number, client) for client in {c for one in chosen for c in asking[one]}}
    found = [
        HabitPart(
            hash=domain_hash_of(secret, domain),
            kind=known[domain][0] if known[domain][0] in _NAMES else "",
            usual=known[domain][1],
            clients=sketch_text(sketch_of(places[client] for client in asking[domain])),
        )
        for domain in chosen
    ]
    return sorted(found, key=lambda one: one.hash)


def joined_habits(sites: Sequence[Sequence[HabitPart]]) -> list[FleetHabit]:
    """What the fleet says of domains; a list a site. One site's say alone is nothing."""
    said: dict[str, list[HabitPart]] = {}
    for site in sites:
        for part in {one.hash: one for one in site}.values():
            said.setdefault(part.hash, []).append(part)
    found = [_joined_habit(name, parts) for name, parts in said.items() if len(parts) >= SITES_AGREE]
    kept = sorted((one for one in found if one is not None), key=lambda one: (-one.usual, -one.clients, one.hash))
    return sorted(kept[:HABITS_KEPT], key=lambda one: one.hash)


def _joined_habit(name: str, parts: Sequence[HabitPart]) -> FleetHabit | None:
    """One domain's: the low median of what sites say that agree on its kind, of two sites the lesser."""
    clients = round(joined_estimate([registers_of(one.clients) for one in parts]))
    if clients < PREVALENCE_MIN:
        return None
    kinds = Counter(one.kind for one in parts if one.kind)
    kind = min(kinds, key=lambda one: (-kinds[one], kind_cap(one), one), default="")
    if kinds[kind] < SITES_AGREE:
        return FleetHabit(hash=name, kind="", usual=0, clients=clients, sites=len(parts))
    usual = median_low(min(one.usual, kind_cap(kind)) for one in parts if one.kind == kind)
    return FleetHabit(hash=name, kind=kind, usual=usual, clients=clients, sites=len(parts))


def kinds_seen(habits: Sequence[FleetHabit]) -> Mapping[str, int]:
    """Domains by the kind of service that they are of over the fleet."""
    return dict(sorted(Counter(one.kind for one in habits if one.kind).items()))
