"""The collaborators of the application, as plain fields, so that a test can replace any of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from fastapi import Request

from agents.core.errors import StoreError, StoreUnusableError
from agents.core.protocols import ModelList, ReadStore
from agents.core.types import Metric

STATE_S = 1.0
"""The database's state is checked again after this many seconds."""


def _no_health() -> Mapping[str, Mapping[str, Any]]:
    return {}


def _no_metrics() -> Iterable[Metric]:
    return ()


class Database:
    """Whether the database answers; one request at a time checks it, since /health is open to every client."""

    def __init__(self, store: ReadStore) -> None:
        self._store = store
        self._asking = threading.Lock()
        self._state: dict[str, Any] = {"ok": True}
        self._asked_at = -STATE_S

    def state(self) -> dict[str, Any]:
        """{"ok": bool} and the fault, without addresses; at most STATE_S old, or older while another request checks."""
        if time.monotonic() - self._asked_at >= STATE_S and self._asking.acquire(blocking=False):
            try:
                self._state = self._ask()
                self._asked_at = time.monotonic()
            finally:
                self._asking.release()
        return self._state

    def _ask(self) -> dict[str, Any]:
        try:
            self._store.ping()
        except StoreUnusableError:
            return {"ok": False, "error": "cannot use the database: see the log"}
        except StoreError:
            return {"ok": False, "error": "cannot reach the database"}
        return {"ok": True}


@dataclass(frozen=True)
class Parts:
    """Collaborators of the application.

    `retrain` starts a retraining without waiting for it and returns its run id; BusyError while one runs.
    `health` returns the state of each component as {"ok": bool, …}, except the database, which is checked here.
    `metrics` returns the numbers of /metrics.
    """

    store: ReadStore
    models: ModelList
    reports_dir: Path
    token: str = field(repr=False)
    retrain: Callable[[], str]
    health: Callable[[], Mapping[str, Mapping[str, Any]]] = _no_health
    metrics: Callable[[], Iterable[Metric]] = _no_metrics
    version: str = "0"

    @cached_property
    def database(self) -> Database:
        return Database(self.store)


def parts_of(request: Request) -> Parts:
    """The parts of the application that answers this request."""
    return cast(Parts, request.app.state.parts)
