"""What people at the console keep and look for: triage of incidents, saved views, the audit log, searches."""

from __future__ import annotations

from functools import cached_property

from agents.store.console.audit import AuditLog
from agents.store.console.finding import IncidentFinder
from agents.store.console.hunting import Hunter
from agents.store.console.triage import TriageStore
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

    @cached_property
    def hunter(self) -> Hunter:
        return Hunter(self._store)

    @cached_property
    def audit(self) -> AuditLog:
        return AuditLog(self._store)

    @cached_property
    def views(self) -> SavedViews:
        return SavedViews(self._store)
