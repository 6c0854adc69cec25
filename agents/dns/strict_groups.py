"""Strict groups: clients that may ask for listed domains alone, such as build runners, servers and agents.

A group is a network and a file of domains, one a line; what stands behind a `#` is a comment. A domain means its name
and all names below it. The file is read again when it changes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from agents.core.errors import NameFormatError, SettingsError
from agents.core.files import Reread
from agents.core.text import ip_of, printable
from agents.dns.name import from_text, is_listed, labels_of, private_suffix

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Domains = frozenset[bytes]
"""Lower-case names in wire form."""
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
"""A domain as people write it (RFC 1123 section 2.1), and underscores, as in names of services (RFC 8552)."""
_BELOW = from_text("a")
"""Any label: what stands below a suffix."""
CLIENTS_MAX = 65_536
"""Clients whose group is remembered; at this number the memory is dropped, since sources can be forged."""


@dataclass(frozen=True, slots=True)
class StrictGroup:
    """Clients of one network, and the domains that they may ask for."""

    network: Network
    listed: Reread[Domains]

    def allows(self, name: bytes) -> bool:
        """Whether a lower-case wire name is a listed domain or lies below one."""
        return _lies_below(name, self.listed.value())


class StrictGroups:
    """The groups of this network; they do not overlap.

    answered: lower-case wire names that this listener answers itself, which nobody forwards: they are no offence.
    """

    def __init__(self, groups: Iterable[StrictGroup] = (), answered: Iterable[bytes] = ()) -> None:
        self.groups = tuple(groups)
        self._answered = frozenset(answered)
        self._known: dict[str | bytes, StrictGroup | None] = {}

    def __bool__(self) -> bool:
        return bool(self.groups)

    @property
    def networks(self) -> list[str]:
        """The networks as text."""
        return [str(group.network) for group in self.groups]

    def group_of(self, client: str | bytes) -> StrictGroup | None:
        """The group of an address, textual or as 16 bytes with IPv4 mapped; None for what is no address."""
        if client not in self._known:
            if len(self._known) >= CLIENTS_MAX:
                self._known.clear()
            self._known[client] = self._find(client)
        return self._known[client]

    def _find(self, client: str | bytes) -> StrictGroup | None:
        try:
            address = ip_of(client)
        except ValueError:
            return None
        return next((group for group in self.groups if address in group.network), None)

    def refuses(self, client: str | bytes, name: bytes) -> bool:
        """Whether the client is in a group, and its list does not have this wire name."""
        group = self.group_of(client)
        return group is not None and not group.allows(name.lower())

    def offends(self, client: str | bytes, name: bytes) -> bool:
        """Whether a query is an offence: `refuses`, but for names that this listener answers itself."""
        return self.refuses(client, name) and not _lies_below(name.lower(), self._answered)


def _lies_below(name: bytes, domains: Domains) -> bool:
    at = 0
    while at < len(name):
        if name[at:] in domains:
            return True
        at += name[at] + 1
    return False


def read_groups(text: str, folder: Path) -> list[StrictGroup]:
    """The groups of a setting NETWORK=FILE,…; files lie below `folder` unless they are absolute. Raises SettingsError.

    Two groups may name one file.
    """
    groups: list[StrictGroup] = []
    lists: dict[Path, Reread[Domains]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        network, equals, file = (one.strip() for one in part.partition("="))
        if not (network and equals and file):
            raise SettingsError(f"{part[:80]!r} is no group: NETWORK=FILE is needed, for example 10.0.9.0/24=allow.txt")
        path = folder / file
        if path not in lists:
            lists[path] = Reread(path, read_domains)
        groups.append(StrictGroup(_network(network), lists[path]))
    for one, other in combinations([group.network for group in groups], 2):
        if one.version == other.version and one.overlaps(other):
            raise SettingsError(f"{one} and {other} overlap: a client has one list")
    return groups


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def read_domains(path: Path) -> Domains:
    """The domains in a file. Raises SettingsError, which names the line."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    return frozenset(_domains_in(lines, path))


def _domains_in(lines: Iterable[str], path: Path) -> Iterator[bytes]:
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            yield _domain(text)
        except (NameFormatError, ValueError) as error:
            raise SettingsError(f"cannot read {path}, line {number}: {error}") from None


def _domain(text: str) -> bytes:
    if not _HOST.fullmatch(text):
        raise ValueError(f"{printable(text, 60)!r} is no domain: one a line, in ASCII, without asterisks or addresses")
    name = from_text(text.lower())
    if is_listed(labels_of(name)) and not private_suffix(_BELOW + name):
        raise ValueError(f"{printable(text, 60)!r} is a public suffix: strangers have names below it")
    return name
