"""The slot of a query in a record: of its client's address, or of that and the name where a client stands for many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import siphash
from agents.core.jit import kernel, kernel_in_place, kernel_that_wraps
from agents.dns.characters import UPPER_Z

SLOTS = 64
"""As many as a host may have detectors; a power of two. It never changes: snapshots are kept by slot."""
_NO_KEY, _MASK = np.uint64(0), np.uint64(SLOTS - 1)
_STEP, _FOLD = np.uint64(0x100000001B3), np.uint64(32)
"""Of FNV-1a, 64 bits (RFC 9923)."""
_BYTE = np.uint64(8)
_UPPER_A, _LOWER = 65, 32


@kernel_in_place
def _address_hash(client: Any) -> Any:
    mapped = client[0] == 0 and client[10] == 0xFF and client[11] == 0xFF
    return siphash(client, 0, 16 if mapped else 8, _NO_KEY, _NO_KEY)


@kernel_in_place
def slot_of(client: Any) -> Any:
    """The slot of 16 address bytes: IPv6 counts by the network of 64 bits that one host has (RFC 4291)."""
    return np.int64(_address_hash(client) & _MASK)


@kernel_in_place
def is_parted(client: Any, parted: NDArray[np.uint64]) -> bool:
    """Whether 16 address bytes lie in one of these networks. parted: (n, 4), first and last address, high and low
    half."""
    if len(parted) == 0:
        return False
    high = low = np.uint64(0)
    for at in range(8):
        high = high << _BYTE | np.uint64(client[at])
        low = low << _BYTE | np.uint64(client[8 + at])
    for at in range(len(parted)):
        first = parted[at, 0] < high or (parted[at, 0] == high and parted[at, 1] <= low)
        if first and (high < parted[at, 2] or (high == parted[at, 2] and low <= parted[at, 3])):
            return True
    return False


@kernel_that_wraps
def parted_slot(client: Any, name: Any, begin: Any, end: Any) -> Any:
    """The slot of a parted client's query: by its address and the last two labels of its name, in lower case.

    name[begin:end]: in wire form without the root byte. All names of one registered domain have the same last two
    labels, so they have one slot; and no list of suffixes, which changes from release to release, says which.
    """
    last = before = at = np.int64(begin)
    while at < end:
        before, last = last, at
        at = at + np.int64(name[at]) + 1
    found = _address_hash(client)
    for place in range(before, end):
        one = np.int64(name[place])
        found = (found ^ np.uint64(one | _LOWER if _UPPER_A <= one <= UPPER_Z else one)) * _STEP
    return np.int64((found ^ found >> _FOLD) & _MASK)


@kernel_in_place
def slot_of_query(client: Any, name: Any, begin: Any, end: Any, parted: NDArray[np.uint64]) -> Any:
    """The slot of a query: `parted_slot` for clients in these networks, `slot_of` for all others."""
    if is_parted(client, parted):
        return parted_slot(client, name, begin, end)
    return slot_of(client)


@kernel
def owners(clients: NDArray[np.uint8], detectors: int, out: NDArray[np.int64]) -> None:
    """The number of the detector that judges each client, of so many. clients: (n, 16)."""
    for at in range(len(clients)):
        out[at] = slot_of(clients[at]) % detectors


@kernel
def owners_of_queries(
    clients: NDArray[np.uint8],
    names: NDArray[np.uint8],
    sizes: NDArray[np.uint8],
    parted: NDArray[np.uint64],
    detectors: int,
    out: NDArray[np.int64],
) -> None:
    """The number of the detector that judges each query, of so many. names: (n, …), of which `sizes` are used."""
    for at in range(len(clients)):
        out[at] = slot_of_query(clients[at], names[at], 0, np.int64(sizes[at]), parted) % detectors
