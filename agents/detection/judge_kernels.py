"""The hot loop: counts every query of a batch for its flow, and finds the limit nearest to the flow, or exceeded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.core.types import DAY_S
from agents.detection.counting.flow_kernels import (
    ANY,
    AT_HOME,
    BY_THEMSELVES,
    CARRIER_NAMES,
    CARRIERS,
    DETAILS,
    ELSEWHERE,
    EVENTS,
    FAMILIAR,
    FAMILIAR_MAX,
    FLOWS,
    LIVE,
    OF_NETWORK,
    PEAKS,
    SENDS,
    SENT_WINDOWS,
    answers,
    crowd_of,
    enlist_carrier,
    familiar_factor,
    find_flow,
    greet,
    is_full,
    is_strange,
    is_young,
    keep,
    make,
    meet,
    note_asker,
    pointing,
    price,
)
from agents.detection.counting.order_kernels import STAYED, TEXT, UNKEPT, USUAL, choice, keep_pace, keep_polls, order
from agents.detection.counting.seen_kernels import POOL, POOL_MAX, ROW_WORDS
from agents.detection.counting.window_kernels import (
    WINDOW_ROWS,
    note,
    settle,
    sums,
    take_back,
    take_sum_back,
    take_words_back,
)
from agents.detection.evidence_kernels import (
    BURST_S,
    BY_BEACON,
    BY_POLLS,
    BY_SPREAD,
    BY_SPREAD_FRESH,
    DAY,
    FACTOR_AT,
    NUMBERED_SHARE,
    QUIET_AT,
    SCATTERED_BYTES_A_NAME,
    SCATTERED_NAMES,
    SPARED_BYTES,
    WORDS_SPARED_AT,
    Measures,
    beacon,
    below_young,
    clear_evidence,
    loudest,
    own,
    polls,
    shared,
    siblings,
)
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
    SHORT_MAX,
    SUMS,
    UNNUMBERED,
    WATCHED,
    Asked,
    Named,
    Room,
    Scope,
    State,
    Stop,
    Told,
)

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
REVERSE = int(Scope.REVERSE)
NAMED, NAMELESS = int(Named.NAMED), int(Named.NAMELESS)
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
def grown(network: State, row: int) -> float:
    """How many times the limits of one client hold for one of the network's flows, by its clients at home here."""
    return 1 + CLIENT_SHARE * max(crowd_of(network.askers[row, AT_HOME]) - 1, 0.0)


@kernel_in_place
def _tell(state: State, asked: Asked, i: int, row: int, evidence: Any, fresh: bool, secret: bool, told: Told) -> None:
    """Emit an event for a query that may open or extend an incident, with the present state of its flow.

    A flow that is odd by its pace alone is not watched, and one that a learnt model listed is only followed: what it
    carries would begin anew after each pause.
    """
    flow, reached = state.flows[row], evidence["ratio"] >= 1 or secret
    paced = evidence["sign"] == 0 and (evidence["kind"] == BY_BEACON or evidence["kind"] == BY_POLLS)
    if not paced and (reached or flow["watched"] == WATCHED):
        flow["watched"] = WATCHED
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
    if flow["windows"] != NONE and not flow["scattered"]:
        sums(state.windows[flow["windows"]], asked.ts[i], DAY, told.total)
        times = grown(state, row) if state.room[OF_NETWORK] else 1.0
        event["today"] = told.total[INFORMATION] * asked.discount[i] * times
    if evidence["kind"] == BY_SPREAD or evidence["kind"] == BY_SPREAD_FRESH:
        loudest(state.clients[flow["client"]], state.carriers, state.flows, event["sharing"])


@kernel_in_place
def _scatter(
    state: State,
    asked: Asked,
    i: int,
    row: int,
    home: bool,
    young: bool,
    amounts: NDArray[np.float32],
    by: Measures,
    told: Told,
    evidence: Any,
) -> None:
    """Count a query for its client's sums over domains: throw-away domains add up, and so does what young ones carry.

    A domain's encoded bytes count for that sum until it is a carrier beyond the per-domain allowance; otherwise they
    would be left out of both sums. The first bytes of information below a domain are a sum of their own; of what is
    beyond them, numbered hosts count a NUMBERED_SHARE.
    """
    flow, part = state.flows[row], told.part
    client = state.clients[flow["client"]]
    beyond = flow["encoded"] > by.limits[SPARED_BYTES, DAY] and flow["encoded_names"] >= CARRIER_NAMES
    if flow["lent"] > 0 and beyond:  # from now on it counts as a carrier
        if client["scattered"] != NONE:
            take_back(state.flows[client["scattered"]], state.windows, flow["lent"])
        flow["lent"] = 0.0
    for one in range(SUMS):
        part[one] = 0.0
    if flow["encoded_names"] <= SCATTERED_NAMES and amounts[ENCODED] >= SCATTERED_BYTES_A_NAME and not asked.scoped[i]:
        flow["lent"] += amounts[ENCODED]
        part[ENCODED], part[ENCODED_NAMES] = amounts[ENCODED], amounts[ENCODED_NAMES]
    if young and not flow["alone"]:
        part[ORDERED] = amounts[CHOICE]
        words = amounts[INFORMATION]
        beyond = max(min(words, flow["leaked"] - by.rules[WORDS_SPARED_AT]), 0.0)
        part[FIRST], part[INFORMATION] = words - beyond, beyond * (NUMBERED_SHARE if asked.digits[i] else 1.0)
    if part[ENCODED] == 0 and part[INFORMATION] == 0 and part[FIRST] == 0 and part[ORDERED] == 0:
        return
    part[NAMES] = min(amounts[NAMES], 1.0)
    if client["scattered"] == NONE:
        if is_full(state, flow["client"]):
            return
        client["scattered"] = make(state, asked.ts[i], SCATTERED_KEY, flow["client"])
        state.flows[client["scattered"]]["scattered"] = 1
    _add_up(state, asked, i, row, home, client["scattered"], part, by, told, evidence)


@kernel_in_place
def _add_up(
    state: State,
    asked: Asked,
    i: int,
    row: int,
    home: bool,
    at: int,
    part: NDArray[np.float32],
    by: Measures,
    told: Told,
    evidence: Any,
) -> None:
    """Count a part of a name in its client's sum over domains, and compare that with its limits. row: of its flow."""
    ts, sum_ = asked.ts[i], state.flows[at]
    if sum_["watched"] == WATCHED and ts - sum_["last_seen"] > by.rules[QUIET_AT]:
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
    own(evidence, ts, sum_, client, state.windows, by, True)
    if part[INFORMATION] > 0 or part[ORDERED] > 0:
        below_young(evidence, ts, sum_, state.flows[row], client, state.windows, by)
    if state.room[OF_NETWORK]:
        times = grown(state, at)
        evidence["ratio"] /= times
        evidence["limit"] *= times
    _note_peak(state, sum_, ts, evidence["ratio"], i, told)
    evidence["ratio"] /= by.rules[FACTOR_AT]
    evidence["limit"] *= by.rules[FACTOR_AT]
    if evidence["ratio"] >= 1 or sum_["watched"]:
        _tell(state, asked, i, at, evidence, new, False, told)


@kernel_in_place
def _weigh(
    state: State,
    asked: Asked,
    i: int,
    row: int,
    new: bool,
    young: bool,
    by: Measures,
    told: Told,
    evidence: Any,
) -> None:
    """Evidence of a query's flow after the query was counted. young: its domain is young or rare."""
    ts, flow = asked.ts[i], state.flows[row]
    clear_evidence(evidence)
    client = state.clients[flow["client"]]
    carries = asked.discount[i] <= 1 and not client["nobody"] and enlist_carrier(state, row)
    own(evidence, ts, flow, client, state.windows, by, young and asked.discount[i] <= 1)
    if evidence["ratio"] >= by.rules[FACTOR_AT] and not flow["alone"]:
        flow["alone"] = 1
        take_words_back(state, flow, flow["client"], by.rules[WORDS_SPARED_AT])
    if carries and not flow["alone"]:
        shared(evidence, ts, flow, client, state.carriers, state.flows, state.windows, by)
    plain = asked.discount[i] <= 1 and not (asked.scoped[i] or client["nobody"] == NAMELESS or state.room[OF_NETWORK])
    if plain and new and client["nobody"] == NAMED:
        siblings(state, asked, i, flow, young, by, told, evidence)
    _note_peak(state, flow, ts, evidence["ratio"], i, told)
    evidence["ratio"] /= by.rules[FACTOR_AT]
    evidence["limit"] *= by.rules[FACTOR_AT]
    if plain and evidence["ratio"] < 1 and is_strange(state, ts, flow["domain"]):
        if new:
            beacon(evidence, ts, flow, state.windows, state.details, by)
        polls(evidence, flow, by)
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
    order of names is the same for the network, where the queries of others come between; and where the detector that
    has heard all queries gives it.
    """
    ts, amounts, given = asked.ts[i], told.amounts, len(told.given) > 0
    for one in range(SUMS):
        amounts[one] = 0.0
    flow["queries"] += 1
    flow["last_seen"] = max(flow["last_seen"], ts)
    answered = answers(state, asked, i, flow, young) / discount
    chosen = 0.0 if given else choice(state, asked, i, flow)
    new = named and price(state, asked, i, flow, amounts)
    if given:
        flow["queries"] = max(flow["queries"], told.given[i]["queries"])
        told.ordered[0] = told.given[i]["chosen"]
        flow["leaked"] += told.ordered[0]
    elif not state.room[OF_NETWORK] or told.unheard[0]:
        told.ordered[0] = order(state, asked, i, flow, not new, chosen > 0) if young else 0.0
    else:
        flow["leaked"] += told.ordered[0]
    told.saying[0]["chosen"], told.saying[0]["queries"] = chosen + told.ordered[0], flow["queries"]
    chosen = (chosen + told.ordered[0]) / discount
    if new or answered > 0 or chosen > 0:
        if amounts[ENCODED] > 0:
            amounts[ENCODED_NAMES] = 1 / discount if abs(ts - flow["encoded_ts"]) >= BURST_S else 0.0
            flow["encoded_ts"] = ts
        amounts[INFORMATION] /= discount
        amounts[ENCODED] /= discount
        amounts[UNNUMBERED] /= discount
        amounts[NAMES] = 1.0 if new else 0.0
        amounts[ANSWERS], amounts[CHOICE] = answered, chosen
        note(flow, state.windows, state.room, ts, amounts)
    return new


@kernel_in_place
def _hear(
    network: State,
    asked: Asked,
    i: int,
    named: bool,
    young: bool,
    home: bool,
    apart: bool,
    by: Measures,
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
    if flow["watched"] == WATCHED and ts - flow["last_seen"] > by.rules[QUIET_AT]:
        settle(flow, network.windows)
    times = grown(network, row)
    new = _count(network, asked, i, flow, named, young, asked.discount[i] * times, told)
    keep(network, asked, i, row, new, told)
    if (new or amounts[CHOICE] > 0) and asked.discount[i] <= 1 and times <= 1 and not apart:
        _scatter(network, asked, i, row, home, True, amounts, by, told, evidence)
    _weigh(network, asked, i, row, new, young, by, told, evidence)


@kernel_in_place
def _judge_one(
    state: State,
    network: State,
    asked: Asked,
    i: int,
    row: int,
    by: Measures,
    together: Measures,
    told: Told,
) -> None:
    """Judge a query by its flow, and then by what all clients carry."""
    ts, amounts, evidence, flow = asked.ts[i], told.amounts, told.evidence[i], state.flows[row]
    client = state.clients[asked.client[i]]
    if flow["watched"] == WATCHED and ts - flow["last_seen"] > by.rules[QUIET_AT]:
        settle(flow, state.windows)
    told.saying[0]["meets"] = asked.scoped[i] != REVERSE and meet(client, flow, ts)
    if TEXT[asked.qtype[i]] and asked.left[i] != STAYED:
        keep_polls(flow, ts, BURST_S)
    was_alone, was_apart = flow["alone"], _is_apart(state, client)
    discount = asked.discount[i] * familiar_factor(state, ts, asked.domain[i])
    young, came_in = is_young(state, ts, asked.domain[i]), flow["bytes_in"]
    new = _count(state, asked, i, flow, True, young, discount, told)
    carried = new or flow["bytes_in"] > came_in or amounts[CHOICE] > 0
    if new:
        keep_pace(flow, ts, BURST_S)
    if asked.data[i] == 0:
        flow["empty"] = min(flow["empty"] + 1, SHORT_MAX)
    keep(state, asked, i, row, new, told)
    if (new or amounts[CHOICE] > 0) and asked.discount[i] <= 1 and not client["nobody"]:
        _scatter(state, asked, i, row, False, young, amounts, by, told, evidence)
    _weigh(state, asked, i, row, new, young, by, told, evidence)
    apart = _is_apart(state, client)
    said = told.saying[0]
    said["carries"], said["named"], said["young"], said["alone"] = carried, new, young, flow["alone"]
    said["home"] = max(client["today"], client["yesterday"]) >= AT_HOME_DOMAINS
    said["apart"] = apart or client["nobody"] == NAMELESS
    said["settles"], said["parts"] = flow["alone"] and not was_alone, apart and not was_apart
    said["ordered"], said["leaked"] = told.ordered[0], flow["leaked"]
    said["windows"] = state.flows[client["scattered"]]["windows"] if said["parts"] else NONE
    if state.room[ELSEWHERE]:
        _pass_on(state, i, told)
    else:
        tell_network(network, asked, i, said, state.windows, together, told)


@kernel_in_place
def tell_network(
    network: State, asked: Asked, i: int, said: Any, windows: NDArray[Any], by: Measures, told: Told
) -> None:
    """Count for all clients together what a query of one of them says. said: SENT; windows: what it refers to."""
    sums_at = network.clients[0]["scattered"]
    if said["parts"] and sums_at != NONE:
        take_sum_back(network.flows[sums_at], network.windows, said, windows)
    at = find_flow(network.flows, network.places, asked.domain[i], 0) if said["alone"] else NONE
    if at != NONE and said["settles"]:
        take_words_back(network, said, 0, 0.0)
        take_back(network.flows[at], network.windows, said["leaked"] / (asked.discount[i] * grown(network, at)))
        network.askers[at, BY_THEMSELVES] |= np.uint64(1) << np.uint64(asked.cell[i])
    many = at != NONE and crowd_of(network.askers[at, BY_THEMSELVES]) > BY_THEMSELVES_MAX
    if said["carries"] and (many or not said["alone"]) and asked.discount[i] <= TENANTS_FACTOR:
        _hear(network, asked, i, said["named"], said["young"], said["home"], said["apart"], by, told)


@kernel_in_place
def _pass_on(state: State, i: int, told: Told) -> None:
    """Leave what a query says to where all clients are counted, if it says anything."""
    said = told.saying[0]
    if not (said["carries"] or said["greets"] or said["meets"] or said["settles"] or said["parts"]):
        return
    said["row"], said["own_since"] = i, np.inf
    if said["windows"] != NONE:
        told.sent_windows[told.counts[SENT_WINDOWS]] = state.windows[said["windows"]]
        said["windows"] = told.counts[SENT_WINDOWS]
        told.counts[SENT_WINDOWS] += 1
    told.sent[told.counts[SENDS]] = said
    told.counts[SENDS] += 1


@kernel_in_place
def _refuse(state: State, network: State, asked: Asked, i: int, by: Measures, told: Told) -> None:
    """Count a query for whose flow there is no room for all clients together."""
    said, young = told.saying[0], is_young(state, asked.ts[i], asked.domain[i])
    if state.room[ELSEWHERE]:
        said["carries"], said["named"], said["young"], said["unheard"], said["windows"] = 1, 1, young, 1, NONE
        said["meets"] = said["home"] = said["apart"] = said["alone"] = said["settles"] = said["parts"] = 0
        said["ordered"], said["chosen"], said["queries"] = 0.0, 0.0, 0
        _pass_on(state, i, told)
        said["unheard"] = 0
        return
    told.unheard[0] = 1
    _hear(network, asked, i, True, young, False, False, by, told)
    told.unheard[0] = 0


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
    mine, everyones = Measures(limits, rules, told.total), Measures(together, rules, told.total)
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
        told.saying[0]["greets"] = 0
        if client != NONE:
            row = find_flow(state.flows, state.places, asked.domain[i], client)
            if row == NONE and is_full(state, client):
                if not state.swept[0] <= ts < state.swept[0] + SWEEP_S:
                    return SWEEP, i
            elif row == NONE:
                row = make(state, ts, asked.domain[i], client)
                greet(state, ts, asked.domain[i])
                told.saying[0]["greets"] = 1
        if row == NONE:
            state.room[REFUSED] += 1
            _refuse(state, network, asked, i, everyones, told)
        else:
            _judge_one(state, network, asked, i, row, mine, everyones, told)
    return DONE, len(asked.ts)


@kernel_in_place
def _note_visit(mirror: State, asked: Asked, i: int, said: Any) -> bool:
    """Note who asks below a domain, and which name is known from now on; False if room must be made first."""
    client, ts, domain = asked.client[i], asked.ts[i], asked.domain[i]
    if client != NONE and (said["greets"] or said["meets"] or said["named"]) and not said["unheard"]:
        row = find_flow(mirror.flows, mirror.places, domain, client)
        if row == NONE and is_full(mirror, client):
            if not mirror.swept[0] <= ts < mirror.swept[0] + SWEEP_S:
                return False
        else:
            if row == NONE:
                row = make(mirror, ts, domain, client)
                greet(mirror, ts, domain)
            flow = mirror.flows[row]
            if said["meets"]:
                meet(mirror.clients[client], flow, ts)
            flow["last_seen"] = max(flow["last_seen"], ts)
            flow["queries"] += 1
            flow["names"] += said["named"]
    if said["named"] and not said["unheard"]:
        pointing(mirror, asked, i)
    return True


@kernel_in_place
def hear(
    mirror: State,
    network: State,
    asked: Asked,
    sent: NDArray[Any],
    windows: NDArray[Any],
    together: NDArray[np.float64],
    rules: NDArray[np.float64],
    told: Told,
    start: int,
) -> tuple[int, int]:
    """Count what queries of several detectors say, from row `start` on; returns what `judge` does.

    mirror: which client asks below which domain. sent: SENT, a row for each of asked; windows: what they refer to.
    """
    by = Measures(together, rules, told.total)
    for i in range(start, len(asked.ts)):
        stop, ts, said = _lacks(network), asked.ts[i], sent[i]
        if stop == DONE and is_full(network, 0) and not network.swept[0] <= ts < network.swept[0] + SWEEP_S:
            stop = SWEEP
        if stop != DONE:
            return stop + OF_NETWORK_STOP, i
        stop = _lacks(mirror)
        if stop == DONE and not _note_visit(mirror, asked, i, said):
            stop = SWEEP
        if stop != DONE:
            return stop, i
        told.unheard[0], told.ordered[0] = said["unheard"], said["ordered"]
        tell_network(network, asked, i, said, windows, by, told)
    told.unheard[0] = 0
    return DONE, len(asked.ts)
