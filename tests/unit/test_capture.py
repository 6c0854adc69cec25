"""pcap and pcapng replay over captures that are built here, frame by frame."""

from __future__ import annotations

import gzip
import itertools
import math
import random
from pathlib import Path
from struct import pack

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.errors import CaptureError
from agents.sources import linklayer as ll
from agents.sources.batcher import Row
from agents.sources.capture import Sources, open_source
from tests.captures import (
    CLIENT, CLIENT6, SERVER, SERVER6, Timed, answer, block, enhanced, interface, ip4, ip6, linked, pcap, question,
    section, tcp, to_client, udp,
)  # fmt: skip

T0 = 1_700_000_000.0
LINKS = [ll.NULL, ll.ETHERNET, ll.RAW, 12, ll.LOOP, ll.LINUX_SLL, ll.IPV4, ll.IPV6, ll.LINUX_SLL2]


def replay(directory: Path, *files: bytes, ports: frozenset[int] = frozenset({53})) -> tuple[list[Row], Sources]:
    """Rows of the files, and the source with its counts."""
    paths = [directory / f"{number}.bin" for number in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        path.write_bytes(content)
    source = open_source(paths, "auto", ports)
    rows: list[Row] = []
    for batch in source.batches(3):
        assert 1 <= len(batch) <= 3
        columns = [
            batch.ts, batch.client, batch.qname, batch.qtype, batch.qlen, batch.rcode, batch.ancount, batch.rlen,
            batch.ttl_min, batch.rtt_ms, batch.ans_types,
        ]  # fmt: skip
        rows += zip(*[column.tolist() if isinstance(column, np.ndarray) else column for column in columns], strict=True)
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
        + section(order) + interface(ll.ETHERNET, order) + interface(ll.RAW, order, 9) + interface(ll.RAW, order, 0x8A)
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
    return [(T0 + n / 100, ip4(tcp(data, start + at, flags), proto=ll.TCP)) for n, (at, data, flags) in enumerate(parts)]


def test_tcp_streams_are_put_in_order(tmp_path: Path) -> None:
    queries = [question(f"n{n}.example", n) for n in range(3)]
    data = b"".join(len(query).to_bytes(2) + query for query in queries)
    parts = [(0, b"", 2), (1, data[:10], 0x18), (31, data[30:60], 0x18), (1, data[:10], 0x18)]
    parts += [(6, data[5:30], 0x18), (61, data[60:], 0x18), (31, data[30:60], 0x18), (1 + len(data), b"", 0x11)]
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


def test_tcp_stream_with_a_gap_is_given_up_and_told(tmp_path: Path) -> None:
    parts = [(0, b"", 2), *[(100 + n, b"x", 0x18) for n in range(100)]]
    rows, source = replay(tmp_path, pcap(stream(*parts), ll.RAW))
    assert not rows
    assert source.warnings[0].endswith("1 TCP streams had gaps")


def test_malformed_messages_are_counted(tmp_path: Path) -> None:
    bad = [b"", b"\0", b"\0\1\1\0" + bytes(8), question()[:-3], b"\xff" * 40]
    frames = [(T0, ip4(udp(message))) for message in bad] + exchange(ll.RAW)
    rows, source = replay(tmp_path, pcap(frames, ll.RAW))
    check(rows)
    assert source.malformed == 4, "the one with QR set comes from no DNS port: not ours"


def test_snapshot_length_is_told_and_sizes_are_the_true_ones(tmp_path: Path) -> None:
    rows, source = replay(tmp_path, pcap(exchange(), snap=90))
    assert rows[0][4:8] == (33, 0, 2, 65)
    rows, source = replay(tmp_path, pcap(exchange(), snap=60))
    assert (rows, source.malformed) == ([], 2)
    assert "2 messages were cut" in source.warnings[0]


@pytest.mark.parametrize("compress", [False, True])
def test_cut_off_captures_give_what_is_there(tmp_path: Path, compress: bool) -> None:
    dice = random.Random(5)
    frames = [(T0 + n, ip4(udp(question(f"n{dice.randrange(10**12)}.example", n)))) for n in range(500)]
    for whole in (pcap(frames, ll.RAW), section() + interface(ll.RAW) + b"".join(enhanced(int(ts * 1e6), f) for ts, f in frames)):
        content = gzip.compress(whole) if compress else whole
        rows, source = replay(tmp_path, content[: len(content) * 2 // 3])
        assert 200 < len(rows) < 450
        assert "cut off" in source.warnings[0]


def test_damaged_middle_of_a_gzip_stream(tmp_path: Path) -> None:
    dice = random.Random(5)
    frames = [(T0 + n, ip4(udp(question(f"n{dice.randrange(10**12)}.example", n)))) for n in range(20_000)]
    content = bytearray(gzip.compress(pcap(frames, ll.RAW)))
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    rows, source = replay(tmp_path, bytes(content))
    assert 5000 < len(rows) < 19_000
    assert source.warnings


def test_absurd_record_lengths_end_the_reading(tmp_path: Path) -> None:
    rows, source = replay(tmp_path, pcap(exchange(ll.RAW), ll.RAW) + pack("<4I", 1, 1, 2**31, 2**31))
    check(rows)
    assert "2147483648 bytes" in source.warnings[0]
    rows, source = replay(tmp_path, section() + interface(ll.RAW) + pack("<II", 6, 2**31))
    assert "2147483648 bytes" in source.warnings[0]


def test_unknown_link_layers_are_told(tmp_path: Path) -> None:
    rows, source = replay(tmp_path, pcap(exchange(), 147))
    assert not rows
    assert source.warnings[0].endswith("2 frames of an unknown link layer")


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\xd4\xc3\xb2\xa1", gzip.compress(b""), b"\x1f\x8b\x08", b"\0" * 99])
def test_no_capture_at_all(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CaptureError, match="^cannot read "):
        replay(tmp_path, content)


def test_missing_files_and_directories(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"cannot read .*: no such file or directory"):
        open_source([tmp_path / "none.pcap"], "auto", {53})
    with pytest.raises(CaptureError, match=r"cannot read .*: is a directory"):
        open_source([tmp_path], "pcap", {53})


def test_a_forced_format_must_fit(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("ts\tclient\tqname\tqtype\n")
    (tmp_path / "p").write_bytes(pcap([]))
    with pytest.raises(CaptureError, match="not a pcap"):
        open_source([tmp_path / "t"], "pcap", {53})
    with pytest.raises(CaptureError, match="no column ts"):
        open_source([tmp_path / "p"], "tsv", {53})


def test_several_files_come_in_the_order_given(tmp_path: Path) -> None:
    table = b"ts\tclient\tqname\tqtype\n5\t::1\ta.b\tA\n6\t::1\ta.b\t\n"
    rows, source = replay(tmp_path, pcap(exchange()), table, pcap([]), pcap(exchange())[:-5])
    assert [row[0] for row in rows] == pytest.approx([T0, 5, T0])
    assert source.malformed == 1
    assert len(source.warnings) == 1


def test_two_readings_are_the_same(tmp_path: Path) -> None:
    frames = [(T0 + n / 100, ip4(udp(question(f"n{n % 7}.example", n % 5)))) for n in range(300)]
    assert repr(replay(tmp_path, pcap(frames, ll.RAW))[0]) == repr(replay(tmp_path, pcap(frames, ll.RAW))[0])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_anywhere_never_raises(tmp_path: Path, data: st.DataObject) -> None:
    frames = exchange(ll.LINUX_SLL2) + [(T0, ip6(tcp(b"\0\x21" + question(), 5), proto=ll.TCP))]
    whole = data.draw(
        st.sampled_from([pcap(frames, ll.LINUX_SLL2), section() + interface(ll.RAW) + enhanced(5, frames[2][1])])
    )
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        replay(tmp_path, bytes(content))
    except CaptureError as error:
        assert str(error).startswith("cannot ")


@given(st.sampled_from(LINKS), st.binary(max_size=120))
def test_random_frames_never_raise(link: int, frame: bytes) -> None:
    part = ll.segment(link, frame)
    assert part is None or part.proto in (ll.UDP, ll.TCP)
