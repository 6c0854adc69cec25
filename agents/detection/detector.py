"""The detector: a batch of queries in, verdicts out. It reads names, counts flows, then applies model and limits."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key, keyed_hash
from agents.core.columns import Coded, Names, coded, distinct_rows, gathered, packed
from agents.core.text import NETWORK
from agents.core.types import DAY_S, FROM_CACHE, UNKNOWN, Incident, QueryBatch, Verdicts, batch_of, joined
from agents.detection import snapshot
from agents.detection.explanations.fingerprints import TXT
from agents.detection.explanations.network_profile import NetworkProfile
from agents.detection.flows import Flows
from agents.detection.incidents import Incidents, Standing, domain_hash, spans
from agents.detection.judge_kernels import TENANTS_FACTOR
from agents.detection.known_services import OWN_ZONE_FACTOR, KnownServices
from agents.detection.limits import (
    SCATTERED,
    Evidence,
    Limits,
    Peaks,
    Scale,
    as_listed,
    bounds,
    evidence_of,
    limits_of,
    load_peaks,
    with_secret,
)
from agents.detection.network import cells_of, limits_together
from agents.detection.privacy import Privacy
from agents.detection.reasons import query_reasons
from agents.detection.secrets import OAST, secret_in
from agents.detection.shared.view import NetworkView
from agents.detection.state import TS_MAX, Asked, Kind, Left, Scope, Told
from agents.detection.tripwires.tripwires import Tripwires
from agents.dns.name import domain_text, from_text, labels_of, split_domain, texts, to_text
from agents.scoring.features import FEATURES, VERSION
from agents.scoring.lexical import Lexical, Tenants, read_names
from agents.scoring.lexical_kernels import may_hold_secrets
from agents.scoring.model import Model, detector_type_name
from agents.scoring.reverse_names import Delegated, delegation_of, read_below
from agents.scoring.tally import ScoreTally

WINDOWS_FILE, NETWORK_FILE, PEAKS_FILE, HABITS_FILE = FILES = (
    "windows.snapshot",
    "network.snapshot",
    "peaks.json",
    "habits.json",
)
"""The files that a detector saves, to be loaded in this order: its flows, those of the network, the peaks of flows,
from which the next retraining sets the limits, and what domains carry here on ordinary days."""
VOTED_MAX = 65_536
"""Domains, and clients below domains, whose odd names are remembered for a day."""
NO_EVIDENCE = Evidence(0.0)
KEPT_S = 5
"""No cache keeps an answer with a TTL of so many seconds or less for long: whoever asks again is heard."""
Seen = tuple[Names, Lexical, Coded, Coded, Asked, NDArray[np.int64], dict[int, Evidence]]
"""Names, lexical values of the names; and of what the kernel counts, each query, then each tenant (Tenants), then each
address's name (Delegated): client, domain, values (Asked.client still indexes clients), and row of the batch; the
evidence of rows that trip a wire."""
Suspect = tuple[float, str, str, float, str]
"""Time (Unix seconds), client, domain, probability, and why in words; "" = by what it did in an hour."""
DELEGATED4_FACTOR = 2.0
"""How many times more addresses' names may carry below one delegation of IPv4 than names below one domain."""
SIGNERS = b"_domainkey"
"""Below this label, in TXT answers, lie the keys of mail signers (RFC 6376 section 3.6.2.1)."""


def _left(batch: QueryBatch) -> NDArray[np.uint8]:
    """Left of each query; where no TTL is known, caches keep its answer."""
    lasts, left = np.maximum(batch.ttl_min, batch.negative_ttl), batch.cached != FROM_CACHE
    unkept: NDArray[np.bool_] = (lasts >= 0) & (lasts <= KEPT_S)
    return np.where(left, np.where(unkept, Left.UNKEPT, Left.KEPT), Left.STAYED).astype(np.uint8)


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
        tripwires: Tripwires | None = None,
        burn_in_days: float = 0,
        privacy: Privacy | None = None,
        view: NetworkView | None = None,
    ) -> None:
        """key: of all hashes. burn_in_days: days with queries before this network's habits are known. view: of the
        clients of other detectors, where there are any (shared.part)."""
        self.flows = Flows(keys_max, key)
        self._tripwires = tripwires or Tripwires()
        self.incidents = Incidents(quiet_s, scale, self.flows, view)
        self.scale = scale
        self.peaks = Peaks()
        self._burn_in_days, self.privacy = burn_in_days, privacy or Privacy()
        self._voted: dict[tuple[int, str], int] = {}  # see _once
        self._swap = threading.Lock()
        self._next: Model | None = None
        self.services = services or KnownServices()
        self._next_services: KnownServices | None = None
        self._next_profile: list[NetworkProfile | None] = []
        self._next_chances: dict[tuple[str, str], float] = {}
        self._next_suspects: list[Suspect] = []
        self._next_images: dict[tuple[str, str], float] = {}
        self._tally = ScoreTally()
        self._use(model)

    def _use(self, model: Model) -> None:
        self.model, self._model_type = model, detector_type_name(model.manifest)
        self.incidents.model_id = model.model_id
        self._limits: Limits = limits_of(model.limit_factor, self.incidents.quiet_s)
        self._limits_together = limits_together(self._limits)

    @property
    def model_id(self) -> str:
        """Id of the model in use."""
        return self.model.model_id

    @property
    def quiet_s(self) -> float:
        """Seconds without queries after which an incident is closed."""
        return self.incidents.quiet_s

    @property
    def open_incidents(self) -> Mapping[tuple[str, str], Incident]:
        """Open incidents by client and domain; SCATTERED stands for a client's sum over domains."""
        return self.incidents.open

    def save(self, lock: AbstractContextManager[Any]) -> dict[str, bytes]:
        """The contents of FILES. `lock` is held while arrays are copied, not while they are packed."""
        samples = self.privacy.keeps_names
        windows, network = (snapshot.dump_flows(flows, lock, samples) for flows in (self.flows, self.flows.network))
        with lock:
            habits = self.incidents.explainer.dump()
            return {WINDOWS_FILE: windows, NETWORK_FILE: network, PEAKS_FILE: self.peaks.dump(), HABITS_FILE: habits}

    def load(self, name: str, data: bytes) -> None:
        """Restore state from one of FILES. Raises FormatError for invalid contents."""
        if name == PEAKS_FILE:
            self.peaks = load_peaks(data)
        elif name == HABITS_FILE:
            self.incidents.explainer.load(data)
        else:
            snapshot.load_flows(data, self.flows.network if name == NETWORK_FILE else self.flows)

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
            "scoring": self._tally.to_json(),
        }

    def reload(self, model: Model) -> None:
        """Use another model from the next batch or tick on. May be called from any thread."""
        with self._swap:
            self._next = model

    def reload_services(self, services: KnownServices) -> None:
        """Use another list of known services from the next batch on. May be called from any thread."""
        with self._swap:
            self._next_services = services

    def reload_profile(self, profile: NetworkProfile | None) -> None:
        """Use another network profile, or none, from the next batch or tick on. May be called from any thread."""
        with self._swap:
            self._next_profile = [profile]

    def appraise(
        self,
        chances: Mapping[tuple[str, str], float],
        suspects: Sequence[Suspect] = (),
        images: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        """What a model has learnt of flows, to be used from the next batch or tick on. May be called from any thread.

        chances: probabilities by client and domain, for incidents that are open. suspects: flows that are
        to be listed, though they reached no limit. images: how rare what flows did over hours is (learning.images).
        """
        with self._swap:
            self._next_chances |= chances
            self._next_suspects += suspects
            self._next_images |= images or {}

    def detect(self, batch: QueryBatch, explain: bool = True) -> Verdicts:
        """Judge a batch. explain: give reasons for every query that is not NORMAL, else only below open incidents."""
        self.use_reloaded()
        short = len(batch) > 0 and float(np.ptp(batch.ts)) <= self.incidents.quiet_s
        slices = (batch,) if short else spans(batch, self.incidents.quiet_s)
        parts = [self.judge(one, self.read(one), explain) for one in slices]
        return joined(parts) if parts else empty_verdicts(self.model.model_id, ())

    def read(self, batch: QueryBatch) -> Seen:
        """The first half of `detect`: the values that depend on the queries of a batch alone.

        Another thread may call it while `judge` works on earlier batches, as long as nothing is reloaded meanwhile.
        """
        names, asking = packed(batch.qname), coded(batch.client)
        clients = self.privacy.veil.column(asking) if self.privacy.veil is not None else asking
        found = read_names(names, self.model, self.flows.key)
        tenants, delegated = read_below(found, self.model, self.flows.key)
        asked = self._asked(batch, names, clients, asking, found)
        tripped = self._tripped(asked, found, asking)
        rows = np.concatenate([np.arange(len(batch)), tenants.rows, delegated.rows])
        everybody, domains = Coded(clients.codes[rows], clients.values), _domains(found, tenants, delegated)
        asked = self._with_delegated(self._with_tenants(asked, tenants, asking), delegated, asking)
        return names, found, everybody, domains, asked, rows, tripped

    def judge(self, batch: QueryBatch, seen: Seen, explain: bool = True) -> Verdicts:
        """The second half: count the queries, in order, and decide."""
        names, found, clients, domains, asked, rows, tripped = seen
        if self.privacy.veil is not None:
            batch = replace(batch, client=Coded(clients.codes[: len(batch)], clients.values))
        asked = asked._replace(client=self.flows.rows_of(clients.values)[clients.codes])
        if len(batch):
            self.incidents.explainer.see(float(batch.ts[0]), clients, asked)
            profile = self.incidents.explainer.profile
            known = max(self._days, profile.days if profile is not None else 0)
            self.incidents.explainer.learning = 0 < self._burn_in_days >= known
        said = self.flows.judge(asked, self._limits.table, self._limits_together.table, self._limits.rules)
        self.flows.keep_samples(said, names, batch.qtype, rows)
        self._note_peaks(asked.ts, clients, domains, said)
        decided = self._follow(batch, clients, domains, said, rows)
        self._pass_on(batch, asked, names, clients, domains, rows, said)
        for row, evidence in tripped.items():
            origin = int(batch.origin[row])
            self.incidents.trip(float(batch.ts[row]), clients[row], domains[row], names[row], evidence, origin)
            if evidence.ratio > decided.get(row, NO_EVIDENCE).ratio:
                decided[row] = evidence
        own = Coded(domains.codes[: len(batch)], domains.values)
        verdicts = self._verdicts(batch, asked, found, own, said, decided, explain)
        incidents = self.incidents
        if incidents.open and len(batch):
            incidents.close_quiet(float(batch.ts[-1]))
        if incidents.open or incidents.closed:
            return replace(verdicts, incidents=incidents.changes())
        return verdicts

    @property
    def _days(self) -> int:
        """Days with queries."""
        return len(self.peaks.days)

    def _pass_on(
        self,
        batch: QueryBatch,
        asked: Asked,
        names: Names,
        clients: Coded,
        domains: Coded,
        rows: NDArray[np.int64],
        said: Told,
    ) -> None:
        """Tell others of a batch: where one detector judges all clients, there are none (shared.part)."""

    def tick(self, now: float) -> Verdicts | None:
        """Do the work that depends on time alone: close quiet incidents, start to use a reloaded model."""
        self.use_reloaded()
        self.incidents.close_quiet(now)
        changed = self.incidents.changes()
        return empty_verdicts(self.model.model_id, changed) if changed else None

    def flush(self) -> Verdicts | None:
        """End of input: close all incidents; their last state comes with an empty batch."""
        self.incidents.close_all()
        changed = self.incidents.changes()
        return empty_verdicts(self.model.model_id, changed) if changed else None

    def use_reloaded(self) -> None:
        """Begin to use what was reloaded, and what a model has learnt since. `detect` and `tick` call it."""
        with self._swap:
            if self._next is not None:
                self._use(self._next)
                self._next = None
            if self._next_profile:
                self.incidents.explainer.profile = self._next_profile.pop()
            if self._next_services is not None:
                old, self.services, self._next_services = self.services, self._next_services, None
                self._forgive(old)
            if self._next_chances or self._next_suspects:
                self.incidents.appraise(self._next_chances)
                for suspect in self._next_suspects:
                    self.incidents.suspect(*suspect)
                self._next_chances, self._next_suspects = {}, []
            if self._next_images:
                self.incidents.note_images(self._next_images)
                self._next_images = {}

    def _forgive(self, old: KnownServices) -> None:
        """Forget flows that a larger budget covers now: a new budget applies to bytes counted before it, too."""
        for flows, limits in ((self.flows, self._limits), (self.flows.network, self._limits_together)):
            clients = {row: client for client, row in flows.clients.items()}
            for row in flows.rows(lambda found: (found["detail"] >= 0) & (found["scattered"] == 0)):
                names = packed([wire.lower() for wire, _ in flows.view(row).samples])
                part = delegation_of(names[0]) if len(names) else b""  # where the flow is of addresses' names below it
                apart = part != b"" and int(flows.state.flows["domain"][row]) == keyed_hash(part, flows.key)
                client = clients[flows.client_of(row)]
                now, before = (_budget(one, names, client, apart) for one in (self.services, old))
                if not len(names) or (more := float(np.min(now / before))) <= 1:
                    continue
                key = client, to_text(part) if apart else domain_text(names[0])
                known = self.incidents.open.get(key)
                ratio = self.scale.ratio(known.score) if known else flows.ratio(row, limits.table, limits.rules)
                if ratio < more:
                    self.incidents.close(key)
                    flows.forget(row)

    def forget(self, client: str) -> None:
        """Drop all that is known of a client. Nothing may be judged meanwhile."""
        self.incidents.forget(client)
        self.flows.forget_client(client)
        self.peaks.forget(client)
        self._voted = {key: day for key, day in self._voted.items() if key[1] != client}

    def restore(self, incidents: Sequence[Incident]) -> None:
        """Go on with incidents that were open when the process stopped."""
        self.incidents.restore(incidents)
        for one in incidents:
            flows = self.incidents.flows_of(one.client)
            if one.domain == SCATTERED:
                flows.watch_scattered(one.last_seen, one.client)
                continue
            flows.watch(one.last_seen, one.client, domain_hash(one.domain, flows))

    def _asked(self, batch: QueryBatch, names: Names, clients: Coded, asking: Coded, found: Lexical) -> Asked:
        """asking: the clients' addresses, which entries of known services name; clients: as they are called here."""
        secret = np.zeros(len(batch), np.uint8)
        may_hold_secrets(names.array, names.starts, found.cuts, secret)
        outside = np.isin(found.domain_key, _marks(self.flows.key).called) & (
            found.part_starts[:-1] < found.part_starts[1:]
        )
        discount, cells = self.services.factors(found.names), cells_of(clients, self.flows.key)
        discount = self.services.raised(discount, found.names, asking)
        secret[discount >= OWN_ZONE_FACTOR] = 0
        return Asked(
            ts=np.clip(np.nan_to_num(batch.ts), -TS_MAX, TS_MAX),
            client=clients.codes,
            qtype=batch.qtype,
            rlen=batch.rlen,
            answer=batch.ans_hash,
            data=np.where(discount > 1, UNKNOWN, batch.ans_bytes).astype(np.int32),  # known services: by size
            left=_left(batch),
            size=np.diff(names.starts),
            name=found.name_key,
            domain=found.domain_key,
            form=found.form,
            shape=found.shape_key,
            digits=found.digits,
            discount=discount,
            secret=secret | outside,
            cell=cells[0],
            home_cell=cells[1],
            scoped=self._scoped(batch.qtype, found),
            parts=found.part_starts,
            key=found.part_key,
            bits=found.part_bits,
            encoded=found.part_encoded,
        )

    def _tripped(self, asked: Asked, found: Lexical, clients: Coded) -> dict[int, Evidence]:
        """The evidence of rows that trip a wire; their names are kept. An own zone gives no secret away."""
        inside = asked.discount >= OWN_ZONE_FACTOR
        found_rows = self._tripwires.tripped(found, clients)
        tripped = {row: evidence for row, evidence in found_rows.items() if evidence.refused or not inside[row]}
        asked.secret[list(tripped)] = 1
        return tripped

    def _with_tenants(self, asked: Asked, tenants: Tenants, asking: Coded) -> Asked:
        """What the kernel counts: each query, and then what its label below a suffix of many tenants carries."""
        clients = Coded(asking.codes[tenants.rows], asking.values)
        discount = self.services.raised(self.services.factors(tenants.domains), tenants.domains, clients)
        return _and(
            asked,
            tenants.rows,
            name=tenants.name_key,
            domain=tenants.domain_key,
            discount=np.maximum(discount, TENANTS_FACTOR),
            parts=np.arange(len(tenants.rows) + 1),
            key=tenants.label_key,
            bits=tenants.bits,
            encoded=tenants.encoded,
        )

    def _with_delegated(self, asked: Asked, delegated: Delegated, asking: Coded) -> Asked:
        """… and then what each address's name carries below its delegation.

        Addresses of IPv4 have no part in sums over domains: mail servers look up thousands of strangers a day, and what
        is chosen among the few of one delegation is little.
        """
        clients = Coded(asking.codes[delegated.rows], asking.values)
        factors = self.services.raised(self.services.factors_delegated(delegated.names), delegated.names, clients)
        return _and(
            asked,
            delegated.rows,
            data=np.full(len(delegated.rows), UNKNOWN, np.int32),  # as of the known services that they are
            name=delegated.name_key,
            domain=delegated.domain_key,
            discount=factors * np.where(delegated.is_six, 1.0, DELEGATED4_FACTOR),
            scoped=np.full(len(delegated.rows), Scope.REVERSE, np.uint8),
            parts=delegated.part_starts,
            key=delegated.part_key,
            bits=delegated.part_bits,
        )

    def _scoped(self, qtype: NDArray[np.uint16], found: Lexical) -> NDArray[np.uint8]:
        """Which queries ask for a mail signer's key: a mail server asks for one below the domain of each sender."""
        out = np.zeros(len(qtype), np.uint8)
        labels = np.flatnonzero(found.part_key == _marks(self.flows.key).signers)
        out[np.searchsorted(found.part_starts, labels, side="right") - 1] = Scope.SIGNER
        out[qtype != TXT] = Scope.NOTHING
        return out

    def _note_peaks(self, ts: NDArray[np.float64], clients: Coded, domains: Coded, said: Told) -> None:
        self.peaks.days.update(np.unique(ts // DAY_S).astype(int).tolist())
        for row, scattered, ratio in said.peaks[: said.counts[2]].tolist():
            self.peaks.note(float(ts[row]), clients[row], SCATTERED if scattered else domains[row], ratio)

    def _follow(
        self, batch: QueryBatch, clients: Coded, domains: Coded, said: Told, rows: NDArray[np.int64]
    ) -> dict[int, Evidence]:
        """Pass events to the incidents; returns the evidence that decides the score of their rows of the batch.

        clients, domains, rows: of what the kernel counted, see Seen.
        """
        decided: dict[int, Evidence] = {}
        watched: dict[tuple[str, str], tuple[Flows, int]] = {}
        opened = self.incidents.open
        for event in _in_turn(said):
            place = int(event["row"])
            self.incidents.explainer.reach(place)
            row, client = int(rows[place]), NETWORK if event["network"] else clients[place]
            flows, at = self.incidents.flows_of(client), int(event["flow"])
            scattered = bool(flows.state.flows["scattered"][at])
            ts, evidence = float(batch.ts[row]), evidence_of(event["evidence"])
            if event["secret"] and client != NETWORK:
                evidence = with_secret(evidence, secret_of(batch.qname[row]))
            key = client, SCATTERED if scattered else domains[place]
            watched[key] = flows, at
            found = self._told(key, clients[row], evidence, event) or self.incidents.observe(
                ts, *key, _standing(event, batch, row), evidence, self._sharing(ts, event, evidence, flows),
                clients[place] if client == NETWORK else None, int(batch.origin[row]),
            )  # fmt: skip
            best = decided.setdefault(row, NO_EVIDENCE)
            below = event["fresh"] and evidence.ratio < 1 and not scattered
            evidence = found or evidence
            if (found or below) and evidence.ratio > best.ratio:
                decided[row] = evidence
        for key, (flows, at) in watched.items():
            if key not in opened:
                flows.state.flows[at]["watched"] = 0
        return decided

    def _told(self, key: tuple[str, str], client: str, evidence: Evidence, event: np.void) -> Evidence | None:
        """The evidence, if another open incident tells of this query: one channel is one incident, a client's or the
        network's. client: who asked; event: state.EVENT."""
        opened, domain = self.incidents.open, key[1]
        if key in opened or evidence.kind == Kind.SECRET:
            return None
        other = (client, domain) if key[0] == NETWORK else (NETWORK, domain)
        if other not in opened or (domain == SCATTERED and key[0] != NETWORK):
            return None
        if self.incidents.is_learnt_alone(other):
            return None
        return as_listed(evidence) if self.incidents.is_listed(other) else evidence

    def _sharing(self, ts: float, event: np.void, evidence: Evidence, flows: Flows) -> Sequence[str]:
        if evidence.kind not in (Kind.SPREAD, Kind.SPREAD_FRESH):
            return ()
        found = [flows.view(row) for row in event["sharing"].tolist() if row >= 0]
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
        ratios = said.evidence["ratio"][: len(batch)]
        decided = {row: evidence for row, evidence in decided.items() if evidence.ratio > ratios[row]}
        ratios[list(decided)] = [evidence.ratio for evidence in decided.values()]
        behaviour = scale.behaviours(ratios)
        votes = scale.votes(found.score, asked.discount[: len(batch)])
        explained = asked.discount[: len(batch)] > 1
        sure = scale.confidences(found.score)
        self._tally.note(self._model_type, found.score, explained, sure, scale.suspicious, found.scoring_s)
        if scale.combine == "max":
            votes = self._once(batch, asked, found.names, domains, votes)
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

    def _once(
        self, batch: QueryBatch, asked: Asked, names: Names, domains: Coded, votes: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The model's votes: of the odd names below a domain, one a day is HIGH by itself, none if the domain is old
        and common here, or if a kind of service explains it. What they carry together is for the limits to say.

        The day is remembered of a domain (keyed hash), with no client; of a client below it, whose names are explained.
        """
        rows = np.flatnonzero(votes >= self.scale.high)
        if not len(rows):
            return votes
        votes, below = votes.copy(), np.nextafter(np.float32(self.scale.high), np.float32(0))
        for row in rows.tolist():
            ts, key, client = float(asked.ts[row]), asked.domain[row], batch.client[row]
            day, domain = int(ts // DAY_S), int(key)
            if day not in (self._voted.get((domain, "")), self._voted.get((domain, client))):
                young, name = self.flows.is_young(ts, key), (names[row], int(batch.qtype[row]))
                explained = young and self.incidents.explains(ts, client, domains[row], key, name, row)
                if len(self._voted) >= VOTED_MAX:
                    self._voted.clear()
                self._voted[domain, client if explained else ""] = day
                if young and not explained:
                    continue
            votes[row] = below
        return votes


def secret_of(qname: bytes) -> str:
    """The secret that one wire name contains, in words; "" for none. The name keeps the case it was sent in."""
    labels = labels_of(qname)
    cut = len(split_domain(qname)[0])
    return secret_in(labels[:cut], labels[cut:])


def _in_turn(said: Told) -> list[np.void]:
    """The events of each query in turn: those of its own flow, before them what several clients carry together, and
    after them what one client alone carries in a flow of the network."""
    rank = np.where(said.events["network"] == 0, 1, np.where(said.events["several"] == 0, 2, 0))[: said.counts[0]]
    events = said.events[: said.counts[0]]
    return list(events[np.lexsort((rank, events["row"]))])


def _budget(services: KnownServices, names: Names, client: str, apart: bool) -> NDArray[np.float64]:
    """How many times more each of a client's names may carry. apart: they are addresses' names of a delegation."""
    factors = services.factors_delegated(names) if apart else services.factors(names)
    return services.raised(factors, names, Coded(np.zeros(len(names), np.int32), [client]))


def _and(asked: Asked, rows: NDArray[np.int64], **values: Any) -> Asked:
    """Queries, and some of them again. values: columns of the second, of which `parts` begins at 0; key, bits and
    encoded have a row a part. What is not given is the query's own, or 0 where it is of the name."""
    own = ("ts", "client", "qtype", "rlen", "answer", "data", "left", "size", "cell", "home_cell")
    more = {name: getattr(asked, name)[rows] for name in own} | values
    parts = asked.parts[-1] + more.pop("parts")[1:]
    columns = {"parts": np.concatenate([asked.parts, parts])}
    for name in Asked._fields:
        if name not in columns:
            kept = getattr(asked, name)
            zeros = len(more["key"]) if name == "encoded" else len(rows)
            columns[name] = np.concatenate([kept, more.get(name, np.zeros(zeros, kept.dtype))])
    return Asked(**columns)


def _standing(event: np.void, batch: QueryBatch, row: int) -> Standing:
    return Standing(
        row=int(event["flow"]),
        first_seen=float(event["first_seen"]),
        queries=int(event["queries"]),
        names=int(event["names"]),
        encoded_names=int(event["encoded_names"]),
        leaked_bytes=float(event["leaked"]),
        leaked_today=float(event["today"]),
        name=(batch.qname[row], int(batch.qtype[row])) if event["fresh"] else None,
    )


def _domains(found: Lexical, tenants: Tenants, delegated: Delegated) -> Coded:
    """Registered domain of every name, then suffix of every tenant, then delegation of every address's name; each
    different one is converted to text once."""
    parts = (
        _texts(found.domain_key, found.names, found.cuts),
        _texts(tenants.domain_key, tenants.domains, tenants.cuts),
        _texts(delegated.domain_key, delegated.names, delegated.cuts),
    )
    codes, values = [], list[str]()
    for part in parts:
        codes.append(part.codes + np.int32(len(values)))
        values += part.values
    return Coded(np.concatenate(codes), values)


def _texts(keys: NDArray[np.uint64], names: Names, cuts: NDArray[np.int64]) -> Coded:
    """What stands from the cut on in each name. keys: its hashes."""
    (codes, rows), starts = distinct_rows(keys), names.starts
    begins = starts[rows] + cuts[rows]
    return Coded(codes, texts(gathered(names.array, begins, starts[rows + 1] - begins)))


def empty_verdicts(model_id: str, incidents: tuple[Incident, ...]) -> Verdicts:
    """Verdicts without queries, for incidents that change while no query arrives."""
    none = np.empty(0, dtype=np.float32)
    features = np.empty((0, len(FEATURES)), dtype=np.float32)
    return Verdicts(batch_of([]), (), features, none, none.astype(np.uint8), (), model_id, incidents, VERSION)
