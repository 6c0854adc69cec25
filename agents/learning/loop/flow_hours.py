"""A flow-hour: what one client did below one domain in one hour, as numbers.

Counters of a flow only grow, so an hour is the difference between two readings of them; what windows hold for an hour
is read as it is. Nothing is computed per query.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import keyed_hash
from agents.core.npz import FormatError, read_npz
from agents.core.types import DAY_S, HOUR_S
from agents.detection.counting.flow_kernels import (
    CARRYING,
    CROWD_DOMAINS,
    CROWD_MAX,
    FAMILIAR_CLIENTS,
    YOUNG_S,
    crowd_of,
)
from agents.detection.counting.order_kernels import PACE_STEPS
from agents.detection.evidence_kernels import (
    BEACON_FASTEST_S,
    BEACON_SLOWEST_S,
    BEACON_SWING,
    POLL_FASTEST_S,
    SIBLING_DOMAINS,
    SPARED_BYTES,
    SPARED_DOMAINS,
    SPARED_NAMES,
)
from agents.detection.flows import Flows
from agents.detection.limits import (
    FRESH_BYTES_A_NAME,
    FRESH_ENCODED_SHARE,
    FRESH_NAME_SHARE,
    MIN_NAMES,
    SCATTERED_DOMAINS,
    Limits,
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
    UNNUMBERED,
    WINDOWS_S,
    Kind,
)
from agents.dns.name import domain_text, to_text
from agents.store.feedback.flow_hours import FlowHours

SCHEMA = 3
"""Version of NUMBERS. Whoever changes their meaning, order or number raises it: no two versions are ever mixed."""
NUMBERS = (
    "queries",  # in this hour, as all that follow unless they say otherwise
    "names",  # new ones
    "encoded_names",
    "information_bytes",
    "encoded_bytes",
    "encoded_share",  # of information_bytes
    "new_share",  # names a query
    "unnumbered_bytes",
    "choice_bytes",  # in the choice of record types and the order of known names
    "answer_bytes",  # new data in answers that count for a limit
    "bytes_in",  # all new data in answers
    "types",  # different query types since the flow began
    "carrying_share",  # of queries since then whose type's answer holds text or names
    "empty_answers",  # since then, at most 65,535
    "pace_s",  # between new names, smoothed; 0 = unknown
    "swing_share",  # deviation of that, as a share of it
    "domain_clients",  # clients that ask below the domain
    "domain_age_days",  # since the first query below it
    "client_domains",  # below which the client asked on its last day
    "peak_today",  # highest evidence of its day, times the limit
    "ratio_information",  # times the limit at the end of the hour, in the window nearest to its limit
    "ratio_encoded",
    "ratio_answers",
    "ratio_choice",
    "ratio_young",  # 0 below a domain that is old and common here
    "ratio_fresh",  # encoded names, whether the flow is fresh or not
    "ratio_beacon",  # names in the hour, where they come at a machine's pace below a young or rare domain; else 0
    "ratio_polls",  # the same of queries for text
    "ratio_spread",  # sums of its client over domains from here on, 0 where this flow has no part in them: carriers
    "ratio_spread_fresh",
    "ratio_scattered",  # names below domains of one or two encoded names each
    "ratio_words",  # … below young or rare domains, as what follows
    "ratio_first",
    "ratio_ordered",
    "ratio_siblings",  # names of one form below several of these domains
)
"""What a flow-hour holds, in its order."""
LIMITED = (
    (Kind.INFORMATION, INFORMATION),
    (Kind.ENCODED, ENCODED),
    (Kind.ANSWERS, ANSWERS),
    (Kind.CHOICE, CHOICE),
    (Kind.YOUNG, UNNUMBERED),
    (Kind.FRESH, ENCODED_NAMES),
)
"""Limits on one sum of a flow, in the order of NUMBERS, each with the sum that it compares."""
SHARED = (
    Kind.SPREAD,
    Kind.SPREAD_FRESH,
    Kind.SCATTERED,
    Kind.WORDS,
    Kind.FIRST,
    Kind.ORDERED,
    Kind.SIBLINGS,
)
"""Limits on sums of a client over domains, in the order of NUMBERS. A secret has no number: it is there or not."""
_SUMMED = ((Kind.SCATTERED, ENCODED), (Kind.WORDS, INFORMATION), (Kind.FIRST, FIRST), (Kind.ORDERED, ORDERED))
"""Limits on the sums of a client's flow of scattered names, each with its sum."""
COUNTERS = ("queries", "names", "encoded_names", "leaked", "encoded", "bytes_in")
"""Fields of a flow that only grow."""
HOUR, DAY = WINDOWS_S.index(HOUR_S), WINDOWS_S.index(DAY_S)
HOUR_ROWS_MAX = 5_000
"""Flow-hours that one hour gives, of all detectors, at most: half of them those nearest to a limit, half at random."""
NAMES_SHOWN = 4
"""Sample names of a flow-hour."""
READING_MAX = 1 << 29
"""Bytes of a saved reading, at most."""


class CounterReading(NamedTuple):
    """COUNTERS of flows at the beginning of an hour. Shapes (n,) and (n, 6)."""

    hour: int  # since 1970-01-01
    marks: NDArray[np.uint64]  # of client and domain, ascending
    counters: NDArray[np.float64]

    def dump(self) -> bytes:
        """The reading as a file."""
        out = io.BytesIO()
        np.savez(out, hour=np.array([self.hour], np.int64), marks=self.marks, counters=self.counters)
        return out.getvalue()


def load_reading(data: bytes) -> CounterReading:
    """A reading from a file. Raises FormatError."""
    arrays = read_npz(data, READING_MAX)
    hour, marks, counters = (arrays.get(name, np.empty(0)) for name in CounterReading._fields)
    shapes = hour.shape == (1,) and counters.shape == (*marks.shape, len(COUNTERS)) and marks.ndim == 1
    if not shapes or (hour.dtype.str, marks.dtype.str, counters.dtype.str) != ("<i8", "<u8", "<f8"):
        raise FormatError("it is no reading of flows")
    return CounterReading(int(hour[0]), marks, counters)


@dataclass(frozen=True, slots=True)
class FlowCopy:
    """All that a reading needs of n flows; `active`: rows with a query since the hour began, m of them."""

    key: tuple[int, int]
    clients: Mapping[int, str]  # by row of client_rows
    client_rows: NDArray[Any]
    client: NDArray[np.int32]
    domain: NDArray[np.uint64]
    first_seen: NDArray[np.float64]
    counters: NDArray[np.float64]  # shape (n, 6)
    active: NDArray[np.int64]
    flows: NDArray[Any]  # of `active`
    windows: NDArray[Any]  # the same; of a flow without windows anything
    details: NDArray[Any]  # the same; of a flow without details anything
    samples: Sequence[tuple[tuple[bytes, int], ...]]
    sharing: NDArray[Any]  # flows that add to a client's sums over domains, of the active ones' clients
    sharing_windows: NDArray[Any]
    siblings: NDArray[Any]  # state.SIBLINGS of the same clients
    sibling_windows: NDArray[Any]
    known: NDArray[Any]  # state.FAMILIAR of all domains: of several detectors, what the network knows of them


def copied_flows(flows: Flows, since: float, below: NDArray[np.uint64] | None = None) -> FlowCopy:
    """A copy of the flows. The caller sees to it that nothing is judged meanwhile.

    since: of the active ones' last query, Unix seconds. below: domains (keyed hashes); None = all.
    """
    state = flows.state
    rows = np.array(flows.rows(lambda found: _wanted(found, below)), np.int64)
    table = state.flows
    active = np.flatnonzero(table["last_seen"][rows] >= since)
    mine = table[rows[active]]
    sharing = np.array(flows.rows(_shares), np.int64)
    sharing = sharing[np.isin(table["client"][sharing], mine["client"])]
    kin = np.flatnonzero((state.siblings["key"] != 0) & np.isin(state.siblings["client"], mine["client"]))
    return FlowCopy(
        key=flows.key,
        clients={row: client for client, row in flows.clients.items()},
        client_rows=state.clients.copy(),
        client=table["client"][rows],
        domain=table["domain"][rows],
        first_seen=table["first_seen"][rows],
        counters=np.stack([table[name][rows].astype(np.float64) for name in COUNTERS], axis=1),
        active=active,
        flows=mine,
        windows=state.windows[np.maximum(mine["windows"], 0)],
        details=state.details[np.maximum(mine["detail"], 0)],
        samples=[flows.samples.get(at, ()) for at in mine["detail"].tolist()],
        sharing=table[sharing],
        sharing_windows=state.windows[np.maximum(table["windows"][sharing], 0)],
        siblings=state.siblings[kin],
        sibling_windows=state.sibling_windows[kin],
        known=state.familiar[state.familiar["domain"] != 0],
    )


def _shares(found: NDArray[np.void]) -> NDArray[np.bool_]:
    shares: NDArray[np.bool_] = (found["scattered"] != 0) | ((found["carrier"] != 0) & (found["alone"] == 0))
    return shares


def _wanted(found: NDArray[np.void], below: NDArray[np.uint64] | None) -> NDArray[np.bool_]:
    own: NDArray[np.bool_] = found["scattered"] == 0
    return own if below is None else own & np.isin(found["domain"], below)


def reading_of_counters(copy: FlowCopy, hour: int) -> CounterReading:
    """The counters at the beginning of an hour."""
    marks = _marks(copy)
    order = np.argsort(marks, kind="stable")
    return CounterReading(hour, marks[order], copy.counters[order])


def _marks(copy: FlowCopy) -> NDArray[np.uint64]:
    """Client and domain of each flow in one number: what rows are called may change, this stays after a restart."""
    by_row = np.zeros(len(copy.client_rows) + 1, np.uint64)
    for row, client in copy.clients.items():
        by_row[row] = keyed_hash(client.encode("utf-8", "surrogatepass"), copy.key)
    marks: NDArray[np.uint64] = copy.domain ^ (by_row[copy.client] << np.uint64(1))
    return marks


def flow_hours(
    copy: FlowCopy,
    before: CounterReading,
    hour: int,
    limits: Limits,
    factor: float,
    domains: Mapping[int, str],
    draw: np.random.Generator,
    rows_max: int = HOUR_ROWS_MAX,
) -> FlowHours:
    """The flow-hours of an hour that is over.

    before: the counters when it began; a flow that they lack began within it. domains: text of a domain by its keyed
    hash; of a flow whose domain is not among them, as after a restart, the sample names say it. A flow that has none,
    and one without a query in the hour, are left out. Of more than `rows_max` flow-hours some are drawn.
    """
    numbers = flow_numbers(copy, before, hour, (hour + 1) * float(HOUR_S), limits, factor)
    keys = copy.flows["domain"].tolist()
    texts = [domains.get(key) or _sampled(samples) for key, samples in zip(keys, copy.samples, strict=True)]
    clients = [copy.clients.get(row, "") for row in copy.flows["client"].tolist()]
    named = [bool(domain and client) for domain, client in zip(texts, clients, strict=True)]
    rows = _drawn(np.flatnonzero(np.array(named, np.bool_) & (numbers[:, 0] > 0)), numbers, draw, rows_max)
    return FlowHours(
        schema=SCHEMA,
        hour=np.full(len(rows), hour, np.int64),
        client=[clients[at] for at in rows.tolist()],
        domain=[texts[at] or "" for at in rows.tolist()],
        names=[tuple(to_text(wire) for wire, _ in copy.samples[at][:NAMES_SHOWN]) for at in rows.tolist()],
        numbers=numbers[rows],
    )


def _sampled(samples: Sequence[tuple[bytes, int]]) -> str:
    return domain_text(samples[0][0].lower()) if samples else ""


def _drawn(
    rows: NDArray[np.int64], numbers: NDArray[np.float32], draw: np.random.Generator, rows_max: int
) -> NDArray[np.int64]:
    if len(rows) <= rows_max:
        return rows
    loudness = numbers[rows, NUMBERS.index("peak_today") :].max(axis=1)
    order = rows[np.argsort(-loudness, kind="stable")]
    loud, rest = order[: rows_max // 2], order[rows_max // 2 :]
    return np.sort(np.concatenate([loud, draw.choice(rest, rows_max - len(loud), replace=False)]))


def flow_numbers(
    copy: FlowCopy, before: CounterReading, hour: int, end: float, limits: Limits, factor: float
) -> NDArray[np.float32]:
    """NUMBERS of the active flows at a time (Unix seconds), as a rule the end of their hour. Shape (m, 35)."""
    flows = copy.flows
    queries, names, encoded_names, leaked, encoded, bytes_in = _grown(copy, before).T
    sums = _sums(copy.windows, flows["windows"], end)
    single = (flows["windows"] == NONE) & (flows["single_ts"] >= hour * HOUR_S)
    within = np.where(single[:, None], flows["single"], sums[:, HOUR])
    counts, carries = copy.details["count"], CARRYING[copy.details["qtype"]]
    counts = np.where((flows["detail"] == NONE)[:, None], 0, counts)
    clients, age = _prevalence(copy, end)
    pace = flows["pace"].astype(np.float64)
    young = (clients < FAMILIAR_CLIENTS) | (age < YOUNG_S)
    today = flows["peak_day"] == int((end - 1) // DAY_S)
    columns = (
        *(queries, names, encoded_names, leaked, encoded),
        *(encoded / np.maximum(leaked, 1e-9), names / np.maximum(queries, 1.0)),
        *(within[:, UNNUMBERED], within[:, CHOICE], within[:, ANSWERS], bytes_in),
        *((counts > 0).sum(axis=1), (counts * carries).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)),
        *(flows["empty"], pace / PACE_STEPS, flows["swing"] / np.maximum(pace, 1.0)),
        *(clients, age / DAY_S, copy.client_rows["today"][flows["client"]]),
        np.where(today, flows["peak"], 0.0) / factor,
        *_ratios(copy, sums, limits, factor, young),
        *_paced(flows, sums, limits, factor, young),
        *_shared(copy, end, limits, factor, young),
    )
    return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)


def _grown(copy: FlowCopy, before: CounterReading) -> NDArray[np.float64]:
    """What COUNTERS of the active flows grew by. Shape (m, 6)."""
    now = copy.counters[copy.active]
    if not len(before.marks):
        return now
    marks = _marks(copy)[copy.active]
    at = np.minimum(np.searchsorted(before.marks, marks), len(before.marks) - 1)
    known = np.equal(before.marks[at], marks)
    was = np.where(known[:, None], before.counters[at], 0.0)
    began_anew = np.any(now < was, axis=1)  # it was dropped and made again within the hour
    return np.where(began_anew[:, None], now, now - was)


def _sums(windows: NDArray[Any], rows: NDArray[np.int32], ts: float) -> NDArray[np.float64]:
    """What flow_kernels.sums gives at a time, for n flows and all windows; rows: NONE = it has no windows.

    Shape (n, windows, SUMS).
    """
    seconds = np.array(WINDOWS_S, np.float64)
    bucket = np.floor(ts / seconds).astype(np.int64)
    behind = bucket - windows["bucket"]
    left = np.where(behind <= 0, np.clip(1 - (ts / seconds - windows["bucket"]), 0.0, 1.0), 1 - (ts / seconds - bucket))
    now = np.where((behind <= 0)[:, :, None], windows["now"], 0.0)
    last = np.where((behind <= 0)[:, :, None], windows["before"], windows["now"])
    last = np.where((behind <= 1)[:, :, None], last, 0.0)
    found: NDArray[np.float64] = now + left[:, :, None] * last
    return np.where((rows == NONE)[:, None, None], 0.0, found)


def _prevalence(copy: FlowCopy, ts: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of the active flows' domains: clients that ask below them, and seconds since the first query.

    Over all detectors, as judging has it. What the network has not heard yet, or has no room for, these flows say.
    """
    domains, place, clients = np.unique(copy.domain, return_inverse=True, return_counts=True)
    first = np.full(len(domains), np.inf)
    np.minimum.at(first, place, copy.first_seen)
    _, at, there = np.intersect1d(domains, copy.known["domain"], return_indices=True)
    clients[at] = np.maximum(clients[at], copy.known["clients"][there])
    first[at] = np.minimum(first[at], copy.known["first_seen"][there])
    mine = place[copy.active]
    return clients[mine], np.maximum(ts - first[mine], 0.0)


def _ratios(
    copy: FlowCopy, sums: NDArray[np.float64], limits: Limits, factor: float, young: NDArray[np.bool_]
) -> list[NDArray[np.float64]]:
    """How many times over each of LIMITED a flow is, in its worst window."""
    enough = (copy.flows["names"] >= MIN_NAMES).astype(np.float64)
    found = []
    for kind, sum_ in LIMITED:
        worst = (sums[:, :, sum_] / (limits.table[kind] * factor)).max(axis=1, initial=0.0)
        holds = 1.0 if kind in (Kind.ANSWERS, Kind.CHOICE) else enough
        found.append(worst * holds * (young if kind == Kind.YOUNG else 1.0))
    return found


def _paced(
    flows: NDArray[Any], sums: NDArray[np.float64], limits: Limits, factor: float, young: NDArray[np.bool_]
) -> list[NDArray[np.float64]]:
    """How many times over the limits on names, and on queries for text, at a machine's pace a flow is."""
    pace, polled = flows["pace"].astype(np.float64), flows["poll_pace"].astype(np.float64)
    even = (pace >= BEACON_FASTEST_S * PACE_STEPS) & (pace <= BEACON_SLOWEST_S * PACE_STEPS)
    even &= (flows["swing"] <= BEACON_SWING * pace) & young
    polls = (polled >= POLL_FASTEST_S * PACE_STEPS) & (flows["poll_swing"] <= BEACON_SWING * polled) & young
    names = sums[:, HOUR, NAMES] / (limits.table[Kind.BEACON, HOUR] * factor)
    return [names * even, flows["polls"] / (limits.table[Kind.POLLS, DAY] * factor) * polls]


def _shared(
    copy: FlowCopy, ts: float, limits: Limits, factor: float, young: NDArray[np.bool_]
) -> list[NDArray[np.float64]]:
    """How many times over each of SHARED the client of a flow is, where the flow may have a part in it."""
    by_client, flows = _of_clients(copy, ts, limits, factor), copy.flows
    carries = (flows["carrier"] != 0) & (flows["alone"] == 0)
    parts = {Kind.SPREAD: carries, Kind.SPREAD_FRESH: carries, Kind.SCATTERED: flows["encoded_names"] > 0}
    return [by_client[kind][flows["client"]] * parts.get(kind, young) for kind in SHARED]


def _of_clients(copy: FlowCopy, ts: float, limits: Limits, factor: float) -> dict[Kind, NDArray[np.float64]]:
    """Of each client, how many times over each of SHARED it is, in its worst window: evidence_kernels.shared, own,
    below_young and siblings, without what they ask of one flow's part in the sum. Shapes (rows of clients + 1,)."""
    size = len(copy.client_rows) + 1  # the last one: of flows without a client
    asked = np.maximum(copy.client_rows["today"], copy.client_rows["yesterday"])
    times = np.append(np.clip(asked / CROWD_DOMAINS, 1.0, CROWD_MAX), 1.0)
    found = {kind: np.zeros(size) for kind in SHARED}
    flows, sums = copy.sharing, _sums(copy.sharing_windows, copy.sharing["windows"], ts)
    clients = np.where(flows["client"] < 0, size - 1, flows["client"])
    is_sum = flows["scattered"] != 0
    for kind, sum_ in _SUMMED:
        worst = (sums[:, :, sum_] / (limits.table[kind] * factor)).max(axis=1, initial=0.0) * is_sum
        worst *= (flows["encoded_names"] >= SCATTERED_DOMAINS) if kind is Kind.SCATTERED else 1.0
        np.maximum.at(found[kind], clients, worst / times[clients])
    encoded = np.maximum(sums[:, :, ENCODED], 0) * ~is_sum[:, None]
    fresh = flows["encoded_names"] >= FRESH_ENCODED_SHARE * np.maximum(flows["names"], 1)
    fresh &= flows["names"] >= FRESH_NAME_SHARE * np.maximum(flows["queries"], 1)
    short = np.minimum(sums[:, :, ENCODED_NAMES], encoded / FRESH_BYTES_A_NAME) * (fresh & ~is_sum)[:, None]
    for kind, amounts, row in ((Kind.SPREAD, encoded, SPARED_BYTES), (Kind.SPREAD_FRESH, short, SPARED_NAMES)):
        for number in np.flatnonzero(np.isfinite(limits.table[kind])).tolist():
            spare, each = limits.table[row, number], amounts[:, number]
            total, count = np.bincount(clients, each, size), np.bincount(clients, each > 0, size)
            spared = np.bincount(clients, np.minimum(each, spare), size)
            above = (total - np.minimum(spared, SPARED_DOMAINS * spare * times)) * (count > 1)
            np.maximum(found[kind], above / (limits.table[kind, number] * times * factor), out=found[kind])
    _add_siblings(found[Kind.SIBLINGS], copy, ts, limits.table[Kind.SIBLINGS] * factor, times)
    return found


def _add_siblings(
    found: NDArray[np.float64], copy: FlowCopy, ts: float, bounds: NDArray[np.float64], times: NDArray[np.float64]
) -> None:
    clients = copy.siblings["client"]
    domains = np.array([crowd_of(cells) for cells in copy.siblings["domains"]])
    sums = _sums(copy.sibling_windows, np.zeros(len(clients), np.int32), ts)
    worst = (sums[:, :, ENCODED_NAMES] / bounds).max(axis=1, initial=0.0)
    np.maximum.at(found, clients, worst / times[clients] * (domains >= SIBLING_DOMAINS))
