"""The UDP datapath in compiled code: datagrams received, answered or sent upstream, matched, recorded, sent back.

One thread runs `pump`. It takes datagrams in batches (recvmmsg), decides about each query as server.py does, puts the
ones to forward into slots, and sends them on random ids over pools of sockets as forwarder.py does. An answer finds its
slot by socket and id, is written into the ring as a RECORD, and goes back to the client. Rare queries (see HANDED) are
handed to Python; each keeps its slot and its id until Python gives it back, so that a late answer finds it. server.py,
forwarder.py and upstream.py are the definition.
"""

from __future__ import annotations

import platform
from errno import EAGAIN, ECONNREFUSED, EINTR
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from agents.core.column_kernels import siphash
from agents.core.jit import kernel, kernel_in_place
from agents.core.types import FORWARDED, FROM_CACHE, FROM_CACHE_STALE
from agents.dns.message import (
    AD,
    AXFR,
    BADVERS,
    CD,
    DO,
    FORMERR,
    HEADER_SIZE,
    IN,
    IXFR,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    OPCODE,
    OPT,
    OPT_HEAD,
    PLAIN_UDP_SIZE,
    QR,
    RA,
    RD,
    REFUSED,
    SERVFAIL,
    TC,
    UDP_SIZE,
)
from agents.dns.message_kernels import (
    OPT_CLASS,
    OPT_END,
    OPT_NUMBER,
    OPT_START,
    OPT_TTL,
    answer_facts,
    copy_bytes,
    int64,
    normalise,
    question_end,
    strip_hop_by_hop,
    u16,
    uint64,
    write_facts,
)
from agents.dns.name import NAME_MAX
from agents.sources.listener.cache_kernels import (
    CACHE_CELLS,
    EXPIRED,
    HIT,
    MISS,
    CacheState,
    find_answer,
    is_due,
    keep_answer,
    query_bits,
    write_answer,
)
from agents.sources.listener.sockets import DRAIN_MAX
from agents.sources.listener.traffic_kernels import (
    ADDRESS,
    DISCARD,
    KIND,
    PASS,
    domain_at,
    limit_query,
    limit_response,
    mask_network,
)
from agents.sources.listener.upstream import BIND_TRIES, FOLDS, NEAR_MISSES_MAX, PLAIN, POOL_SIZE, PORT_MIN
from agents.stream.ring import DROPPED, HEAD, SLEEPING, TAIL
from agents.stream.ring_kernels import admits
from agents.stream.slot_kernels import slot_of_query

# Structures of the system calls.

MESSAGE = np.dtype(
    [
        ("name", np.uint64),
        ("name_size", np.uint64),  # socklen_t and its padding
        ("parts", np.uint64),
        ("parts_count", np.uint64),
        ("control", np.uint64),
        ("control_size", np.uint64),
        ("flags", np.uint64),  # int and its padding
        ("size", np.uint64),  # unsigned int and its padding
    ]
)
"""struct mmsghdr of recvmmsg(2)."""
PART = np.dtype([("base", np.uint64), ("size", np.uint64)])
"""struct iovec of readv(2)."""
EPOLL_EVENT = np.dtype(
    [("events", np.uint32), ("data", np.uint64)], align=platform.machine() not in ("x86_64", "AMD64")
)
"""struct epoll_event of epoll_ctl(2): packed on x86-64 alone."""


# Structures of the datapath.

BUFFER = 65_536 + 192
"""Bytes of a receive buffer: no UDP datagram is longer. Pages that nothing was received into cost no memory.
No power of two, so that the beginnings of all buffers do not compete for the same lines of the processor's cache."""
QUERY_MAX = PLAIN_UDP_SIZE
"""Bytes of a query that a slot holds. Longer ones go to Python."""
ADDRESS_SIZE = 28
"""struct sockaddr_in6; sockaddr_in has 16 (ip(7), ipv6(7))."""
CONTROL_SIZE = 40
"""One IPV6_PKTINFO with its header (ipv6(7)); IP_PKTINFO has 32 (ip(7))."""
CONTROL_ROOM = 64
"""Bytes that control data is received into."""
SEGMENT_AT = 16
"""Where the size of UDP_SEGMENT begins, two bytes, behind its struct cmsghdr (cmsg(3))."""
IDS = 1024
"""Places for the ids of one upstream socket: twice what it asks in its life, so that a place is found at once."""
ZONE_WIDTH = 256
"""Bytes of a row: the size of a zone's name (at most 254), then the name in wire form, lower case."""
NONE = -1
SLOT = np.dtype(
    [
        ("ts", np.float64),  # Unix seconds
        ("started", np.int64),  # monotonic nanoseconds
        ("older", np.int32),  # neighbours in order of arrival, -1 = none
        ("newer", np.int32),
        ("socket", np.int32),
        ("entry", np.int32),  # place among the socket's ids
        ("zone", np.int32),
        ("current", np.int32),  # index of the upstream within its zone
        ("port", np.int32),
        ("state", np.int32),  # FREE, WAITING or WITH_PYTHON
        ("upstream", np.int32),  # that it was sent to
        ("client_cell", np.int32),  # places in HELD
        ("domain_cell", np.int32),
        ("exempt", np.int32),  # 1 = the client has no limits
        ("bits", np.int32),  # of the query, see cache_kernels.query_bits
        ("stale", np.int32),  # 1 = the cache has an expired answer
        ("silent", np.int32),  # 1 = no client waits: the answer is for the cache
        ("flags", np.int32),  # RD and AD as the answer may have them, -1 = as it comes
        ("payload", np.int32),  # UDP answer that the client takes, 0 = it sent no OPT
        ("received", np.int32),  # bytes of the query as it came
        ("size", np.int32),  # of the query as it is sent
        ("end", np.int32),  # of its question
        ("address_size", np.int32),
        ("control_size", np.int32),
        ("id", np.uint16),  # the client's
        ("address", np.uint8, (ADDRESS_SIZE,)),
        ("control", np.uint8, (CONTROL_SIZE,)),
        ("name", np.uint8, (NAME_MAX + 1,)),  # as the client asked it; `query` has it as it is sent
        ("query", np.uint8, (QUERY_MAX,)),
    ],
    align=True,
)
"""One query in flight."""
FREE, WAITING, WITH_PYTHON = range(3)
"""States of a slot."""
TIMED_OUT, UNSENT, TRUNCATED, LONG, FAILED, ODD, LATE, FORGED, LOCAL, ELSEWHERE, OVERDUE, STRICT = range(1, 13)
"""Reasons to hand a query to Python: no answer in time, not sent or refused, answered with TC, above QUERY_MAX,
SERVFAIL or REFUSED, an answer without the question as it was sent, an answer to a query that Python has, too many
forged answers on its socket, a special name, an upstream that is not asked over UDP now, no answer yet where an
expired one is cached, and a client in a strict group."""
HELD_CELLS = 1 << 16
"""Cells that count the queries in flight of clients, and of domains. Two that share one share its bound: by a secret
key, so nobody can choose whom to meet."""
HANDED = np.dtype([("reason", np.int32), ("slot", np.int32), ("carried", np.int32), ("size", np.int32)])
"""A query that Python takes over; `carried` = the row of DatapathState.carried with the bytes, or -1."""
ASKED = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("port", "place", "size", "end", "zone", "exempt", "payload", "received", "now"),
            *("bits", "stale", "silent", "flags", "strict"),
        )
    ]
    + [("ts", np.float64)]
)
"""The query at hand: where it came in, the place of its bytes in the batch, and what a SLOT takes from it."""
PORT = np.dtype([("fd", np.int32), ("v6", np.int32), ("wildcard", np.int32), ("probe", np.int32)])
"""One UDP socket with clients behind it; probe: not 0 where only the supervisor asks (sockets.UdpPort)."""
UPSTREAM = np.dtype(
    [
        ("family", np.int32),
        ("address_size", np.int32),
        ("chosen", np.int32),  # socket of this batch, -1 = none yet
        ("whole", np.int32),  # 1 = it has refused a message that was to be cut up
        ("by_python", np.int32),  # 1 = its queries are Python's: no UDP, no address yet, or a loop
        ("held", np.int32),  # queries in flight
        ("pool", np.int32, (POOL_SIZE,)),  # sockets, -1 = none
        ("address", np.uint8, (ADDRESS_SIZE,)),
    ],
    align=True,
)
SOCKET = np.dtype(
    [
        ("born", np.int64),  # monotonic nanoseconds
        ("fd", np.int32),  # -1 = this entry is free
        ("upstream", np.int32),
        ("place", np.int32),  # in the upstream's pool, -1 = retired
        ("uses", np.int32),
        ("pending", np.int32),
        ("misses", np.int32),  # datagrams that may be guesses of an id
    ],
    align=True,
)
CELLS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("epoll", "wake", "bell", "stop", "called"),
            *(
                "timeout_ns",
                "uses_max",
                "age_max_ns",
                "inflight_max",
                "retry_failed",
                "limits_responses",
                "stale_wait_ns",
                "normalised",
                "prefix4",
                "prefix6",
            ),
            *("client_max", "domain_max", "upstream_max"),
            *("active", "free", "oldest", "newest", "swept"),
            *("target", "outgoing", "replies", "drawn", "recorded", "answered"),
            *("handed_head", "handed_tail"),
            *("returned_head", "returned_tail", "carried_head", "carried_tail"),
        )
    ]
)
"""Single numbers: file descriptors and flags; settings; the table of slots; the batch at hand; the rings."""


class DatapathState(NamedTuple):
    """All arrays. n = queries in flight at most, s = sockets at once, z = zones, u = upstreams."""

    cells: NDArray[Any]  # CELLS, (1,)
    counted: NDArray[Any]  # (1,), with the fields of stream/counters.Counters
    elsewhere: NDArray[np.int64]  # (1,): queries in flight that Python forwards
    cache: CacheState
    asked: NDArray[Any]  # ASKED, (1,)
    ports: NDArray[Any]  # PORT
    upstreams: NDArray[Any]  # UPSTREAM, (u,)
    failures: NDArray[np.int64]  # (u,), shared with Routes
    preferred: NDArray[np.int64]  # (z,), shared with Routes
    mismatched: NDArray[np.int64]  # (u,), shared with Routes: datagrams of each that answered nothing
    quirks: NDArray[np.int64]  # (u,), shared with Routes
    zones: NDArray[np.uint8]  # (z + special names, ZONE_WIDTH)
    zone_upstreams: NDArray[np.int32]  # (z, most upstreams of a zone)
    ranges4: NDArray[np.uint64]  # see `allowed`
    ranges6: NDArray[np.uint64]
    exempt4: NDArray[np.uint64]  # without limits
    exempt6: NDArray[np.uint64]
    strict4: NDArray[np.uint64]  # in strict groups
    strict6: NDArray[np.uint64]
    buckets: NDArray[Any]  # traffic_kernels.BUCKET
    rates: NDArray[Any]  # traffic_kernels.RATES, (1,)
    keyed: NDArray[np.uint8]  # (traffic_kernels.KEYED,)
    clients: NDArray[np.int32]  # (HELD_CELLS,)
    domains: NDArray[np.int32]  # (HELD_CELLS,)
    slots: NDArray[Any]  # SLOT, (n,)
    free: NDArray[np.int32]  # (n,): a stack of free slots, CELLS.free of them
    sockets: NDArray[Any]  # SOCKET, (s,)
    ids: NDArray[np.int32]  # (s, IDS): open addressing; -1 = never used
    owners: NDArray[np.int32]  # (s, IDS): the slot, -1 = answered
    inbox: NDArray[np.uint8]  # (DRAIN_MAX, BUFFER)
    in_parts: NDArray[Any]  # PART, (DRAIN_MAX,)
    names: NDArray[np.uint8]  # (DRAIN_MAX, 32): clients' addresses
    controls: NDArray[np.uint8]  # (DRAIN_MAX, CONTROL_ROOM)
    from_clients: NDArray[Any]  # MESSAGE, (DRAIN_MAX,)
    from_upstream: NDArray[Any]  # MESSAGE, (DRAIN_MAX,)
    to_clients: NDArray[Any]  # MESSAGE, (DRAIN_MAX,)
    to_clients_parts: NDArray[Any]  # PART, (DRAIN_MAX,)
    to_upstream: NDArray[Any]  # MESSAGE, (DRAIN_MAX,)
    to_upstream_parts: NDArray[Any]  # PART, (DRAIN_MAX,)
    to_upstream_slots: NDArray[np.int32]  # (DRAIN_MAX,)
    segments: NDArray[np.uint8]  # (DRAIN_MAX, 24): control data of to_upstream, one UDP_SEGMENT each
    events: NDArray[Any]  # EPOLL_EVENT, (DRAIN_MAX,)
    scratch_event: NDArray[Any]  # EPOLL_EVENT, (1,)
    ring_numbers: NDArray[np.int64]  # see stream/rings.RingsArrays; n = detectors
    ring_records: NDArray[Any]
    ring_bells: NDArray[np.int64]
    ring_recorded: NDArray[np.int64]
    ring_backlog: NDArray[np.int32]
    ring_counted: NDArray[np.int64]
    ring_key: NDArray[np.uint64]
    ring_parted: NDArray[np.uint64]
    handed: NDArray[Any]  # HANDED, a ring of 2n
    returned: NDArray[np.int32]  # (n,), a ring
    carried: NDArray[np.uint8]  # (…, BUFFER), a ring
    random: NDArray[np.uint8]  # a block of the kernel's random bytes
    scratch: NDArray[np.int64]  # (8,)
    facts: NDArray[np.int64]  # (message_kernels.FACTS,)
    client: NDArray[np.uint8]  # (16,), scratch space


def offset_of(dtype: np.dtype[Any], name: str) -> int:
    """Bytes from the start of a structure to one of its fields."""
    assert dtype.fields
    return dtype.fields[name][1]


_SLOT_ADDRESS_AT, _CONTROL_AT = offset_of(SLOT, "address"), offset_of(SLOT, "control")
_QUERY_AT = offset_of(SLOT, "query")
_UPSTREAM_ADDRESS_AT = offset_of(UPSTREAM, "address")


# libc.

SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 | 0o4000 | 0o2000000
EPOLL_CTL_ADD, EPOLLIN = 1, 1
CLOCK_REALTIME, CLOCK_MONOTONIC = 0, 1


def _call(name: str, result: Any, *arguments: Any) -> Any:
    return types.ExternalFunction(name, result(*arguments))


_int, _size, _pointer = types.int32, types.intp, types.uintp
recvmmsg = _call("recvmmsg", _int, _int, _pointer, types.uint32, _int, _pointer)
sendmmsg = _call("sendmmsg", _int, _int, _pointer, types.uint32, _int)
epoll_wait = _call("epoll_wait", _int, _int, _pointer, _int, _int)
epoll_ctl = _call("epoll_ctl", _int, _int, _int, _int, _pointer)
c_socket = _call("socket", _int, _int, _int, _int)
c_bind = _call("bind", _int, _int, _pointer, types.uint32)
c_connect = _call("connect", _int, _int, _pointer, types.uint32)
c_close = _call("close", _int, _int)
c_write = _call("write", _size, _int, _pointer, _size)
c_read = _call("read", _size, _int, _pointer, _size)
getrandom = _call("getrandom", _size, _pointer, _size, types.uint32)
_clock_gettime = _call("clock_gettime", _int, _int, _pointer)
_errno_location = types.ExternalFunction("__errno_location", types.CPointer(types.int32)())  # type: ignore[no-untyped-call]


@intrinsic
def _read(typing_context: Any, pointer: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(arguments[0])

    return types.int32(pointer), generate


@kernel_in_place
def errno() -> int:
    """Why the call before this one failed."""
    return _read(_errno_location())  # type: ignore[call-arg]


@kernel_in_place
def clock_ns(clock: int, scratch: Any) -> int:
    """Nanoseconds on a clock of clock_gettime(2). scratch: int64 of length 2."""
    _clock_gettime(clock, scratch.ctypes.data)
    return scratch[0] * 1_000_000_000 + scratch[1]  # type: ignore[no-any-return]


@kernel_in_place
def watch(epoll: int, fd: int, data: int, event: Any) -> bool:
    """Have epoll_wait report `data` when fd can be read. event: EPOLL_EVENT of length 1, scratch memory."""
    event[0].events, event[0].data = EPOLLIN, data
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, event.ctypes.data) == 0  # type: ignore[no-any-return]


@intrinsic
def _fence(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@kernel_in_place
def fence() -> None:
    """Order memory: a reader that sees a later store sees all earlier ones, on every processor."""
    _fence()  # type: ignore[call-arg]


_LOCK_AT = offset_of(CACHE_CELLS, "lock")


@intrinsic
def _exchange(typing_context: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], arguments[1].type.as_pointer())
        return builder.atomic_rmw("xchg", pointer, arguments[1], "seq_cst")

    return types.int64(types.uintp, types.int64), generate


@kernel_in_place
def try_lock(cells: Any) -> bool:
    """Take the lock of a cache's cells; False where the other thread has it. It is never waited for here."""
    return _exchange(cells.ctypes.data + _LOCK_AT, 1) == 0  # type: ignore[call-arg]


@kernel_in_place
def unlock(cells: Any) -> None:
    """Give the lock back."""
    _exchange(cells.ctypes.data + _LOCK_AT, 0)  # type: ignore[call-arg]


# Slots: queries in flight, and those handed to Python and back.


@kernel_in_place
def inflight(s: DatapathState) -> int:
    """Queries in flight: in slots, and those that Python alone has."""
    return len(s.slots) - s.cells[0].free + s.elsewhere[0]  # type: ignore[no-any-return]


@kernel_in_place
def reclaim_slots(s: DatapathState) -> None:
    """Slots that Python gave back are free again."""
    c = s.cells[0]
    while c.returned_tail < c.returned_head:
        fence()
        number = s.returned[c.returned_tail % len(s.returned)]
        free_id(s, number)
        release(s, number)
        c.returned_tail += 1


@kernel_in_place
def take_slot(s: DatapathState) -> int:
    """A free slot, or NONE."""
    c = s.cells[0]
    if c.free == 0:
        return NONE
    c.free -= 1
    return s.free[c.free]  # type: ignore[no-any-return]


@kernel_in_place
def release(s: DatapathState, number: int) -> None:
    """The slot is free, and so is its part of the shares."""
    c, slot = s.cells[0], s.slots[number]
    s.clients[slot.client_cell] -= 1
    s.domains[slot.domain_cell] -= 1
    if slot.upstream >= 0:
        s.upstreams[slot.upstream].held -= 1
    slot.state = FREE
    s.free[c.free] = number
    c.free += 1


@kernel_in_place
def link(s: DatapathState, number: int) -> None:
    """The slot is in flight, as the newest."""
    c, slot = s.cells[0], s.slots[number]
    slot.older, slot.newer, slot.state = c.newest, NONE, WAITING
    if c.newest >= 0:
        s.slots[c.newest].newer = number
    else:
        c.oldest = number
    c.newest = number
    c.active += 1


@kernel_in_place
def unlink(s: DatapathState, number: int) -> None:
    """The slot waits here no more."""
    c, slot = s.cells[0], s.slots[number]
    if slot.older >= 0:
        s.slots[slot.older].newer = slot.newer
    else:
        c.oldest = slot.newer
    if slot.newer >= 0:
        s.slots[slot.newer].older = slot.older
    else:
        c.newest = slot.older
    slot.state = WITH_PYTHON
    c.active -= 1


@kernel_in_place
def free_id(s: DatapathState, number: int) -> None:
    """No answer is expected for the slot any more: its id is free."""
    slot = s.slots[number]
    if slot.socket >= 0:
        s.owners[slot.socket, slot.entry] = NONE
        s.sockets[slot.socket].pending -= 1
        slot.socket = NONE


@kernel_in_place
def hand_over(s: DatapathState, number: int, reason: int, carried: int, size: int) -> None:
    """Python takes the slot over. The ring has room for every slot there is."""
    c = s.cells[0]
    handed = s.handed[c.handed_head % len(s.handed)]
    handed.reason, handed.slot, handed.carried, handed.size = reason, number, carried, size
    fence()
    c.handed_head += 1
    ring(s)


@kernel_in_place
def give_up(s: DatapathState, number: int, reason: int) -> None:
    """A query in flight goes to Python without an answer. After a time-out a late one may still come."""
    if reason != TIMED_OUT and reason != OVERDUE:
        free_id(s, number)
    unlink(s, number)
    hand_over(s, number, reason, NONE, 0)


@kernel_in_place
def give_answer(s: DatapathState, number: int, reason: int, message: Any, size: int) -> bool:
    """A query and its answer go to Python; False if Python has too much to do."""
    row = copy_for_python(s, message, size)
    if row == NONE:
        return False
    if reason != ODD:
        free_id(s, number)
    if s.slots[number].state == WAITING:
        unlink(s, number)
    hand_over(s, number, reason, row, size)
    return True


@kernel_in_place
def copy_for_python(s: DatapathState, message: Any, size: int) -> int:
    """Keep the bytes for Python; their row, or NONE if all are taken."""
    c = s.cells[0]
    if c.carried_head - c.carried_tail >= len(s.carried) or size > BUFFER:
        return NONE
    row = c.carried_head % len(s.carried)
    copy_bytes(s.carried[row], 0, message, 0, size)
    c.carried_head += 1
    return row  # type: ignore[no-any-return]


@kernel_in_place
def ring(s: DatapathState) -> None:
    """Wake Python for queries that were handed over, unless a call is under way."""
    c = s.cells[0]
    fence()
    if c.called == 0:
        c.called = s.scratch[7] = 1
        c_write(c.bell, s.scratch[7:].ctypes.data, 8)


# Sockets to the upstreams, and the ids on them.

UPSTREAM_EVENT = 1 << 33
"""Marks events of upstream sockets; the number of the socket is added."""


@kernel_in_place
def draw(s: DatapathState) -> int:
    """A random number 0..65535 from the kernel's generator, read in blocks: one system call per 2,048."""
    c = s.cells[0]
    if c.drawn + 2 > len(s.random):
        while getrandom(s.random.ctypes.data, len(s.random), 0) != len(s.random):
            continue
        c.drawn = 0
    c.drawn += 2
    return u16(s.random, c.drawn - 2)


@kernel_in_place
def choose_socket(s: DatapathState, upstream: int, now: int) -> int:
    """A random socket of the pool, fresh where it is due; NONE if none can be opened."""
    pool = s.upstreams[upstream].pool
    place = draw(s) % POOL_SIZE
    number = pool[place]
    if number >= 0 and s.sockets[number].uses < s.cells[0].uses_max:
        return number  # type: ignore[no-any-return]
    if number >= 0:
        s.sockets[number].place = NONE
    pool[place] = fresh = _open(s, upstream, place, now)
    return fresh


@kernel_in_place
def _open(s: DatapathState, upstream: int, place: int, now: int) -> int:
    number = 0
    while number < len(s.sockets) and s.sockets[number].fd >= 0:
        number += 1
    if number == len(s.sockets):
        return NONE
    server = s.upstreams[upstream]
    fd = c_socket(server.family, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0)
    if fd < 0:
        return NONE
    _bind_random(s, fd, server.family, server.address_size)
    address = int64(s.upstreams.ctypes.data) + upstream * s.upstreams.itemsize
    connected = c_connect(fd, address + _UPSTREAM_ADDRESS_AT, server.address_size) == 0
    if not (connected and watch(s.cells[0].epoll, fd, UPSTREAM_EVENT + number, s.scratch_event)):
        c_close(fd)
        return NONE
    socket = s.sockets[number]
    socket.fd, socket.upstream, socket.place, socket.uses, socket.pending, socket.born = fd, upstream, place, 0, 0, now
    socket.misses = 0
    s.ids[number, :] = NONE
    s.owners[number, :] = NONE
    return number


@kernel_in_place
def _bind_random(s: DatapathState, fd: int, family: int, size: int) -> None:
    """Bind to a random unprivileged port; the kernel chooses (at random too) if luck is bad."""
    s.scratch[:4] = 0
    for attempt in range(BIND_TRIES + 1):
        port = draw(s) if attempt < BIND_TRIES else 0
        if 0 < port < PORT_MIN:
            continue
        # struct sockaddr_in and sockaddr_in6 begin alike: family as the machine has it, port in network order.
        s.scratch[0] = family | (port >> 8) << 16 | (port & 0xFF) << 24
        if c_bind(fd, s.scratch.ctypes.data, size) == 0:
            return


@kernel_in_place
def claim_id(s: DatapathState, socket: int, slot: int) -> int:
    """A random id that no pending query on the socket has, entered for the slot."""
    while True:
        ident = draw(s)
        entry = ident % IDS
        while s.ids[socket, entry] not in (NONE, ident):
            entry = (entry + 1) % IDS
        if s.owners[socket, entry] == NONE:
            s.ids[socket, entry] = ident
            s.owners[socket, entry] = slot
            s.sockets[socket].uses += 1
            s.sockets[socket].pending += 1
            s.slots[slot].socket, s.slots[slot].entry = socket, entry
            return ident


@kernel_in_place
def owner_of(s: DatapathState, socket: int, ident: int) -> int:
    """The slot whose query has this id on this socket, or NONE."""
    entry = ident % IDS
    while s.ids[socket, entry] != ident:
        if s.ids[socket, entry] == NONE:
            return NONE
        entry = (entry + 1) % IDS
    return s.owners[socket, entry]  # type: ignore[no-any-return]


@kernel_in_place
def was_asked(s: DatapathState, socket: int, ident: int) -> bool:
    """Whether a query on the socket had this id: then a second answer is no guess."""
    entry = ident % IDS
    while s.ids[socket, entry] != ident:
        if s.ids[socket, entry] == NONE:
            return False
        entry = (entry + 1) % IDS
    return True


@kernel_in_place
def fail_over(s: DatapathState, socket: int, reason: int) -> None:
    """No query on the socket gets its answer there: they go to Python."""
    for entry in range(IDS):
        number = s.owners[socket, entry]
        if number >= 0 and s.slots[number].state == WAITING:
            give_up(s, number, reason)
        elif number >= 0:
            free_id(s, number)


@kernel_in_place
def note_mismatch(s: DatapathState, socket: int, message: Any, size: int) -> bool:
    """Count a datagram that answers nothing; True if the socket is given up, as forwarder.py does.

    A second answer to an id that was asked here may be a copy; all else may be a guess.
    """
    one = s.sockets[socket]
    s.counted[0].mismatched_answers += 1
    s.mismatched[one.upstream] += 1
    if size < HEADER_SIZE or (owner_of(s, socket, u16(message, 0)) == NONE and was_asked(s, socket, u16(message, 0))):
        return False
    one.misses += 1
    if one.misses < NEAR_MISSES_MAX:
        return False
    if one.misses == NEAR_MISSES_MAX:
        s.counted[0].forgeries += 1
        if one.place >= 0:
            s.upstreams[one.upstream].pool[one.place] = NONE
            one.place = NONE
        fail_over(s, socket, FORGED)
    return True


@kernel_in_place
def retire_old(s: DatapathState, now: int) -> None:
    """Take old sockets out of their pools, close those on which no query waits."""
    for number in range(len(s.sockets)):
        socket = s.sockets[number]
        if socket.fd < 0:
            continue
        if socket.place >= 0 and now - socket.born >= s.cells[0].age_max_ns:
            s.upstreams[socket.upstream].pool[socket.place] = NONE
            socket.place = NONE
        if socket.place < 0 and socket.pending == 0:
            c_close(socket.fd)
            socket.fd = NONE


# Replies to clients.


@kernel_in_place
def reply(s: DatapathState, way: Any, base: int, size: int) -> None:
    """Put a reply of `size` bytes at `base` among those to send, on the way that a received MESSAGE describes."""
    header, part = s.to_clients[s.cells[0].replies], s.to_clients_parts[s.cells[0].replies]
    header.name, header.name_size = way.name, way.name_size
    header.control, header.control_size = way.control, way.control_size
    part.base, part.size = base, size
    s.cells[0].replies += 1


@kernel_in_place
def send_replies(s: DatapathState, port: int) -> None:
    """Send them. A client that is gone, or a full socket buffer, loses its answer: that is UDP.

    Their records come first, so that what a client was answered is judged even where this process is killed next.
    """
    publish(s)
    c, at = s.cells[0], 0
    while at < c.replies:
        sent = sendmmsg(s.ports[port].fd, s.to_clients[at:].ctypes.data, c.replies - at, 0)
        if sent > 0:
            at += sent
        elif errno() != EINTR:
            at += 1
    c.replies = 0


# Outgoing queries, grouped by size so that one system call sends many (UDP_SEGMENT).


@kernel_in_place
def flush(s: DatapathState) -> None:
    """Send the queries that wait for the upstream socket at hand. Those it refuses go to Python."""
    c, first = s.cells[0], 0
    count, target = c.outgoing, c.target
    c.outgoing = 0
    if count == 0:
        return
    server = s.upstreams[s.sockets[target].upstream]
    at, messages = 0, _grouped(s, 0, count, server.whole == 0)
    while at < messages:
        sent = sendmmsg(s.sockets[target].fd, s.to_upstream[at:].ctypes.data, messages - at, 0)
        for _ in range(max(sent, 0)):
            first += int64(s.to_upstream[at].parts_count)
            at += 1
        error = errno() if sent <= 0 else EINTR
        if error == ECONNREFUSED:
            # The kernel reports an earlier datagram: queries that wait on this socket get no answer either.
            fail_over(s, target, UNSENT)
            return
        if error == EINTR:
            continue
        if s.to_upstream[at].parts_count > 1:
            # Perhaps nothing on this way can cut (an old kernel, a device that computes no checksums).
            server.whole = 1
            at, messages = 0, _grouped(s, first, count, False)
        else:
            give_up(s, s.to_upstream_slots[first], UNSENT)
            first += 1
            at += 1


@kernel_in_place
def _grouped(s: DatapathState, first: int, count: int, together: bool) -> int:
    """Make messages of the queries from `first` on, one for each size if `together`, else one for each; how many."""
    parts, messages, at = s.to_upstream_parts, 0, first
    while at < count:
        size, end = parts[at].size, at + 1
        for other in range(end, count if together else end):
            if parts[other].size == size:
                _swap(s, other, end)
                end += 1
        header = s.to_upstream[messages]
        header.parts = int64(parts.ctypes.data) + at * parts.itemsize
        header.parts_count = end - at
        header.control_size = s.segments.shape[1] if end - at > 1 else 0
        s.segments[messages, SEGMENT_AT], s.segments[messages, SEGMENT_AT + 1] = size & 0xFF, size >> 8
        messages += 1
        at = end
    return messages


@kernel_in_place
def _swap(s: DatapathState, one: int, other: int) -> None:
    parts, slots = s.to_upstream_parts, s.to_upstream_slots
    base, slot = parts[one].base, slots[one]
    parts[one].base, slots[one] = parts[other].base, slots[other]
    parts[other].base, slots[other] = base, slot
    size = parts[one].size
    parts[one].size = parts[other].size
    parts[other].size = size


# Queries from clients: verdict, slot, id.

FORWARD, DROP, ANSWERED = -1, -2, -3
"""Verdicts beside the RCODE that is answered at once."""
_QR, _OPCODE, _RD, _TC = (mask >> 8 for mask in (QR, OPCODE, RD, TC))
"""Masks of the first byte of the flags; RA and CD are in the second."""


@kernel
def allowed(high: int, low: int, ranges: NDArray[np.uint64]) -> bool:
    """True if the 128-bit address high << 64 | low (both uint64; an IPv4 one is all in low) is in a range.

    ranges: shape (n, 4), disjoint and sorted: first address (high, low) and last address (high, low).
    """
    begin, end = 0, len(ranges)
    while begin < end:
        middle = (begin + end) // 2
        if ranges[middle, 0] < high or (ranges[middle, 0] == high and ranges[middle, 1] <= low):
            begin = middle + 1
        else:
            end = middle
    if begin == 0:
        return False
    last = ranges[begin - 1]
    return bool(high < last[2] or (high == last[2] and low <= last[3]))


@kernel
def number64(data: NDArray[np.uint8], at: int) -> int:
    """Eight bytes in network order as uint64."""
    number = uint64(0)
    for place in range(8):
        number = number << uint64(8) | uint64(data[at + place])
    return number  # type: ignore[no-any-return]


@kernel
def zone_of(message: NDArray[np.uint8], start: int, end: int, zones: NDArray[np.uint8]) -> int:
    """Row of the longest zone that the wire name message[start:end] (without root byte) lies in, or -1.

    zones: shape (n, ZONE_WIDTH). A row of size 0 is the default.
    """
    while start < end:
        for number in range(len(zones)):
            if int64(zones[number, 0]) == end - start and _same(message, start, end, zones[number]):
                return number
        start += int64(message[start]) + 1
    for number in range(len(zones)):
        if zones[number, 0] == 0:
            return number
    return -1


@kernel_in_place
def _lower(byte: int) -> int:
    """A byte of a name in lower case; length bytes are below 64, so that this leaves them as they are."""
    return int64(byte) + 32 if 65 <= byte <= 90 else int64(byte)  # type: ignore[no-any-return]


@kernel
def _same(message: NDArray[np.uint8], start: int, end: int, zone: NDArray[np.uint8]) -> bool:
    for place in range(end - start):  # noqa: SIM110 - numba has no generators in place
        if _lower(message[start + place]) != zone[1 + place]:
            return False
    return True


@kernel
def decide(
    message: NDArray[np.uint8],
    size: int,
    high: int,
    low: int,
    ranges: NDArray[np.uint64],
    zones: NDArray[np.uint8],
) -> tuple[int, int, int]:
    """(verdict, end of the question as far as it is answered, zone or -1). For high, low and ranges see `allowed`."""
    if size < HEADER_SIZE or message[2] & _QR:
        return DROP, 0, -1
    if not allowed(high, low, ranges):
        return REFUSED, max(question_end(message, 0, size), HEADER_SIZE), -1
    end = question_end(message, 0, size)
    if message[2] & _OPCODE:
        return NOTIMP, max(end, HEADER_SIZE), -1
    if end == 0:
        return FORMERR, HEADER_SIZE, -1
    kind = u16(message, end - 4)
    if kind in (AXFR, IXFR):
        return NOTIMP, end, -1
    zone = zone_of(message, HEADER_SIZE, end - 5, zones)
    return (FORWARD if zone >= 0 else SERVFAIL), end, zone


@kernel
def make_error(message: NDArray[np.uint8], size: int, rcode: int, end: int, facts: NDArray[np.int64]) -> int:
    """Turn a query into an error reply in place (message.error_reply is the definition); its size."""
    named = end > HEADER_SIZE
    has_opt = False
    if named or u16(message, 4) == 0:
        answer_facts(message, 0, end, size, facts)
        has_opt = facts[OPT_START] > 0
    message[2] = _QR | (message[2] & (_OPCODE | _RD))
    message[3] = RA | (message[3] & CD) | (rcode & 0xF)
    message[4:HEADER_SIZE] = 0
    message[5], message[11] = 1 if named else 0, 1 if has_opt else 0
    if not has_opt:
        return end
    message[end : end + OPT_HEAD] = 0
    message[end + 2], message[end + 5] = OPT, rcode >> 4
    message[end + 3], message[end + 4] = UDP_SIZE >> 8, UDP_SIZE & 0xFF
    return end + OPT_HEAD


@kernel_in_place
def on_queries(s: DatapathState, port: int, now: int) -> None:
    """Take one batch from a socket. now: monotonic nanoseconds."""
    c = s.cells[0]
    count = recvmmsg(s.ports[port].fd, s.from_clients.ctypes.data, DRAIN_MAX, 0, 0)
    if count <= 0:
        return
    reclaim_slots(s)
    for upstream in range(len(s.upstreams)):
        s.upstreams[upstream].chosen = NONE
    ts = clock_ns(CLOCK_REALTIME, s.scratch) / 1e9
    for place in range(count):
        _on_query(s, port, place, ts, now)
    flush(s)
    send_replies(s, port)
    for place in range(count):  # as datapath.py made them: the system call shrinks what it does not fill
        header = s.from_clients[place]
        header.name_size, header.control_size, header.flags = ADDRESS_SIZE, CONTROL_ROOM, 0
    c.target = NONE
    publish(s)


@kernel_in_place
def _on_query(s: DatapathState, port: int, place: int, ts: float, now: int) -> None:
    header = s.from_clients[place]
    size, message, probe = int64(header.size & 0xFFFFFFFF), s.inbox[place], s.ports[port].probe != 0
    if not probe:
        s.counted[0].received += 1
    if header.control_size > 0:
        _answer_from(s, port, place)
    name = s.names[place]
    if s.ports[port].v6:
        high, low = number64(name, 8), number64(name, 16)
        verdict, end, zone = decide(message, size, high, low, s.ranges6, s.zones)
        exempt, strict = allowed(high, low, s.exempt6), allowed(high, low, s.strict6)
    else:
        low = number64(name, 0) & uint64(0xFFFFFFFF)
        verdict, end, zone = decide(message, size, uint64(0), low, s.ranges4, s.zones)
        exempt, strict = allowed(uint64(0), low, s.exempt4), allowed(uint64(0), low, s.strict4)
    if verdict == DROP:
        s.counted[0].malformed += 0 if probe else 1
        return
    if probe:
        reply(s, header, s.in_parts[place].base, make_error(message, size, SERVFAIL, end, s.facts))
        return
    if verdict == FORWARD:
        if not exempt and not _within_rate(s, port, place, size, end, now):
            return
        asked = s.asked[0]
        asked.port, asked.place, asked.size, asked.end, asked.zone = port, place, size, end, zone
        asked.exempt, asked.ts, asked.now = exempt, ts, now
        asked.strict = strict and zone < len(s.zone_upstreams)
        verdict, size = _take_query(s)
        if verdict == FORWARD:
            return
    else:
        _count(s, verdict)
    if verdict != ANSWERED:
        size = make_error(message, size, verdict, end, s.facts)
    if not exempt:
        size = limited(s, port, name, message, end, size, now)
    if size > 0:
        reply(s, header, s.in_parts[place].base, size)


@kernel_in_place
def _within_rate(s: DatapathState, port: int, place: int, size: int, end: int, now: int) -> bool:
    """False for a query above the rate of its client's network: it is dropped, or answered with TC."""
    write_address(s, port, s.names[place])
    mask_network(s.keyed, s.rates)
    verdict = limit_query(s.buckets, s.rates, s.keyed, now)
    if verdict == PASS:
        return True
    if verdict == DISCARD:
        s.counted[0].rate_dropped += 1
        return False
    s.counted[0].rate_slipped += 1
    message = s.inbox[place]
    size = make_error(message, size, 0, end, s.facts)
    message[2] |= _TC
    reply(s, s.from_clients[place], s.in_parts[place].base, size)
    return False


@kernel_in_place
def write_address(s: DatapathState, port: int, name: Any) -> None:
    """Write the client's address into `keyed`, 16 bytes, IPv4 mapped. name: its socket address."""
    if s.ports[port].v6:
        copy_bytes(s.keyed, ADDRESS, name, 8, 16)
        return
    s.keyed[:10] = 0
    s.keyed[10:12] = 0xFF
    copy_bytes(s.keyed, 12, name, 4, 4)


@kernel_in_place
def limited(s: DatapathState, port: int, name: Any, message: Any, end: int, size: int, now: int) -> int:
    """The size of an answer after response rate limiting: 0 = it is dropped; shorter = it has TC and nothing else."""
    if s.cells[0].limits_responses == 0:
        return size
    write_address(s, port, name)
    mask_network(s.keyed, s.rates)
    start = min(HEADER_SIZE, end)
    stop = max(end - 5, start)
    qtype = u16(message, end - 4) if end > HEADER_SIZE else 0
    rcode = int64(message[3]) & 0xF
    verdict = limit_response(s.buckets, s.rates, s.keyed, message, start, stop, qtype, rcode, now)
    if verdict == PASS:
        return size
    if verdict == DISCARD:
        s.counted[0].rrl_dropped += 1
        return 0
    s.counted[0].rrl_slipped += 1
    answer_facts(message, 0, end, size, s.facts)
    return cut(message, end, s.facts[OPT_START], s.facts[OPT_END])


@kernel_in_place
def _take_query(s: DatapathState) -> tuple[int, int]:
    """What is done with the query at hand, and its size or its answer's: FORWARD = it is on its way; ANSWERED = from
    the cache, in place; else the RCODE of its answer, counted."""
    asked = s.asked[0]
    message, end = s.inbox[asked.place], asked.end
    asked.payload, asked.received, asked.bits, asked.stale, asked.silent = 0, asked.size, -1, 0, 0
    start = 0
    if u16(message, 6) + u16(message, 8) + u16(message, 10) > 0:
        answer_facts(message, 0, end, asked.size, s.facts)
        start = s.facts[OPT_START]
        if start > 0:
            if s.facts[OPT_TTL] >> 16 & 0xFF != 0:
                s.counted[0].notimp += 1
                return BADVERS, asked.size
            asked.payload = max(s.facts[OPT_CLASS], PLAIN_UDP_SIZE)
    asked.flags = -1
    if s.cells[0].normalised != 0:
        if u16(message, end - 2) != IN:
            s.counted[0].refused += 1
            return REFUSED, asked.size
        _normalise(s, start)
    elif start > 0:
        asked.size = strip_hop_by_hop(message, asked.size, start, s.facts[OPT_END])
    if s.cache.cells[0].on != 0 and asked.strict == 0 and asked.zone < len(s.zone_upstreams):
        asked.bits = query_bits(message, asked.size, end)
    if asked.bits >= 0 and try_lock(s.cache.cells):
        size = _ask_cache(s)
        unlock(s.cache.cells)
        if size > 0:
            return ANSWERED, size
        if size < 0:
            return FORWARD, 0
    if _forward(s):
        return FORWARD, 0
    s.counted[0].rejected += 1
    if asked.flags >= 0:  # the reply has RD, CD and an OPT as the client's query had them
        message[2] = (asked.flags & RD) >> 8
        message[11] = 1 if asked.payload > 0 else 0
    return SERVFAIL, asked.size


@kernel_in_place
def _normalise(s: DatapathState, start: int) -> None:
    """Leave nothing in the query at hand but what it asks, and note what its answer has to heed (Pending.normalise).

    start: of its OPT record, whose facts are in `facts`; 0 = it has none.
    """
    c, asked, message = s.cells[0], s.asked[0], s.inbox[s.asked[0].place]
    ttl = s.facts[OPT_TTL] if start > 0 else 0
    asked.flags = u16(message, 2) & (RD | AD) | (AD if ttl & DO else 0)
    asked.size = normalise(message, asked.end, start, s.facts[OPT_END], ttl, c.prefix4, c.prefix6)


@kernel_in_place
def _ask_cache(s: DatapathState) -> int:
    """The size of the cache's answer to the query at hand, made in place; 0 = it has none; -1 = the query is forwarded.

    An expired answer is for use only where the query cannot be forwarded, or fails.
    """
    asked, cache = s.asked[0], s.cache
    message, end = s.inbox[asked.place], asked.end
    outcome, unit = find_answer(cache, message, end, asked.bits, asked.now)
    if outcome == MISS:
        s.counted[0].cache_misses += 1
        return 0
    if outcome == EXPIRED:
        asked.stale = 1
        if _forward(s):
            s.counted[0].cache_misses += 1
            return -1
    if outcome == HIT and is_due(cache, unit, asked.now):
        asked.silent = 1
        s.counted[0].cache_prefetches += 1 if _forward(s) else 0
    size = write_answer(cache, unit, message, end, asked.now)
    cached = FROM_CACHE if outcome == HIT else FROM_CACHE_STALE
    if outcome == HIT:
        s.counted[0].cache_hits += 1
    else:
        s.counted[0].cache_stale += 1
    answer_facts(message, 0, end, size, s.facts)
    _record(s, asked.port, s.names[asked.place], asked.ts, 0.0, asked.received, message, end, size, cached)
    return _fitted(asked.payload, asked.flags, message, end, size, s.facts)


@kernel_in_place
def _count(s: DatapathState, verdict: int) -> None:
    c = s.counted[0]
    if verdict == FORMERR:
        c.malformed += 1
    elif verdict == REFUSED:
        c.refused += 1
    elif verdict == NOTIMP:
        c.notimp += 1
    else:
        c.rejected += 1


@kernel_in_place
def _answer_from(s: DatapathState, port: int, place: int) -> None:
    """Make of the received packet info the one to send with: same local address, any interface (ip(7), ipv6(7))."""
    control = s.controls[place]
    if s.ports[port].v6:
        control[32:36] = 0
    else:
        control[16:20] = 0
        control[24:28] = 0
    s.from_clients[place].control_size = min(s.from_clients[place].control_size, uint64(CONTROL_SIZE))


@kernel_in_place
def _forward(s: DatapathState) -> bool:
    """Put the query at hand in flight; False if there is no room, of all or of what its client, domain or upstream may
    have."""
    c, asked = s.cells[0], s.asked[0]
    header, message = s.from_clients[asked.place], s.inbox[asked.place]
    size, end = asked.size, asked.end
    number = take_slot(s) if inflight(s) < c.inflight_max else NONE
    if number == NONE:
        return False
    slot = s.slots[number]
    slot.ts, slot.started, slot.port, slot.zone, slot.exempt = asked.ts, asked.now, asked.port, asked.zone, asked.exempt
    slot.size, slot.end, slot.id, slot.socket = min(size, QUERY_MAX), end, u16(message, 0), NONE
    slot.payload, slot.received, slot.state, slot.current = asked.payload, asked.received, WITH_PYTHON, 0
    slot.bits, slot.stale, slot.silent, slot.flags = asked.bits, asked.stale, asked.silent, asked.flags
    slot.address_size, slot.control_size = header.name_size, header.control_size
    copy_bytes(slot.address, 0, s.names[asked.place], 0, ADDRESS_SIZE)
    if header.control_size > 0:
        copy_bytes(slot.control, 0, s.controls[asked.place], 0, CONTROL_SIZE)
    if not _hold(s, number, message, end):
        release(s, number)
        return False
    if size > QUERY_MAX:
        row = copy_for_python(s, message, size)
        if row == NONE:
            release(s, number)
            return False
        hand_over(s, number, LOCAL if slot.upstream == NONE else STRICT if asked.strict != 0 else LONG, row, size)
        return True
    copy_bytes(slot.query, 0, message, 0, size)
    copy_bytes(slot.name, 0, message, HEADER_SIZE, end - 4 - HEADER_SIZE)
    if c.normalised != 0:
        _mix_case(s, slot.query, end)
    if slot.upstream == NONE:
        hand_over(s, number, LOCAL, NONE, 0)
    elif asked.strict != 0:
        hand_over(s, number, STRICT, NONE, 0)
    elif s.upstreams[slot.upstream].by_python != 0:
        hand_over(s, number, ELSEWHERE, NONE, 0)
    else:
        link(s, number)
        _send_upstream(s, number, slot.upstream, asked.now)
    return True


@kernel_in_place
def _mix_case(s: DatapathState, query: Any, end: int) -> None:
    """Choose the case in which the name is sent (Pending.mix_case)."""
    bits = 1
    for at in range(HEADER_SIZE, end - 5):
        byte = _lower(query[at])
        if 97 <= byte <= 122:
            if bits == 1:
                bits = draw(s) | 1 << 16
            byte -= 32 * (bits & 1)
            bits >>= 1
        query[at] = byte


@kernel_in_place
def _fold(query: Any, end: int) -> None:
    for at in range(HEADER_SIZE, end - 5):
        query[at] = _lower(query[at])


@kernel_in_place
def _hold(s: DatapathState, number: int, message: Any, end: int) -> bool:
    """Count the query for its client, domain and upstream; False if one of them has its share already.

    The upstream is the zone's preferred one, or the next that has room; NONE for a special name.
    """
    c, slot = s.cells[0], s.slots[number]
    write_address(s, slot.port, slot.address)
    s.keyed[KIND] = 0
    low, high = s.rates[0].low, s.rates[0].high
    slot.client_cell = int64(siphash(s.keyed, ADDRESS, KIND + 1, low, high) & uint64(HELD_CELLS - 1))
    begin, size = domain_at(message, HEADER_SIZE, end - 5), 0
    for at in range(begin, end - 5):
        s.keyed[size] = _lower(message[at])
        size += 1
    slot.domain_cell = int64(siphash(s.keyed, 0, size, low, high) & uint64(HELD_CELLS - 1))
    s.clients[slot.client_cell] += 1
    s.domains[slot.domain_cell] += 1
    slot.upstream = NONE
    if slot.exempt == 0 and s.clients[slot.client_cell] > c.client_max:
        s.counted[0].rejected_client += 1 if slot.silent + slot.stale == 0 else 0
        return False
    if slot.zone >= len(s.zone_upstreams):
        return True
    if s.domains[slot.domain_cell] > c.domain_max:
        s.counted[0].rejected_domain += 1 if slot.silent + slot.stale == 0 else 0
        return False
    return _hold_upstream(s, number)


@kernel_in_place
def _hold_upstream(s: DatapathState, number: int) -> bool:
    slot = s.slots[number]
    current, width = s.preferred[slot.zone], s.zone_upstreams.shape[1]
    for _ in range(width):
        upstream = s.zone_upstreams[slot.zone, current]
        if s.upstreams[upstream].held < s.cells[0].upstream_max:
            slot.current, slot.upstream = current, upstream
            s.upstreams[upstream].held += 1
            return True
        current = (current + 1) % width
        if s.zone_upstreams[slot.zone, current] < 0:
            current = 0
    s.counted[0].rejected_upstream += 1 if slot.silent + slot.stale == 0 else 0
    return False


@kernel_in_place
def _send_upstream(s: DatapathState, number: int, upstream: int, now: int) -> None:
    """Give a query a random id on the socket of this batch, and put it among those to send."""
    c, server, slot = s.cells[0], s.upstreams[upstream], s.slots[number]
    if server.chosen == NONE or s.sockets[server.chosen].uses >= c.uses_max:
        server.chosen = choose_socket(s, upstream, now)
    if server.chosen == NONE:
        give_up(s, number, UNSENT)
        return
    if server.chosen != c.target or c.outgoing == DRAIN_MAX:
        flush(s)
        c.target = server.chosen
    ident = claim_id(s, server.chosen, number)
    slot.query[0], slot.query[1] = ident >> 8, ident & 0xFF
    part = s.to_upstream_parts[c.outgoing]
    part.base = int64(s.slots.ctypes.data) + number * s.slots.itemsize + _QUERY_AT
    part.size = slot.size
    if c.normalised != 0 and s.quirks[upstream] != 0:
        if s.quirks[upstream] & FOLDS:
            _fold(slot.query, slot.end)
        if s.quirks[upstream] & PLAIN:
            slot.query[11], part.size = 0, slot.end
    s.to_upstream_slots[c.outgoing] = number
    c.outgoing += 1


# Answers from upstreams: match, record, reply.


@kernel_in_place
def on_answers(s: DatapathState, socket: int, now: int) -> None:
    """Take one batch from an upstream socket. now: monotonic nanoseconds."""
    reclaim_slots(s)
    count = recvmmsg(s.sockets[socket].fd, s.from_upstream.ctypes.data, DRAIN_MAX, 0, 0)
    if count <= 0:
        error = errno()
        if count < 0 and error != EAGAIN and error != EINTR:
            fail_over(s, socket, UNSENT)
        return
    port = -1
    for place in range(count):
        size = int64(s.from_upstream[place].size & 0xFFFFFFFF)
        number, recased = _matching_slot(s, socket, s.inbox[place], size)
        if number == NONE:
            if note_mismatch(s, socket, s.inbox[place], size):
                break
            continue
        if _is_rare(s, number, recased, s.inbox[place], size):
            continue
        s.failures[s.sockets[socket].upstream] = 0
        if s.slots[number].port != port and port >= 0:
            send_replies(s, port)
        port = s.slots[number].port
        _finish(s, number, place, size, now)
    if port >= 0:
        send_replies(s, port)


@kernel_in_place
def _matching_slot(s: DatapathState, socket: int, message: Any, size: int) -> tuple[int, bool]:
    """The slot that this answers, and whether in another case; NONE unless it has the id, and is a response (QR set,
    opcode QUERY) to the question in any case.

    An answer without a question is a match here; Python looks into it.
    """
    recased = False
    if size < HEADER_SIZE:
        return NONE, recased
    number = owner_of(s, socket, u16(message, 0))
    if number == NONE:
        return NONE, recased
    slot = s.slots[number]
    if message[2] & (_QR | _OPCODE) != _QR:
        return NONE, recased
    questions = u16(message, 4)
    if questions == 0:
        return number, recased
    if questions != 1 or size < slot.end:
        return NONE, recased
    for at in range(HEADER_SIZE, slot.end):
        if message[at] != slot.query[at]:
            if at >= slot.end - 4 or _lower(message[at]) != _lower(slot.query[at]):
                return NONE, recased
            recased = True
    return number, recased


@kernel_in_place
def _is_rare(s: DatapathState, number: int, recased: bool, message: Any, size: int) -> bool:
    """Hand an answer to Python where it is no plain answer in time; False where it is, or Python has too much to do."""
    slot = s.slots[number]
    if slot.state == WITH_PYTHON:
        give_answer(s, number, LATE, message, size)
        return True
    if recased and slot.flags >= 0 and s.quirks[slot.upstream] & FOLDS == 0:
        give_answer(s, number, ODD, message, size)
        return True
    if u16(message, 4) == 0:
        give_answer(s, number, ODD, message, size)
        return True
    if message[2] & _TC:
        return give_answer(s, number, TRUNCATED, message, size)
    rcode = int64(message[3]) & 0xF
    if slot.stale != 0 and rcode != NOERROR and rcode != NXDOMAIN:
        return give_answer(s, number, FAILED, message, size)
    if slot.flags >= 0 and rcode in (FORMERR, NOTIMP) and s.quirks[slot.upstream] & PLAIN == 0:
        return give_answer(s, number, FAILED, message, size)
    if rcode != SERVFAIL and rcode != REFUSED:
        return False
    several = s.zone_upstreams.shape[1] > 1 and s.zone_upstreams[slot.zone, 1] >= 0
    return s.cells[0].retry_failed != 0 and several and give_answer(s, number, FAILED, message, size)


@kernel_in_place
def _finish(s: DatapathState, number: int, place: int, size: int, now: int) -> None:
    """Record the answer and put it among the replies, with the question as the client asked it; the cache keeps it."""
    c, slot, message = s.cells[0], s.slots[number], s.inbox[place]
    free_id(s, number)
    unlink(s, number)
    copy_bytes(message, HEADER_SIZE, slot.name, 0, slot.end - 4 - HEADER_SIZE)
    if slot.bits >= 0 and try_lock(s.cache.cells):
        keep_answer(s.cache, message, slot.end, size, slot.bits, now)
        unlock(s.cache.cells)
    if slot.silent != 0:
        release(s, number)
        return
    c.answered += 1
    answer_facts(message, 0, slot.end, size, s.facts)
    rtt_ms = (now - slot.started) / 1e6
    _record(s, slot.port, slot.address, slot.ts, rtt_ms, slot.received, message, slot.end, size, FORWARDED)
    message[0], message[1] = slot.id >> 8, slot.id & 0xFF
    size = _fitted(slot.payload, slot.flags, message, slot.end, size, s.facts)
    if slot.exempt == 0:
        size = limited(s, slot.port, slot.address, message, slot.end, size, now)
    if size > 0:
        # The slot keeps its bytes until the next query is taken, which is after these replies were sent.
        header, part = s.to_clients[c.replies], s.to_clients_parts[c.replies]
        base = int64(s.slots.ctypes.data) + number * s.slots.itemsize
        header.name, header.name_size = base + _SLOT_ADDRESS_AT, slot.address_size
        header.control, header.control_size = base + _CONTROL_AT, slot.control_size
        part.base, part.size = s.in_parts[place].base, size
        c.replies += 1
    release(s, number)


@kernel_in_place
def _fitted(payload: int, flags: int, message: Any, question: int, size: int, facts: Any) -> int:
    """Make the answer fit its client, in place; its size. facts: of the answer.

    No OPT goes to a client that sent none (message.without_opt), and nothing larger than it takes (message.truncate).
    flags: see SLOT.
    """
    if flags >= 0:
        message[2] = int64(message[2]) & ~(RD >> 8) | (flags & RD) >> 8
        message[3] = int64(message[3]) & (~AD | flags & AD)
    start, end = facts[OPT_START], facts[OPT_END]
    before = u16(message, 6) + u16(message, 8)
    if payload == 0 and start > 0 and facts[OPT_NUMBER] >= before:
        kept = facts[OPT_NUMBER] - before
        message[10], message[11] = kept >> 8, kept & 0xFF
        size, end = start, start
    if size <= max(payload, PLAIN_UDP_SIZE):
        return size
    return cut(message, question, start, end)


@kernel_in_place
def cut(message: Any, question: int, start: int, end: int) -> int:
    """Truncate in place (message.truncate) an answer whose OPT record is message[start:end]; its size."""
    message[2] |= _TC
    message[6:HEADER_SIZE] = 0
    message[11] = 1 if end > start else 0
    if end > start:
        copy_bytes(message, question, message, start, end - start)
    return question + end - start


@kernel_in_place
def _detector_of(s: DatapathState, v6: bool, address: Any, message: Any, end: int) -> Any:
    """The number of the detector that judges a query. message[HEADER_SIZE : end - 5]: its name."""
    client = s.client
    if v6:
        copy_bytes(client, 0, address, 8, 16)
    else:
        client[:10] = 0
        client[10:12] = 0xFF
        copy_bytes(client, 12, address, 4, 4)
    return slot_of_query(client, message, HEADER_SIZE, end - 5, s.ring_parted) % len(s.ring_recorded)


@kernel_in_place
def _record(
    s: DatapathState,
    port: int,
    address: Any,
    ts: float,
    rtt_ms: float,
    received: int,
    message: Any,
    end: int,
    size: int,
    cached: int,
) -> None:
    """Write a query's record into the ring, to be published; counted instead where there is no room for it.

    message: its answer, with the question as it was asked, and with its facts in `facts`.
    """
    v6 = s.ports[port].v6 != 0
    detector = 0 if len(s.ring_recorded) == 1 else _detector_of(s, v6, address, message, end)
    numbers, records = s.ring_numbers[detector], s.ring_records[detector]
    head, tail = numbers[HEAD] + s.ring_recorded[detector], numbers[TAIL]
    if head - tail >= len(records):
        numbers[DROPPED] += 1
        return
    record = records[head % len(records)]
    if v6:
        copy_bytes(record.client, 0, address, 8, 16)
    else:
        record.client[:10] = 0
        record.client[10:12] = 0xFF
        copy_bytes(record.client, 12, address, 4, 4)
    backlog, counted = s.ring_backlog[detector], s.ring_counted[detector]
    if not admits(backlog, counted, s.ring_key, records, head, tail, record.client):
        numbers[DROPPED] += 1
        return
    record.ts, record.rtt_ms, record.cached = ts, rtt_ms, cached
    write_facts(s.facts, record)
    record.qlen, record.rlen, record.qtype = received, size, u16(message, end - 4)
    name_size = end - 5 - HEADER_SIZE
    record.qname_size = name_size
    copy_bytes(record.qname, 0, message, HEADER_SIZE, name_size)
    s.ring_recorded[detector] += 1
    s.cells[0].recorded += 1


@kernel_in_place
def publish(s: DatapathState) -> None:
    """Let the taker of the ring see the new records, and wake it where it sleeps (Ring.put is the definition).

    Their answers count from now on, so that the counts of a killed process add up with its records.
    """
    c = s.cells[0]
    s.counted[0].answered += c.answered
    c.answered = 0
    if c.recorded == 0:
        return
    c.recorded = 0
    fence()
    for detector in range(len(s.ring_recorded)):
        s.ring_numbers[detector, HEAD] += s.ring_recorded[detector]
        s.ring_recorded[detector] = 0
    fence()
    for detector in range(len(s.ring_recorded)):
        if s.ring_numbers[detector, SLEEPING] != 0:
            s.ring_numbers[detector, SLEEPING] = 0
            c_write(s.ring_bells[detector], s.scratch.ctypes.data, 1)


# The pump: one thread that waits for all sockets.

WAKE_EVENT = 1 << 32
"""Marks the event that ends the wait; below it, the number of a port that clients write to."""
SWEEP_MS, IDLE_MS = 50, 1000
"""Milliseconds between sweeps: with queries in flight, and without."""


@kernel
def pump(s: DatapathState) -> None:
    """Runs until CELLS.stop is set and the wake descriptor written."""
    c = s.cells[0]
    while c.stop == 0:
        wait = SWEEP_MS if c.free < len(s.slots) else IDLE_MS
        count = epoll_wait(c.epoll, s.events.ctypes.data, len(s.events), wait)
        now = clock_ns(CLOCK_MONOTONIC, s.scratch)
        for place in range(count):
            data = int64(s.events[place].data)
            if data >= UPSTREAM_EVENT:
                on_answers(s, data - UPSTREAM_EVENT, now)
            elif data == WAKE_EVENT:
                c_read(c.wake, s.scratch.ctypes.data, 8)
            else:
                on_queries(s, data, now)
        if now - c.swept >= SWEEP_MS * 1_000_000:
            sweep(s, now)


@kernel_in_place
def sweep(s: DatapathState, now: int) -> None:
    """Give up overdue queries, the oldest first, and retire old sockets."""
    c = s.cells[0]
    c.swept = now
    number = c.oldest if c.stale_wait_ns > 0 else NONE
    while number >= 0 and s.slots[number].started + c.stale_wait_ns <= now:
        newer = s.slots[number].newer
        if s.slots[number].stale != 0:
            give_up(s, number, OVERDUE)
        number = newer
    while c.oldest >= 0 and s.slots[c.oldest].started + c.timeout_ns <= now:
        give_up(s, c.oldest, TIMED_OUT)
    reclaim_slots(s)
    retire_old(s, now)
