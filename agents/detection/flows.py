"""All flows: capped, none that holds evidence evicted, and no client able to take the room of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key
from agents.core.columns import packed
from agents.core.jit import map_large_arrays
from agents.detection import flow_kernels as table
from agents.detection.flow_kernels import EVIDENCE_BYTES, settle
from agents.detection.judge_kernels import FACTOR_AT, judge, own
from agents.detection.seen_kernels import ROW_WORDS
from agents.detection.state import (
    CARRIERS_MAX,
    CLIENT,
    DETAIL,
    EVIDENCE,
    FAMILIAR,
    FLOW,
    NONE,
    ROOM_SIZE,
    SUMS,
    WINDOWS,
    WINDOWS_S,
    Asked,
    Room,
    State,
    Stop,
    Told,
    told,
)


@dataclass(frozen=True, slots=True)
class Flow:
    """What is known of one (client, domain) at one time. Times are Unix seconds; qtypes from when it first carried."""

    first_seen: float
    last_seen: float
    queries: int
    names: int  # different ones
    encoded_names: int  # those with a label that reads as encoded
    leaked_bytes: float  # of information, in names
    encoded_bytes: float  # the part of it that read as encoded
    bytes_in: int  # in answers of types that carry text or names
    samples: tuple[tuple[bytes, int], ...] = ()  # first names, as sent, with their query types
    qtypes: dict[int, int] = field(default_factory=dict)


def flow_of(kept: Any, detail: Any, samples: tuple[tuple[bytes, int], ...]) -> Flow:
    """A flow of its row of FLOW and its row of DETAIL, None where it has none."""
    types = () if detail is None else zip(detail["qtype"].tolist(), detail["count"].tolist(), strict=True)
    return Flow(
        first_seen=float(kept["first_seen"]),
        last_seen=float(kept["last_seen"]),
        queries=int(kept["queries"]),
        names=int(kept["names"]),
        encoded_names=int(kept["encoded_names"]),
        leaked_bytes=float(kept["leaked"]),
        encoded_bytes=float(kept["encoded"]),
        bytes_in=int(kept["bytes_in"]),
        samples=samples,
        qtypes={qtype: count for qtype, count in types if count},
    )


NUMBERS = [one.name for one in fields(Flow) if one.name not in ("samples", "qtypes")]
MIX = np.uint64(0x9E3779B97F4A7C15)
"""Spreads client rows over 64 bits, so that a client and a domain are one number."""


@dataclass(slots=True)
class Past:
    """What a flow had shown when its last incident was over."""

    flow: Flow  # as it was then, without samples
    incidents: int  # that are over
    begun: float | None = None  # its first query since, Unix seconds; None = none is known

    def since(self, flow: Flow) -> Flow:
        """What a flow showed since; its samples are the first ones still."""
        was = self.flow
        return replace(
            flow,
            first_seen=flow.last_seen if self.begun is None else self.begun,
            queries=flow.queries - was.queries,
            names=flow.names - was.names,
            encoded_names=flow.encoded_names - was.encoded_names,
            leaked_bytes=flow.leaked_bytes - was.leaked_bytes,
            encoded_bytes=flow.encoded_bytes - was.encoded_bytes,
            bytes_in=flow.bytes_in - was.bytes_in,
            qtypes={kind: more for kind, n in flow.qtypes.items() if (more := n - was.qtypes.get(kind, 0)) > 0},
        )

    def to_json(self) -> dict[str, Any]:
        """What an incident tells of those before it."""
        return {"first_seen": self.flow.first_seen, "incidents": self.incidents}


def packed_past(past: Past) -> list[Any]:
    """A past as JSON values."""
    flow = past.flow
    numbers = [getattr(flow, name) for name in NUMBERS]
    return [*numbers, sorted(flow.qtypes.items()), past.incidents, past.begun]


def unpacked_past(row: Sequence[Any]) -> Past:
    """The same back."""
    *numbers, qtypes, incidents, begun = row
    return Past(Flow(**dict(zip(NUMBERS, numbers, strict=True)), qtypes=dict(qtypes)), incidents, begun)


class Pasts:
    """The past of each flow that has one, by its row of Flows."""

    def __init__(self) -> None:
        self._rows: dict[int, Past] = {}
        self._waiting: dict[int, int] = {}  # by client and domain: rows that were not asked below since
        self._marks: dict[int, int] = {}  # the other way round
        self._last = np.empty(0), np.empty(0, np.uint64)  # of the last batch: times, clients and domains

    def of(self, row: int) -> Past | None:
        """The past of a flow, None where no incident of it is over."""
        return self._rows.get(row)

    def see(self, asked: Asked) -> None:
        """Take note of which flows are asked below again."""
        self._last = asked.ts, asked.domain ^ (asked.client.astype(np.uint64) * MIX)
        if not self._waiting:
            return
        ts, marks = self._last
        waiting = np.fromiter(self._waiting, np.uint64, len(self._waiting))
        for i in np.flatnonzero(np.isin(marks, waiting)).tolist():
            row = self._waiting.pop(int(marks[i]), None)
            if row is not None:
                del self._marks[row]
                self._rows[row].begun = float(ts[i])

    def end(self, row: int, kept: Any, flow: Flow) -> None:
        """An incident of a flow is over. kept: its row of Flows; flow: as it was at its last query."""
        self.put(
            row, kept, Past(replace(flow, samples=()), 1 + (self._rows[row].incidents if row in self._rows else 0))
        )

    def put(self, row: int, kept: Any, past: Past) -> None:
        """Let this be the past of a flow; it may have been asked below again in the last batch."""
        self.drop([row])
        self._rows[row] = past
        if past.begun is not None or kept["scattered"]:
            return
        mark = int(kept["domain"] ^ (np.array([kept["client"]]).astype(np.uint64) * MIX)[0])
        ts, marks = self._last
        again = np.flatnonzero((marks == np.uint64(mark)) & (ts > past.flow.last_seen))
        if len(again):
            past.begun = float(ts[again[0]])
        else:
            self._waiting[mark], self._marks[row] = row, mark

    def drop(self, rows: Iterable[int]) -> None:
        """Forget flows that are gone."""
        for row in rows if self._rows else ():
            self._rows.pop(row, None)
            mark = self._marks.pop(row, None)
            if mark is not None:
                self._waiting.pop(mark, None)


IDLE_S = 3600
"""A key without evidence that was idle for this long makes room."""
CLIENT_PART, CLIENT_MIN = 8, 64
"""One client may hold this part of all keys, and at least so many; and the same part of the room for names seen."""
CLIENTS_OVER = 8
"""Clients without any flow that are known, at most: this part of all keys, beside those that have some."""
CLIENT_KEPT = 0.75
"""Part of its room that a client's flows without evidence are cut back to when it is full, oldest first."""
POOL_WORDS = 48
"""Words of eight bytes for names seen, per key: beyond them, and beyond a client's part of them, the flows that want
more forget what they saw."""
START = 1024
"""Rows at first; they double."""


def _empty(keys_max: int, client_max: int, pool_max: int) -> State:
    room = np.zeros(ROOM_SIZE, np.int64)
    room[[Room.FREE_FLOW, Room.FREE_WINDOWS, Room.FREE_DETAIL]] = NONE
    room[Room.FREE_KEYS :] = NONE
    room[Room.KEYS_MAX], room[Room.CLIENT_MAX], room[Room.POOL_MAX] = keys_max, client_max, pool_max
    room[Room.SHARE] = pool_max // CLIENT_PART
    return State(
        flows=np.zeros(START, FLOW),
        windows=np.zeros(START, WINDOWS),
        details=np.zeros(START, DETAIL),
        clients=np.zeros(0, CLIENT),
        carriers=np.zeros((16, CARRIERS_MAX), np.int32),
        places=np.full(4 * START, NONE, np.int32),
        pool=np.zeros(2 * ROW_WORDS, np.uint64),
        familiar=np.zeros(4 * START, FAMILIAR),
        room=room,
        swept=np.full(1, -np.inf),
    )


class Flows:
    """All flows, at most `keys_max`. Time comes from the queries alone."""

    def __init__(self, keys_max: int, key: Key = (0, 0)) -> None:
        map_large_arrays()  # all of these double as they grow
        self.key = key  # of the hashes of names: who does not know it cannot make two names look like one
        client_max = min(keys_max, max(keys_max // CLIENT_PART, CLIENT_MIN))
        self.state = _empty(keys_max, client_max, max(POOL_WORDS * keys_max, 4 * ROW_WORDS))
        self._clients_over = max(keys_max // CLIENTS_OVER, CLIENT_MIN)
        self._clients_max = keys_max + self._clients_over
        self.clients: dict[str, int] = {}
        self._free_clients: list[int] = []
        self.samples: dict[int, tuple[tuple[bytes, int], ...]] = {}  # by row of details (tuples: no garbage)
        self.pasts = Pasts()

    def __len__(self) -> int:
        return int(self.state.room[Room.LIVE])

    @property
    def refused(self) -> int:
        """Queries whose flow the caps refused."""
        return int(self.state.room[Room.REFUSED])

    @property
    def forgotten(self) -> int:
        """How often a flow forgot what it saw, since the room for names, or its client's part of it, was full."""
        return int(self.state.room[Room.FORGOTTEN])

    @property
    def bytes_held(self) -> int:
        """Memory of all arrays, bytes."""
        return sum(array.nbytes for array in self.state)

    def rows_of(self, clients: Sequence[str]) -> NDArray[np.int32]:
        """A row for each of these clients; NONE where there is no room for another."""
        if len(self.clients) + len(clients) > self._clients_max:
            known = {self.clients[client] for client in clients if client in self.clients}
            if len(self.clients) - np.count_nonzero(self.state.clients["held"]) >= self._clients_over:
                self._dismiss_clients(known)
        found = list(map(self.clients.get, clients))
        if None in found:  # a call for each is ten times dearer than looking all up
            found = list(map(self._client, clients))
        return np.array(found, np.int32)

    def _client(self, client: str) -> int:
        found = self.clients.get(client)
        if found is not None:
            return found
        if len(self.clients) >= self._clients_max:
            return NONE
        if self._free_clients:
            row = self._free_clients.pop()
        else:
            row = len(self.clients)
            if row == len(self.state.clients):
                self._extend("clients")
        self.state.clients[row] = (0, 0, NONE, client == "", NONE, 0, NONE, 0, 0)
        self.clients[client] = row
        return row

    def judge(self, asked: Asked, limits: NDArray[np.float64], rules: NDArray[np.float64]) -> Told:
        """Count queries, in their order, and say what is beyond a limit (kernels/judging.py)."""
        said, row = told(len(asked.ts)), 0
        with np.errstate(over="ignore"):  # hashes overflow, where the kernels are plain Python
            while True:
                stop, row = judge(self.state, asked, limits, rules, said, row)
                if stop == Stop.DONE:
                    self.pasts.see(asked)
                    return said
                if stop == Stop.SWEEP:
                    self._sweep(float(asked.ts[row]), set(np.unique(asked.client).tolist()))
                else:
                    self._make_room(Stop(stop))

    def make_room_for(self, flows: int, words: int) -> None:
        """Room for so many flows, with a window, details and so many words of keys together."""
        for name, size in (("flows", flows), ("windows", flows), ("details", flows), ("pool", words + ROW_WORDS)):
            while len(getattr(self.state, name)) < size + 2:
                self._extend(name)
        while len(self.state.places) < 2 * (flows + 2):
            self._make_room(Stop.PLACES)
        while len(self.state.familiar) < 2 * (flows + 1):
            self._make_room(Stop.FAMILIAR)

    def _make_room(self, stop: Stop) -> None:
        if stop == Stop.PLACES:
            self.state = self.state._replace(places=np.full(2 * len(self.state.places), NONE, np.int32))
            table.enter_all(self.state.flows, self.state.places, self.state.room[Room.FLOWS])
        elif stop == Stop.FAMILIAR:
            size = 2 * len(self.state.familiar)
            self.state = self.state._replace(familiar=np.zeros(size, FAMILIAR))
            table.greet_all(self.state)
        else:
            self._extend(stop.name.lower())

    def _extend(self, name: str) -> None:
        """Double an array, the pool at most to its bound."""
        old = getattr(self.state, name)
        size = max(2 * len(old), 64)
        if name == "pool":
            size = min(size, int(self.state.room[Room.POOL_MAX]))
        made = np.zeros((size, *old.shape[1:]), old.dtype)
        made[: len(old)] = old
        self.state = self.state._replace(**{name: made})

    def _sweep(self, ts: float, asking: Set[int]) -> None:
        """Make room: what is idle goes, and the oldest flows without evidence of clients that used up theirs.

        asking: rows of clients whose queries are being judged, which stay theirs.
        """
        self.state.swept[0] = ts
        flows = self.state.flows[: self.state.room[Room.FLOWS]]
        idle, evidence = ts - flows["last_seen"], flows["leaked"] >= EVIDENCE_BYTES
        kept = (flows["used"] == 0) | (flows["watched"] == 1)
        self._drop(np.flatnonzero(~kept & ((idle > WINDOWS_S[-1]) | ((idle > IDLE_S) & ~evidence))))
        client_max = int(self.state.room[Room.CLIENT_MAX])
        if client_max < self.state.room[Room.KEYS_MAX]:
            held = self.state.clients["held"]
            for full in np.flatnonzero(held >= client_max).tolist():
                mine = np.flatnonzero((flows["used"] == 1) & ~kept & ~evidence & (flows["client"] == full))
                oldest = mine[np.lexsort((flows["scattered"][mine], flows["first_seen"][mine]))]
                self._drop(oldest[: held[full] - int(client_max * CLIENT_KEPT)])
        table.dismiss_carriers(self.state)
        table.greet_all(self.state)
        self._dismiss_clients(asking)

    def _dismiss_clients(self, asking: Set[int]) -> None:
        """Forget clients without any flow, but those that are asking now."""
        held = self.state.clients["held"].tolist()
        for client, row in list(self.clients.items()):
            if held[row] == 0 and row not in asking:
                del self.clients[client]
                self._free_clients.append(row)

    def _drop(self, rows: NDArray[np.int64]) -> None:
        for at in self.state.flows["detail"][rows].tolist():
            self.samples.pop(at, None)
        self.pasts.drop(rows.tolist())
        table.drop_all(self.state, rows)

    def keep_samples(self, said: Told, names: Sequence[bytes], qtypes: NDArray[np.uint16]) -> None:
        """Keep the names that the kernel calls samples; the columns are those of the batch."""
        samples, column = said.samples[: said.counts[1]], packed(names)
        rows, starts = samples["row"], column.starts
        kept = samples["detail"], samples["number"], qtypes[rows], starts[rows], starts[rows + 1]
        for at, number, qtype, begin, end in zip(*(one.tolist() for one in kept), strict=True):
            if number == 0:
                self.samples[at] = ((column.data[begin:end], qtype),)
            elif at in self.samples:  # else its flow made room for others in the same batch
                self.samples[at] += ((column.data[begin:end], qtype),)

    def find(self, client: str, domain: int) -> int | None:
        """Row of a flow by client and hash of its domain, or None."""
        row = self.clients.get(client)
        found = NONE if row is None else table.find_flow(self.state.flows, self.state.places, np.uint64(domain), row)
        return None if found == NONE else int(found)

    def find_scattered(self, client: str) -> int | None:
        """Row of what counts a client's scattered names, or None."""
        row = self.clients.get(client)
        found = NONE if row is None else int(self.state.clients[row]["scattered"])
        return None if found == NONE else found

    def watch(self, ts: float, client: str, domain: int) -> None:
        """Tell of every query of this flow, made if there is none, unless the caps refuse it."""
        row, found = self._client(client), self.find(client, domain)
        if found is None and row != NONE and not table.is_full(self.state, row):
            for stop, lacking in self._lacking():
                if lacking:
                    self._make_room(stop)
            found = int(table.make(self.state, ts, np.uint64(domain), row))
        if found is not None:
            self._watch(ts, found)

    def watch_scattered(self, ts: float, client: str) -> None:
        """Tell of every query that counts for a client's scattered names, where there are any."""
        if (row := self.find_scattered(client)) is not None:
            self._watch(ts, row)

    def _watch(self, ts: float, row: int) -> None:
        flow = self.state.flows[row]
        flow["watched"], flow["last_seen"] = 1, max(float(flow["last_seen"]), ts)

    def _lacking(self) -> Iterable[tuple[Stop, bool]]:
        room, state = self.state.room, self.state
        yield Stop.FLOWS, room[Room.FLOWS] + 2 > len(state.flows)
        yield Stop.PLACES, 2 * (room[Room.LIVE] + 2) > len(state.places)

    def client_of(self, row: int) -> int:
        """The client's row of a flow."""
        return int(self.state.flows[row]["client"])

    def ratio(self, row: int, limits: NDArray[np.float64], rules: NDArray[np.float64]) -> float:
        """How many times over its limit a flow was by itself, when it was last asked below."""
        flow, evidence = self.state.flows[row], np.zeros(1, EVIDENCE)[0]
        client = self.state.clients[flow["client"]]
        own(evidence, float(flow["last_seen"]), flow, client, self.state.windows, limits, rules, np.zeros(SUMS))
        return float(evidence["ratio"] / rules[FACTOR_AT])

    def release(self, row: int) -> None:
        """Its incident is closed, and was not by a query of its own."""
        if self.state.flows[row]["watched"]:
            settle(self.state.flows[row], self.state.windows)

    def forget(self, row: int) -> None:
        """Drop a flow and all that it showed."""
        self._drop(np.array([row]))
        table.dismiss_carriers(self.state)
        table.greet_all(self.state)

    def rows(self, wanted: Callable[[NDArray[np.void]], NDArray[np.bool_]]) -> list[int]:
        """Rows in use that a condition on them selects."""
        flows = self.state.flows[: self.state.room[Room.FLOWS]]
        found: list[int] = np.flatnonzero((flows["used"] == 1) & wanted(flows)).tolist()
        return found

    def view(self, row: int) -> Flow:
        """What is known of one flow."""
        flow = self.state.flows[row]
        at = int(flow["detail"])
        return flow_of(flow, None if at == NONE else self.state.details[at], self.samples.get(at, ()))

    def end(self, row: int, flow: Flow) -> None:
        """An incident of a flow is over; flow: as it was at its last query."""
        self.pasts.end(row, self.state.flows[row], flow)
