"""Blocks: domains that clients get no answer for, until a time; in a file that whoever answers reads again and again.

The file is what is in force: no database and no other process is needed to answer by it, and without it nothing is
blocked. `enforcement` writes it.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agents.core.errors import NameFormatError, SettingsError
from agents.core.text import MAPPED, NETWORK
from agents.dns.name import from_text

BLOCKS_FILE = "blocks.json"
"""The file, in the folder of the detector's state."""
BLOCKS_MAX = 20_000
"""Blocks at once."""
AHEAD_S = 86_400.0
"""A block that begins later than so many seconds from now was made by a clock that was wrong."""
"""Before the four bytes of an IPv4 address, as 16 bytes (RFC 4291 section 2.5.5.2)."""


class BlockAction(StrEnum):
    """What a blocked query gets."""

    NXDOMAIN = "nxdomain"
    REFUSED = "refused"
    SINKHOLE = "sinkhole"  # the addresses of a machine of the operator's
    SLOW = "slow"  # its answer, at a rate that no tunnel can use


@dataclass(frozen=True, slots=True)
class Block:
    """One domain and all names below it, for one network of clients or for all. Times are Unix seconds.

    domain: lower-case presentation form. client: an address, a network, or NETWORK for all. dry: counted, and in force
    nowhere. incident_id: of the incident that it is for, "" = a person's.
    """

    block_id: str
    domain: str
    client: str
    action: BlockAction
    reason: str
    author: str
    began_at: float
    until: float
    dry: bool = False
    incident_id: str = ""
    ended_at: float | None = None
    ended_by: str = ""

    def lasts(self, now: float) -> bool:
        """Whether it has not ended, dry or not; one that a wrong clock began in the future does not last."""
        return self.ended_at is None and self.began_at - AHEAD_S <= now < self.until

    @property
    def is_for_all(self) -> bool:
        """Whether it is for every client."""
        return self.client == NETWORK


@dataclass(frozen=True, slots=True)
class BlockList:
    """The file: blocks, ended ones of late among them.

    paused: why no block is made by itself any more, "" = they are. watched_since: when counting what would be blocked
    began; None = not yet. resumed_at: when a person last let them be made again.
    """

    blocks: tuple[Block, ...] = ()
    paused: str = ""
    watched_since: float | None = None
    resumed_at: float | None = None

    def lasting(self, now: float) -> list[Block]:
        """Blocks that have not ended, dry ones among them."""
        return [one for one in self.blocks if one.lasts(now)]

    def in_force(self, now: float) -> list[Block]:
        """Blocks that queries meet."""
        return [one for one in self.lasting(now) if not one.dry]

    def to_json(self) -> bytes:
        """The file's contents."""
        return _FILE.dump_json(self)


_FILE = TypeAdapter(BlockList)


def read_blocks(path: Path) -> BlockList:
    """The list in a file; an empty one where there is no file. Raises SettingsError."""
    try:
        return _FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return BlockList()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise SettingsError(f"cannot read {path}: {str(error).splitlines()[0]}") from None


def address_range(client: str) -> tuple[bytes, bytes]:
    """First and last address of a client or network, as 16 bytes with IPv4 mapped. Raises ValueError."""
    network = ipaddress.ip_network(client, strict=False)
    first, last = network.network_address.packed, network.broadcast_address.packed
    return (MAPPED + first, MAPPED + last) if network.version == 4 else (first, last)


@dataclass(slots=True)
class BlockTable:
    """Blocks, to be looked up by client and name. Those that cannot be read are left out, and counted in `unusable`."""

    blocks: tuple[Block, ...] = ()
    unusable: int = 0
    _below: dict[bytes, list[tuple[bytes, bytes, Block]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, blocks: Iterable[Block]) -> BlockTable:
        """A table; a block of one network goes before one of all clients."""
        table = cls(tuple(blocks))
        for one in sorted(table.blocks, key=lambda one: one.is_for_all):
            try:
                first, last = (bytes(16), b"\xff" * 16) if one.is_for_all else address_range(one.client)
                table._below[from_text(one.domain).lower()].append((first, last, one))
            except (NameFormatError, ValueError):
                table.unusable += 1
        return table

    def __bool__(self) -> bool:
        return bool(self._below)

    def find(self, client: bytes, name: bytes) -> Block | None:
        """The block that a client's query meets. client: 16 bytes, IPv4 mapped; name: in wire form.

        The longest blocked domain decides.
        """
        if not self._below:
            return None
        name, at = name.lower(), 0
        while at < len(name):
            for first, last, block in self._below.get(name[at:], ()):
                if first <= client <= last:
                    return block
            at += name[at] + 1
        return None

    @property
    def for_all(self) -> list[bytes]:
        """Domains that are blocked for every client, in lower-case wire form."""
        return [name for name, found in self._below.items() if any(one.is_for_all for _, _, one in found)]

    @property
    def clients(self) -> list[str]:
        """Addresses and networks for which alone something is blocked."""
        found = (one.client for some in self._below.values() for _, _, one in some if not one.is_for_all)
        return list(dict.fromkeys(found))


class BlockFile:
    """The list in a file, read again when the file changes; what cannot be read leaves the list as it was."""

    def __init__(self, path: Path) -> None:
        self.path, self.fault = path, ""
        self._stamp: tuple[int, ...] | None = None
        self._list = BlockList()

    def changed(self) -> bool:
        """Look at the file; whether the list is another one now."""
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            found = read_blocks(self.path)
        except SettingsError as error:
            self.fault = str(error)
            return False
        self.fault = ""
        before, self._list = self._list, found
        return found != before

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size  # ctime: it may have been chmodded

    @property
    def list(self) -> BlockList:
        """As it was read last."""
        return self._list

    def next_end(self, now: float) -> float:
        """When the next block ends, or is to be believed, Unix seconds; infinity where none will."""
        ends = [one.until for one in self._list.lasting(now)]
        ends += [one.began_at - AHEAD_S for one in self._list.blocks if one.began_at - AHEAD_S > now]
        return min(ends, default=float("inf"))
