"""What the choice of record types carries: a name that never changes says something by what is asked of it.

A flow's first few types, beside those that everybody asks for, are its own: mail servers, directories and resolvers
that validate have so many. Each query of a further type counts for the choice among all types in use.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from agents.kernels import kernel_in_place
from agents.kernels.seen import remember
from agents.kernels.state import OWN_TYPES, Asked, State

USUAL_TYPES = (1, 28, 65)
"""Types that every client asks for, of any name: A, AAAA, HTTPS (RFC 9460)."""
USUAL = np.zeros(1 << 16, np.uint8)
USUAL[list(USUAL_TYPES)] = 1
USUALLY = len(USUAL_TYPES)
MIX_CHOICE = np.uint64(0xD6E8FEB86659FD93)


@kernel_in_place
def choice(state: State, asked: Asked, i: int, flow: Any) -> float:
    """Bytes that a query's type carries: 0 for a usual one and for the flow's own ones."""
    qtype = asked.qtype[i]
    if USUAL[qtype]:
        return 0.0
    for place in range(OWN_TYPES):
        if place == flow["types"]:
            flow["own_types"][place] = qtype
            flow["types"] += 1
            return 0.0
        if flow["own_types"][place] == qtype:
            return 0.0
    key = asked.domain[i] ^ (np.uint64(qtype) * MIX_CHOICE)
    if remember(flow, state.clients[flow["client"]], state.pool, state.room, key):
        flow["types"] += 1
    carried = math.log2(flow["types"] + USUALLY) / 8
    flow["leaked"] += carried
    return carried
