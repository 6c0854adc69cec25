"""Labels that rules find: what a tool, a honeytoken, a secret or a limit says for certain.

A rule says "tunnel" alone. That something is benign is said by a person, or by a learnt probability.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.core.text import NETWORK
from agents.core.types import DAY_S, HOUR_S, Incident
from agents.detection.limits import CRITICAL_RATIO, SCATTERED, Scale
from agents.detection.reasons import CERTAIN_REASONS
from agents.learning.loop.flow_hours import SCHEMA
from agents.store.feedback.labels import Label, LabelledSpan, LabelStore
from agents.store.feedback.tables import LabelOrigin
from agents.store.sql import IncidentDatabase

LABELLING_MAX = 1_000
"""Incidents that one hour's labels come from, the last seen first."""
LATE_HOURS = 24
"""Incidents of so many hours are looked at again: after a database was away they may be stored after their hour."""
_HONEYTOKEN, _PLAIN, _CALLED_BACK = "the honeytoken ", " in plain text", "a call-back name of "
"""What a secret's text begins or ends with (tripwires/honeytokens.py, secrets.py)."""


def rule_of(incident: Incident, scale: Scale) -> LabelOrigin | None:
    """The rule by which an incident is a tunnel for certain, or None.

    A secret in plain text and a call-back name are none: they are no tunnel. Nor is what a kind of service explains.
    """
    if incident.tool is not None:
        return LabelOrigin.TOOL
    secrets = [text for text in map(_secret, _of_one_query(incident)) if text]
    if any(text.startswith(_HONEYTOKEN) for text in secrets):
        return LabelOrigin.HONEYTOKEN
    if any(not text.endswith(_PLAIN) and not text.startswith(_CALLED_BACK) for text in secrets):
        return LabelOrigin.SECRET
    loud = scale.ratio(incident.score) >= CRITICAL_RATIO
    return LabelOrigin.LIMIT if loud and not secrets and not incident.evidence.get("explanation") else None


def _of_one_query(incident: Incident) -> Iterable[str]:
    """What single queries carried, by the incident's reasons. The domain in them is a stranger's text."""
    begin = f"{CERTAIN_REASONS[0]} {incident.domain} carried "
    return (reason.removeprefix(begin) for reason in incident.reasons if reason.startswith(begin))


def _secret(text: str) -> str:
    return text.partition(", sent below ")[0]


def spans_of(incidents: Sequence[Incident], scale: Scale) -> list[LabelledSpan]:
    """The flow-hours that rules label: those of an incident's client and domain up to its last query.

    They begin a day before it was found, at its first query at most: what came long before may have been benign.
    Several domains together (SCATTERED) label none of them: any of them may be benign.
    """
    found = [(one, rule_of(one, scale)) for one in incidents if one.domain != SCATTERED]
    return [
        LabelledSpan(
            client=None if one.client == NETWORK else one.client,
            domain=one.domain,
            first_hour=int(max(one.first_seen, one.detected_at - DAY_S) // HOUR_S),
            last_hour=int(one.last_seen // HOUR_S),
            label=Label.TUNNEL,
            origin=rule,
            confidence=1.0,
        )
        for one, rule in found
        if rule is not None
    ]


@dataclass(frozen=True)
class Labeller:
    """Labels the flow-hours of an hour that is over. Called with the hour; raises StoreError."""

    store: IncidentDatabase
    scale: Scale

    def __call__(self, hour: int) -> None:
        since = (hour - LATE_HOURS) * float(HOUR_S)
        seen = self.store.incidents(since=since, source="", limit=LABELLING_MAX)
        LabelStore(self.store).mark(spans_of(seen, self.scale), SCHEMA, time.time())


def label_counts(store: IncidentDatabase, since: float, until: float) -> tuple[tuple[str, int], ...]:
    """("label (origin)", flow-hours) of hours that began at since <= time < until, Unix seconds. Raises StoreError."""
    found = LabelStore(store).counts(SCHEMA, since, until)
    return tuple((f"{label} ({origin})", count) for label, origin, count in found)
