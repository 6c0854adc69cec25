"""Captures read by compiled loops: frames, datagrams, and queries joined with their answers."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import siphash
from agents.core.errors import MessageError
from agents.core.jit import kernel_in_place
from agents.core.types import QueryBatch
from agents.dns.message_kernels import FACTS, HEADER_SIZE, NAME_MAX, answer_facts, question_end, u16, write_facts
from agents.sources.capture.pcap import (
    NO_BYTE_ORDER,
    PCAP_MAGICS,
    PCAPNG_MAGIC,
    SECTION_ORDERS,
    TOO_MANY_INTERFACES,
    Damage,
    Frame,
    interface_of,
)
from agents.stream.record import RECORD, batch_of_records, mapped

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
def find_datagram(link: Any, data: Any, start: Any, end: Any, packet: Any) -> Any:
    """NOTHING, a UDP DATAGRAM or a TCP STREAM's segment (its ports alone) in the frame data[start:end]."""
    at = _network(link, data, start, end)
    if at < 0 or at >= end:
        return NOTHING
    version = data[at] >> 4
    if version == 4:
        return _ipv4(data, at, end, packet)
    return _ipv6(data, at, end, packet) if version == 6 else NOTHING


WAIT_S, WAITING_MAX = 5.0, 65_536
"""As in sources/join."""
POOL = WAITING_MAX + 32_768
"""More than can come in one datagram's frame. A segment that fills a gap may release more: those are refused."""
RING, SLOTS = 1 << 17, 1 << 18
FIRST, WAITING, FREE = range(3)
_KEY_ROOM = 16 + 16 + 4 + NAME_MAX + 5
_UNKNOWN = -1


class Joint(NamedTuple):
    """What waits."""

    pool: NDArray[np.void]  # RECORDs
    keys: NDArray[np.uint64]  # (POOL,)
    free: NDArray[np.int32]  # (POOL,): numbers of free rows, the last one next
    ring: NDArray[np.int32]  # (RING,): numbers of waiting rows
    slots: NDArray[np.int32]  # (SLOTS,): number of a row plus one, 0 = free
    numbers: NDArray[np.int64]  # FIRST in the ring, how many are WAITING, how many are FREE
    key: NDArray[np.uint8]  # scratch
    facts: NDArray[np.int64]  # scratch
    secret: NDArray[np.uint64]  # (2,)


def joint(record: np.dtype[np.void], secret: tuple[int, int]) -> Joint:
    """Nothing waits; `record` is the type of rows."""
    return Joint(
        np.zeros(POOL, record),
        np.zeros(POOL, np.uint64),
        np.arange(POOL, dtype=np.int32),
        np.zeros(RING, np.int32),
        np.zeros(SLOTS, np.int32),
        np.array((0, 0, POOL), np.int64),
        np.zeros(_KEY_ROOM, np.uint8),
        np.zeros(FACTS, np.int64),
        np.array(secret, np.uint64),
    )


@kernel_in_place
def _identity(data: Any, start: Any, end: Any, client: Any, port: Any, server: Any, joint: Any) -> Any:
    """Identity of who asks whom for what; the question lies before `end` in the message at `start`, in any case."""
    key, size = joint.key, 36
    for i in range(16):
        key[i], key[16 + i] = client[i], server[i]
    key[32], key[33], key[34], key[35] = port >> 8, port & 0xFF, data[start], data[start + 1]
    for at in range(start + HEADER_SIZE, end):
        byte = data[at]
        key[size] = byte + 32 if 0x41 <= byte <= 0x5A else byte
        size += 1
    return siphash(key, 0, size, joint.secret[0], joint.secret[1])


@kernel_in_place
def _find_slot(joint: Any, key: Any) -> Any:
    """The slot of the first row that waits under the key, or the free slot where it would be."""
    at = np.int64(key & np.uint64(SLOTS - 1))
    while joint.slots[at] and joint.keys[joint.slots[at] - 1] != key:
        at = (at + 1) & (SLOTS - 1)
    return at


@kernel_in_place
def _remove(joint: Any, at: Any) -> None:
    """Empty a slot and move up what lies behind it (Knuth volume 3, section 6.4, algorithm R)."""
    slots = joint.slots
    hole = at
    while True:
        at = (at + 1) & (SLOTS - 1)
        if not slots[at]:
            break
        home = np.int64(joint.keys[slots[at] - 1] & np.uint64(SLOTS - 1))
        if (at - home) & (SLOTS - 1) >= (at - hole) & (SLOTS - 1):
            slots[hole] = slots[at]
            hole = at
    slots[hole] = 0


@kernel_in_place
def _queue(joint: Any, ts: Any, number: Any) -> None:
    """Put a row in its place in the ring: behind all that are not later."""
    first, waiting = joint.numbers[FIRST], joint.numbers[WAITING]
    at = first + waiting
    while at > first and joint.pool[joint.ring[(at - 1) & (RING - 1)]].ts > ts:
        joint.ring[at & (RING - 1)] = joint.ring[(at - 1) & (RING - 1)]
        at -= 1
    joint.ring[at & (RING - 1)] = number
    joint.numbers[WAITING] = waiting + 1


@kernel_in_place
def take_query(
    joint: Any, ts: Any, data: Any, start: Any, end: Any, size: Any, client: Any, port: Any, server: Any
) -> Any:
    """Take the query data[start:end] of `size` bytes; client and server u8[16]. False if malformed, or without room."""
    stop = question_end(data, start, end)
    if stop == 0:
        return False
    if joint.numbers[FREE] == 0:
        return False
    joint.numbers[FREE] -= 1
    number = joint.free[joint.numbers[FREE]]
    row = joint.pool[number]
    row.ts, row.qlen, row.qtype = ts, size, u16(data, stop - 4)
    row.ttl_min = row.ancount = row.rlen = row.rcode = _UNKNOWN
    row.rtt_ms = np.nan
    for i in range(len(row.ans_types)):
        row.ans_types[i] = 0
    for i in range(16):
        row.client[i] = client[i]
    first = start + HEADER_SIZE
    row.qname_size = stop - 5 - first
    for i in range(stop - 5 - first):
        row.qname[i] = data[first + i]
    key = _identity(data, start, stop, client, port, server, joint)
    joint.keys[number] = key
    at = _find_slot(joint, key)
    if not joint.slots[at]:
        joint.slots[at] = number + 1
    _queue(joint, ts, number)
    return True


@kernel_in_place
def take_answer(
    joint: Any, ts: Any, data: Any, start: Any, end: Any, size: Any, client: Any, port: Any, server: Any
) -> Any:
    """Take the answer data[start:end]; one that answers nothing is ignored. False if it is malformed."""
    stop = question_end(data, start, end)
    if stop == 0:
        return False
    at = _find_slot(joint, _identity(data, start, stop, client, port, server, joint))
    if joint.slots[at]:
        row = joint.pool[joint.slots[at] - 1]
        _remove(joint, at)
        if ts - row.ts <= WAIT_S:
            answer_facts(data, start, stop, end, joint.facts)
            write_facts(joint.facts, row)
            row.rlen, row.rtt_ms = size, (ts - row.ts) * 1000
    return True


@kernel_in_place
def _copy(row: Any, to: Any) -> None:
    """Make the record `to` the same as `row`, bytes behind its name apart: most of a record is room for a long one."""
    to.ts, to.ttl_min, to.rtt_ms, to.qlen = row.ts, row.ttl_min, row.rtt_ms, row.qlen
    to.ancount, to.rlen, to.qtype, to.rcode = row.ancount, row.rlen, row.qtype, row.rcode
    for i in range(len(row.ans_types)):
        to.ans_types[i] = row.ans_types[i]
    for i in range(16):
        to.client[i] = row.client[i]
    to.qname_size = row.qname_size
    for i in range(row.qname_size):
        to.qname[i] = row.qname[i]


@kernel_in_place
def ready(joint: Any, now: Any, out: Any, written: Any) -> Any:
    """Move rows older than the wait, and the oldest beyond the bound, behind the `written` ones of `out`; how many
    there are then. Where `out` is full the rest waits on. With `now` infinite all rows are moved."""
    numbers = joint.numbers
    while written < len(out) and numbers[WAITING]:
        number = joint.ring[numbers[FIRST] & (RING - 1)]
        row = joint.pool[number]
        if not (now - row.ts > WAIT_S or numbers[WAITING] > WAITING_MAX):
            break
        at = _find_slot(joint, joint.keys[number])
        if joint.slots[at] == number + 1:
            _remove(joint, at)
        _copy(row, out[written])
        written += 1
        numbers[FIRST] += 1
        numbers[WAITING] -= 1
        joint.free[numbers[FREE]] = number
        numbers[FREE] += 1
    return written


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
    start, stop, size = found[PAYLOAD], found[STOP], found[SIZE]
    sport, dport = found[SPORT], found[DPORT]
    fine = stop - start >= 3
    if fine and data[start + 2] & 0x80:
        if walk.ports[sport]:
            fine = take_answer(joint, now, data, start, stop, size, packet.server, dport, packet.client)
    elif fine and walk.ports[dport] and not data[start + 2] & 0x78:
        fine = take_query(joint, now, data, start, stop, size, packet.client, sport, packet.server)
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
        written = ready(joint, walk.times[NOW], out, written)
        if written == len(out):
            return FULL, written
        found = _block(walk, data, len(data)) if numbers[BLOCKS] else _record(walk, data, len(data))
        if found != _FRAME:
            return found, written
        kind = find_datagram(numbers[LINK], data, numbers[FRAME], numbers[FRAME_END], packet)
        if kind == NOTHING:
            numbers[UNKNOWN_LINK] += not is_known(numbers[LINK])
            continue
        ports = packet.numbers
        if not walk.ports[ports[SPORT]] and not walk.ports[ports[DPORT]]:
            continue
        if kind == STREAM:
            return TCP_FRAME, written
        _message(walk, joint, packet, data)


_CHUNK = 1 << 22
"""Bytes read at once."""


class Scan:
    """Walks one capture and joins its messages; `query` and `answer` are those of join.Joiner, for DNS over TCP."""

    def __init__(self, ports: AbstractSet[int]) -> None:
        carries = np.zeros(65_536, np.bool_)
        carries[list(ports)] = True
        self._walk, self._packet = walk(carries), packet()
        self._joint = joint(RECORD, (secrets.randbits(64), secrets.randbits(64)))
        self._numbers = self._walk.numbers

    @property
    def malformed(self) -> int:
        """UDP payloads that are no DNS message."""
        return int(self._numbers[MALFORMED])

    @property
    def cut(self) -> int:
        """Those of them that the capture cut."""
        return int(self._numbers[CUT])

    @property
    def unknown_link(self) -> int:
        """Frames of an unknown link layer."""
        return int(self._numbers[UNKNOWN_LINK])

    def query(self, ts: float, client: bytes, port: int, server: bytes, message: bytes, size: int) -> None:
        """Take a query. Raises MessageError."""
        self._offer(take_query, ts, client, port, server, message, size)

    def answer(self, ts: float, client: bytes, port: int, server: bytes, message: bytes, size: int) -> None:
        """Take an answer. Raises MessageError."""
        self._offer(take_answer, ts, client, port, server, message, size)

    def _offer(
        self, take: Callable[..., bool], ts: float, client: bytes, port: int, server: bytes, message: bytes, size: int
    ) -> None:
        data = np.frombuffer(message, np.uint8)
        addresses = (np.frombuffer(mapped(address), np.uint8) for address in (client, server))
        if not take(self._joint, ts, data, 0, len(data), size, next(addresses), port, next(addresses)):
            raise MessageError("cannot read question")

    def batches(
        self, stream: io.BufferedReader, size: int, damage: Damage, aside: Callable[[Frame], None]
    ) -> Iterator[QueryBatch]:
        """Yield batches of `size` queries, the last one shorter; `aside` gets the frames with TCP segments."""
        out, written = np.zeros(size, RECORD), 0
        data = self._begin(stream)
        status = FULL
        while True:
            status, written = scan(self._walk, self._joint, self._packet, data, out, written)
            if status == FULL:
                yield batch_of_records(out)
                written = 0
            elif status == TCP_FRAME:
                aside(self._frame(data))
            elif status == INTERFACE:
                if not self._add_interface(data):
                    damage.text = TOO_MANY_INTERFACES
                    break
            else:
                rest = data[self._numbers[AT] :].tobytes()
                more = stream.read(_CHUNK) if status == MORE else b""
                if not more:
                    damage.text = self._damage(status, rest)
                    break
                data = np.frombuffer(rest + more, np.uint8)
                self._numbers[AT] = 0
        while self._joint.numbers[WAITING] or written:
            written = ready(self._joint, np.inf, out, written)
            yield batch_of_records(out[:written])
            written = 0

    def _begin(self, stream: io.BufferedReader) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """Read the file header of a pcap; the first bytes after it."""
        magic = stream.peek(4)[:4]
        if magic == PCAPNG_MAGIC:
            self._numbers[BLOCKS] = 1
        else:
            head = stream.read(24)
            order, self._walk.times[UNIT] = PCAP_MAGICS[magic]
            self._numbers[BIG] = order == ">"
            self._numbers[LINK] = int.from_bytes(head[20:24], "big" if order == ">" else "little") & 0xFFFF
        return np.frombuffer(stream.read(_CHUNK), np.uint8)

    def _frame(self, data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> Frame:
        numbers = self._numbers.tolist()
        frame = data[numbers[FRAME] : numbers[FRAME_END]].tobytes()
        now = float(self._walk.times[NOW])
        return Frame(now, numbers[LINK], frame, bool(numbers[WHOLE]))

    def _add_interface(self, data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> bool:
        """Take the interface block that the walk stopped at; False if it is too short or one too many."""
        body = self._frame(data).data
        number = int(self._numbers[INTERFACES])
        if len(body) < 8 or number >= INTERFACES_MAX:
            return False
        found, walk = interface_of(body, ">" if self._numbers[BIG] else "<"), self._walk
        walk.links[number], walk.snaps[number] = found.link, found.snap
        walk.units[number], walk.offsets[number] = found.unit, found.offset
        self._numbers[INTERFACES] = number + 1
        return True

    def _damage(self, status: int, rest: bytes) -> str:
        """Why the walk ended before `rest`; "" at the file's end."""
        claimed = int(self._numbers[CLAIMED])
        if status == HUGE:
            return f"a record claims {claimed} bytes"
        if status == BAD_BLOCK:
            return f"a block claims {claimed} bytes"
        if status == NO_MAGIC or (rest[:4] == PCAPNG_MAGIC and rest[8:12] not in SECTION_ORDERS):
            return NO_BYTE_ORDER
        return f"the last {'block' if self._numbers[BLOCKS] else 'record'} is cut off" if rest else ""
