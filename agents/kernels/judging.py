"""The hot loop: counts every query of a batch for its flow, and says what is beyond a limit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel_in_place
from agents.kernels.choosing import USUAL, choice
from agents.kernels.counting import EVENTS, PEAKS, answers, keep, price
from agents.kernels.crowd import DAY_S, meet
from agents.kernels.flows import (
    CARRIERS,
    DETAILS,
    FAMILIAR,
    FAMILIAR_MAX,
    FLOWS,
    LIVE,
    carry,
    familiar_factor,
    find,
    greet,
    is_full,
    make,
)
from agents.kernels.policy import DAY, FACTOR_AT, QUIET_AT, SPARED_BYTES, clear, loudest, own, shared
from agents.kernels.seen import POOL, POOL_MAX, ROW_WORDS
from agents.kernels.state import (
    ANSWERS,
    CHOICE,
    ENCODED,
    ENCODED_NAMES,
    INFORMATION,
    NAMES,
    NONE,
    SUMS,
    Asked,
    Kind,
    Room,
    State,
    Stop,
    Told,
)
from agents.kernels.windows import ROWS, note, settle, take_back

SCATTERED_NAMES, SCATTERED_BYTES = 2, 6.0
"""A domain that a client asked for at most so many encoded names, of at least so many bytes each, is one of many."""
BURST_S = 1.0
"""Encoded names of one domain that come sooner one after the other are one burst: a page takes many hosts at once. A
carrier as fast as that is found by its bytes."""
SCATTERED_KEY = np.uint64(0x5CA77E12ED)
PEAK_MIN = 0.2
"""Evidence below it could not matter at any factor on the limits."""
SWEEP_S = 60
REFUSED = int(Room.REFUSED)
DONE, NO_FLOWS, NO_PLACES, NO_WINDOWS, NO_DETAILS, NO_POOL, NO_FAMILIAR, NO_CARRIERS, SWEEP = map(int, Stop)
BY_SPREAD, BY_SPREAD_FRESH = int(Kind.SPREAD), int(Kind.SPREAD_FRESH)


@kernel_in_place
def _lacks(state: State) -> int:
    """What there is too little of for one more query, whatever it brings: at most two flows."""
    room = state.room
    if room[FLOWS] + 2 > len(state.flows):
        return NO_FLOWS
    if 2 * (room[LIVE] + 2) > len(state.places):
        return NO_PLACES
    if room[ROWS] + 2 > len(state.windows):
        return NO_WINDOWS
    if room[DETAILS] + 2 > len(state.details):
        return NO_DETAILS
    if room[POOL] + ROW_WORDS > len(state.pool) and len(state.pool) < room[POOL_MAX]:
        return NO_POOL
    if room[FAMILIAR] < FAMILIAR_MAX and 2 * (room[FAMILIAR] + 1) > len(state.familiar):
        return NO_FAMILIAR
    if room[CARRIERS] + 1 > len(state.carriers):
        return NO_CARRIERS
    return DONE


@kernel_in_place
def _note_peak(flow: Any, ts: float, ratio: float, i: int, told: Told) -> None:
    day = math.floor(ts / DAY_S)
    if ratio < PEAK_MIN or (flow["peak_day"] == day and ratio <= flow["peak"]):
        return
    flow["peak_day"], flow["peak"] = day, ratio
    peak = told.peaks[told.counts[PEAKS]]
    peak["row"], peak["ratio"], peak["scattered"] = i, ratio, flow["scattered"]
    told.counts[PEAKS] += 1


@kernel_in_place
def _tell(state: State, i: int, row: int, evidence: Any, fresh: bool, secret: bool, told: Told) -> None:
    """Hand a query on that may open or go on with an incident, with its flow as it is now."""
    flow = state.flows[row]
    flow["watched"] = 1
    event = told.events[told.counts[EVENTS]]
    told.counts[EVENTS] += 1
    kept = event["evidence"]
    kept["ratio"], kept["amount"], kept["limit"] = evidence["ratio"], evidence["amount"], evidence["limit"]
    kept["names"], kept["domains"] = evidence["names"], evidence["domains"]
    kept["kind"], kept["window"] = evidence["kind"], evidence["window"]
    event["row"], event["flow"], event["fresh"], event["secret"] = i, row, fresh, secret
    event["first_seen"], event["leaked"], event["queries"] = flow["first_seen"], flow["leaked"], flow["queries"]
    event["names"], event["encoded_names"] = flow["names"], flow["encoded_names"]
    if evidence["kind"] == BY_SPREAD or evidence["kind"] == BY_SPREAD_FRESH:
        loudest(state.clients[flow["client"]], state.carriers, state.flows, event["sharing"])


@kernel_in_place
def _scatter(
    state: State,
    asked: Asked,
    i: int,
    row: int,
    amounts: NDArray[np.float32],
    limits: NDArray[np.float64],
    rules: NDArray[np.float64],
    total: NDArray[np.float64],
    told: Told,
) -> None:
    """Count a name below a domain of one or two names for its client: throw-away domains add up."""
    ts, flow = asked.ts[i], state.flows[row]
    client = state.clients[flow["client"]]
    if flow["lent"] > 0 and flow["encoded"] > limits[SPARED_BYTES, DAY]:  # it counts by itself from now on
        if client["scattered"] != NONE:
            take_back(state.flows[client["scattered"]], state.windows, flow["lent"])
        flow["lent"] = 0.0
    if flow["encoded_names"] > SCATTERED_NAMES or amounts[ENCODED] < SCATTERED_BYTES:
        return
    if client["scattered"] == NONE:
        if is_full(state, flow["client"]):
            return
        client["scattered"] = make(state, ts, SCATTERED_KEY, flow["client"])
        state.flows[client["scattered"]]["scattered"] = 1
    flow["lent"] += amounts[ENCODED]
    at = client["scattered"]
    sum_ = state.flows[at]
    if sum_["watched"] and ts - sum_["last_seen"] > rules[QUIET_AT]:
        settle(sum_, state.windows)
    sum_["last_seen"] = max(sum_["last_seen"], ts)
    sum_["queries"] += 1
    sum_["names"] += 1
    sum_["encoded_names"] += 1
    sum_["leaked"] += amounts[INFORMATION]
    sum_["encoded"] += amounts[ENCODED]
    note(sum_, state.windows, state.room, ts, amounts)
    keep(state, asked, i, at, True, told)
    evidence = told.evidence[i]
    clear(evidence)
    own(evidence, ts, sum_, client, state.windows, limits, rules, total)
    _note_peak(sum_, ts, evidence["ratio"], i, told)
    evidence["ratio"] /= rules[FACTOR_AT]
    evidence["limit"] *= rules[FACTOR_AT]
    if evidence["ratio"] >= 1 or sum_["watched"]:
        _tell(state, i, at, evidence, True, False, told)


@kernel_in_place
def _weigh(
    state: State,
    asked: Asked,
    i: int,
    row: int,
    new: bool,
    limits: NDArray[np.float64],
    rules: NDArray[np.float64],
    total: NDArray[np.float64],
    told: Told,
) -> None:
    """Evidence of a query's flow as it is now, the query counted."""
    ts, flow, evidence = asked.ts[i], state.flows[row], told.evidence[i]
    clear(evidence)
    client = state.clients[flow["client"]]
    carries = asked.discount[i] <= 1 and not client["nobody"] and carry(state, row)
    own(evidence, ts, flow, client, state.windows, limits, rules, total)
    if evidence["ratio"] >= rules[FACTOR_AT]:
        flow["alone"] = 1
    if carries and not flow["alone"]:
        shared(evidence, ts, flow, client, state.carriers, state.flows, state.windows, limits, rules, total)
    _note_peak(flow, ts, evidence["ratio"], i, told)
    evidence["ratio"] /= rules[FACTOR_AT]
    evidence["limit"] *= rules[FACTOR_AT]
    secret = new and asked.secret[i] != 0
    told_of = evidence["ratio"] >= 1 or flow["watched"] != 0 or secret
    if told_of:
        _tell(state, i, row, evidence, new, secret, told)
    if told_of or not new:  # a severity is that of this query: what long windows still hold is not
        clear(evidence)


@kernel_in_place
def _count(state: State, asked: Asked, i: int, flow: Any, discount: float, amounts: NDArray[np.float32]) -> bool:
    """Count a query for its flow; whether its name is new. Fills amounts (in the order of the sums)."""
    ts = asked.ts[i]
    for one in range(SUMS):
        amounts[one] = 0.0
    flow["queries"] += 1
    flow["last_seen"] = max(flow["last_seen"], ts)
    answered = answers(state, asked, i, flow) / discount
    chosen = choice(state, asked, i, flow) / discount
    new = price(state, asked, i, flow, amounts)
    if new or answered > 0 or chosen > 0:
        if amounts[ENCODED] > 0:
            amounts[ENCODED_NAMES] = 1 / discount if abs(ts - flow["encoded_ts"]) >= BURST_S else 0.0
            flow["encoded_ts"] = ts
        amounts[INFORMATION] /= discount
        amounts[ENCODED] /= discount
        amounts[NAMES] = 1.0 if new else 0.0
        amounts[ANSWERS], amounts[CHOICE] = answered, chosen
        note(flow, state.windows, state.room, ts, amounts)
    return new


@kernel_in_place
def judge(
    state: State, asked: Asked, limits: NDArray[np.float64], rules: NDArray[np.float64], told: Told, start: int
) -> tuple[int, int]:
    """Judge queries from row `start` on; (Stop, row that it is for). limits: [kind, window]; rules: see policy.py."""
    amounts, total = told.amounts, told.total
    for i in range(start, len(asked.ts)):
        clear(told.evidence[i])
        has_parts = asked.parts[i] < asked.parts[i + 1]
        if asked.client[i] == NONE or (not has_parts and USUAL[asked.qtype[i]]):
            state.room[REFUSED] += asked.client[i] == NONE
            continue
        stop = _lacks(state)
        if stop != DONE:
            return stop, i
        ts, domain, client = asked.ts[i], asked.domain[i], asked.client[i]
        row = find(state.flows, state.places, domain, client)
        if row == NONE:
            if is_full(state, client):
                if not state.swept[0] <= ts < state.swept[0] + SWEEP_S:
                    return SWEEP, i
                state.room[REFUSED] += 1
                continue
            row = make(state, ts, domain, client)
            greet(state, ts, domain)
        flow = state.flows[row]
        if flow["watched"] and ts - flow["last_seen"] > rules[QUIET_AT]:
            settle(flow, state.windows)
        meet(state.clients[client], flow, ts)
        discount = asked.discount[i] * familiar_factor(state, ts, domain)
        new = _count(state, asked, i, flow, discount, amounts)
        keep(state, asked, i, row, new, told)
        may_scatter = discount <= 1 and not asked.scoped[i] and not state.clients[client]["nobody"]
        if new and amounts[ENCODED] > 0 and may_scatter:
            _scatter(state, asked, i, row, amounts, limits, rules, total, told)
        _weigh(state, asked, i, row, new, limits, rules, total, told)
    return DONE, len(asked.ts)
