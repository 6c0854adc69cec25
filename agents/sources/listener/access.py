"""Who may ask: the access list, as Python looks it up and as kernels do."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from agents.stream.record import mapped

_REMEMBERED_MAX = 65536
"""Addresses that are remembered; sources can be forged, so the memory is dropped when it is full."""


class AccessList:
    """Networks whose addresses may ask, "10.0.0.0/8" or a single address: no open resolver by accident.

    `known` maps the textual address of each client seen to its 16 bytes, or to None if it may not ask. Raises
    ValueError.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network.strip(), strict=False) for network in networks]
        self.known: dict[str, bytes | None] = {}

    def look_up(self, client: str) -> bytes | None:
        """The address as 16 bytes if it is in one of the networks, else None. client: text without a zone index."""
        if client in self.known:
            return self.known[client]
        address = ipaddress.ip_address(client)
        found = mapped(address.packed) if any(address in network for network in self._networks) else None
        if len(self.known) >= _REMEMBERED_MAX:
            self.known.clear()
        self.known[client] = found
        return found

    def allows(self, client: str) -> bool:
        """Whether the address may ask."""
        return self.look_up(client) is not None

    def ranges(self, version: int) -> NDArray[np.uint64]:
        """The networks of IPv4 or IPv6 (version 4 or 6) as the kernel `allowed` takes them."""
        own: list[ipaddress.IPv4Network] = [one for one in self._networks if one.version == version]  # type: ignore[misc]
        merged = ipaddress.collapse_addresses(own)
        ends = [(int(one.network_address), int(one.broadcast_address)) for one in merged]
        low = 2**64 - 1
        rows = [(first >> 64, first & low, last >> 64, last & low) for first, last in ends]
        return np.array(rows, np.uint64).reshape(-1, 4)


def address_bytes(client: str) -> bytes:
    """16 bytes of a textual address without a zone index, IPv4 mapped."""
    return mapped(ipaddress.ip_address(client).packed)
