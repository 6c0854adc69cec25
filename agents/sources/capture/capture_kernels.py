"""The walk through a capture: records and blocks, DNS messages, queries joined with their answers.

`scan` walks a buffer of a pcap or pcapng file. A UDP datagram on a DNS port is read as a message at once, and one on
another port if it is a query by its content. The walk stops at a TCP segment or an IP fragment, whose place and
addresses it hands over; the caller puts streams and packets together (streams.py, fragments.py) and gives back each
packet with `take_packet`, each message with `take_message`. A message that a router forwarded within sight of the
capture is there twice and counts once. A query waits up to WAIT_S seconds of capture time for its answer, then it
is written out as a RECORD, in order of the queries' times. No clock is read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.core.types import UNKNOWN
from agents.dns.message import HEADER_SIZE, OPT
from agents.dns.message_kernels import (
    HASH_MASK,
    answer_facts,
    copy_bytes,
    int64,
    new_facts,
    piece_hash,
    question_end,
    u16,
    uint64,
    write_facts,
)
from agents.dns.name import NAME_MAX
from agents.sources.capture.frame_kernels import (
    DATAGRAM,
    DPORT,
    FRAGMENT,
    IP_ID,
    NOTHING,
    OTHER_TCP,
    OTHER_UDP,
    PAYLOAD,
    REASONS,
    SEGMENT,
    SIZE,
    SPORT,
    STOP,
    TTL,
    WHY,
    find_packet,
    room,
    u32,
)
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
from agents.sources.capture.streams import FORWARDED_S
from agents.stream.record import RECORD

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
        room(np.zeros(POOL, np.uint64)),
        room(np.arange(POOL, dtype=np.int32)),
        room(np.zeros(RING, np.int32)),
        room(np.zeros(SLOTS, np.int32)),
        room(np.array((0, 0, POOL), np.int64)),
        room(np.zeros(_KEY_ROOM, np.uint8)),
        room(new_facts((secret[0] & HASH_MASK, secret[1] & HASH_MASK))),
        np.array(secret, np.uint64),
    )


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
    return piece_hash(key, 0, size, joiner.secret[0], joiner.secret[1])


@kernel_in_place
def find_slot(joiner: Any, key: Any) -> Any:
    """The slot of the first row that waits under the key, or the free slot where it would be."""
    at = int64(key & uint64(SLOTS - 1))
    while joiner.slots[at] and joiner.keys[joiner.slots[at] - 1] != key:
        at = (at + 1) & (SLOTS - 1)
    return at


@kernel_in_place
def free_slot(joiner: Any, at: Any) -> None:
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
def _take_query(joiner: Any, ts: Any, data: Any, start: Any, stop: Any, size: Any, client: Any, key: Any) -> Any:
    """Take a query of `size` bytes whose question ends at `stop`; `key` is its identity. False without room."""
    if joiner.numbers[FREE] == 0:
        return False
    joiner.numbers[FREE] -= 1
    number = joiner.free[joiner.numbers[FREE]]
    row = joiner.pool[number]
    row["ts"], row["qlen"], row["qtype"] = ts, size, u16(data, stop - 4)
    row["ttl_min"] = row["ancount"] = row["rlen"] = row["rcode"] = row["cached"] = UNKNOWN
    row["ans_hash"], row["ans_bytes"], row["negative_ttl"] = 0, UNKNOWN, 0  # no answer is kept
    row["rtt_ms"] = np.nan
    row["ans_types"][:] = 0
    copy_bytes(row["client"], 0, client, 0, 16)
    first = start + HEADER_SIZE
    row["qname_size"] = stop - 5 - first
    copy_bytes(row["qname"], 0, data, first, stop - 5 - first)
    joiner.keys[number] = key
    at = find_slot(joiner, key)
    if not joiner.slots[at]:
        joiner.slots[at] = number + 1
    _queue(joiner, ts, number)
    return True


@kernel_in_place
def _take_answer(joiner: Any, ts: Any, data: Any, start: Any, stop: Any, end: Any, size: Any, key: Any) -> None:
    """Take an answer whose question ends at `stop`, to the query of the identity `key`; without one it is ignored."""
    at = find_slot(joiner, key)
    if joiner.slots[at]:
        row = joiner.pool[joiner.slots[at] - 1]
        free_slot(joiner, at)
        if ts - row["ts"] <= WAIT_S:
            answer_facts(data, start, stop, end, joiner.facts)
            write_facts(joiner.facts, row)
            row["rlen"], row["rtt_ms"] = size, (ts - row["ts"]) * 1000


@kernel_in_place
def copy_record(row: Any, to: Any) -> None:
    """Make the record `to` the same as `row`, bytes behind its name apart: most of a record is room for a long one."""
    to["ts"], to["ttl_min"], to["rtt_ms"], to["qlen"] = row["ts"], row["ttl_min"], row["rtt_ms"], row["qlen"]
    to["cached"], to["ans_hash"] = row["cached"], row["ans_hash"]
    to["ans_bytes"], to["negative_ttl"] = row["ans_bytes"], row["negative_ttl"]
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
        at = find_slot(joiner, joiner.keys[number])
        if joiner.slots[at] == number + 1:
            free_slot(joiner, at)
        copy_record(row, out[written])
        written += 1
        numbers[FIRST] += 1
        numbers[WAITING] -= 1
        joiner.free[numbers[FREE]] = number
        numbers[FREE] += 1
    return written


# Records of pcap files, blocks of pcapng files, and the walk.

MORE, FULL, HUGE, BAD_BLOCK, NO_MAGIC, INTERFACE, TCP_SEGMENT, IP_FRAGMENT, _FRAME = range(9)
"""Reasons to stop: the buffer holds no whole record more, `out` is full, a record or block claims an impossible size, a
section has no byte order; or there is an interface block, a TCP segment or an IP fragment for the caller."""
AT, FRAME, FRAME_END, LINK, CLAIMED, BIG, BLOCKS, INTERFACES, MALFORMED, CUT, COPIES, WHOLE, FRAMES = range(13)
"""State, numbers: offset of the next record; the frame, its link type and whether it is whole; a size that was claimed;
byte order, format, interfaces; and counts, of messages seen twice and of frames, too."""
SEEN = 1 << 14
"""Messages remembered to know a copy; a later one takes the place of an earlier one."""
MIRRORED_S = 0.001
"""Seconds between two copies of a packet on one wire. Clients wait longer before they ask again, as also FORWARDED_S is
short of the half second after which the most impatient do."""
NOT_DNS = (137, 5353, 5355)
"""Ports of NetBIOS names, mDNS and LLMNR: messages like those of DNS, of neighbours to each other."""
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
    others: NDArray[np.int64]  # (65536,): queries found on other ports, by server's port
    streams: NDArray[np.bool_]  # (65536,): other ports on which a query came over TCP
    skipped: NDArray[np.int64]  # (REASONS,): frames that were not read, by reason
    seen: NDArray[np.uint64]  # (SEEN,): messages that came lately, as seen_ts and seen_ttl
    seen_ts: NDArray[np.float64]
    seen_ttl: NDArray[np.int64]


def new_walk(ports: NDArray[np.bool_]) -> Walk:
    """A walk at the beginning of a file."""
    integers, reals = np.zeros(INTERFACES_MAX, np.int64), np.zeros(INTERFACES_MAX)
    return Walk(
        room(np.zeros(13, np.int64)),
        room(np.array((-np.inf, 0.0))),
        room(integers.copy()),
        room(reals.copy()),
        room(reals),
        room(integers),
        room(ports),
        room(np.zeros(1 << 16, np.int64)),
        room(np.zeros(1 << 16, np.bool_)),
        room(np.zeros(REASONS, np.int64)),
        room(np.zeros(SEEN, np.uint64)),
        room(np.full(SEEN, -np.inf)),
        room(np.zeros(SEEN, np.int64)),
    )


@kernel_in_place
def is_query(data: Any, start: Any, stop: Any) -> Any:
    """Whether these bytes are a query and nothing else: one question of class IN, CH or ANY, at most an OPT record.

    What random bytes are by chance in one of 2^90 cases.
    """
    end = question_end(data, start, stop) if stop - start >= HEADER_SIZE + 6 else int64(0)
    if end == 0 or data[start + 2] & 0xFE or data[start + 3] & 0xCF or data[start + HEADER_SIZE] == 0:
        return False
    if u16(data, start + 6) or u16(data, start + 8) or u16(data, end - 4) == 0 or u16(data, end - 2) not in (1, 3, 255):
        return False
    if u16(data, start + 10) == 0:
        return end == stop
    if u16(data, start + 10) > 1 or end + 11 > stop or data[end]:
        return False
    return u16(data, end + 1) == OPT and end + 11 + u16(data, end + 9) == stop


@kernel_in_place
def _is_copy(walk: Any, key: Any, packet: Any, answers: Any) -> Any:
    """Whether this message has come just now, before or behind a router, or from a second mirrored port.

    Both have one IP identification. A client that asks again sends another packet, and not within a millisecond.
    """
    numbers, now = packet.numbers, walk.times[NOW]
    if numbers[TTL] < 0:
        return False
    key = key ^ (uint64(numbers[IP_ID] + 1) << uint64(8) | uint64(answers))
    at = int64(key & uint64(SEEN - 1))
    apart, hops = abs(now - walk.seen_ts[at]), abs(walk.seen_ttl[at] - numbers[TTL])
    copied = walk.seen[at] == key and ((hops == 1 and apart <= FORWARDED_S) or (hops == 0 and apart <= MIRRORED_S))
    walk.seen[at], walk.seen_ts[at], walk.seen_ttl[at] = key, now, numbers[TTL]
    return copied


@kernel_in_place
def _take(walk: Any, joiner: Any, packet: Any, data: Any, answers: Any) -> Any:
    """Take the payload as an answer or a query. False if it is malformed, or without room."""
    found, now = packet.numbers, walk.times[NOW]
    start, stop, sport, dport = found[PAYLOAD], found[STOP], found[SPORT], found[DPORT]
    end = question_end(data, start, stop)
    if end == 0:
        return False
    if answers:
        key = _identity(data, start, end, packet.destination, dport, packet.source, joiner)
    else:
        key = _identity(data, start, end, packet.source, sport, packet.destination, joiner)
    if _is_copy(walk, key, packet, answers):
        walk.numbers[COPIES] += 1
    elif answers:
        _take_answer(joiner, now, data, start, end, stop, found[SIZE], key)
    else:
        walk.others[dport] += not walk.ports[dport]
        return _take_query(joiner, now, data, start, end, found[SIZE], packet.source, key)
    return True


@kernel_in_place
def take_message(walk: Any, joiner: Any, packet: Any, data: Any) -> None:
    """Take the payload as a query or an answer, as its QR bit says, or count it as malformed.

    On a port that is not known to carry DNS, what is no query by its content is not malformed: it is not DNS.
    """
    numbers, found = walk.numbers, packet.numbers
    start, stop, sport, dport = found[PAYLOAD], found[STOP], found[SPORT], found[DPORT]
    fine = stop - start >= 3
    if walk.ports[sport] or walk.ports[dport]:
        if fine and data[start + 2] & 0x80:
            fine = not walk.ports[sport] or _take(walk, joiner, packet, data, True)
        elif fine and walk.ports[dport] and not data[start + 2] & 0x78:
            fine = _take(walk, joiner, packet, data, False)
        if not fine:
            numbers[MALFORMED] += 1
            numbers[CUT] += 1 - numbers[WHOLE]
    elif fine and data[start + 2] & 0x80:
        if walk.others[sport]:
            _take(walk, joiner, packet, data, True)
    elif stop - start == found[SIZE] and is_query(data, start, stop):
        _take(walk, joiner, packet, data, False)


@kernel_in_place
def _carries(walk: Any, packet: Any, data: Any, kind: Any) -> Any:
    """Whether a packet of other ports carries DNS: a query by its content, or an answer from where one went."""
    found = packet.numbers
    start, stop, sport, dport = found[PAYLOAD], found[STOP], found[SPORT], found[DPORT]
    if sport in NOT_DNS or dport in NOT_DNS:
        return False
    if kind == DATAGRAM:
        return walk.others[sport] > 0 or is_query(data, start, stop)
    if walk.streams[sport] or walk.streams[dport]:
        return True
    if stop - start > HEADER_SIZE and u16(data, start) == stop - start - 2 and is_query(data, start + 2, stop):
        walk.streams[dport] = True
        return True
    return False


@kernel_in_place
def take_packet(walk: Any, joiner: Any, packet: Any, data: Any, kind: Any) -> Any:
    """Take a DATAGRAM's message; True for a SEGMENT whose stream may carry messages."""
    ports = packet.numbers
    if not walk.ports[ports[SPORT]] and not walk.ports[ports[DPORT]] and not _carries(walk, packet, data, kind):
        walk.skipped[OTHER_UDP if kind == DATAGRAM else OTHER_TCP] += 1
        return False
    if kind == SEGMENT:
        return True
    take_message(walk, joiner, packet, data)
    return False


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
        numbers[FRAMES] += 1
        kind = find_packet(numbers[LINK], data, numbers[FRAME], numbers[FRAME_END], packet)
        if kind == NOTHING:
            walk.skipped[packet.numbers[WHY]] += 1
        elif kind == FRAGMENT:
            return IP_FRAGMENT, written
        elif take_packet(walk, joiner, packet, data, kind):
            return TCP_SEGMENT, written
