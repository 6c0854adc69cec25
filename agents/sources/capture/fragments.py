"""IP packets put together from their fragments (RFC 791 section 3.2, RFC 8200 section 4.5), bounded."""

from __future__ import annotations

from struct import pack
from typing import NamedTuple

from agents.core.text import MAPPED

PACKETS_MAX = 1024
"""Incomplete packets kept at once; beyond it the one that began first is given up."""
PARTS_MAX = 64
"""Fragments of one packet; 65,535 bytes over Ethernet are 45."""
LIFETIME_S = 30.0
"""Seconds of capture time that a packet waits for its fragments, as in Linux; RFC 1122 section 3.3.2 asks for 60."""
_SIZE_MAX = 65_535 - 20

_Key = tuple[bytes, bytes, int, int]


class Fragment(NamedTuple):
    """One captured fragment; addresses are IPv6 or mapped IPv4 ones, offset in bytes, ts in seconds."""

    source: bytes
    destination: bytes
    ident: int
    protocol: int
    ttl: int
    offset: int
    more: bool
    data: bytes
    ts: float


class _Parts:
    """The fragments of one packet. taken: it is complete, or of no use any more; what still comes is ignored."""

    __slots__ = ("begun", "end", "parts", "taken")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.end = -1
        self.parts: dict[int, bytes] = {}
        self.taken = False


class Fragments:
    """Packets in the making. `incomplete` counts packets given up because fragments are missing or overlap."""

    def __init__(self) -> None:
        self._packets: dict[_Key, _Parts] = {}
        self.incomplete = 0

    def add(self, fragment: Fragment) -> bytes | None:
        """The whole packet behind an IP header, once its last missing fragment has come."""
        key = (fragment.source, fragment.destination, fragment.ident, fragment.protocol)
        found = self._packets.get(key)
        if found is not None and abs(fragment.ts - found.begun) > LIFETIME_S:
            self._give_up(key)
            found = None
        if found is None:
            if len(self._packets) >= PACKETS_MAX:
                self._give_up(next(iter(self._packets)))
            found = self._packets[key] = _Parts(fragment.ts)
        if found.taken or found.parts.get(fragment.offset) == fragment.data:
            return None
        if not self._fits(found, fragment):
            found.taken, found.parts = True, {}
            self.incomplete += 1
            return None
        found.parts[fragment.offset] = fragment.data
        if not fragment.more:
            found.end = fragment.offset + len(fragment.data)
        if found.end != sum(map(len, found.parts.values())):
            return None
        body = b"".join(found.parts[at] for at in sorted(found.parts))
        self.take(fragment)
        return _headed(fragment, body)

    def take(self, fragment: Fragment) -> None:
        """The packet of this fragment needs no more of them."""
        found = self._packets.get((fragment.source, fragment.destination, fragment.ident, fragment.protocol))
        if found is not None:
            found.taken, found.parts = True, {}

    def finish(self) -> None:
        """The capture has ended: what is incomplete stays so."""
        for key in list(self._packets):
            self._give_up(key)

    def _give_up(self, key: _Key) -> None:
        self.incomplete += not self._packets.pop(key).taken

    @staticmethod
    def _fits(found: _Parts, fragment: Fragment) -> bool:
        """False for a fragment that overlaps another, and for an impossible one: such packets are dropped whole (RFC
        5722 section 4)."""
        start, end = fragment.offset, fragment.offset + len(fragment.data)
        if (
            end > _SIZE_MAX
            or start == end
            or len(found.parts) >= PARTS_MAX
            or (fragment.more and len(fragment.data) % 8)
        ):
            return False
        if 0 <= found.end < end or (not fragment.more and (found.end >= 0 or any(at >= end for at in found.parts))):
            return False
        return all(end <= at or start >= at + len(data) for at, data in found.parts.items())


def _headed(fragment: Fragment, body: bytes) -> bytes:
    """The body behind a header as the first fragment had it, without its options."""
    if fragment.source[:12] == MAPPED:
        head = pack("!BBHHHBBH", 0x45, 0, 20 + len(body), fragment.ident, 0, fragment.ttl, fragment.protocol, 0)
        return head + fragment.source[12:] + fragment.destination[12:] + body
    head = pack("!IHBB", 6 << 28, len(body), fragment.protocol, fragment.ttl)
    return head + fragment.source + fragment.destination + body


def first_alone(fragment: Fragment) -> bytes:
    """The first fragment alone, as if it were the whole packet."""
    return _headed(fragment, fragment.data)
