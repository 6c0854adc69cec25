"""From a captured frame to the UDP payload in it. The definition is sources/linklayer.segment."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.kernels import kernel_in_place
from agents.kernels.question import u16

UDP, TCP = 17, 6
NULL, ETHERNET, RAW, LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2 = 0, 1, 101, 108, 113, 228, 229, 276
_ETHER_IP, _ETHER_IP6 = 0x0800, 0x86DD
_VLAN_MAX, _EXTENSIONS_MAX = 4, 8
_FRAGMENT, _AUTH = 44, 51
NOTHING, DATAGRAM, STREAM = range(3)
PROTO, SPORT, DPORT, PAYLOAD, STOP, SIZE = range(6)


class Packet(NamedTuple):
    """What was found in a frame."""

    client: NDArray[np.uint8]  # (16,): source address; an IPv4 one mapped (RFC 4291 section 2.5.5.2)
    server: NDArray[np.uint8]  # (16,): destination address
    numbers: NDArray[np.int64]  # PROTO … SIZE


def packet() -> Packet:
    """Room for one."""
    return Packet(np.zeros(16, np.uint8), np.zeros(16, np.uint8), np.zeros(6, np.int64))


@kernel_in_place
def is_known(link: Any) -> Any:
    """Whether frames of this LINKTYPE can be read."""
    return link in (NULL, ETHERNET, RAW, 12, 14, LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2)


@kernel_in_place
def _network(link: Any, data: Any, start: Any, end: Any) -> Any:
    """Offset of the IP header, or -1."""
    if link in (NULL, LOOP):
        return start + 4
    if link == LINUX_SLL2:
        if start + 2 > end:
            return -1
        kind = u16(data, start)
        return start + 20 if kind in (_ETHER_IP, _ETHER_IP6) else -1
    if link not in (ETHERNET, LINUX_SLL):
        return start if is_known(link) else -1
    at = start + (12 if link == ETHERNET else 14)
    for _ in range(_VLAN_MAX):
        if at + 2 > end:
            return -1
        kind = u16(data, at)
        if kind in (_ETHER_IP, _ETHER_IP6):
            return at + 2
        if kind not in (0x8100, 0x88A8, 0x9100):
            return -1
        at += 4
    return -1


@kernel_in_place
def _address(data: Any, at: Any, size: Any, address: Any) -> None:
    for i in range(16 - size):
        address[i] = 0 if i < 10 else 0xFF
    for i in range(size):
        address[16 - size + i] = data[at + i]


@kernel_in_place
def _transport(data: Any, proto: Any, at: Any, stop: Any, end: Any, packet: Any) -> Any:
    """Kind of the segment at `at`, whose datagram ends at `stop` and whose frame ends at `end`."""
    if proto not in (UDP, TCP) or at + 4 > end:
        return NOTHING
    numbers = packet.numbers
    numbers[SPORT], numbers[DPORT] = u16(data, at), u16(data, at + 2)
    if proto == TCP:
        return STREAM
    if at + 6 > end or u16(data, at + 4) < 8:
        return NOTHING
    numbers[PAYLOAD], numbers[SIZE] = at + 8, u16(data, at + 4) - 8
    numbers[STOP] = max(min(at + 8 + numbers[SIZE], stop, end), at + 8)
    return DATAGRAM


@kernel_in_place
def _ipv4(data: Any, at: Any, end: Any, packet: Any) -> Any:
    if at + 10 > end or u16(data, at + 6) & 0x1FFF:
        return NOTHING
    length, start = u16(data, at + 2), at + (np.int64(data[at]) & 0x0F) * 4
    kind = _transport(data, data[at + 9], start, at + length if length else end, end, packet)
    if kind == DATAGRAM and at + 20 <= end:
        _address(data, at + 12, 4, packet.client)
        _address(data, at + 16, 4, packet.server)
    return kind


@kernel_in_place
def _ipv6(data: Any, at: Any, end: Any, packet: Any) -> Any:
    if at + 7 > end:
        return NOTHING
    length, proto, start = u16(data, at + 4), np.int64(data[at + 6]), at + 40
    stop = at + 40 + length if length else end
    for _ in range(_EXTENSIONS_MAX):
        if proto in (UDP, TCP):
            kind = _transport(data, proto, start, stop, end, packet)
            if kind == DATAGRAM:
                _address(data, at + 8, 16, packet.client)
                _address(data, at + 24, 16, packet.server)
            return kind
        if start + 2 > end or (proto == _FRAGMENT and start + 4 > end):
            return NOTHING
        if proto == _FRAGMENT:
            if u16(data, start + 2) & 0xFFF8:
                return NOTHING
            size = np.int64(8)
        elif proto == _AUTH:
            size = (np.int64(data[start + 1]) + 2) * 4
        elif proto in (0, 43, 60, 135):
            size = (np.int64(data[start + 1]) + 1) * 8
        else:
            return NOTHING
        proto = np.int64(data[start])
        start += size
    return NOTHING


@kernel_in_place
def find(link: Any, data: Any, start: Any, end: Any, packet: Any) -> Any:
    """NOTHING, a UDP DATAGRAM or a TCP STREAM's segment (its ports alone) in the frame data[start:end]."""
    at = _network(link, data, start, end)
    if at < 0 or at >= end:
        return NOTHING
    version = data[at] >> 4
    if version == 4:
        return _ipv4(data, at, end, packet)
    return _ipv6(data, at, end, packet) if version == 6 else NOTHING
