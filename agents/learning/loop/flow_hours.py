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
from agents.core.types import DAY_S
from agents.detection.counting.flow_kernels import CARRYING, FAMILIAR_CLIENTS, YOUNG_S
from agents.detection.counting.order_kernels import PACE_STEPS
from agents.detection.flows import Flows
from agents.detection.limits import MIN_NAMES, Limits
from agents.detection.network import HOUR_S
from agents.detection.state import (
    ANSWERS,
    CHOICE,
    ENCODED,
    ENCODED_NAMES,
    INFORMATION,
    NONE,
    UNNUMBERED,
    WINDOWS_S,
    Kind,
)
from agents.dns.name import domain_text, to_text
from agents.store.feedback.flow_hours import FlowHours

SCHEMA = 1
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
"""Limits that a flow-hour tells its distance to, in the order of NUMBERS, each with the sum that it compares."""
COUNTERS = ("queries", "names", "encoded_names", "leaked", "encoded", "bytes_in")
"""Fields of a flow that only grow."""
HOUR = WINDOWS_S.index(HOUR_S)
HOUR_ROWS_MAX = 5_000
"""Flow-hours that one hour gives, at most: half of them those nearest to a limit, half at random."""
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


def copied_flows(flows: Flows, since: float, below: NDArray[np.uint64] | None = None) -> FlowCopy:
    """A copy of the flows. The caller sees to it that nothing is judged meanwhile.

    since: of the active ones' last query, Unix seconds. below: domains (keyed hashes); None = all.
    """
    state = flows.state
    rows = np.array(flows.rows(lambda found: _wanted(found, below)), np.int64)
    table = state.flows
    active = np.flatnonzero(table["last_seen"][rows] >= since)
    mine = table[rows[active]]
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
    )


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
) -> FlowHours:
    """The flow-hours of an hour that is over.

    before: the counters when it began; a flow that they lack began within it. domains: text of a domain by its keyed
    hash; of a flow whose domain is not among them, as after a restart, the sample names say it. A flow that has none,
    and one without a query in the hour, are left out. Of more than HOUR_ROWS_MAX flow-hours some are drawn.
    """
    numbers = flow_numbers(copy, before, hour, (hour + 1) * float(HOUR_S), limits, factor)
    keys = copy.flows["domain"].tolist()
    texts = [domains.get(key) or _sampled(samples) for key, samples in zip(keys, copy.samples, strict=True)]
    clients = [copy.clients.get(row, "") for row in copy.flows["client"].tolist()]
    named = [bool(domain and client) for domain, client in zip(texts, clients, strict=True)]
    rows = _drawn(np.flatnonzero(np.array(named, np.bool_) & (numbers[:, 0] > 0)), numbers, draw)
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


def _drawn(rows: NDArray[np.int64], numbers: NDArray[np.float32], draw: np.random.Generator) -> NDArray[np.int64]:
    if len(rows) <= HOUR_ROWS_MAX:
        return rows
    loudness = numbers[rows, NUMBERS.index("peak_today") :].max(axis=1)
    order = rows[np.argsort(-loudness, kind="stable")]
    loud, rest = order[: HOUR_ROWS_MAX // 2], order[HOUR_ROWS_MAX // 2 :]
    return np.sort(np.concatenate([loud, draw.choice(rest, HOUR_ROWS_MAX - len(loud), replace=False)]))


def flow_numbers(
    copy: FlowCopy, before: CounterReading, hour: int, end: float, limits: Limits, factor: float
) -> NDArray[np.float32]:
    """NUMBERS of the active flows at a time (Unix seconds), as a rule the end of their hour. Shape (m, 26)."""
    flows = copy.flows
    queries, names, encoded_names, leaked, encoded, bytes_in = _grown(copy, before).T
    sums = _sums(copy, end)
    single = (flows["windows"] == NONE) & (flows["single_ts"] >= hour * HOUR_S)
    within = np.where(single[:, None], flows["single"], sums[:, HOUR])
    counts, carries = copy.details["count"], CARRYING[copy.details["qtype"]]
    counts = np.where((flows["detail"] == NONE)[:, None], 0, counts)
    clients, age = _prevalence(copy, end)
    pace = flows["pace"].astype(np.float64)
    today = flows["peak_day"] == int((end - 1) // DAY_S)
    columns = (
        *(queries, names, encoded_names, leaked, encoded),
        *(encoded / np.maximum(leaked, 1e-9), names / np.maximum(queries, 1.0)),
        *(within[:, UNNUMBERED], within[:, CHOICE], within[:, ANSWERS], bytes_in),
        *((counts > 0).sum(axis=1), (counts * carries).sum(axis=1) / np.maximum(counts.sum(axis=1), 1)),
        *(flows["empty"], pace / PACE_STEPS, flows["swing"] / np.maximum(pace, 1.0)),
        *(clients, age / DAY_S, copy.client_rows["today"][flows["client"]]),
        np.where(today, flows["peak"], 0.0) / factor,
        *_ratios(copy, sums, limits, factor, young=(clients < FAMILIAR_CLIENTS) | (age < YOUNG_S)),
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


def _sums(copy: FlowCopy, ts: float) -> NDArray[np.float64]:
    """What flow_kernels.sums gives at a time, for all active flows and windows. Shape (m, windows, SUMS)."""
    seconds = np.array(WINDOWS_S, np.float64)
    bucket = np.floor(ts / seconds).astype(np.int64)
    windows, behind = copy.windows, bucket - copy.windows["bucket"]
    left = np.where(behind <= 0, np.clip(1 - (ts / seconds - windows["bucket"]), 0.0, 1.0), 1 - (ts / seconds - bucket))
    now = np.where((behind <= 0)[:, :, None], windows["now"], 0.0)
    last = np.where((behind <= 0)[:, :, None], windows["before"], windows["now"])
    last = np.where((behind <= 1)[:, :, None], last, 0.0)
    found: NDArray[np.float64] = now + left[:, :, None] * last
    return np.where((copy.flows["windows"] == NONE)[:, None, None], 0.0, found)


def _prevalence(copy: FlowCopy, ts: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of the active flows' domains: clients that ask below them, and seconds since the first query."""
    domains, place, clients = np.unique(copy.domain, return_inverse=True, return_counts=True)
    first = np.full(len(domains), np.inf)
    np.minimum.at(first, place, copy.first_seen)
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
