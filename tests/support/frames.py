"""dnstap frames and files of Frame Streams, made here field by field."""

from __future__ import annotations

from agents.sources.dnstap import DNSTAP


def varint(number: int) -> bytes:
    """A varint of Protocol Buffers."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def field(number: int, value: int | bytes, fixed: bool = False) -> bytes:
    """One field; fixed: a number of 32 bits."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if fixed:
        return varint(number << 3 | 5) + value.to_bytes(4, "little")
    return varint(number << 3) + varint(value)


def client_frame(
    kind: int, wire: bytes, asked: float | None, answered: float | None = None, client: bytes = b"\xc0\0\2\7"
) -> bytes:
    """A Dnstap message. kind: 5 = CLIENT_QUERY, 6 = CLIENT_RESPONSE; times in Unix seconds."""
    message = field(1, kind) + field(2, 1) + field(4, client) + field(6, 4000)
    for at, number in ((asked, 8), (answered, 12)):
        if at is not None:
            message += field(number, int(at)) + field(number + 1, round(at % 1 * 1e9), fixed=True)
    return field(1, b"server") + field(14, message + field(14 if kind == 6 else 10, wire)) + field(15, 1)


def stream(*frames: bytes, whole: bool = True) -> bytes:
    """A file: START, the frames, STOP."""
    named = (1).to_bytes(4) + len(DNSTAP).to_bytes(4) + DNSTAP
    start = bytes(4) + (4 + len(named)).to_bytes(4) + (2).to_bytes(4) + named
    stop = bytes(4) + (4).to_bytes(4) + (3).to_bytes(4) if whole else b""
    return start + b"".join(len(frame).to_bytes(4) + frame for frame in frames) + stop
