"""Keeps flow-hours while a detector judges: a copy of its flows at the turn of each hour, the rest in a thread."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.columns import Coded
from agents.core.errors import AgentsError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.npz import FormatError
from agents.core.text import NETWORK
from agents.core.types import HOUR_S, Incident, Verdicts
from agents.detection.flows import Flows
from agents.detection.incidents import domain_hash
from agents.detection.limits import SCATTERED, limits_of
from agents.detection.privacy import Privacy
from agents.learning.loop.flow_hours import (
    HOUR_ROWS_MAX,
    SCHEMA,
    CounterReading,
    FlowCopy,
    copied_flows,
    flow_hours,
    flow_numbers,
    load_reading,
    reading_of_counters,
)
from agents.learning.loop.flow_model import FlowModel
from agents.scoring.model import Model
from agents.store.feedback.flow_hours import FlowHours, FlowHourStore

KEPT_MAX = 200_000
"""Flow-hours that are kept, at most."""
DOMAINS_MAX = 400_000
"""Domains of one hour whose text is remembered; flows below others give no flow-hour."""
WAITING_MAX = 6
"""Hours that wait for a database that is away; a further one is lost, and logged."""
APPRAISED_S = 60.0
"""Seconds between two looks at the probabilities of open incidents."""
AGAIN_S = 30.0
"""After so long a database that was away is tried again."""
_log = structlog.get_logger()


class EndedHour(NamedTuple):
    """What an hour left behind. flows: those that were copied; domains: of the hour; factor: of limits."""

    hour: int
    copy: FlowCopy
    before: CounterReading
    domains: set[str]
    flows: Flows
    factor: float

    def rows(self, privacy: Privacy, draw: np.random.Generator, rows_max: int) -> FlowHours:
        """Its flow-hours, at most so many. privacy: whether names are kept."""
        domains = {domain_hash(domain, self.flows): domain for domain in self.domains}
        limits = limits_of(self.factor)
        found = flow_hours(self.copy, self.before, self.hour, limits, self.factor, domains, draw, rows_max)
        return found if privacy.keeps_names else replace(found, names=[()] * len(found))


class WatchedDetector(Protocol):
    """A detector of which flow-hours are kept while it judges."""

    @property
    def flows(self) -> Flows:
        """Its flows, to be copied under the lock of its judging."""
        ...

    @property
    def model(self) -> Model:
        """The model in use."""
        ...

    @property
    def privacy(self) -> Privacy:
        """Whether names are kept."""
        ...

    @property
    def open_incidents(self) -> Mapping[tuple[str, str], Incident]:
        """Open incidents by client and domain."""
        ...

    def appraise(self, chances: Mapping[tuple[str, str], float]) -> None:
        """Take probabilities by client and domain. May be called from any thread."""
        ...


class HourCollector:
    """Collects the flow-hours of one detector. `see` is called under the lock of its judging, or alone.

    path: where the counters at the beginning of the present hour lie, so that a restart goes on with the hour. then:
    called with the hour after its flow-hours were written; StoreError means that it is called again later. model: the
    flow model in use, None where there is none. rows_max: flow-hours that one hour gives, at most.
    """

    def __init__(
        self,
        detector: WatchedDetector,
        store: FlowHourStore,
        path: Path,
        then: Callable[[int], None] = lambda hour: None,
        model: Callable[[], FlowModel | None] = lambda: None,
        rows_max: int = HOUR_ROWS_MAX,
    ) -> None:
        self._detector, self._store, self._path, self._then, self._model = detector, store, path, then, model
        self._rows_max, self._appraise_at = rows_max, 0.0
        self._domains: set[str] = set()
        self._before: CounterReading | None = None
        self._waiting: queue.Queue[EndedHour | None] = queue.Queue(WAITING_MAX)
        self._draw = np.random.default_rng()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flow-hours", daemon=True)

    def start(self) -> None:
        """Go on with the hour that a process before this one began; its flows have been restored."""
        try:
            self._before = load_reading(self._path.read_bytes())
        except FileNotFoundError:
            self._before = None
        except (FormatError, OSError) as error:
            _log.warning("state_not_restored", path=str(self._path), error=str(error))
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def see(self, verdicts: Verdicts) -> None:
        """Note the domains of a batch that was judged."""
        if len(self._domains) < DOMAINS_MAX:
            domains = verdicts.domain
            self._domains.update(domains.values if isinstance(domains, Coded) else domains)

    def turn(self, ts: float, lock: AbstractContextManager[Any] | None = None) -> bool:
        """It is `ts` (Unix seconds): if an hour is over, copy the flows, and leave the rest to the thread.

        lock: is held while they are copied. Returns whether an hour was over. Where the clock was set back, the present
        hour begins anew.
        """
        hour, before = int(ts // HOUR_S), self._before
        if before is not None and before.hour == hour:
            return False
        over = before is not None and before.hour < hour
        with lock if lock is not None else nullcontext():
            copy = copied_flows(self._detector.flows, (before.hour if before is not None and over else hour) * HOUR_S)
            domains, self._domains = self._domains, set()
        self._before = reading_of_counters(copy, hour)
        self._save(self._before)
        if before is not None and over:
            factor = self._detector.model.limit_factor
            self._hand_over(EndedHour(before.hour, copy, before, domains, self._detector.flows, factor))
        return over

    def appraise(self, ts: float, lock: AbstractContextManager[Any] | None = None) -> None:
        """Tell the detector how probable it is that its open incidents are tunnels, by what they did in this hour.

        At most every APPRAISED_S seconds; lock: as for `turn`. ts: Unix seconds.
        """
        before = self._before
        if before is None or before.hour != int(ts // HOUR_S) or abs(ts - self._appraise_at) < APPRAISED_S:
            return
        self._appraise_at = ts
        appraise_open(self._detector, self._model, before, ts, lock if lock is not None else nullcontext())

    def _hand_over(self, ended: EndedHour) -> None:
        try:
            self._waiting.put_nowait(ended)
        except queue.Full:
            _log.error("flow_hours_lost", hour=ended.hour, error="the database has been away for too long")

    def _save(self, reading: CounterReading) -> None:
        try:
            write_atomic(self._path, reading.dump(), mode=PRIVATE_MODE, sync=False)
        except OSError as error:
            _log.warning("state_not_saved", file=self._path.name, error=str(error))

    def close(self, wait_s: float = 5.0) -> None:
        """Write what waits, if that can be done in so many seconds."""
        self._stop.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        if self._thread.ident is not None:
            self._thread.join(wait_s)

    def _run(self) -> None:
        """Copies become rows as they come, which take a hundredth of their memory; the oldest are written first."""
        pending: deque[tuple[int, FlowHours]] = deque()
        while not (self._stop.is_set() and self._waiting.empty()):
            with suppress(queue.Empty):
                ended = self._waiting.get(timeout=AGAIN_S if pending else None)
                if ended is not None:
                    self._keep(pending, ended)
                del ended
            while pending and self._written(*pending[0]):
                pending.popleft()

    def _keep(self, pending: deque[tuple[int, FlowHours]], ended: EndedHour) -> None:
        if len(pending) < WAITING_MAX:
            pending.append((ended.hour, ended.rows(self._detector.privacy, self._draw, self._rows_max)))
        else:
            _log.error("flow_hours_lost", hour=ended.hour, error="the database has been away for too long")

    def _written(self, hour: int, rows: FlowHours) -> bool:
        try:
            self._store.add(rows)
            dropped = self._store.shrink(KEPT_MAX, SCHEMA)
            self._then(hour)
        except AgentsError as error:
            _log.warning("flow_hours_wait_for_store", hour=hour, error=str(error))
            return False
        _log.info("flow_hours_written", hour=hour, rows=len(rows), dropped=dropped)
        return True


def appraise_open(
    detector: WatchedDetector,
    model_of: Callable[[], FlowModel | None],
    before: CounterReading,
    ts: float,
    lock: AbstractContextManager[Any],
) -> None:
    """Tell a detector how probable it is that its open incidents are tunnels, by what they did since a reading.

    lock: is held while flows are copied. ts: Unix seconds, within the hour of the reading.
    """
    flows = detector.flows
    with lock:
        keys = [key for key in detector.open_incidents if key[1] != SCATTERED]
    model = model_of() if keys else None
    if model is None:
        return
    hashes = {domain_hash(domain, flows): domain for _, domain in keys}
    with lock:
        copy = copied_flows(flows, before.hour * HOUR_S, np.array(list(hashes), np.uint64))
    factor = detector.model.limit_factor
    chances = model.probabilities(flow_numbers(copy, before, before.hour, ts, limits_of(factor), factor))
    detector.appraise(_by_key(copy, hashes, chances))


def _by_key(copy: FlowCopy, domains: Mapping[int, str], chances: NDArray[np.float64]) -> dict[tuple[str, str], float]:
    """Probabilities by client and domain; an incident of the network has the highest one of all clients."""
    found: dict[tuple[str, str], float] = {}
    for flow, chance in zip(copy.flows, chances.tolist(), strict=True):
        domain, client = domains[int(flow["domain"])], copy.clients.get(int(flow["client"]), "")
        found[client, domain] = chance
        found[NETWORK, domain] = max(chance, found.get((NETWORK, domain), 0.0))
    return found
