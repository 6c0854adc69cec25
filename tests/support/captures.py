"""A small writer of captures for tests: frames of every link layer, pcap and pcapng files."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from struct import pack

import numpy as np
import pytest

from agents.core.protocols import Source
from agents.core.types import QueryBatch, Row
from agents.sources import open_source
from agents.sources.capture import frame_kernels as ll

CLIENT, SERVER = "192.0.2.10", "192.0.2.53"
CLIENT6, SERVER6 = "2001:db8::10", "2001:db8::53"
Timed = tuple[float, bytes]


def question(name: str = "www.example.com", ident: int = 1, qtype: int = 1, flags: int = 0x0100) -> bytes:
    """A query message without EDNS."""
    wire = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return pack("!6H", ident, flags, 1, 0, 0, 0) + wire + pack("!BHH", 0, qtype, 1)


def answer(query: bytes, *ttls: int, rcode: int = 0, data: bytes = b"\1\2\3\4", kind: int = 1) -> bytes:
    """An answer with one record a TTL."""
    records = b"".join(pack("!HHHIH", 0xC00C, kind, 1, ttl, len(data)) + data for ttl in ttls)
    return query[:2] + pack("!5H", 0x8180 | rcode, 1, len(ttls), 0, 0) + query[12:] + records


def udp(payload: bytes, sport: int = 40000, dport: int = 53) -> bytes:
    return pack("!4H", sport, dport, len(payload) + 8, 0) + payload


def tcp(payload: bytes, seq: int, flags: int = 0x18, sport: int = 40000, dport: int = 53) -> bytes:
    """A segment with 4 bytes of options."""
    return pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, 0, 0x60, flags, 1000, 0, 0) + b"\1\1\1\1" + payload


def ip4(body: bytes, src: str = CLIENT, dst: str = SERVER, proto: int = ll.UDP, fragment: int = 0) -> bytes:
    """A datagram with 4 bytes of options; `fragment` is flags and offset."""
    head = pack("!BBHHHBBH", 0x46, 0, 24 + len(body), 7, fragment, 64, proto, 0)
    return head + socket.inet_aton(src) + socket.inet_aton(dst) + b"\1\1\1\0" + body


def ip6(body: bytes, src: str = CLIENT6, dst: str = SERVER6, proto: int = ll.UDP) -> bytes:
    head = pack("!IHBB", 6 << 28, len(body), proto, 64)
    return head + socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst) + body


def to_client(packet: bytes, dport: int = 40000) -> bytes:
    """An IPv4/UDP answer packet around a message."""
    return ip4(udp(packet, 53, dport), SERVER, CLIENT)


def linked(link: int, packet: bytes, tags: int = 0) -> bytes:
    """The packet inside a frame of the link layer."""
    kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    vlan = pack("!HH", 0x88A8, 5) * (tags - 1) + pack("!HH", 0x8100, 7) if tags else b""
    if link == ll.ETHERNET:
        return bytes(12) + vlan + pack("!H", kind) + packet
    if link == ll.LINUX_SLL:
        return bytes(14) + vlan + pack("!H", kind) + packet
    if link == ll.LINUX_SLL2:
        return pack("!H", kind) + bytes(18) + packet
    if link in (ll.NULL, ll.LOOP):
        return pack("=I" if link == ll.NULL else "!I", 2 if kind == 0x0800 else 30) + packet
    return packet


def pcap(
    frames: Sequence[Timed], link: int = ll.ETHERNET, order: str = "<", nano: bool = False, snap: int = 65535
) -> bytes:
    """A pcap file."""
    unit = 10**9 if nano else 10**6
    out = [pack(order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, snap, link)]
    for ts, frame in frames:
        cut = frame[:snap]
        out += [pack(order + "4I", int(ts), round(ts % 1 * unit), len(cut), len(frame)), cut]
    return b"".join(out)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = pack(order + "I", len(body) + 12)
    return pack(order + "I", kind) + size + body + size


def section(order: str = "<") -> bytes:
    return block(order, 0x0A0D0D0A, pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(link: int, order: str = "<", resolution: int | None = None) -> bytes:
    options = b"" if resolution is None else pack(order + "HHB3xHH", 9, 1, resolution, 0, 0)
    return block(order, 1, pack(order + "HHI", link, 0, 65535) + options)


def enhanced(ticks: int, frame: bytes, order: str = "<", number: int = 0) -> bytes:
    head = pack(order + "5I", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(order, 6, head + frame)


T0 = 1_700_000_000.0


def replay(directory: Path, *files: bytes, ports: frozenset[int] = frozenset({53})) -> tuple[list[Row], Source]:
    """Rows of the files, and the source with its counts."""
    paths = [directory / f"{number}.bin" for number in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        path.write_bytes(content)
    source = open_source(paths, options={"replay_ports": ",".join(map(str, sorted(ports)))})
    rows: list[Row] = []
    for batch in source.batches(3):
        assert 1 <= len(batch) <= 3
        columns = [getattr(batch, name) for name in QueryBatch.__dataclass_fields__]
        rows += zip(*[c.tolist() if isinstance(c, np.ndarray) else c for c in columns], strict=True)
    return rows, source


def exchange(link: int = ll.ETHERNET, tags: int = 0) -> list[Timed]:
    """One query and, 20 ms later, its answer with TTLs 300 and 60."""
    query = question()
    return [
        (T0, linked(link, ip4(udp(query)), tags)),
        (T0 + 0.02, linked(link, to_client(answer(query, 300, 60)), tags)),
    ]


def check(rows: list[Row], client: str = CLIENT) -> None:
    (row,) = rows
    assert row[0] == pytest.approx(T0, abs=1e-6)
    assert row[1:9] == (client, b"\3www\7example\3com", 1, 33, 0, 2, 65, 60)
    assert row[9] == pytest.approx(20, abs=0.01)
    assert row[10] == "A"
