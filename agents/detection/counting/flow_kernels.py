"""Rows of flows, clients and domains, and the new bytes that a name or an answer carries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel, kernel_in_place, kernel_that_wraps
from agents.core.types import DAY_S
from agents.detection.counting.seen_kernels import SIZE_MIN, SKETCH, forget, remember, take_piece
from agents.detection.counting.window_kernels import WINDOW_ROWS, give_windows
from agents.detection.state import (
    CARRIERS_MAX,
    ENCODED,
    INFORMATION,
    NONE,
    QTYPES_MAX,
    SHORT_MAX,
    SUMS,
    UNNUMBERED,
    Asked,
    Room,
    State,
    Told,
)
from agents.scoring.lexical_kernels import COUNT_AT

FLOWS, FREE_FLOW, LIVE, FAMILIAR = int(Room.FLOWS), int(Room.FREE_FLOW), int(Room.LIVE), int(Room.FAMILIAR)
OF_NETWORK, ELSEWHERE = int(Room.NETWORK), int(Room.ELSEWHERE)
DETAILS, FREE_DETAIL, CARRIERS = int(Room.DETAILS), int(Room.FREE_DETAIL), int(Room.CARRIERS)
KEYS_MAX, CLIENT_MAX = int(Room.KEYS_MAX), int(Room.CLIENT_MAX)
FAMILIAR_MAX = 500_000
"""Domains in the table of familiar domains; when it is full, new domains stay unfamiliar."""
FAMILIAR_CLIENTS = 5
"""A domain is common here from this many clients on."""
FAMILIAR_AGE_S = 86_400.0
"""A domain seen for less time is new, however many clients ask for it: a campaign hits many clients in a day."""
YOUNG_S = 7 * DAY_S
"""A domain seen for less time is young."""
FAMILIAR_FACTOR = 2.0
"""How many times more an old and common domain may carry. Small, since an attacker with five clients gets it too."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, section 6.4)."""
CARRIER_NAMES = 3
"""A domain counts as a carrier from this many encoded names on: a page has one hash host, a carrier has many."""
PLACE_BITS = np.uint64(17)


@kernel_that_wraps
def _place(domain: np.uint64, client: int, length: int) -> Any:
    mixed = domain ^ (np.uint64(client + 1) * GOLDEN)
    return np.int64(mixed >> PLACE_BITS) & (length - 1)


@kernel_in_place
def find_flow(flows: NDArray[Any], index: NDArray[np.int32], domain: np.uint64, client: int) -> int:
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
def clear_flow(flow: Any) -> None:
    """A row as it is before its first query."""
    flow["encoded_ts"] = -math.inf
    flow["pace"] = flow["swing"] = flow["empty"] = flow["type_last"] = 0
    flow["polls"] = flow["poll_pace"] = flow["poll_swing"] = 0
    flow["shape"] = flow["digits"] = 0
    flow["leaked"] = flow["encoded"] = flow["single_ts"] = 0.0
    for one in range(SUMS):
        flow["single"][one] = 0.0
    flow["bytes_in"] = flow["queries"] = flow["names"] = flow["encoded_names"] = flow["seen"] = flow["size"] = 0
    flow["windows"] = flow["detail"] = flow["seen_at"] = flow["older_at"] = flow["peak_day"] = NONE
    flow["peak"] = flow["lent"] = 0.0
    flow["first_answer"] = flow["asked_last"] = flow["foretold"] = flow["types"] = 0
    flow["largest"] = 0.0
    flow["alone"] = flow["watched"] = flow["carrier"] = flow["scattered"] = 0
    flow["used"] = 1


@kernel_in_place
def make(state: State, ts: float, domain: np.uint64, client: int) -> int:
    """A new row; the caller made room for it and checked the caps."""
    row = state.room[FREE_FLOW]
    if row != NONE:
        state.room[FREE_FLOW] = state.flows[row]["seen_at"]
    else:
        row = state.room[FLOWS]
        state.room[FLOWS] += 1
    flow = state.flows[row]
    clear_flow(flow)
    if state.room[OF_NETWORK]:
        state.askers[row, :] = 0
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
    """Give back all that a flow holds; the caller must fill the index anew afterwards (enter_all)."""
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
    """Place of a domain in the table of familiar domains: its own place, or a free one."""
    mask = len(state.familiar) - 1
    place = np.int64(domain >> PLACE_BITS) & mask
    while state.familiar[place]["domain"] != 0 and state.familiar[place]["domain"] != domain:
        place = (place + 1) & mask
    return int(place)


@kernel_in_place
def greet(state: State, ts: float, domain: np.uint64) -> None:
    """Count another client that asks for a name below the domain, where that is not done elsewhere."""
    if state.room[ELSEWHERE]:
        return
    found = state.familiar[familiar_at(state, domain)]
    if found["domain"] == 0:
        if state.room[FAMILIAR] >= FAMILIAR_MAX:
            return
        found["domain"], found["first_seen"], found["clients"], found["names"] = domain, ts, 0, 0
        state.room[FAMILIAR] += 1
    found["first_seen"] = min(found["first_seen"], ts)
    found["clients"] = min(found["clients"] + 1, SHORT_MAX)


@kernel_in_place
def greet_all(state: State) -> None:
    """Count anew from the flows, after some were dropped or a snapshot was read, so that no client counts twice."""
    for place in range(len(state.familiar)):
        state.familiar[place]["domain"] = 0
    state.room[FAMILIAR] = 0
    for row in range(state.room[FLOWS]):
        flow = state.flows[row]
        if flow["used"] and not flow["scattered"]:
            greet(state, flow["first_seen"], flow["domain"])
            found = state.familiar[familiar_at(state, flow["domain"])]
            found["names"] = min(found["names"] + flow["names"], SHORT_MAX)


@kernel
def count_settled(state: State, wanted: NDArray[np.bool_], out: NDArray[np.uint8]) -> None:
    """Count the wanted clients below each domain. wanted: by row of clients; out: zeros, by place in `familiar`."""
    for row in range(state.room[FLOWS]):
        flow = state.flows[row]
        if flow["used"] and not flow["scattered"] and wanted[flow["client"]]:
            place = familiar_at(state, flow["domain"])
            if state.familiar[place]["domain"] != 0 and out[place] < 255:
                out[place] += 1


@kernel_in_place
def familiar_factor(state: State, ts: float, domain: np.uint64) -> float:
    """FAMILIAR_FACTOR for a domain that is old and common here, else 1: a carrier is new, and used by one client."""
    found = state.familiar[familiar_at(state, domain)]
    common = found["domain"] != 0 and found["clients"] >= FAMILIAR_CLIENTS
    return FAMILIAR_FACTOR if common and ts - found["first_seen"] >= FAMILIAR_AGE_S else 1.0


@kernel_in_place
def is_young(state: State, ts: float, domain: np.uint64) -> bool:
    """Whether a domain is new here, or asked for by few clients: an attacker's is one of the two."""
    found = state.familiar[familiar_at(state, domain)]
    old = found["domain"] != 0 and ts - found["first_seen"] >= YOUNG_S
    return not old or found["clients"] < FAMILIAR_CLIENTS


@kernel_in_place
def is_strange(state: State, ts: float, domain: np.uint64) -> bool:
    """Whether a domain is new here, and asked for by few clients."""
    found = state.familiar[familiar_at(state, domain)]
    return bool(found["domain"] == 0 or (ts - found["first_seen"] < YOUNG_S and found["clients"] < FAMILIAR_CLIENTS))


MIX_FOLLOWER = np.uint64(0xFF51AFD7ED558CCD)
"""Multiplier of a 64-bit mixer (Appleby's MurmurHash3, fmix64)."""
FOLLOWER_BITS = np.uint64(32)
KNOWN_NAMES_MIN = 62
"""A name that another client asked for costs the choice among so many at least: some of its domain may be forgotten."""


@kernel_in_place
def pointing(state: State, asked: Asked, i: int) -> float:
    """Bits that point at a name, if any client asked for it before, else inf; the name is known from now on."""
    name = asked.name[i]
    place = np.int64((name * MIX_FOLLOWER) >> FOLLOWER_BITS) & (len(state.heard) - 1)
    found = state.familiar[familiar_at(state, asked.domain[i])]
    if found["domain"] == 0:
        return math.inf
    if state.heard[place] == name:
        return math.log2(max(found["names"], KNOWN_NAMES_MIN) + 2)
    if state.room[ELSEWHERE]:
        return math.inf
    state.heard[place] = name
    found["names"] = min(found["names"] + 1, SHORT_MAX)
    return math.inf


@kernel_in_place
def enlist_carrier(state: State, row: int) -> bool:
    """Add a flow to its client's carriers, if it is one. Data split over domains adds up over the carriers."""
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
    """Empty all lists of carriers; a flow is listed again at its next query."""
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


CROWD_DOMAINS, CROWD_MAX = 500, 4.0
"""A client that asks below more than CROWD_DOMAINS domains in a day stands for several clients. Its limits on sums over
domains rise in proportion, at most CROWD_MAX times. Limits below one domain stay."""


@kernel_in_place
def meet(client: Any, flow: Any, ts: float) -> bool:
    """Count a domain, if it is the first time today that a client asks below it; whether it is.

    client: a row of state.CLIENT.
    """
    day = math.floor(ts / DAY_S)
    if day > client["day"]:
        client["yesterday"] = client["today"] if day == client["day"] + 1 else 0
        client["today"], client["day"] = 0, day
    if day == client["day"] and (flow["queries"] == 0 or math.floor(flow["last_seen"] / DAY_S) < day):
        client["today"] += 1
        return True
    return False


@kernel_in_place
def crowd(client: Any) -> float:
    """How many clients this one stands for, by its domains of today and yesterday; from 1 to CROWD_MAX."""
    return float(min(max(max(client["today"], client["yesterday"]) / CROWD_DOMAINS, 1.0), CROWD_MAX))


CELLS = 64
"""Places of a linear count of clients (Whang, Vander-Zanden, Taylor 1990): exact enough up to some 200."""
NO_CELLS = np.uint64(0)
ANY, AT_HOME, BY_THEMSELVES = range(3)
"""Places in State.askers: all clients that ask; those at home here; those whose own flow is an incident by itself."""
ASKERS = 3


@kernel_in_place
def note_asker(network: State, row: int, asked: Asked, i: int, home: bool) -> None:
    """Note who asks for one of the network's flows."""
    network.askers[row, ANY] |= np.uint64(1) << np.uint64(asked.cell[i])
    if home:
        network.askers[row, AT_HOME] |= np.uint64(1) << np.uint64(asked.home_cell[i])


@kernel_in_place
def crowd_of(cells: np.uint64) -> float:
    """How many different clients have set these cells, rounded."""
    free = CELLS
    while cells != NO_CELLS:
        cells &= cells - np.uint64(1)
        free -= 1
    return round(CELLS * math.log(CELLS / max(free, 1)))


SAMPLES = 24
"""How many first names of a flow are kept, with their query types: as evidence, and to recognise a tool."""
EVIDENCE_BYTES = 20.0
"""A flow that leaked less than this holds no evidence: it may be dropped for others, and keeps no samples."""
ANSWERED_BYTES = 1_000
"""A flow keeps samples from this many bytes in answers on."""
CARRYING_TYPES = (5, 10, 13, 15, 16, 25, 29, 33, 35, 37, 99, 65399)
"""Types whose answers hold text or names of the answerer's choice: CNAME, NULL, HINFO, MX, TXT, KEY, LOC, SRV, NAPTR,
CERT, SPF, and iodine's PRIVATE."""
CARRYING = np.zeros(1 << 16, np.uint8)
CARRYING[list(CARRYING_TYPES)] = 1
PLAIN_ANSWERS = 3.75
"""How many times more may come in below a domain that is old and common here, and where data of answers are unknown."""
ANSWER_FRAME = 30
"""Bytes of an answer beside the queried name and the data: header, question's end, one record's head (RFC 1035
section 4.1)."""
NO_ANSWER = np.uint64(0)
MIX_SIZE = np.uint64(0xC2B2AE3D27D4EB4F)
DIGIT_BITS = math.log2(10)
DIGITS_MASK = np.uint64((1 << COUNT_AT) - 1)
EVENTS, SAMPLES_TOLD, PEAKS, SENDS, SENT_WINDOWS = range(5)
"""Places in Told.counts."""


@kernel_in_place
def answers(state: State, asked: Asked, i: int, flow: Any, young: bool) -> float:
    """New bytes that an answer carried; the largest answer of a flow does not count, so that no single one is loud.

    Below a young or rare domain these are the data of an answer of any type that the flow has not had before. Elsewhere
    only types of text and names count. If the data are unknown, the answer's size stands for them: then it is new with
    its name, type and size.
    """
    size, key = np.int64(asked.data[i]), asked.answer[i]
    if size < 0:
        young, size = False, np.int64(asked.rlen[i]) - asked.size[i] - ANSWER_FRAME
        key = asked.name[i] ^ (np.uint64(asked.qtype[i]) * GOLDEN) ^ (np.uint64(asked.rlen[i]) * MIX_SIZE)
    if size <= 0 or not (young or CARRYING[asked.qtype[i]]) or key == flow["first_answer"]:
        return 0.0
    if flow["first_answer"] == NO_ANSWER:
        flow["first_answer"] = key
    elif not remember(flow, state.clients[flow["client"]], state.pool, state.room, key):
        return 0.0
    flow["bytes_in"] += size
    counted, flow["largest"] = min(float(size), flow["largest"]), max(float(size), flow["largest"])
    return float(counted if young else counted / PLAIN_ANSWERS)


@kernel_in_place
def _numbered(state: State, asked: Asked, i: int, flow: Any) -> float:
    """Bits of a new name that differs from earlier names of its flow only in its numbers; NONE for any other name.

    If the last numbered name has the same shape, the bits count the digits that changed, each with its place and its
    new value, and at most all digits. Otherwise they count all digits and the choice of the shape.
    """
    shape, digits = asked.shape[i], asked.digits[i]
    if digits == 0:
        return NONE
    known = not remember(flow, state.clients[flow["client"]], state.pool, state.room, shape)
    count = int(digits >> np.uint64(COUNT_AT))
    bits = count * DIGIT_BITS
    if flow["shape"] == shape:
        differ, changed = (flow["digits"] ^ digits) & DIGITS_MASK, 0
        while differ:
            changed += (differ & np.uint64(15)) != 0
            differ >>= np.uint64(4)
        bits = min(bits, max(changed, 1) * (DIGIT_BITS + math.log2(count)))
    else:
        bits += math.log2(flow["names"] + 2)
    flow["shape"], flow["digits"] = shape, digits
    return bits if known else NONE


@kernel_in_place
def price(state: State, asked: Asked, i: int, flow: Any, amounts: NDArray[np.float32]) -> bool:
    """Fill in the new bytes that a name carries; False if it was asked for before or has no label below its domain."""
    first, last = asked.parts[i], asked.parts[i + 1]
    if first == last or not remember(flow, state.clients[flow["client"]], state.pool, state.room, asked.name[i]):
        return False
    known = math.inf if state.room[OF_NETWORK] else pointing(state, asked, i)
    numbered = _numbered(state, asked, i, flow)
    information = encoded = 0.0
    for part in range(first, last):
        bits = asked.bits[part]
        if remember(flow, state.clients[flow["client"]], state.pool, state.room, asked.key[part]):
            information += bits
            encoded += bits * asked.encoded[part]
        else:  # a label seen before carries only the choice among the names so far
            information += min(bits, math.log2(flow["names"] + 2))
    if numbered >= 0:
        information, encoded = min(information, numbered), 0.0
    if known < information:
        information, encoded = known, 0.0
    amounts[INFORMATION], amounts[ENCODED] = information / 8, encoded / 8
    if numbered < 0:  # what stands beside the digits of a known shape was counted with its first name
        digits = np.int64(asked.digits[i] >> np.uint64(COUNT_AT))
        amounts[UNNUMBERED] = max(information - digits * DIGIT_BITS, 0.0) / 8
    flow["names"] += 1
    flow["encoded_names"] += encoded > 0
    flow["leaked"] += information / 8
    flow["encoded"] += encoded / 8
    return True


@kernel_in_place
def keep(state: State, asked: Asked, i: int, row: int, new: bool, told: Told) -> None:
    """Count the query's type and keep its name as a sample, for flows that carry something."""
    flow = state.flows[row]
    fresh = flow["detail"] == NONE
    if fresh:
        shows = flow["encoded_names"] > 0 or flow["leaked"] >= EVIDENCE_BYTES or flow["bytes_in"] >= ANSWERED_BYTES
        if not shows and not asked.secret[i]:
            return
    at = detail(state, row)
    kept = state.details[at]
    for place in range(QTYPES_MAX):
        if kept["count"][place] == 0:
            kept["qtype"][place] = asked.qtype[i]
        if kept["qtype"][place] == asked.qtype[i]:
            kept["count"][place] += 1
            break
    if (new or fresh) and kept["samples"] < SAMPLES:
        sample = told.samples[told.counts[SAMPLES_TOLD]]
        sample["row"], sample["detail"], sample["number"] = i, at, kept["samples"]
        sample["network"] = state.room[OF_NETWORK]
        told.counts[SAMPLES_TOLD] += 1
        kept["samples"] += 1


@kernel
def words_of(flows: NDArray[Any]) -> NDArray[np.int64]:
    """Words that the keys of each of these flows take in a copy; negative for an invalid flow."""
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
    """Copy the keys that flows remember, one flow after the other. starts: shape (n + 1,)."""
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
    """Put copied flows into an empty state that has room for all of them."""
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
        flow["seen_at"] = take_piece(state.pool, room, flow["size"])
        state.pool[flow["seen_at"] : flow["seen_at"] + piece] = keys[key : key + piece]
        flow["seen"] = 0
        for place in range(flow["seen_at"], flow["seen_at"] + piece):  # counted anew: the file's number is not trusted
            flow["seen"] += state.pool[place] != 0
        flow["older_at"] = NONE
        if words[i] > piece:
            flow["older_at"] = take_piece(state.pool, room, SKETCH)
            state.pool[flow["older_at"] : flow["older_at"] + piece] = keys[key + piece : key + words[i]]
        key += words[i]


@kernel
def roll_in(state: State, visits: NDArray[Any], clients: NDArray[np.int32]) -> None:
    """Note who asks below which domain: detector_report.VISIT; clients: their rows. There must be room for all."""
    for i in range(len(visits)):
        visit = visits[i]
        client = clients[visit["client"]]
        if client == NONE:
            continue
        row = find_flow(state.flows, state.places, visit["domain"], client)
        if row == NONE:
            if is_full(state, client):
                continue
            row = make(state, visit["first_seen"], visit["domain"], client)
        flow = state.flows[row]
        flow["first_seen"] = min(flow["first_seen"], visit["first_seen"])
        flow["last_seen"] = max(flow["last_seen"], visit["last_seen"])
        flow["names"], flow["queries"] = max(flow["names"], visit["names"]), max(flow["queries"], 1)
