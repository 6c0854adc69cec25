"""What speaks against a flow: the sum that is nearest to its limit, or furthest beyond it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.detection.counting.flow_kernels import CARRYING, PLACE_BITS, crowd, crowd_of
from agents.detection.counting.order_kernels import PACE_STEPS
from agents.detection.counting.window_kernels import COUNT, add, empty_windows, sums
from agents.detection.state import (
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
    SUMS,
    UNNUMBERED,
    WINDOWS_S,
    Asked,
    Kind,
    Sign,
    State,
    Told,
)

HOUR, DAY, WEEK = map(WINDOWS_S.index, (3600, 86_400, 604_800))

OWN_KINDS, OWN_SUMS, OWN_AFTER_NAMES, OWN_YOUNG = (np.array(column, np.int64) for column in zip(*OWN, strict=True))
BY_FRESH, BY_SPREAD, BY_SPREAD_FRESH, BY_SCATTERED = map(
    int, (Kind.FRESH, Kind.SPREAD, Kind.SPREAD_FRESH, Kind.SCATTERED)
)
BY_WORDS, BY_FIRST, BY_ORDERED, BY_SIBLINGS, BY_BEACON, BY_POLLS = map(
    int, (Kind.WORDS, Kind.FIRST, Kind.ORDERED, Kind.SIBLINGS, Kind.BEACON, Kind.POLLS)
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


class Measures(NamedTuple):
    """What sums are compared with."""

    limits: NDArray[np.float64]  # [kind, window], shape (LIMIT_ROWS, COUNT)
    rules: NDArray[np.float64]  # shape (RULES,)
    total: NDArray[np.float64]  # shape (SUMS,), overwritten


@kernel_in_place
def clear_evidence(evidence: Any) -> None:
    """Reset to no evidence."""
    evidence["ratio"], evidence["amount"], evidence["limit"] = 0.0, 0.0, 0.0
    evidence["names"], evidence["domains"], evidence["kind"], evidence["window"], evidence["sign"] = 0, 1, 0, 0, 0


@kernel_in_place
def louder(evidence: Any, limit: float, kind: int, number: int, amount: float, names: float, domains: int = 1) -> None:
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
    by: Measures,
    young: bool,
) -> None:
    """Evidence from the sums of one flow. total: shape (SUMS,), overwritten; young: its domain is young or rare."""
    if flow["windows"] == NONE:
        return
    enough = flow["names"] >= by.rules[MIN_NAMES_AT]
    fresh = enough and is_fresh(flow, by.rules)
    for number in range(COUNT):
        sums(windows[flow["windows"]], ts, number, by.total)
        names = by.total[NAMES]
        if flow["scattered"]:
            if flow["encoded_names"] >= by.rules[SCATTERED_AT]:
                limit = by.limits[BY_SCATTERED, number] * crowd(client)
                louder(evidence, limit, BY_SCATTERED, number, by.total[ENCODED], names, flow["encoded_names"])
            louder(evidence, by.limits[BY_FIRST, number] * crowd(client), BY_FIRST, number, by.total[FIRST], names)
            continue
        for one in range(len(OWN_KINDS)):
            if (enough or not OWN_AFTER_NAMES[one]) and (young or not OWN_YOUNG[one]):
                kind = OWN_KINDS[one]
                louder(evidence, by.limits[kind, number], kind, number, by.total[OWN_SUMS[one]], names)
        if fresh:
            amount = _short(by.total, by.rules)
            louder(evidence, by.limits[BY_FRESH, number], BY_FRESH, number, amount, names)


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
        louder(evidence, limit, kind, number, amount, names, count)


@kernel_in_place
def shared(
    evidence: Any,
    ts: float,
    flow: Any,
    client: Any,
    carriers: NDArray[np.int32],
    flows: NDArray[Any],
    windows: NDArray[Any],
    by: Measures,
) -> None:
    """Evidence from the sum over a client's carriers (State.carriers) that are not incidents by themselves.

    Each carrier counts with its amount above the per-domain allowance (SPARED_BYTES, SPARED_NAMES). Only flows that
    carried at least half the mean are blamed, not other domains that the client happens to ask for; above twice the
    limit, all carriers are blamed.
    """
    limits, total = by.limits, by.total
    fresh, times = is_fresh(flow, by.rules), crowd(client)
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
            if is_fresh(carrier, by.rules):
                amount = _short(total, by.rules)
                short, short_spared = short + amount, short_spared + min(amount, spare_names)
                short_count, short_loud = short_count + 1, short_loud + (amount > spare_names)
                short_names += total[NAMES]
        sums(windows[flow["windows"]], ts, number, total)
        found, own, factor = (encoded, spared, count, loud), total[ENCODED], by.rules[FACTOR_AT]
        _together(evidence, limits[BY_SPREAD, number], BY_SPREAD, number, own, spare, found, names, times, factor)
        if fresh:
            found = (short, short_spared, short_count, short_loud)
            own, limit = _short(total, by.rules), limits[BY_SPREAD_FRESH, number]
            _together(evidence, limit, BY_SPREAD_FRESH, number, own, spare_names, found, short_names, times, factor)


SCATTERED_NAMES, SCATTERED_BYTES_A_NAME = 2, 6.0
"""The first SCATTERED_NAMES encoded names below a domain count for the client's scattered sum, if each carries at least
SCATTERED_BYTES_A_NAME."""
BURST_S = 1.0
"""Encoded names of one domain at shorter intervals are one burst: a page loads many hosts at once. A carrier as fast
as that is found by its bytes."""
SIBLING_DOMAINS = 3
"""Names below fewer domains are not siblings: the limits of each domain hold."""
MIX_FORM = np.uint64(0x9FB21C651E98DF25)
"""Multiplier of a 64-bit mixer (Evensen's rrmxmx, as in XXH3)."""
CELL_BITS = np.uint64(58)
"""The highest six bits of a hash are one of CELLS."""


@kernel_in_place
def _sibling(state: State, asked: Asked, i: int, flow: Any, ts: float, total: NDArray[np.float64]) -> int:
    """Place of a name's form and type among the siblings, types that carry text as one; emptied where another form, or
    a week without names, was before."""
    kind = np.uint64(0) if CARRYING[asked.qtype[i]] else np.uint64(asked.qtype[i])
    mixed = (asked.form[i] ^ kind) * MIX_FORM
    key = (mixed ^ np.uint64(flow["client"] + 1)) * MIX_FORM
    place = np.int64(key >> PLACE_BITS) & (len(state.siblings) - 1)
    kept = state.siblings[place]
    sums(state.sibling_windows[place], ts, WEEK, total)
    if kept["key"] != key or total[NAMES] <= 0:
        kept["key"], kept["label"], kept["domains"], kept["ts"] = key, 0, 0, -math.inf
        kept["client"] = flow["client"]
        empty_windows(state.sibling_windows[place])
    return int(place)


@kernel_in_place
def _sibling_part(asked: Asked, i: int, flow: Any, amounts: NDArray[np.float32], by: Measures) -> float:
    """What a new name counts among its siblings, 0 to 1. The first below a domain counts 0.

    Of types that carry text, which few benign clients ask for, a name counts by what it carries, encoded or not.
    """
    if CARRYING[asked.qtype[i]] and flow["names"] > 1 and amounts[INFORMATION] >= SCATTERED_BYTES_A_NAME:
        return 1.0
    if flow["encoded_names"] <= 1 or amounts[ENCODED] < by.rules[FRESH_BYTES_AT]:
        return 0.0
    return float(min(amounts[ENCODED] / SCATTERED_BYTES_A_NAME, 1.0))


@kernel_in_place
def siblings(
    state: State,
    asked: Asked,
    i: int,
    flow: Any,
    young: bool,
    by: Measures,
    told: Told,
    evidence: Any,
) -> None:
    """Evidence from new names of one form and type below several young domains of a client. young: this domain is.

    The first such name below each domain is left out (a page loads one keyed host from each of many third parties), and
    so are a label that the client just asked for below another domain (lists of hashes), and bursts. An encoded one of
    less than SCATTERED_BYTES_A_NAME counts in proportion. What one domain has half of is that domain's.
    """
    ts, part = asked.ts[i], told.part
    counted = _sibling_part(asked, i, flow, told.amounts, by) if young else 0.0
    if counted == 0:
        return
    place = _sibling(state, asked, i, flow, ts, by.total)
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
    part[NAMES], part[ENCODED_NAMES] = 1.0, counted
    add(windows, ts, part)
    domains = crowd_of(kept["domains"])
    below = flow["names"] if CARRYING[asked.qtype[i]] else flow["encoded_names"]
    if domains < SIBLING_DOMAINS or below <= SCATTERED_NAMES or flow["windows"] == NONE:
        return
    times = crowd(state.clients[flow["client"]])
    for number in range(COUNT):
        sums(state.windows[flow["windows"]], ts, number, by.total)
        own_names = by.total[NAMES]
        sums(windows, ts, number, by.total)
        if PART * own_names <= by.total[NAMES]:
            limit = by.limits[BY_SIBLINGS, number] * times
            louder(evidence, limit, BY_SIBLINGS, number, by.total[ENCODED_NAMES], by.total[NAMES], int(domains))
            if by.total[ENCODED_NAMES] >= limit * by.rules[FACTOR_AT]:  # whatever else is louder
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


NUMBERED_SHARE = 1 / 8
"""How much of a numbered name counts below all young domains together, beyond the first bytes of its domain: mail
servers look up the hosts of strangers, many below each provider's domain."""


@kernel_in_place
def below_young(
    evidence: Any,
    ts: float,
    sum_: Any,
    flow: Any,
    client: Any,
    windows: NDArray[Any],
    by: Measures,
) -> None:
    """Evidence from what young domains carry together. What one domain has half of is that domain's."""
    if sum_["windows"] == NONE:
        return
    times = crowd(client)
    for number in range(COUNT):
        carried, plain, ordered = flow["single"][INFORMATION], flow["single"][UNNUMBERED], flow["single"][CHOICE]
        if flow["windows"] != NONE:
            sums(windows[flow["windows"]], ts, number, by.total)
            carried, plain, ordered = by.total[INFORMATION], by.total[UNNUMBERED], by.total[CHOICE]
        words = plain + NUMBERED_SHARE * (carried - plain)
        sums(windows[sum_["windows"]], ts, number, by.total)
        if PART * words < by.total[INFORMATION]:
            louder(
                evidence, by.limits[BY_WORDS, number] * times, BY_WORDS, number, by.total[INFORMATION], by.total[NAMES]
            )
        if PART * ordered < by.total[ORDERED]:
            louder(
                evidence, by.limits[BY_ORDERED, number] * times, BY_ORDERED, number, by.total[ORDERED], by.total[NAMES]
            )


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
def beacon(
    evidence: Any,
    ts: float,
    flow: Any,
    windows: NDArray[Any],
    details: NDArray[Any],
    by: Measures,
) -> None:
    """Evidence from new names at a machine's pace, whatever they carry: just at its limit. Its amount is the pace, in
    seconds."""
    pace_s = flow["pace"] / PACE_STEPS
    if flow["windows"] == NONE or not BEACON_FASTEST_S <= pace_s <= BEACON_SLOWEST_S:
        return
    if flow["swing"] > BEACON_SWING * flow["pace"]:
        return
    sums(windows[flow["windows"]], ts, HOUR, by.total)
    limit = by.limits[BY_BEACON, HOUR] * by.rules[FACTOR_AT]
    if by.total[NAMES] >= limit:
        evidence["ratio"], evidence["amount"], evidence["limit"] = 1.0, pace_s, limit
        evidence["names"], evidence["domains"] = round(by.total[NAMES]), 1
        evidence["kind"], evidence["window"], evidence["sign"] = BY_BEACON, HOUR, _second_sign(flow, details)


POLL_FASTEST_S = 3.0
"""Faster queries for text are a page's, or a download, which is found by its bytes."""


@kernel_in_place
def polls(evidence: Any, flow: Any, by: Measures) -> None:
    """Evidence from queries for text at a machine's pace, new names or known ones: just at its limit, unless something
    is there already. Its amount is the pace, in seconds."""
    limit = by.limits[BY_POLLS, DAY] * by.rules[FACTOR_AT]
    if evidence["ratio"] >= 1 or flow["polls"] < limit or flow["poll_pace"] < POLL_FASTEST_S * PACE_STEPS:
        return
    if flow["poll_swing"] <= BEACON_SWING * flow["poll_pace"]:
        evidence["ratio"], evidence["amount"], evidence["limit"] = 1.0, flow["poll_pace"] / PACE_STEPS, limit
        evidence["names"], evidence["domains"], evidence["sign"] = flow["polls"], 1, 0
        evidence["kind"], evidence["window"] = BY_POLLS, DAY
