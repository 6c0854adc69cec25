"""`dns-tunnel allow`: the operator's own known services, with a preview; a new entry closes stored incidents."""

from __future__ import annotations

import argparse
import time
from contextlib import closing

from agents.core.text import counted, printable, who
from agents.core.types import Severity
from agents.detection.explanations.known_desk import Preview
from agents.detection.known_services import FACTOR_MAX
from agents.runtime import bootstrap
from agents.settings import Settings


def allow(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel allow …`."""
    with closing(bootstrap.store_of(settings)) as store:
        desk = bootstrap.known_desk_of(settings, store)
        if options.action == "list":
            for entry in desk.entries():
                ended = "" if entry.holds(time.time()) else "  EXPIRED"
                said = f"{printable(entry.author)}: {printable(entry.reason)}"
                size = "own zone" if entry.is_own else f"x{entry.factor:g}"
                print(f"{printable(entry.shown)}  {size}  until {entry.expires}{ended}  {said}")
        elif options.action == "remove":
            print(f"removed {printable(desk.remove(options.suffix, options.client))}")
        else:
            wanted = (options.suffix, options.factor, options.reason, options.author, options.expires or "")
            entry = desk.entry(*wanted, client=options.client)
            store.migrate()
            adding = options.action == "add"
            found = desk.add(entry) if adding else desk.preview(entry)
            _print(found)
            if adding:
                closed = counted(len(found.silenced), "stored incident")
                print(f"added {printable(entry.shown)}: {closed} closed as known")
    return 0


def _print(found: Preview) -> None:
    """Live incidents of the last week: what the entry silences, and what stays."""
    told = [(incident, "would be silent") for incident in found.silenced]
    told += [(incident, f"would stay{_remedy(factor)}") for incident, factor in found.stay]
    for incident, word in sorted(told, key=lambda one: -one[0].last_seen):
        level, amount = Severity(incident.severity).name, counted(incident.leaked_bytes, "byte")
        print(f"{word}: {level} {who(incident.client)} -> {printable(incident.domain)}, {amount}")
    print(
        f"{len(found.silenced)} of {counted(found.looked_at, 'incident')} of the last week would be silent,"
        f" {len(found.stay)} below it stay"
    )


def _remedy(factor: int) -> str:
    """The factor that would do for an incident, in words."""
    return (
        f" (a factor of {factor} would do)" if factor <= FACTOR_MAX else f" (a factor of {FACTOR_MAX:g} is too small)"
    )
