"""TCP streams put together from captured segments, and the DNS messages in them (RFC 1035 section 4.2.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

STREAMS_MAX = 4096
"""Directions of connections followed at once; beyond it the one that began first is forgotten."""
_AHEAD_MAX = 64
"""Segments that wait for a missing one; beyond it the stream is given up."""
_FIN, _SYN, _RST = 1, 2, 4
_HALF = 1 << 31
_MASK = (1 << 32) - 1

_Key = tuple[bytes, int, bytes, int]


class Segment(NamedTuple):
    """One captured TCP segment; addresses as bytes."""

    src: bytes
    sport: int
    dst: bytes
    dport: int
    seq: int
    flags: int
    payload: bytes


class _Stream:
    """One direction of a connection: bytes in order, and segments ahead of a gap."""

    __slots__ = ("ahead", "buffer", "next_seq")

    def __init__(self, next_seq: int) -> None:
        self.next_seq = next_seq
        self.buffer = bytearray()
        self.ahead: dict[int, bytes] = {}


class Streams:
    """All directions of connections, each followed on its own. `lost` counts streams given up because of a gap.

    A connection older than the capture is followed from its first segment, as if a message began there.
    """

    def __init__(self) -> None:
        self._streams: dict[_Key, _Stream] = {}
        self.lost = 0

    def messages(self, segment: Segment) -> Iterator[bytes]:
        """Yield the messages that this segment completes."""
        key = (segment.src, segment.sport, segment.dst, segment.dport)
        if segment.flags & _RST:
            self._streams.pop(key, None)
            return
        if segment.flags & _SYN:
            self._begin(key, segment.seq + 1 & _MASK)
        if segment.payload:
            stream = self._streams.get(key) or self._begin(key, segment.seq)
            self._add(stream, segment.seq, segment.payload)
            yield from _whole(stream.buffer)
            if len(stream.ahead) > _AHEAD_MAX:
                self.lost += 1
                del self._streams[key]
        if segment.flags & _FIN:
            self._streams.pop(key, None)

    def _begin(self, key: _Key, seq: int) -> _Stream:
        if len(self._streams) >= STREAMS_MAX and key not in self._streams:
            del self._streams[next(iter(self._streams))]
        stream = self._streams[key] = _Stream(seq)
        return stream

    @staticmethod
    def _add(stream: _Stream, seq: int, payload: bytes) -> None:
        """Append the bytes that come next, keep those ahead, drop those there already. Sequence numbers wrap."""
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
