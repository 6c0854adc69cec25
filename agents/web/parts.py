"""What the application is made of: plain collaborators, so that any of them can be another one in a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fastapi import Request

from agents.protocols import ModelList, ReadStore


def _no_health() -> Mapping[str, Mapping[str, Any]]:
    return {}


def _no_counters() -> Mapping[str, float]:
    return {}


@dataclass(frozen=True)
class Parts:
    """Collaborators of the application.

    `retrain` starts a retraining without waiting for it, returns its run id; BusyError while one runs.
    `health` gives the state of each component as {"ok": bool, …}, but the database's, which is asked here.
    `counters` gives numbers for /metrics by name; a name that ends in `_total` only ever grows.
    """

    store: ReadStore
    models: ModelList
    reports_dir: Path
    token: str = field(repr=False)
    retrain: Callable[[], str]
    health: Callable[[], Mapping[str, Mapping[str, Any]]] = _no_health
    counters: Callable[[], Mapping[str, float]] = _no_counters
    version: str = "0"


def parts_of(request: Request) -> Parts:
    """The parts of the application that answers this request."""
    return cast(Parts, request.app.state.parts)
