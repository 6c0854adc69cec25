"""TCP streams put together from captured segments, and the DNS messages in them (RFC 1035 section 4.2.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from agents.dns.message import HEADER_SIZE, question_end
from agents.dns.name import NAME_MAX

STREAMS_MAX = 4096
"""Directions of connections followed at once; beyond it the one that began first is forgotten."""
_AHEAD_MAX = 64
"""Segments that wait for a missing one; beyond it the stream goes on without it."""
_AHEAD_S = 5.0
"""Seconds of capture time that they wait: retransmission takes one to three at first (RFC 6298 section 2)."""
_QDCOUNT_AT, _ONE_QUESTION = 6, b"\0\1"
"""Where a message over TCP counts its questions, behind its length."""
_QUESTION_ROOM = 2 + HEADER_SIZE + NAME_MAX + 5
"""Bytes of a length, a header and a question, at most."""
FORWARDED_S = 0.1
"""Seconds between a packet and its copy behind a router."""
_FIN, _SYN, _RST = 1, 2, 4
_HALF = 1 << 31
_MASK = (1 << 32) - 1

_Key = tuple[bytes, int, bytes, int]


class Segment(NamedTuple):
    """One captured TCP segment; addresses as bytes. ident: IP's identification; ts: seconds."""

    src: bytes
    sport: int
    dst: bytes
    dport: int
    seq: int
    flags: int
    payload: bytes
    ident: int
    ttl: int
    ts: float


class _Stream:
    """One direction of a connection: bytes in order, and segments ahead of a gap, which is there `since` a time.

    lost_place: no message is known to begin at the buffer's first byte.
    """

    __slots__ = ("ahead", "buffer", "lost_place", "next_seq", "since")

    def __init__(self, next_seq: int) -> None:
        self.next_seq = next_seq
        self.buffer = bytearray()
        self.ahead: dict[int, bytes] = {}
        self.since = 0.0
        self.lost_place = False


class Streams:
    """All directions of connections, each followed on its own. `lost` counts gaps that nothing filled.

    A connection older than the capture is followed from its first segment, as if a message began there. Behind a gap it
    is followed from the next message: where the length before the gap says, or at the next bytes that begin one.
    """

    def __init__(self) -> None:
        self._streams: dict[_Key, _Stream] = {}
        self._copies: dict[tuple[object, ...], tuple[float, int]] = {}
        self.lost = 0
        self.copied = 0

    def messages(self, segment: Segment) -> Iterator[bytes]:
        """Yield the messages that this segment completes."""
        key = (segment.src, segment.sport, segment.dst, segment.dport)
        if self._is_copy(segment):
            self.copied += 1
            return
        if segment.flags & _SYN:
            self._begin(key, segment.seq + 1 & _MASK)
        if segment.payload:
            stream = self._streams.get(key) or self._begin(key, segment.seq)
            self._add(stream, segment)
            yield from _whole(stream)
            if len(stream.ahead) > _AHEAD_MAX or (stream.ahead and segment.ts - stream.since > _AHEAD_S):
                yield from self._past_gap(stream)
        if segment.flags & (_FIN | _RST) and (ended := self._streams.pop(key, None)):
            yield from self._past_gaps(ended)

    def finish(self) -> Iterator[tuple[bytes, int, bytes, int, bytes]]:
        """The capture has ended: yield the messages behind gaps, each with source, port, destination and port."""
        for key, stream in self._streams.items():
            for message in self._past_gaps(stream):
                yield *key, message
        self._streams.clear()

    def _is_copy(self, segment: Segment) -> bool:
        """Whether a router within sight of the capture forwarded this segment: a hop less, all else the same."""
        key = (*segment[:6], segment.ident, len(segment.payload))
        ts, ttl = self._copies.pop(key, (segment.ts, segment.ttl))
        if len(self._copies) >= STREAMS_MAX:
            del self._copies[next(iter(self._copies))]
        self._copies[key] = (segment.ts, segment.ttl)
        return abs(ttl - segment.ttl) == 1 and abs(segment.ts - ts) <= FORWARDED_S

    def _begin(self, key: _Key, seq: int) -> _Stream:
        if len(self._streams) >= STREAMS_MAX and key not in self._streams:
            del self._streams[next(iter(self._streams))]
        stream = self._streams[key] = _Stream(seq)
        return stream

    @staticmethod
    def _add(stream: _Stream, segment: Segment) -> None:
        """Append the bytes that come next, keep those ahead, drop those there already. Sequence numbers wrap."""
        if not stream.ahead:
            stream.since = segment.ts
        stream.ahead.setdefault(segment.seq, segment.payload)
        _append(stream)

    def _past_gap(self, stream: _Stream) -> Iterator[bytes]:
        """Go on behind the first gap."""
        self.lost += 1
        first = min(stream.ahead, key=lambda at: _distance(stream, at))
        missing = _distance(stream, first)
        left = 2 + (stream.buffer[0] << 8 | stream.buffer[1]) - len(stream.buffer) if len(stream.buffer) >= 2 else 0
        stream.buffer.clear()
        # If the message that the gap interrupted ends behind it, the next one begins there.
        stream.lost_place = left < missing
        stream.next_seq = first if stream.lost_place else (first + left - missing) & _MASK
        _append(stream)
        yield from _whole(stream)

    def _past_gaps(self, stream: _Stream) -> Iterator[bytes]:
        while stream.ahead:
            yield from self._past_gap(stream)


def _distance(stream: _Stream, at: int) -> int:
    """Bytes from the stream's next one to `at`, negative where it lies behind."""
    return ((at - stream.next_seq + _HALF) & _MASK) - _HALF


def _append(stream: _Stream) -> None:
    """Move the segments that follow the bytes in order behind them."""
    progress = True
    while progress:
        progress = False
        for start in sorted(stream.ahead, key=lambda at: _distance(stream, at)):
            old = -_distance(stream, start)
            if old < 0:
                break
            fresh = stream.ahead.pop(start)[old:]
            stream.buffer += fresh
            stream.next_seq = (stream.next_seq + len(fresh)) & _MASK
            progress = bool(fresh)


def _begins_message(buffer: bytearray, at: int) -> bool:
    """Whether these bytes are a message's length, a header with one question and nothing odd, and that question."""
    size = buffer[at] << 8 | buffer[at + 1]
    message = bytes(buffer[at + 2 : min(at + 2 + size, at + _QUESTION_ROOM)])
    if len(message) < HEADER_SIZE or message[2] & 0x78 or any(message[6:12:2]):
        return False
    return question_end(message) > 0


def _find_place(stream: _Stream) -> None:
    """Drop what lies before the first message of the buffer, or all but the bytes in which one may begin."""
    buffer = stream.buffer
    at = buffer.find(_ONE_QUESTION, _QDCOUNT_AT)
    while at >= 0:
        if _begins_message(buffer, at - _QDCOUNT_AT):
            del buffer[: at - _QDCOUNT_AT]
            stream.lost_place = False
            return
        at = buffer.find(_ONE_QUESTION, at + 1)
    del buffer[:-_QUESTION_ROOM]


def _whole(stream: _Stream) -> Iterator[bytes]:
    """Take the whole messages off the front; at most 65,537 bytes and one segment stay."""
    buffer = stream.buffer
    if stream.lost_place:
        _find_place(stream)
    while len(buffer) >= 2 and not stream.lost_place:
        end = 2 + (buffer[0] << 8 | buffer[1])
        if len(buffer) < end:
            return
        yield bytes(buffer[2:end])
        del buffer[:end]
