"""pcap and pcapng replay over captures that are built here, frame by frame."""

from __future__ import annotations

import gzip
import itertools
import math
import random
from pathlib import Path

import pytest

from agents.sources.capture import frame_kernels as ll
from tests.support.captures import (
    CLIENT,
    CLIENT6,
    SERVER,
    SERVER6,
    T0,
    Timed,
    answer,
    block,
    check,
    enhanced,
    exchange,
    interface,
    ip4,
    ip6,
    linked,
    pcap,
    question,
    replay,
    section,
    tcp,
    to_client,
    udp,
)  # fmt: skip

LINKS = [ll.NULL, ll.ETHERNET, ll.RAW, 12, ll.LOOP, ll.LINUX_SLL, ll.IPV4, ll.IPV6, ll.LINUX_SLL2]


@pytest.mark.parametrize("link", LINKS)
def test_every_link_layer_over_ipv4(tmp_path: Path, link: int) -> None:
    rows, source = replay(tmp_path, pcap(exchange(link), link))
    check(rows)
    assert (source.malformed, source.warnings) == (0, [])


@pytest.mark.parametrize("link", LINKS)
def test_every_link_layer_over_ipv6(tmp_path: Path, link: int) -> None:
    query = question()
    frames = [
        (T0, linked(link, ip6(udp(query)))),
        (T0 + 0.02, linked(link, ip6(udp(answer(query, 60, 300), 53, 40000), SERVER6, CLIENT6))),
    ]
    check(replay(tmp_path, pcap(frames, link))[0], CLIENT6)


@pytest.mark.parametrize("tags", [1, 2, 3])
@pytest.mark.parametrize("link", [ll.ETHERNET, ll.LINUX_SLL])
def test_vlan_tags(tmp_path: Path, link: int, tags: int) -> None:
    check(replay(tmp_path, pcap(exchange(link, tags), link))[0])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_byte_orders_and_resolutions(tmp_path: Path, order: str, nano: bool) -> None:
    check(replay(tmp_path, pcap(exchange(), order=order, nano=nano))[0])


def test_gzip_is_told_by_content_and_may_have_members(tmp_path: Path) -> None:
    whole = pcap(exchange())
    check(replay(tmp_path, gzip.compress(whole))[0])
    check(replay(tmp_path, gzip.compress(whole[:50]) + gzip.compress(whole[50:]) + bytes(512))[0])


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_sections_interfaces_and_resolutions(tmp_path: Path, order: str) -> None:
    first, second = (frame for _, frame in exchange(ll.RAW))
    ethernet = linked(ll.ETHERNET, ip4(udp(question("b.example", 2))))
    file = (
        section("<") + interface(ll.RAW) + block("<", 5, bytes(12)) + enhanced(int(T0 * 1e6), first)
        + section(order) + interface(ll.ETHERNET, order) + interface(ll.RAW, order, 9)
        + interface(ll.RAW, order, 0x8A)
        + enhanced(int(T0) * 10**9 + 20_000_000, second, order, 1)
        + enhanced(int(T0) + 1 << 10, ip4(udp(question("a.example", 9))), order, 2)
        + enhanced((int(T0) + 2) * 10**6, ethernet, order, 0)
        + enhanced(1, ethernet, order, 7)
    )  # fmt: skip
    rows, _ = replay(tmp_path, file)
    check(rows[:1])
    assert [(row[0], row[2]) for row in rows[1:]] == [(T0 + 1, b"\1a\7example"), (T0 + 2, b"\1b\7example")]


def test_ipv6_extension_headers(tmp_path: Path) -> None:
    options = bytes((43, 0)) + bytes(6)
    routing = bytes((ll.UDP, 1)) + bytes(14)
    packet = ip6(options + routing + udp(question()), proto=0)
    rows, _ = replay(tmp_path, pcap([(T0, packet)], ll.RAW))
    assert rows[0][1:3] == (CLIENT6, b"\3www\7example\3com")


def test_first_fragments_give_sizes_of_the_whole(tmp_path: Path) -> None:
    query = question(qtype=16)
    large = answer(query, *range(100, 110), data=b"\xc7" + b"x" * 199, kind=16)
    datagram = udp(large, 53, 40000)
    frames = [
        (T0, ip4(udp(query))),
        (T0 + 0.01, ip4(datagram[:1480], SERVER, CLIENT, fragment=0x2000)),
        (T0 + 0.01, ip4(datagram[1480:], SERVER, CLIENT, fragment=185)),
    ]
    rows, source = replay(tmp_path, pcap(frames, ll.RAW))
    assert rows[0][5:9] == (0, 10, len(large), 100)
    assert (rows[0][10], source.malformed) == ("TXT", 0)
    head = bytes((ll.UDP, 0, 0, 1)) + bytes(4)
    later = bytes((ll.UDP, 0, 1, 0)) + bytes(4)
    frames6 = [(T0, ip6(head + udp(query), proto=44)), (T0, ip6(later + udp(query), proto=44))]
    assert len(replay(tmp_path, pcap(frames6, ll.RAW))[0]) == 1


def test_unanswered_late_and_foreign_answers(tmp_path: Path) -> None:
    query = question()
    frames = [
        (T0, ip4(udp(query))),
        (T0 + 0.1, to_client(answer(question("other.example"), 1))),
        (T0 + 0.2, to_client(answer(query, 1), 40001)),
        (T0 + 0.3, ip4(udp(answer(query, 1), 53, 40000), "192.0.2.99", CLIENT)),
        (T0 + 6, to_client(answer(query, 1))),
    ]
    rows, source = replay(tmp_path, pcap(frames, ll.RAW))
    assert rows[0][5:9] == (-1, -1, -1, -1)
    assert math.isnan(rows[0][9])
    assert (len(rows), source.malformed) == (1, 0)


def test_answers_match_without_regard_to_case_and_each_repetition_counts(tmp_path: Path) -> None:
    query = question("Www.Example.com")
    frames = [
        (T0, ip4(udp(query))),
        (T0 + 1, ip4(udp(query))),
        (T0 + 1.5, to_client(answer(question("www.example.com"), 7))),
    ]
    rows, _ = replay(tmp_path, pcap(frames, ll.RAW))
    assert [row[5] for row in rows] == [0, -1]
    assert rows[0][2] == b"\3Www\7Example\3com"


def test_rows_are_in_time_order_of_the_query(tmp_path: Path) -> None:
    times = [T0 + n / 10 for n in range(200)]
    random.Random(3).shuffle(times)
    ordered = sorted(times, key=lambda ts: ts + random.Random(ts).random())
    assert ordered != sorted(times)
    frames = [(ts, ip4(udp(question(ident=n)))) for n, ts in enumerate(ordered)]
    rows, _ = replay(tmp_path, pcap(frames, ll.RAW))
    assert len(rows) == 200
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(rows))


def test_other_ports_are_a_setting(tmp_path: Path) -> None:
    frames = [(T0, ip4(udp(question(), dport=5353)))]
    assert not replay(tmp_path, pcap(frames, ll.RAW))[0]
    assert replay(tmp_path, pcap(frames, ll.RAW), ports=frozenset({53, 5353}))[0]


def stream(*parts: tuple[int, bytes, int]) -> list[Timed]:
    """Client segments (sequence offset, payload, flags), numbers wrapping at 2^32."""
    start = 2**32 - 20
    return [
        (T0 + n / 100, ip4(tcp(data, start + at, flags), proto=ll.TCP)) for n, (at, data, flags) in enumerate(parts)
    ]


def test_tcp_streams_are_put_in_order(tmp_path: Path) -> None:
    queries = [question(f"n{n}.example", n) for n in range(3)]
    data = b"".join(len(query).to_bytes(2) + query for query in queries)
    parts = [(0, b"", 2), (1, data[:10], 0x18), (31, data[30:60], 0x18), (1, data[:10], 0x18)]
    parts += [
        (6, data[5:30], 0x18),
        (61, data[60:], 0x18),
        (31, data[30:60], 0x18),
        (1 + len(data), b"", 0x11),
    ]
    rows, source = replay(tmp_path, pcap(stream(*parts), ll.RAW))
    assert [row[2] for row in rows] == [b"\2n%d\7example" % n for n in range(3)]
    assert [row[4] for row in rows] == [len(query) for query in queries]
    assert source.malformed == 0


def test_tcp_answers_are_joined(tmp_path: Path) -> None:
    query = question()
    reply = answer(query, 60, 300)
    frames = stream((0, len(query).to_bytes(2) + query, 0x18))
    back = tcp(len(reply).to_bytes(2) + reply, 5, 0x18, 53, 40000)
    frames.append((T0 + 0.02, ip4(back, SERVER, CLIENT, ll.TCP)))
    check(replay(tmp_path, pcap(frames, ll.RAW))[0])


def test_a_gap_in_a_tcp_stream_is_told(tmp_path: Path) -> None:
    parts = [(0, b"", 2), *[(100 + n, b"x", 0x18) for n in range(100)]]
    rows, source = replay(tmp_path, pcap(stream(*parts), ll.RAW))
    assert not rows
    assert source.warnings[0].endswith("1 gap in TCP streams: segments are missing from the capture")
