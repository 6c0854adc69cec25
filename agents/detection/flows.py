"""All flows: those of each client, and those of all clients together. Their number is capped; who fills the table hides
nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key
from agents.core.columns import packed
from agents.core.jit import map_large_arrays
from agents.core.text import NETWORK
from agents.core.types import DAY_S
from agents.detection.counting import flow_kernels as table
from agents.detection.counting.flow_kernels import ASKERS, CELLS, EVIDENCE_BYTES, GOLDEN
from agents.detection.counting.order_kernels import FOLLOWERS
from agents.detection.counting.seen_kernels import ROW_WORDS
from agents.detection.counting.window_kernels import settle
from agents.detection.evidence_kernels import FACTOR_AT, Measures, own
from agents.detection.judge_kernels import AT_HOME_DOMAINS, OF_NETWORK_STOP, hear, judge
from agents.detection.state import (
    CARRIERS_MAX,
    CLIENT,
    DETAIL,
    EVENT,
    EVIDENCE,
    FAMILIAR,
    FLOW,
    FOLLOWED,
    NONE,
    PEAK,
    ROOM_SIZE,
    SAMPLE,
    SENT,
    SIBLINGS,
    SUMS,
    WATCHED,
    WINDOWS,
    WINDOWS_S,
    Asked,
    Named,
    Room,
    State,
    Stop,
    Told,
)

_NOT_GIVEN = np.empty(0, SENT)


@dataclass(frozen=True, slots=True)
class Flow:
    """The state of one (client, domain) at one time. Times: Unix seconds; qtypes: counted once it carries something."""

    first_seen: float
    last_seen: float
    queries: int
    names: int  # different ones
    encoded_names: int  # those with a label that reads as encoded
    leaked_bytes: float  # of information, in names
    encoded_bytes: float  # the part of it that read as encoded
    bytes_in: int  # bytes of new data in answers, of each type below young domains
    samples: tuple[tuple[bytes, int], ...] = ()  # first names, as sent, with their query types
    qtypes: dict[int, int] = field(default_factory=dict)


def flow_of(kept: Any, detail: Any, samples: tuple[tuple[bytes, int], ...]) -> Flow:
    """A flow from its row of FLOW and its row of DETAIL; detail: None if it has none."""
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


@dataclass(slots=True)
class Past:
    """The state of a flow when its last incident was over."""

    flow: Flow  # the flow as it was then, without samples
    incidents: int  # how many are over
    begun: float | None = None  # time of its first query since, Unix seconds; None = unknown

    def since(self, flow: Flow) -> Flow:
        """The flow's counts since then; its samples are still its first ones."""
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
        """The part of an incident's evidence about the incidents before it."""
        return {"first_seen": self.flow.first_seen, "incidents": self.incidents}


def packed_past(past: Past) -> list[Any]:
    """A past as JSON values."""
    flow = past.flow
    numbers = [getattr(flow, name) for name in NUMBERS]
    return [*numbers, sorted(flow.qtypes.items()), past.incidents, past.begun]


def unpacked_past(row: Sequence[Any]) -> Past:
    """A past from JSON values."""
    *numbers, qtypes, incidents, begun = row
    return Past(Flow(**dict(zip(NUMBERS, numbers, strict=True)), qtypes=dict(qtypes)), incidents, begun)


def _empty_told(queries: int, passes_on: bool, given: NDArray[Any] = _NOT_GIVEN) -> Told:
    """Empty output arrays for so many queries. passes_on: sums over clients are counted elsewhere; given: of Told."""
    most = 4 * queries  # a query may count for its own flow and its client's sum, and for the same of the network
    return Told(
        np.zeros(queries, EVIDENCE),
        np.zeros(most, EVENT),
        np.zeros(most, SAMPLE),
        np.zeros(most // 2, PEAK),
        np.zeros(5, np.int64),
        np.zeros(SUMS, np.float32),
        np.zeros(SUMS, np.float32),
        np.zeros(1, EVIDENCE),
        np.zeros(1, np.uint8),
        np.zeros(1),
        np.zeros(SUMS),
        np.zeros(1, SENT),
        np.zeros(queries * passes_on, SENT),
        np.zeros(queries * passes_on, WINDOWS),
        given,
    )


class Pasts:
    """The past of each flow that has one, by its row of Flows."""

    def __init__(self) -> None:
        self._rows: dict[int, Past] = {}
        self._waiting: dict[int, int] = {}  # mark (client and domain) to row, for flows without a query since
        self._marks: dict[int, int] = {}  # row to mark, the inverse
        self._last = np.empty(0), np.empty(0, np.uint64)  # times and marks of the last batch

    def of(self, row: int) -> Past | None:
        """The past of a flow; None if it has no closed incident."""
        return self._rows.get(row)

    def see(self, asked: Asked) -> None:
        """Note the first query of each flow since its last incident."""
        self._last = asked.ts, asked.domain ^ (asked.client.astype(np.uint64) * GOLDEN)
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
        """Record that an incident of a flow is over. kept: its row of Flows; flow: its state at its last query."""
        self.put(
            row, kept, Past(replace(flow, samples=()), 1 + (self._rows[row].incidents if row in self._rows else 0))
        )

    def put(self, row: int, kept: Any, past: Past) -> None:
        """Set the past of a flow. The last batch may already hold a query of the flow since then."""
        self.drop([row])
        self._rows[row] = past
        if past.begun is not None or kept["scattered"]:
            return
        mark = int(kept["domain"] ^ (np.array([kept["client"]]).astype(np.uint64) * GOLDEN)[0])
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
"""A flow without evidence is dropped after this idle time, when room is needed."""
CLIENT_PART, CLIENT_MIN = 8, 64
"""One client may hold 1/CLIENT_PART of all flows, but at least CLIENT_MIN; and 1/CLIENT_PART of the pool of names
seen."""
NETWORK_PART = 4
"""One flow of all clients together for so many flows of clients."""
CLIENTS_OVER = 8
"""Clients without a flow that are kept, at most: keys_max // CLIENTS_OVER, in addition to the clients with flows."""
CLIENT_KEPT = 0.75
"""When a client's room is full, its flows are cut back to this part of it: flows without evidence go, oldest first."""
KEYS_KEPT = 0.875
"""When the table is full though idle flows were dropped, it is cut back to this part."""
POOL_WORDS = 48
"""Words of eight bytes in the pool of names seen, per flow. When the pool or a client's share is used up, a flow that
needs more forgets the names it saw."""
START = 1024
"""Rows at first; they double."""
SIBLING_PLACES = 1 << 14
"""Forms of names of all clients that are counted below several domains. The network's own flows have none."""
HEARD_PLACES = 1 << 19
"""Names that any client asked for, for a second client to pay less. They are not saved."""


def _empty(keys_max: int, client_max: int, pool_max: int, of_network: bool) -> State:
    room = np.zeros(ROOM_SIZE, np.int64)
    room[[Room.FREE_FLOW, Room.FREE_WINDOWS, Room.FREE_DETAIL]] = NONE
    room[Room.FREE_KEYS :] = NONE
    room[Room.KEYS_MAX], room[Room.CLIENT_MAX], room[Room.POOL_MAX] = keys_max, client_max, pool_max
    room[Room.SHARE] = pool_max // CLIENT_PART
    siblings, heard = (0, 0) if of_network else (SIBLING_PLACES, HEARD_PLACES)
    return State(
        flows=np.zeros(START, FLOW),
        askers=np.zeros((START, ASKERS), np.uint64),  # grows with the network's flows alone
        windows=np.zeros(START, WINDOWS),
        details=np.zeros(START, DETAIL),
        clients=np.zeros(0, CLIENT),
        carriers=np.zeros((16, CARRIERS_MAX), np.int32),
        places=np.full(4 * START, NONE, np.int32),
        pool=np.zeros(2 * ROW_WORDS, np.uint64),
        familiar=np.zeros(4 * START, FAMILIAR),
        followers=np.zeros(FOLLOWERS, np.uint32),
        heard=np.zeros(heard, np.uint64),
        siblings=np.zeros(siblings, SIBLINGS),
        sibling_windows=np.zeros(siblings, WINDOWS),
        room=room,
        swept=np.full(1, -np.inf),
    )


class Flows:
    """All flows, at most `keys_max`. Time comes only from the queries."""

    def __init__(self, keys_max: int, key: Key = (0, 0), of_network: bool = False) -> None:
        """key: of the hash of names; without it, an attacker cannot make two names collide.

        of_network: these are the flows of all clients together, and have no network of their own.
        """
        map_large_arrays()  # all of these double as they grow
        self.key, self.keys_max = key, keys_max
        client_max = keys_max if of_network else min(keys_max, max(keys_max // CLIENT_PART, CLIENT_MIN))
        self.state = _empty(keys_max, client_max, max(POOL_WORDS * keys_max, 4 * ROW_WORDS), of_network)
        self._clients_over = max(keys_max // CLIENTS_OVER, CLIENT_MIN)
        self._clients_max = keys_max + self._clients_over
        self.clients: dict[str, int] = {}
        self._free_clients: list[int] = []
        self.samples: dict[int, tuple[tuple[bytes, int], ...]] = {}  # by row of details; tuples spare the collector
        self.pasts = Pasts()
        self._is_shared = False
        self.is_parted: Callable[[str], bool] = lambda client: False
        self.network = self if of_network else Flows(max(keys_max // NETWORK_PART, CELLS), key, of_network=True)
        if of_network:
            self.state.room[Room.NETWORK], self.state.room[Room.SHARE] = 1, self.state.room[Room.POOL_MAX]
            self.rows_of([NETWORK])

    def __len__(self) -> int:
        return int(self.state.room[Room.LIVE])

    @property
    def refused(self) -> int:
        """Queries whose flow the caps refused."""
        return int(self.state.room[Room.REFUSED])

    @property
    def forgotten(self) -> int:
        """How often a flow forgot the names it saw, because the pool or its client's share of it was full."""
        return int(self.state.room[Room.FORGOTTEN])

    def rows_of(self, clients: Sequence[str]) -> NDArray[np.int32]:
        """A row for each of these clients; NONE if there is no room for another client."""
        if len(self.clients) + len(clients) > self._clients_max:
            known = {self.clients[client] for client in clients if client in self.clients}
            if len(self.clients) - np.count_nonzero(self.state.clients["held"]) >= self._clients_over:
                self._dismiss_clients(known)
        found = list(map(self.clients.get, clients))
        if None in found:  # calling _client for each is ten times slower than the look-up of all
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
        named = Named.NAMELESS if client == "" else Named.PARTED if self.is_parted(client) else Named.NAMED
        self.state.clients[row] = (0, 0, NONE, int(named), NONE, 0, NONE, 0, 0)
        self.clients[client] = row
        return row

    def judge(
        self,
        asked: Asked,
        limits: NDArray[np.float64],
        together: NDArray[np.float64],
        rules: NDArray[np.float64],
        given: NDArray[Any] = _NOT_GIVEN,
    ) -> Told:
        """Count queries in their order, and return the evidence of each and its events (judge_kernels.judge).

        limits, together: of a client, and of all clients together. given: what other detectors say of the queries, if
        they have judged them before.
        """
        said = _empty_told(len(asked.ts), bool(self.state.room[Room.ELSEWHERE]), given)

        def count(row: int) -> tuple[int, int]:
            return judge(self.state, self.network.state, asked, limits, together, rules, said, row)

        self._count_all(asked, count)
        self.pasts.see(asked)
        return said

    def hear(
        self,
        asked: Asked,
        sent: NDArray[Any],
        windows: NDArray[Any],
        together: NDArray[np.float64],
        rules: NDArray[np.float64],
    ) -> Told:
        """Count what queries of other detectors say of all clients together (judge_kernels.hear); its events."""
        said = _empty_told(len(asked.ts), False)

        def count(row: int) -> tuple[int, int]:
            return hear(self.state, self.network.state, asked, sent, windows, together, rules, said, row)

        self._count_all(asked, count)
        return said

    def _count_all(self, asked: Asked, count: Callable[[int], tuple[int, int]]) -> None:
        """Count from row 0 on, and make room where a kernel stops."""
        row = 0
        with np.errstate(over="ignore"):  # hashes overflow when the kernels run uncompiled
            while True:
                stop, row = count(row)
                if stop == Stop.DONE:
                    return
                flows = self if stop < OF_NETWORK_STOP else self.network
                if stop % OF_NETWORK_STOP == Stop.SWEEP:
                    asking = np.unique(asked.client).tolist() if flows is self else [0]
                    flows._sweep(float(asked.ts[row]), set(asking))
                else:
                    flows._make_room(Stop(stop % OF_NETWORK_STOP))

    def make_room_for(self, flows: int, words: int) -> None:
        """Make room for so many flows, each with windows and details, and for so many words of keys in all."""
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
            self.greet_anew()
        else:
            self._extend(stop.name.lower())

    def _extend(self, name: str) -> None:
        """Double an array; the pool grows at most to POOL_MAX."""
        old = getattr(self.state, name)
        size = max(2 * len(old), 64)
        if name == "pool":
            size = min(size, int(self.state.room[Room.POOL_MAX]))
        made = np.zeros((size, *old.shape[1:]), old.dtype)
        made[: len(old)] = old
        self.state = self.state._replace(**{name: made})
        if name == "flows" and self.network is self:
            self._extend("askers")

    def _sweep(self, ts: float, asking: Set[int]) -> None:
        """Make room: drop idle flows, and the oldest flows without evidence of clients that reached their cap.

        asking: rows of the clients whose queries are being judged; these rows stay assigned.
        """
        self.state.swept[0] = ts
        flows = self.state.flows[: self.state.room[Room.FLOWS]]
        idle, evidence = ts - flows["last_seen"], flows["leaked"] >= EVIDENCE_BYTES
        kept = (flows["used"] == 0) | (flows["watched"] > 0)
        self._drop(np.flatnonzero(~kept & ((idle > WINDOWS_S[-1]) | ((idle > IDLE_S) & ~evidence))))
        client_max = int(self.state.room[Room.CLIENT_MAX])
        if client_max < self.state.room[Room.KEYS_MAX]:
            held = self.state.clients["held"]
            for full in np.flatnonzero(held >= client_max).tolist():
                mine = np.flatnonzero((flows["used"] == 1) & ~kept & ~evidence & (flows["client"] == full))
                oldest = mine[np.lexsort((flows["scattered"][mine], flows["first_seen"][mine]))]
                self._drop(oldest[: held[full] - int(client_max * CLIENT_KEPT)])
        self._evict(kept, evidence)
        table.dismiss_carriers(self.state)
        self.greet_anew()
        self._dismiss_clients(asking)

    def _evict(self, kept: NDArray[np.bool_], evidence: NDArray[np.bool_]) -> None:
        """Cut a full table back: flows without evidence first, the oldest; then those that leaked least.

        A full table blinds nobody: who asks anew gets room, and what is dropped still counts for the network.
        """
        keys_max = int(self.state.room[Room.KEYS_MAX])
        if len(self) < keys_max:
            return
        flows = self.state.flows[: len(kept)]
        rows = np.flatnonzero((flows["used"] == 1) & ~kept)
        leaked = np.where(evidence, flows["leaked"], 0.0)[rows]
        order = rows[np.lexsort((flows["scattered"][rows], flows["first_seen"][rows], leaked))]
        self._drop(order[: keys_max - int(keys_max * KEYS_KEPT)])

    def greet_anew(self) -> None:
        """Count the clients of each domain anew. The network's flows have one client, and no table of them."""
        if self.network is self or self.state.room[Room.ELSEWHERE]:
            return
        if not self._is_shared:
            table.greet_all(self.state)
            return
        counted = self.state._replace(familiar=np.zeros(len(self.state.familiar), FAMILIAR))
        table.greet_all(counted)
        self.state.familiar[:] = counted.familiar  # others read it meanwhile

    def share(self, familiar: NDArray[Any], heard: NDArray[np.uint64], reads_only: bool) -> None:
        """Use these tables of known domains and names, which other processes read, too. reads_only: others write them,
        and sums over clients are counted elsewhere."""
        self.state = self.state._replace(familiar=familiar, heard=heard)
        self.state.room[Room.ELSEWHERE] = reads_only
        self._is_shared = True

    def _dismiss_clients(self, asking: Set[int]) -> None:
        """Forget clients without a flow, except those whose queries are being judged."""
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

    def keep_samples(
        self, said: Told, names: Sequence[bytes], qtypes: NDArray[np.uint16], of: NDArray[np.int64] | None = None
    ) -> None:
        """Keep the names that the kernel chose as samples. names, qtypes: columns of the batch; of: its row for each
        that was judged, the same unless given."""
        if self.network is not self:
            self.network.keep_samples(said, names, qtypes, of)
        samples, column = said.samples[: said.counts[1]], packed(names)
        samples = samples[samples["network"] == self.state.room[Room.NETWORK]]
        rows, starts = samples["row"] if of is None else of[samples["row"]], column.starts
        kept = samples["detail"], samples["number"], qtypes[rows], starts[rows], starts[rows + 1]
        for at, number, qtype, begin, end in zip(*(one.tolist() for one in kept), strict=True):
            if number == 0:
                self.samples[at] = ((column.data[begin:end], qtype),)
            elif at in self.samples:  # else its flow was dropped in the same batch
                self.samples[at] += ((column.data[begin:end], qtype),)

    def find(self, client: str, domain: int) -> int | None:
        """Row of a flow by client and hash of its domain, or None."""
        row = self.clients.get(client)
        found = NONE if row is None else table.find_flow(self.state.flows, self.state.places, np.uint64(domain), row)
        return None if found == NONE else int(found)

    def find_scattered(self, client: str) -> int | None:
        """Row of the flow that counts a client's scattered names, or None."""
        row = self.clients.get(client)
        found = NONE if row is None else int(self.state.clients[row]["scattered"])
        return None if found == NONE else found

    def follow(self, ts: float, row: int) -> None:
        """Emit an event for every query of this flow from now on, and change nothing that is counted of it."""
        flow = self.state.flows[row]
        flow["watched"], flow["last_seen"] = flow["watched"] or FOLLOWED, max(float(flow["last_seen"]), ts)

    def watch(self, ts: float, client: str, domain: int) -> None:
        """Emit an event for every query of this flow from now on. Makes the flow if needed and if the caps allow it."""
        row, found = self._client(client), self.find(client, domain)
        if found is None and row != NONE and not table.is_full(self.state, row):
            for stop, lacking in self._lacking():
                if lacking:
                    self._make_room(stop)
            found = int(table.make(self.state, ts, np.uint64(domain), row))
        if found is not None:
            self._watch(ts, found)

    def watch_scattered(self, ts: float, client: str) -> None:
        """Emit an event for every query that counts for a client's scattered names, if it has any."""
        if (row := self.find_scattered(client)) is not None:
            self._watch(ts, row)

    def _watch(self, ts: float, row: int) -> None:
        flow = self.state.flows[row]
        flow["watched"], flow["last_seen"] = WATCHED, max(float(flow["last_seen"]), ts)

    def _lacking(self) -> Iterable[tuple[Stop, bool]]:
        room, state = self.state.room, self.state
        yield Stop.FLOWS, room[Room.FLOWS] + 2 > len(state.flows)
        yield Stop.PLACES, 2 * (room[Room.LIVE] + 2) > len(state.places)

    def is_young(self, ts: float, domain: np.uint64) -> bool:
        """Whether a domain (keyed hash) is young or rare here."""
        return bool(table.is_young(self.state, ts, domain))

    def _at_home(self, ts: float, days: int = 1, domains: int = AT_HOME_DOMAINS) -> NDArray[np.bool_]:
        """Of each client's row, whether it asked below so many domains on one of the last days."""
        clients = self.state.clients
        lately = np.abs(ts // DAY_S - clients["day"]) <= days
        found: NDArray[np.bool_] = lately & (np.maximum(clients["today"], clients["yesterday"]) >= domains)
        return found

    def clients_at_home(self, ts: float) -> int:
        """How many clients were at home in the last week."""
        return int(np.count_nonzero(self._at_home(ts, 7)))

    def is_at_home(self, ts: float, client: str) -> bool:
        """Whether a client is at home."""
        row = self.clients.get(client)
        return row is not None and bool(self._at_home(ts)[row])

    def settled_in(self, settled: NDArray[np.uint8], domain: np.uint64) -> int:
        """The number that a table beside `familiar` has at a domain's place (shared.view.KnownTables)."""
        place = table.familiar_at(self.state, domain)
        return int(settled[place]) if self.state.familiar[place]["domain"] == domain else 0

    def count_settled(self, ts: float, domains: int, settled: NDArray[np.uint8]) -> None:
        """Count anew, below each domain, the clients that ask below so many domains a day; 255 = or more."""
        found = np.zeros(len(settled), np.uint8)
        table.count_settled(self.state, self._at_home(ts, domains=domains), found)
        settled[:] = found

    def _clients_below(self, domain: np.uint64) -> NDArray[np.int32]:
        found: NDArray[np.int32] = self.state.flows["client"][
            self.rows(lambda flows: (flows["domain"] == domain) & (flows["scattered"] == 0))
        ]
        return found

    def settled_below(self, ts: float, domain: np.uint64, domains: int) -> int:
        """How many clients that ask below so many domains a day ask below this one (keyed hash), too."""
        return int(np.count_nonzero(self._at_home(ts, domains=domains)[self._clients_below(domain)]))

    def clients_below(self, domain: np.uint64) -> list[str]:
        """The clients that ask below a domain (keyed hash)."""
        rows = set(self._clients_below(domain).tolist())
        return [client for client, row in self.clients.items() if row in rows]

    def flows_of(self, client: str) -> list[int]:
        """Rows of a client's flows below domains that carried something, the newest, at most CARRIERS_MAX."""
        row = self.clients.get(client)
        if row is None:
            return []
        found = self.rows(
            lambda flows: (flows["client"] == row) & (flows["detail"] != NONE) & (flows["scattered"] == 0)
        )
        return sorted(found, key=lambda one: -float(self.state.flows["last_seen"][one]))[:CARRIERS_MAX]

    def client_of(self, row: int) -> int:
        """The client's row of a flow."""
        return int(self.state.flows[row]["client"])

    def ratio(self, row: int, limits: NDArray[np.float64], rules: NDArray[np.float64]) -> float:
        """How many times over its limit a flow was by itself at its last query."""
        flow, evidence = self.state.flows[row], np.zeros(1, EVIDENCE)[0]
        client = self.state.clients[flow["client"]]
        young = self.is_young(float(flow["last_seen"]), flow["domain"])
        by = Measures(limits, rules, np.zeros(SUMS))
        own(evidence, float(flow["last_seen"]), flow, client, self.state.windows, by, young)
        return float(evidence["ratio"] / rules[FACTOR_AT])

    def release(self, row: int) -> None:
        """Settle a flow whose incident was closed, but not by one of its queries."""
        flow = self.state.flows[row]
        if flow["watched"] == WATCHED:
            settle(flow, self.state.windows)
        flow["watched"] = 0

    def forget(self, row: int) -> None:
        """Drop a flow and all its counts."""
        self._drop(np.array([row]))
        table.dismiss_carriers(self.state)
        self.greet_anew()

    def forget_client(self, client: str) -> None:
        """Drop all flows of a client, and its name. What it carried stays in the sums of the network."""
        row = self.clients.get(client)
        if row is None:
            return
        self._drop(np.array(self.rows(lambda flows: flows["client"] == row), np.int64))
        table.dismiss_carriers(self.state)
        self.greet_anew()
        del self.clients[client]
        self._free_clients.append(row)

    def rows(self, wanted: Callable[[NDArray[np.void]], NDArray[np.bool_]]) -> list[int]:
        """Rows in use for which a condition holds."""
        flows = self.state.flows[: self.state.room[Room.FLOWS]]
        found: list[int] = np.flatnonzero((flows["used"] == 1) & wanted(flows)).tolist()
        return found

    def view(self, row: int) -> Flow:
        """The state of one flow."""
        flow = self.state.flows[row]
        at = int(flow["detail"])
        return flow_of(flow, None if at == NONE else self.state.details[at], self.samples.get(at, ()))

    def end(self, row: int, flow: Flow) -> None:
        """Record that an incident of a flow is over. flow: its state at its last query."""
        self.pasts.end(row, self.state.flows[row], flow)
