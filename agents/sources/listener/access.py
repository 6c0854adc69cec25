"""Which clients may ask: no open resolver by accident."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_REMEMBERED_MAX = 65536
"""Addresses whose answer is remembered; sources can be forged, so the memory is dropped when it is full."""


class AccessList:
    """Networks whose addresses may ask, "10.0.0.0/8" or a single address. Raises ValueError."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network.strip(), strict=False) for network in networks]
        self._known: dict[str, bool] = {}

    def allows(self, client: str) -> bool:
        """True if the textual address (without a zone index) is in one of the networks."""
        answer = self._known.get(client)
        if answer is None:
            address = ipaddress.ip_address(client)
            answer = any(address in network for network in self._networks)
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            self._known[client] = answer
        return answer

    def ranges(self, version: int) -> NDArray[np.uint64]:
        """The networks of IPv4 or IPv6 (version 4 or 6) as kernels.networks.allowed wants them."""
        own: list[ipaddress.IPv4Network] = [one for one in self._networks if one.version == version]  # type: ignore[misc]
        merged = ipaddress.collapse_addresses(own)
        ends = [(int(one.network_address), int(one.broadcast_address)) for one in merged]
        low = 2**64 - 1
        rows = [(first >> 64, first & low, last >> 64, last & low) for first, last in ends]
        return np.array(rows, np.uint64).reshape(-1, 4)
