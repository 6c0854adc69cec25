"""The plain reader of captures: the same definition as the kernels', frame by frame in Python, for tests to compare."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from agents.core.errors import MessageError
from agents.core.types import UNKNOWN, QueryBatch, Row, batch_of
from agents.dns import message as wire
from agents.sources.capture.capture_kernels import (
    DLT_RAW,
    ETHER_IP,
    ETHER_IP6,
    ETHER_VLAN,
    ETHERNET,
    IPV4,
    IPV6,
    IPV6_AUTH,
    IPV6_EXTENSIONS_MAX,
    IPV6_FRAGMENT,
    IPV6_SKIPPED,
    LINUX_SLL,
    LINUX_SLL2,
    LOOP,
    NULL,
    RAW,
    TCP,
    UDP,
    VLAN_TAGS_MAX,
    WAIT_S,
    WAITING_MAX,
)
from agents.sources.capture.pcap import (
    BLOCK_MAX,
    ENHANCED_BLOCK,
    FRAME_MAX,
    HEADER_BYTES,
    INTERFACE_BLOCK,
    INTERFACES_MAX,
    NO_BYTE_ORDER,
    OLD_PACKET_BLOCK,
    PCAP_MAGICS,
    PCAPNG_MAGIC,
    SECTION_ORDERS,
    SIMPLE_BLOCK,
    TOO_MANY_INTERFACES,
    Interface,
    interface_of,
)
from agents.sources.capture.streams import Segment, Streams
from agents.sources.files import open_bytes
from agents.stream.record import client_text, mapped
from tests.support.listening import types_text

RAW_TYPES = frozenset({RAW, *DLT_RAW, IPV4, IPV6})
KNOWN = frozenset({NULL, ETHERNET, LOOP, LINUX_SLL, LINUX_SLL2}) | RAW_TYPES


class PlainSource:
    """One capture: rows, counts and warnings as PcapSource gives them."""

    def __init__(self, path: Path, ports: AbstractSet[int]) -> None:
        self._path, self._ports = path, ports
        self.malformed = 0
        self.warnings: list[str] = []
        self._joiner, self._streams = Joiner(), Streams()
        self._cut = self._unknown_link = 0

    def batches(self, size: int) -> Iterator[QueryBatch]:
        stream, inflated = open_bytes(self._path)
        damage = Damage()
        with stream:
            rows = self._rows(stream, damage)
            while chunk := list(islice(rows, size)):
                yield batch_of(chunk)
        self._warn((inflated.damage if inflated else "") or damage.text)

    def _rows(self, stream: io.BufferedReader, damage: Damage) -> Iterator[Row]:
        for frame in frames(stream, damage):
            self._take(frame)
            yield from self._joiner.ready(frame.ts)
        yield from self._joiner.rest()

    def _take(self, frame: Frame) -> None:
        found = packet_of(frame.link, frame.data)
        if found is None:
            self._unknown_link += frame.link not in KNOWN
            return
        if found.sport not in self._ports and found.dport not in self._ports:
            return
        if found.proto == UDP:
            self._message(frame, found, found.payload, found.size)
            return
        segment = Segment(found.src, found.sport, found.dst, found.dport, found.seq, found.flags, found.payload)
        for message in self._streams.messages(segment):
            self._message(frame, found, message, len(message))

    def _message(self, frame: Frame, found: Packet, message: bytes, size: int) -> None:
        """Count what is no DNS message; QR separates queries and answers where both ports are DNS."""
        try:
            if len(message) < 3:
                raise MessageError("cannot read message: shorter than a header")
            if message[2] & 0x80:
                if found.sport in self._ports:
                    self._joiner.answer(frame.ts, found.dst, found.dport, found.src, message, size)
            elif found.dport in self._ports and not message[2] & 0x78:
                self._joiner.query(frame.ts, found.src, found.sport, found.dst, message, size)
        except MessageError:
            self.malformed += 1
            self._cut += not frame.whole

    def _warn(self, damage: str) -> None:
        if damage:
            self.warnings.append(f"{self._path}: {damage}; what came before was used")
        if self._cut:
            self.warnings.append(f"{self._path}: {self._cut} messages were cut by the capture's snapshot length")
        if self._unknown_link:
            self.warnings.append(f"{self._path}: {self._unknown_link} frames of an unknown link layer")
        if self._streams.lost:
            self.warnings.append(f"{self._path}: {self._streams.lost} TCP streams had gaps")


class Frame(NamedTuple):
    """One captured frame. ts: Unix seconds; link: LINKTYPE number; whole: False if the capture cut it."""

    ts: float
    link: int
    data: bytes
    whole: bool


@dataclass(slots=True)
class Damage:
    """Why a capture could not be read to its end; "" if it could."""

    text: str = ""


def frames(stream: io.BufferedReader, damage: Damage) -> Iterator[Frame]:
    """Yield the frames of either format up to the end or to the first damage."""
    magic = stream.peek(4)[:4]
    return _pcapng(stream, damage) if magic == PCAPNG_MAGIC else _pcap(stream, damage)


def _pcap(stream: io.BufferedReader, damage: Damage) -> Iterator[Frame]:
    head = stream.read(HEADER_BYTES)
    order, unit = PCAP_MAGICS[head[:4]]
    if len(head) < HEADER_BYTES:
        damage.text = "the file header is cut off"
        return
    # The upper bits of the link type field hold the length of a frame check sequence.
    link = Struct(order + "I").unpack_from(head, 20)[0] & 0xFFFF
    record = Struct(order + "4I")
    read, unpack = stream.read, record.unpack
    while head := read(16):
        if len(head) < 16:
            damage.text = "the last record is cut off"
            return
        seconds, fraction, captured, original = unpack(head)
        if captured > FRAME_MAX:
            damage.text = f"a record claims {captured} bytes"
            return
        data = read(captured)
        if len(data) < captured:
            damage.text = "the last record is cut off"
            return
        yield Frame(seconds + fraction * unit, link, data, captured >= original)


@dataclass(slots=True)
class _Section:
    order: str
    interfaces: list[Interface] = field(default_factory=list)


def _pcapng(stream: io.BufferedReader, damage: Damage) -> Iterator[Frame]:
    section = _Section("<")
    while head := stream.read(8):
        if head[:4] == PCAPNG_MAGIC:
            order = SECTION_ORDERS.get(stream.peek(4)[:4])
            if order is None:
                damage.text = NO_BYTE_ORDER
                return
            section = _Section(order)
        body, kind = _block(stream, head, section.order, damage)
        if body is None:
            return
        if kind == INTERFACE_BLOCK:
            if len(body) < 8 or len(section.interfaces) >= INTERFACES_MAX:
                damage.text = TOO_MANY_INTERFACES
                return
            section.interfaces.append(interface_of(body, section.order))
        else:
            frame = _packet(body, kind, section)
            if frame:
                yield frame


def _block(stream: io.BufferedReader, head: bytes, order: str, damage: Damage) -> tuple[bytes | None, int]:
    """Body and type of the block that begins with `head`; None where the file is damaged."""
    if len(head) < 8:
        damage.text = "the last block is cut off"
        return None, 0
    kind, total = Struct(order + "2I").unpack(head)
    if not 12 <= total <= BLOCK_MAX or total % 4:
        damage.text = f"a block claims {total} bytes"
        return None, 0
    rest = stream.read(total - 8)
    if len(rest) < total - 8:
        damage.text = "the last block is cut off"
        return None, 0
    return rest[:-4], kind


def _packet(body: bytes, kind: int, section: _Section) -> Frame | None:
    """The frame of a packet block; None for other blocks and for packets of an undeclared interface.

    A simple packet block has no time: it gets that of the epoch's start.
    """
    if kind == SIMPLE_BLOCK and len(body) >= 4 and section.interfaces:
        original = Struct(section.order + "I").unpack_from(body)[0]
        first = section.interfaces[0]
        size = min(original, first.snap or original, len(body) - 4)
        return Frame(0.0, first.link, body[4 : 4 + size], size >= original)
    if kind not in (ENHANCED_BLOCK, OLD_PACKET_BLOCK) or len(body) < 20:
        return None
    number, high, low, captured, original = Struct(section.order + "5I").unpack_from(body)
    if kind == OLD_PACKET_BLOCK:
        number = Struct(section.order + "H").unpack_from(body)[0]
    if number >= len(section.interfaces) or captured > len(body) - 20:
        return None
    interface = section.interfaces[number]
    ts = (high << 32 | low) * interface.unit + interface.offset
    return Frame(ts, interface.link, body[20 : 20 + captured], captured >= original)


class Packet(NamedTuple):
    """A transport payload. size: bytes of the payload as its header states them."""

    proto: int
    src: bytes  # 4 or 16 bytes
    dst: bytes
    sport: int
    dport: int
    payload: bytes
    size: int
    seq: int  # TCP only
    flags: int  # TCP only


def packet_of(link: int, frame: bytes) -> Packet | None:
    """The UDP datagram or TCP segment in a frame, or None: another protocol, a later fragment, or cut too short."""
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
    elif link in RAW_TYPES:
        return 0
    elif link in (NULL, LOOP):
        return 4
    elif link == LINUX_SLL:
        at = 14
    elif link == LINUX_SLL2:
        return 20 if frame[0] << 8 | frame[1] in (ETHER_IP, ETHER_IP6) else -1
    else:
        return -1
    for _ in range(VLAN_TAGS_MAX):
        kind = frame[at] << 8 | frame[at + 1]
        if kind in (ETHER_IP, ETHER_IP6):
            return at + 2
        if kind not in ETHER_VLAN:
            return -1
        at += 4
    return -1


def _ipv4(frame: bytes, at: int) -> Packet | None:
    length = frame[at + 2] << 8 | frame[at + 3]
    if (frame[at + 6] & 0x1F) << 8 | frame[at + 7]:
        return None
    start = at + (frame[at] & 0x0F) * 4
    if frame[at + 9] == TCP and at + 20 > len(frame):
        return None
    # With segmentation offload the total length is 0: the frame then ends where it ends.
    end = at + length if length else len(frame)
    return _transport(frame, frame[at + 9], start, end, frame[at + 12 : at + 16], frame[at + 16 : at + 20])


def _ipv6(frame: bytes, at: int) -> Packet | None:
    length = frame[at + 4] << 8 | frame[at + 5]
    end = at + 40 + length if length else len(frame)
    proto, start = frame[at + 6], at + 40
    for _ in range(IPV6_EXTENSIONS_MAX):
        if proto in (UDP, TCP):
            return _transport(frame, proto, start, end, frame[at + 8 : at + 24], frame[at + 24 : at + 40])
        if proto == IPV6_FRAGMENT:
            if (frame[start + 2] << 8 | frame[start + 3]) & 0xFFF8:
                return None
            proto, start = frame[start], start + 8
        elif proto == IPV6_AUTH:
            proto, start = frame[start], start + (frame[start + 1] + 2) * 4
        elif proto in IPV6_SKIPPED:
            proto, start = frame[start], start + (frame[start + 1] + 1) * 8
        else:
            return None
    return None


def _transport(frame: bytes, proto: int, at: int, end: int, src: bytes, dst: bytes) -> Packet | None:
    if proto == UDP:
        size = (frame[at + 4] << 8 | frame[at + 5]) - 8
        sport, dport = frame[at] << 8 | frame[at + 1], frame[at + 2] << 8 | frame[at + 3]
        if size < 0:
            return None
        return Packet(UDP, src, dst, sport, dport, frame[at + 8 : min(at + 8 + size, end)], size, 0, 0)
    if proto != TCP:
        return None
    sport, dport = frame[at] << 8 | frame[at + 1], frame[at + 2] << 8 | frame[at + 3]
    seq = int.from_bytes(frame[at + 4 : at + 8])
    start, flags = at + (frame[at + 12] >> 4) * 4, frame[at + 13]
    return Packet(TCP, src, dst, sport, dport, frame[start:end], max(end - start, 0), seq, flags)


_Key = tuple[bytes, bytes, int, int, bytes]


class _Waiting:
    __slots__ = ("answer", "client", "key", "qlen", "question", "rlen", "rtt_ms", "ts")

    def __init__(self, ts: float, client: bytes, question: wire.Question, qlen: int, key: _Key) -> None:
        self.ts, self.client, self.question, self.qlen, self.key = ts, client, question, qlen, key
        self.answer: wire.Answer | None = None
        self.rlen, self.rtt_ms = UNKNOWN, math.nan

    def row(self) -> Row:
        question, answer = self.question, self.answer
        head = (self.ts, client_text(mapped(self.client)), question.qname, question.qtype, self.qlen)
        if answer is None:
            return (*head, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, math.nan, "")
        return (*head, answer.rcode, answer.ancount, self.rlen, answer.ttl_min, self.rtt_ms, types_text(answer.types))


class Joiner:
    """Feed messages in capture order; `ready` gives the rows whose time has come. No clock is read."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Waiting]] = []
        self._open: dict[_Key, _Waiting] = {}
        self._count = 0

    def query(self, ts: float, client: bytes, port: int, server: bytes, message: bytes, size: int) -> None:
        """Take a query; one that is sent again while it waits is another one. Raises MessageError."""
        question = wire.parse_question(message)
        key = (client, server, port, question.id, message[wire.HEADER_SIZE : question.end].lower())
        waiting = _Waiting(ts, client, question, size, key)
        self._open.setdefault(key, waiting)
        self._count += 1
        heappush(self._heap, (ts, self._count, waiting))

    def answer(self, ts: float, client: bytes, port: int, server: bytes, message: bytes, size: int) -> None:
        """Take an answer; one that answers nothing is ignored. Raises MessageError."""
        question = wire.parse_question(message)
        key = (client, server, port, question.id, message[wire.HEADER_SIZE : question.end].lower())
        waiting = self._open.pop(key, None)
        if waiting is not None and ts - waiting.ts <= WAIT_S:
            waiting.answer = wire.parse_answer(message, question_end=question.end, partial=True)
            waiting.rlen, waiting.rtt_ms = size, (ts - waiting.ts) * 1000

    def ready(self, now: float) -> Iterator[Row]:
        """Rows older than the wait, and the oldest beyond the bound; `now` is the last frame's time."""
        heap = self._heap
        while heap and (now - heap[0][0] > WAIT_S or len(heap) > WAITING_MAX):
            yield self._pop()

    def rest(self) -> Iterator[Row]:
        """All that still wait: the capture has ended."""
        while self._heap:
            yield self._pop()

    def _pop(self) -> Row:
        waiting = heappop(self._heap)[2]
        if self._open.get(waiting.key) is waiting:
            del self._open[waiting.key]
        return waiting.row()
