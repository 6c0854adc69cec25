"""Alerts on disk: a process that is killed while it sends them is followed by one that goes on.

Two kinds of files: an incident that waits for its client's next message, in the folder itself; and a message that a
channel has not taken yet, in a folder of that channel. A file is written before its contents are first tried and
removed when they are done with. A message's file name counts how often sending has begun, so that one that ends each
process which sends it is given up. Nothing is forced onto the disk: files outlive kill -9; after a loss of power those
of the last seconds may be gone.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog
from pydantic import BaseModel

from agents.alerting.grouping import Due, Event
from agents.core.errors import QueueFullError
from agents.core.files import DiskQueue, Queued
from agents.core.protocols import Sendable
from agents.core.types import Incident, Message, Severity, incident_of, incident_row

BEGUN_MAX = 3
"""A message whose sending was begun so often, and never came to an end, is given up."""
DISK_MAX = 64 << 20
"""Disk for incidents that wait, and for each channel's messages; AlertSink and Channel queues bound their number."""
DEAD_MAX = 100
"""Messages that were given up and are kept for a person, of each channel."""
_OLD = re.compile(r"[0-9]{16}-(?P<attempts>[0-9])\.json", re.ASCII)
"""Names of release 0.1."""
_log = structlog.get_logger()

Content = TypeVar("Content")


Sent = TypeVar("Sent", bound=Sendable)


@dataclass(slots=True)
class Letter(Generic[Sent]):
    """One message to one channel. file: None where the disk did not take it. at: Unix seconds when it was written.

    since: when this process took it over, by time.monotonic(): the wall clock may be set meanwhile.
    """

    message: Sent
    at: float
    file: Queued | None
    since: float = field(default_factory=time.monotonic)


class Folder(Generic[Content]):
    """Contents as JSON files, oldest first. Raises OSError, BlockingIOError where another process owns the folder."""

    def __init__(self, folder: Path, to_json: Callable[[Content], Any], of_json: Callable[[Any], Content]) -> None:
        self._queue = DiskQueue(folder, ".json", max_bytes=DISK_MAX, sync=False, old=_OLD)
        self._to_json, self._of_json = to_json, of_json
        self.fault = ""  # why the disk did not take the last one

    def found(self) -> Iterator[tuple[Content, Queued]]:
        """What an earlier process left; to be read before anything is put."""
        for file in self._queue.waiting():
            try:
                yield self._of_json(json.loads(file.path.read_bytes())), file
            except (ValueError, OSError) as error:
                _log.error("alert_unreadable", file=self._queue.set_aside(file), error=str(error))

    def put(self, content: Content, key: str = "") -> Queued | None:
        """Keep it; None where the disk does not take it: then it is in memory alone.

        key: what waits under it already is kept as it is.
        """
        try:
            file = self._queue.put(json.dumps(self._to_json(content)).encode(), key)
        except (OSError, QueueFullError) as error:
            self.fault = getattr(error, "strerror", None) or str(error)
            _log.warning("alert_not_kept", error=self.fault)
            return None
        self.fault = ""
        return file

    def begin(self, file: Queued | None) -> bool:
        """Note that it is sent now; False where that has been begun too often: then it is given up."""
        if file is None:
            return True
        if file.attempts >= BEGUN_MAX:
            return False
        self._count(file, self._queue.begin)
        return True

    def put_back(self, file: Queued | None) -> None:
        """Sending came to an end, and is to be tried again."""
        if file is not None:
            self._count(file, self._queue.put_back)

    def _count(self, file: Queued, change: Callable[[Queued], None]) -> None:
        try:
            change(file)
        except OSError as error:
            _log.warning("alert_not_kept", error=error.strerror)

    def give_up(self, file: Queued | None) -> None:
        """It could not be sent: a person may send it again, or drop it (`dns-tunnel outbox`). The oldest go first."""
        if file is not None:
            with suppress(OSError):
                self._queue.set_aside(file)
                self._queue.drop_aside(DEAD_MAX)

    def returned(self) -> Iterator[tuple[Content, Queued]]:
        """What a person put back meanwhile."""
        for file in self._queue.returned():
            try:
                yield self._of_json(json.loads(file.path.read_bytes())), file
            except (ValueError, OSError) as error:
                _log.error("alert_unreadable", file=self._queue.set_aside(file), error=str(error))

    def done(self, file: Queued | None) -> None:
        """It was sent, or given up."""
        if file is not None:
            with suppress(OSError):
                self._queue.done(file)

    def close(self) -> None:
        """Let the folder go; what is in it is sent by the next process."""
        self._queue.close()


class Letters(Folder[tuple[Message, float]]):
    """Messages that one channel has not taken yet."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, letter_row, letter_of)


class Outbox(Folder[tuple[Incident, Event]]):
    """Incidents that wait for a message, and a folder of messages for each channel."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, lambda due: {"event": due[1], "incident": incident_row(due[0])}, _due_of)
        self._at = folder

    def letters(self, channel: str) -> Letters:
        """The channel's folder. Raises OSError, BlockingIOError where another process owns it."""
        return Letters(self._at / channel)

    def store(self, incident: Incident, event: Event) -> Due:
        """Keep an incident until its message is written."""
        return Due(incident, event, self.put((incident, event)))


def _due_of(row: Any) -> tuple[Incident, Event]:
    if not isinstance(row, dict):
        raise ValueError("it is no incident")
    if "incident" not in row:  # release 0.2.0 and earlier: an incident alone
        return incident_of(row), Event.NEW
    return incident_of(row["incident"]), Event(str(row.get("event")))


class _Row(BaseModel):
    """A message as JSON; it raises a ValueError for anything else."""

    title: str
    summary: str
    facts: list[tuple[str, str]]
    severity: Severity
    thread_id: str
    link: str | None
    link_text: str
    at: float


def letter_row(letter: tuple[Message, float]) -> dict[str, Any]:
    """A message and its time as JSON; attachments stay out."""
    message, at = letter
    fields = {name: getattr(message, name) for name in _Row.model_fields if name != "at"}
    return _Row(**fields, at=at).model_dump(mode="json")


def letter_of(row: Any) -> tuple[Message, float]:
    """What letter_row wrote. Raises ValueError for anything else."""
    fields = dict(_Row.model_validate(row))
    at = fields.pop("at")
    return Message(**fields), at
