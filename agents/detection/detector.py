"""The detector: a batch of queries in, verdicts out. It reads names, counts flows, then applies model and limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key, keyed_hash
from agents.core.columns import Coded, Names, coded, distinct_rows, gathered, packed
from agents.core.types import DAY_S, Incident, QueryBatch, Verdicts, batch_of, joined
from agents.detection import snapshot
from agents.detection.fingerprints import TXT
from agents.detection.flows import Flows
from agents.detection.incidents import Incidents, Standing, domain_hash, spans
from agents.detection.known_services import KnownServices
from agents.detection.limits import (
    SCATTERED,
    Evidence,
    Limits,
    Peaks,
    Scale,
    bounds,
    evidence_of,
    limits_of,
    load_peaks,
    with_secret,
)
from agents.detection.reasons import query_reasons
from agents.detection.secrets import OAST, secret_in
from agents.detection.state import Asked, Kind, Told
from agents.dns.name import domain_text, from_text, labels_of, split_domain, texts
from agents.scoring.features import FEATURES, VERSION
from agents.scoring.lexical import Lexical, read_names
from agents.scoring.lexical_kernels import may_hold_secrets
from agents.scoring.model import Model

WINDOWS_FILE, PEAKS_FILE = FILES = "windows.snapshot", "peaks.json"
"""The files that a detector saves: its flows, and their peaks, from which the next retraining sets the limits."""
TS_MAX = 1e13
"""Seconds; a later time is invalid, and counts as this one."""
NO_EVIDENCE = Evidence(0.0)
Seen = tuple[Names, Coded, Lexical, Coded, Asked]
"""Names, clients, lexical values of the names, domains, queries for the kernel. Asked.client still indexes clients."""
Stage = Callable[[Generator[Any, None, None]], Any]
SIGNERS = b"_domainkey"
"""Below this label, in TXT answers, lie the keys of mail signers (RFC 6376 section 3.6.2.1)."""


class _Marks(NamedTuple):
    """Hashes of the labels and domains that get special treatment."""

    signers: np.uint64  # the label SIGNERS
    called: NDArray[np.uint64]  # domains of call-back services


@lru_cache(maxsize=4)
def _marks(key: Key) -> _Marks:
    called = [keyed_hash(from_text(domain), key) for domain in OAST]
    return _Marks(np.uint64(keyed_hash(b"." + SIGNERS, key)), np.array(called, np.uint64))


class TunnelDetector:
    """Scores queries with the model and with the state of each flow: a core.protocols.Detector."""

    def __init__(
        self,
        model: Model,
        keys_max: int,
        quiet_s: float,
        scale: Scale,
        services: KnownServices | None = None,
        key: Key = (0, 0),
    ) -> None:
        self.flows = Flows(keys_max, key)
        self.incidents = Incidents(quiet_s, scale, self.flows)
        self.scale = scale
        self.peaks = Peaks()
        self._swap = threading.Lock()
        self._next: Model | None = None
        self.services = services or KnownServices()
        self._next_services: KnownServices | None = None
        self._use(model)

    def _use(self, model: Model) -> None:
        self.model = model
        self._limits: Limits = limits_of(model.limit_factor, self.incidents.quiet_s)

    @property
    def model_id(self) -> str:
        """Id of the model in use."""
        return self.model.model_id

    @property
    def open_incidents(self) -> Mapping[tuple[str, str], Incident]:
        """Open incidents by client and domain; SCATTERED stands for a client's sum over domains."""
        return self.incidents.open

    def save(self, lock: AbstractContextManager[Any]) -> dict[str, bytes]:
        """The contents of FILES. `lock` is held while arrays are copied, not while they are packed."""
        windows = snapshot.dump_flows(self.flows, lock)
        with lock:
            return {WINDOWS_FILE: windows, PEAKS_FILE: self.peaks.dump()}

    def load(self, name: str, data: bytes) -> None:
        """Restore state from one of FILES. Raises ValueError for invalid contents."""
        if name == PEAKS_FILE:
            self.peaks = load_peaks(data)
        else:
            snapshot.load_flows(data, self.flows)

    def gauges(self) -> dict[str, Any]:
        """Numbers for health and metrics."""
        factor = self.model.limit_factor
        return {
            "model_id": self.model_id,
            "limits": {"factor": factor, **bounds(factor)},
            "flows": len(self.flows),
            "flows_refused": self.flows.refused,
            "flows_forgotten": self.flows.forgotten,
            "incidents_open": len(self.incidents.open),
        }

    def reload(self, model: Model) -> None:
        """Use another model from the next batch or tick on. May be called from any thread."""
        with self._swap:
            self._next = model

    def reload_services(self, services: KnownServices) -> None:
        """Use another list of known services from the next batch on. May be called from any thread."""
        with self._swap:
            self._next_services = services

    def detect(self, batch: QueryBatch, explain: bool = True) -> Verdicts:
        """Judge a batch. explain: give reasons for every query that is not NORMAL, else only below open incidents."""
        self._take_next()
        short = len(batch) > 0 and float(np.ptp(batch.ts)) <= self.incidents.quiet_s
        slices = (batch,) if short else spans(batch, self.incidents.quiet_s)
        parts = [self.judge(one, self.read(one), explain) for one in slices]
        return joined(parts) if parts else empty_verdicts(self.model.model_id, ())

    def read(self, batch: QueryBatch) -> Seen:
        """The first half of `detect`: the values that depend on the queries of a batch alone.

        Another thread may call it while `judge` works on earlier batches, as long as nothing is reloaded meanwhile.
        """
        names, clients = packed(batch.qname), coded(batch.client)
        found = read_names(names, self.model, self.flows.key)
        return names, clients, found, _domains(found), self._asked(batch, names, clients, found)

    def judge(self, batch: QueryBatch, seen: Seen, explain: bool = True) -> Verdicts:
        """The second half: count the queries, in order, and decide."""
        names, clients, found, domains, asked = seen
        asked = asked._replace(client=self.flows.rows_of(clients.values)[clients.codes])
        said = self.flows.judge(asked, self._limits.table, self._limits.rules)
        self.flows.keep_samples(said, names, batch.qtype)
        self._note_peaks(asked.ts, clients, domains, said)
        decided = self._follow(batch, clients, domains, said)
        verdicts = self._verdicts(batch, asked, found, domains, said, decided, explain)
        incidents = self.incidents
        if incidents.open and len(batch):
            incidents.close_quiet(float(batch.ts[-1]))
        if incidents.open or incidents.closed:
            return replace(verdicts, incidents=incidents.changes())
        return verdicts

    def tick(self, now: float) -> Verdicts | None:
        """Do the work that depends on time alone: close quiet incidents, start to use a reloaded model."""
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
                self._use(self._next)
                self._next = None
            if self._next_services is not None:
                old, self.services, self._next_services = self.services, self._next_services, None
                self._forgive(old)

    def _forgive(self, old: KnownServices) -> None:
        """Forget flows that a larger budget covers now: a new budget applies to bytes counted before it, too."""
        clients = {row: client for client, row in self.flows.clients.items()}
        for row in self.flows.rows(lambda flows: (flows["detail"] >= 0) & (flows["scattered"] == 0)):
            names = [wire.lower() for wire, _ in self.flows.view(row).samples]
            more = min((self.services.factor(name) / old.factor(name) for name in names), default=1.0)
            if more <= 1:
                continue
            key = clients[self.flows.client_of(row)], domain_text(names[0])
            known = self.incidents.open.get(key)
            ratio = self.scale.ratio(known.score) if known else self._ratio(row)
            if ratio < more:
                self.incidents.close(key)
                self.flows.forget(row)

    def _ratio(self, row: int) -> float:
        return self.flows.ratio(row, self._limits.table, self._limits.rules)

    def restore(self, incidents: Sequence[Incident]) -> None:
        """Go on with incidents that were open when the process stopped."""
        self.incidents.restore(incidents)
        for one in incidents:
            if one.domain == SCATTERED:
                self.flows.watch_scattered(one.last_seen, one.client)
                continue
            self.flows.watch(one.last_seen, one.client, domain_hash(one.domain, self.flows))

    def _asked(self, batch: QueryBatch, names: Names, clients: Coded, found: Lexical) -> Asked:
        secret = np.zeros(len(batch), np.uint8)
        may_hold_secrets(names.array, names.starts, found.cuts, secret)
        outside = np.isin(found.domain_key, _marks(self.flows.key).called) & (
            found.part_starts[:-1] < found.part_starts[1:]
        )
        return Asked(
            ts=np.clip(np.nan_to_num(batch.ts), -TS_MAX, TS_MAX),
            client=clients.codes,
            qtype=batch.qtype,
            rlen=batch.rlen,
            size=np.diff(names.starts),
            name=found.name_key,
            domain=found.domain_key,
            shape=found.shape_key,
            digits=found.digits,
            discount=self.services.factors(found.names),
            secret=secret | outside,
            scoped=self._scoped(batch.qtype, found),
            parts=found.part_starts,
            key=found.part_key,
            bits=found.part_bits,
            encoded=found.part_encoded,
        )

    def _scoped(self, qtype: NDArray[np.uint16], found: Lexical) -> NDArray[np.uint8]:
        """Which queries ask for a mail signer's key: a mail server asks for one below the domain of each sender."""
        out = np.zeros(len(qtype), np.uint8)
        labels = np.flatnonzero(found.part_key == _marks(self.flows.key).signers)
        out[np.searchsorted(found.part_starts, labels, side="right") - 1] = 1
        out[qtype != TXT] = 0
        return out

    def _note_peaks(self, ts: NDArray[np.float64], clients: Coded, domains: Coded, said: Told) -> None:
        self.peaks.days.update(np.unique(ts // DAY_S).astype(int).tolist())
        for row, scattered, ratio in said.peaks[: said.counts[2]].tolist():
            self.peaks.note(float(ts[row]), clients[row], SCATTERED if scattered else domains[row], ratio)

    def _follow(self, batch: QueryBatch, clients: Coded, domains: Coded, said: Told) -> dict[int, Evidence]:
        """Pass events to the incidents; returns the evidence that decides the score of their rows."""
        decided: dict[int, Evidence] = {}
        watched: dict[int, tuple[str, str]] = {}
        scattered = self.flows.state.flows["scattered"]
        for event in said.events[: said.counts[0]]:
            row, at = int(event["row"]), int(event["flow"])
            ts, evidence = float(batch.ts[row]), evidence_of(event["evidence"])
            if event["secret"]:
                evidence = with_secret(evidence, secret_of(batch.qname[row]))
            key = watched[at] = clients[row], SCATTERED if scattered[at] else domains[row]
            sharing = self._sharing(ts, event, evidence)
            is_open = self.incidents.observe(ts, *key, _standing(event, batch), evidence, sharing)
            best = decided.setdefault(row, NO_EVIDENCE)
            below = event["fresh"] and evidence.ratio < 1 and not scattered[at]
            if (is_open or below) and evidence.ratio > best.ratio:
                decided[row] = evidence
        for at, key in watched.items():
            if key not in self.incidents.open:
                self.flows.state.flows[at]["watched"] = 0
        return decided

    def _sharing(self, ts: float, event: np.void, evidence: Evidence) -> Sequence[str]:
        if evidence.kind not in (Kind.SPREAD, Kind.SPREAD_FRESH):
            return ()
        found = [self.flows.view(row) for row in event["sharing"].tolist() if row >= 0]
        # later in the batch, a carrier may have been dropped and its row reused for another flow
        still = [flow for flow in found if flow.samples and flow.first_seen <= ts]
        return [domain_text(flow.samples[0][0].lower()) for flow in still]

    def _verdicts(
        self,
        batch: QueryBatch,
        asked: Asked,
        found: Lexical,
        domains: Coded,
        said: Told,
        decided: dict[int, Evidence],
        explain: bool,
    ) -> Verdicts:
        scale = self.scale
        ratios = said.evidence["ratio"]
        decided = {row: evidence for row, evidence in decided.items() if evidence.ratio > ratios[row]}
        ratios[list(decided)] = [evidence.ratio for evidence in decided.values()]
        behaviour = scale.behaviours(ratios)
        votes = scale.votes(found.score, asked.discount)
        scores = scale.combined(votes, behaviour)
        severities = scale.severities(scores)
        reasons: list[tuple[str, ...]] = [()] * len(batch)
        for row in np.flatnonzero(severities).tolist():
            if not explain and (batch.client[row], domains[row]) not in self.incidents.open:
                continue
            evidence = decided.get(row) or evidence_of(said.evidence[row])
            reasons[row] = query_reasons(
                found.names[row], float(votes[row]), float(behaviour[row]), evidence, domains[row], scale
            )
        shown = scores.astype(np.float32)
        return Verdicts(
            batch, domains, found.features, shown, severities, reasons, self.model.model_id, features_version=VERSION
        )


def verdicts_of(
    detector: TunnelDetector, batches: Iterable[QueryBatch], stage: Stage = iter
) -> Generator[Verdicts, None, None]:
    """The verdicts on batches in time order, then the last state of the incidents that are open at their end.

    stage: runs a generator, in this thread or in its own, as core.prefetch does. Batches, names and windows are three
    stages, one behind another. Nothing may be reloaded meanwhile.
    """
    parts = stage(part for batch in batches for part in spans(batch, detector.incidents.quiet_s))
    yield from stage(_in_order(detector, stage((part, detector.read(part)) for part in parts)))


def _in_order(detector: TunnelDetector, seen: Iterable[tuple[QueryBatch, Seen]]) -> Generator[Verdicts, None, None]:
    for batch, found in seen:
        yield detector.judge(batch, found)
    last = detector.flush()
    if last is not None:
        yield last


def secret_of(qname: bytes) -> str:
    """The secret that one wire name contains, in words; "" for none. The name keeps the case it was sent in."""
    labels = labels_of(qname)
    cut = len(split_domain(qname)[0])
    return secret_in(labels[:cut], labels[cut:])


def _standing(event: np.void, batch: QueryBatch) -> Standing:
    row = int(event["row"])
    return Standing(
        row=int(event["flow"]),
        first_seen=float(event["first_seen"]),
        queries=int(event["queries"]),
        names=int(event["names"]),
        encoded_names=int(event["encoded_names"]),
        leaked_bytes=float(event["leaked"]),
        name=(batch.qname[row], int(batch.qtype[row])) if event["fresh"] else None,
    )


def _domains(found: Lexical) -> Coded:
    """Registered domain of every name; each different one is converted to text once."""
    (codes, rows), starts = distinct_rows(found.domain_key), found.names.starts
    begins = starts[rows] + found.cuts[rows]
    return Coded(codes, texts(gathered(found.names.array, begins, starts[rows + 1] - begins)))


def empty_verdicts(model_id: str, incidents: tuple[Incident, ...]) -> Verdicts:
    """Verdicts without queries, for incidents that change while no query arrives."""
    none = np.empty(0, dtype=np.float32)
    features = np.empty((0, len(FEATURES)), dtype=np.float32)
    return Verdicts(batch_of([]), (), features, none, none.astype(np.uint8), (), model_id, incidents, VERSION)
