"""Frames of every kind around one exchange: link layers, tags, tunnels in tunnels, fragments, copies, and what is not
read, by its reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from struct import pack

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.sources.capture import frame_kernels as ll
from tests.support.captures import (
    CLIENT,
    CLIENT6,
    SERVER,
    SERVER6,
    T0,
    Timed,
    answer,
    check,
    ip4,
    ip6,
    pcap,
    question,
    replay,
    tcp,
    to_client,
    udp,
)  # fmt: skip
from tests.support.tunnels import LINKED, TUNNELS, ethernet, pktap, radiotap, wifi


def both(over6: bool = False) -> tuple[bytes, bytes]:
    """A query and its answer, as IP packets."""
    query = question()
    reply = answer(query, 300, 60)
    if over6:
        return ip6(udp(query)), ip6(udp(reply, 53, 40000), SERVER6, CLIENT6)
    return ip4(udp(query)), to_client(reply)


@pytest.mark.parametrize("over6", [False, True], ids=["ip4", "ip6"])
@pytest.mark.parametrize("name", LINKED)
def test_every_link_layer_and_tag(tmp_path: Path, name: str, over6: bool) -> None:
    link, around = LINKED[name]
    query, reply = both(over6)
    rows, source = replay(tmp_path, pcap([(T0, around(query)), (T0 + 0.02, around(reply))], link))
    check(rows, CLIENT6 if over6 else CLIENT)
    assert (source.malformed, source.warnings) == (0, [])


@pytest.mark.parametrize("over6", [False, True], ids=["ip4", "ip6"])
@pytest.mark.parametrize("name", TUNNELS)
def test_every_tunnel(tmp_path: Path, name: str, over6: bool) -> None:
    around = TUNNELS[name]
    query, reply = both(over6)
    rows, source = replay(tmp_path, pcap([(T0, around(query)), (T0 + 0.02, around(reply))], ll.RAW))
    check(rows, CLIENT6 if over6 else CLIENT)
    assert (source.malformed, source.warnings) == (0, [])


@given(st.lists(st.sampled_from(sorted(TUNNELS)), max_size=4), st.sampled_from(sorted(LINKED)), st.booleans())
def test_tunnels_in_tunnels_lead_to_the_innermost_packet(names: list[str], name: str, segment: bool) -> None:
    body = tcp(question(), 77) if segment else udp(question())
    packet = ip4(body, proto=ll.TCP if segment else ll.UDP)
    for tunnel in names:
        packet = TUNNELS[tunnel](packet)
    link, around = LINKED[name]
    frame, found = around(packet), ll.packet_room()
    kind = ll.find_packet(link, np.frombuffer(frame, np.uint8), 0, len(frame), found)
    assert kind == (ll.SEGMENT if segment else ll.DATAGRAM)
    assert frame[found.numbers[ll.PAYLOAD] : found.numbers[ll.STOP]] == question()
    assert bytes(found.source)[12:] == bytes(map(int, CLIENT.split(".")))


@given(st.sampled_from(sorted(TUNNELS)), st.sampled_from(sorted(LINKED)), st.data())
def test_damaged_frames_stay_within_their_bounds(tunnel: str, name: str, data: st.DataObject) -> None:
    link, around = LINKED[name]
    frame = bytearray(around(TUNNELS[tunnel](both()[0])))
    for _ in range(data.draw(st.integers(0, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    end, found = data.draw(st.integers(0, len(frame))), ll.packet_room()
    kind = ll.find_packet(link, np.frombuffer(bytes(frame[:end]), np.uint8), 0, end, found)
    numbers = found.numbers
    if kind == ll.NOTHING:
        assert 0 <= numbers[ll.WHY] < ll.REASONS
        assert ll.reason_text(numbers[ll.WHY])
    else:
        assert numbers[ll.PAYLOAD] == numbers[ll.STOP] or 0 <= numbers[ll.PAYLOAD] < numbers[ll.STOP] <= end


UNREAD = [
    (147, bytes(60), "of the unknown link type 147"),
    (ll.PKTAP, pktap(bytes(40), 195), "of the unknown link type 195"),
    (ll.ETHERNET, ethernet(bytes(28), 0x0806), "of EtherType 0x0806"),
    (ll.ETHERNET, ethernet(bytes(28), 0x8863), "of EtherType 0x8863"),
    (ll.ETHERNET, ethernet(b"\x42\x42\x03" + bytes(40), 38), "of LLC that carry no IP"),
    (ll.ETHERNET, ethernet(b"\x45" + bytes(8)), "cut off within their headers"),
    (ll.RAW, ip4(bytes(40), proto=ll.ESP), "of IP protocol 50"),
    (ll.RAW, ip4(udp(bytes(40), 999, 999)), "of UDP on other ports"),
    (ll.RAW, ip4(tcp(bytes(40), 1, dport=443), proto=ll.TCP), "of TCP on other ports"),
    (ll.RAW, b"\x15" + bytes(60), "with a header that cannot be read"),
    (ll.PPP, b"\xff\x03\xc0\x21" + bytes(20), "of PPP that carry no IP"),
    (ll.RADIOTAP, radiotap(b"\x08\x41" + b"\x99" * 90), "of 802.11 that are encrypted"),
    (ll.RADIOTAP, radiotap(b"\x80\0" + bytes(60)), "of 802.11 without data"),
]  # fmt: skip


@pytest.mark.parametrize(("link", "frame", "reason"), UNREAD, ids=[reason for _, _, reason in UNREAD])
def test_frames_without_any_query_are_a_warning_with_their_reason(
    tmp_path: Path, link: int, frame: bytes, reason: str
) -> None:
    rows, source = replay(tmp_path, pcap([(T0, frame), (T0, frame)], link))
    assert rows == []
    assert source.warnings == [f"{tmp_path / '0.bin'}: no query in 2 frames: 2 frames {reason}"]


def test_what_may_hide_queries_is_told_beside_queries_and_what_cannot_is_not(tmp_path: Path) -> None:
    frames = [(T0, around) for around in (wifi(both()[0]), b"\x08\x41" + b"\x99" * 90, b"\x80\0" + bytes(60))]
    rows, source = replay(tmp_path, pcap(frames, ll.WIFI))
    assert len(rows) == 1
    assert source.warnings == [f"{tmp_path / '0.bin'}: not read: 1 frame of 802.11 that are encrypted"]


# DNS on other ports.


def test_queries_on_other_ports_are_known_by_their_content_and_joined(tmp_path: Path) -> None:
    query = question()
    frames = [
        (T0, ip4(udp(query, dport=8053))),
        (T0 + 0.02, ip4(udp(answer(query, 300, 60), 8053, 40000), SERVER, CLIENT)),
    ]
    rows, source = replay(tmp_path, pcap(frames, ll.RAW))
    check(rows)
    assert source.warnings == [f"{tmp_path / '0.bin'}: 1 query on other ports, known by their content: 8053 (1)"]


def test_a_tcp_stream_on_another_port_is_known_by_a_query(tmp_path: Path) -> None:
    first, second = question("a.example", 1), question("b.example", 2)
    data = len(first).to_bytes(2) + first, (len(second).to_bytes(2) + second)[:9], second[7:]
    at, frames = 100, []
    for part in data:
        frames.append((T0, ip4(tcp(part, at, dport=8053), proto=ll.TCP)))
        at += len(part)
    rows, source = replay(tmp_path, pcap(frames, ll.RAW))
    assert [row[2] for row in rows] == [b"\1a\7example", b"\1b\7example"]
    assert "2 queries on other ports" in source.warnings[0]


@pytest.mark.parametrize(
    "payload",
    [
        question() + b"\0",
        question()[:-1],
        question(flags=0x8180),
        question(flags=0x0900),
        question(flags=0x0101),
        question(qtype=0),
        question()[:-2] + b"\0\7",
        question()[:6] + b"\0\1" + question()[8:],
        question()[:10] + b"\0\1" + question()[12:],
        question("")[:12] + b"\0\0\1\0\1",
        bytes(60),
    ],
)
def test_what_only_looks_like_a_query_is_none_on_another_port(tmp_path: Path, payload: bytes) -> None:
    rows, source = replay(tmp_path, pcap([(T0, ip4(udp(payload, 9000, 9001)))], ll.RAW))
    assert (rows, source.malformed) == ([], 0)
    assert "1 frame of UDP on other ports" in source.warnings[0]


@pytest.mark.parametrize("port", [137, 5353, 5355])
def test_neighbours_names_are_not_dns(tmp_path: Path, port: int) -> None:
    assert replay(tmp_path, pcap([(T0, ip4(udp(question(), port, port)))], ll.RAW))[0] == []


# Fragments.


def parts(body: bytes, *cuts: int) -> list[tuple[int, bool, bytes]]:
    """Offset, more, and bytes of the parts between the cuts."""
    ends = (*cuts, len(body))
    return [(at, end != len(body), body[at:end]) for at, end in zip((0, *cuts), ends, strict=True)]


def fragments4(body: bytes, *cuts: int, proto: int = ll.UDP, ident: int = 7) -> list[bytes]:
    found = []
    for at, more, part in parts(body, *cuts):
        packet = bytearray(ip4(part, proto=proto, fragment=more << 13 | at // 8))
        packet[4:6] = ident.to_bytes(2)
        found.append(bytes(packet))
    return found


def fragments6(body: bytes, *cuts: int, proto: int = ll.UDP) -> list[bytes]:
    return [ip6(pack("!BBHI", proto, 0, at | more, 99) + part, proto=44) for at, more, part in parts(body, *cuts)]


@pytest.mark.parametrize("make", [fragments4, fragments6])
def test_fragments_in_any_order_are_put_together(tmp_path: Path, make: Callable[..., list[bytes]]) -> None:
    pieces = make(udp(question()), 16, 32)
    orders = [pieces, pieces[::-1], [pieces[1], pieces[0], pieces[0], pieces[2]]]
    for order in orders:
        rows, source = replay(tmp_path, pcap([(T0, piece) for piece in order], ll.RAW))
        assert [row[2] for row in rows] == [b"\3www\7example\3com"]
        assert (source.malformed, source.warnings) == (0, [])


def test_fragments_of_tcp_and_of_a_tunnel_are_put_together(tmp_path: Path) -> None:
    stream = tcp(len(question()).to_bytes(2) + question(), 9)
    rows, _ = replay(tmp_path, pcap([(T0, piece) for piece in fragments4(stream, 24, 40, proto=ll.TCP)], ll.RAW))
    assert len(rows) == 1
    tunnel = TUNNELS["vxlan"](both()[0])[24:]
    rows, _ = replay(tmp_path, pcap([(T0, piece) for piece in fragments4(tunnel, 64)], ll.RAW))
    assert [row[1] for row in rows] == [CLIENT]


def test_overlapping_and_missing_fragments_are_told(tmp_path: Path) -> None:
    first, second, last = fragments4(udp(question()), 16, 32)
    overlapping = ip4(b"x" * 16, fragment=0x2000 | 1)
    for pieces in ([first, overlapping, second, last], [first, last], [second]):
        rows, source = replay(tmp_path, pcap([(T0, piece) for piece in pieces], ll.RAW))
        assert rows == []
        assert "1 fragmented packet incomplete" in source.warnings[0]


def test_incomplete_packets_are_bounded(tmp_path: Path) -> None:
    frames: list[Timed] = [(T0, fragments4(udp(question()), 16, ident=n)[0]) for n in range(3000)]
    frames += [(T0, piece) for piece in fragments4(udp(question()), 16, ident=5000)]
    rows, source = replay(tmp_path, pcap(frames, ll.RAW))
    assert len(rows) == 1
    assert "3,000 fragmented packets incomplete" in source.warnings[0]


# Copies of one packet.


def hop(packet: bytes, ttl: int = 63, ident: int = 7) -> bytes:
    """An IPv4 or IPv6 packet with another time to live and identification."""
    changed = bytearray(packet)
    if packet[0] >> 4 == 4:
        changed[8], changed[4:6] = ttl, ident.to_bytes(2)
    else:
        changed[7] = ttl
    return bytes(changed)


@pytest.mark.parametrize("over6", [False, True], ids=["ip4", "ip6"])
def test_a_packet_before_and_behind_a_router_counts_once(tmp_path: Path, over6: bool) -> None:
    query, reply = both(over6)
    frames: list[Timed] = []
    for n, packet in enumerate((query, query, reply, reply)):  # asked twice, answered twice
        at = T0 + n * 1.0
        frames += [
            (at, hop(packet, 64, n)), (at + 0.0001, hop(packet, 63, n)), (at + 0.0002, hop(packet, 62, n)),
        ]  # fmt: skip
    rows, source = replay(tmp_path, pcap(frames, ll.RAW))
    assert [row[0] for row in rows] == [T0, T0 + 1]
    assert [row[5] for row in rows] == [0, -1], "one of two that wait under one id is answered"
    assert "8 messages captured twice" in source.warnings[0]


def test_a_client_that_asks_again_is_no_copy(tmp_path: Path) -> None:
    query = both()[0]
    for again, apart in ((hop(query, 64), 0.002), (hop(query, 63, 8), 0.0001), (hop(query, 63), 0.5)):
        rows, source = replay(tmp_path, pcap([(T0, query), (T0 + apart, again)], ll.RAW))
        assert len(rows) == 2
        assert source.warnings == []


def test_a_mirrored_port_shows_a_packet_twice_within_a_millisecond(tmp_path: Path) -> None:
    query = both()[0]
    rows, source = replay(tmp_path, pcap([(T0, query), (T0 + 0.00001, query)], ll.RAW))
    assert len(rows) == 1
    assert "1 message captured twice" in source.warnings[0]


def test_segments_before_and_behind_a_router_count_once(tmp_path: Path) -> None:
    data = len(question()).to_bytes(2) + question()
    frames: list[Timed] = []
    for n, segment in enumerate((tcp(b"", 9, 2), tcp(data, 10, 0x19))):
        packet = ip4(segment, proto=ll.TCP)
        frames += [(T0 + n, hop(packet, 64, n)), (T0 + n + 0.001, hop(packet, 63, n))]
    rows, source = replay(tmp_path, pcap(frames, ll.RAW))
    assert len(rows) == 1
    assert "2 messages captured twice" in source.warnings[0]


# Gaps in TCP streams.


@pytest.mark.parametrize("missing", [3, 30, 120, 198])
@pytest.mark.parametrize("cut", [0, 5, 40])
def test_a_lost_segment_costs_what_it_carried(tmp_path: Path, missing: int, cut: int) -> None:
    """cut: bytes of a message that lie in the segment before it."""
    queries = [question(f"n{n:03}.example", n) for n in range(200)]
    size = len(queries[0]) + 2
    data = b"".join(len(query).to_bytes(2) + query for query in queries)
    bounds = [0, *(n * size + min(cut, size - 1) for n in range(1, 200)), len(data)]
    frames = [
        (T0 + n / 1000, ip4(tcp(data[start:stop], 1000 + start, dport=53), proto=ll.TCP))
        for n, (start, stop) in enumerate(pairwise(bounds))
        if n != missing
    ]
    rows, source = replay(tmp_path, pcap(frames, ll.RAW))
    assert len(rows) >= 200 - (2 if cut else 1)
    assert source.malformed == 0
    assert re.search("1 gap in TCP streams: segments are missing", source.warnings[0])
