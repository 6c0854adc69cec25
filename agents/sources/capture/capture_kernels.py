"""The walk through a capture: records and blocks, link layers, IP, UDP and TCP, queries joined with their answers.

`scan` walks a buffer of a pcap or pcapng file. A UDP datagram on a DNS port is read as a message at once. The walk
stops at a TCP segment, whose place and addresses it hands over; the caller puts the stream together (streams.py) and
gives back each message with `take_message`. A query waits up to WAIT_S seconds of capture time for its answer, then it
is written out as a RECORD, in order of the queries' times. No clock is read.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import siphash
from agents.core.jit import COMPILED, kernel_in_place
from agents.core.types import UNKNOWN
from agents.dns.message import HEADER_SIZE
from agents.dns.message_kernels import FACTS, answer_facts, copy_bytes, int64, question_end, u16, uint64, write_facts
from agents.dns.name import NAME_MAX
from agents.sources.capture.pcap import (
    BLOCK_MAX,
    BYTE_ORDER_MAGIC,
    ENHANCED_BLOCK,
    FRAME_MAX,
    INTERFACE_BLOCK,
    INTERFACES_MAX,
    OLD_PACKET_BLOCK,
    SECTION_BLOCK,
    SIMPLE_BLOCK,
)
from agents.stream.record import RECORD


def _room(numbers: NDArray[Any]) -> Any:
    """Memory for kernels: an array, or a list where the interpreter runs them, which it reads faster."""
    return numbers if COMPILED else numbers.tolist()


# Link layers, IP, UDP and TCP: from a frame to a transport payload.

UDP, TCP = 17, 6
"""IP protocol numbers."""
NULL, ETHERNET, RAW, LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2 = 0, 1, 101, 108, 113, 228, 229, 276
"""LINKTYPE numbers of the tcpdump.org registry."""
DLT_RAW = (12, 14)
"""RAW as some systems number it and write it into files."""
ETHER_IP, ETHER_IP6 = 0x0800, 0x86DD
ETHER_VLAN = (0x8100, 0x88A8, 0x9100)
"""802.1Q, 802.1ad, and the QinQ type in use before it."""
VLAN_TAGS_MAX = 4
IPV6_FRAGMENT, IPV6_AUTH = 44, 51
IPV6_SKIPPED = (0, 43, 60, 135)
"""Hop-by-hop, routing, destination options, mobility (RFC 8200 section 4, RFC 6275)."""
IPV6_EXTENSIONS_MAX = 8

NOTHING, DATAGRAM, SEGMENT = range(3)
"""Contents of a frame: no UDP or TCP that can be read, a UDP datagram, a TCP segment."""
SPORT, DPORT, PAYLOAD, STOP, SIZE, SEQ, FLAGS = range(7)
"""Numbers of a packet: ports; payload's first byte and the byte behind its last captured one; bytes of the payload as
the header states them; TCP's sequence number and flags."""


class Packet(NamedTuple):
    """The packet found in a frame."""

    source: NDArray[np.uint8]  # (16,): its address; an IPv4 one mapped (RFC 4291 section 2.5.5.2)
    destination: NDArray[np.uint8]  # (16,)
    numbers: NDArray[np.int64]  # SPORT … FLAGS


def packet_room() -> Packet:
    """Room for one packet."""
    return Packet(_room(np.zeros(16, np.uint8)), _room(np.zeros(16, np.uint8)), _room(np.zeros(7, np.int64)))


@kernel_in_place
def u32(data: Any, at: Any, big: Any) -> Any:
    """The 32-bit number at an offset, most significant byte first if `big`."""
    a, b, c, d = int64(data[at]), int64(data[at + 1]), int64(data[at + 2]), int64(data[at + 3])
    return a << 24 | b << 16 | c << 8 | d if big else d << 24 | c << 16 | b << 8 | a


@kernel_in_place
def is_known(link: Any) -> Any:
    """Whether frames of this LINKTYPE can be read."""
    return link in (NULL, ETHERNET, RAW, LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2) or link in DLT_RAW


@kernel_in_place
def _network(link: Any, data: Any, start: Any, end: Any) -> Any:
    """Offset of the IP header, or -1."""
    if link in (NULL, LOOP):
        return start + 4
    if link == LINUX_SLL2:
        if start + 2 > end:
            return -1
        kind = u16(data, start)
        return start + 20 if kind in (ETHER_IP, ETHER_IP6) else -1
    if link not in (ETHERNET, LINUX_SLL):
        return start if is_known(link) else -1
    at = start + (12 if link == ETHERNET else 14)
    for _ in range(VLAN_TAGS_MAX):
        if at + 2 > end:
            return -1
        kind = u16(data, at)
        if kind in (ETHER_IP, ETHER_IP6):
            return at + 2
        if kind not in ETHER_VLAN:
            return -1
        at += 4
    return -1


@kernel_in_place
def _copy_address(data: Any, at: Any, size: Any, address: Any) -> None:
    """Copy an address of 4 or 16 bytes into 16, an IPv4 one mapped."""
    for i in range(16 - size):
        address[i] = 0 if i < 10 else 0xFF
    copy_bytes(address, 16 - size, data, at, size)


@kernel_in_place
def _transport(data: Any, proto: Any, at: Any, stop: Any, end: Any, packet: Any) -> Any:
    """Kind of the segment at `at`, whose datagram ends at `stop` and whose frame ends at `end`."""
    if proto not in (UDP, TCP) or at + 4 > end:
        return NOTHING
    numbers = packet.numbers
    numbers[SPORT], numbers[DPORT] = u16(data, at), u16(data, at + 2)
    if proto == TCP:
        if at + 14 > end:
            return NOTHING
        numbers[SEQ], numbers[FLAGS] = u32(data, at + 4, True), data[at + 13]
        numbers[PAYLOAD] = at + (int64(data[at + 12]) >> 4) * 4
        numbers[STOP] = max(min(stop, end), numbers[PAYLOAD])
        numbers[SIZE] = numbers[STOP] - numbers[PAYLOAD]
        return SEGMENT
    if at + 6 > end or u16(data, at + 4) < 8:
        return NOTHING
    numbers[PAYLOAD], numbers[SIZE] = at + 8, u16(data, at + 4) - 8
    numbers[STOP] = max(min(at + 8 + numbers[SIZE], stop, end), at + 8)
    return DATAGRAM


@kernel_in_place
def _ipv4(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """Kind of the packet whose IPv4 header is at `at`. With segmentation offload its length is 0: the frame ends it."""
    if at + 10 > end or u16(data, at + 6) & 0x1FFF:
        return NOTHING
    length, start = u16(data, at + 2), at + (int64(data[at]) & 0x0F) * 4
    kind = _transport(data, data[at + 9], start, at + length if length else end, end, packet)
    if at + 20 > end:  # a header without its addresses; one that lies about its size may hold a UDP header
        return DATAGRAM if kind == DATAGRAM else NOTHING
    _copy_address(data, at + 12, 4, packet.source)
    _copy_address(data, at + 16, 4, packet.destination)
    return kind


@kernel_in_place
def _ipv6(data: Any, at: Any, end: Any, packet: Any) -> Any:
    """Kind of the packet whose IPv6 header is at `at`; known extension headers are skipped."""
    if at + 7 > end:
        return NOTHING
    length, proto, start = u16(data, at + 4), int64(data[at + 6]), at + 40
    stop = at + 40 + length if length else end
    for _ in range(IPV6_EXTENSIONS_MAX):
        if proto in (UDP, TCP):
            kind = _transport(data, proto, start, stop, end, packet)
            if kind != NOTHING:
                _copy_address(data, at + 8, 16, packet.source)
                _copy_address(data, at + 24, 16, packet.destination)
            return kind
        if start + 2 > end or (proto == IPV6_FRAGMENT and start + 4 > end):
            return NOTHING
        if proto == IPV6_FRAGMENT:
            if u16(data, start + 2) & 0xFFF8:
                return NOTHING
            size = int64(8)
        elif proto == IPV6_AUTH:
            size = (int64(data[start + 1]) + 2) * 4
        elif proto in IPV6_SKIPPED:
            size = (int64(data[start + 1]) + 1) * 8
        else:
            return NOTHING
        proto = int64(data[start])
        start += size
    return NOTHING


@kernel_in_place
def find_packet(link: Any, data: Any, start: Any, end: Any, packet: Any) -> Any:
    """Read the frame data[start:end] into `packet`; NOTHING, DATAGRAM or SEGMENT."""
    at = _network(link, data, start, end)
    if at < 0 or at >= end:
        return NOTHING
    version = data[at] >> 4
    if version == 4:
        return _ipv4(data, at, end, packet)
    return _ipv6(data, at, end, packet) if version == 6 else NOTHING


# Queries that wait for their answers.

WAIT_S = 5.0
"""Seconds of capture time that a query waits for its answer: a stub resolver's (resolv.conf(5))."""
WAITING_MAX = 65_536
"""Queries that wait at once; beyond it the oldest goes on as it is."""
POOL = WAITING_MAX + 32_768
"""More than can come in one datagram's frame. A segment that fills a gap may release more: those are refused."""
RING, SLOTS = 1 << 17, 1 << 18
FIRST, WAITING, FREE = range(3)
_KEY_ROOM = 16 + 16 + 4 + NAME_MAX + 5
"""Addresses, port and id, and the question."""


class Joiner(NamedTuple):
    """Queries that wait, in order of time, and found by whom they ask what."""

    pool: NDArray[np.void]  # RECORDs
    keys: NDArray[np.uint64]  # (POOL,)
    free: NDArray[np.int32]  # (POOL,): numbers of free rows, the last one next
    ring: NDArray[np.int32]  # (RING,): numbers of waiting rows
    slots: NDArray[np.int32]  # (SLOTS,): number of a row plus one, 0 = free
    numbers: NDArray[np.int64]  # FIRST in the ring, how many are WAITING, how many are FREE
    key: NDArray[np.uint8]  # scratch
    facts: NDArray[np.int64]  # scratch
    secret: NDArray[np.uint64]  # (2,)


def empty_joiner(secret: tuple[int, int]) -> Joiner:
    """No query waits. secret: two numbers of 64 bits that no sender of packets knows."""
    return Joiner(
        np.zeros(POOL, RECORD),
        _room(np.zeros(POOL, np.uint64)),
        _room(np.arange(POOL, dtype=np.int32)),
        _room(np.zeros(RING, np.int32)),
        _room(np.zeros(SLOTS, np.int32)),
        _room(np.array((0, 0, POOL), np.int64)),
        _room(np.zeros(_KEY_ROOM, np.uint8)),
        _room(np.zeros(FACTS, np.int64)),
        np.array(secret, np.uint64),
    )


def _keyed_hash(data: Any, start: int, end: int, low: Any, high: Any) -> Any:
    """A keyed hash of data[start:end] that costs the interpreter little."""
    return int.from_bytes(
        blake2b(bytes(data[start:end]), digest_size=8, key=int(low).to_bytes(8) + int(high).to_bytes(8)).digest()
    )


keyed_hash = siphash if COMPILED else _keyed_hash


@kernel_in_place
def _identity(data: Any, start: Any, end: Any, client: Any, port: Any, server: Any, joiner: Any) -> Any:
    """Identity of an exchange: client, port, server, id, question. The question of data[start:] ends at `end`."""
    key, size = joiner.key, 36
    copy_bytes(key, 0, client, 0, 16)
    copy_bytes(key, 16, server, 0, 16)
    key[32], key[33], key[34], key[35] = port >> 8, port & 0xFF, data[start], data[start + 1]
    for at in range(start + HEADER_SIZE, end):
        byte = data[at]
        key[size] = byte + 32 if 0x41 <= byte <= 0x5A else byte
        size += 1
    return keyed_hash(key, 0, size, joiner.secret[0], joiner.secret[1])


@kernel_in_place
def _find_slot(joiner: Any, key: Any) -> Any:
    """The slot of the first row that waits under the key, or the free slot where it would be."""
    at = int64(key & uint64(SLOTS - 1))
    while joiner.slots[at] and joiner.keys[joiner.slots[at] - 1] != key:
        at = (at + 1) & (SLOTS - 1)
    return at


@kernel_in_place
def _remove(joiner: Any, at: Any) -> None:
    """Empty a slot and move up what lies behind it (Knuth volume 3, section 6.4, algorithm R)."""
    slots = joiner.slots
    hole = at
    while True:
        at = (at + 1) & (SLOTS - 1)
        if not slots[at]:
            break
        home = int64(joiner.keys[slots[at] - 1] & uint64(SLOTS - 1))
        if (at - home) & (SLOTS - 1) >= (at - hole) & (SLOTS - 1):
            slots[hole] = slots[at]
            hole = at
    slots[hole] = 0


@kernel_in_place
def _queue(joiner: Any, ts: Any, number: Any) -> None:
    """Put a row in its place in the ring: behind all that are not later."""
    first, waiting = joiner.numbers[FIRST], joiner.numbers[WAITING]
    at = first + waiting
    while at > first and joiner.pool[joiner.ring[(at - 1) & (RING - 1)]]["ts"] > ts:
        joiner.ring[at & (RING - 1)] = joiner.ring[(at - 1) & (RING - 1)]
        at -= 1
    joiner.ring[at & (RING - 1)] = number
    joiner.numbers[WAITING] = waiting + 1


@kernel_in_place
def take_query(
    joiner: Any, ts: Any, data: Any, start: Any, end: Any, size: Any, client: Any, port: Any, server: Any
) -> Any:
    """Take the query data[start:end] of `size` bytes; client and server u8[16]. False if malformed, or without room."""
    stop = question_end(data, start, end)
    if stop == 0:
        return False
    if joiner.numbers[FREE] == 0:
        return False
    joiner.numbers[FREE] -= 1
    number = joiner.free[joiner.numbers[FREE]]
    row = joiner.pool[number]
    row["ts"], row["qlen"], row["qtype"] = ts, size, u16(data, stop - 4)
    row["ttl_min"] = row["ancount"] = row["rlen"] = row["rcode"] = UNKNOWN
    row["rtt_ms"] = np.nan
    row["ans_types"][:] = 0
    copy_bytes(row["client"], 0, client, 0, 16)
    first = start + HEADER_SIZE
    row["qname_size"] = stop - 5 - first
    copy_bytes(row["qname"], 0, data, first, stop - 5 - first)
    key = _identity(data, start, stop, client, port, server, joiner)
    joiner.keys[number] = key
    at = _find_slot(joiner, key)
    if not joiner.slots[at]:
        joiner.slots[at] = number + 1
    _queue(joiner, ts, number)
    return True


@kernel_in_place
def take_answer(
    joiner: Any, ts: Any, data: Any, start: Any, end: Any, size: Any, client: Any, port: Any, server: Any
) -> Any:
    """Take the answer data[start:end]; one that answers nothing is ignored. False if it is malformed."""
    stop = question_end(data, start, end)
    if stop == 0:
        return False
    at = _find_slot(joiner, _identity(data, start, stop, client, port, server, joiner))
    if joiner.slots[at]:
        row = joiner.pool[joiner.slots[at] - 1]
        _remove(joiner, at)
        if ts - row["ts"] <= WAIT_S:
            answer_facts(data, start, stop, end, joiner.facts)
            write_facts(joiner.facts, row)
            row["rlen"], row["rtt_ms"] = size, (ts - row["ts"]) * 1000
    return True


@kernel_in_place
def _copy(row: Any, to: Any) -> None:
    """Make the record `to` the same as `row`, bytes behind its name apart: most of a record is room for a long one."""
    to["ts"], to["ttl_min"], to["rtt_ms"], to["qlen"] = row["ts"], row["ttl_min"], row["rtt_ms"], row["qlen"]
    to["ancount"], to["rlen"], to["qtype"], to["rcode"] = row["ancount"], row["rlen"], row["qtype"], row["rcode"]
    copy_bytes(to["ans_types"], 0, row["ans_types"], 0, len(row["ans_types"]))
    copy_bytes(to["client"], 0, row["client"], 0, 16)
    to["qname_size"] = row["qname_size"]
    copy_bytes(to["qname"], 0, row["qname"], 0, row["qname_size"])


@kernel_in_place
def ready(joiner: Any, now: Any, out: Any, written: Any) -> Any:
    """Move rows older than the wait, and the oldest beyond the bound, behind the `written` ones of `out`; how many
    there are then. Where `out` is full the rest waits on. With `now` infinite all rows are moved."""
    numbers = joiner.numbers
    while written < len(out) and numbers[WAITING]:
        number = joiner.ring[numbers[FIRST] & (RING - 1)]
        row = joiner.pool[number]
        if not (now - row["ts"] > WAIT_S or numbers[WAITING] > WAITING_MAX):
            break
        at = _find_slot(joiner, joiner.keys[number])
        if joiner.slots[at] == number + 1:
            _remove(joiner, at)
        _copy(row, out[written])
        written += 1
        numbers[FIRST] += 1
        numbers[WAITING] -= 1
        joiner.free[numbers[FREE]] = number
        numbers[FREE] += 1
    return written


# Records of pcap files, blocks of pcapng files, and the walk.

MORE, FULL, HUGE, BAD_BLOCK, NO_MAGIC, INTERFACE, TCP_SEGMENT, _FRAME = range(8)
"""Reasons to stop: the buffer holds no whole record more, `out` is full, a record or block claims an impossible size, a
section has no byte order; or there is an interface block or a TCP segment for the caller."""
AT, FRAME, FRAME_END, LINK, CLAIMED, BIG, BLOCKS, INTERFACES, MALFORMED, CUT, UNKNOWN_LINK, WHOLE = range(12)
"""State, numbers: offset of the next record; the frame, its link type and whether it is whole; a size that was claimed;
byte order, format, interfaces; and counts."""
NOW, UNIT = range(2)
"""State, times: that of the last frame; seconds per unit of a pcap file's fractions."""


class Walk(NamedTuple):
    """Place and counts of a walk, and the interfaces of the pcapng section at hand."""

    numbers: NDArray[np.int64]
    times: NDArray[np.float64]
    links: NDArray[np.int64]  # (INTERFACES_MAX,): of each interface, as units, offsets, snaps
    units: NDArray[np.float64]
    offsets: NDArray[np.float64]
    snaps: NDArray[np.int64]
    ports: NDArray[np.bool_]  # (65536,): which carry DNS


def new_walk(ports: NDArray[np.bool_]) -> Walk:
    """A walk at the beginning of a file."""
    integers, reals = np.zeros(INTERFACES_MAX, np.int64), np.zeros(INTERFACES_MAX)
    return Walk(
        _room(np.zeros(12, np.int64)),
        _room(np.array((-np.inf, 0.0))),
        _room(integers.copy()),
        _room(reals.copy()),
        _room(reals),
        _room(integers),
        _room(ports),
    )


@kernel_in_place
def take_message(walk: Any, joiner: Any, packet: Any, data: Any) -> None:
    """Take the payload as a query or an answer, as its QR bit says, or count it as malformed."""
    numbers, found, now = walk.numbers, packet.numbers, walk.times[NOW]
    start, stop, size = found[PAYLOAD], found[STOP], found[SIZE]
    sport, dport = found[SPORT], found[DPORT]
    fine = stop - start >= 3
    if fine and data[start + 2] & 0x80:
        if walk.ports[sport]:
            fine = take_answer(joiner, now, data, start, stop, size, packet.destination, dport, packet.source)
    elif fine and walk.ports[dport] and not data[start + 2] & 0x78:
        fine = take_query(joiner, now, data, start, stop, size, packet.source, sport, packet.destination)
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
    captured = u32(data, at + 8, big)
    numbers[CLAIMED] = captured
    if captured > FRAME_MAX:
        return HUGE
    if at + 16 + captured > end:
        return MORE
    numbers[FRAME], numbers[FRAME_END] = at + 16, at + 16 + captured
    numbers[WHOLE] = captured >= u32(data, at + 12, big)
    numbers[AT] = numbers[FRAME_END]
    walk.times[NOW] = u32(data, at, big) + u32(data, at + 4, big) * walk.times[UNIT]
    return _FRAME


@kernel_in_place
def _packet(walk: Any, data: Any, body: Any, stop: Any, kind: Any) -> Any:
    """Find the frame in a packet block's body; False for other blocks and undeclared interfaces."""
    numbers, big, size = walk.numbers, walk.numbers[BIG], stop - body
    if kind == SIMPLE_BLOCK and size >= 4 and numbers[INTERFACES]:
        original = u32(data, body, big)
        number, captured, body = 0, min(original, walk.snaps[0] or original, size - 4), body + 4
        walk.times[NOW] = 0.0
    elif kind in (ENHANCED_BLOCK, OLD_PACKET_BLOCK) and size >= 20:
        number, captured, original = u32(data, body, big), u32(data, body + 12, big), u32(data, body + 16, big)
        if kind == OLD_PACKET_BLOCK:
            number = number >> 16 if big else number & 0xFFFF
        if number >= numbers[INTERFACES] or captured > size - 20:
            return False
        ticks = uint64(u32(data, body + 4, big)) << uint64(32) | uint64(u32(data, body + 8, big))
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
        kind = u32(data, at, numbers[BIG])
        if kind == SECTION_BLOCK:
            if at + 12 > end:
                return MORE
            if u32(data, at + 8, True) != BYTE_ORDER_MAGIC and u32(data, at + 8, False) != BYTE_ORDER_MAGIC:
                return NO_MAGIC
            numbers[BIG], numbers[INTERFACES] = u32(data, at + 8, True) == BYTE_ORDER_MAGIC, 0
        total = u32(data, at + 4, numbers[BIG])
        numbers[CLAIMED] = total
        if total < 12 or total > BLOCK_MAX or total % 4:
            return BAD_BLOCK
        if at + total > end:
            return MORE
        numbers[AT] = at + total
        if kind == INTERFACE_BLOCK:
            numbers[FRAME], numbers[FRAME_END] = at + 8, at + total - 4
            return INTERFACE
        if _packet(walk, data, at + 8, at + total - 4, kind):
            return _FRAME


@kernel_in_place
def scan(walk: Any, joiner: Any, packet: Any, data: Any, out: Any, written: Any) -> Any:
    """Go on through the buffer `data` (u8); finished rows go behind the `written` ones of `out`, RECORDs.

    Returns (reason to stop, rows in `out`).
    """
    numbers = walk.numbers
    while True:
        written = ready(joiner, walk.times[NOW], out, written)
        if written == len(out):
            return FULL, written
        found = _block(walk, data, len(data)) if numbers[BLOCKS] else _record(walk, data, len(data))
        if found != _FRAME:
            return found, written
        kind = find_packet(numbers[LINK], data, numbers[FRAME], numbers[FRAME_END], packet)
        if kind == NOTHING:
            numbers[UNKNOWN_LINK] += not is_known(numbers[LINK])
            continue
        ports = packet.numbers
        if not walk.ports[ports[SPORT]] and not walk.ports[ports[DPORT]]:
            continue
        if kind == SEGMENT:
            return TCP_SEGMENT, written
        take_message(walk, joiner, packet, data)
