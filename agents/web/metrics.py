"""Numbers for Prometheus, collected at each request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agents.core import types
from agents.web.parts import parts_of

PREFIX = "dns_tunnel_"

router = APIRouter()


class _Numbers(Collector):
    def __init__(self, metrics: Callable[[], Iterable[types.Metric]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for name, text, value in sorted(self._metrics()):
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(PREFIX + name, text, value=value)


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": "dns_tunnel_store_stored_total 12345.0\n"}}}},
)
def metrics(request: Request) -> Response:
    """Counters and gauges of this process, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Numbers(parts_of(request).metrics))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
