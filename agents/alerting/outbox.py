"""Alerts that are due, as small files: a process that is killed while it sends them is followed by one that goes on.

A file is written before its alert is first tried and removed after the last try. Its name counts how often sending has
begun, so that one that ends each process which sends it is given up. Nothing is forced onto the disk: files outlive
kill -9; after a loss of power those of the last seconds may be gone. One process at a time owns the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from agents.core.files import open_private
from agents.core.types import Incident, incident_of, incident_row

BEGUN_MAX = 3
"""An alert whose sending was begun so often, and never came to an end, is given up."""
_NAME = re.compile(r"([0-9]{16})-([0-9])\.json", re.ASCII)
_log = structlog.get_logger()


@dataclass(slots=True)
class Due:
    """One alert. path: its file, None where the disk did not take it."""

    incident: Incident
    path: Path | None


class Outbox:
    """The folder with these files; who puts something into it sees to it that there are not too many."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0

    def found(self) -> Iterator[Due]:
        """What an earlier process left, oldest first; to be taken before anything is put. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for partial in self._folder.glob("*.tmp"):
            partial.unlink()
        for path in sorted(self._folder.glob("*.json")):
            if match := _NAME.fullmatch(path.name):
                self._number = int(match[1])
                try:
                    yield Due(incident_of(json.loads(path.read_bytes())), path)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    _log.error("alert_unreadable", file=path.name, error=str(error))
                    path.unlink()

    def put(self, incident: Incident) -> Due:
        """Keep an alert; where the disk does not take it, it is in memory alone."""
        self._number += 1
        path = self._folder / f"{self._number:016d}-0.json"
        partial = path.with_suffix(".tmp")
        try:
            with open_private(partial) as file:
                file.write(json.dumps(incident_row(incident)).encode())
            partial.rename(path)
        except OSError as error:
            _log.warning("alert_not_kept", error=error.strerror)
            with suppress(OSError):  # a disk that is read-only says so of a file that is not there
                partial.unlink()
            return Due(incident, None)
        return Due(incident, path)

    def begin(self, due: Due) -> bool:
        """Note that it is sent now; False where that has been begun too often, and it is given up."""
        if due.path is None:
            return True
        begun = int(due.path.stem[-1])
        if begun >= BEGUN_MAX:
            self.done(due)
            return False
        try:
            due.path = due.path.rename(due.path.with_name(f"{due.path.stem[:-1]}{begun + 1}.json"))
        except OSError as error:
            _log.warning("alert_not_kept", error=error.strerror)
        return True

    def done(self, due: Due) -> None:
        """It was sent, or given up."""
        if due.path is not None:
            with suppress(OSError):
                due.path.unlink()
