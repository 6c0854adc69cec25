"""The hot loop: counts every query of a batch for its flow, and finds the limit nearest to the flow, or exceeded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.core.types import DAY_S
from agents.detection.flow_kernels import (
    CARRIERS,
    COUNT,
    DETAILS,
    EVENTS,
    FAMILIAR,
    FAMILIAR_MAX,
    FLOWS,
    LIVE,
    PEAKS,
    USUAL,
    WINDOW_ROWS,
    answers,
    choice,
    crowd,
    enlist_carrier,
    familiar_factor,
    find_flow,
    greet,
    is_full,
    keep,
    make,
    meet,
    note,
    price,
    settle,
    sums,
    take_back,
)
from agents.detection.seen_kernels import POOL, POOL_MAX, ROW_WORDS
from agents.detection.state import (
    ANSWERS,
    CHOICE,
    ENCODED,
    ENCODED_NAMES,
    INFORMATION,
    NAMES,
    NONE,
    OWN,
    SHARING_MAX,
    SUMS,
    WINDOWS_S,
    Asked,
    Kind,
    Room,
    State,
    Stop,
    Told,
)

DAY = WINDOWS_S.index(86_400)

OWN_KINDS, OWN_SUMS, OWN_AFTER_NAMES = (np.array(column, np.int64) for column in zip(*OWN, strict=True))
BY_FRESH, BY_SPREAD, BY_SPREAD_FRESH, BY_SCATTERED = map(
    int, (Kind.FRESH, Kind.SPREAD, Kind.SPREAD_FRESH, Kind.SCATTERED)
)
SPARED_BYTES, SPARED_NAMES = len(Kind), len(Kind) + 1
"""Rows of `limits` after the rows of the kinds: the allowance that a carrier has before it adds to its client's sum."""
LIMIT_ROWS = len(Kind) + 2
SPARED_DOMAINS = 20
"""At most this many allowances, times the client's `crowd`, are subtracted from one client's sum."""
PART = 2
"""A domain is blamed for a shared sum if it carried at least 1/PART of the mean, or if the sum is PART times the limit.
The mean is taken over the domains that exceed their allowance."""
MIN_NAMES_AT, FRESH_BYTES_AT, FRESH_ENCODED_AT, FRESH_NAME_AT, FACTOR_AT, SCATTERED_AT, QUIET_AT = range(7)
"""Places in `rules`, which limits.limits_of fills."""
RULES = 7


@kernel_in_place
def clear_evidence(evidence: Any) -> None:
    """Reset to no evidence."""
    evidence["ratio"], evidence["amount"], evidence["limit"] = 0.0, 0.0, 0.0
    evidence["names"], evidence["domains"], evidence["kind"], evidence["window"] = 0, 1, 0, 0


@kernel_in_place
def _louder(evidence: Any, limit: float, kind: int, number: int, amount: float, names: float, domains: int = 1) -> None:
    """Replace the evidence if this amount is further beyond its limit; limit: inf = none."""
    if amount / limit <= evidence["ratio"]:
        return
    evidence["ratio"], evidence["amount"], evidence["limit"] = amount / limit, amount, limit
    evidence["names"], evidence["domains"] = round(names), domains
    evidence["kind"], evidence["window"] = kind, number


@kernel_in_place
def is_fresh(flow: Any, rules: NDArray[np.float64]) -> bool:
    """Whether a flow consists almost only of encoded names, each asked for once."""
    encoded, new = flow["encoded_names"] / max(flow["names"], 1), flow["names"] / max(flow["queries"], 1)
    return bool(encoded >= rules[FRESH_ENCODED_AT] and new >= rules[FRESH_NAME_AT])


@kernel_in_place
def own(
    evidence: Any,
    ts: float,
    flow: Any,
    client: Any,
    windows: NDArray[Any],
    limits: NDArray[np.float64],
    rules: NDArray[np.float64],
    total: NDArray[np.float64],
) -> None:
    """Evidence from the sums of one flow. total: shape (SUMS,), overwritten."""
    if flow["windows"] == NONE:
        return
    enough = flow["names"] >= rules[MIN_NAMES_AT]
    fresh = enough and is_fresh(flow, rules)
    for number in range(COUNT):
        sums(windows[flow["windows"]], ts, number, total)
        names = total[NAMES]
        if flow["scattered"]:
            if flow["names"] >= rules[SCATTERED_AT]:
                _louder(
                    evidence,
                    limits[BY_SCATTERED, number] * crowd(client),
                    BY_SCATTERED,
                    number,
                    total[ENCODED],
                    names,
                    flow["names"],
                )
            continue
        for one in range(len(OWN_KINDS)):
            if enough or not OWN_AFTER_NAMES[one]:
                kind = OWN_KINDS[one]
                _louder(evidence, limits[kind, number], kind, number, total[OWN_SUMS[one]], names)
        if fresh:
            amount = _short(total, rules)
            _louder(evidence, limits[BY_FRESH, number], BY_FRESH, number, amount, names)


@kernel_in_place
def _short(total: NDArray[np.float64], rules: NDArray[np.float64]) -> float:
    """Encoded names in a window; at most as many as its encoded bytes fill at FRESH_BYTES_A_NAME each."""
    return float(min(total[ENCODED_NAMES], total[ENCODED] / rules[FRESH_BYTES_AT]))


@kernel_in_place
def _together(
    evidence: Any,
    limit: float,
    kind: int,
    number: int,
    own: float,
    spare: float,
    found: Any,
    names: float,
    times: float,
    factor: float,
) -> None:
    """Evidence from a shared sum. found: (sum, the part within allowances, carriers, carriers above the allowance)."""
    amount, spared, count, loud = found
    amount, limit = amount - min(spared, SPARED_DOMAINS * spare * times), limit * times
    has_part = PART * loud * (own - spare) >= amount or amount >= PART * limit * factor
    if count > 1 and own > 0 and has_part:
        _louder(evidence, limit, kind, number, amount, names, count)


@kernel_in_place
def shared(
    evidence: Any,
    ts: float,
    flow: Any,
    client: Any,
    carriers: NDArray[np.int32],
    flows: NDArray[Any],
    windows: NDArray[Any],
    limits: NDArray[np.float64],
    rules: NDArray[np.float64],
    total: NDArray[np.float64],
) -> None:
    """Evidence from the sum over a client's carriers (State.carriers) that are not incidents by themselves.

    Each carrier counts with its amount above the per-domain allowance (SPARED_BYTES, SPARED_NAMES). Only flows that
    carried at least half the mean are blamed, not other domains that the client happens to ask for; above twice the
    limit, all carriers are blamed.
    """
    fresh, times = is_fresh(flow, rules), crowd(client)
    for number in range(COUNT):
        if limits[BY_SPREAD, number] == np.inf and limits[BY_SPREAD_FRESH, number] == np.inf:
            continue
        spare, spare_names = limits[SPARED_BYTES, number], limits[SPARED_NAMES, number]
        encoded = spared = names = short = short_spared = short_names = 0.0
        count = loud = short_count = short_loud = 0
        for i in range(client["carriers"]):
            carrier = flows[carriers[client["carriers_at"], i]]
            if carrier["alone"]:
                continue
            sums(windows[carrier["windows"]], ts, number, total)
            if total[ENCODED] <= 0:
                continue
            encoded, spared, names = encoded + total[ENCODED], spared + min(total[ENCODED], spare), names + total[NAMES]
            count, loud = count + 1, loud + (total[ENCODED] > spare)
            if is_fresh(carrier, rules):
                amount = _short(total, rules)
                short, short_spared = short + amount, short_spared + min(amount, spare_names)
                short_count, short_loud = short_count + 1, short_loud + (amount > spare_names)
                short_names += total[NAMES]
        sums(windows[flow["windows"]], ts, number, total)
        found, own, factor = (encoded, spared, count, loud), total[ENCODED], rules[FACTOR_AT]
        _together(evidence, limits[BY_SPREAD, number], BY_SPREAD, number, own, spare, found, names, times, factor)
        if fresh:
            found, own, limit = (
                (short, short_spared, short_count, short_loud),
                _short(total, rules),
                limits[BY_SPREAD_FRESH, number],
            )
            _together(evidence, limit, BY_SPREAD_FRESH, number, own, spare_names, found, short_names, times, factor)


@kernel_in_place
def loudest(client: Any, carriers: NDArray[np.int32], flows: NDArray[Any], out: NDArray[np.int32]) -> None:
    """The carriers with the most encoded bytes that are not incidents by themselves, loudest first.

    out: shape (SHARING_MAX,).
    """
    for place in range(SHARING_MAX):
        out[place] = NONE
        for i in range(client["carriers"]):
            found = carriers[client["carriers_at"], i]
            taken = flows[found]["alone"] != 0
            for before in range(place):
                taken = taken or out[before] == found
            if not taken and (out[place] == NONE or flows[found]["encoded"] > flows[out[place]]["encoded"]):
                out[place] = found


assert SUMS == 6

SCATTERED_NAMES, SCATTERED_BYTES_A_NAME = 2, 6.0
"""The first SCATTERED_NAMES encoded names below a domain count for the client's scattered sum, if each carries at least
SCATTERED_BYTES_A_NAME."""
BURST_S = 1.0
"""Encoded names of one domain at shorter intervals are one burst: a page loads many hosts at once. A carrier as fast
as that is found by its bytes."""
SCATTERED_KEY = np.uint64(0x5CA77E12ED)
PEAK_MIN = 0.2
"""Evidence below this ratio does not matter at any factor on the limits."""
SWEEP_S = 60
REFUSED = int(Room.REFUSED)
DONE, NO_FLOWS, NO_PLACES, NO_WINDOWS, NO_DETAILS, NO_POOL, NO_FAMILIAR, NO_CARRIERS, SWEEP = map(int, Stop)


@kernel_in_place
def _lacks(state: State) -> int:
    """The array that has no room for one more query, or DONE. A query needs at most two flows."""
    room = state.room
    if room[FLOWS] + 2 > len(state.flows):
        return NO_FLOWS
    if 2 * (room[LIVE] + 2) > len(state.places):
        return NO_PLACES
    if room[WINDOW_ROWS] + 2 > len(state.windows):
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
    """Emit an event for a query that may open or extend an incident, with the present state of its flow."""
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
    """Count a name below a domain of one or two names for its client's scattered sum: throw-away domains add up.

    A domain's bytes count for that sum until they exceed the per-domain allowance; otherwise they would be left out of
    both sums.
    """
    ts, flow = asked.ts[i], state.flows[row]
    client = state.clients[flow["client"]]
    if flow["lent"] > 0 and flow["encoded"] > limits[SPARED_BYTES, DAY]:  # from now on it counts as a carrier
        if client["scattered"] != NONE:
            take_back(state.flows[client["scattered"]], state.windows, flow["lent"])
        flow["lent"] = 0.0
    if flow["encoded_names"] > SCATTERED_NAMES or amounts[ENCODED] < SCATTERED_BYTES_A_NAME:
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
    clear_evidence(evidence)
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
    """Evidence of a query's flow after the query was counted."""
    ts, flow, evidence = asked.ts[i], state.flows[row], told.evidence[i]
    clear_evidence(evidence)
    client = state.clients[flow["client"]]
    carries = asked.discount[i] <= 1 and not client["nobody"] and enlist_carrier(state, row)
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
    if told_of or not new:  # a severity belongs to one query; the sums of long windows do not
        clear_evidence(evidence)


@kernel_in_place
def _count(state: State, asked: Asked, i: int, flow: Any, discount: float, amounts: NDArray[np.float32]) -> bool:
    """Count a query for its flow; returns whether its name is new. Fills amounts (in the order of the sums)."""
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
    """Judge queries from row `start` on; returns (Stop, row where it stopped). limits: [kind, window]; rules: RULES."""
    amounts, total = told.amounts, told.total
    for i in range(start, len(asked.ts)):
        clear_evidence(told.evidence[i])
        has_parts = asked.parts[i] < asked.parts[i + 1]
        if asked.client[i] == NONE or (not has_parts and USUAL[asked.qtype[i]]):
            state.room[REFUSED] += asked.client[i] == NONE
            continue
        stop = _lacks(state)
        if stop != DONE:
            return stop, i
        ts, domain, client = asked.ts[i], asked.domain[i], asked.client[i]
        row = find_flow(state.flows, state.places, domain, client)
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
