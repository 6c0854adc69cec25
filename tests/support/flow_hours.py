"""Flow-hours made by hand, and a detector whose flow-hours are collected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from agents.core.types import Row, batch_of
from agents.detection.limits import Scale
from agents.learning.loop.collector import HourCollector
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.learning.loop.flow_model import FlowModel
from agents.learning.loop.material import cold_model
from agents.store import Store
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore
from tests.support.detecting import fresh_detector, shipped_model

HOUR_S = 3600
HOUR = 490_992
"""An hour of 2026-01-05."""


def flow_hours(
    domains: Sequence[str], hour: int | Sequence[int] = HOUR, client: str = "192.0.2.7", schema: int = SCHEMA,
    **numbers: float,
) -> FlowHours:  # fmt: skip
    """One flow-hour a domain; its numbers are 0 but for `numbers`."""
    values = np.zeros((len(domains), len(NUMBERS)), np.float32)
    for name, value in numbers.items():
        values[:, NUMBERS.index(name)] = value
    hours = np.broadcast_to(np.asarray(hour, np.int64), len(domains)).copy()
    clients = [client] * len(domains)
    return FlowHours(schema, hours, clients, domains, [(f"a.{domain}",) for domain in domains], values)


@cache
def cold() -> FlowModel:
    """The model that a new installation begins with."""
    return cold_model(0.003)


class Collecting:
    """A detector that is asked row by row, as time goes on, with its collector."""

    def __init__(self, store: Store, folder: Path, model: FlowModel | None = None) -> None:
        self.detector = fresh_detector(shipped_model(), Scale())
        self.hours = FlowHourStore(store)
        self.collector = HourCollector(self.detector, self.hours, folder / "flow_hours.npz", model=lambda: model)

    def ask(self, rows: Sequence[Row]) -> None:
        """Judge rows, in time order; the hour turns where they say so."""
        for row in rows:
            self.collector.turn(row[0])
            self.collector.see(self.detector.detect(batch_of([row])))


@contextmanager
def collecting(store: Store, folder: Path, model: FlowModel | None = None) -> Iterator[Collecting]:
    """At its end the collector has written what waits."""
    one = Collecting(store, folder, model)
    one.collector.start()
    try:
        yield one
    finally:
        one.collector.close(60)
