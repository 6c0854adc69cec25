"""pcap and pcapng files (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng) as a stream of frames."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple

PCAPNG_MAGIC = b"\n\r\r\n"
"""Type of a section header block: the same in both byte orders."""
PCAP_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}
"""Magic number -> byte order and seconds per fraction unit."""
SECTION_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
"""Byte-order magic of a pcapng section -> byte order."""
NO_BYTE_ORDER = "a section header has no byte-order magic"
TOO_MANY_INTERFACES = "an interface block is too short, or there are too many"
FRAME_MAX = 262_144
"""Largest frame that libpcap writes (MAXIMUM_SNAPLEN); a larger length means a damaged file."""
_BLOCK_MAX = 1 << 24
_INTERFACES_MAX = 4096
_SECTION, _INTERFACE, _SIMPLE, _ENHANCED, _OLD_PACKET = 0x0A0D0D0A, 1, 3, 6, 2
_IF_TSRESOL, _IF_TSOFFSET = 9, 14


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
    """Yield the frames of either format up to the end or to the first damage, which is then told."""
    magic = stream.peek(4)[:4]
    return _pcapng(stream, damage) if magic == PCAPNG_MAGIC else _pcap(stream, damage)


def _pcap(stream: io.BufferedReader, damage: Damage) -> Iterator[Frame]:
    head = stream.read(24)
    order, unit = PCAP_MAGICS[head[:4]]
    if len(head) < 24:
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
class Interface:
    """Link type, snapshot length, seconds per tick, and seconds to add, of a pcapng interface."""

    link: int
    snap: int
    unit: float = 1e-6
    offset: int = 0


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
        if kind == _INTERFACE:
            if len(body) < 8 or len(section.interfaces) >= _INTERFACES_MAX:
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
    if not 12 <= total <= _BLOCK_MAX or total % 4:
        damage.text = f"a block claims {total} bytes"
        return None, 0
    rest = stream.read(total - 8)
    if len(rest) < total - 8:
        damage.text = "the last block is cut off"
        return None, 0
    return rest[:-4], kind


def interface_of(body: bytes, order: str) -> Interface:
    """What an interface block's body says; it has at least 8 bytes."""
    link, _, snap = Struct(order + "HHI").unpack_from(body)
    interface = Interface(link, snap)
    at, option = 8, Struct(order + "HH")
    while at + 4 <= len(body):
        code, length = option.unpack_from(body, at)
        value = body[at + 4 : at + 4 + length]
        if code == _IF_TSRESOL and len(value) == 1:
            # The top bit chooses between powers of two and of ten.
            interface.unit = 2.0 ** -(value[0] & 0x7F) if value[0] & 0x80 else 10.0 ** -value[0]
        elif code == _IF_TSOFFSET and len(value) == 8:
            interface.offset = Struct(order + "q").unpack(value)[0]
        elif code == 0:
            break
        at += 4 + (length + 3) // 4 * 4
    return interface


def _packet(body: bytes, kind: int, section: _Section) -> Frame | None:
    """The frame of a packet block; None for other blocks and for packets of an undeclared interface.

    A simple packet block has no time: it gets that of the epoch's start.
    """
    if kind == _SIMPLE and len(body) >= 4 and section.interfaces:
        original = Struct(section.order + "I").unpack_from(body)[0]
        first = section.interfaces[0]
        size = min(original, first.snap or original, len(body) - 4)
        return Frame(0.0, first.link, body[4 : 4 + size], size >= original)
    if kind not in (_ENHANCED, _OLD_PACKET) or len(body) < 20:
        return None
    number, high, low, captured, original = Struct(section.order + "5I").unpack_from(body)
    if kind == _OLD_PACKET:
        number = Struct(section.order + "H").unpack_from(body)[0]
    if number >= len(section.interfaces) or captured > len(body) - 20:
        return None
    interface = section.interfaces[number]
    ts = (high << 32 | low) * interface.unit + interface.offset
    return Frame(ts, interface.link, body[20 : 20 + captured], captured >= original)
