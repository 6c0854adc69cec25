"""Which detector judges a client: 64 slots for good, by an unkeyed hash of its address; slot s is that of s mod N.

Nothing may depend on a secret here: who starts later, on another machine too, must find the same slot.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from agents.core.column_kernels import keyed_hash
from agents.stream.record import client_bytes
from agents.stream.slot_kernels import SLOTS, slot_of

__all__ = ["SLOTS", "detector_for", "slot_of_client"]


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
