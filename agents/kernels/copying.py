"""Flows out of a state and into another one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel
from agents.kernels.flows import DETAILS, make
from agents.kernels.seen import SIZE_MIN, SKETCH, take
from agents.kernels.state import NONE, State
from agents.kernels.windows import ROWS as WINDOW_ROWS


@kernel
def words_of(flows: NDArray[Any]) -> NDArray[np.int64]:
    """Words that each of these flows' keys take in a copy; negative for what no flow can have."""
    out = np.zeros(len(flows), np.int64)
    for i in range(len(flows)):
        flow = flows[i]
        if flow["seen_at"] == NONE:
            continue
        if not SIZE_MIN <= flow["size"] <= SKETCH:
            out[i] = -(1 << 40)
            continue
        out[i] = 1 << int(flow["size"])
        if flow["size"] == SKETCH and flow["older_at"] != NONE:
            out[i] += 1 << SKETCH
    return out


@kernel
def copy_keys(
    flows: NDArray[Any], pool: NDArray[np.uint64], keys: NDArray[np.uint64], starts: NDArray[np.int64]
) -> None:
    """Copy what flows remember, one after the other. starts: shape (n + 1,)."""
    for i in range(len(flows)):
        flow, words = flows[i], 1 << int(flows[i]["size"])
        if starts[i] < starts[i + 1]:
            keys[starts[i] : starts[i] + words] = pool[flow["seen_at"] : flow["seen_at"] + words]
        if starts[i] + words < starts[i + 1]:
            keys[starts[i] + words : starts[i + 1]] = pool[flow["older_at"] : flow["older_at"] + words]


@kernel
def copy_in(
    state: State,
    flows: NDArray[Any],
    windows: NDArray[Any],
    details: NDArray[Any],
    keys: NDArray[np.uint64],
    clients: NDArray[np.int32],
) -> None:
    """Take copied flows up into an empty state that has room for all of them."""
    room, key, words = state.room, 0, words_of(flows)
    for i in range(len(flows)):
        client = clients[flows[i]["client"]]
        row = make(state, flows[i]["first_seen"], flows[i]["domain"], client)
        state.flows[row] = flows[i]
        flow = state.flows[row]
        flow["client"], flow["used"] = client, 1
        flow["watched"] = flow["carrier"] = 0
        if flow["scattered"]:
            state.clients[client]["scattered"] = row
        if flow["windows"] != NONE:
            flow["windows"] = room[WINDOW_ROWS]
            state.windows[room[WINDOW_ROWS]] = windows[i]
            room[WINDOW_ROWS] += 1
        if flow["detail"] != NONE:
            flow["detail"] = room[DETAILS]
            state.details[room[DETAILS]] = details[i]
            room[DETAILS] += 1
        if flow["seen_at"] == NONE:
            flow["size"], flow["seen"], flow["older_at"] = 0, 0, NONE
            continue
        piece = 1 << int(flow["size"])
        state.clients[client]["words"] += words[i]
        flow["seen_at"] = take(state.pool, room, flow["size"])
        state.pool[flow["seen_at"] : flow["seen_at"] + piece] = keys[key : key + piece]
        flow["seen"] = 0
        for place in range(flow["seen_at"], flow["seen_at"] + piece):  # what the file says of it is not believed
            flow["seen"] += state.pool[place] != 0
        flow["older_at"] = NONE
        if words[i] > piece:
            flow["older_at"] = take(state.pool, room, SKETCH)
            state.pool[flow["older_at"] : flow["older_at"] + piece] = keys[key + piece : key + words[i]]
        key += words[i]
