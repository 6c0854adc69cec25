"""Where people keep their own known services: what an entry would silence, and the entries themselves."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agents.core.errors import BusyError, NameFormatError, UsageError
from agents.core.files import locked_within
from agents.core.text import printable, refang
from agents.core.types import Incident
from agents.detection.detector import empty_verdicts
from agents.detection.known_services import (
    Entry,
    closed_by,
    entry_of,
    factor_needed,
    load_entries,
    save_entries,
    suffix_of,
    with_entry,
)
from agents.detection.limits import Scale
from agents.store.sql import Store

WEEK_S = 7 * 86_400
DAYS = 90
"""Days until an entry without its own expiry ends, so that people review what it silences."""
KNOWN_LOCK_S = 5.0
"""Seconds that a change waits for another one to end."""
INCIDENTS_MAX = 1000
"""Incidents of the last week that a preview looks at, the newest ones."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What an entry would do to live incidents of the last week; all that it covers are silenced, or stay."""

    silenced: Sequence[Incident]
    stay: Sequence[tuple[Incident, int]]  # with the factor that would do
    looked_at: int


class KnownDesk:
    """The entries in a file. Raises SettingsError for a damaged file; what people do, UsageError; StoreError."""

    def __init__(self, path: Path, scale: Callable[[], Scale], store: Store) -> None:
        self._path, self._scale, self._store = path, scale, store

    def entries(self) -> list[Entry]:
        """All of them; those that are over, too."""
        return load_entries(self._path)

    def entry(self, suffix: str, factor: str, reason: str, author: str, expires: str = "") -> Entry:
        """An entry, checked. factor: how many times more bytes, or `own`. expires: YYYY-MM-DD, "" = in DAYS days."""
        now = datetime.now(UTC)
        row = {
            "suffix": refang(suffix),
            "factor": factor,
            "reason": reason,
            "author": author,
            "added": f"{now:%Y-%m-%d}",
            "expires": expires or f"{now + timedelta(days=DAYS):%Y-%m-%d}",
        }
        try:
            made = entry_of(row)
        except ValueError as error:
            raise UsageError(f"cannot use {printable(suffix)}: {error}") from None
        if not made.holds(now.timestamp()):
            raise UsageError(f"cannot use {printable(suffix)}: {made.expires} is over")
        return made

    def preview(self, entry: Entry) -> Preview:
        """What an entry would have silenced."""
        scale = self._scale()
        lately = self._store.incidents(since=time.time() - WEEK_S, source="", limit=INCIDENTS_MAX)
        covered = [incident for incident in lately if entry.covers(incident)]
        silenced = [incident for incident in covered if entry.silences(incident, scale)]
        stay = [(incident, factor_needed(incident, scale)) for incident in covered if incident not in silenced]
        return Preview(silenced, stay, len(lately))

    def add(self, entry: Entry) -> Preview:
        """Keep an entry, in place of the one of that suffix; stored incidents that it silences are closed."""
        found = self.preview(entry)
        with self._locked():
            save_entries(self._path, with_entry(self.entries(), entry))
        closed = tuple(closed_by(incident, entry, time.time()) for incident in found.silenced)
        if closed:
            self._store.write(empty_verdicts("", closed), uuid.uuid4().hex)
        return found

    def remove(self, text: str) -> str:
        """Take an entry away; its suffix."""
        try:
            suffix = suffix_of(refang(text))
        except NameFormatError as error:
            raise UsageError(f"cannot remove {printable(text)}: {error}") from None
        with self._locked():
            entries = self.entries()
            if all(entry.suffix != suffix for entry in entries):
                raise UsageError(f"cannot remove {suffix}: it is not on the list")
            save_entries(self._path, [entry for entry in entries if entry.suffix != suffix])
        return suffix

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Between reading and writing nobody else writes: command line, API and console may at once."""
        try:
            lock = locked_within(self._path.with_suffix(".lock"), KNOWN_LOCK_S)
        except BlockingIOError:
            raise BusyError("cannot change known services: another process does") from None
        with lock:
            yield
