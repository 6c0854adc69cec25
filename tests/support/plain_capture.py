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

import numpy as np
from dnslib import DNSError, DNSRecord

from agents.core.errors import MessageError
from agents.core.text import counted
from agents.core.types import UNKNOWN, QueryBatch, Row, batch_of
from agents.dns import message as wire
from agents.sources.capture import frame_kernels as ll
from agents.sources.capture.capture_kernels import MIRRORED_S, NOT_DNS, WAIT_S, WAITING_MAX
from agents.sources.capture.fragments import Fragment, Fragments, first_alone
from agents.sources.capture.frame_kernels import TCP, UDP
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
from agents.sources.capture.streams import FORWARDED_S, Segment, Streams
from agents.sources.files import open_bytes
from agents.stream.record import client_text
from tests.support.listening import types_text
from tests.support.plain_answer import Answer, AnswerData, answer_data, parse_answer


class PlainSource:
    """One capture: rows, counts and warnings as PcapSource gives them."""

    def __init__(self, path: Path, ports: AbstractSet[int]) -> None:
        self._path, self._ports = path, ports
        self.malformed = 0
        self.warnings: list[str] = []
        self._joiner, self._streams, self._fragments = Joiner(), Streams(), Fragments()
        self._others: set[int] = set()
        self._other_streams: set[int] = set()
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}
        self._cut = 0

    def batches(self, size: int) -> Iterator[QueryBatch]:
        stream, inflated = open_bytes(self._path)
        damage = Damage()
        with stream:
            rows = self._rows(stream, damage)
            while chunk := list(islice(rows, size)):
                yield batch_of(chunk)
        self._warn((inflated.damage if inflated else "") or damage.text)

    def _rows(self, stream: io.BufferedReader, damage: Damage) -> Iterator[Row]:
        last = Frame(0.0, 0, b"", True)
        for frame in frames(stream, damage):
            self._take(frame)
            yield from self._joiner.ready(frame.ts)
            last = frame
        for source, sport, destination, dport, message in self._streams.finish():
            found = Packet(TCP, source, destination, sport, dport, message, len(message), 0, 0, 0, -1)
            self._message(last, found, message, len(message))
        yield from self._joiner.rest()

    def _take(self, frame: Frame) -> None:
        found = packet_of(frame.link, frame.data)
        if isinstance(found, Packet):
            self._packet(frame, found)
        elif found is not None:
            self._fragment(frame, found)

    def _packet(self, frame: Frame, found: Packet) -> None:
        if not {found.sport, found.dport} & self._ports and not self._carries(found):
            return
        if found.proto == UDP:
            self._message(frame, found, found.payload, found.size)
            return
        segment = Segment(
            found.src, found.sport, found.dst, found.dport, found.seq, found.flags, found.payload, found.ident,
            found.ttl, frame.ts,
        )  # fmt: skip
        for message in self._streams.messages(segment):
            self._message(frame, found._replace(ttl=-1), message, len(message))

    def _fragment(self, frame: Frame, found: ll.Packet) -> None:
        n = found.numbers
        data = frame.data[n[ll.PAYLOAD] : n[ll.STOP]]
        if len(data) < n[ll.SIZE]:
            return
        fragment = Fragment(
            bytes(found.source), bytes(found.destination), int(n[ll.IP_ID]), int(n[ll.PROTOCOL]), int(n[ll.TTL]),
            int(n[ll.SEQ]), bool(n[ll.FLAGS]), data, frame.ts,
        )  # fmt: skip
        whole = self._fragments.add(fragment)
        if whole is None and fragment.offset == 0:
            first = packet_of(ll.RAW, first_alone(fragment))
            if isinstance(first, Packet) and first.proto == UDP and has_question(first.payload):
                self._fragments.take(fragment)
                self._packet(frame, first)
        elif whole is not None and isinstance(packet := packet_of(ll.RAW, whole), Packet):
            self._packet(frame, packet)

    def _carries(self, found: Packet) -> bool:
        """Whether a packet of other ports is DNS by its content, or by that of an earlier one."""
        if {found.sport, found.dport} & set(NOT_DNS):
            return False
        if found.proto == UDP:
            return found.sport in self._others or is_query(found.payload)
        if {found.sport, found.dport} & self._other_streams:
            return True
        size, message = found.payload[:2], found.payload[2:]
        if len(message) <= wire.HEADER_SIZE or int.from_bytes(size) != len(message) or not is_query(message):
            return False
        self._other_streams.add(found.dport)
        return True

    def _message(self, frame: Frame, found: Packet, message: bytes, size: int) -> None:
        """Count what is no DNS message; QR separates queries and answers where both ports are DNS."""
        listed = {found.sport, found.dport} & self._ports
        try:
            if len(message) < 3:
                raise MessageError("cannot read message: shorter than a header")
            if message[2] & 0x80:
                if found.sport in self._ports or (not listed and found.sport in self._others):
                    self._one(frame, found, message, size)
            elif not listed:
                if len(message) == size and is_query(message) and self._one(frame, found, message, size):
                    self._others.add(found.dport)
            elif found.dport in self._ports and not message[2] & 0x78:
                self._one(frame, found, message, size)
        except MessageError:
            if listed:
                self.malformed += 1
                self._cut += not frame.whole

    def _one(self, frame: Frame, found: Packet, message: bytes, size: int) -> bool:
        """Take a message unless it is a copy; False for a copy."""
        question = wire.parse_question(message)
        answers = bool(message[2] & 0x80)
        client, server, port = (found.src, found.dst, found.sport)
        if answers:
            client, server, port = (found.dst, found.src, found.dport)
        if found.ttl >= 0:
            key = (client, server, port, message[:2], message[12 : question.end].lower(), found.ident, answers)
            ts, ttl = self._seen.get(key, (-math.inf, 0))
            self._seen[key] = (frame.ts, found.ttl)
            apart, hops = abs(frame.ts - ts), abs(ttl - found.ttl)
            if (hops == 1 and apart <= FORWARDED_S) or (hops == 0 and apart <= MIRRORED_S):
                return False
        take = self._joiner.answer if answers else self._joiner.query
        take(frame.ts, client, port, server, message, size)
        return True

    def _warn(self, damage: str) -> None:
        if damage:
            self.warnings.append(f"{self._path}: {damage}; what came before was used")
        if self._cut:
            self.warnings.append(f"{self._path}: {counted(self._cut, 'message')} cut by the capture's snapshot length")
        if self._streams.lost:
            gaps = counted(self._streams.lost, "gap")
            self.warnings.append(f"{self._path}: {gaps} in TCP streams: segments are missing from the capture")


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
    src: bytes  # 16 bytes
    dst: bytes
    sport: int
    dport: int
    payload: bytes
    size: int
    seq: int  # TCP only
    flags: int  # TCP only
    ident: int
    ttl: int


def packet_of(link: int, frame: bytes) -> Packet | ll.Packet | None:
    """The UDP datagram or TCP segment in a frame; the packet as it was found if it is a fragment.

    Frames are read by the kernel: tests of frames build each kind of header themselves, and put them into each other.
    """
    found, data = ll.packet_room(), np.frombuffer(frame, np.uint8)
    kind, n = ll.find_packet(link, data, 0, len(frame), found), found.numbers
    if kind in (ll.NOTHING, ll.FRAGMENT):
        return found if kind == ll.FRAGMENT else None
    return Packet(
        ll.UDP if kind == ll.DATAGRAM else ll.TCP, bytes(found.source), bytes(found.destination), int(n[ll.SPORT]),
        int(n[ll.DPORT]), frame[n[ll.PAYLOAD] : n[ll.STOP]], int(n[ll.SIZE]), int(n[ll.SEQ]), int(n[ll.FLAGS]),
        int(n[ll.IP_ID]), int(n[ll.TTL]),
    )  # fmt: skip


def has_question(message: bytes) -> bool:
    """Whether a message, of which the end may be missing, has a whole header and question."""
    return len(message) >= wire.HEADER_SIZE and wire.question_end(message) > 0


def is_query(message: bytes) -> bool:
    """Whether a message is a query and nothing else, by a parser of whole messages."""
    try:
        found = DNSRecord.parse(message)
    except (DNSError, UnicodeError, ValueError):
        return False
    head, plain = found.header, wire.question_end(message)
    if not plain or found.q.qclass not in (1, 3, 255) or not found.q.qtype or plain <= 17:
        return False
    if head.bitmap & ~0x0130 or head.q != 1 or head.a or head.auth or head.ar > 1:
        return False
    rest = message[plain:]
    if head.ar == 0:
        return not rest
    return rest[:3] == b"\0\0\x29" and len(rest) >= 11 and len(rest) == 11 + int.from_bytes(rest[9:11])


_Key = tuple[bytes, bytes, int, int, bytes]


class _Waiting:
    __slots__ = ("answer", "client", "data", "key", "qlen", "question", "rlen", "rtt_ms", "ts")

    def __init__(self, ts: float, client: bytes, question: wire.Question, qlen: int, key: _Key) -> None:
        self.ts, self.client, self.question, self.qlen, self.key = ts, client, question, qlen, key
        self.answer: Answer | None = None
        self.data = AnswerData([], 0)
        self.rlen, self.rtt_ms = UNKNOWN, math.nan

    def row(self) -> Row:
        question, answer = self.question, self.answer
        head = (self.ts, client_text(self.client), question.qname, question.qtype, self.qlen)
        if answer is None:
            return (*head, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, math.nan, "", 0, UNKNOWN, 0)
        facts = answer.rcode, answer.ancount, self.rlen, answer.ttl_min, self.rtt_ms, types_text(answer.types)
        return (*head, *facts, len(self.data.records), self.data.size, self.data.negative_ttl)


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
            waiting.answer = parse_answer(message, question_end=question.end, partial=True)
            waiting.data = answer_data(message, question.end)
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
