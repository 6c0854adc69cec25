"""The slot of a client's address in a record."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import siphash
from agents.core.jit import kernel, kernel_in_place

SLOTS = 64
"""As many as a host may have detectors; a power of two. It never changes: snapshots are kept by slot."""
_NO_KEY, _MASK = np.uint64(0), np.uint64(SLOTS - 1)


@kernel_in_place
def slot_of(client: Any) -> Any:
    """The slot of 16 address bytes: IPv6 counts by the network of 64 bits that one host has (RFC 4291)."""
    mapped = client[0] == 0 and client[10] == 0xFF and client[11] == 0xFF
    return np.int64(siphash(client, 0, 16 if mapped else 8, _NO_KEY, _NO_KEY) & _MASK)


@kernel
def owners(clients: NDArray[np.uint8], detectors: int, out: NDArray[np.int64]) -> None:
    """The number of the detector that judges each client, of so many. clients: (n, 16)."""
    for at in range(len(clients)):
        out[at] = slot_of(clients[at]) % detectors
