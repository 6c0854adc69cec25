"""Loads the kernels of the datapath, so that what is forked afterwards has them."""

from __future__ import annotations

import numpy as np

from agents.ring import Ring
from agents.sources.listener import can_compile


def load() -> None:
    """Compile them, or load what was compiled before; nothing where they cannot be used."""
    if not can_compile():
        return
    from agents.kernels.udp_libc import watch
    from agents.kernels.udp_pump import pump
    from agents.sources.access import AccessList
    from agents.sources.counters import Counters
    from agents.sources.datapath_state import make_state
    from agents.sources.upstream import Routes

    routes, access = Routes([("", [("127.0.0.1", 53)])]), AccessList(["127.0.0.0/8"])
    ring = Ring(memoryview(bytearray(Ring.size_of(1))), 1)
    state = make_state([], routes, access, np.zeros(1, np.int64), 1, ring.arrays, Counters())
    state.cells["stop"] = 1
    pump(state)
    watch(-1, -1, 0, state.scratch_event)  # as it is called from Python; there is no such file
