"""Alerts that are due, as small files: a process that is killed while it sends them is followed by one that goes on.

A file is written before its alert is first tried and removed after the last try. Its name counts how often sending has
begun, so that one that ends each process which sends it is given up. Nothing is forced onto the disk: files outlive
kill -9; after a loss of power those of the last seconds may be gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from agents.core.errors import QueueFullError
from agents.core.files import DiskQueue, Queued
from agents.core.types import Incident, incident_of, incident_row

BEGUN_MAX = 3
"""An alert whose sending was begun so often, and never came to an end, is given up."""
DISK_MAX = 64 << 20
"""Disk for alerts that are due; AlertSink bounds their number."""
_OLD = re.compile(r"[0-9]{16}-(?P<attempts>[0-9])\.json", re.ASCII)
"""Names of release 0.1."""
_log = structlog.get_logger()


@dataclass(slots=True)
class Due:
    """One alert. file: None where the disk did not take it."""

    incident: Incident
    file: Queued | None


class Outbox:
    """The folder with these files. Raises OSError, BlockingIOError where another process owns it."""

    def __init__(self, folder: Path) -> None:
        self._queue = DiskQueue(folder, ".json", max_bytes=DISK_MAX, sync=False, old=_OLD)

    def found(self) -> Iterator[Due]:
        """The alerts that an earlier process left, oldest first; to be taken before anything is put."""
        for file in self._queue.waiting():
            try:
                yield Due(incident_of(json.loads(file.path.read_bytes())), file)
            except (ValueError, OSError) as error:
                _log.error("alert_unreadable", file=self._queue.set_aside(file), error=str(error))

    def put(self, incident: Incident) -> Due:
        """Keep an alert; where the disk does not take it, it is in memory alone."""
        try:
            return Due(incident, self._queue.put(json.dumps(incident_row(incident)).encode()))
        except (OSError, QueueFullError) as error:
            _log.warning("alert_not_kept", error=getattr(error, "strerror", None) or str(error))
            return Due(incident, None)

    def begin(self, due: Due) -> bool:
        """Note that it is sent now; False where that has been begun too often, and it is given up."""
        if due.file is None:
            return True
        if due.file.attempts >= BEGUN_MAX:
            self.done(due)
            return False
        try:
            self._queue.begin(due.file)
        except OSError as error:
            _log.warning("alert_not_kept", error=error.strerror)
        return True

    def done(self, due: Due) -> None:
        """It was sent, or given up."""
        if due.file is not None:
            with suppress(OSError):
                self._queue.done(due.file)

    def close(self) -> None:
        """Let the folder go; the alerts in it are sent by the next process."""
        self._queue.close()
