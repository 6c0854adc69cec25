"""Verdicts to incidents: one open incident per (client, domain), updated while it lasts, closed once quiet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from agents.names import to_text
from agents.policy import Evidence, Scale, incident_reasons
from agents.types import Incident, Severity
from agents.windows import Flow, Spread


class Incidents:
    """The open incidents. Time comes from the queries."""

    def __init__(self, quiet_s: float, scale: Scale) -> None:
        self.quiet_s = quiet_s
        self.scale = scale
        self.open: dict[tuple[str, str], Incident] = {}
        self._changed: dict[tuple[str, str], Incident] = {}
        self._closed: list[Incident] = []

    def restore(self, incidents: Iterable[Incident]) -> None:
        """Take over what was open when the process stopped."""
        self.open.update({(incident.client, incident.domain): incident for incident in incidents})

    def observe(
        self, ts: float, client: str, domain: str, flow: Flow, evidence: Evidence, spread: Spread | None
    ) -> None:
        """A query of a flow: open an incident where a limit is reached, keep an open one up to date."""
        key = (client, domain)
        known = self.open.get(key)
        if known is not None and ts - known.last_seen > self.quiet_s:
            self._close(key, known)
            known = None
        if known is None and evidence.ratio < 1:
            return
        self.open[key] = self._changed[key] = (
            self._opened(ts, client, domain, flow, evidence, spread)
            if known is None
            else self._updated(known, ts, flow, evidence, spread)
        )

    def _opened(
        self, ts: float, client: str, domain: str, flow: Flow, evidence: Evidence, spread: Spread | None
    ) -> Incident:
        score = self.scale.behaviour(evidence.ratio)
        return Incident(
            client=client,
            domain=domain,
            severity=max(Severity.HIGH, self.scale.severity(score)),
            score=score,
            reasons=incident_reasons(domain, flow, evidence, spread),
            tool=None,
            first_seen=flow.first_seen,
            last_seen=ts,
            detected_at=ts,
            queries=flow.queries,
            unique_names=flow.names,
            leaked_bytes=flow.leaked_bytes,
            queries_before_detection=flow.queries,
            bytes_before_detection=flow.leaked_bytes,
            sample_names=_samples(flow),
        )

    def _updated(self, known: Incident, ts: float, flow: Flow, evidence: Evidence, spread: Spread | None) -> Incident:
        score = self.scale.behaviour(evidence.ratio)
        louder = score > known.score
        return replace(
            known,
            severity=max(known.severity, self.scale.severity(score)),
            score=max(known.score, score),
            reasons=incident_reasons(known.domain, flow, evidence, spread) if louder else known.reasons,
            last_seen=max(known.last_seen, ts),
            queries=max(known.queries, flow.queries),
            unique_names=max(known.unique_names, flow.names),
            leaked_bytes=max(known.leaked_bytes, flow.leaked_bytes),
            sample_names=known.sample_names or _samples(flow),
        )

    def close_quiet(self, now: float) -> None:
        """Close what has been quiet for long enough at time `now`."""
        for key, incident in list(self.open.items()):
            if now - incident.last_seen > self.quiet_s:
                self._close(key, incident)

    def close_all(self) -> None:
        """End of input."""
        for key, incident in list(self.open.items()):
            self._close(key, incident)

    def _close(self, key: tuple[str, str], incident: Incident) -> None:
        del self.open[key]
        self._changed.pop(key, None)
        self._closed.append(replace(incident, closed_at=incident.last_seen))

    def changes(self) -> tuple[Incident, ...]:
        """What was opened, updated or closed since the last call; closed ones first."""
        changed = (*self._closed, *self._changed.values())
        self._closed, self._changed = [], {}
        return changed


def _samples(flow: Flow) -> tuple[str, ...]:
    return tuple(to_text(wire) for wire in flow.samples)
