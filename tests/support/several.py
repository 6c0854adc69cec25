"""Several detectors in one process, as several processes would judge the clients of one network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import coded
from agents.core.types import Incident, QueryBatch, Row, Verdicts, batch_of
from agents.detection.limits import Scale
from agents.detection.shared.detector_report import detector_report_of
from agents.detection.shared.part import PartDetector
from agents.detection.shared.together import TogetherDetector
from agents.detection.shared.view import Facts, NetworkView, facts_of, known_tables
from agents.runtime.drill.drill import part_of
from agents.scoring.model import Model
from agents.stream.slots import PartedClients, detector_for
from tests.support.detecting import BATCH, KEYS_MAX, QUIET_S, fresh_detector


def slices(batch: QueryBatch, lag_s: float) -> list[QueryBatch]:
    """A batch in slices of so many seconds."""
    steps = np.flatnonzero(np.diff(np.floor(batch.ts / lag_s))) + 1
    ends = [*steps.tolist(), len(batch)]
    return [batch.part(begin, end) for begin, end in zip([0, *ends], ends, strict=False) if begin < end]


class Several:
    """Detectors behind a splitter. lag_s: seconds of event time after which each knows what the others said. see: gets
    the verdicts of each, with its number."""

    def __init__(
        self,
        model: Model,
        scale: Scale,
        detectors: int,
        *,
        keys_max: int = KEYS_MAX,
        quiet_s: float = QUIET_S,
        burn_in_days: float = 0,
        lag_s: float = 1.0,
        see: Callable[[int, Verdicts], None] = lambda number, verdicts: None,
        parted: str = "",
    ) -> None:
        tables, self.parted = known_tables(), PartedClients(parted)
        has, options = self.parted.has, {"burn_in_days": burn_in_days}
        is_parted = has if parted else None
        self.together = TogetherDetector(
            model, keys_max, quiet_s, scale, tables=tables, is_parted=is_parted, burn_in_days=burn_in_days
        )
        self._facts = self.together.facts()
        views = [NetworkView(f"detector-{at + 1}", tables, self._read, has) for at in range(detectors)]
        self.parts = [PartDetector(model, keys_max, quiet_s, scale, view=view, **options) for view in views]
        self._lag_s, self._see = lag_s, see
        self._waiting: list[bytes] = []
        self._number = 0

    def _read(self) -> Facts:
        return self._facts

    def detect(self, batch: QueryBatch) -> list[Incident]:
        """Judge a batch, in slices of `lag_s` at most; the incidents that changed."""
        return [one for part in slices(batch, self._lag_s) for one in self._detect(part)]

    def _detect(self, batch: QueryBatch) -> list[Incident]:
        owners = self._owners(batch)
        found: list[Incident] = []
        for at, part in enumerate(self.parts):
            mine = owners == at
            if mine.any():
                judged = part.detect(part_of(batch, mine))
                found += judged.incidents
                self._see(at, judged)
                self._number += 1
                said = part.take_report(self._number)
                self._waiting += [said.packed()] if said is not None else []
        return [*found, *self.exchange()]

    def _owners(self, batch: QueryBatch) -> NDArray[np.int64]:
        if self.parted:
            slots = map(self.parted.slot_of, batch.client, batch.qname)
            return np.fromiter(slots, np.int64, len(batch)) % len(self.parts)
        clients = coded(batch.client)
        return np.array([detector_for(one, len(self.parts)) for one in clients.values], np.int64)[clients.codes]

    def exchange(self) -> tuple[Incident, ...]:
        """Count what the detectors said, and let them know."""
        told = self.together.count_reports([detector_report_of(one) for one in self._waiting])
        self._waiting = []
        self._facts = facts_of(self.together.facts().packed())
        return told.incidents if told is not None else ()

    def flush(self) -> list[Incident]:
        """Close all incidents."""
        found = list(self.exchange())
        for one in (*self.parts, self.together):
            last = one.flush()
            found += last.incidents if last is not None else ()
        return found


Told = tuple[str, str, int, str]
"""Domain, client, severity and tool of an incident."""


def told(incidents: Sequence[Incident]) -> list[Told]:
    """What must be the same however many detectors there are."""
    return sorted((one.domain, one.client, int(one.severity), one.tool or "") for one in incidents)


def incidents_of_several(
    rows: Iterable[Row],
    model: Model,
    detectors: int,
    batch: int = BATCH,
    lag_s: float = 1.0,
    burn_in_days: float = 0,
    parted: str = "",
) -> list[Incident]:
    """As detecting.incidents_of, by several detectors. parted: addresses that several judge."""
    several = Several(model, Scale(), detectors, lag_s=lag_s, burn_in_days=burn_in_days, parted=parted)
    found: dict[str, Incident] = {}
    left = iter(rows)
    while part := list(islice(left, batch)):
        found |= {one.incident_id: one for one in several.detect(batch_of(part))}
    found |= {one.incident_id: one for one in several.flush()}
    return sorted(found.values(), key=lambda one: one.detected_at)


def incidents_of_slices(rows: Iterable[Row], model: Model, batch: int = BATCH, lag_s: float = 1.0) -> list[Incident]:
    """As detecting.incidents_of, in the slices that several detectors would get: what is seen is seen at their ends."""
    detector, found = fresh_detector(model, Scale()), dict[str, Incident]()
    left = iter(rows)
    while part := list(islice(left, batch)):
        for one in slices(batch_of(part), lag_s):
            found |= {incident.incident_id: incident for incident in detector.detect(one).incidents}
    last = detector.flush()
    found |= {one.incident_id: one for one in (last.incidents if last else ())}
    return sorted(found.values(), key=lambda one: one.detected_at)
