"""All flows: capped, none that holds evidence evicted, and no client able to take the room of the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from agents.familiar import Familiar
from agents.windows import WINDOWS_S, Flow

IDLE_S = 3600
"""A key without evidence that was idle for this long makes room."""
SWEEP_S = 60
EVIDENCE_BYTES = 20.0
"""A key that showed less than this holds no evidence."""
CLIENT_PART, CLIENT_MIN = 8, 64
"""One client may hold this part of all keys, and at least so many."""
CLIENT_KEPT = 0.75
"""Part of its room that a client's flows without evidence are cut back to when it is full, oldest first."""
SPREAD_DOMAINS = 64
"""Carriers of one client that add up: beyond it the one that carried least is left out."""
SPREAD_NAMES = 3
"""Encoded names from which a domain counts as a carrier: a page has one hash host, a carrier has many."""
NO_CARRIERS: Mapping[str, Flow] = MappingProxyType({})


class Flows:
    """All flows, at most `keys_max`. Time comes from the queries alone."""

    def __init__(self, keys_max: int) -> None:
        self.keys_max = keys_max
        self.client_max = min(keys_max, max(keys_max // CLIENT_PART, CLIENT_MIN))
        self.refused = 0
        self.flows: dict[tuple[str, str], Flow] = {}
        self.familiar = Familiar()
        self._held: Counter[str] = Counter()  # keys by client
        self._carriers: dict[str, dict[str, Flow]] = {}
        self._swept = -math.inf

    def __len__(self) -> int:
        return len(self.flows)

    def flow(self, ts: float, client: str, domain: str) -> Flow | None:
        """The flow of a key, made if it is new; None where the caps refuse it."""
        found = self.flows.get((client, domain))
        if found is not None:
            return found
        if self._is_full(client):
            self._sweep(ts)
            if self._is_full(client):
                self.refused += 1
                return None
        made = self.flows[client, domain] = Flow(ts)
        self._held[client] += 1
        self.familiar.note(ts, domain)
        return made

    def _is_full(self, client: str) -> bool:
        return len(self.flows) >= self.keys_max or self._held[client] >= self.client_max

    def take(self, found: Mapping[tuple[str, str], Flow]) -> None:
        """Put flows in, those of a snapshot."""
        self.flows.update(found)
        self._held = Counter(client for client, _ in self.flows)
        self.familiar.rebuild(self.flows.items())

    def carriers(self, client: str, domain: str, flow: Flow) -> Mapping[str, Flow]:
        """Flows of a client that carry encoded names, by domain: data split over domains adds up over them."""
        if flow.encoded_names < SPREAD_NAMES:
            return NO_CARRIERS
        found = self._carriers.setdefault(client, {})
        if domain not in found and len(found) >= SPREAD_DOMAINS:
            del found[min(found, key=lambda one: (found[one].encoded_bytes, one))]
        found[domain] = flow
        return found

    def forget(self, client: str, domain: str) -> None:
        """Drop a flow and all that it showed."""
        if self.flows.pop((client, domain), None) is not None:
            self._held[client] -= 1
            self.familiar.forget(domain)
        self._carriers.get(client, {}).pop(domain, None)

    def _sweep(self, ts: float) -> None:
        if self._swept <= ts < self._swept + SWEEP_S:
            return
        self._swept = ts
        for key in [key for key, flow in self.flows.items() if _idle(flow, ts)]:
            del self.flows[key]
        self._held = Counter(client for client, _ in self.flows)
        if self.client_max < self.keys_max:
            self._cut_back({client for client, held in self._held.items() if held >= self.client_max})
        self.familiar.rebuild(self.flows.items())
        self._carriers = {}  # filled again by the next query of each that is left

    def _cut_back(self, clients: set[str]) -> None:
        """Drop the oldest flows without evidence of clients that used up their room."""
        if not clients:
            return
        over = {client: self._held[client] - int(self.client_max * CLIENT_KEPT) for client in clients}
        for key in [key for key, flow in self.flows.items() if key[0] in clients and not _has_evidence(flow)]:
            if over[key[0]] > 0:
                over[key[0]] -= 1
                self._held[key[0]] -= 1
                del self.flows[key]


def _has_evidence(flow: Flow) -> bool:
    return flow.leaked_bytes >= EVIDENCE_BYTES


def _idle(flow: Flow, ts: float) -> bool:
    idle = ts - flow.last_seen
    return idle > WINDOWS_S[-1] or (idle > IDLE_S and not _has_evidence(flow))
