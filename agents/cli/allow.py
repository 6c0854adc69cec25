"""`dns-tunnel allow`: the operator's own known services, with a preview; a new entry closes stored incidents."""

from __future__ import annotations

import argparse
import time
import uuid
from datetime import UTC, datetime, timedelta

from agents.core.errors import NameFormatError, UsageError
from agents.core.text import counted, printable, refang, who
from agents.core.types import Incident, Severity
from agents.detection.detector import empty_verdicts
from agents.detection.known_services import (
    FACTOR_MAX,
    Entry,
    closed_by,
    entry_of,
    factor_needed,
    load_entries,
    save_entries,
    suffix_of,
    with_entry,
)
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store.sql import Store

WEEK_S = 7 * 86_400
DAYS = 90
"""Days until an entry without its own expiry ends, so that people review what it silences."""
INCIDENTS_MAX = 1000


def allow(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel allow …`."""
    path = bootstrap.known_path(settings)
    entries = load_entries(path)
    if options.action == "list":
        for entry in entries:
            ended = "" if entry.holds(time.time()) else "  EXPIRED"
            who = f"{printable(entry.author)}: {printable(entry.reason)}"
            size = "own zone" if entry.is_own else f"x{entry.factor:g}"
            print(f"{printable(entry.suffix)}  {size}  until {entry.expires}{ended}  {who}")
    elif options.action == "remove":
        try:
            suffix = suffix_of(refang(options.suffix))
        except NameFormatError as error:
            raise UsageError(f"cannot remove {printable(options.suffix)}: {error}") from None
        if all(entry.suffix != suffix for entry in entries):
            raise UsageError(f"cannot remove {suffix}: it is not on the list")
        save_entries(path, [entry for entry in entries if entry.suffix != suffix])
        print(f"removed {printable(suffix)}")
    else:
        entry = _entry(options)
        store = bootstrap.store_of(settings)
        store.migrate()
        silenced = _preview(settings, store, entry)
        if options.action == "add":
            save_entries(path, with_entry(entries, entry))
            _close(store, silenced, entry)
            print(f"added {printable(entry.suffix)}: {counted(len(silenced), 'stored incident')} closed as known")
    return 0


def _entry(options: argparse.Namespace) -> Entry:
    now = datetime.now(UTC)
    row = {
        "suffix": refang(options.suffix),
        "factor": options.factor,
        "reason": options.reason,
        "author": options.author,
        "added": f"{now:%Y-%m-%d}",
        "expires": options.expires or f"{now + timedelta(days=DAYS):%Y-%m-%d}",
    }
    try:
        entry = entry_of(row)
    except ValueError as error:
        raise UsageError(f"cannot use {options.suffix}: {error}") from None
    if not entry.holds(now.timestamp()):
        raise UsageError(f"cannot use {options.suffix}: {entry.expires} is over")
    return entry


def _preview(settings: Settings, store: Store, entry: Entry) -> list[Incident]:
    """Print live incidents of the last week: what the entry would silence (returned), and what would stay."""
    scale = bootstrap.scale_of(settings)
    lately = store.incidents(since=time.time() - WEEK_S, source="", limit=INCIDENTS_MAX)
    covered = [incident for incident in lately if entry.covers(incident)]
    silenced = [incident for incident in covered if entry.silences(incident, scale)]
    for incident in covered:
        word = "would be silent" if incident in silenced else f"would stay{_remedy(factor_needed(incident, scale))}"
        level = Severity(incident.severity).name
        amount = counted(incident.leaked_bytes, "byte")
        print(f"{word}: {level} {who(incident.client)} -> {printable(incident.domain)}, {amount}")
    stay = len(covered) - len(silenced)
    print(
        f"{len(silenced)} of {counted(len(lately), 'incident')} of the last week would be silent, {stay} below it stay"
    )
    return silenced


def _remedy(factor: int) -> str:
    """The factor that would do for an incident, in words."""
    return (
        f" (a factor of {factor} would do)" if factor <= FACTOR_MAX else f" (a factor of {FACTOR_MAX:g} is too small)"
    )


def _close(store: Store, silenced: list[Incident], entry: Entry) -> None:
    closed = tuple(closed_by(incident, entry, time.time()) for incident in silenced)
    if closed:
        store.write(empty_verdicts("", closed), uuid.uuid4().hex)
