"""The operator's own known services: a suffix with a reason, an author and an expiry, and what it would silence.

The file is a CSV (suffix, factor, reason, author, added, expires); `dns-tunnel known` keeps it. An entry multiplies the
byte budget of names below its suffix, as the shipped list does, until its expiry; it is no free pass either.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, date, datetime
from pathlib import Path

from agents.errors import NameFormatError, SettingsError
from agents.files import write_atomic
from agents.names import from_text, labels_of, suffix_length
from agents.policy import Scale
from agents.services import Service, Services
from agents.types import Incident

FACTOR_MAX = 1000.0
ENTRIES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list. Dates are YYYY-MM-DD in UTC; the entry ends with its expiry's day."""

    suffix: str
    factor: float
    reason: str
    author: str
    added: str
    expires: str

    @property
    def labels(self) -> tuple[bytes, ...]:
        """The suffix as raw lower-case labels."""
        return labels_of(from_text(self.suffix).lower())

    def holds(self, now: float) -> bool:
        """Whether it has not expired at Unix time `now`."""
        return datetime.fromtimestamp(now, UTC).date() <= date.fromisoformat(self.expires)

    def covers(self, incident: Incident) -> bool:
        """Whether all that an incident is about lies below the suffix, at label boundaries."""
        names = incident.sample_names or (incident.domain,)
        return all(_below(name, self.labels) for name in names)

    def silences(self, incident: Incident, scale: Scale) -> bool:
        """Whether the incident would not have been opened with this entry's budget."""
        return self.covers(incident) and scale.ratio(incident.score) < self.factor


def _below(name: str, suffix: tuple[bytes, ...]) -> bool:
    try:
        labels = labels_of(from_text(name).lower())
    except NameFormatError:
        return False
    return labels[len(labels) - len(suffix) :] == suffix


def entry_of(row: dict[str, str]) -> Entry:
    """A checked entry. Raises ValueError with what is wrong."""
    if None in row.values() or set(row) != {field.name for field in fields(Entry)}:
        raise ValueError("a line has suffix, factor, reason, author, added, expires")
    if not row["reason"].strip() or not row["author"].strip():
        raise ValueError("a reason and an author are needed")
    try:
        factor = _number(row["factor"])
        for name in ("added", "expires"):
            _must_be_a_date(row[name])
        suffix = row["suffix"].strip().rstrip(".").lower()
        labels = labels_of(from_text(suffix))
        if not labels:
            raise ValueError("a suffix is needed")
        if len(labels) <= suffix_length(labels):
            raise ValueError("names of strangers end in it: it is a public suffix, or a top level")
    except NameFormatError as error:
        raise ValueError(str(error)) from None
    if not 1 < factor <= FACTOR_MAX:
        raise ValueError(f"a factor is more than 1 and at most {FACTOR_MAX:g}")
    return Entry(suffix, factor, row["reason"].strip(), row["author"].strip(), row["added"], row["expires"])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"the factor {text!r} is no number") from None


def _must_be_a_date(text: str) -> None:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no day: YYYY-MM-DD is needed, for example 2026-12-31") from None


def load(path: Path) -> list[Entry]:
    """The list in a file; none where there is no file. Raises SettingsError naming the line."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    entries = []
    reader = csv.DictReader(io.StringIO(text, newline=""))
    for row in reader:
        try:
            entries.append(entry_of(row))
        except (ValueError, TypeError, AttributeError) as error:
            raise SettingsError(f"cannot read {path}, line {reader.line_num}: {error}") from None
    return entries


def save(path: Path, entries: Sequence[Entry]) -> None:
    """Write the list in one step. Raises OSError."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, [field.name for field in fields(Entry)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(entry) for entry in entries)
    write_atomic(path, out.getvalue().encode())


def with_entry(entries: Sequence[Entry], entry: Entry) -> list[Entry]:
    """The list with an entry, which replaces one of the same suffix. Raises SettingsError at ENTRIES_MAX."""
    kept = [one for one in entries if one.suffix != entry.suffix]
    if len(kept) >= ENTRIES_MAX:
        raise SettingsError(f"cannot add {entry.suffix}: the list holds {ENTRIES_MAX} entries")
    return sorted([*kept, entry], key=lambda one: one.suffix)


def services_at(entries: Iterable[Entry], now: float) -> Services:
    """The shipped list with the entries that hold at Unix time `now`."""
    own = {
        entry.labels: Service(entry.suffix, entry.factor, None, entry.reason) for entry in entries if entry.holds(now)
    }
    return Services(own)


def closed_by(incident: Incident, entry: Entry, now: float) -> Incident:
    """The incident as an entry of the list closes it."""
    why = f"closed as known: {entry.suffix}, {entry.reason} ({entry.author}, until {entry.expires})"
    return replace(incident, closed_at=incident.closed_at or now, reasons=(*incident.reasons, why))
