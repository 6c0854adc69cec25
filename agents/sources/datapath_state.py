"""Makes the memory that the UDP datapath's kernels work in."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels.answer import FACTS
from agents.kernels.udp_libc import EVENT, MESSAGE, PART
from agents.kernels.udp_state import (
    ADDRESS_SIZE,
    BATCH,
    BUFFER,
    CELLS,
    CONTROL_ROOM,
    HANDED,
    IDS,
    PORT,
    SEGMENT_AT,
    SLOT,
    SOCKET,
    UPSTREAM,
    State,
)
from agents.kernels.zones import ZONE_WIDTH
from agents.ring import RingArrays
from agents.sources.access import AccessList
from agents.sources.counters import Counters
from agents.sources.sockets import UdpPort
from agents.sources.upstream import POOL_SIZE, Routes, Upstream

CARRIED = 64
"""Long queries and truncated answers that may wait for Python."""
SPARE_SOCKETS = 512
"""Upstream sockets beyond the pools: retired ones that still wait for an answer."""
_COUNTERS = np.dtype([(name, np.int64) for name in Counters.NAMES])
SOL_UDP, UDP_SEGMENT = 17, 103
"""udp(7); the socket module does not know them."""
_SEGMENT = Struct("=QiiH6x")  # struct cmsghdr of cmsg(3) and the size of a segment
_RANDOM_BLOCK = 4096
_NAME_ROOM = 32
_SOCKADDR4, _SOCKADDR6 = Struct("=H2s4s8x"), Struct("=H2sI16sI")


def make_state(
    ports: Sequence[UdpPort],
    routes: Routes,
    access: AccessList,
    elsewhere: NDArray[np.int64],
    inflight_max: int,
    ring: RingArrays,
    counters: Counters,
) -> State:
    """All arrays, with nothing in flight. Numbers that are settings or descriptors are the caller's to fill in."""
    upstreams = list(routes.upstreams.values())
    sockets = np.zeros(POOL_SIZE * len(upstreams) + SPARE_SOCKETS, SOCKET)
    sockets["fd"] = -1
    return State(
        cells=_cells(inflight_max),
        counted=np.frombuffer(counters.cells, _COUNTERS),
        elsewhere=elsewhere,
        ports=np.array([(port.sock.fileno(), port.v6, port.wildcard) for port in ports], PORT),
        upstreams=_upstreams(upstreams),
        failures=routes.failures,
        preferred=routes.preferred,
        zones=zone_names(routes),
        zone_upstreams=_zone_upstreams(routes, upstreams),
        ranges4=access.ranges(4),
        ranges6=access.ranges(6),
        slots=np.zeros(inflight_max, SLOT),
        free=np.arange(inflight_max, dtype=np.int32)[::-1].copy(),
        sockets=sockets,
        ids=np.full((len(sockets), IDS), -1, np.int32),
        owners=np.full((len(sockets), IDS), -1, np.int32),
        **_batches(),
        events=np.zeros(BATCH, EVENT),
        scratch_event=np.zeros(1, EVENT),
        **{f"ring_{name}": array for name, array in ring._asdict().items()},
        handed=np.zeros(inflight_max, HANDED),
        returned=np.zeros(inflight_max, np.int32),
        carried=np.empty((CARRIED, BUFFER), np.uint8),
        random=np.zeros(_RANDOM_BLOCK, np.uint8),
        scratch=np.zeros(8, np.int64),
        facts=np.zeros(FACTS, np.int64),
    )


def _batches() -> dict[str, NDArray[Any]]:
    """Buffers of one batch, and the headers that point to them."""
    inbox = np.empty((BATCH, BUFFER), np.uint8)
    names, controls = np.zeros((BATCH, _NAME_ROOM), np.uint8), np.zeros((BATCH, CONTROL_ROOM), np.uint8)
    in_parts = np.zeros(BATCH, PART)
    in_parts["base"], in_parts["size"] = _rows(inbox), BUFFER
    from_clients = _messages(in_parts)
    from_clients["name"], from_clients["control"] = _rows(names), _rows(controls)
    from_clients["name_size"], from_clients["control_size"] = ADDRESS_SIZE, CONTROL_ROOM
    to_clients_parts, to_upstream_parts = np.zeros(BATCH, PART), np.zeros(BATCH, PART)
    to_upstream, segments = _messages(to_upstream_parts), np.zeros((BATCH, _SEGMENT.size), np.uint8)
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
        "to_upstream_slots": np.zeros(BATCH, np.int32),
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


def _cells(inflight_max: int) -> NDArray[np.void]:
    cells = np.zeros(1, CELLS)
    cells["inflight_max"] = cells["free"] = inflight_max
    cells["oldest"] = cells["newest"] = cells["target"] = -1
    cells["drawn"] = _RANDOM_BLOCK
    return cells


def _upstreams(upstreams: Sequence[Upstream]) -> NDArray[np.void]:
    rows = np.zeros(len(upstreams), UPSTREAM)
    rows["chosen"], rows["pool"] = -1, -1
    for row, upstream in zip(rows, upstreams, strict=True):
        address = sockaddr(upstream.host, upstream.port)
        row["family"], row["address_size"] = int.from_bytes(address[:2], "little"), len(address)
        row["address"][: len(address)] = np.frombuffer(address, np.uint8)
    return rows


def zone_names(routes: Routes) -> NDArray[np.uint8]:
    """The zones as kernels.zones wants them, in the order of `routes.zones`."""
    rows = np.zeros((len(routes.zones), ZONE_WIDTH), np.uint8)
    for row, name in zip(rows, routes.zones, strict=True):
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
