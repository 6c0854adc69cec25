"""Verdicts to incidents: one open incident per (client, domain), updated while it lasts, closed once quiet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agents.evidence import UNREAD, Reading, Timeline, evidence_json, reading_of
from agents.flows import Flows
from agents.names import from_text
from agents.past import Past
from agents.policy import SCATTERED, Evidence, Scale, incident_reasons
from agents.siphash import siphash
from agents.types import Incident, QueryBatch, Severity
from agents.windows import SAMPLES, Flow

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a flow stood when a query of it had been counted."""

    row: int  # of Flows
    first_seen: float
    queries: int
    names: int
    encoded_names: int
    leaked_bytes: float
    name: tuple[bytes, int] | None = None  # of the query, if it is a new one, with its type


@dataclass(slots=True)
class _Trail:
    """What an open incident rests on, and how far it has been told."""

    row: int  # of Flows
    timeline: Timeline
    queries: int = 0
    leaked: float = 0.0
    reading: Reading = UNREAD
    told: Flow | None = None  # as it was when it was last told
    names: tuple[tuple[bytes, int], ...] = ()  # first ones since it was opened, where the flow's own are of one before

    def read(self, flow: Flow) -> Reading:
        """What its first names say: they are read again only where more of them were kept."""
        if len(flow.samples) != self.reading.count:
            self.reading = reading_of(flow)
        return self.reading

    def follow(self, ts: float, flow: Standing, keep: bool) -> None:
        """Put what came since the last call on the timeline. keep: its name, too."""
        if keep and flow.name is not None and len(self.names) < SAMPLES:
            self.names += (flow.name,)
        self.timeline.add(ts, flow.queries - self.queries, flow.leaked_bytes - self.leaked)
        self.queries, self.leaked = flow.queries, flow.leaked_bytes


def _since(flow: Standing, past: Past, ts: float) -> Standing:
    """Where a flow stands without what its incidents before showed."""
    if past.begun is None:  # a sum over domains: which query was the first to count for it again is not known
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
    """What flows know a registered domain by; domain: as incidents show it, "." for the root."""
    return siphash(b"" if domain == "." else from_text(domain), flows.key)


def spans(batch: QueryBatch, span_s: float) -> Iterator[QueryBatch]:
    """The batch in parts that last at most so long.

    Evidence is that of a batch's end: in one that lasts longer than an incident's quiet, an incident could close and
    another one open for the same flow, and the first would be told what the second is about.
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

    def __init__(self, quiet_s: float, scale: Scale, flows: Flows) -> None:
        self.quiet_s = quiet_s
        self.scale = scale
        self._flows = flows
        self.open: dict[Key, Incident] = {}
        self._trails: dict[Key, _Trail] = {}
        self._changed: set[Key] = set()
        self._closed: list[Incident] = []

    def restore(self, incidents: Iterable[Incident]) -> None:
        """Take over what was open when the process stopped."""
        self.open.update({(incident.client, incident.domain): incident for incident in incidents})

    def observe(
        self, ts: float, client: str, domain: str, flow: Standing, evidence: Evidence, sharing: Sequence[str] = ()
    ) -> bool:
        """A query of a flow: open an incident where a limit is reached, keep an open one up to date; whether one is."""
        key = (client, domain)
        known = self.open.get(key)
        if known is not None and ts - known.last_seen > self.quiet_s:
            self._close(key, known)
            known = None
        if known is None and evidence.ratio < 1:
            return False
        past = self._flows.pasts.of(flow.row)
        if past is not None:
            flow = _since(flow, past, ts)
        trail = self._trails.get(key)
        if trail is None:
            trail = self._trails[key] = _Trail(flow.row, Timeline(flow.first_seen if known is None else ts))
            if known is not None:  # restored: what was before has been told
                trail.queries, trail.leaked = flow.queries - 1, flow.leaked_bytes
        trail.follow(ts, flow, keep=past is not None)
        self.open[key] = (
            self._opened(ts, client, domain, flow, evidence, sharing)
            if known is None
            else self._updated(known, ts, flow, evidence, sharing)
        )
        self._changed.add(key)
        return True

    def _opened(
        self, ts: float, client: str, domain: str, flow: Standing, evidence: Evidence, sharing: Sequence[str]
    ) -> Incident:
        score = self.scale.behaviour(evidence.ratio)
        return Incident(
            client=client,
            domain=domain,
            severity=max(Severity.HIGH, self.scale.severity(score)),
            score=score,
            reasons=incident_reasons(domain, flow.names, flow.encoded_names, evidence, sharing),
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
        louder = score > known.score
        return replace(
            known,
            severity=max(known.severity, self.scale.severity(score)),
            score=max(known.score, score),
            reasons=self._reasons(known, flow, evidence, sharing) if louder else known.reasons,
            last_seen=max(known.last_seen, ts),
            queries=max(known.queries, flow.queries),
            unique_names=max(known.unique_names, flow.names),
            leaked_bytes=max(known.leaked_bytes, flow.leaked_bytes),
        )

    def _reasons(self, known: Incident, flow: Standing, evidence: Evidence, sharing: Sequence[str]) -> tuple[str, ...]:
        secrets = tuple(reason for reason in known.reasons if reason.startswith("one query"))
        found = incident_reasons(known.domain, flow.names, flow.encoded_names, evidence, sharing)
        return (*found, *(reason for reason in secrets if reason not in found))

    def close_quiet(self, now: float) -> None:
        """Close what has been quiet for long enough at time `now`."""
        for key, incident in list(self.open.items()):
            if now - incident.last_seen > self.quiet_s:
                self._release(key)
                self._close(key, incident)

    def close(self, key: Key) -> None:
        """Close one, if it is open."""
        if key in self.open:
            self._release(key)
            self._close(key, self.open[key])

    def close_all(self) -> None:
        """End of input."""
        for key, incident in list(self.open.items()):
            self._close(key, incident)

    def _release(self, key: Key) -> None:
        row = self._row_of(key)
        if row is not None:
            self._flows.release(row)

    def _close(self, key: Key, incident: Incident) -> None:
        # without a change since it was last told its flow may be further on by now: this batch is counted as a whole
        told = self._told(key, incident) if key in self._changed else incident
        del self.open[key]
        self._end(key, self._trails.pop(key, None))
        self._changed.discard(key)
        self._closed.append(replace(told, closed_at=told.last_seen))

    def _end(self, key: Key, trail: _Trail | None) -> None:
        row = self._row_of(key)
        if row is None:
            return
        flow = self._flows.view(row)
        told = flow if trail is None or trail.told is None else trail.told
        if told.first_seen == flow.first_seen:  # else it made room, and came again within this batch
            self._flows.end(row, told)

    def _row_of(self, key: Key) -> int | None:
        client, domain = key
        if domain == SCATTERED:
            return self._flows.find_scattered(client)
        return self._flows.find(client, domain_hash(domain, self._flows))

    def changes(self) -> tuple[Incident, ...]:
        """What was opened, updated or closed since the last call, with evidence; closed ones first."""
        for key in self._changed:
            self.open[key] = self._told(key, self.open[key])
        changed = (*self._closed, *(self.open[key] for key in sorted(self._changed)))
        self._closed, self._changed = [], set()
        return changed

    def _told(self, key: Key, incident: Incident) -> Incident:
        """The incident with its tool, samples and evidence as they are now; a restored one keeps what it had."""
        trail = self._trails.get(key)
        if trail is None:
            return incident
        flow, tool, past = self._flows.view(trail.row), incident.tool, self._flows.pasts.of(trail.row)
        trail.told = flow
        if past is not None:
            flow = replace(past.since(flow), samples=trail.names)
        reading = trail.read(flow)
        if tool is None or flow.names <= SAMPLES:
            tool = reading.tool or tool
        evidence = evidence_json(flow, incident.domain, tool, reading.readable, trail.timeline)
        if past is not None:
            evidence["before"] = past.to_json()
        return replace(incident, tool=tool, sample_names=reading.shown or incident.sample_names, evidence=evidence)
