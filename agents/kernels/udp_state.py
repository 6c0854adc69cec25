"""The memory of the UDP datapath: plain arrays, made once by sources/datapath.py, that kernels work in.

Two threads share it. The datapath's thread runs the kernels; the listener's event loop reads counters, takes what is
in the ring `handed`, and gives slots back through `returned`. Each ring has one writer and one reader:
`…_head` counts what was put in and is written by the one, `…_tail` counts what was taken and is written by the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BATCH = 64
"""Datagrams of one system call, as sources/forwarder.DRAIN_MAX."""
BUFFER = 65_536 + 192
"""Bytes of a receive buffer: no UDP datagram is longer. Pages that nothing was received into cost no memory.
No power of two, so that the beginnings of all buffers do not compete for the same lines of the processor's cache."""
QUERY_MAX = 512
"""Bytes of a query that a slot holds: a plain UDP message (RFC 1035 section 4.2.1). Longer ones go to Python."""
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

TIMED_OUT, UNSENT, TRUNCATED, LONG = range(1, 5)
"""Why a query is handed to Python: no answer in time, not sent or refused, answered with TC, or above QUERY_MAX."""

SLOT = np.dtype(
    [
        ("ts", np.float64),  # Unix seconds
        ("started", np.int64),  # monotonic nanoseconds
        ("older", np.int32),  # neighbours in order of arrival, -1 = none
        ("newer", np.int32),
        ("socket", np.int32),
        ("entry", np.int32),  # place among the socket's ids
        ("zone", np.int32),
        ("asked", np.int32),  # index of the upstream within its zone
        ("port", np.int32),
        ("size", np.int32),  # of the query
        ("end", np.int32),  # of its question
        ("address_size", np.int32),
        ("control_size", np.int32),
        ("id", np.uint16),  # the client's
        ("address", np.uint8, (ADDRESS_SIZE,)),
        ("control", np.uint8, (CONTROL_SIZE,)),
        ("query", np.uint8, (QUERY_MAX,)),
    ],
    align=True,
)
"""One query in flight."""

HANDED = np.dtype([("reason", np.int32), ("slot", np.int32), ("carried", np.int32), ("size", np.int32)])
"""What Python takes over; `carried` = the row of State.carried with the bytes, or -1."""

PORT = np.dtype([("fd", np.int32), ("v6", np.int32), ("wildcard", np.int32)])
"""One UDP socket with clients behind it."""

POOL = 32
"""sources/upstream.POOL_SIZE."""

UPSTREAM = np.dtype(
    [
        ("family", np.int32),
        ("address_size", np.int32),
        ("chosen", np.int32),  # socket of this batch, -1 = none yet
        ("whole", np.int32),  # 1 = it has refused a message that was to be cut up
        ("pool", np.int32, (POOL,)),  # sockets, -1 = none
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
    ],
    align=True,
)

CELLS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("epoll", "wake", "bell", "stop", "called", "taker"),
            *("timeout_ns", "uses_max", "age_max_ns", "inflight_max"),
            *("active", "free", "oldest", "newest", "swept"),
            *("target", "outgoing", "replies", "drawn", "recorded"),
            *("handed_head", "handed_tail"),
            *("returned_head", "returned_tail", "carried_head", "carried_tail"),
        )
    ]
)
"""Single numbers: file descriptors and flags; settings; the table of slots; the batch at hand; the rings."""


def offset_of(dtype: np.dtype[Any], name: str) -> int:
    """Bytes from the start of a structure to one of its fields."""
    assert dtype.fields
    return dtype.fields[name][1]


class State(NamedTuple):
    """All arrays. n = queries in flight at most, s = sockets at once, z = zones, u = upstreams."""

    cells: NDArray[Any]  # CELLS, (1,)
    counted: NDArray[Any]  # (1,), with the fields of sources/counters.Counters
    elsewhere: NDArray[np.int64]  # (1,): queries in flight that Python forwards
    ports: NDArray[Any]  # PORT
    upstreams: NDArray[Any]  # UPSTREAM, (u,)
    failures: NDArray[np.int64]  # (u,), shared with Routes
    preferred: NDArray[np.int64]  # (z,), shared with Routes
    zones: NDArray[np.uint8]  # (z, ZONE_WIDTH)
    zone_upstreams: NDArray[np.int32]  # (z, most upstreams of a zone)
    ranges4: NDArray[np.uint64]  # see networks.allowed
    ranges6: NDArray[np.uint64]
    slots: NDArray[Any]  # SLOT, (n,)
    free: NDArray[np.int32]  # (n,): a stack of free slots, CELLS.free of them
    sockets: NDArray[Any]  # SOCKET, (s,)
    ids: NDArray[np.int32]  # (s, IDS): open addressing; -1 = never used
    owners: NDArray[np.int32]  # (s, IDS): the slot, -1 = answered
    inbox: NDArray[np.uint8]  # (BATCH, BUFFER)
    in_parts: NDArray[Any]  # PART, (BATCH,)
    names: NDArray[np.uint8]  # (BATCH, 32): clients' addresses
    controls: NDArray[np.uint8]  # (BATCH, CONTROL_ROOM)
    from_clients: NDArray[Any]  # MESSAGE, (BATCH,)
    from_upstream: NDArray[Any]  # MESSAGE, (BATCH,)
    to_clients: NDArray[Any]  # MESSAGE, (BATCH,)
    to_clients_parts: NDArray[Any]  # PART, (BATCH,)
    to_upstream: NDArray[Any]  # MESSAGE, (BATCH,)
    to_upstream_parts: NDArray[Any]  # PART, (BATCH,)
    to_upstream_slots: NDArray[np.int32]  # (BATCH,)
    segments: NDArray[np.uint8]  # (BATCH, 24): control data of to_upstream, one UDP_SEGMENT each
    events: NDArray[Any]  # EVENT, (BATCH,)
    scratch_event: NDArray[Any]  # EVENT, (1,)
    ring_head: NDArray[np.int64]  # (1,): see ring.RingArrays
    ring_tail: NDArray[np.int64]  # (1,)
    ring_shed: NDArray[np.int64]  # (1,)
    ring_sleeping: NDArray[np.int64]  # (1,)
    ring_records: NDArray[Any]  # records.RECORD
    handed: NDArray[Any]  # HANDED, a ring of n
    returned: NDArray[np.int32]  # (n,), a ring
    carried: NDArray[np.uint8]  # (…, BUFFER), a ring
    random: NDArray[np.uint8]  # a block of the kernel's random bytes
    scratch: NDArray[np.int64]  # (8,)
    facts: NDArray[np.int64]  # (answer.FACTS,)
