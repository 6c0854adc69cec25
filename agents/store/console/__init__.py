"""What people at the console keep and look for: triage of incidents, saved views, the audit log, searches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from agents.core.types import Incident
from agents.store.console.audit import AuditLog
from agents.store.console.finding import IncidentFinder, IncidentSearch
from agents.store.console.hunting import Hunter
from agents.store.console.triage import Triage, TriageStore
from agents.store.console.views import SavedViews
from agents.store.sql import Store

__all__ = ["ConsoleStore"]


class ConsoleStore:
    """All of it over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @cached_property
    def finder(self) -> IncidentFinder:
        return IncidentFinder(self._store)

    @cached_property
    def triage(self) -> TriageStore:
        return TriageStore(self._store)

    def said_of_all(self, search: IncidentSearch) -> Iterator[tuple[Incident, Triage]]:
        """All incidents of a search, each with what people said of it."""
        for page in self.finder.pages(search):
            said = self.triage.of(one.incident_id for one in page)
            yield from ((one, said[one.incident_id]) for one in page)

    @cached_property
    def hunter(self) -> Hunter:
        return Hunter(self._store)

    @cached_property
    def audit(self) -> AuditLog:
        return AuditLog(self._store)

    @cached_property
    def views(self) -> SavedViews:
        return SavedViews(self._store)
