"""`dns-tunnel rules`: rules for other programs, of tunnels that were found or confirmed."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterable
from contextlib import closing

from agents.core.errors import NameFormatError, UsageError
from agents.core.files import FILE_MODE, write_atomic
from agents.core.text import NETWORK, counted, printable, refang
from agents.core.types import DAY_S, Incident, Severity
from agents.enforcement.brakes import NeverBlock
from agents.export.rules import RULES_BY_NAME
from agents.export.rules.base import Tunnel
from agents.runtime import bootstrap
from agents.settings import Settings
from agents.store.feedback.labels import Label
from agents.store.feedback.reviews import ReviewStore
from agents.store.sql import IncidentDatabase

TUNNELS_LISTED_MAX = 10_000
"""Decisions and incidents that are looked through, each, the newest."""
_SINCE = re.compile(r"([0-9]{1,4})([hd])")


def rules(settings: Settings, options: argparse.Namespace) -> int:
    """`dns-tunnel rules KIND`; exit code 2 where nothing is chosen by that."""
    with closing(bootstrap.store_of(settings)) as store:
        store.migrate()
        tunnels = [one for one in _chosen(store, options) if _is_domain(one.domain)]
        if RULES_BY_NAME[options.kind].blocks:
            never = bootstrap.block_keeper_of(settings, store).never
            tunnels = [one for one in tunnels if _may_be_blocked(never, one.domain)]
    if not tunnels:
        raise UsageError("cannot write rules: no tunnel is chosen by that (dns-tunnel rules --help)")
    text = RULES_BY_NAME[options.kind].render(tunnels, time.time())
    if options.out is None:
        sys.stdout.write(text)
        return 0
    write_atomic(options.out, text.encode(), FILE_MODE)
    print(f"{counted(len(tunnels), 'domain')} in {printable(options.out)}", file=sys.stderr)
    return 0


def _is_domain(domain: str) -> bool:
    """Whether rules can name it: not names scattered over many domains."""
    try:
        return domain != NETWORK and bool(Tunnel(domain).labels)
    except NameFormatError:
        return False


def _may_be_blocked(never: NeverBlock, domain: str) -> bool:
    """Whether no brake of blocking holds; says which one does."""
    why = never.always(domain) or never.usually(domain)
    if why:
        print(f"left out: {printable(domain)}: {why}", file=sys.stderr)
    return not why


def _chosen(store: IncidentDatabase, options: argparse.Namespace) -> list[Tunnel]:
    confirmed = [
        one.domain
        for one in ReviewStore(store).decisions(standing=True, limit=TUNNELS_LISTED_MAX)
        if one.label is Label.TUNNEL
    ]
    if options.incident:
        client, domain = options.incident[0], refang(options.incident[1]).rstrip(".").lower()
        found = store.incidents(client=client, domain=domain, limit=1)
        if not found:
            raise UsageError(f"cannot find an incident of {printable(client)} below {printable(domain)}")
        return [Tunnel(domain, found[0], domain in confirmed)]
    if options.since:
        wanted = [int(Severity.HIGH), int(Severity.CRITICAL)]
        since = time.time() - _seconds(options.since)
        lately = store.incidents(severities=wanted, since=since, source="", limit=TUNNELS_LISTED_MAX)
        return [Tunnel(domain, one, domain in confirmed) for domain, one in sorted(_gravest(lately).items())]
    found = [one for domain in confirmed for one in store.incidents(domain=domain, source="", limit=1)]
    known = _gravest(found)
    return [Tunnel(domain, known.get(domain), True) for domain in sorted(set(confirmed))]


def _gravest(incidents: Iterable[Incident]) -> dict[str, Incident]:
    """The gravest incident of each domain."""
    found: dict[str, Incident] = {}
    for one in incidents:
        if one.domain not in found or one.severity > found[one.domain].severity:
            found[one.domain] = one
    return found


def _seconds(text: str) -> float:
    match = _SINCE.fullmatch(text)
    if match is None:
        raise UsageError(f"cannot use --since {printable(text)!r}: 24h or 7d are needed")
    return int(match[1]) * (3600.0 if match[2] == "h" else DAY_S)
