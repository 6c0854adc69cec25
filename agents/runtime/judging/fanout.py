"""Verdicts to every sink; one failure never reaches another. The only broad `except` of the package."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from agents.core.protocols import Sink
from agents.core.types import Verdicts

LOG_EVERY_S = 60.0
"""A sink that fails on every batch is logged once in this many seconds, with the number of failures."""

_log = structlog.get_logger()


class Fanout:
    """Sinks in order, with a count of failures for each by name. Used by one thread."""

    def __init__(self, sinks: Sequence[Sink], clock: Callable[[], float] = time.monotonic) -> None:
        self.sinks = tuple(sinks)
        self.failures: Counter[str] = Counter()
        self._clock = clock
        self._logged: dict[str, float] = {}

    def accept(self, verdicts: Verdicts) -> None:
        """Give the batch to every sink; never raises because of one."""
        for sink in self.sinks:
            if verdicts.incidents or not sink.incidents_only:
                self._guarded(sink.name, lambda sink=sink: sink.accept(verdicts))  # type: ignore[misc]

    def close(self) -> None:
        """Close every sink, whatever the others do."""
        for sink in self.sinks:
            self._guarded(sink.name, sink.close)

    def _guarded(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the boundary that keeps sinks apart
            self.failures[name] += 1
            self._report(name, error)

    def _report(self, name: str, error: Exception) -> None:
        now = self._clock()
        if now - self._logged.get(name, float("-inf")) >= LOG_EVERY_S:
            self._logged[name] = now
            text = f"{type(error).__name__}: {error}"[:300]
            _log.error("sink_failed", sink=name, failures=self.failures[name], error=text)
