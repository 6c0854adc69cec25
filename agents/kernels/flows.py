"""Finding and making flows: one hash table for all of them, what is familiar, and the carriers of a client."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel_in_place, kernel_that_wraps
from agents.kernels.seen import forget
from agents.kernels.state import CARRIERS_MAX, NONE, QTYPES_MAX, SUMS, Room, State
from agents.kernels.windows import give as give_windows

FLOWS, FREE_FLOW, LIVE, FAMILIAR = int(Room.FLOWS), int(Room.FREE_FLOW), int(Room.LIVE), int(Room.FAMILIAR)
DETAILS, FREE_DETAIL, CARRIERS = int(Room.DETAILS), int(Room.FREE_DETAIL), int(Room.CARRIERS)
KEYS_MAX, CLIENT_MAX = int(Room.KEYS_MAX), int(Room.CLIENT_MAX)
FAMILIAR_MAX = 500_000
"""Domains that are counted; beyond it new ones stay unfamiliar."""
FAMILIAR_CLIENTS = 5
"""Clients from which a domain is common here."""
FAMILIAR_AGE_S = 86_400.0
"""A domain known for less is new, however many ask for it: a campaign hits many clients in a day."""
FAMILIAR_FACTOR = 2.0
"""How many times more an old and common domain may carry. Small, since whoever owns five clients gets it too."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, section 6.4)."""
CARRIER_NAMES = 3
"""Encoded names from which a domain counts as a carrier: a page has one hash host, a carrier has many."""
PLACE_BITS = np.uint64(17)


@kernel_that_wraps
def _place(domain: np.uint64, client: int, length: int) -> Any:
    mixed = domain ^ (np.uint64(client + 1) * GOLDEN)
    return np.int64(mixed >> PLACE_BITS) & (length - 1)


@kernel_in_place
def find(flows: NDArray[Any], index: NDArray[np.int32], domain: np.uint64, client: int) -> int:
    """Row of a key, or NONE."""
    place = _place(domain, client, len(index))
    while index[place] != NONE:
        found = flows[index[place]]
        if found["domain"] == domain and found["client"] == client:
            return int(index[place])
        place = (place + 1) & (len(index) - 1)
    return NONE


@kernel_in_place
def _enter(flows: NDArray[Any], index: NDArray[np.int32], row: int) -> None:
    place = _place(flows[row]["domain"], flows[row]["client"], len(index))
    while index[place] != NONE:
        place = (place + 1) & (len(index) - 1)
    index[place] = row


@kernel_in_place
def enter_all(flows: NDArray[Any], index: NDArray[np.int32], count: int) -> None:
    """Fill an index anew from the rows in use."""
    for place in range(len(index)):
        index[place] = NONE
    for row in range(count):
        if flows[row]["used"]:
            _enter(flows, index, row)


@kernel_in_place
def clear(flow: Any) -> None:
    """A row as it is before its first query."""
    flow["encoded_ts"] = -math.inf
    flow["shape"] = flow["digits"] = 0
    flow["leaked"] = flow["encoded"] = flow["single_ts"] = 0.0
    for one in range(SUMS):
        flow["single"][one] = 0.0
    flow["bytes_in"] = flow["queries"] = flow["names"] = flow["encoded_names"] = flow["seen"] = flow["size"] = 0
    flow["windows"] = flow["detail"] = flow["seen_at"] = flow["older_at"] = flow["peak_day"] = NONE
    flow["peak"] = flow["lent"] = 0.0
    flow["types"] = 0
    flow["alone"] = flow["watched"] = flow["carrier"] = flow["scattered"] = 0
    flow["used"] = 1


@kernel_in_place
def make(state: State, ts: float, domain: np.uint64, client: int) -> int:
    """A new row; the caller saw to its place and asked the caps."""
    row = state.room[FREE_FLOW]
    if row != NONE:
        state.room[FREE_FLOW] = state.flows[row]["seen_at"]
    else:
        row = state.room[FLOWS]
        state.room[FLOWS] += 1
    flow = state.flows[row]
    clear(flow)
    flow["domain"], flow["client"] = domain, client
    flow["first_seen"] = flow["last_seen"] = ts
    state.room[LIVE] += 1
    state.clients[client]["held"] += 1
    _enter(state.flows, state.places, row)
    return int(row)


@kernel_in_place
def is_full(state: State, client: int) -> bool:
    """Whether the caps refuse this client another flow."""
    return bool(state.room[LIVE] >= state.room[KEYS_MAX] or state.clients[client]["held"] >= state.room[CLIENT_MAX])


@kernel_in_place
def drop(state: State, row: int) -> None:
    """Give back all that a flow holds; the index is to be filled anew afterwards (enter_all)."""
    flow = state.flows[row]
    client = state.clients[flow["client"]]
    forget(flow, client, state.pool, state.room)
    if flow["windows"] != NONE:
        give_windows(state.windows, state.room, flow["windows"])
    if flow["detail"] != NONE:
        state.details[flow["detail"]]["next"] = state.room[FREE_DETAIL]
        state.room[FREE_DETAIL] = flow["detail"]
    client["held"] -= 1
    if client["scattered"] == row:
        client["scattered"] = NONE
    flow["used"] = 0
    flow["seen_at"] = state.room[FREE_FLOW]
    state.room[FREE_FLOW] = row
    state.room[LIVE] -= 1


@kernel_in_place
def drop_all(state: State, rows: NDArray[np.int64]) -> None:
    """Drop these rows, and fill the index anew."""
    for row in rows:
        drop(state, row)
    enter_all(state.flows, state.places, state.room[FLOWS])


@kernel_in_place
def familiar_at(state: State, domain: np.uint64) -> int:
    """Place of a domain in the table of familiar ones: its own, or a free one."""
    mask = len(state.familiar) - 1
    place = np.int64(domain >> PLACE_BITS) & mask
    while state.familiar[place]["domain"] != 0 and state.familiar[place]["domain"] != domain:
        place = (place + 1) & mask
    return int(place)


@kernel_in_place
def greet(state: State, ts: float, domain: np.uint64) -> None:
    """Another client asks for a name below the domain."""
    found = state.familiar[familiar_at(state, domain)]
    if found["domain"] == 0:
        if state.room[FAMILIAR] >= FAMILIAR_MAX:
            return
        found["domain"], found["first_seen"], found["clients"] = domain, ts, 0
        state.room[FAMILIAR] += 1
    found["first_seen"] = min(found["first_seen"], ts)
    found["clients"] += 1


@kernel_in_place
def greet_all(state: State) -> None:
    """Count anew from the flows: where old ones were dropped, or a snapshot was read, nobody counts twice."""
    for place in range(len(state.familiar)):
        state.familiar[place]["domain"] = 0
    state.room[FAMILIAR] = 0
    for row in range(state.room[FLOWS]):
        flow = state.flows[row]
        if flow["used"] and not flow["scattered"]:
            greet(state, flow["first_seen"], flow["domain"])


@kernel_in_place
def familiar_factor(state: State, ts: float, domain: np.uint64) -> float:
    """FAMILIAR_FACTOR for a domain that is old and common here, else 1: a carrier is new, and one client's."""
    found = state.familiar[familiar_at(state, domain)]
    common = found["domain"] != 0 and found["clients"] >= FAMILIAR_CLIENTS
    return FAMILIAR_FACTOR if common and ts - found["first_seen"] >= FAMILIAR_AGE_S else 1.0


@kernel_in_place
def carry(state: State, row: int) -> bool:
    """Let a flow stand among its client's carriers, if it is one: data split over domains adds up over them."""
    flow = state.flows[row]
    if flow["encoded_names"] < CARRIER_NAMES or flow["windows"] == NONE:
        return False
    if flow["carrier"]:
        return True
    client = state.clients[flow["client"]]
    if client["carriers_at"] == NONE:
        client["carriers_at"] = state.room[CARRIERS]
        state.room[CARRIERS] += 1
    carriers, place = state.carriers[client["carriers_at"]], client["carriers"]
    if place >= CARRIERS_MAX:
        place = 0
        for i in range(1, CARRIERS_MAX):
            if state.flows[carriers[i]]["encoded"] < state.flows[carriers[place]]["encoded"]:
                place = i
        state.flows[carriers[place]]["carrier"] = 0
    else:
        client["carriers"] += 1
    carriers[place] = row
    flow["carrier"] = 1
    return True


@kernel_in_place
def dismiss_carriers(state: State) -> None:
    """Nobody is a carrier until the next query below it."""
    for row in range(state.room[FLOWS]):
        state.flows[row]["carrier"] = 0
    for client in state.clients:
        client["carriers"], client["carriers_at"] = 0, NONE
    state.room[CARRIERS] = 0


@kernel_in_place
def detail(state: State, row: int) -> int:
    """The row of a flow's details, made if it has none yet."""
    flow = state.flows[row]
    if flow["detail"] == NONE:
        at = state.room[FREE_DETAIL]
        if at != NONE:
            state.room[FREE_DETAIL] = state.details[at]["next"]
        else:
            at = state.room[DETAILS]
            state.room[DETAILS] += 1
        state.details[at]["samples"] = 0
        for i in range(QTYPES_MAX):
            state.details[at]["count"][i] = 0
        flow["detail"] = at
    return int(flow["detail"])
