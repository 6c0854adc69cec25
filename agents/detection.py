"""The hot flow: names, then features and windows, then model and rules, then policy. A batch in, verdicts out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agents.budget import Peaks
from agents.decoding import secret_in
from agents.features import FEATURES, extract
from agents.flows import NO_CARRIERS, Flows
from agents.incidents import Incidents
from agents.model import Model
from agents.names import domain_text, labels_of, split_domain
from agents.policy import Evidence, Scale, evidence_of, query_reasons, with_secret
from agents.seen import key_of
from agents.services import Services
from agents.types import Incident, QueryBatch, Verdicts, batch_of
from agents.windows import CARRYING_TYPES, Flow, Part

PRICED_MAX = 65_536
"""Names whose price is remembered; at the bound all are forgotten."""
NO_EVIDENCE = Evidence(0.0)
Priced = tuple[str, tuple[Part, ...], float]
"""Registered domain, what each subdomain label costs, discount of a known service."""


class TunnelDetector:
    """Scores queries with the model and with what it knows of each client and domain (protocols.Detector)."""

    def __init__(
        self, model: Model, flows: Flows, incidents: Incidents, scale: Scale, services: Services | None = None
    ) -> None:
        self.model = model
        self.flows = flows
        self.incidents = incidents
        self.scale = scale
        self.peaks = Peaks()
        self._priced: dict[bytes, Priced] = {}
        self._swap = threading.Lock()
        self._next: Model | None = None
        self._services = services or Services()
        self._next_services: Services | None = None

    def reload(self, model: Model) -> None:
        """Use another model from the next batch or tick on. May be called from any thread."""
        with self._swap:
            self._next = model

    def reload_services(self, services: Services) -> None:
        """Use another list of known services from the next batch on. May be called from any thread."""
        with self._swap:
            self._next_services = services

    def detect(self, batch: QueryBatch) -> Verdicts:
        self._take_next()
        unique: dict[bytes, int] = {}
        which = [unique.setdefault(qname.lower(), len(unique)) for qname in batch.qname]
        names = list(unique)
        rows = extract(names)
        model_scores = self.model.score(rows, names) if names else np.empty(0, dtype=np.float32)
        verdicts = self._judge(batch, names, which, rows[which], model_scores)
        if len(batch):
            self.incidents.close_quiet(float(batch.ts[-1]))
        return self._with_incidents(verdicts)

    def tick(self, now: float) -> Verdicts | None:
        """What else happens with time, at time `now`: close what is quiet, take up a model that waits."""
        self._take_next()
        self.incidents.close_quiet(now)
        changed = self.incidents.changes()
        return empty_verdicts(self.model.model_id, changed) if changed else None

    def flush(self) -> Verdicts | None:
        """End of input: close all incidents; their last state comes with an empty batch."""
        self.incidents.close_all()
        changed = self.incidents.changes()
        return empty_verdicts(self.model.model_id, changed) if changed else None

    def _take_next(self) -> None:
        with self._swap:
            if self._next is not None:
                self.model, self._next = self._next, None
                self._priced.clear()
            if self._next_services is not None:
                old, self._services, self._next_services = self._services, self._next_services, None
                self._priced.clear()
                self._forgive(old)

    def _forgive(self, old: Services) -> None:
        """Forget what flows showed that a larger budget, given just now, covers: it applies to what is known, too."""
        for key, flow in list(self.flows.flows.items()):
            names = [wire.lower() for wire, _ in flow.samples]
            more = min((_factor(self._services, name) / _factor(old, name) for name in names), default=1.0)
            if more > 1 and self._ratio(key, flow) < more:
                self.flows.forget(*key)
                self.incidents.close(key)

    def _ratio(self, key: tuple[str, str], flow: Flow) -> float:
        known = self.incidents.open.get(key)
        if known is not None:
            return self.scale.ratio(known.score)
        return evidence_of(flow.last_seen, flow, NO_CARRIERS, self.model.limit_factor).ratio

    def _judge(
        self,
        batch: QueryBatch,
        names: Sequence[bytes],
        which: Sequence[int],
        features: NDArray[np.float32],
        model_scores: NDArray[np.float32],
    ) -> Verdicts:
        scale = self.scale
        domains, reasons = [], []
        scores = np.empty(len(batch), dtype=np.float32)
        severities = np.empty(len(batch), dtype=np.uint8)
        by_name = model_scores.tolist()
        asked = zip(batch.qname, batch.qtype.tolist(), batch.rlen.tolist(), strict=True)
        for row, (ts, client, number, query) in enumerate(
            zip(batch.ts.tolist(), batch.client, which, asked, strict=True)
        ):
            name, model = names[number], by_name[number]
            domain, parts, _ = priced = self._price(name)
            watched = parts or query[1] in CARRYING_TYPES
            evidence = self._count(ts, client, query, name, priced) if watched else NO_EVIDENCE
            behaviour = scale.behaviour(evidence.ratio)
            score = scale.combined(model, behaviour)
            severity = scale.severity(score)
            domains.append(domain)
            scores[row], severities[row] = score, severity
            reasons.append(query_reasons(name, model, behaviour, evidence, domain, scale) if severity else ())
        return Verdicts(batch, domains, features, scores, severities, reasons, self.model.model_id)

    def _count(self, ts: float, client: str, query: tuple[bytes, int, int], name: bytes, priced: Priced) -> Evidence:
        domain, parts, discount = priced
        flow = self.flows.flow(ts, client, domain)
        if flow is None:
            return NO_EVIDENCE
        familiar = self.flows.familiar.factor(ts, domain)
        information, _ = flow.add(ts, query, key_of(name), parts, discount * familiar)
        carriers = NO_CARRIERS if discount > 1 or not client else self.flows.carriers(client, domain, flow)
        evidence = evidence_of(ts, flow, carriers, self.model.limit_factor)
        self.peaks.note(ts, client, domain, evidence.ratio * self.model.limit_factor)
        if information > 0:
            evidence = with_secret(evidence, secret_of(query[0]))
        self.incidents.observe(ts, client, domain, flow, evidence, carriers)
        is_open = (client, domain) in self.incidents.open
        # a severity is that of this query: what long windows still hold of an incident that is over is not
        return evidence if is_open or (information > 0 and evidence.ratio < 1) else NO_EVIDENCE

    def _price(self, name: bytes) -> Priced:
        """(registered domain, what each subdomain label costs, discount of a known service) of a lower-case name."""
        found = self._priced.get(name)
        if found is None:
            if len(self._priced) >= PRICED_MAX:
                self._priced.clear()
            costs = [(label, self.model.chars.cost(label)) for label in split_domain(name)[0]]
            parts = tuple(Part(key_of(b"." + label), cost.bits, cost.encoded) for label, cost in costs)
            found = self._priced[name] = (domain_text(name), parts, _factor(self._services, name))
        return found

    def _with_incidents(self, verdicts: Verdicts) -> Verdicts:
        changed = self.incidents.changes()
        return replace(verdicts, incidents=changed) if changed else verdicts


def _factor(services: Services, name: bytes) -> float:
    found = services.of(name)
    return found.factor if found else 1.0


def secret_of(qname: bytes) -> str:
    """What one wire name, in the case it was sent in, gives away; "" for nothing."""
    labels = labels_of(qname)
    cut = len(split_domain(qname)[0])
    return secret_in(labels[:cut], labels[cut:])


def empty_verdicts(model_id: str, incidents: tuple[Incident, ...]) -> Verdicts:
    """Incidents without queries: what closes when nothing more comes."""
    none = np.empty(0, dtype=np.float32)
    features = np.empty((0, len(FEATURES)), dtype=np.float32)
    return Verdicts(batch_of([]), (), features, none, none.astype(np.uint8), (), model_id, incidents)
