"""Which detector judges a query: 64 slots for good, by an unkeyed hash of its client; slot s is that of s mod N.

Nothing may depend on a secret here: who starts later, on another machine too, must find the same slot.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import keyed_hash
from agents.stream.record import client_bytes, mapped
from agents.stream.slot_kernels import SLOTS, is_parted, owners, owners_of_queries, parted_slot, slot_of

__all__ = ["NO_PARTED", "SLOTS", "PartedClients", "detector_for", "owners_of", "slot_of_client"]

NO_PARTED = np.empty((0, 4), np.uint64)
"""No client has its queries judged by several detectors."""
_LOW = (1 << 64) - 1


@lru_cache(maxsize=65_536)
def slot_of_client(client: str) -> int:
    """The slot of a textual address, IPv6 by its network of 64 bits; of any other text by that text."""
    try:
        return int(slot_of(np.frombuffer(client_bytes(client), np.uint8)))
    except ValueError:
        return keyed_hash(client.encode("utf-8", "surrogateescape"), (0, 0)) % SLOTS


def detector_for(client: str, detectors: int) -> int:
    """The number of the detector that judges a client, of so many."""
    return slot_of_client(client) % detectors


def owners_of(records: NDArray[np.void], detectors: int, parted: NDArray[np.uint64] = NO_PARTED) -> NDArray[np.int64]:
    """The number of the detector that judges each record, of so many. parted: PartedClients.ranges."""
    of, clients = np.empty(len(records), np.int64), np.ascontiguousarray(records["client"])
    if not len(parted):
        owners(clients, detectors, of)
    else:
        names, sizes = np.ascontiguousarray(records["qname"]), np.ascontiguousarray(records["qname_size"])
        with np.errstate(over="ignore"):  # hashes overflow where the kernel runs uncompiled
            owners_of_queries(clients, names, sizes, parted, detectors, of)
    return of


class PartedClients:
    """Clients that stand for many, as a forwarding resolver does: each registered domain of theirs has a slot.

    ranges: their networks as slot_kernels.is_parted takes them.
    """

    def __init__(self, networks: str = "") -> None:
        """networks: comma-separated addresses and networks. Raises ValueError."""
        parts = [ipaddress.ip_network(one.strip(), strict=False) for one in networks.split(",") if one.strip()]
        self.ranges = NO_PARTED if not parts else np.array([_ends(one) for one in parts], np.uint64)

    def __bool__(self) -> bool:
        return len(self.ranges) > 0

    def has(self, client: str) -> bool:
        """Whether a textual address is one of them; other text is none."""
        return bool(self) and _is_in(client, self.ranges.tobytes())

    def slot_of(self, client: str, name: bytes) -> int:
        """The slot of a query. name: in wire form without the root byte, or its registered domain."""
        if not self.has(client):
            return slot_of_client(client)
        wire = np.frombuffer(name, np.uint8)
        with np.errstate(over="ignore"):  # hashes overflow where the kernel runs uncompiled
            return int(parted_slot(np.frombuffer(client_bytes(client), np.uint8), wire, 0, len(wire)))


@lru_cache(maxsize=65_536)
def _is_in(client: str, ranges: bytes) -> bool:
    try:
        address = np.frombuffer(client_bytes(client), np.uint8)
    except ValueError:
        return False
    return bool(is_parted(address, np.frombuffer(ranges, np.uint64).reshape(-1, 4)))


def _ends(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[int, int, int, int]:
    first, last = (int.from_bytes(mapped(one.packed)) for one in (network[0], network[-1]))
    return first >> 64, first & _LOW, last >> 64, last & _LOW
