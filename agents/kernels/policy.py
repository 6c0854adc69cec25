"""The limit that a flow is nearest to, or furthest beyond; agents/policy.py says what the limits are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel_in_place
from agents.kernels.crowd import crowd
from agents.kernels.state import (
    ANSWERS,
    CHOICE,
    ENCODED,
    ENCODED_NAMES,
    INFORMATION,
    NAMES,
    NONE,
    SHARING_MAX,
    SUMS,
    WINDOWS_S,
    Kind,
)
from agents.kernels.windows import COUNT, sums

DAY = WINDOWS_S.index(86_400)

(
    BY_INFORMATION,
    BY_ENCODED,
    BY_ANSWERS,
    BY_FRESH,
    BY_SPREAD,
    BY_SPREAD_FRESH,
    BY_SCATTERED,
    BY_CHOICE,
) = (int(kind) for kind in Kind if kind != Kind.SECRET)
SPARED_BYTES, SPARED_NAMES = len(Kind), len(Kind) + 1
"""Rows of `limits` below the kinds': what each carrier may carry before it adds to its client's sum."""
LIMIT_ROWS = len(Kind) + 2
SPARED_DOMAINS = 20
"""Domains of one client that are spared it at a time, at most."""
PART = 2
"""Part of the mean, as its divisor, from which a carrier has its part in what several carried; and how many times over
the limit that must be for every carrier to have it."""
MIN_NAMES_AT, FRESH_BYTES_AT, FRESH_ENCODED_AT, FRESH_NAME_AT, FACTOR_AT, SCATTERED_AT, QUIET_AT = range(7)
"""Places in `rules`, which agents/policy.py fills."""
RULES = 7


@kernel_in_place
def clear(evidence: Any) -> None:
    """No evidence."""
    evidence["ratio"], evidence["amount"], evidence["limit"] = 0.0, 0.0, 0.0
    evidence["names"], evidence["domains"], evidence["kind"], evidence["window"] = 0, 1, 0, 0


@kernel_in_place
def _louder(evidence: Any, limit: float, kind: int, number: int, amount: float, names: float, domains: int = 1) -> None:
    """Keep this instead, where it is further beyond its limit; inf = none."""
    if amount / limit <= evidence["ratio"]:
        return
    evidence["ratio"], evidence["amount"], evidence["limit"] = amount / limit, amount, limit
    evidence["names"], evidence["domains"] = round(names), domains
    evidence["kind"], evidence["window"] = kind, number


@kernel_in_place
def is_fresh(flow: Any, rules: NDArray[np.float64]) -> bool:
    """Whether a flow is little else than encoded names, each asked for once."""
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
    """Evidence of what one flow carried. total: shape (SUMS,), overwritten."""
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
        _louder(evidence, limits[BY_ANSWERS, number], BY_ANSWERS, number, total[ANSWERS], names)
        _louder(evidence, limits[BY_CHOICE, number], BY_CHOICE, number, total[CHOICE], names)
        if not enough:
            continue
        _louder(evidence, limits[BY_INFORMATION, number], BY_INFORMATION, number, total[INFORMATION], names)
        _louder(evidence, limits[BY_ENCODED, number], BY_ENCODED, number, total[ENCODED], names)
        if fresh:
            amount = _short(total, rules)
            _louder(evidence, limits[BY_FRESH, number], BY_FRESH, number, amount, names)


@kernel_in_place
def _short(total: NDArray[np.float64], rules: NDArray[np.float64]) -> float:
    """Names that carry enough."""
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
    """Evidence of what several carriers carried: found = (sum, the part of it that is spared, how many, loud ones)."""
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
    """Evidence of what a client's carriers (State.carriers), those not incidents by themselves, carried together.

    Each counts with what it carried beyond what any domain may (SPARED_BYTES, SPARED_NAMES). It is evidence against a
    flow that carried its part of it, half of the mean: not against what else the client happens to ask for.
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
    """The carriers that carried most, those not incidents by themselves, loudest first. out: shape (SHARING_MAX,)."""
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
