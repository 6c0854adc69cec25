"""Walks the records of a pcap or the blocks of a pcapng file in a buffer. The definition is sources/pcap and capture.

What is rare is left to the caller, who then calls again: interface blocks and DNS over TCP.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.kernels import joining, kernel_in_place, packets

MORE, FULL, HUGE, BAD_BLOCK, NO_MAGIC, INTERFACE, TCP_FRAME, _FRAME = range(8)
"""Why the walk stopped: the buffer holds no whole record more, `out` is full, a record or block claims an impossible
size, a section has no byte order; or there is an interface block or a TCP segment for the caller."""
AT, FRAME, FRAME_END, LINK, CLAIMED, BIG, BLOCKS, INTERFACES, MALFORMED, CUT, UNKNOWN_LINK, WHOLE = range(12)
"""State, numbers: offset of the next record; the frame, its link type and whether it is whole; a size that was claimed;
byte order, format, interfaces; and what is counted."""
NOW, UNIT = range(2)
"""State, times: that of the last frame; seconds per unit of a pcap file's fractions."""
FRAME_MAX, BLOCK_MAX, INTERFACES_MAX = 262_144, 1 << 24, 4096
"""As in sources/pcap."""
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_MAGIC = 0x1A2B3C4D


class Walk(NamedTuple):
    """Where a walk is, and what it needs."""

    numbers: NDArray[np.int64]
    times: NDArray[np.float64]
    links: NDArray[np.int64]  # (INTERFACES_MAX,): of each interface, as units, offsets, snaps
    units: NDArray[np.float64]
    offsets: NDArray[np.float64]
    snaps: NDArray[np.int64]
    ports: NDArray[np.bool_]  # (65536,): which carry DNS


def walk(ports: NDArray[np.bool_]) -> Walk:
    """At the beginning of a file."""
    links, snaps = np.zeros(INTERFACES_MAX, np.int64), np.zeros(INTERFACES_MAX, np.int64)
    units, offsets = np.zeros(INTERFACES_MAX), np.zeros(INTERFACES_MAX)
    return Walk(np.zeros(12, np.int64), np.array((-np.inf, 0.0)), links, units, offsets, snaps, ports)


@kernel_in_place
def _u32(data: Any, at: Any, big: Any) -> Any:
    a, b, c, d = np.int64(data[at]), np.int64(data[at + 1]), np.int64(data[at + 2]), np.int64(data[at + 3])
    return a << 24 | b << 16 | c << 8 | d if big else d << 24 | c << 16 | b << 8 | a


@kernel_in_place
def _message(walk: Any, joint: Any, packet: Any, data: Any) -> None:
    """Give the datagram in the frame to the joiner; count what is no DNS message."""
    numbers, found, now = walk.numbers, packet.numbers, walk.times[NOW]
    start, stop, size = found[packets.PAYLOAD], found[packets.STOP], found[packets.SIZE]
    sport, dport = found[packets.SPORT], found[packets.DPORT]
    fine = stop - start >= 3
    if fine and data[start + 2] & 0x80:
        if walk.ports[sport]:
            fine = joining.answer(joint, now, data, start, stop, size, packet.server, dport, packet.client)
    elif fine and walk.ports[dport] and not data[start + 2] & 0x78:
        fine = joining.query(joint, now, data, start, stop, size, packet.client, sport, packet.server)
    if not fine:
        numbers[MALFORMED] += 1
        numbers[CUT] += 1 - numbers[WHOLE]


@kernel_in_place
def _record(walk: Any, data: Any, end: Any) -> Any:
    """Find the next frame of a pcap file."""
    numbers = walk.numbers
    at, big = numbers[AT], numbers[BIG]
    if at + 16 > end:
        return MORE
    captured = _u32(data, at + 8, big)
    numbers[CLAIMED] = captured
    if captured > FRAME_MAX:
        return HUGE
    if at + 16 + captured > end:
        return MORE
    numbers[FRAME], numbers[FRAME_END] = at + 16, at + 16 + captured
    numbers[WHOLE] = captured >= _u32(data, at + 12, big)
    numbers[AT] = numbers[FRAME_END]
    walk.times[NOW] = _u32(data, at, big) + _u32(data, at + 4, big) * walk.times[UNIT]
    return _FRAME


@kernel_in_place
def _packet(walk: Any, data: Any, body: Any, stop: Any, kind: Any) -> Any:
    """Find the frame in a packet block's body; False for other blocks and undeclared interfaces."""
    numbers, big, size = walk.numbers, walk.numbers[BIG], stop - body
    if kind == _SIMPLE and size >= 4 and numbers[INTERFACES]:
        original = _u32(data, body, big)
        number, captured, body = 0, min(original, walk.snaps[0] or original, size - 4), body + 4
        walk.times[NOW] = 0.0
    elif kind in (_ENHANCED, _OLD_PACKET) and size >= 20:
        number, captured, original = _u32(data, body, big), _u32(data, body + 12, big), _u32(data, body + 16, big)
        if kind == _OLD_PACKET:
            number = number >> 16 if big else number & 0xFFFF
        if number >= numbers[INTERFACES] or captured > size - 20:
            return False
        ticks = np.uint64(_u32(data, body + 4, big)) << np.uint64(32) | np.uint64(_u32(data, body + 8, big))
        walk.times[NOW] = ticks * walk.units[number] + walk.offsets[number]
        body += 20
    else:
        return False
    numbers[FRAME], numbers[FRAME_END], numbers[LINK] = body, body + captured, walk.links[number]
    numbers[WHOLE] = captured >= original
    return True


@kernel_in_place
def _block(walk: Any, data: Any, end: Any) -> Any:
    """Find the next frame of a pcapng file."""
    numbers = walk.numbers
    while True:
        at = numbers[AT]
        if at + 8 > end:
            return MORE
        kind = _u32(data, at, numbers[BIG])
        if kind == _SECTION:
            if at + 12 > end:
                return MORE
            if _u32(data, at + 8, True) != _MAGIC and _u32(data, at + 8, False) != _MAGIC:
                return NO_MAGIC
            numbers[BIG], numbers[INTERFACES] = _u32(data, at + 8, True) == _MAGIC, 0
        total = _u32(data, at + 4, numbers[BIG])
        numbers[CLAIMED] = total
        if total < 12 or total > BLOCK_MAX or total % 4:
            return BAD_BLOCK
        if at + total > end:
            return MORE
        numbers[AT] = at + total
        if kind == _INTERFACE:
            numbers[FRAME], numbers[FRAME_END] = at + 8, at + total - 4
            return INTERFACE
        if _packet(walk, data, at + 8, at + total - 4, kind):
            return _FRAME


@kernel_in_place
def scan(walk: Any, joint: Any, packet: Any, data: Any, out: Any, written: Any) -> Any:
    """Go on through the buffer `data` (u8); finished rows go behind the `written` ones of `out`, RECORDs.

    Returns (why it stopped, rows in `out`).
    """
    numbers = walk.numbers
    while True:
        written = joining.ready(joint, walk.times[NOW], out, written)
        if written == len(out):
            return FULL, written
        found = _block(walk, data, len(data)) if numbers[BLOCKS] else _record(walk, data, len(data))
        if found != _FRAME:
            return found, written
        kind = packets.find(numbers[LINK], data, numbers[FRAME], numbers[FRAME_END], packet)
        if kind == packets.NOTHING:
            numbers[UNKNOWN_LINK] += not packets.is_known(numbers[LINK])
            continue
        ports = packet.numbers
        if not walk.ports[ports[packets.SPORT]] and not walk.ports[ports[packets.DPORT]]:
            continue
        if kind == packets.STREAM:
            return TCP_FRAME, written
        _message(walk, joint, packet, data)
