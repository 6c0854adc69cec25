"""Incidents: one open incident per (client, domain), with its evidence, closed once quiet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agents.core.column_kernels import keyed_hash
from agents.core.text import NETWORK
from agents.core.types import Incident, QueryBatch, Severity
from agents.detection.counting.flow_kernels import SAMPLES
from agents.detection.explanations.explainer import Account, Asking, Explainer, hold_text
from agents.detection.explanations.fingerprints import tool_of, trace_of
from agents.detection.flows import Flow, Flows, Past
from agents.detection.limits import SCATTERED, Evidence, Scale, as_listed
from agents.detection.reasons import CERTAIN_REASONS, STRICT_REASON, incident_reasons
from agents.detection.secrets import preview
from agents.detection.shared.view import NetworkView
from agents.detection.state import NONE, Kind, Sign
from agents.dns.message import type_name
from agents.dns.name import from_text, to_text
from agents.sources.origins import Origins

PROTOCOL, EXFILTRATION, TUNNELLING, ENCODING = "T1071.004", "T1048.003", "T1572", "T1132.001"
"""MITRE ATT&CK: application layer protocol DNS, exfiltration over an unencrypted protocol, protocol tunnelling,
standard encoding."""
TYPES_SHOWN = 6
SHOWN_SAMPLES = 8
"""Names that an incident shows."""
TYPES_MANY = 8
"""From this many record types on, a flow's types explain it better than its few names."""
SENDERS_MAX, SENDERS_SHOWN = 1000, 5
"""Clients that are counted for an incident that is not one client's, and those that it shows."""
TRIPPED_MAX = 10
"""Open incidents of one client from which on another domain that trips a wire gets no incident of its own."""
TIMELINE_MAX = 32
TIMELINE_START_S = 60.0


class Timeline:
    """Queries and bytes over time in at most TIMELINE_MAX steps; when more are needed, steps double in length."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.step_s = TIMELINE_START_S
        self.rows: list[list[float]] = []

    def add(self, ts: float, queries: float, leaked: float) -> None:
        """Count queries and bytes at ts; a time before the start counts for the first step."""
        while (at := int(max(ts - self.start, 0) // self.step_s)) >= TIMELINE_MAX:
            self._double()
        self.rows += [[0.0, 0.0] for _ in range(at + 1 - len(self.rows))]
        self.rows[at][0] += queries
        self.rows[at][1] += leaked

    def _double(self) -> None:
        self.step_s *= 2
        pairs = [self.rows[i : i + 2] for i in range(0, len(self.rows), 2)]
        self.rows = [[sum(row[0] for row in pair), sum(row[1] for row in pair)] for pair in pairs]

    def to_json(self) -> list[dict[str, float]]:
        """One row for each step with queries: its start, queries, bytes."""
        return [
            {"at": self.start + i * self.step_s, "queries": queries, "bytes": round(leaked, 1)}
            for i, (queries, leaked) in enumerate(self.rows)
            if queries
        ]


OF_OPENING = ("kind", "model")
"""Evidence that stays as it was when the incident was opened."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Tool and text found in the first names of a flow; finding them costs more than all the rest of its evidence."""

    count: int = 0  # names that were read
    tool: str | None = None
    readable: str = ""  # text that the names decode to
    is_text: bool = False  # enough of them do, for it to be no chance
    shown: tuple[str, ...] = ()  # the first of the names


UNREAD = Reading()


def reading_of(flow: Flow) -> Reading:
    """Read the names kept for a flow."""
    samples = flow.samples
    readable = preview(trace_of(samples).names) if samples else ""
    shown = tuple(to_text(wire) for wire, _ in samples[:SHOWN_SAMPLES])
    return Reading(len(samples), tool_of(samples), readable, bool(readable) and hold_text(samples), shown)


def evidence_json(flow: Flow, domain: str, tool: str | None, readable: str, timeline: Timeline) -> dict[str, Any]:
    """Evidence as JSON values; text is ASCII. readable: text that its names decode to."""
    lasted = max(flow.last_seen - flow.first_seen, 60.0)  # a burst of one second does not give a rate
    common = sorted(flow.qtypes.items(), key=lambda item: (-item[1], item[0]))[:TYPES_SHOWN]
    return {
        "attack": attack(flow, tool, readable),
        "preview": readable,
        "qtypes": {type_name(qtype): count for qtype, count in common},
        "queries_per_minute": round(flow.queries / lasted * 60, 2),
        "bytes_in": flow.bytes_in,
        "benign_if": benign_if(flow, domain),
        "timeline": timeline.to_json(),
        "step_s": timeline.step_s,
    }


LEARNT = "learnt"
"""The kind of an incident that a learnt model opened."""


def kind_word(evidence: Evidence) -> str:
    """What opened an incident, in a word or two: the sum beyond its limit, a learnt probability, a group's list."""
    if evidence.learnt:
        return LEARNT
    return "strict group" if evidence.refused else evidence.kind.name.lower().replace("_", " ")


def attack(flow: Flow, tool: str | None, readable: str) -> list[str]:
    """ATT&CK technique ids that fit the flow."""
    found = [PROTOCOL]
    if tool is not None:
        found.append(TUNNELLING)
    if flow.leaked_bytes >= flow.bytes_in:
        found.append(EXFILTRATION)
    if readable or 0 < flow.names <= flow.encoded_names * 2:
        found.append(ENCODING)
    return found


def benign_if(flow: Flow, domain: str) -> str:
    """One sentence: the condition under which the incident would be benign."""
    if domain == ".":
        return "It would be benign if names without any domain were a broken program's, and not data sent to a server."
    if 0 < flow.names <= flow.encoded_names * 2:
        return (
            f"It would be benign if {domain} ran a service that puts keys or hashes into names, as antivirus, block "
            "list and content delivery services do."
        )
    if len(flow.qtypes) >= TYPES_MANY:
        return f"It would be benign if the client watched over {domain}, or resolved it for many others."
    return f"It would be benign if {domain} had this many hosts, all of them asked for by one client."


def attack_names(ids: Sequence[str]) -> str:
    """Technique ids in words."""
    names = {PROTOCOL: "DNS as channel", EXFILTRATION: "exfiltration", TUNNELLING: "tunnelling", ENCODING: "encoding"}
    return ", ".join(f"{one} ({names[one]})" for one in ids if one in names)


IncidentKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """The counts of a flow right after a query of it."""

    row: int  # of Flows
    first_seen: float
    queries: int
    names: int
    encoded_names: int
    leaked_bytes: float
    leaked_today: float = math.inf  # at most so many of them in the last day
    name: tuple[bytes, int] | None = None  # the query's name and type, if the name is new


@dataclass(slots=True)
class _Trail:
    """The data behind an open incident, and the state that was last reported."""

    row: int  # of Flows
    timeline: Timeline
    queries: int = 0
    leaked: float = 0.0
    reading: Reading = UNREAD
    told: Flow | None = None  # the flow when the incident was last reported
    senders: Counter[str] = field(default_factory=Counter)  # queries of each client, of the first SENDERS_MAX
    names: tuple[tuple[bytes, int], ...] = ()  # first names since it was opened, if the flow has had an incident before
    account: Account | None = None  # None until its names were compared with kinds of service
    listed: bool = False  # something explains it at present, or it is a beacon without a second sign
    learnt_alone: bool = False  # a learnt model listed it, and it has reached no limit since
    chance: float | None = None  # learnt probability of its last hour, where a model has learnt
    rarity: float | None = None  # of the image of its last hours, in decades, where a model of images judges
    origins: set[int] = field(default_factory=set)  # what heard its queries since it was opened

    def send(self, client: str) -> None:
        """Note who sent a query of an incident that is not one client's."""
        if client in self.senders or len(self.senders) < SENDERS_MAX:
            self.senders[client] += 1

    def senders_json(self) -> dict[str, Any]:
        """How many clients sent something since the incident opened, and those that sent most."""
        loudest = sorted(self.senders, key=lambda client: (-self.senders[client], client))[:SENDERS_SHOWN]
        return {"count": len(self.senders), "loudest": loudest}

    def read(self, flow: Flow) -> Reading:
        """The reading of the flow's first names; they are read again only after more of them were kept."""
        if len(flow.samples) != self.reading.count:
            self.reading = reading_of(flow)
        return self.reading

    def restored(self, known: Incident, flow: Standing, origins: Origins | None) -> None:
        """Go on with an incident that was open when the process stopped: its counts have been reported."""
        self.queries, self.leaked = flow.queries - 1, flow.leaked_bytes
        self.learnt_alone = known.evidence.get("kind") == LEARNT and known.severity < Severity.HIGH
        if origins is not None:
            self.origins = origins.numbers(known.evidence.get("intakes"))

    def follow(self, ts: float, flow: Standing, keep: bool) -> None:
        """Add queries and bytes since the last call to the timeline. keep: keep the query's name, too."""
        if keep and flow.name is not None and len(self.names) < SAMPLES:
            self.names += (flow.name,)
        self.timeline.add(ts, flow.queries - self.queries, flow.leaked_bytes - self.leaked)
        self.queries, self.leaked = flow.queries, flow.leaked_bytes


def _since(flow: Standing, past: Past, ts: float) -> Standing:
    """The counts of a flow since its last incident."""
    if past.begun is None:  # a sum over domains: the first query that counted for it again is not known
        past.begun = ts
    was = past.flow
    return replace(
        flow,
        first_seen=past.begun,
        queries=flow.queries - was.queries,
        names=flow.names - was.names,
        encoded_names=flow.encoded_names - was.encoded_names,
        leaked_bytes=flow.leaked_bytes - was.leaked_bytes,
    )


def domain_hash(domain: str, flows: Flows) -> int:
    """The hash of a registered domain in flows. domain: as incidents show it, "." for the root."""
    return keyed_hash(b"" if domain == "." else from_text(domain), flows.key)


def spans(batch: QueryBatch, span_s: float) -> Iterator[QueryBatch]:
    """The batch in slices that last at most `span_s`.

    Evidence is taken at the end of a batch. If a batch spans more than the quiet time, a flow's incident could close
    and a new one open within it, and both would get the evidence of the second.
    """
    begin = 0
    while begin < len(batch):
        ts = batch.ts[begin:]
        late = np.flatnonzero(np.maximum.accumulate(ts) - np.minimum.accumulate(ts) > span_s)
        end = begin + int(late[0]) if len(late) else len(batch)
        yield batch.part(begin, end)
        begin = end


class Incidents:
    """The open incidents. Time comes from the queries."""

    def __init__(self, quiet_s: float, scale: Scale, flows: Flows, view: NetworkView | None = None) -> None:
        self.quiet_s = quiet_s
        self.scale = scale
        self._flows = flows
        self.explainer = Explainer(flows, view)
        self.open: dict[IncidentKey, Incident] = {}
        self._trails: dict[IncidentKey, _Trail] = {}
        self._changed: set[IncidentKey] = set()
        self.closed: list[Incident] = []  # since the last call of `changes`
        self.losses: tuple[str, ...] = ()
        """What the sources of queries do not keep of them: each incident says it, unless `origins` knows better."""
        self.origins: Origins | None = None
        self.model_id = ""
        """The model in use, which each incident that it opens names."""

    def restore(self, incidents: Iterable[Incident]) -> None:
        """Take over the incidents that were open when the process stopped."""
        self.open.update({(incident.client, incident.domain): incident for incident in incidents})

    def flows_of(self, client: str) -> Flows:
        """The flows that a client's are among."""
        return self._flows.network if client == NETWORK else self._flows

    def observe(
        self,
        ts: float,
        client: str,
        domain: str,
        flow: Standing,
        evidence: Evidence,
        sharing: Sequence[str] = (),
        sender: str | None = None,
        origin: int | None = None,
    ) -> Evidence | None:
        """Open an incident if a query reaches a limit, or update an open one.

        Returns the evidence as far as nothing explains it, or None if no incident is open. sender: who sent the query,
        where the incident is not one client's. origin: what heard the query (sources.origins), where it is one.
        """
        key = (client, domain)
        known = self.open.get(key)
        if known is not None and ts - known.last_seen > self.quiet_s:
            self._close(key, known)
            known = None
        if known is None and evidence.ratio < 1:
            return None
        past, queries, seen = self.flows_of(client).pasts.of(flow.row), flow.queries, flow.names
        if past is not None:
            flow = _since(flow, past, ts)
        trail = self._trails.get(key)
        if trail is None:
            trail = self._trails[key] = _Trail(flow.row, Timeline(flow.first_seen if known is None else ts))
            if known is not None:
                trail.restored(known, flow, self.origins)
        trail.follow(ts, flow, keep=past is not None)
        if sender is not None:
            trail.send(sender)
        if origin is not None:
            trail.origins.add(origin)
        counted = known is not None and not trail.learnt_alone
        trail.listed = self._is_explained(ts, key, trail, flow, evidence, counted, (queries, seen))
        trail.learnt_alone = bool(evidence.learnt) or (trail.learnt_alone and evidence.ratio < 1)
        if trail.listed:
            evidence = as_listed(evidence)
        self.open[key] = (
            self._opened(ts, client, domain, flow, evidence, sharing)
            if known is None
            else self._updated(known, ts, flow, evidence, sharing)
        )
        self._changed.add(key)
        return evidence

    def _is_explained(
        self,
        ts: float,
        key: IncidentKey,
        trail: _Trail,
        flow: Standing,
        evidence: Evidence,
        known: bool,
        so_far: tuple[int, int],
    ) -> bool:
        """Whether a kind of benign service explains all that an incident carried, or nothing but its pace is odd.

        known: it was open before, by a limit; so_far: queries and names of its flow up to this one; a batch may hold
        later ones.
        """
        if evidence.learnt or evidence.kind == Kind.POLLS:
            return True
        if evidence.kind == Kind.BEACON:
            return evidence.sign == Sign.NONE
        if trail.row == NONE or evidence.kind == Kind.SECRET or evidence.sign == Sign.SIBLINGS:
            return False
        flows = self.flows_of(key[0])
        if trail.account is None:
            samples = (*flows.view(trail.row).samples[: so_far[1]], *trail.names)
            before = flow.leaked_bytes if known else max(flow.leaked_bytes - flow.leaked_today, 0.0)
            trail.account = self.explainer.open(samples, before)
        elif flow.name is not None:
            trail.account.note(*flow.name, ts)
        asking = Asking(ts, *key, np.uint64(flows.state.flows["domain"][trail.row]), trail.row, *so_far)
        return self.explainer.weigh(trail.account, asking, flow.leaked_bytes, evidence)

    def explains(
        self, ts: float, client: str, domain: str, key: np.uint64, name: tuple[bytes, int], place: int
    ) -> bool:
        """Whether a kind of benign service explains one odd name, as it would an incident of such names.

        key: keyed hash of the domain; name: wire name and query type; place: the query's row of the batch.
        """
        self.explainer.reach(place)
        row = self._flows.find(client, int(key))
        if row is None:
            return False
        flow = self._flows.state.flows[row]
        asking = Asking(ts, client, domain, key, row, int(flow["queries"]), int(flow["names"]))
        return self.explainer.supports(asking, name)

    def is_listed(self, key: IncidentKey) -> bool:
        """Whether an open incident is explained at present."""
        trail = self._trails.get(key)
        return trail is not None and trail.listed

    def is_learnt_alone(self, key: IncidentKey) -> bool:
        """Whether an open incident is a learnt model's listing alone: it tells of nothing that reaches a limit."""
        trail = self._trails.get(key)
        return trail is not None and trail.learnt_alone

    def trip(self, ts: float, client: str, domain: str, name: bytes, evidence: Evidence, origin: int) -> None:
        """Open or update the incident of a query that trips a wire, whether there is room for its flow or not.

        A client with TRIPPED_MAX open incidents gets one more, for all other domains: SCATTERED.
        """
        if (client, domain) not in self.open and sum(one == client for one, _ in self.open) >= TRIPPED_MAX:
            evidence = replace(evidence, text=f"{evidence.text}, sent below {domain}")
            domain = SCATTERED
        key, flows = (client, domain), self.flows_of(client)
        if domain != SCATTERED:
            flows.watch(ts, client, domain_hash(domain, flows))
        row, known = self._row_of(key), self.open.get(key)
        if row is None:
            standing = Standing(NONE, ts, known.queries + 1 if known else 1, 1, 0, 0.0)
        else:
            flow = flows.view(row)
            standing = Standing(row, flow.first_seen, flow.queries, flow.names, flow.encoded_names, flow.leaked_bytes)
        self.observe(ts, client, domain, standing, evidence, origin=origin)
        if not self.open[key].sample_names:
            self.open[key] = replace(self.open[key], sample_names=(to_text(name),))

    def suspect(self, ts: float, client: str, domain: str, chance: float, why: str = "") -> None:
        """Open an incident, listed, of a flow that reached no limit, but whose hour looks like a tunnel's to the learnt
        model: chance is its probability. why: in words, where it is no hour. A flow that is gone, or has an incident,
        gets none."""
        key, flows = (client, domain), self.flows_of(client)
        row = self._row_of(key)
        if row is None or key in self.open:
            return
        flow = flows.view(row)
        standing = Standing(row, flow.first_seen, flow.queries, flow.names, flow.encoded_names, flow.leaked_bytes)
        flows.follow(ts, row)
        self.observe(ts, client, domain, standing, Evidence(1.0, learnt=chance, text=why))
        if not why:
            self._trails[key].chance = chance

    def appraise(self, chances: Mapping[IncidentKey, float]) -> None:
        """Note the learnt probabilities of open incidents."""
        for key in self.open.keys() & chances.keys():
            trail = self._trails.get(key)
            if trail is not None and trail.chance != chances[key]:
                trail.chance = chances[key]
                self._changed.add(key)

    def note_images(self, rarities: Mapping[IncidentKey, float]) -> None:
        """Note of open incidents how rare their flows' images are, in decades."""
        for key in self.open.keys() & rarities.keys():
            trail = self._trails.get(key)
            if trail is not None and trail.rarity != rarities[key]:
                trail.rarity = rarities[key]
                self._changed.add(key)

    def _opened(
        self, ts: float, client: str, domain: str, flow: Standing, evidence: Evidence, sharing: Sequence[str]
    ) -> Incident:
        score = self.scale.behaviour(evidence.ratio)
        return Incident(
            client=client,
            domain=domain,
            severity=self.scale.severity(score),
            score=score,
            reasons=incident_reasons(domain, flow.names, flow.encoded_names, evidence, sharing),
            evidence={"kind": kind_word(evidence), "model": self.model_id},
            tool=None,
            first_seen=flow.first_seen,
            last_seen=ts,
            detected_at=ts,
            queries=flow.queries,
            unique_names=flow.names,
            leaked_bytes=flow.leaked_bytes,
            queries_before_detection=flow.queries,
            bytes_before_detection=flow.leaked_bytes,
        )

    def _updated(
        self, known: Incident, ts: float, flow: Standing, evidence: Evidence, sharing: Sequence[str]
    ) -> Incident:
        score = self.scale.behaviour(evidence.ratio)
        louder, severity = score > known.score, max(known.severity, self.scale.severity(score))
        raised = known.severity < Severity.HIGH <= severity
        return replace(
            known,
            severity=severity,
            queries_before_detection=flow.queries if raised else known.queries_before_detection,
            bytes_before_detection=flow.leaked_bytes if raised else known.bytes_before_detection,
            score=max(known.score, score),
            reasons=self._reasons(known, flow, evidence, sharing) if louder else known.reasons,
            last_seen=max(known.last_seen, ts),
            queries=max(known.queries, flow.queries),
            unique_names=max(known.unique_names, flow.names),
            leaked_bytes=max(known.leaked_bytes, flow.leaked_bytes),
        )

    def _reasons(self, known: Incident, flow: Standing, evidence: Evidence, sharing: Sequence[str]) -> tuple[str, ...]:
        secrets = tuple(reason for reason in known.reasons if reason.startswith(CERTAIN_REASONS))
        found = incident_reasons(known.domain, flow.names, flow.encoded_names, evidence, sharing)
        return (*found, *(reason for reason in secrets if reason not in found))

    def forget(self, client: str) -> None:
        """Drop the open incidents of a client, without a report, and its name from those of several clients."""
        for key in [key for key in self.open if key[0] == client]:
            del self.open[key]
            self._trails.pop(key, None)
            self._changed.discard(key)
        self.closed = [one for one in self.closed if one.client != client]
        for trail in self._trails.values():
            trail.senders.pop(client, None)
        self.explainer.forget(client)

    def close_quiet(self, now: float) -> None:
        """Close incidents that have been quiet for more than `quiet_s` at time `now`."""
        for key, incident in list(self.open.items()):
            if now - incident.last_seen > self.quiet_s:
                self._release(key)
                self._close(key, incident)

    def close(self, key: IncidentKey) -> None:
        """Close one incident, if it is open."""
        if key in self.open:
            self._release(key)
            self._close(key, self.open[key])

    def close_all(self) -> None:
        """Close all incidents at the end of the input."""
        for key, incident in list(self.open.items()):
            self._close(key, incident)

    def _release(self, key: IncidentKey) -> None:
        row = self._row_of(key)
        if row is not None:
            self.flows_of(key[0]).release(row)

    def _close(self, key: IncidentKey, incident: Incident) -> None:
        # if nothing changed since the last report, keep that: the flow already counts later queries of this batch
        told = self._told(key, incident) if key in self._changed else incident
        del self.open[key]
        self._end(key, self._trails.pop(key, None))
        self._changed.discard(key)
        self.closed.append(replace(told, closed_at=told.last_seen))

    def _end(self, key: IncidentKey, trail: _Trail | None) -> None:
        row = self._row_of(key)
        if row is None:
            return
        flows = self.flows_of(key[0])
        flow = flows.view(row)
        told = flow if trail is None or trail.told is None else trail.told
        if told.first_seen == flow.first_seen:  # else the flow was dropped and made again within this batch
            flows.end(row, told)

    def _row_of(self, key: IncidentKey) -> int | None:
        client, domain = key
        flows = self.flows_of(client)
        if domain == SCATTERED:
            return flows.find_scattered(client)
        return flows.find(client, domain_hash(domain, flows))

    def changes(self) -> tuple[Incident, ...]:
        """Incidents opened, updated or closed since the last call, with evidence; closed incidents first."""
        for key in self._changed:
            self.open[key] = self._told(key, self.open[key])
        changed = (*self.closed, *(self.open[key] for key in sorted(self._changed)))
        self.closed, self._changed = [], set()
        return changed

    def _told(self, key: IncidentKey, incident: Incident) -> Incident:
        """The incident with its present tool, samples and evidence; a restored one without a query stays as it is."""
        trail = self._trails.get(key)
        if trail is None or trail.row == NONE:
            return incident
        flows, tool = self.flows_of(key[0]), incident.tool
        flow, past = flows.view(trail.row), flows.pasts.of(trail.row)
        trail.told = flow
        if past is not None:
            flow = replace(past.since(flow), samples=trail.names)
        reading = trail.read(flow)
        if tool is None or flow.names <= SAMPLES:
            tool = reading.tool or tool
        evidence = evidence_json(flow, incident.domain, tool, reading.readable, trail.timeline)
        evidence |= {name: incident.evidence[name] for name in OF_OPENING if name in incident.evidence}
        if incident.reasons[0].startswith(STRICT_REASON):
            evidence["benign_if"] = (
                f"It would be benign if the list of the client's group should have {incident.domain}."
            )
        if self.origins is not None and trail.origins:
            evidence |= self.origins.describe(trail.origins)
        elif self.losses:
            evidence["losses"] = list(self.losses)
        if past is not None:
            evidence["before"] = past.to_json()
        if tool is not None or reading.is_text:
            trail.account = Account([])
        if tool is None and not any(reason.startswith(CERTAIN_REASONS) for reason in incident.reasons):
            explanation = trail.account.to_json() if trail.account is not None else None
            evidence |= {"explanation": explanation} if explanation else {}
            evidence |= {"burn_in": True} if self.explainer.learning else {}
        if key[0] == NETWORK:
            evidence["clients"] = trail.senders_json()
        if trail.chance is not None:
            evidence["probability"] = round(trail.chance, 4)
        if trail.rarity is not None:
            evidence["image"] = round(trail.rarity, 2)
        return replace(incident, tool=tool, sample_names=reading.shown or incident.sample_names, evidence=evidence)
