"""All flows in plain Python: caps, sweep, familiar domains, carriers, scattered names, and evidence.

An oracle of judge_kernels.py, flows.py and limits.py; tests/detection/test_state.py holds them equal.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from agents.core.types import DAY_S
from agents.detection import limits as policy
from agents.detection.counting.flow_kernels import (
    CARRIER_NAMES,
    CARRYING_TYPES,
    CELLS,
    FAMILIAR_AGE_S,
    FAMILIAR_CLIENTS,
    FAMILIAR_FACTOR,
    KNOWN_NAMES_MIN,
    MIX_FOLLOWER,
    YOUNG_S,
)
from agents.detection.counting.order_kernels import USUAL_TYPES
from agents.detection.evidence_kernels import (
    ANSWER_BYTES_A_NAME,
    BEACON_FASTEST_S,
    BEACON_SLOWEST_S,
    BEACON_SWING,
    BURST_S,
    NUMBERED_SHARE,
    PART,
    POLL_FASTEST_S,
    SCATTERED_BYTES_A_NAME,
    SCATTERED_NAMES,
    SIBLING_DOMAINS,
    SPARED_DOMAINS,
)
from agents.detection.flows import CLIENT_KEPT, HEARD_PLACES, IDLE_S, KEYS_KEPT
from agents.detection.judge_kernels import PEAK_MIN, SWEEP_S
from agents.detection.limits import Evidence
from agents.detection.state import (
    ANSWERS,
    CARRIERS_MAX,
    CHOICE,
    ENCODED,
    ENCODED_NAMES,
    FIRST,
    INFORMATION,
    NAMES,
    ORDERED,
    SHARING_MAX,
    SUMS,
    UNNUMBERED,
    WINDOWS_S,
    Kind,
    Left,
    Scope,
    Sign,
)
from tests.support.plain_flow import Client, Flow, Query, Window, single

NOTHING = Evidence(0.0)


@dataclass(frozen=True, slots=True)
class Event:
    """A query that may open or go on with an incident, with its flow as it was then."""

    query: int  # how many came before it
    client: str
    scattered: bool
    evidence: Evidence
    fresh: bool
    secret: bool
    queries: int
    names: int
    leaked: float
    sharing: tuple[int, ...]  # domains of the loudest carriers


@dataclass
class Siblings:
    """New encoded names of one form and type that one client asked for below young domains."""

    windows: list[Window] = field(default_factory=lambda: [Window(seconds) for seconds in WINDOWS_S])
    label: int = 0
    ts: float = -math.inf
    domains: set[int] = field(default_factory=set)


@dataclass
class State:
    """What is known of all clients; at most `keys_max` flows, and `client_max` of one client."""

    keys_max: int
    client_max: int
    factor: float = 1.0
    flows: dict[tuple[str, int], Flow] = field(default_factory=dict)
    scattered: dict[str, Flow] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=lambda: defaultdict(Client))
    carriers: dict[str, list[Flow]] = field(default_factory=dict)
    familiar: dict[int, tuple[float, int]] = field(default_factory=dict)  # first seen, clients
    names_below: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # of any client, or more
    followers: dict[int, int] = field(default_factory=dict)
    heard: dict[int, int] = field(default_factory=dict)  # names that any client asked for, by place
    siblings: dict[tuple[str, int, int], Siblings] = field(default_factory=dict)
    swept: float = float("-inf")
    refused: int = 0
    judged: int = 0
    events: list[Event] = field(default_factory=list)
    peaks: list[tuple[int, bool, float]] = field(default_factory=list)  # query, scattered, ratio

    def judge(self, query: Query) -> Evidence:
        """Count one query; the evidence that decides its severity, where no incident does."""
        self.judged += 1
        counts = (query.data > 0 or query.left == Left.UNKEPT) and self._is_young(query)
        if not query.parts and query.qtype in USUAL_TYPES and not counts:
            return NOTHING
        flow = self._flow(query)
        if flow is None:
            self.refused += 1
            return NOTHING
        flow.pause(query.ts)
        if query.scoped != Scope.REVERSE:
            self.clients[query.client].meet(query.ts, flow)
        discount = query.discount * self._familiar_factor(query)
        new, amounts = flow.add(query, self._is_young(query), discount, lambda: self._pointing(query))
        if (new or amounts[CHOICE] > 0) and query.discount <= 1 and query.client:
            self._scatter(query, flow, amounts)
        return self._weigh(query, flow, new, amounts)

    # Flows, and the room for them

    def _flow(self, query: Query) -> Flow | None:
        found = self.flows.get((query.client, query.domain))
        if found is not None:
            return found
        if self._is_full(query.client) and not self.swept <= query.ts < self.swept + SWEEP_S:
            self._sweep(query.ts)
        if self._is_full(query.client):
            return None
        made = Flow(query.client, query.domain, query.ts, query.ts, table=self.followers)
        self.flows[query.client, query.domain] = made
        self._greet(made)
        return made

    def _all(self) -> list[Flow]:
        return [*self.flows.values(), *self.scattered.values()]

    def _is_full(self, client: str) -> bool:
        held = [flow.client for flow in self._all()]
        return len(held) >= self.keys_max or held.count(client) >= self.client_max

    def _sweep(self, ts: float) -> None:
        """Idle flows go, and the oldest without evidence of clients that used up their room."""
        self.swept = ts
        for flow in self._all():
            idle = ts - flow.last_seen
            if not flow.watched and (idle > WINDOWS_S[-1] or (idle > IDLE_S and not flow.has_evidence)):
                self._drop(flow)
        for client in {flow.client for flow in self._all()} if self.client_max < self.keys_max else ():
            mine = [flow for flow in self._all() if flow.client == client]
            if len(mine) >= self.client_max:
                useless = sorted(
                    (flow for flow in mine if not flow.watched and not flow.has_evidence), key=lambda f: f.first_seen
                )
                for flow in useless[: len(mine) - int(self.client_max * CLIENT_KEPT)]:
                    self._drop(flow)
        if len(self._all()) >= self.keys_max:
            free = [flow for flow in self._all() if not flow.watched]
            free.sort(key=lambda f: (f.leaked if f.has_evidence else 0.0, f.first_seen))
            for flow in free[: self.keys_max - int(self.keys_max * KEYS_KEPT)]:
                self._drop(flow)
        self.carriers.clear()
        self.familiar.clear()
        self.names_below.clear()
        for flow in self.flows.values():
            self._greet(flow)
            self.names_below[flow.domain] += flow.names

    def _drop(self, flow: Flow) -> None:
        if flow.scattered:
            del self.scattered[flow.client]
        else:
            del self.flows[flow.client, flow.domain]

    # Common domains

    def _greet(self, flow: Flow) -> None:
        first, clients = self.familiar.get(flow.domain, (flow.first_seen, 0))
        self.familiar[flow.domain] = min(first, flow.first_seen), clients + 1

    def _familiar_factor(self, query: Query) -> float:
        first, clients = self.familiar[query.domain]
        return FAMILIAR_FACTOR if clients >= FAMILIAR_CLIENTS and query.ts - first >= FAMILIAR_AGE_S else 1.0

    def _is_young(self, query: Query) -> bool:
        first, clients = self.familiar.get(query.domain, (query.ts, 0))
        return query.ts - first < YOUNG_S or clients < FAMILIAR_CLIENTS

    def _is_strange(self, query: Query) -> bool:
        first, clients = self.familiar.get(query.domain, (query.ts, 0))
        return query.ts - first < YOUNG_S and clients < FAMILIAR_CLIENTS

    def _pointing(self, query: Query) -> float:
        """Bits that point at a name that any client asked for before."""
        place = (query.name * int(MIX_FOLLOWER) % 2**64 >> 32) % HEARD_PLACES
        if self.heard.get(place) == query.name:
            return math.log2(max(self.names_below[query.domain], KNOWN_NAMES_MIN) + 2)
        self.heard[place] = query.name
        self.names_below[query.domain] += 1
        return math.inf

    # Throw-away domains

    def _scatter(self, query: Query, flow: Flow, amounts: Sequence[float]) -> None:
        """What a client carries below throw-away domains, and in words below young ones, adds up in one flow."""
        found = self.scattered.get(query.client)
        beyond = flow.encoded > policy.SPREAD_SPARED_BYTES[86_400] and flow.encoded_names >= CARRIER_NAMES
        if flow.lent > 0 and beyond:
            for window in found.windows if found else ():
                window.take_back(flow.lent)
            flow.lent = 0.0
        part = [0.0] * SUMS
        thrown = flow.encoded_names <= SCATTERED_NAMES and amounts[ENCODED] >= SCATTERED_BYTES_A_NAME
        if thrown and not query.scoped:
            flow.lent = single(flow.lent + amounts[ENCODED])
            part[ENCODED], part[ENCODED_NAMES] = amounts[ENCODED], amounts[ENCODED_NAMES]
        if not flow.alone and self._is_young(query):
            part[ORDERED] = amounts[CHOICE]
            later = max(min(amounts[INFORMATION], flow.leaked - policy.WORDS_SPARED_BYTES), 0.0)
            part[INFORMATION] = single(later * (1.0 if query.numbered is None else NUMBERED_SHARE))
            part[FIRST] = single(amounts[INFORMATION] - later)
        if not (part[ENCODED] or part[INFORMATION] or part[FIRST] or part[ORDERED]):
            return
        new = amounts[NAMES] > 0
        part[NAMES] = float(new)
        if found is None:
            if self._is_full(query.client):
                return
            found = self.scattered[query.client] = Flow(query.client, 0, query.ts, query.ts, scattered=True)
        found.pause(query.ts)
        found.last_seen = max(found.last_seen, query.ts)
        found.queries += 1
        found.names += new
        found.encoded_names += part[ENCODED] > 0
        found.leaked += max(part[INFORMATION] + part[FIRST], part[ENCODED]) + part[ORDERED]
        found.encoded += part[ENCODED]
        found.note(query.ts, part)
        found.keep(query, new)
        evidence, crowd = NOTHING, self.clients[query.client].crowd
        for window in found.windows:
            sums = window.sums(query.ts)
            carried = sums[ENCODED], sums[NAMES], found.encoded_names, crowd
            if found.encoded_names >= policy.SCATTERED_DOMAINS:
                evidence = _louder(evidence, window.seconds, policy.SCATTERED_BYTES, Kind.SCATTERED, *carried)
            first = sums[FIRST], sums[NAMES], 1, crowd
            evidence = _louder(evidence, window.seconds, policy.FIRST_BYTES, Kind.FIRST, *first)
        below = part[INFORMATION] > 0 or part[ORDERED] > 0
        for window, mine in zip(found.windows if below else (), flow.windows, strict=False):
            sums, own, seconds = window.sums(query.ts), mine.sums(query.ts), window.seconds
            rest = sums[NAMES], 1, crowd
            words = own[UNNUMBERED] + NUMBERED_SHARE * (own[INFORMATION] - own[UNNUMBERED])
            if PART * words < sums[INFORMATION]:
                evidence = _louder(evidence, seconds, policy.WORDS_BYTES, Kind.WORDS, sums[INFORMATION], *rest)
            if PART * own[CHOICE] < sums[ORDERED]:
                evidence = _louder(evidence, seconds, policy.ORDERED_BYTES, Kind.ORDERED, sums[ORDERED], *rest)
        evidence = self._scaled(found, evidence, query)
        if evidence.ratio >= 1 or found.watched:
            self._tell(query, found, evidence, fresh=new, secret=False)

    # Evidence

    def _weigh(self, query: Query, flow: Flow, new: bool, amounts: Sequence[float]) -> Evidence:
        carries = query.discount <= 1 and query.client != "" and self._carry(flow)
        crowd = self.clients[flow.client].crowd
        evidence = _own(query.ts, flow, self._is_young(query) and query.discount <= 1)
        if evidence.ratio >= self.factor and not flow.alone:
            flow.alone, words = True, flow.leaked - policy.WORDS_SPARED_BYTES
            found = self.scattered.get(query.client)
            for window in found.windows if found and words > 0 else ():
                window.now[INFORMATION] = single(max(window.now[INFORMATION] - words, 0.0))
        if carries and not flow.alone:
            evidence = _shared(evidence, query.ts, flow, self._sharing(flow.client), crowd, self.factor)
        plain = query.discount <= 1 and query.client and not query.scoped
        if plain and new:
            evidence = self._siblings(evidence, query, flow, amounts, crowd)
        evidence = self._scaled(flow, evidence, query)
        if plain and evidence.ratio < 1 and self._is_strange(query):
            evidence = self._beacon(evidence, query.ts, flow) if new else evidence
            evidence = self._polls(evidence, flow)
        secret = new and query.secret
        if evidence.ratio >= 1 or flow.watched or secret:
            self._tell(query, flow, evidence, new, secret)
            return NOTHING
        return evidence if new else NOTHING

    def _siblings(self, best: Evidence, query: Query, flow: Flow, amounts: Sequence[float], crowd: float) -> Evidence:
        """The same for names of one form below several young domains, but the first below each."""
        text = query.qtype in CARRYING_TYPES
        whole = text and flow.names > 1 and amounts[INFORMATION] >= SCATTERED_BYTES_A_NAME
        partly = flow.encoded_names > 1 and amounts[ENCODED] >= policy.FRESH_BYTES_A_NAME
        if not (whole or partly) or not self._is_young(query):
            return best
        key = (query.client, query.form, 0 if text else query.qtype)
        label = sum(part.key for part in query.parts) % 2**64
        kept = self.siblings.get(key)
        if kept is None or kept.windows[-1].sums(query.ts)[NAMES] <= 0:
            kept = self.siblings[key] = Siblings()
        if label == kept.label or abs(query.ts - kept.ts) < BURST_S:
            return best
        kept.label, kept.ts = label, query.ts
        kept.domains.add(query.domain >> 58)
        part = [0.0] * SUMS
        part[NAMES] = part[ENCODED_NAMES] = 1.0
        if not whole:
            part[ENCODED_NAMES] = single(min(amounts[ENCODED] / SCATTERED_BYTES_A_NAME, 1.0))
        for window in kept.windows:
            window.add(query.ts, part)
        domains = round(CELLS * math.log(CELLS / max(CELLS - len(kept.domains), 1)))
        blamed = domains >= SIBLING_DOMAINS and (flow.names if text else flow.encoded_names) > SCATTERED_NAMES
        for window, own in zip(kept.windows if blamed else (), flow.windows, strict=False):
            sums = window.sums(query.ts)
            names = sums[NAMES]
            if PART * own.sums(query.ts)[NAMES] <= names:
                seconds, limits = window.seconds, policy.SIBLING_NAMES
                best = _louder(best, seconds, limits, Kind.SIBLINGS, sums[ENCODED_NAMES], names, domains, crowd)
                if seconds in limits and sums[ENCODED_NAMES] >= limits[seconds] * crowd * self.factor:
                    best = replace(best, sign=Sign.SIBLINGS)
        return best

    def _beacon(self, evidence: Evidence, ts: float, flow: Flow) -> Evidence:
        """New names at a machine's pace are a beacon, just at its limit."""
        window = flow.windows[WINDOWS_S.index(3600)]
        names, limit = window.sums(ts)[NAMES], policy.BEACON_NAMES[3600] * self.factor
        if not BEACON_FASTEST_S <= flow.pace / 16 <= BEACON_SLOWEST_S:
            return evidence
        if flow.swing > BEACON_SWING * flow.pace or names < limit:
            return evidence
        counted = sum(flow.qtypes.values())
        sign = Sign.NONE
        if counted and 2 * sum(flow.qtypes.get(one, 0) for one in CARRYING_TYPES) >= counted:
            sign = Sign.TYPES
        elif 2 * flow.encoded_names >= flow.names and 2 * flow.empty >= flow.queries:
            sign = Sign.EMPTY
        elif 2 * flow.encoded_names >= flow.names and flow.bytes_in >= ANSWER_BYTES_A_NAME * flow.names:
            sign = Sign.DIFFER
        return Evidence(1.0, 3600, flow.pace / 16, limit, round(names), Kind.BEACON, 1, sign)

    def _polls(self, evidence: Evidence, flow: Flow) -> Evidence:
        """Queries for text at a machine's pace are an implant that waits, just at their limit."""
        limit = policy.POLLS[86_400] * self.factor
        if evidence.ratio >= 1 or flow.polls < limit or flow.poll_pace < POLL_FASTEST_S * 16:
            return evidence
        if flow.poll_swing > BEACON_SWING * flow.poll_pace:
            return evidence
        return Evidence(1.0, 86_400, flow.poll_pace / 16, limit, flow.polls, Kind.POLLS)

    def _carry(self, flow: Flow) -> bool:
        """Let a flow stand among its client's carriers, if it is one."""
        if flow.encoded_names < CARRIER_NAMES:
            return False
        carriers = self.carriers.setdefault(flow.client, [])
        if flow not in carriers and len(carriers) < CARRIERS_MAX:
            carriers.append(flow)
        elif flow not in carriers:
            carriers[carriers.index(min(carriers, key=lambda one: one.encoded))] = flow
        return True

    def _sharing(self, client: str) -> list[Flow]:
        return [flow for flow in self.carriers.get(client, ()) if not flow.alone]

    def _scaled(self, flow: Flow, evidence: Evidence, query: Query) -> Evidence:
        """Evidence by limits at `factor`; what it reached in a day, before that, is noted."""
        day = math.floor(query.ts / DAY_S)
        if evidence.ratio >= PEAK_MIN and (flow.peak[0] != day or evidence.ratio > flow.peak[1]):
            flow.peak = day, single(evidence.ratio)
            self.peaks.append((self.judged - 1, flow.scattered, evidence.ratio))
        return replace(evidence, ratio=evidence.ratio / self.factor, limit=evidence.limit * self.factor)

    def _tell(self, query: Query, flow: Flow, evidence: Evidence, fresh: bool, secret: bool) -> None:
        flow.watched = flow.watched or evidence.sign != Sign.NONE or evidence.kind not in (Kind.BEACON, Kind.POLLS)
        loudest = sorted(self._sharing(flow.client), key=lambda one: -one.encoded)[:SHARING_MAX]
        sharing = tuple(one.domain for one in loudest) if evidence.kind in (Kind.SPREAD, Kind.SPREAD_FRESH) else ()
        self.events.append(
            Event(
                query=self.judged - 1,
                client=query.client,
                scattered=flow.scattered,
                evidence=evidence,
                fresh=fresh,
                secret=secret,
                queries=flow.queries,
                names=flow.names,
                leaked=flow.leaked,
                sharing=sharing,
            )
        )


def _is_fresh(flow: Flow) -> bool:
    encoded, new = flow.encoded_names / max(flow.names, 1), flow.names / max(flow.queries, 1)
    return encoded >= policy.FRESH_ENCODED_SHARE and new >= policy.FRESH_NAME_SHARE


def _own(ts: float, flow: Flow, young: bool) -> Evidence:
    """The limit that one flow is nearest to, or furthest beyond."""
    best, enough = NOTHING, flow.names >= policy.MIN_NAMES
    for window in flow.windows:
        sums, seconds = window.sums(ts), window.seconds
        names = sums[NAMES]
        best = _louder(best, seconds, policy.ANSWER_BYTES, Kind.ANSWERS, sums[ANSWERS], names)
        best = _louder(best, seconds, policy.CHOICE_BYTES, Kind.CHOICE, sums[CHOICE], names)
        if enough:
            best = _louder(best, seconds, policy.INFORMATION_BYTES, Kind.INFORMATION, sums[INFORMATION], names)
            best = _louder(best, seconds, policy.ENCODED_BYTES, Kind.ENCODED, sums[ENCODED], names)
        if enough and young:
            best = _louder(best, seconds, policy.YOUNG_INFORMATION_BYTES, Kind.YOUNG, sums[UNNUMBERED], names)
        if enough and _is_fresh(flow):
            amount = min(sums[ENCODED_NAMES], sums[ENCODED] / policy.FRESH_BYTES_A_NAME)
            best = _louder(best, seconds, policy.FRESH_NAMES, Kind.FRESH, amount, names)
    return best


def _carried(flow: Flow, number: int, ts: float) -> tuple[float, float, float]:
    """Encoded bytes in a window, encoded names of a flow that is little else, and names."""
    sums = flow.windows[number].sums(ts)
    return sums[ENCODED], min(sums[ENCODED_NAMES], sums[ENCODED] / policy.FRESH_BYTES_A_NAME), sums[NAMES]


def _shared(best: Evidence, ts: float, flow: Flow, carriers: Sequence[Flow], crowd: float, factor: float) -> Evidence:
    """The same for what a client's carriers carried together, each beyond what is spared."""
    for number, seconds in enumerate(WINDOWS_S):
        if seconds not in policy.SPREAD_BYTES:
            continue
        kinds = (
            (Kind.SPREAD, policy.SPREAD_BYTES, policy.SPREAD_SPARED_BYTES, carriers),
            (
                Kind.SPREAD_FRESH,
                policy.SPREAD_FRESH_NAMES,
                policy.SPREAD_SPARED_NAMES,
                list(filter(_is_fresh, carriers)),
            ),
        )
        for one, (kind, limits, spares, counted) in enumerate(kinds):
            own, spare = _carried(flow, number, ts)[one], spares[seconds]
            carried = [_carried(other, number, ts) for other in counted]
            each = [(found[one], found[2]) for found in carried if found[0] > 0]
            spared = min(sum(min(amount, spare) for amount, _ in each), SPARED_DOMAINS * spare * crowd)
            amount, loud = sum(amount for amount, _ in each) - spared, sum(amount > spare for amount, _ in each)
            has_part = PART * loud * (own - spare) >= amount or amount >= PART * limits[seconds] * crowd * factor
            if len(each) > 1 and own > 0 and has_part and (one == 0 or _is_fresh(flow)):
                best = _louder(best, seconds, limits, kind, amount, sum(n for _, n in each), len(each), crowd)
    return best


def _louder(
    best: Evidence,
    seconds: int,
    limits: dict[int, float],
    kind: Kind,
    amount: float,
    names: float,
    domains: int = 1,
    times: float = 1.0,
) -> Evidence:
    if seconds not in limits or amount / (limits[seconds] * times) <= best.ratio:
        return best
    limit = limits[seconds] * times
    return Evidence(amount / limit, seconds, amount, limit, round(names), kind, domains)
