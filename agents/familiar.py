"""How common and how old a domain is among the network's own clients: a carrier is new, and one client's."""

from __future__ import annotations

from collections.abc import Iterable

from agents.windows import Flow

CLIENTS = 5
"""Clients from which a domain is common here."""
AGE_S = 86_400.0
"""A domain known for less is new, however many ask for it: a campaign hits many clients in a day."""
FACTOR = 2.0
"""How many times more an old and common domain may carry. Small, since whoever owns five clients gets it too."""
DOMAINS_MAX = 500_000
"""Domains that are counted; beyond it new ones stay unfamiliar."""


class Familiar:
    """First sight and number of clients of each domain that names were asked below."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = {}  # first seen, clients

    def note(self, ts: float, domain: str) -> None:
        """Another client asks for a name below the domain."""
        found = self._seen.get(domain)
        if found is not None:
            found[0] = min(found[0], ts)
            found[1] += 1
        elif len(self._seen) < DOMAINS_MAX:
            self._seen[domain] = [ts, 1]

    def rebuild(self, flows: Iterable[tuple[tuple[str, str], Flow]]) -> None:
        """Count anew from flows: after a restart, and where old ones were dropped, so that nobody counts twice."""
        self._seen.clear()
        for (_, domain), flow in flows:
            self.note(flow.first_seen, domain)

    def factor(self, ts: float, domain: str) -> float:
        """FACTOR for a domain that is old and common here, else 1."""
        found = self._seen.get(domain)
        common = found is not None and found[1] >= CLIENTS and ts - found[0] >= AGE_S
        return FACTOR if common else 1.0

    def forget(self, domain: str) -> None:
        """One client's names below the domain are forgotten."""
        found = self._seen.get(domain)
        if found is not None:
            found[1] -= 1
