"""Incidents to other programs: the sink that never blocks detection."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agents.alerting.channel_queue import PAUSE_S, SEND_S, ChannelQueue, end_all
from agents.alerting.grouping import Event
from agents.alerting.manager import REMEMBERED_MAX
from agents.alerting.outbox import Folder
from agents.alerting.sink import CLOSE_S
from agents.core.protocols import Receiver
from agents.core.types import Incident, Severity, Verdicts
from agents.export.record import Record, made, record_of, record_row

EXPORT_COUNTS = ("sent", "failed", "dropped")
"""What ExportSink counts, over all ways out."""
UPDATE_S = 3600.0
"""An open incident that goes on has a record in so many seconds, or when its severity rises."""


class Records(Folder[tuple[Record, float]]):
    """Records that one way out has not taken yet."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, lambda pair: record_row(pair[0]), _timed)


def _timed(row: Any) -> tuple[Record, float]:
    record = record_of(row)
    return record, record.at


class ExportSink:
    """Records of incidents from `least` severity on, each way out in a thread of its own.

    `counts` has EXPORT_COUNTS. What an earlier process left in `folder` is sent first. Raises OSError.
    """

    name = "exports"
    incidents_only = True

    def __init__(
        self,
        outputs: Sequence[Receiver[Record]],
        folder: Path,
        link_base: str = "",
        least: Severity = Severity.SUSPICIOUS,
        *,
        close_s: float = CLOSE_S,
        pause_s: float = PAUSE_S,
        send_s: float = SEND_S,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._link_base, self._least, self._close_s = link_base.rstrip("/"), least, close_s
        self._known: OrderedDict[str, tuple[Severity, float]] = OrderedDict()
        self._records = {one.name: Records(folder / one.name) for one in outputs}
        self._queues = [
            ChannelQueue(one, self._records[one.name], self._count, pace_s=0.0, pause_s=pause_s, send_s=send_s)
            for one in outputs
        ]

    @property
    def alive(self) -> bool:
        """Whether the threads that send live."""
        return all(one.alive for one in self._queues)

    @property
    def fault(self) -> str:
        """Why the disk did not keep the last record of a way out; "" where it did."""
        return next((one.fault for one in self._records.values() if one.fault), "")

    def states(self) -> dict[str, dict[str, Any]]:
        """The state of each way out, for health."""
        return {f"export_{one.name}": one.state() for one in self._queues}

    def remember(self, incidents: Iterable[Incident]) -> None:
        """Incidents of which an earlier process sent a record."""
        for one in incidents:
            if one.severity >= self._least:
                self._note(one)

    def accept(self, verdicts: Verdicts) -> None:
        """Make records of what is new, graver, or over."""
        for incident in verdicts.incidents if self._queues else ():
            event = self._event(incident)
            if event is None:
                continue
            record = made(incident, event, self._link_base)
            for queue in self._queues:
                queue.put(record, record.at, record.key)

    def close(self) -> None:
        """Send what can be sent at once, and end."""
        end_all(self._queues, self._close_s)

    def _event(self, incident: Incident) -> Event | None:
        last = self._known.get(incident.incident_id)
        if incident.closed_at is not None:
            return Event.ENDED if self._known.pop(incident.incident_id, None) else None
        if last is None:
            if incident.severity < self._least:
                return None
            self._note(incident)
            return Event.NEW
        severity, at = last
        if incident.severity <= severity and incident.last_seen - at < UPDATE_S:
            return None
        self._note(incident)
        return Event.UPDATE

    def _note(self, incident: Incident) -> None:
        self._known[incident.incident_id] = incident.severity, incident.last_seen
        self._known.move_to_end(incident.incident_id)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)

    def _count(self, what: str) -> None:
        with self._counting:
            self.counts[what] += 1
