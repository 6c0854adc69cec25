"""The UDP datapath: the memory that its kernels work in, the thread that runs them, and the way back to Python."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from struct import Struct
from threading import Thread
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.column_kernels import Key
from agents.dns import message as wire
from agents.dns.message_kernels import KEY, answer_facts, new_facts
from agents.sources.listener.cache import AnswerCache, CacheLimits, load_cache
from agents.sources.listener.cache_kernels import CacheState
from agents.sources.listener.datapath_kernels import (
    ADDRESS_SIZE,
    ASKED,
    BUFFER,
    CELLS,
    CONTROL_ROOM,
    ELSEWHERE,
    EPOLL_EVENT,
    FAILED,
    FORGED,
    HANDED,
    HELD_CELLS,
    IDS,
    LATE,
    LOCAL,
    LONG,
    MESSAGE,
    ODD,
    OVERDUE,
    PART,
    PORT,
    SEGMENT_AT,
    SLOT,
    SOCKET,
    STRICT,
    TIMED_OUT,
    TRUNCATED,
    UNSENT,
    UPSTREAM,
    WAKE_EVENT,
    ZONE_WIDTH,
    DatapathState,
    fence,
    pump,
    try_lock,
    unlock,
    watch,
)
from agents.sources.listener.forwarder import Forwarder
from agents.sources.listener.server import can_compile
from agents.sources.listener.sockets import DRAIN_MAX, UdpPort
from agents.sources.listener.traffic import AccessList, TrafficLimits, default_limits, domain_of, shares_of
from agents.sources.listener.traffic_kernels import KEYED
from agents.sources.listener.upstream import (
    POOL_SIZE,
    RANDOM_BLOCK,
    AnsweredHere,
    Outgoing,
    Pending,
    Routes,
    Upstream,
    Zone,
)
from agents.stream.counters import Counters, counters_array
from agents.stream.record import ANSWER_KEY, RECORD, client_bytes
from agents.stream.rings import Rings, RingsArrays

CARRIED = 64
"""Long queries and truncated answers that may wait for Python."""
SPARE_SOCKETS = 512
"""Upstream sockets beyond the pools: retired ones that still wait for an answer."""
SOL_UDP, UDP_SEGMENT = 17, 103
"""udp(7); the socket module does not know them."""
_SEGMENT = Struct("=QiiH6x")  # struct cmsghdr of cmsg(3) and the size of a segment
_NAME_ROOM = 32
_SOCKADDR4, _SOCKADDR6 = Struct("=H2s4s8x"), Struct("=H2sI16sI")


def make_state(
    ports: Sequence[UdpPort],
    routes: Routes,
    access: AccessList,
    strict: AccessList,
    limits: TrafficLimits,
    elsewhere: NDArray[np.int64],
    inflight_max: int,
    rings: RingsArrays,
    counters: Counters,
    cache: CacheState,
) -> DatapathState:
    """All arrays, with nothing in flight. The caller fills in settings and descriptors."""
    upstreams = list(routes.upstreams.values())
    sockets = np.zeros(POOL_SIZE * len(upstreams) + SPARE_SOCKETS, SOCKET)
    sockets["fd"] = -1
    return DatapathState(
        cells=_cells(inflight_max, limits, len(upstreams)),
        counted=counters_array(counters),
        elsewhere=elsewhere,
        cache=cache,
        asked=np.zeros(1, ASKED),
        ports=np.array([(port.sock.fileno(), port.v6, port.wildcard, port.probe) for port in ports], PORT),
        upstreams=_upstreams(upstreams),
        failures=routes.failures,
        preferred=routes.preferred,
        mismatched=routes.mismatched,
        quirks=routes.quirks,
        zones=zone_names(routes),
        zone_upstreams=_zone_upstreams(routes, upstreams),
        **_networks(access, strict, limits.exempt),
        **_bounds(limits),
        slots=np.zeros(inflight_max, SLOT),
        free=np.arange(inflight_max, dtype=np.int32)[::-1].copy(),
        sockets=sockets,
        ids=np.full((len(sockets), IDS), -1, np.int32),
        owners=np.full((len(sockets), IDS), -1, np.int32),
        **_batches(),
        events=np.zeros(DRAIN_MAX, EPOLL_EVENT),
        scratch_event=np.zeros(1, EPOLL_EVENT),
        **{f"ring_{name}": array for name, array in rings._asdict().items()},
        handed=np.zeros(2 * inflight_max, HANDED),
        returned=np.zeros(inflight_max, np.int32),
        carried=np.empty((CARRIED, BUFFER), np.uint8),
        random=np.zeros(RANDOM_BLOCK, np.uint8),
        scratch=np.zeros(8, np.int64),
        facts=new_facts(ANSWER_KEY),
        client=np.zeros(16, np.uint8),
    )


def _networks(access: AccessList, strict: AccessList, exempt: AccessList) -> dict[str, NDArray[Any]]:
    """Who may ask, who is in a strict group, and who has no limits."""
    lists = (("ranges", access), ("strict", strict), ("exempt", exempt))
    return {f"{name}{version}": one.ranges(version) for name, one in lists for version in (4, 6)}


def _bounds(limits: TrafficLimits) -> dict[str, NDArray[Any]]:
    """What counts and limits clients and domains."""
    return {
        "buckets": limits.buckets,
        "rates": limits.rates,
        "keyed": np.zeros(KEYED, np.uint8),
        "clients": np.zeros(HELD_CELLS, np.int32),
        "domains": np.zeros(HELD_CELLS, np.int32),
    }


def _batches() -> dict[str, NDArray[Any]]:
    """Buffers of one batch, and the headers that point to them."""
    inbox = np.empty((DRAIN_MAX, BUFFER), np.uint8)
    names, controls = np.zeros((DRAIN_MAX, _NAME_ROOM), np.uint8), np.zeros((DRAIN_MAX, CONTROL_ROOM), np.uint8)
    in_parts = np.zeros(DRAIN_MAX, PART)
    in_parts["base"], in_parts["size"] = _rows(inbox), BUFFER
    from_clients = _messages(in_parts)
    from_clients["name"], from_clients["control"] = _rows(names), _rows(controls)
    from_clients["name_size"], from_clients["control_size"] = ADDRESS_SIZE, CONTROL_ROOM
    to_clients_parts, to_upstream_parts = np.zeros(DRAIN_MAX, PART), np.zeros(DRAIN_MAX, PART)
    to_upstream, segments = _messages(to_upstream_parts), np.zeros((DRAIN_MAX, _SEGMENT.size), np.uint8)
    segments[:] = np.frombuffer(_SEGMENT.pack(SEGMENT_AT + 2, SOL_UDP, UDP_SEGMENT, 0), np.uint8)
    to_upstream["control"] = _rows(segments)
    return {
        "inbox": inbox,
        "in_parts": in_parts,
        "names": names,
        "controls": controls,
        "from_clients": from_clients,
        "from_upstream": _messages(in_parts),
        "to_clients": _messages(to_clients_parts),
        "to_clients_parts": to_clients_parts,
        "to_upstream": to_upstream,
        "segments": segments,
        "to_upstream_parts": to_upstream_parts,
        "to_upstream_slots": np.zeros(DRAIN_MAX, np.int32),
    }


def _rows(matrix: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Address of each row."""
    return np.uint64(matrix.ctypes.data) + np.arange(len(matrix), dtype=np.uint64) * np.uint64(matrix.strides[0])


def _messages(parts: NDArray[np.void]) -> NDArray[np.void]:
    """Headers of datagrams in one part each."""
    messages = np.zeros(len(parts), MESSAGE)
    first = np.uint64(parts.ctypes.data)
    messages["parts"] = first + np.arange(len(parts), dtype=np.uint64) * np.uint64(parts.itemsize)
    messages["parts_count"] = 1
    return messages


def _cells(inflight_max: int, limits: TrafficLimits, upstreams: int) -> NDArray[np.void]:
    cells = np.zeros(1, CELLS)
    cells["client_max"], cells["domain_max"], cells["upstream_max"] = shares_of(limits.shares, inflight_max, upstreams)
    cells["limits_responses"] = limits.limits_responses
    cells["inflight_max"] = cells["free"] = inflight_max
    cells["oldest"] = cells["newest"] = cells["target"] = -1
    cells["drawn"] = RANDOM_BLOCK
    return cells


def _upstreams(upstreams: Sequence[Upstream]) -> NDArray[np.void]:
    rows = np.zeros(len(upstreams), UPSTREAM)
    rows["chosen"], rows["pool"] = -1, -1
    for number, upstream in enumerate(upstreams):
        write_upstream(rows, number, upstream)
    return rows


def write_upstream(rows: NDArray[np.void], number: int, upstream: Upstream) -> None:
    """Write an upstream's address and state into its row."""
    row = rows[number]
    row["by_python"] = 1
    if not upstream.by_udp:
        return
    address = sockaddr(upstream.host, upstream.port)
    row["family"], row["address_size"] = int.from_bytes(address[:2], "little"), len(address)
    row["address"][: len(address)] = np.frombuffer(address, np.uint8)
    fence()
    row["by_python"] = 0


def zone_names(routes: Routes) -> NDArray[np.uint8]:
    """Zones, then special names, as the kernel `zone_of` takes them, in the order in which `routes` has them."""
    return rows_of_names([*routes.zones, *routes.special])


def rows_of_names(found: Sequence[bytes]) -> NDArray[np.uint8]:
    """Lower-case wire names as the kernel `zone_of` takes them."""
    rows = np.zeros((len(found), ZONE_WIDTH), np.uint8)
    for row, name in zip(rows, found, strict=True):
        row[0] = len(name)
        row[1 : len(name) + 1] = np.frombuffer(name, np.uint8)
    return rows


def _zone_upstreams(routes: Routes, upstreams: Sequence[Upstream]) -> NDArray[np.int32]:
    most = max((len(zone.upstreams) for zone in routes.zones.values()), default=0)
    rows = np.full((len(routes.zones), most), -1, np.int32)
    for row, zone in zip(rows, routes.zones.values(), strict=True):
        row[: len(zone.upstreams)] = [upstreams.index(upstream) for upstream in zone.upstreams]
    return rows


def sockaddr(host: str, port: int) -> bytes:
    """struct sockaddr_in (ip(7)) or sockaddr_in6 (ipv6(7)) of a textual address. Raises OSError."""
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    packed, number = socket.inet_pton(family, str(address[0]).partition("%")[0]), port.to_bytes(2)
    if family == socket.AF_INET:
        return _SOCKADDR4.pack(family, number, packed)
    return _SOCKADDR6.pack(family, number, address[2], packed, address[3])  # type: ignore[misc]


def peer_of(address: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    """The same as the socket module gives it."""
    if len(address) < ADDRESS_SIZE:
        _, port, packed = _SOCKADDR4.unpack(address)
        return socket.inet_ntop(socket.AF_INET, packed), int.from_bytes(port)
    _, port, flow, packed, scope = _SOCKADDR6.unpack(address)
    return socket.inet_ntop(socket.AF_INET6, packed), int.from_bytes(port), socket.ntohl(flow), scope


_AT_ONCE = 256
"""Queries taken over before the event loop may do something else."""
_SLOW_S = 1.0
_CONTROL = Struct("=Qii")  # struct cmsghdr of cmsg(3)
_log = structlog.get_logger()


class Datapath:
    """Serves UDP ports from `start` to `stop`. Rare queries go to the forwarder, finished ones into the ring."""

    def __init__(
        self,
        ports: list[UdpPort],
        routes: Routes,
        access: AccessList,
        strict: AccessList,
        forwarder: Forwarder,
        counters: Counters,
        *,
        timeout_s: float,
        inflight_max: int,
        limits: TrafficLimits,
        retry_failed: bool,
        answer_here: Callable[[Pending, AnsweredHere], None],
        admit: Callable[[Pending, Zone], None],
        blocked: tuple[Sequence[bytes], Callable[[Pending], None]] = ((), lambda pending: None),
        uses_max: int,
        age_max_s: float,
        ring: Rings,
        cache: AnswerCache,
        outgoing: Outgoing,
    ) -> None:
        self._ports, self._forwarder, self._answer_here, self._admit = ports, forwarder, answer_here, admit
        self._zones, self._special = list(routes.zones.values()), list(routes.special.values())
        self._zone_rows, (names, self._admit_blocked) = zone_names(routes), blocked
        self._upstreams = list(routes.upstreams.values())
        elsewhere = np.frombuffer(forwarder.waiting, np.int64)
        self._state: DatapathState = make_state(
            ports, routes, access, strict, limits, elsewhere, inflight_max, ring.arrays, counters, cache.state
        )._replace(zones=self._rows(names))
        cache.guard = _CacheGuard(cache.state)
        self._held: dict[int, tuple[Pending, Upstream | None]] = {}
        self._cells: dict[str, NDArray[np.int64]] = {
            name: self._state.cells[name] for name in self._state.cells.dtype.names or ()
        }
        self._set("timeout_ns", int(timeout_s * 1e9))
        self._set("uses_max", uses_max)
        self._set("retry_failed", int(retry_failed))
        self._normalised = outgoing.normalised
        self._set("normalised", int(outgoing.normalised))
        for name, bits in zip(("prefix4", "prefix6"), outgoing.prefixes, strict=True):
            self._set(name, bits)
        self._set("stale_wait_ns", int(cache.limits.stale_wait_s * 1e9) if cache.limits.serves_stale else 0)
        self._set("age_max_ns", int(age_max_s * 1e9))
        self._thread: Thread | None = None

    @property
    def inflight(self) -> int:
        """Queries in flight: those that wait here, and those that the forwarder has from here."""
        # In this order a query that ends meanwhile counts twice at worst, and is never missed.
        taken = len(self._state.slots) - self._get("free")
        return taken - (self._get("returned_head") - self._get("returned_tail"))

    def refresh(self) -> None:
        """Take over addresses and states of the upstreams."""
        for number, upstream in enumerate(self._upstreams):
            write_upstream(self._state.upstreams, number, upstream)

    def use_answer_key(self, key: Key) -> None:
        """Hash answers under another key from now on."""
        self._state.facts[KEY:] = key

    def start(self) -> None:
        """Compile, or load what was compiled before, and serve."""
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._wake, self._bell = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2))
        for name, fd in (("epoll", self._epoll.fileno()), ("wake", self._wake), ("bell", self._bell)):
            self._set(name, fd)
        self._compile()
        watched = [(self._wake, WAKE_EVENT), *((port.sock.fileno(), at) for at, port in enumerate(self._ports))]
        for fd, data in watched:
            watch(self._epoll.fileno(), fd, data, self._state.scratch_event)
        self._loop.add_reader(self._bell, self._on_bell)
        self._run()

    def _compile(self) -> None:
        begun = time.monotonic()
        _log.debug("datapath_loading")
        self._set("stop", 1)
        pump(self._state)
        self._set("stop", 0)
        took = time.monotonic() - begun
        if took > _SLOW_S:
            _log.info("datapath_compiled", seconds=round(took, 1), hint="the next start finds it in the cache")

    def watch_for(self, clients: AccessList, names: Sequence[bytes]) -> None:
        """From now on hand on every query of these clients, and those below these names.

        The kernels stand still for less than a millisecond meanwhile; what is asked then waits in the sockets.
        """
        running = self._thread is not None
        if running:
            self._halt()
        self._state = self._state._replace(
            strict4=clients.ranges(4), strict6=clients.ranges(6), zones=self._rows(names)
        )
        if running:
            self._set("stop", 0)
            self._run()

    def _rows(self, names: Sequence[bytes]) -> NDArray[np.uint8]:
        """Zones and special names as kernels take them, and behind them `names`."""
        return np.vstack([self._zone_rows, rows_of_names(names)])

    def _run(self) -> None:
        self._thread = Thread(target=pump, args=(self._state,), name="datapath", daemon=True)
        self._thread.start()

    def _halt(self) -> None:
        assert self._thread is not None
        self._set("stop", 1)
        os.eventfd_write(self._wake, 1)
        self._thread.join()

    def leave_ports(self) -> None:
        """Take no more queries; those in flight go on."""
        for port in self._ports:
            self._epoll.unregister(port.sock)

    def stop(self) -> None:
        """Take no more queries, give up those in flight, close the sockets to the upstreams."""
        if self._thread is None:
            return
        self._halt()
        self._loop.remove_reader(self._bell)
        while self._get("handed_tail") < self._get("handed_head"):
            self._take_handed()
        while (number := self._get("oldest")) >= 0:
            self._set("oldest", int(self._state.slots[number]["newer"]))
            self._forwarder.abandon(self._pending(number))
        for fd in self._state.sockets["fd"].tolist():
            if fd >= 0:
                os.close(fd)
        self._epoll.close()
        os.close(self._wake)
        os.close(self._bell)

    def _get(self, name: str) -> int:
        return int(self._cells[name][0])

    def _set(self, name: str, value: int) -> None:
        self._cells[name][0] = value

    def _on_bell(self) -> None:
        os.eventfd_read(self._bell)
        self._take_handed()

    def _take_handed(self) -> None:
        """Take over the queries that the kernels handed on."""
        self._set("called", 0)
        fence()
        head, tail, ring = self._get("handed_head"), self._get("handed_tail"), self._state.handed
        fence()
        if head - tail > _AT_ONCE:
            head = tail + _AT_ONCE
            self._loop.call_soon(self._take_handed)
        for at in range(tail, head):
            reason, number, carried, size = ring[at % len(ring)].item()
            bytes_ = self._state.carried[carried, :size].tobytes() if carried >= 0 else b""
            if carried >= 0:
                self._set("carried_tail", self._get("carried_tail") + 1)
            if reason == LATE:
                self._take_late(number, bytes_)
            else:
                self._take_over(number, reason, bytes_)
            self._set("handed_tail", at + 1)

    def _take_late(self, number: int, answer: bytes) -> None:
        """An answer to a query that was taken over; nobody waits for it where that has ended."""
        pending, upstream = self._held.get(number, (None, None))
        if pending and upstream:
            self._forwarder.answer(upstream, pending, answer)

    def _take_over(self, number: int, reason: int, answer: bytes) -> None:
        pending = self._pending(number, answer if reason in (LONG, LOCAL, STRICT) and answer else None)
        beyond = int(self._state.slots[number]["zone"]) - len(self._zones)
        self._held[number] = pending, None if beyond >= 0 else pending.upstream
        if beyond >= len(self._special):
            self._admit_blocked(pending)
        elif beyond >= 0:
            self._answer_here(pending, self._special[beyond])
        elif reason == STRICT:
            self._admit(pending, pending.zone)
        elif reason in (LONG, ELSEWHERE):
            self._forwarder.submit(pending)
        elif reason == OVERDUE:
            self._forwarder.go_on(pending)
        elif reason in (TRUNCATED, FAILED, ODD):
            self._forwarder.resume(pending, answer)
        elif reason == FORGED:
            self._forwarder.distrust(pending)
        else:
            assert reason in (TIMED_OUT, UNSENT)
            self._forwarder.resubmit(pending, timed_out=reason == TIMED_OUT)

    def give_back(self, number: int) -> None:
        """The query that was taken over has ended: its slot is free."""
        self._held.pop(number, None)
        head = self._get("returned_head")
        self._state.returned[head % len(self._state.returned)] = number
        fence()
        self._set("returned_head", head + 1)

    def _pending(self, number: int, query: bytes | None = None) -> Pending:
        """The query of a slot as the forwarder knows it. `query`: its bytes, if the slot does not hold them."""
        slot = self._state.slots[number]
        message = slot["query"][: slot["size"]].tobytes() if query is None else query
        message = int(slot["id"]).to_bytes(2) + message[2:]
        end = int(slot["end"])
        sent = message[wire.HEADER_SIZE : end - 4]
        if self._normalised:  # PLAIN upstreams were sent a part of it
            name = slot["name"][: len(sent)].tobytes()
            message = message[: wire.HEADER_SIZE - 1] + b"\1" + name + message[end - 4 :]
        port = self._ports[slot["port"]]
        peer = peer_of(slot["address"][: slot["address_size"]].tobytes())
        back: Any = (peer, _ancillary(slot["control"][: slot["control_size"]].tobytes())) if port.wildcard else peer
        pending = Pending(message, end, client_bytes(peer[0]), port, back, True, float(slot["ts"]))
        if slot["zone"] < len(self._zones):
            pending.route_to(self._zones[slot["zone"]], int(slot["current"]))
        pending.started, pending.slot, pending.exempt = int(slot["started"]) / 1e9, number, bool(slot["exempt"])
        pending.received, pending.payload = int(slot["received"]), int(slot["payload"])
        if self._normalised:
            pending.name, pending.flags = sent, int(slot["flags"])
        pending.bits, pending.stale, pending.silent = int(slot["bits"]), bool(slot["stale"]), bool(slot["silent"])
        return pending


class _CacheGuard:
    """The lock of a cache, as a context; the pump has it for microseconds."""

    def __init__(self, cache: CacheState) -> None:
        self._cells = cache.cells

    def __enter__(self) -> None:
        while not try_lock(self._cells):
            continue

    def __exit__(self, *_: object) -> None:
        unlock(self._cells)


def _ancillary(control: bytes) -> list[tuple[int, int, bytes]]:
    """Control data as the socket module's sendmsg takes it."""
    if not control:
        return []
    size, level, kind = _CONTROL.unpack_from(control)
    return [(level, kind, control[_CONTROL.size : size])]


def load_datapath() -> None:
    """Compile the kernels, or load them from the cache; nothing where they cannot be used."""
    if not can_compile():
        return
    routes, access = Routes([("", [("127.0.0.1", 53)])]), AccessList(["127.0.0.0/8"])
    ring = Rings(memoryview(bytearray(Rings.size_of(1, 1))), 1)
    ring.put(bytes(RECORD.itemsize))  # what TCP and rare queries take
    limits, elsewhere = default_limits(), np.zeros(1, np.int64)
    cache = AnswerCache(CacheLimits(), Counters())
    state = make_state([], routes, access, AccessList([]), limits, elsewhere, 1, ring.arrays, Counters(), cache.state)
    state.cells["stop"] = 1
    pump(state)
    message = np.zeros(wire.HEADER_SIZE, np.uint8)  # as server.py reads an answer
    answer_facts(message, 0, wire.HEADER_SIZE, len(message), new_facts(ANSWER_KEY))
    limits.on_query(bytes(16))  # as the event loop calls them
    limits.on_response(bytes(16), domain_of(b"\1a"), 1, wire.NOERROR)
    load_cache()
    with _CacheGuard(cache.state):
        pass
    watch(-1, -1, 0, state.scratch_event)  # as it is called from Python; there is no such file
