"""Four weeks of a made-up network, written into a store as verdicts: the same queries again for the same seed.

Clients and domains are as unequal as those of real networks are (a few make most of it, Zipf), nights are quiet, each
client has domains of its own beside those that all ask for, every day brings domains that nobody had asked for, one
query in fifty has a name that never comes again, and tunnels are few and short.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import Coded
from agents.core.types import DAY_S, HOUR_S, Incident, QueryBatch, Severity, Verdicts
from agents.dns.name import from_text
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.store import Store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore

DAYS = 28
CLIENTS, DOMAINS, NEW_A_DAY = 150, 5_000, 100
NAMES_MOST = 300
"""Names below the domain that is asked for most; others have fewer, down to one."""
OWN_DOMAINS, OWN_SHARE = 250, 0.5
"""Domains that a client prefers, and the share of its look-ups that goes there, most of it to the first of them."""
NEW_SHARE = 0.002
"""Share of look-ups that goes to domains of that day."""
QUERIES_A_LOOKUP = (0.3, 0.4, 0.3)
"""How many ask for A alone, for A and AAAA, for HTTPS too."""
ONCE_SHARE = 0.02
"""Share of queries for a name that never comes again, below CDNs and reputation services."""
ONCE_DOMAINS = 20
CHUNK = 50_000
INCIDENT_QUERIES, INCIDENT_S = 25, 240.0
TOOLS = ("dnscat2", "iodine", "dns2tcp", None, None)
QTYPES, QTYPE_SHARES = np.array([1, 12, 16, 33, 15, 2]), (0.92, 0.05, 0.012, 0.01, 0.005, 0.003)
RCODES, RCODE_SHARES = np.array([0, 3, 2]), (0.925, 0.07, 0.005)
WIDTH = 25
"""Features of a name."""
NIGHT = np.array([2, 1, 1, 1, 1, 2, 4, 8, 12, 14, 14, 14, 12, 13, 14, 14, 13, 11, 9, 8, 7, 6, 4, 3], float)
"""How busy each hour of a day is."""
SEED = 15
NEEDLE = "qxzneedle"
"""Part of one name that is asked for once a week below the domain that is asked for most."""


@dataclass(frozen=True)
class Names:
    """Registered domains, and the wire forms of names below each."""

    domains: list[str]
    first: NDArray[np.int64]  # number of each domain's first name
    count: NDArray[np.int64]
    wires: list[bytes]


def made_names(rng: np.random.Generator) -> Names:
    """Domains, the most popular first: those of all days, then those that each day brings."""
    words = (
        "mail api cdn img www login sync ads video update time static edge data news shop auth push track map".split()
    )
    total = DOMAINS + NEW_A_DAY * DAYS
    domains = [f"{words[n % len(words)]}{n:05d}.{('com', 'net', 'org', 'de', 'io')[n % 5]}" for n in range(total)]
    count = np.maximum(1, NAMES_MOST / np.arange(1, total + 1) ** 0.5).astype(np.int64)
    labels = rng.integers(0, 1 << 32, int(count.sum()))
    wires, at = [], 0
    for number, domain in enumerate(domains):
        for name in range(int(count[number])):
            host = f"{words[int(labels[at]) % len(words)]}-{name}" if name else "www"
            wires.append(from_text(f"{host}.{domain}"))
            at += 1
    return Names(domains, np.concatenate([[0], np.cumsum(count)[:-1]]), count, wires)


def zipf(count: int, steep: float) -> NDArray[np.float64]:
    """Upper ends of the shares of `count` things by their rank."""
    ends = np.cumsum(1.0 / np.arange(1, count + 1) ** steep)
    return np.asarray(ends / ends[-1], np.float64)


class Network:
    """The made-up network; until: end of the last day, Unix seconds."""

    def __init__(self, rows: int, incidents: int, until: float) -> None:
        self.rows, self.incident_count, self.until = rows, incidents, until
        self.begin = until - DAYS * DAY_S
        self._rng = np.random.default_rng(SEED)
        self.names = made_names(self._rng)
        self.clients = [f"10.0.{n // 50}.{n % 50 + 10}" for n in range(CLIENTS)]
        self._client_shares, self._domain_shares = zipf(CLIENTS, 0.8), zipf(DOMAINS, 1.2)
        self._own = self._rng.integers(0, DOMAINS, (CLIENTS, OWN_DOMAINS))
        self._once = [from_text(one) for one in self.names.domains[:ONCE_DOMAINS]]

    def fill(self, store: Store) -> None:
        """Write all of it: queries, incidents, and a flow-hour for every two hundred queries."""
        store.migrate()
        for part in self.parts():
            store.write(part, uuid.uuid4().hex)
        incidents = self.incidents()
        for at in range(0, len(incidents), 500):
            store.write(self.tunnels(incidents[at : at + 500]), uuid.uuid4().hex)
        FlowHourStore(store).add(self.flow_hours(self.rows // 200))

    def parts(self) -> Iterator[Verdicts]:
        """Ordinary queries, oldest first."""
        first = int(self.begin % DAY_S // HOUR_S)
        edges = np.cumsum(np.tile(np.roll(NIGHT, -first), DAYS))
        edges = np.concatenate([[0.0], edges / edges[-1]])
        for begin in range(0, self.rows, CHUNK):
            size = min(CHUNK, self.rows - begin)
            at = np.sort((begin + self._rng.random(size) * size) / self.rows)
            hours = np.interp(at, edges, np.arange(len(edges)))
            yield self._part(self.begin + np.clip(hours * HOUR_S, 0, DAYS * DAY_S - 1))

    def _part(self, ts: NDArray[np.float64]) -> Verdicts:
        rng, size = self._rng, len(ts)
        lookup = np.repeat(np.arange(size), rng.choice([1, 2, 3], size, p=QUERIES_A_LOOKUP))[:size]
        ts = ts[np.minimum(np.arange(size) * size // (int(lookup[-1]) + 1), size - 1)]  # look-ups fill the whole span
        client, domain, name = (column[lookup] for column in self._lookups(size, ts))
        ts = ts[lookup]
        again = np.arange(size) - np.searchsorted(lookup, lookup)  # A, then AAAA, then HTTPS of the same name
        qtype = np.where(again > 0, np.array([1, 28, 65])[again], rng.choice(QTYPES, size, p=QTYPE_SHARES))
        wires = [self.names.wires[one] for one in name.tolist()]
        once = np.flatnonzero(rng.random(size) < ONCE_SHARE)
        for row, low, high in zip(once.tolist(), *rng.integers(1 << 60, 1 << 62, (2, len(once))).tolist(), strict=True):
            domain[row] = row % ONCE_DOMAINS
            wires[row] = b"\x20" + f"{low:016x}{high:016x}".encode() + self._once[row % ONCE_DOMAINS]
        week = ((ts - self.begin) // (7 * DAY_S)).astype(np.int64)
        for row in np.flatnonzero(np.diff(week, prepend=week[0])).tolist():
            domain[row], wires[row] = 0, bytes([len(NEEDLE)]) + NEEDLE.encode() + self._once[0]
        odd = rng.random(size) < 0.0005
        score = np.where(odd, 0.62 + 0.1 * rng.random(size), rng.random(size) ** 3 * 0.5).astype(np.float32)
        return self._verdicts(
            ts, Coded(client.astype(np.int32), self.clients), wires, Coded(domain.astype(np.int32), self.names.domains),
            qtype, RCODES[rng.choice(3, size, p=RCODE_SHARES)], score, odd.astype(np.uint8) * int(Severity.SUSPICIOUS),
        )  # fmt: skip

    def _lookups(
        self, size: int, ts: NDArray[np.float64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Client, domain and name of each of so many look-ups."""
        rng = self._rng
        client = np.searchsorted(self._client_shares, rng.random(size)).astype(np.int32)
        domain = np.searchsorted(self._domain_shares, rng.random(size))
        own = rng.random(size) < OWN_SHARE
        domain[own] = self._own[client[own], (rng.random(int(own.sum())) ** 5 * OWN_DOMAINS).astype(int)]
        new = np.flatnonzero(rng.random(size) < NEW_SHARE)
        day = np.clip((ts[new] - self.begin) // DAY_S, 0, DAYS - 1).astype(np.int64)
        domain[new] = DOMAINS + day * NEW_A_DAY + rng.integers(0, NEW_A_DAY, len(new))
        name = self.names.first[domain] + (rng.random(size) ** 3 * self.names.count[domain]).astype(np.int64)
        return client, np.asarray(domain, np.int64), name

    def _verdicts(
        self, ts: NDArray[np.float64], client: Coded, wires: list[bytes], domain: Coded, qtype: NDArray[np.int64],
        rcode: NDArray[np.int64], score: NDArray[np.float32], severity: NDArray[np.uint8],
        incidents: tuple[Incident, ...] = (),
    ) -> Verdicts:  # fmt: skip
        rng, size = self._rng, len(ts)
        batch = QueryBatch(
            ts=ts, client=client, qname=wires, qtype=qtype.astype(np.uint16),
            qlen=np.array([len(one) + 17 for one in wires], np.int32), rcode=rcode.astype(np.int16),
            ancount=np.where(rcode == 0, 1, 0).astype(np.int32),
            rlen=np.clip(rng.lognormal(4.6, 0.5, size), 40, 4_000).astype(np.int32),
            ttl_min=np.full(size, 300, np.int64), rtt_ms=rng.random(size).astype(np.float32) * 40,
            ans_types=Coded(np.where(rcode == 0, 1, 0).astype(np.int32), ["", "A"]),
        )  # fmt: skip
        said = ("the name reads as encoded: 4.1 bits a letter",)
        return Verdicts(
            queries=batch, domain=domain, features=rng.random((size, WIDTH), np.float32), score=score,
            severity=severity, reasons=[said if level else () for level in severity.tolist()], model_id="model-1",
            incidents=incidents, features_version=1,
        )  # fmt: skip

    def incidents(self) -> list[Incident]:
        """Incidents over all days, the last ones still going on."""
        rng, found = self._rng, []
        times = np.sort(rng.random(self.incident_count)) * (DAYS * DAY_S - 2 * INCIDENT_S) + self.begin
        for number, at in enumerate(times.tolist()):
            domain = f"t{number % max(self.incident_count // 3, 1):04d}.example"
            loud = number % 7 == 0
            found.append(Incident(
                client=self.clients[int(rng.integers(CLIENTS))], domain=domain,
                severity=Severity.CRITICAL if loud else Severity.HIGH if number % 3 else Severity.SUSPICIOUS,
                score=0.75 + 0.2 * float(rng.random()), reasons=(f"{INCIDENT_QUERIES} unique names below {domain}",),
                tool=TOOLS[number % len(TOOLS)], first_seen=at, last_seen=at + INCIDENT_S, detected_at=at + 60,
                queries=INCIDENT_QUERIES, unique_names=INCIDENT_QUERIES, leaked_bytes=900.0 + number,
                queries_before_detection=12, bytes_before_detection=300.0,
                sample_names=(f"6e616d653d616e6e3b6b65793d{number:020d}.{domain}",),
                closed_at=None if at + 3 * HOUR_S > self.until else at + INCIDENT_S + 600,
                evidence={"qtypes": {"TXT": 9}, "bytes_in": 9, "attack": [], "benign_if": "", "queries_per_minute": 6},
            ))  # fmt: skip
        return found

    def tunnels(self, incidents: list[Incident]) -> Verdicts:
        """The queries of incidents, with these."""
        ts, clients, wires, domains, levels = [], [], [], [], []
        for one in incidents:
            for number in range(INCIDENT_QUERIES):
                ts.append(one.first_seen + number * INCIDENT_S / INCIDENT_QUERIES)
                clients.append(self.clients.index(one.client))
                low, high = self._rng.integers(1 << 60, 1 << 62, 2).tolist()
                wires.append(from_text(f"{low:016x}{high:016x}.{one.domain}"))
                domains.append(one.domain)
                levels.append(int(one.severity))
        values = sorted(set(domains))
        places = {name: number for number, name in enumerate(values)}
        codes, size = np.array([places[name] for name in domains], np.int32), len(ts)
        return self._verdicts(
            np.array(ts), Coded(np.array(clients, np.int32), self.clients), wires, Coded(codes, values),
            np.full(size, 16), np.zeros(size, np.int64), np.full(size, 0.93, np.float32),
            np.array(levels, np.uint8), tuple(incidents),
        )  # fmt: skip

    def flow_hours(self, count: int) -> FlowHours:
        """Flow-hours over all days."""
        rng = self._rng
        hour = np.sort(rng.integers(int(self.begin // HOUR_S), int(self.until // HOUR_S), count))
        client = rng.integers(0, CLIENTS, count).tolist()
        domain = np.minimum((rng.random(count) ** 3 * DOMAINS).astype(int), DOMAINS - 1).tolist()
        numbers = rng.random((count, len(NUMBERS)), np.float32)
        names = [self.names.domains[one] for one in domain]
        return FlowHours(
            SCHEMA, hour, [self.clients[one] for one in client], names, [(f"www.{one}",) for one in names], numbers
        )
