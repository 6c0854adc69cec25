"""The hot loop: counts every query of a batch for its flow, and finds the limit nearest to the flow, or exceeded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.core.types import DAY_S
from agents.detection.flow_kernels import (
    ANY,
    AT_HOME,
    BY_THEMSELVES,
    CARRIER_NAMES,
    CARRIERS,
    CARRYING,
    COUNT,
    DETAILS,
    EVENTS,
    FAMILIAR,
    FAMILIAR_MAX,
    FLOWS,
    LIVE,
    OF_NETWORK,
    PACE_STEPS,
    PEAKS,
    PLACE_BITS,
    UNKEPT,
    USUAL,
    WINDOW_ROWS,
    add,
    answers,
    choice,
    crowd,
    crowd_of,
    digit_bytes,
    empty_windows,
    enlist_carrier,
    familiar_factor,
    find_flow,
    greet,
    is_full,
    is_strange,
    is_young,
    keep,
    keep_pace,
    make,
    meet,
    note,
    note_asker,
    order,
    price,
    settle,
    sums,
    take_back,
    take_sum_back,
    take_words_back,
)
from agents.detection.seen_kernels import POOL, POOL_MAX, ROW_WORDS
from agents.detection.state import (
    ANSWERS,
    CHOICE,
    ENCODED,
    ENCODED_NAMES,
    FIRST,
    INFORMATION,
    NAMES,
    NONE,
    ORDERED,
    OWN,
    QTYPES_MAX,
    SHARING_MAX,
    SHORT_MAX,
    SUMS,
    UNNUMBERED,
    WINDOWS_S,
    Asked,
    Kind,
    Room,
    Sign,
    State,
    Stop,
    Told,
)

HOUR, DAY, WEEK = map(WINDOWS_S.index, (3600, 86_400, 604_800))

OWN_KINDS, OWN_SUMS, OWN_AFTER_NAMES, OWN_YOUNG = (np.array(column, np.int64) for column in zip(*OWN, strict=True))
BY_FRESH, BY_SPREAD, BY_SPREAD_FRESH, BY_SCATTERED = map(
    int, (Kind.FRESH, Kind.SPREAD, Kind.SPREAD_FRESH, Kind.SCATTERED)
)
BY_WORDS, BY_FIRST, BY_ORDERED, BY_SIBLINGS, BY_BEACON = map(
    int, (Kind.WORDS, Kind.FIRST, Kind.ORDERED, Kind.SIBLINGS, Kind.BEACON)
)
BY_TYPES, BY_EMPTY, BY_DIFFERENT, WITH_SIBLINGS = map(int, (Sign.TYPES, Sign.EMPTY, Sign.DIFFER, Sign.SIBLINGS))
SPARED_BYTES, SPARED_NAMES = len(Kind), len(Kind) + 1
"""Rows of `limits` after the rows of the kinds: the allowance that a carrier has before it adds to its client's sum."""
LIMIT_ROWS = len(Kind) + 2
SPARED_DOMAINS = 20
"""At most this many allowances, times the client's `crowd`, are subtracted from one client's sum."""
PART = 2
"""A domain is blamed for a shared sum if it carried at least 1/PART of the mean, or if the sum is PART times the limit.
The mean is taken over the domains that exceed their allowance."""
MIN_NAMES_AT, FRESH_BYTES_AT, FRESH_ENCODED_AT, FRESH_NAME_AT, FACTOR_AT, SCATTERED_AT, QUIET_AT = range(7)
WORDS_SPARED_AT = 7
"""Places in `rules`, which limits.limits_of fills."""
RULES = 8


@kernel_in_place
def clear_evidence(evidence: Any) -> None:
    """Reset to no evidence."""
    evidence["ratio"], evidence["amount"], evidence["limit"] = 0.0, 0.0, 0.0
    evidence["names"], evidence["domains"], evidence["kind"], evidence["window"], evidence["sign"] = 0, 1, 0, 0, 0


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
    young: bool,
) -> None:
    """Evidence from the sums of one flow. total: shape (SUMS,), overwritten; young: its domain is young or rare."""
    if flow["windows"] == NONE:
        return
    enough = flow["names"] >= rules[MIN_NAMES_AT]
    fresh = enough and is_fresh(flow, rules)
    for number in range(COUNT):
        sums(windows[flow["windows"]], ts, number, total)
        names = total[NAMES]
        if flow["scattered"]:
            if flow["encoded_names"] >= rules[SCATTERED_AT]:
                _louder(
                    evidence,
                    limits[BY_SCATTERED, number] * crowd(client),
                    BY_SCATTERED,
                    number,
                    total[ENCODED],
                    names,
                    flow["encoded_names"],
                )
            _louder(evidence, limits[BY_FIRST, number] * crowd(client), BY_FIRST, number, total[FIRST], names)
            continue
        for one in range(len(OWN_KINDS)):
            if (enough or not OWN_AFTER_NAMES[one]) and (young or not OWN_YOUNG[one]):
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


SIBLING_DOMAINS = 3
"""Names below fewer domains are not siblings: the limits of each domain hold."""
MIX_FORM = np.uint64(0x9FB21C651E98DF25)
"""Multiplier of a 64-bit mixer (Evensen's rrmxmx, as in XXH3)."""
CELL_BITS = np.uint64(58)
"""The highest six bits of a hash are one of CELLS."""


@kernel_in_place
def _sibling(state: State, asked: Asked, i: int, flow: Any, ts: float, total: NDArray[np.float64]) -> int:
    """Place of a name's form among the siblings; emptied where another form, or a week without names, was before."""
    mixed = (asked.form[i] ^ np.uint64(asked.qtype[i])) * MIX_FORM
    key = (mixed ^ np.uint64(flow["client"] + 1)) * MIX_FORM
    place = np.int64(key >> PLACE_BITS) & (len(state.siblings) - 1)
    kept = state.siblings[place]
    sums(state.sibling_windows[place], ts, WEEK, total)
    if kept["key"] != key or total[NAMES] <= 0:
        kept["key"], kept["label"], kept["domains"], kept["ts"] = key, 0, 0, -math.inf
        empty_windows(state.sibling_windows[place])
    return int(place)


@kernel_in_place
def siblings(
    state: State,
    asked: Asked,
    i: int,
    flow: Any,
    limits: NDArray[np.float64],
    rules: NDArray[np.float64],
    total: NDArray[np.float64],
    told: Told,
    evidence: Any,
) -> None:
    """Evidence from new encoded names of one form and type below several young domains of a client.

    The first such name below each domain is left out (a page loads one keyed host from each of many third parties), and
    so are a label that the client just asked for below another domain (lists of hashes), and bursts. One of less than
    SCATTERED_BYTES_A_NAME counts in proportion. What one domain has half of is that domain's.
    """
    ts, amounts, part = asked.ts[i], told.amounts, told.part
    if flow["encoded_names"] <= 1 or amounts[ENCODED] < rules[FRESH_BYTES_AT]:
        return
    if not is_young(state, ts, flow["domain"]):
        return
    place = _sibling(state, asked, i, flow, ts, total)
    kept, windows = state.siblings[place], state.sibling_windows[place]
    label = np.uint64(0)
    for one in range(asked.parts[i], asked.parts[i + 1]):
        label += asked.key[one]
    if label == kept["label"] or abs(ts - kept["ts"]) < BURST_S:
        return
    kept["label"], kept["ts"] = label, ts
    kept["domains"] |= np.uint64(1) << (flow["domain"] >> CELL_BITS)
    for one in range(SUMS):
        part[one] = 0.0
    part[NAMES], part[ENCODED_NAMES] = 1.0, min(amounts[ENCODED] / SCATTERED_BYTES_A_NAME, 1.0)
    add(windows, ts, part)
    domains = crowd_of(kept["domains"])
    if domains < SIBLING_DOMAINS or flow["encoded_names"] <= SCATTERED_NAMES or flow["windows"] == NONE:
        return
    times = crowd(state.clients[flow["client"]])
    for number in range(COUNT):
        sums(state.windows[flow["windows"]], ts, number, total)
        own_names = total[NAMES]
        sums(windows, ts, number, total)
        if PART * own_names <= total[NAMES]:
            limit = limits[BY_SIBLINGS, number] * times
            _louder(evidence, limit, BY_SIBLINGS, number, total[ENCODED_NAMES], total[NAMES], int(domains))
            if total[ENCODED_NAMES] >= limit * rules[FACTOR_AT]:  # whatever else is louder
                evidence["sign"] = WITH_SIBLINGS


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


assert SUMS == 7

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
OF_NETWORK_STOP = 16
"""Added to the Stop of the network's arrays."""
TENANTS_FACTOR = 2.0
"""How many times more may lie directly below a suffix of many tenants than below one domain: pages name many. Known
services may carry more, each client by itself: they do not count for the network."""
CLIENT_SHARE = 1 / 4
"""Each further client that is at home here adds so much of one client's limits to those of all clients together."""
BY_THEMSELVES_MAX = 2
"""Clients whose flows below one domain are incidents by themselves, and count no more for the network. Those of further
clients do: they are one channel, and become one incident."""
AT_HOME_DOMAINS = 10
"""Domains that a client asks below in a day before it is at home here: an address that was made up asks below one."""
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
def _note_peak(state: State, flow: Any, ts: float, ratio: float, i: int, told: Told) -> None:
    day = math.floor(ts / DAY_S)
    if state.room[OF_NETWORK] or ratio < PEAK_MIN or (flow["peak_day"] == day and ratio <= flow["peak"]):
        return
    flow["peak_day"], flow["peak"] = day, ratio
    peak = told.peaks[told.counts[PEAKS]]
    peak["row"], peak["ratio"], peak["scattered"] = i, ratio, flow["scattered"]
    told.counts[PEAKS] += 1


@kernel_in_place
def _tell(state: State, asked: Asked, i: int, row: int, evidence: Any, fresh: bool, secret: bool, told: Told) -> None:
    """Emit an event for a query that may open or extend an incident, with the present state of its flow."""
    flow = state.flows[row]
    flow["watched"] = 1
    event = told.events[told.counts[EVENTS]]
    told.counts[EVENTS] += 1
    kept = event["evidence"]
    kept["ratio"], kept["amount"], kept["limit"] = evidence["ratio"], evidence["amount"], evidence["limit"]
    kept["names"], kept["domains"] = evidence["names"], evidence["domains"]
    kept["kind"], kept["window"], kept["sign"] = evidence["kind"], evidence["window"], evidence["sign"]
    event["row"], event["flow"], event["fresh"], event["secret"] = i, row, fresh, secret
    event["network"], event["several"] = state.room[OF_NETWORK], 0
    if state.room[OF_NETWORK]:
        event["several"] = told.unheard[0] or crowd_of(state.askers[row, ANY]) > 1
    event["first_seen"], event["leaked"], event["queries"] = flow["first_seen"], flow["leaked"], flow["queries"]
    event["names"], event["encoded_names"] = flow["names"], flow["encoded_names"]
    event["today"] = np.inf
    if flow["windows"] != NONE and not (flow["scattered"] or state.room[OF_NETWORK]):
        sums(state.windows[flow["windows"]], asked.ts[i], DAY, told.total)
        event["today"] = told.total[INFORMATION] * asked.discount[i]
    if evidence["kind"] == BY_SPREAD or evidence["kind"] == BY_SPREAD_FRESH:
        loudest(state.clients[flow["client"]], state.carriers, state.flows, event["sharing"])


@kernel_in_place
def _scatter(
    state: State,
    asked: Asked,
    i: int,
    row: int,
    home: bool,
    amounts: NDArray[np.float32],
    limits: NDArray[np.float64],
    rules: NDArray[np.float64],
    total: NDArray[np.float64],
    told: Told,
    evidence: Any,
) -> None:
    """Count a query for its client's sums over domains: throw-away domains add up, and so does what young ones carry.

    A domain's encoded bytes count for that sum until it is a carrier beyond the per-domain allowance; otherwise they
    would be left out of both sums. The first bytes of information below a domain are a sum of their own. Numbered
    hosts, which mail servers look up below the domains of strangers, count for that alone, and without their digits.
    """
    flow, part = state.flows[row], told.part
    client = state.clients[flow["client"]]
    beyond = flow["encoded"] > limits[SPARED_BYTES, DAY] and flow["encoded_names"] >= CARRIER_NAMES
    if flow["lent"] > 0 and beyond:  # from now on it counts as a carrier
        if client["scattered"] != NONE:
            take_back(state.flows[client["scattered"]], state.windows, flow["lent"])
        flow["lent"] = 0.0
    for one in range(SUMS):
        part[one] = 0.0
    if flow["encoded_names"] <= SCATTERED_NAMES and amounts[ENCODED] >= SCATTERED_BYTES_A_NAME and not asked.scoped[i]:
        flow["lent"] += amounts[ENCODED]
        part[ENCODED], part[ENCODED_NAMES] = amounts[ENCODED], amounts[ENCODED_NAMES]
    if not flow["alone"] and is_young(state, asked.ts[i], flow["domain"]):
        part[ORDERED] = amounts[CHOICE]
        words = max(amounts[INFORMATION] - digit_bytes(asked.digits[i]), 0.0)
        beyond = max(min(words, flow["leaked"] - rules[WORDS_SPARED_AT]), 0.0)
        part[FIRST], part[INFORMATION] = words - beyond, 0.0 if asked.digits[i] else beyond
    if part[ENCODED] == 0 and part[INFORMATION] == 0 and part[FIRST] == 0 and part[ORDERED] == 0:
        return
    part[NAMES] = min(amounts[NAMES], 1.0)
    if client["scattered"] == NONE:
        if is_full(state, flow["client"]):
            return
        client["scattered"] = make(state, asked.ts[i], SCATTERED_KEY, flow["client"])
        state.flows[client["scattered"]]["scattered"] = 1
    _add_up(state, asked, i, row, home, client["scattered"], part, limits, rules, total, told, evidence)


@kernel_in_place
def _below_young(
    evidence: Any,
    ts: float,
    sum_: Any,
    flow: Any,
    client: Any,
    windows: NDArray[Any],
    limits: NDArray[np.float64],
    total: NDArray[np.float64],
) -> None:
    """Evidence from what young domains carry together. What one domain has half of is that domain's."""
    if sum_["windows"] == NONE:
        return
    times = crowd(client)
    for number in range(COUNT):
        words, ordered = flow["single"][INFORMATION], flow["single"][CHOICE]
        if flow["windows"] != NONE:
            sums(windows[flow["windows"]], ts, number, total)
            words, ordered = total[INFORMATION], total[CHOICE]
        sums(windows[sum_["windows"]], ts, number, total)
        if PART * words < total[INFORMATION]:
            _louder(evidence, limits[BY_WORDS, number] * times, BY_WORDS, number, total[INFORMATION], total[NAMES])
        if PART * ordered < total[ORDERED]:
            _louder(evidence, limits[BY_ORDERED, number] * times, BY_ORDERED, number, total[ORDERED], total[NAMES])


@kernel_in_place
def _add_up(
    state: State,
    asked: Asked,
    i: int,
    row: int,
    home: bool,
    at: int,
    part: NDArray[np.float32],
    limits: NDArray[np.float64],
    rules: NDArray[np.float64],
    total: NDArray[np.float64],
    told: Told,
    evidence: Any,
) -> None:
    """Count a part of a name in its client's sum over domains, and compare that with its limits. row: of its flow."""
    ts, sum_ = asked.ts[i], state.flows[at]
    if sum_["watched"] and ts - sum_["last_seen"] > rules[QUIET_AT]:
        settle(sum_, state.windows)
    if state.room[OF_NETWORK]:
        note_asker(state, at, asked, i, home)
    sum_["last_seen"] = max(sum_["last_seen"], ts)
    new = part[NAMES] > 0
    sum_["queries"] += 1
    sum_["names"] += new
    sum_["encoded_names"] += part[ENCODED] > 0
    sum_["leaked"] += max(part[INFORMATION] + part[FIRST], part[ENCODED]) + part[ORDERED]
    sum_["encoded"] += part[ENCODED]
    note(sum_, state.windows, state.room, ts, part)
    keep(state, asked, i, at, new, told)
    clear_evidence(evidence)
    client = state.clients[sum_["client"]]
    own(evidence, ts, sum_, client, state.windows, limits, rules, total, True)
    if part[INFORMATION] > 0 or part[ORDERED] > 0:
        _below_young(evidence, ts, sum_, state.flows[row], client, state.windows, limits, total)
    if state.room[OF_NETWORK]:
        times = grown(state, at)
        evidence["ratio"] /= times
        evidence["limit"] *= times
    _note_peak(state, sum_, ts, evidence["ratio"], i, told)
    evidence["ratio"] /= rules[FACTOR_AT]
    evidence["limit"] *= rules[FACTOR_AT]
    if evidence["ratio"] >= 1 or sum_["watched"]:
        _tell(state, asked, i, at, evidence, new, False, told)


BEACON_SWING, BEACON_FASTEST_S, BEACON_SLOWEST_S = 0.35, 10.0, 300.0
"""Names come at a machine's pace if the deviation of the time between them is at most so much of it. Faster ones are
pages and downloads, and a carrier as fast is found by its bytes; where they are slower, most came in bursts."""
SIGN_SHARE = 0.5
"""So many of a beacon's queries ask for types that carry text, or get no data, for that to be a second sign; and so
many of its names read as encoded, for answers to be one."""
ANSWER_BYTES_A_NAME = 3.0
"""Bytes of new data in answers for each name that are a second sign: nearly the size of an address each time."""


@kernel_in_place
def _second_sign(flow: Any, details: NDArray[Any]) -> int:
    """What else speaks for a tunnel: a Sign. Of hosts that are gone through by name, each answer differs, too."""
    every = carrying = 0
    if flow["detail"] != NONE:
        kept = details[flow["detail"]]
        for one in range(QTYPES_MAX):
            every += kept["count"][one]
            if CARRYING[kept["qtype"][one]]:
                carrying += kept["count"][one]
    if every > 0 and carrying >= SIGN_SHARE * every:
        return BY_TYPES
    if flow["encoded_names"] < SIGN_SHARE * flow["names"]:
        return 0
    if flow["empty"] >= SIGN_SHARE * flow["queries"]:
        return BY_EMPTY
    if flow["bytes_in"] >= ANSWER_BYTES_A_NAME * flow["names"]:
        return BY_DIFFERENT
    return 0


@kernel_in_place
def _beacon(
    evidence: Any,
    ts: float,
    flow: Any,
    windows: NDArray[Any],
    details: NDArray[Any],
    limits: NDArray[np.float64],
    rules: NDArray[np.float64],
    total: NDArray[np.float64],
) -> None:
    """Evidence from new names at a machine's pace, whatever they carry: just at its limit. Its amount is the pace, in
    seconds."""
    pace_s = flow["pace"] / PACE_STEPS
    if flow["windows"] == NONE or not BEACON_FASTEST_S <= pace_s <= BEACON_SLOWEST_S:
        return
    if flow["swing"] > BEACON_SWING * flow["pace"]:
        return
    sums(windows[flow["windows"]], ts, HOUR, total)
    limit = limits[BY_BEACON, HOUR] * rules[FACTOR_AT]
    if total[NAMES] >= limit:
        evidence["ratio"], evidence["amount"], evidence["limit"] = 1.0, pace_s, limit
        evidence["names"], evidence["domains"] = round(total[NAMES]), 1
        evidence["kind"], evidence["window"], evidence["sign"] = BY_BEACON, HOUR, _second_sign(flow, details)


@kernel_in_place
def _weigh(
    state: State,
    asked: Asked,
    i: int,
    row: int,
    new: bool,
    young: bool,
    limits: NDArray[np.float64],
    rules: NDArray[np.float64],
    total: NDArray[np.float64],
    told: Told,
    evidence: Any,
) -> None:
    """Evidence of a query's flow after the query was counted. young: its domain is young or rare."""
    ts, flow = asked.ts[i], state.flows[row]
    clear_evidence(evidence)
    client = state.clients[flow["client"]]
    carries = asked.discount[i] <= 1 and not client["nobody"] and enlist_carrier(state, row)
    own(evidence, ts, flow, client, state.windows, limits, rules, total, young and asked.discount[i] <= 1)
    if evidence["ratio"] >= rules[FACTOR_AT] and not flow["alone"]:
        flow["alone"] = 1
        take_words_back(state, flow, flow["client"], rules[WORDS_SPARED_AT])
    if carries and not flow["alone"]:
        shared(evidence, ts, flow, client, state.carriers, state.flows, state.windows, limits, rules, total)
    odd = new and asked.discount[i] <= 1 and not (asked.scoped[i] or client["nobody"] or state.room[OF_NETWORK])
    if odd:
        siblings(state, asked, i, flow, limits, rules, total, told, evidence)
    _note_peak(state, flow, ts, evidence["ratio"], i, told)
    evidence["ratio"] /= rules[FACTOR_AT]
    evidence["limit"] *= rules[FACTOR_AT]
    if odd and evidence["ratio"] < 1 and is_strange(state, ts, flow["domain"]):
        _beacon(evidence, ts, flow, state.windows, state.details, limits, rules, total)
    secret = new and asked.secret[i] != 0 and not state.room[OF_NETWORK]
    told_of = evidence["ratio"] >= 1 or flow["watched"] != 0 or secret
    if told_of:
        _tell(state, asked, i, row, evidence, new, secret, told)
    if told_of or not new:  # a severity belongs to one query; the sums of long windows do not
        clear_evidence(evidence)


@kernel_in_place
def _count(
    state: State, asked: Asked, i: int, flow: Any, named: bool, young: bool, discount: float, told: Told
) -> bool:
    """Count a query for its flow; returns whether its name is new. Fills told.amounts (in the order of the sums).

    named: whether its name may carry anything; young: whether its domain is young or rare. What a client says by the
    order of names is the same for the network, where the queries of others come between.
    """
    ts, amounts = asked.ts[i], told.amounts
    for one in range(SUMS):
        amounts[one] = 0.0
    flow["queries"] += 1
    flow["last_seen"] = max(flow["last_seen"], ts)
    answered = answers(state, asked, i, flow, young) / discount
    chosen = choice(state, asked, i, flow)
    new = named and price(state, asked, i, flow, amounts)
    if asked.data[i] == 0:
        flow["empty"] = min(flow["empty"] + 1, SHORT_MAX)
    if not state.room[OF_NETWORK] or told.unheard[0]:
        told.ordered[0] = order(state, asked, i, flow, not new, chosen > 0) if young else 0.0
    else:
        flow["leaked"] += told.ordered[0]
    chosen = (chosen + told.ordered[0]) / discount
    if new or answered > 0 or chosen > 0:
        if amounts[ENCODED] > 0:
            amounts[ENCODED_NAMES] = 1 / discount if abs(ts - flow["encoded_ts"]) >= BURST_S else 0.0
            flow["encoded_ts"] = ts
        amounts[INFORMATION] /= discount
        amounts[ENCODED] /= discount
        amounts[UNNUMBERED] = amounts[INFORMATION] if asked.digits[i] == 0 else 0.0
        amounts[NAMES] = 1.0 if new else 0.0
        amounts[ANSWERS], amounts[CHOICE] = answered, chosen
        note(flow, state.windows, state.room, ts, amounts)
    if new:
        keep_pace(flow, ts, BURST_S)
    return new


@kernel_in_place
def grown(network: State, row: int) -> float:
    """How many times the limits of one client hold for one of the network's flows, by its clients at home here."""
    return 1 + CLIENT_SHARE * max(crowd_of(network.askers[row, AT_HOME]) - 1, 0.0)


@kernel_in_place
def _hear(
    network: State,
    asked: Asked,
    i: int,
    named: bool,
    young: bool,
    home: bool,
    apart: bool,
    limits: NDArray[np.float64],
    rules: NDArray[np.float64],
    told: Told,
) -> None:
    """Count a query for all clients together.

    named: its name is new to its client; young: its domain is young or rare; home: its client is at home here; apart:
    its client's own sum over domains is an incident already.
    """
    ts, domain = asked.ts[i], asked.domain[i]
    row = find_flow(network.flows, network.places, domain, 0)
    if row == NONE:
        if is_full(network, 0):
            network.room[REFUSED] += 1
            return
        row = make(network, ts, domain, 0)
    flow, amounts, evidence = network.flows[row], told.amounts, told.spare[0]
    note_asker(network, row, asked, i, home)
    if flow["watched"] and ts - flow["last_seen"] > rules[QUIET_AT]:
        settle(flow, network.windows)
    times = grown(network, row)
    new = _count(network, asked, i, flow, named, young, asked.discount[i] * times, told)
    keep(network, asked, i, row, new, told)
    if (new or amounts[CHOICE] > 0) and asked.discount[i] <= 1 and times <= 1 and not apart:
        _scatter(network, asked, i, row, home, amounts, limits, rules, told.total, told, evidence)
    _weigh(network, asked, i, row, new, young, limits, rules, told.total, told, evidence)


@kernel_in_place
def _judge_one(
    state: State,
    network: State,
    asked: Asked,
    i: int,
    row: int,
    limits: NDArray[np.float64],
    together: NDArray[np.float64],
    rules: NDArray[np.float64],
    told: Told,
) -> None:
    """Judge a query by its flow, and then by what all clients carry."""
    ts, amounts, evidence, flow = asked.ts[i], told.amounts, told.evidence[i], state.flows[row]
    client = state.clients[asked.client[i]]
    if flow["watched"] and ts - flow["last_seen"] > rules[QUIET_AT]:
        settle(flow, state.windows)
    meet(client, flow, ts)
    was_alone, was_apart = flow["alone"], _is_apart(state, client)
    discount = asked.discount[i] * familiar_factor(state, ts, asked.domain[i])
    young, came_in = is_young(state, ts, asked.domain[i]), flow["bytes_in"]
    new = _count(state, asked, i, flow, True, young, discount, told)
    carried = new or flow["bytes_in"] > came_in or amounts[CHOICE] > 0
    keep(state, asked, i, row, new, told)
    if (new or amounts[CHOICE] > 0) and asked.discount[i] <= 1 and not client["nobody"]:
        _scatter(state, asked, i, row, False, amounts, limits, rules, told.total, told, evidence)
    _weigh(state, asked, i, row, new, young, limits, rules, told.total, told, evidence)
    apart = _is_apart(state, client)
    if apart and not was_apart and network.clients[0]["scattered"] != NONE:
        sum_ = state.flows[client["scattered"]]
        take_sum_back(network.flows[network.clients[0]["scattered"]], network.windows, sum_, state.windows)
    at = find_flow(network.flows, network.places, asked.domain[i], 0) if flow["alone"] else NONE
    if at != NONE and not was_alone:
        take_words_back(network, flow, 0, 0.0)
        take_back(network.flows[at], network.windows, flow["leaked"])
        network.askers[at, BY_THEMSELVES] |= np.uint64(1) << np.uint64(asked.cell[i])
    many = at != NONE and crowd_of(network.askers[at, BY_THEMSELVES]) > BY_THEMSELVES_MAX
    if carried and (many or not flow["alone"]) and asked.discount[i] <= TENANTS_FACTOR:
        home = max(client["today"], client["yesterday"]) >= AT_HOME_DOMAINS
        _hear(network, asked, i, new, young, home, apart or client["nobody"] != 0, together, rules, told)


@kernel_in_place
def _is_asked_of_young(state: State, asked: Asked, i: int) -> bool:
    """Whether a query's domain is young or rare, if its answer or its place in an order may carry something there."""
    return bool((asked.data[i] > 0 or asked.left[i] == UNKEPT) and is_young(state, asked.ts[i], asked.domain[i]))


@kernel_in_place
def _is_apart(state: State, client: Any) -> bool:
    """Whether a client's own sum over domains is an incident."""
    return bool(client["scattered"] != NONE and state.flows[client["scattered"]]["watched"])


@kernel_in_place
def judge(
    state: State,
    network: State,
    asked: Asked,
    limits: NDArray[np.float64],
    together: NDArray[np.float64],
    rules: NDArray[np.float64],
    told: Told,
    start: int,
) -> tuple[int, int]:
    """Judge queries from row `start` on; returns (Stop, row where it stopped), for the network's arrays Stop +
    OF_NETWORK_STOP.

    limits, together: [kind, window], of clients and of all together; rules: RULES.
    """
    for i in range(start, len(asked.ts)):
        clear_evidence(told.evidence[i])
        bare = asked.parts[i] == asked.parts[i + 1] and USUAL[asked.qtype[i]]
        if bare and not _is_asked_of_young(state, asked, i):
            continue
        stop, ts = _lacks(network), asked.ts[i]
        if stop == DONE and is_full(network, 0) and not network.swept[0] <= ts < network.swept[0] + SWEEP_S:
            stop = SWEEP
        if stop != DONE:
            return stop + OF_NETWORK_STOP, i
        stop = _lacks(state)
        if stop != DONE:
            return stop, i
        client, row = asked.client[i], NONE
        if client != NONE:
            row = find_flow(state.flows, state.places, asked.domain[i], client)
            if row == NONE and is_full(state, client):
                if not state.swept[0] <= ts < state.swept[0] + SWEEP_S:
                    return SWEEP, i
            elif row == NONE:
                row = make(state, ts, asked.domain[i], client)
                greet(state, ts, asked.domain[i])
        if row == NONE:
            state.room[REFUSED] += 1
            told.unheard[0] = 1
            young = is_young(state, ts, asked.domain[i])
            _hear(network, asked, i, True, young, False, False, together, rules, told)
            told.unheard[0] = 0
        else:
            _judge_one(state, network, asked, i, row, limits, together, rules, told)
    return DONE, len(asked.ts)
