"""The pcap and pcapng file formats: magic numbers, bounds, interface blocks.

Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

PCAPNG_MAGIC = b"\n\r\r\n"
"""Type of a section header block: the same in both byte orders."""
PCAP_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}
"""Magic number -> byte order and seconds per fraction unit."""
BYTE_ORDER_MAGIC = 0x1A2B3C4D
"""Follows the length in a section header block, in the section's byte order."""
SECTION_ORDERS = {BYTE_ORDER_MAGIC.to_bytes(4, "little"): "<", BYTE_ORDER_MAGIC.to_bytes(4): ">"}
"""The same as bytes -> byte order."""
HEADER_BYTES = 24
"""Size of a pcap file's header."""
FRAME_MAX = 262_144
"""Largest frame that libpcap writes (MAXIMUM_SNAPLEN); a larger length means a damaged file."""
BLOCK_MAX = 1 << 24
"""Largest pcapng block that is read, in bytes."""
INTERFACES_MAX = 4096
"""Interfaces of one section that are read."""
SECTION_BLOCK, INTERFACE_BLOCK, OLD_PACKET_BLOCK, SIMPLE_BLOCK, ENHANCED_BLOCK = 0x0A0D0D0A, 1, 2, 3, 6
"""Types of pcapng blocks."""
_IF_TSRESOL, _IF_TSOFFSET = 9, 14

NO_BYTE_ORDER = "a section header has no byte-order magic"
TOO_MANY_INTERFACES = "an interface block is too short, or there are too many"


@dataclass(slots=True)
class Interface:
    """A pcapng interface: link type, snapshot length, seconds per tick, and seconds added to each time."""

    link: int
    snap: int
    unit: float = 1e-6
    offset: int = 0


def interface_of(body: bytes, order: str) -> Interface:
    """Read the body of an interface block, which has at least 8 bytes."""
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
