"""The one runner of a detector over batches that are there already, and what its callers need of a detector."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

from agents.core.types import QueryBatch, Verdicts
from agents.detection.detector import Seen
from agents.detection.flows import Flows
from agents.detection.incidents import spans
from agents.detection.known_services import KnownServices
from agents.detection.limits import Scale
from agents.scoring.model import Model

Stage = Callable[[Generator[Any, None, None]], Any]


class ReplayDetector(Protocol):
    """Judges captures, golden queries and stored traffic, in two steps that may run in two threads."""

    @property
    def quiet_s(self) -> float:
        """Seconds without queries after which an incident is closed."""
        ...

    @property
    def scale(self) -> Scale:
        """From scores to severities."""
        ...

    @property
    def services(self) -> KnownServices:
        """What names below services may carry."""
        ...

    def use_reloaded(self) -> None:
        """Begin to use what was reloaded before: model, profile, services."""
        ...

    def read(self, batch: QueryBatch) -> Seen:
        """The values that depend on the queries of a batch alone."""
        ...

    def judge(self, batch: QueryBatch, seen: Seen, explain: bool = True) -> Verdicts:
        """Count the queries, in order, and decide. explain: see core.protocols.Detector.detect."""
        ...

    def flush(self) -> Verdicts | None:
        """Close all incidents at the end of the input."""
        ...


class FlowDetector(ReplayDetector, Protocol):
    """A detector of which flow-hours are made: its flows can be read between two batches."""

    @property
    def flows(self) -> Flows:
        """Its flows."""
        ...

    @property
    def model(self) -> Model:
        """The model in use."""
        ...


def verdicts_of(
    detector: ReplayDetector,
    batches: Iterable[QueryBatch],
    stage: Stage = iter,
    explain: bool = True,
    flush: bool = True,
) -> Generator[Verdicts, None, None]:
    """The verdicts on batches in time order, then the last state of the incidents that are open at their end.

    stage: runs a generator, in this thread or in its own, as core.prefetch does. Batches, names and windows are three
    stages, one behind another. Nothing may be reloaded meanwhile. explain: see core.protocols.Detector.detect. flush:
    the input ends here; without it incidents stay open, for what comes later.
    """
    detector.use_reloaded()
    parts = stage(part for batch in batches for part in spans(batch, detector.quiet_s))
    read = stage((part, detector.read(part)) for part in parts)
    yield from stage(_in_order(detector, read, explain, flush))


def _in_order(
    detector: ReplayDetector, read: Iterable[tuple[QueryBatch, Seen]], explain: bool, flush: bool
) -> Generator[Verdicts, None, None]:
    for batch, seen in read:
        yield detector.judge(batch, seen, explain)
    last = detector.flush() if flush else None
    if last is not None:
        yield last
