"""A canary: a second detector, with a candidate, that judges some clients beside the detector in use.

The detector in use goes on judging everybody, so nothing that it finds is lost, and its flows have no gap when the
canary ends. What the candidate alone finds at its clients is added; in shadow it is counted only.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.core.protocols import Detector
from agents.core.text import NETWORK
from agents.core.types import HOUR_S, Incident, QueryBatch, Severity, Verdicts
from agents.detection.detector import HABITS_FILE, NETWORK_FILE, WINDOWS_FILE
from agents.detection.incidents import Incidents
from agents.scoring.model import Model

CLIENTS_KNOWN_MAX = 65_536
"""Clients whose share is remembered; at this number the memory is dropped, since sources can be forged."""
ALERTS_MAX = 10_000
"""Alerts of either side that are counted one by one; more are as many."""
DOMAINS_MAX = 1_000
"""Domains that only the candidate alerts of, remembered for the labels that people give them."""
TIMED_EVERY, TIMED_ROWS = 32, 1_024
"""One batch in so many is scored by both models, at most so many of its rows, to compare how long they take."""


@dataclass
class CanaryCounts:
    """What was seen of a canary so far. alerts: hashes of client and domain; seconds: for scoring the same names.

    hours: since 1970-01-01, in which it judged something.
    """

    model_id: str
    begun_at: float  # Unix seconds
    queries: int = 0  # judged by the candidate
    skipped: int = 0  # of its clients, left out under load
    champion_alerts: set[str] = field(default_factory=set)
    candidate_alerts: set[str] = field(default_factory=set)
    domains: dict[str, int] = field(default_factory=dict)  # below which the candidate alone alerts, and how often
    timed: int = 0  # names that both have scored
    champion_s: float = 0.0
    candidate_s: float = 0.0
    hours: set[int] = field(default_factory=set)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        sets = {name: sorted(getattr(self, name)) for name in ("champion_alerts", "candidate_alerts", "hours")}
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | sets

    def plus(self, other: CanaryCounts) -> CanaryCounts:
        """What was seen of one canary by two detectors."""
        names = ("queries", "skipped", "timed", "champion_s", "candidate_s")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        joined = {name: getattr(self, name) | getattr(other, name) for name in ("champion_alerts", "candidate_alerts")}
        domains = {one: self.domains.get(one, 0) + other.domains.get(one, 0) for one in self.domains | other.domains}
        return replace(self, **sums, **joined, hours=self.hours | other.hours, domains=domains)

    def summary(self) -> dict[str, Any]:
        """Numbers for people and programs."""
        micro = {
            f"{side}_us": round(seconds * 1e6 / self.timed, 3) if self.timed else None
            for side, seconds in (("champion", self.champion_s), ("candidate", self.candidate_s))
        }
        return {
            "queries": self.queries,
            "skipped": self.skipped,
            "hours": len(self.hours),
            "champion_alerts": len(self.champion_alerts),
            "candidate_alerts": len(self.candidate_alerts),
            "candidate_alone": len(self.candidate_alerts - self.champion_alerts),
            "timed": self.timed,
            **micro,
        }


def counts_of(found: Any, model_id: str, begun_at: float) -> CanaryCounts:
    """The counts as `to_json` gave them; new ones for another canary, or of what are none."""
    new = CanaryCounts(model_id, begun_at)
    if not isinstance(found, Mapping) or found.get("model_id") != model_id or found.get("begun_at") != begun_at:
        return new
    kinds: Mapping[str, Any] = {"queries": int, "skipped": int, "timed": int}
    kinds = {**kinds, "champion_s": (int, float), "candidate_s": (int, float), "domains": dict}
    kinds = {**kinds, "champion_alerts": list, "candidate_alerts": list, "hours": list}
    if not all(isinstance(found.get(name), kind) for name, kind in kinds.items()):
        return new
    values = {name: found[name] for name in kinds}
    sets = {name: set(map(str, values[name])) for name in ("champion_alerts", "candidate_alerts")}
    hours = {hour for hour in values["hours"] if isinstance(hour, int)}
    return replace(new, **values | sets | {"hours": hours})


def in_share(client: str, share: float) -> bool:
    """Whether a client is among the canary's, always the same ones: by a hash of its address."""
    digest = hashlib.sha256(b"canary " + client.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2.0**64


class ComparedDetector(Detector, Protocol):
    """One of two detectors that judge the same clients: its model can be asked by itself."""

    @property
    def model(self) -> Model:
        """The model in use."""
        ...

    @property
    def incidents(self) -> Incidents:
        """Its incidents."""
        ...


class Canary:
    """A candidate on trial. detector: with the candidate, and nothing seen yet; it takes over what `main` has seen.

    alerts_max, domains_max: see ALERTS_MAX and DOMAINS_MAX.
    """

    def __init__(
        self,
        detector: ComparedDetector,
        share: float,
        shadow: bool,
        counts: CanaryCounts,
        alerts_max: int = ALERTS_MAX,
        domains_max: int = DOMAINS_MAX,
    ) -> None:
        self._detector, self._shadow, self.counts = detector, shadow, counts
        self._alerts_max, self._domains_max = alerts_max, domains_max
        self._share = 1.0 if shadow else share
        self._clients: dict[str, bool] = {}
        self._mine: set[str] = set()  # its clients as incidents call them
        self._told: dict[tuple[str, str], Incident] = {}  # open ones that only the candidate has
        self._batches = 0

    @property
    def model_id(self) -> str:
        """Id of the candidate."""
        return self._detector.model_id

    def take_over(self, main: ComparedDetector, files: Mapping[str, bytes]) -> None:
        """Begin with the state of the detector in use. files: of main.save. Nothing may be judged meanwhile."""
        for name in (WINDOWS_FILE, NETWORK_FILE, HABITS_FILE):
            if name in files:  # one of several detectors has none of the network
                self._detector.load(name, files[name])
        self._detector.restore([one for key, one in main.open_incidents.items() if key[0] != NETWORK])
        self._detector.incidents.changes()

    def resume(self, incidents: Sequence[Incident]) -> None:
        """Go on with incidents that it alone had when the process stopped; the counts of then may lack them."""
        self._detector.restore(incidents)
        self._told |= {(one.client, one.domain): one for one in incidents}
        self._mine.update([one.client for one in incidents])
        self._count(incidents, self.counts.candidate_alerts)
        for domain in {one.domain for one in incidents if _is_alert(one)} - self.counts.domains.keys():
            self._remember(domain)

    def judge(self, batch: QueryBatch, verdicts: Verdicts, main: ComparedDetector, explain: bool = True) -> Verdicts:
        """The verdicts of the detector in use on a batch, with what the candidate adds.

        Clients are known by the names that the detector in use gives them (PRIVACY).
        """
        batch = replace(batch, client=verdicts.queries.client)
        rows = self._rows(batch)
        if self._share < 1 and len(self._mine) < CLIENTS_KNOWN_MAX:
            self._mine.update([verdicts.queries.client[row] for row in rows.tolist()])
        self._count(verdicts.incidents, self.counts.champion_alerts)
        self._time(verdicts.features, main)
        found = self._detector.detect(_taken(batch, rows), explain) if len(rows) else None
        self.counts.queries += len(rows)
        self.counts.hours.update(np.unique(batch.ts[rows] // HOUR_S).astype(int).tolist())
        incidents = self._added(found.incidents if found is not None else (), main)
        if self._shadow or found is None:
            return verdicts if not incidents else replace(verdicts, incidents=(*verdicts.incidents, *incidents))
        louder = found.score > verdicts.score[rows]
        score, severity, reasons = verdicts.score.copy(), verdicts.severity.copy(), list(verdicts.reasons)
        score[rows[louder]], severity[rows[louder]] = found.score[louder], found.severity[louder]
        for at in np.flatnonzero(louder).tolist():
            reasons[int(rows[at])] = found.reasons[at]
        told = (*verdicts.incidents, *incidents)
        return replace(verdicts, score=score, severity=severity, reasons=reasons, incidents=told)

    def skip(self, batch: QueryBatch) -> None:
        """Leave a batch out: under load, the detector in use comes first."""
        self.counts.skipped += len(self._rows(batch))

    def tick(self, now: float, main: ComparedDetector) -> tuple[Incident, ...]:
        """What changes without queries: incidents of the candidate alone that are over."""
        found = self._detector.tick(now)
        return self._added(found.incidents if found is not None else (), main)

    def forget(self, client: str) -> None:
        """Drop all that is known of a client."""
        self._detector.forget(client)
        self._told = {key: one for key, one in self._told.items() if key[0] != client}

    def end(self, main: ComparedDetector, promoted: bool) -> tuple[Incident, ...]:
        """What becomes of incidents that only the candidate has: `main`, with the candidate now, goes on with them; or
        they are closed."""
        told, self._told = list(self._told.values()), {}
        if promoted:
            main.restore([one for one in told if (one.client, one.domain) not in main.open_incidents])
            return ()
        return tuple(replace(one, closed_at=one.last_seen) for one in told)

    def _rows(self, batch: QueryBatch) -> NDArray[np.int64]:
        """Rows of the canary's clients, shape (m,)."""
        if self._share >= 1:
            return np.arange(len(batch))
        known = self._clients
        if len(known) >= CLIENTS_KNOWN_MAX:
            known.clear()
        mine = []
        for client in batch.client:
            found = known.get(client)
            if found is None:
                found = known[client] = in_share(client, self._share)
            mine.append(found)
        return np.flatnonzero(np.array(mine, np.bool_))

    def _added(self, found: Sequence[Incident], main: ComparedDetector) -> tuple[Incident, ...]:
        """What to tell of the candidate's incidents: those that the detector in use does not have."""
        out: list[Incident] = []
        self._count([one for one in found if one.client != NETWORK], self.counts.candidate_alerts)
        for key in self._told.keys() & main.open_incidents.keys():  # it has it by now, and tells of it
            one = self._told.pop(key)
            out.append(replace(one, closed_at=one.last_seen))
        for one in found:
            key = one.client, one.domain
            if one.client == NETWORK or key in main.open_incidents or (NETWORK, one.domain) in main.open_incidents:
                continue
            if _is_alert(one) and one.closed_at is None and key not in self._told:
                self._remember(one.domain)
            if self._shadow:
                continue
            if one.closed_at is not None and self._told.pop(key, None) is None:
                continue
            named = replace(one, evidence={**one.evidence, "canary": self.model_id})
            if one.closed_at is None:
                self._told[key] = named
            out.append(named)
        return tuple(out)

    def _remember(self, domain: str) -> None:
        domains = self.counts.domains
        if domain in domains or len(domains) < self._domains_max:
            domains[domain] = domains.get(domain, 0) + 1

    def _count(self, incidents: Sequence[Incident], alerts: set[str]) -> None:
        """Count alerts at the canary's clients."""
        for one in incidents:
            if _is_alert(one) and len(alerts) < self._alerts_max and one.client != NETWORK and self._is_mine(one):
                alerts.add(_hashed(f"{one.client}|{one.domain}"))

    def _is_mine(self, one: Incident) -> bool:
        """Whether the candidate sees the client. Clients may have other names in incidents than in queries."""
        return self._share >= 1 or one.client in self._mine

    def _time(self, features: NDArray[np.float32], main: ComparedDetector) -> None:
        """Now and then, how long either model takes for the same names."""
        self._batches += 1
        if self._batches % TIMED_EVERY or not len(features):
            return
        some, none = features[:TIMED_ROWS], np.zeros(len(features[:TIMED_ROWS]))
        spent = []
        for detector in (main, self._detector):
            begun = time.perf_counter()
            detector.model.louder(some, none)
            spent.append(time.perf_counter() - begun)
        self.counts.timed += len(some)
        self.counts.champion_s += spent[0]
        self.counts.candidate_s += spent[1]


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_alert(one: Incident) -> bool:
    return one.severity >= Severity.HIGH


def _taken(batch: QueryBatch, rows: NDArray[np.int64]) -> QueryBatch:
    """The given rows of a batch."""
    if len(rows) == len(batch):
        return batch
    at = rows.tolist()
    columns: list[Any] = [getattr(batch, name) for name in QueryBatch.__dataclass_fields__]
    taken: list[Any] = [one[rows] if isinstance(one, np.ndarray) else [one[row] for row in at] for one in columns]
    return QueryBatch(*taken)
