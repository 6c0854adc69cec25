"""The network profile: what this network's domains usually carry, and who asks below them, as a reviewed artefact.

It is made with a model (learning/profile/), kept beside it under the hash of its content, and passes the same gates.
While a detector has one, it explains by it and not by what it has learnt since. It has no client and no name
below a domain. Whatever it says, allowances end at the caps of docs/bound.md (explainer.py).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from agents.core.errors import NameFormatError
from agents.core.npz import FormatError
from agents.core.text import counted
from agents.core.types import DAY_S
from agents.detection.counting.flow_kernels import FAMILIAR_CLIENTS, YOUNG_S
from agents.detection.explanations.kinds import KINDS
from agents.detection.limits import FACTOR_MAX, SCATTERED
from agents.dns.name import domain_text, from_text
from agents.scoring.reverse_names import delegation_of

PROFILE_FORMAT = 1
PROFILE_BYTES_MAX = 8 << 20
"""A larger file is no profile."""
HABITS_KEPT, REACH_KEPT, ZONES_KEPT = 5_000, 20_000, 100
"""Domains of each part, at most."""
SITES_AGREE, PREVALENCE_MIN = 2, 8
"""Sites of a fleet that know a domain before others learn of it, and distinct clients of all of them: five of each,
less what a sketch may miss."""
TEXT_NAME_MAX = 1024
"""Characters of a domain in presentation form: 255 bytes, each as \\DDD at most."""
HABIT_TIMES = 2.0
"""How many times what a domain carries on ordinary days is explained."""
SETTLED_TIMES = 3.0
"""How many times its budget a kind explains below a domain that is old and common here, or by habit at most."""
_BUDGETS = {kind.name: kind.budget for kind in KINDS}
_MANY = 10_000_000


def _as_domain(text: str) -> str:
    """A registered domain, or a delegation of addresses, as flows have it. Raises ValueError."""
    try:
        known = text != SCATTERED and (domain_text(from_text(text)) == text or _is_delegation(text))
    except NameFormatError:
        known = False
    if not known:
        raise ValueError("no registered domain")
    return text


def _is_delegation(text: str) -> bool:
    """Whether addresses' names (IPv4 or IPv6) are counted below it. Raises NameFormatError."""
    wire = from_text(text)
    return text.endswith(".arpa") and any(delegation_of(from_text("1." * labels + text)) == wire for labels in (2, 20))


def is_profile_domain(text: str) -> bool:
    """Whether a profile may name it: a registered domain or a delegation, in the form that flows have it in."""
    try:
        return _as_domain(text) == text and 0 < len(text) <= TEXT_NAME_MAX
    except ValueError:
        return False


def _as_day(text: str) -> str:
    return date.fromisoformat(text).isoformat()


def domain_hash_of(secret: str, domain: str) -> str:
    """What a domain is called between sites of a fleet: nobody without their secret can try names out."""
    text = b"domain " + domain.encode("utf-8", "surrogatepass")
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()[:16]


def kind_cap(kind: str) -> float:
    """Bytes a day that a kind of service explains below one domain, at most (docs/bound.md); 0 for what is none."""
    return SETTLED_TIMES * _BUDGETS.get(kind, 0.0)


DomainName = Annotated[str, Field(min_length=1, max_length=TEXT_NAME_MAX), AfterValidator(_as_domain)]
Day = Annotated[str, Field(max_length=10), AfterValidator(_as_day)]
Count = Annotated[int, Field(ge=0, le=_MANY)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DomainHabit(_Part):
    """What is usually carried below one domain. usual: bytes a day, the median of ordinary days."""

    domain: DomainName
    kind: Annotated[str, Field(max_length=64)]
    usual: Annotated[float, Field(ge=0, le=1e12)]
    clients: Count
    since: Day

    @property
    def cap(self) -> float:
        """What its kind explains below one domain on a day, at most; 0 for a kind that there is none of."""
        return kind_cap(self.kind)

    @property
    def allows(self) -> float:
        """Bytes that it lets pass without a page, a day."""
        return min(HABIT_TIMES * self.usual, self.cap)


class DomainReach(_Part):
    """A domain that is old and common here. clients: most on one day; since: its first day."""

    domain: DomainName
    clients: Count
    since: Day


class FleetHabit(_Part):
    """What is usual below a domain at other sites of the fleet, which is known by its keyed hash alone.

    usual: bytes a day as a kind of service, joined of what the sites said; 0 where they agree on none. clients:
    distinct ones over the fleet; sites: that said so.
    """

    hash: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    kind: Annotated[str, Field(max_length=64)]
    usual: Annotated[float, Field(ge=0, le=1e12)]
    clients: Count
    sites: Count

    @property
    def cap(self) -> float:
        """What its kind explains below one domain on a day, at most; 0 for a kind that there is none of."""
        return kind_cap(self.kind)


class ZoneProposal(_Part):
    """A zone that looks like one of this network's own. Only a person takes it: OWN_ZONES."""

    zone: DomainName
    clients: Count
    why: Annotated[str, Field(max_length=200)]


class NetworkProfile(_Part):
    """days: with queries that it was learnt from; made: the last of them. kinds: domains by kind of service seen here.

    factor: on the limits, as the alert budget chose it. elsewhere: domains that are new here and known at other sites
    of the fleet; that is told, and allows nothing. fleet: habits that a new site starts from, until it has its own.
    """

    format: Annotated[int, Field(ge=PROFILE_FORMAT, le=PROFILE_FORMAT)] = PROFILE_FORMAT
    days: Count = 0
    made: Day = "1970-01-01"
    factor: Annotated[float, Field(gt=0, le=1000)] = 1.0
    habits: Annotated[tuple[DomainHabit, ...], Field(max_length=HABITS_KEPT)] = ()
    reach: Annotated[tuple[DomainReach, ...], Field(max_length=REACH_KEPT)] = ()
    own_zones: Annotated[tuple[ZoneProposal, ...], Field(max_length=ZONES_KEPT)] = ()
    kinds: Annotated[dict[str, Count], Field(max_length=100)] = {}
    elsewhere: Annotated[tuple[DomainName, ...], Field(max_length=REACH_KEPT)] = ()
    fleet: Annotated[tuple[FleetHabit, ...], Field(max_length=HABITS_KEPT)] = ()
    _secret: str = PrivateAttr("")

    @cached_property
    def _usual(self) -> dict[str, float]:
        return {one.domain: one.usual for one in self.habits}

    @cached_property
    def _reached(self) -> frozenset[str]:
        return frozenset(one.domain for one in self.reach)

    @cached_property
    def _hashed(self) -> dict[str, FleetHabit]:
        return {one.hash: one for one in self.fleet}

    def keyed(self, secret: str) -> NetworkProfile:
        """The same profile, which finds the fleet's hashes; secret: FLEET_SECRET, no part of any file."""
        found = self.model_copy()
        found._secret = secret
        return found

    def fleet_habit(self, domain: str) -> FleetHabit | None:
        """What the fleet says of a domain; None where it says nothing, or without the secret."""
        if not (self._secret and self.fleet):
            return None
        return self._hashed.get(domain_hash_of(self._secret, domain))

    def fleet_usual(self, domain: str) -> float:
        """Bytes that are usually carried below a domain on a day at other sites; 0 where that is unknown."""
        found = self.fleet_habit(domain)
        return 0.0 if found is None else found.usual

    def usual(self, domain: str) -> float:
        """Bytes that are usually carried below a domain on a day, here or else elsewhere; 0 = unknown."""
        return self._usual.get(domain, 0.0) or self.fleet_usual(domain)

    def knows(self, domain: str) -> bool:
        """Whether a domain is old and common here."""
        return domain in self._reached

    def to_bytes(self) -> bytes:
        """The file: the same profile gives the same bytes."""
        return json.dumps(self._values(), sort_keys=True, separators=(",", ":")).encode()

    def _values(self, *left_out: str) -> dict[str, Any]:
        """As JSON values; without a fleet as releases write it that know of none."""
        empty = () if self.fleet else ("fleet",)
        return self.model_dump(mode="json", exclude={*left_out, *empty})

    @property
    def sha256(self) -> str:
        """Of the file's bytes: its name among the profiles, and in the manifest of its model."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """What the manifest of its model says of it. learnt: hash of what is the same after a week like the last."""
        counts = {name: len(getattr(self, name)) for name in ("habits", "reach", "own_zones")}
        learnt = json.dumps(self._values("made", "days"), sort_keys=True)
        digest = hashlib.sha256(learnt.encode()).hexdigest()
        return {"sha256": self.sha256, "learnt": digest, "days": self.days, "made": self.made, **counts}


def load_profile(data: bytes) -> NetworkProfile:
    """The profile in a file's bytes. Raises FormatError that shows nothing of its contents."""
    if len(data) > PROFILE_BYTES_MAX:
        raise FormatError("cannot read profile: it is too large")
    try:
        return NetworkProfile.model_validate_json(data)
    except ValidationError as error:  # its own text would show names
        first = error.errors(include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise FormatError(f"cannot read profile: {where or 'file'} is damaged ({first['type']})") from None


def beyond_cap(profile: NetworkProfile) -> Iterator[str]:
    """What a profile loosens beyond docs/bound.md, in words, a line each. None of it would be in force."""
    if profile.factor > FACTOR_MAX:
        yield f"limits times {profile.factor:g}, at most {FACTOR_MAX:g}"
    for habit in profile.habits:
        if habit.usual > habit.cap:
            kind = habit.kind if habit.cap else f"{habit.kind} (no such kind)"
            yield f"{habit.domain}: {habit.usual:,.0f} bytes a day as {kind}, at most {habit.cap:,.0f}"
    for said in profile.fleet:
        if said.usual > said.cap:
            yield f"a domain of the fleet: {said.usual:,.0f} bytes a day, at most {said.cap:,.0f}"
        if said.sites < SITES_AGREE or said.clients < PREVALENCE_MIN:
            yield f"a domain of the fleet: known at {counted(said.sites, 'site')} by {counted(said.clients, 'client')}"
    made = datetime.fromisoformat(profile.made).replace(tzinfo=UTC)
    for one in profile.reach:
        age = (made - datetime.fromisoformat(one.since).replace(tzinfo=UTC)).total_seconds()
        if one.clients < FAMILIAR_CLIENTS or age < YOUNG_S:
            known = f"{one.clients} clients and {max(age, 0) / DAY_S:.0f} days"
            yield f"{one.domain}: old and common with {known}, not {FAMILIAR_CLIENTS} and {YOUNG_S // DAY_S:.0f}"
