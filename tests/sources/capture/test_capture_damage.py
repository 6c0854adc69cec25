"""Captures that are cut, damaged, or none at all."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from struct import pack

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.core.errors import CaptureError
from agents.sources import open_source
from agents.sources.capture import frame_kernels as ll
from tests.support.captures import (
    T0,
    check,
    enhanced,
    exchange,
    interface,
    ip4,
    ip6,
    pcap,
    question,
    replay,
    section,
    tcp,
    udp,
)  # fmt: skip

LINKS = [ll.NULL, ll.ETHERNET, ll.RAW, 12, ll.LOOP, ll.LINUX_SLL, ll.IPV4, ll.IPV6, ll.LINUX_SLL2]


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
    assert "2 messages cut by" in source.warnings[0]


@pytest.mark.parametrize("compress", [False, True])
def test_cut_off_captures_give_what_is_there(tmp_path: Path, compress: bool) -> None:
    dice = random.Random(5)
    frames = [(T0 + n, ip4(udp(question(f"n{dice.randrange(10**12)}.example", n)))) for n in range(500)]
    for whole in (
        pcap(frames, ll.RAW),
        section() + interface(ll.RAW) + b"".join(enhanced(int(ts * 1e6), f) for ts, f in frames),
    ):
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
    assert source.warnings[0].endswith("no query in 2 frames: 2 frames of the unknown link type 147")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello\n", b"\xd4\xc3\xb2\xa1", gzip.compress(b"", mtime=0), b"\x1f\x8b\x08", b"\0" * 99],
    ids=range(6),
)
def test_no_capture_at_all(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CaptureError, match=r"^cannot read "):
        replay(tmp_path, content)


def test_missing_files_and_directories(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"cannot read .*: no such file or directory"):
        open_source([tmp_path / "none.pcap"])
    with pytest.raises(CaptureError, match=r"cannot read .*: is a directory"):
        open_source([tmp_path], "pcap")


def test_a_forced_format_must_fit(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("ts\tclient\tqname\tqtype\n")
    (tmp_path / "p").write_bytes(pcap([]))
    with pytest.raises(CaptureError, match=r"not a pcap"):
        open_source([tmp_path / "t"], "pcap")
    with pytest.raises(CaptureError, match=r"no column ts"):
        open_source([tmp_path / "p"], "tsv")


def test_several_files_come_in_the_order_given(tmp_path: Path) -> None:
    table = b"ts\tclient\tqname\tqtype\n5\t::1\ta.b\tA\n6\t::1\ta.b\t\n"
    rows, source = replay(tmp_path, pcap(exchange()), table, pcap([]), pcap(exchange())[:-5])
    assert [row[0] for row in rows] == pytest.approx([T0, 5, T0])
    assert source.malformed == 1
    assert [warning.partition("bin: ")[2] for warning in source.warnings] == [
        "1 row could not be read; the first: line 3: read record type ''",
        "the last record is cut off; what came before was used",
    ]


def test_two_readings_are_the_same(tmp_path: Path) -> None:
    frames = [(T0 + n / 100, ip4(udp(question(f"n{n % 7}.example", n % 5)))) for n in range(300)]
    assert repr(replay(tmp_path, pcap(frames, ll.RAW))[0]) == repr(replay(tmp_path, pcap(frames, ll.RAW))[0])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_anywhere_never_raises(tmp_path: Path, data: st.DataObject) -> None:
    frames = [*exchange(ll.LINUX_SLL2), (T0, ip6(tcp(b"\0\x21" + question(), 5), proto=ll.TCP))]
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
    packet, data = ll.packet_room(), np.frombuffer(frame, np.uint8)
    kind = ll.find_packet(link, data, 0, len(data), packet)
    assert kind in (ll.NOTHING, ll.DATAGRAM, ll.SEGMENT, ll.FRAGMENT)
    if kind != ll.NOTHING:
        begin, end = packet.numbers[ll.PAYLOAD], packet.numbers[ll.STOP]
        assert begin == end or 0 <= begin < end <= len(data)
