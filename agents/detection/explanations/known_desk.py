"""Where people keep their own known services: what an entry would silence, and the entries themselves."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeGuard

from agents.core.errors import BusyError, NameFormatError, UsageError
from agents.core.files import locked_within
from agents.core.npz import FormatError, object_of
from agents.core.protocols import IncidentStore, VerdictStore
from agents.core.text import printable, refang
from agents.core.types import Incident
from agents.detection.detector import empty_verdicts
from agents.detection.known_services import (
    Entry,
    closed_by,
    entry_client,
    entry_of,
    factor_needed,
    load_entries,
    opened_again,
    row_of_entry,
    save_entries,
    suffix_of,
    with_entry,
)
from agents.detection.limits import Scale

WEEK_S = 7 * 86_400
DAYS = 90
"""Days until an entry without its own expiry ends, so that people review what it silences."""
KNOWN_LOCK_S = 5.0
"""Seconds that a change waits for another one to end."""
WEEKS = (1, 2, 4)
"""Over how many weeks a preview may look back."""
INCIDENTS_MAX = 1000
"""Incidents that a preview looks at for each week, the newest ones."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What an entry would do to live incidents of the last weeks; all that it covers are silenced, or stay."""

    silenced: Sequence[Incident]
    stay: Sequence[tuple[Incident, int]]  # with the factor that would do
    looked_at: int
    weeks: int = 1
    oldest: float | None = None  # Unix seconds: when the oldest one that was looked at was last seen
    is_cut: bool = False  # whether older ones of these weeks were not looked at
    undo: str = ""  # what takes back that the entry was kept, see KnownDesk.take_back


class ExplainedStore(IncidentStore, VerdictStore, Protocol):
    """What is needed of the store: open incidents that an entry explains, and their end."""


class KnownDesk:
    """The entries in a file. Raises SettingsError for a damaged file; what people do, UsageError; StoreError."""

    def __init__(self, path: Path, scale: Callable[[], Scale], store: ExplainedStore) -> None:
        self._path, self._scale, self._store = path, scale, store

    def entries(self) -> list[Entry]:
        """All of them; those that are over, too."""
        return load_entries(self._path)

    def entry(self, suffix: str, factor: str, reason: str, author: str, expires: str = "", client: str = "") -> Entry:
        """An entry, checked. factor: how many times more bytes, or `own`. expires: YYYY-MM-DD, "" = in DAYS days.

        client: an address or network that it is for alone.
        """
        now = datetime.now(UTC)
        row = {
            "suffix": refang(suffix),
            "factor": factor,
            "reason": reason,
            "author": author,
            "added": f"{now:%Y-%m-%d}",
            "client": client,
            "expires": expires or f"{now + timedelta(days=DAYS):%Y-%m-%d}",
        }
        try:
            made = entry_of(row)
        except ValueError as error:
            raise UsageError(f"cannot use {printable(suffix)}: {error}") from None
        if not made.holds(now.timestamp()):
            raise UsageError(f"cannot use {printable(suffix)}: {made.expires} is over")
        return made

    def preview(self, entry: Entry, weeks: int = 1) -> Preview:
        """What an entry would have silenced in so many weeks, of WEEKS."""
        if weeks not in WEEKS:
            raise UsageError(f"cannot look back {weeks} weeks: possible are {', '.join(map(str, WEEKS))}")
        scale, most = self._scale(), weeks * INCIDENTS_MAX
        lately = self._store.incidents(since=time.time() - weeks * WEEK_S, source="", limit=most)
        covered = [incident for incident in lately if entry.covers(incident)]
        silenced = [incident for incident in covered if entry.silences(incident, scale)]
        stay = [(incident, factor_needed(incident, scale)) for incident in covered if incident not in silenced]
        oldest = min((incident.last_seen for incident in lately), default=None)
        return Preview(silenced, stay, len(lately), weeks, oldest, len(lately) == most)

    def add(self, entry: Entry, weeks: int = 1) -> Preview:
        """Keep an entry, in place of the one of that suffix; incidents of these weeks that it silences are closed."""
        found, now = self.preview(entry, weeks), time.time()
        with self._locked():
            entries = self.entries()
            before = next((one for one in entries if one.key == entry.key), None)
            save_entries(self._path, with_entry(entries, entry))
        closed = tuple(closed_by(incident, entry, now) for incident in found.silenced)
        if closed:
            self._store.write(empty_verdicts("", closed), uuid.uuid4().hex)
        kept = {"entry": row_of_entry(entry), "before": row_of_entry(before) if before else None, "at": now}
        return replace(found, undo=json.dumps(kept))

    def take_back(self, undo: str) -> tuple[Entry, list[str]]:
        """Take back that an entry was kept: the one before it, if any, is in force again; the incidents that it closed
        are as before. undo: Preview.undo. The entry, and ids of the incidents."""
        entry, before, at = _read_undo(undo)
        with self._locked():
            entries = self.entries()
            rest = [one for one in entries if one.key != entry.key]
            if not any(_is_same(one, entry) for one in entries):
                raise UsageError(f"cannot undo: {entry.shown} is not on the list any more, or was changed again since")
            save_entries(self._path, with_entry(rest, before) if before else rest)
        weeks = max(WEEKS)
        lately = self._store.incidents(since=at - weeks * WEEK_S, source="", limit=weeks * INCIDENTS_MAX)
        again = tuple(back for one in lately if (back := opened_again(one, entry, at)) is not None)
        if again:
            self._store.write(empty_verdicts("", again), uuid.uuid4().hex)
        return entry, [one.incident_id for one in again]

    def remove(self, text: str, client: str = "") -> str:
        """Take an entry away, that of these clients alone where they are named; which, in words."""
        try:
            suffix, client = suffix_of(refang(text)), entry_client(client)
        except (NameFormatError, ValueError) as error:
            raise UsageError(f"cannot remove {printable(text)}: {error}") from None
        shown = f"{suffix} for {client}" if client else suffix
        with self._locked():
            entries = self.entries()
            if all(entry.key != (suffix, client) for entry in entries):
                raise UsageError(f"cannot remove {shown}: it is not on the list")
            save_entries(self._path, [entry for entry in entries if entry.key != (suffix, client)])
        return shown

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Between reading and writing nobody else writes: command line, API and console may at once."""
        try:
            lock = locked_within(self._path.with_suffix(".lock"), KNOWN_LOCK_S)
        except BlockingIOError:
            raise BusyError("cannot change known services: another process does") from None
        with lock:
            yield


def _is_same(one: Entry, other: Entry) -> bool:
    """Whether two are one entry; reason and author may be escaped in the file."""
    return replace(one, reason="", author="") == replace(other, reason="", author="")


def _read_undo(undo: str) -> tuple[Entry, Entry | None, float]:
    """The entry that was kept, the one before it, and when. Raises UsageError."""
    wrong = UsageError("cannot undo: that is nothing that was kept")
    try:
        kept = object_of(undo, "it")
    except FormatError:
        raise wrong from None
    entry, before, at = (kept.get(name) for name in ("entry", "before", "at"))
    if not _is_row(entry) or not (before is None or _is_row(before)) or not isinstance(at, float):
        raise wrong
    try:
        return entry_of(entry), entry_of(before) if before else None, at
    except ValueError:
        raise wrong from None


def _is_row(row: object) -> TypeGuard[dict[str, str]]:
    return isinstance(row, dict) and all(isinstance(value, str) for value in row.values())
