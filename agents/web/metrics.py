"""Numbers for Prometheus, collected at each request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agents.core import types
from agents.core.errors import StoreError
from agents.store.feedback.reviews import ReviewState
from agents.web.auth import HANGS_S
from agents.web.parts import Parts, parts_of

PREFIX = "dns_tunnel_"

router = APIRouter()


class _Numbers(Collector):
    def __init__(self, metrics: Callable[[], Iterable[types.Metric]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for name, text, value in sorted(self._metrics()):
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(PREFIX + name, text, value=value)


def _learning(parts: Parts) -> list[types.Metric]:
    """What the online learner and people do; nothing while the database is away."""
    try:
        parts.database_must_answer(HANGS_S)
        waiting, cycles = parts.reviews.counts(), parts.learner.history(1)
    except StoreError:
        return []
    found = [
        types.Metric(f"reviews_{state.replace(' ', '_')}", f"domains in the review queue: {state}", waiting[state])
        for state in (ReviewState.NEW, ReviewState.IN_WORK)
    ]
    for one in cycles:
        found += [
            types.Metric("learning_cycles_total", "cycles of the online learner", one["cycle_id"]),
            types.Metric("learning_last_cycle_at", "when the last cycle began, Unix seconds", one["started_at"]),
            types.Metric("learning_last_cycle_rolled_back", "1 = it missed a gate", one["state"] == "rolled back"),
        ]
        found += [
            types.Metric(f"learning_{name}", f"{name.replace('_', ' ')} of the last cycle, on what is held out", value)
            for name, value in one["metrics"].items()
        ]
    return found


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": "dns_tunnel_store_stored_total 12345.0\n"}}}},
)
def metrics(request: Request) -> Response:
    """Counters and gauges of this process, in Prometheus' text format."""
    registry = CollectorRegistry()
    parts = parts_of(request)
    registry.register(_Numbers(lambda: [*parts.metrics(), *_learning(parts)]))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
