"""Who may connect to live intakes, and how many at once: connections that are held open must not keep out others."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from agents.sources.listener.traffic import AccessList

SHARES, SHARE_MIN = 4, 4
"""One address has a quarter of all connections, and at least so many."""
_PREFIX6 = 64
"""Bits of an IPv6 address that a host cannot choose (RFC 4291 section 2.5.1)."""
KEEP_IDLE_S, KEEP_EVERY_S, KEEP_TRIES = 60, 15, 4
"""TCP asks a silent peer whether it is there after so many seconds, then so often, and gives up after so many times."""


class Doorkeeper:
    """Counts connections of all live intakes. most: at once."""

    def __init__(self, allowed: Sequence[str], most: int) -> None:
        self._access, self._most = AccessList(allowed), most
        self._share = max(most // SHARES, SHARE_MIN)
        self._open: Counter[str] = Counter()

    def allows(self, host: str) -> bool:
        """Whether an address may send."""
        try:
            return self._access.allows(host.removeprefix("::ffff:"))
        except ValueError:
            return False

    def admit(self, host: str) -> str:
        """Count a connection of an address, "" = of a unix socket; what is told is why it may not be, "" = it may."""
        if host and not self.allows(host):
            return "its address is not in RECEIVE_ALLOWED"
        if self._open.total() >= self._most:
            return "there are RECEIVE_CONNECTIONS_MAX connections"
        key = _key_of(host)
        if host and self._open[key] >= self._share:
            return f"its address has {self._share} connections, its share of RECEIVE_CONNECTIONS_MAX"
        self._open[key] += 1
        return ""

    def left(self, host: str) -> None:
        """Count the end of a connection that was admitted."""
        key = _key_of(host)
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]


def _key_of(host: str) -> str:
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.version == 6 and address.ipv4_mapped is None:
            return str(ipaddress.ip_network((host, _PREFIX6), strict=False))
    return host


def keep_alive(transport: asyncio.Transport) -> None:
    """Let the kernel end a connection whose peer is gone without a word (tcp(7)); those of unix sockets end at once."""
    found = transport.get_extra_info("socket")
    if found is None or found.family == socket.AF_UNIX:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("IDLE", KEEP_IDLE_S), ("INTVL", KEEP_EVERY_S), ("CNT", KEEP_TRIES)):
        option = getattr(socket, f"TCP_KEEP{name}", None)
        if option is not None:  # not every system has all three
            found.setsockopt(socket.IPPROTO_TCP, option, value)
