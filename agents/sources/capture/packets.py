"""From a captured frame to DNS messages: link layers, IPv4, IPv6, UDP, TCP streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

UDP, TCP = 17, 6
NULL, ETHERNET, RAW, LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2 = 0, 1, 101, 108, 113, 228, 229, 276
"""LINKTYPE numbers of the tcpdump.org registry; DLT_RAW is 12 or 14 on some systems, and is written so."""
_RAW_TYPES = frozenset({RAW, 12, 14, IPV4, IPV6})
KNOWN = frozenset({NULL, ETHERNET, LOOP, LINUX_SLL, LINUX_SLL2}) | _RAW_TYPES
_ETHER_IP = frozenset({0x0800, 0x86DD})
_ETHER_VLAN = frozenset({0x8100, 0x88A8, 0x9100})
"""802.1Q, 802.1ad, and the QinQ type in use before it."""
_VLAN_MAX = 4
_IPV6_SKIPPED = frozenset({0, 43, 60, 135})
"""Hop-by-hop, routing, destination options, mobility (RFC 8200 section 4, RFC 6275)."""
_IPV6_FRAGMENT, _IPV6_AUTH = 44, 51
_IPV6_EXTENSIONS_MAX = 8


class Segment(NamedTuple):
    """A transport payload. size: bytes of the UDP payload as its header tells them, or of the TCP payload."""

    proto: int
    src: bytes  # 4 or 16 bytes
    dst: bytes
    sport: int
    dport: int
    payload: bytes
    size: int
    seq: int  # TCP only
    flags: int  # TCP only


def segment(link: int, frame: bytes) -> Segment | None:
    """The UDP or TCP segment in a frame, or None: another protocol, a later fragment, or cut too short."""
    try:
        at = _network_offset(link, frame)
        if at < 0:
            return None
        version = frame[at] >> 4
        if version == 4:
            return _ipv4(frame, at)
        return _ipv6(frame, at) if version == 6 else None
    except IndexError:
        return None


def _network_offset(link: int, frame: bytes) -> int:
    """Offset of the IP header, or -1."""
    if link == ETHERNET:
        at = 12
    elif link in _RAW_TYPES:
        return 0
    elif link in (NULL, LOOP):
        return 4
    elif link == LINUX_SLL:
        at = 14
    elif link == LINUX_SLL2:
        return 20 if frame[0] << 8 | frame[1] in _ETHER_IP else -1
    else:
        return -1
    for _ in range(_VLAN_MAX):
        kind = frame[at] << 8 | frame[at + 1]
        if kind in _ETHER_IP:
            return at + 2
        if kind not in _ETHER_VLAN:
            return -1
        at += 4
    return -1


def _ipv4(frame: bytes, at: int) -> Segment | None:
    length = frame[at + 2] << 8 | frame[at + 3]
    if (frame[at + 6] & 0x1F) << 8 | frame[at + 7]:
        return None
    start = at + (frame[at] & 0x0F) * 4
    # With segmentation offload the total length is 0: the frame then ends where it ends.
    end = at + length if length else len(frame)
    return _transport(frame, frame[at + 9], start, end, frame[at + 12 : at + 16], frame[at + 16 : at + 20])


def _ipv6(frame: bytes, at: int) -> Segment | None:
    length = frame[at + 4] << 8 | frame[at + 5]
    end = at + 40 + length if length else len(frame)
    proto, start = frame[at + 6], at + 40
    for _ in range(_IPV6_EXTENSIONS_MAX):
        if proto in (UDP, TCP):
            return _transport(frame, proto, start, end, frame[at + 8 : at + 24], frame[at + 24 : at + 40])
        if proto == _IPV6_FRAGMENT:
            if (frame[start + 2] << 8 | frame[start + 3]) & 0xFFF8:
                return None
            proto, start = frame[start], start + 8
        elif proto == _IPV6_AUTH:
            proto, start = frame[start], start + (frame[start + 1] + 2) * 4
        elif proto in _IPV6_SKIPPED:
            proto, start = frame[start], start + (frame[start + 1] + 1) * 8
        else:
            return None
    return None


def _transport(frame: bytes, proto: int, at: int, end: int, src: bytes, dst: bytes) -> Segment | None:
    if proto == UDP:
        size = (frame[at + 4] << 8 | frame[at + 5]) - 8
        sport, dport = frame[at] << 8 | frame[at + 1], frame[at + 2] << 8 | frame[at + 3]
        if size < 0:
            return None
        return Segment(UDP, src, dst, sport, dport, frame[at + 8 : min(at + 8 + size, end)], size, 0, 0)
    if proto != TCP:
        return None
    sport, dport = frame[at] << 8 | frame[at + 1], frame[at + 2] << 8 | frame[at + 3]
    seq = int.from_bytes(frame[at + 4 : at + 8])
    start, flags = at + (frame[at + 12] >> 4) * 4, frame[at + 13]
    return Segment(TCP, src, dst, sport, dport, frame[start:end], max(end - start, 0), seq, flags)


STREAMS_MAX = 4096
"""Directions of connections followed at once; beyond it the one that began first is forgotten."""
_AHEAD_MAX = 64
"""Segments that wait for a missing one; beyond it the stream is given up."""
_FIN, _SYN, _RST = 1, 2, 4
_HALF = 1 << 31
_MASK = (1 << 32) - 1

_Key = tuple[bytes, int, bytes, int]


class _Stream:
    __slots__ = ("ahead", "buffer", "next_seq")

    def __init__(self, next_seq: int) -> None:
        self.next_seq = next_seq
        self.buffer = bytearray()
        self.ahead: dict[int, bytes] = {}


class Streams:
    """Follows every direction on its own. `lost` counts streams given up because of a gap.

    A connection older than the capture is followed from its first segment, as if a message began there.
    """

    def __init__(self) -> None:
        self._streams: dict[_Key, _Stream] = {}
        self.lost = 0

    def messages(self, part: Segment) -> Iterator[bytes]:
        """Messages that this segment completes."""
        key = (part.src, part.sport, part.dst, part.dport)
        if part.flags & _RST:
            self._streams.pop(key, None)
            return
        if part.flags & _SYN:
            self._begin(key, part.seq + 1 & _MASK)
        if part.payload:
            stream = self._streams.get(key) or self._begin(key, part.seq)
            self._add(stream, part.seq, part.payload)
            yield from _whole(stream.buffer)
            if len(stream.ahead) > _AHEAD_MAX:
                self.lost += 1
                del self._streams[key]
        if part.flags & _FIN:
            self._streams.pop(key, None)

    def _begin(self, key: _Key, seq: int) -> _Stream:
        if len(self._streams) >= STREAMS_MAX and key not in self._streams:
            del self._streams[next(iter(self._streams))]
        stream = self._streams[key] = _Stream(seq)
        return stream

    @staticmethod
    def _add(stream: _Stream, seq: int, payload: bytes) -> None:
        """Append what is next, keep what is ahead, drop what was there already. Sequence numbers wrap."""
        stream.ahead.setdefault(seq, payload)
        progress = True
        while progress:
            progress = False
            for start in sorted(stream.ahead, key=lambda at: (at - stream.next_seq + _HALF) & _MASK):
                old = (stream.next_seq - start) & _MASK
                if old >= _HALF:
                    break
                fresh = stream.ahead.pop(start)[old:]
                stream.buffer += fresh
                stream.next_seq = (stream.next_seq + len(fresh)) & _MASK
                progress = bool(fresh)


def _whole(buffer: bytearray) -> Iterator[bytes]:
    """Take the whole messages off the front; at most 65,537 bytes and one segment stay."""
    while len(buffer) >= 2:
        end = 2 + (buffer[0] << 8 | buffer[1])
        if len(buffer) < end:
            return
        yield bytes(buffer[2:end])
        del buffer[:end]
