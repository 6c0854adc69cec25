"""Compressed files by their content: whole, cut off, damaged, in members, and grown beyond all measure."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.core.errors import CaptureError
from agents.sources import kind_of, open_source
from agents.sources.files import open_bytes
from tests.support.captures import T0, check, exchange, ip4, linked, pcap, question, replay, udp

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Compress = Callable[[bytes], bytes]
WAYS: dict[str, Compress] = {
    "gzip": gzip.compress, "xz": lzma.compress, "zstd": zstd.compress, "bzip2": bz2.compress,
    "lz4": lz4.frame.compress,
}  # fmt: skip
each_way = pytest.mark.parametrize("name", WAYS)


@each_way
def test_a_compressed_capture_is_known_by_its_content_and_may_have_members(tmp_path: Path, name: str) -> None:
    whole, compress = pcap(exchange()), WAYS[name]
    check(replay(tmp_path, compress(whole))[0])
    check(replay(tmp_path, compress(whole[:50]) + compress(whole[50:]) + bytes(512))[0])


@pytest.mark.slow
@each_way
def test_a_stream_that_is_cut_off_gives_what_is_there(tmp_path: Path, name: str) -> None:
    frames = [(T0 + n, ip4(udp(question(f"{zlib.crc32(b'%d' % n):x}.example", n % 65536)))) for n in range(60_000)]
    content = WAYS[name](pcap(frames, 101))
    rows, source = replay(tmp_path, content[: len(content) * 3 // 4])
    assert 1000 < len(rows) < 60_000
    assert source.warnings == [f"{tmp_path / '0.bin'}: the {name} stream is cut off; what came before was used"]


@pytest.mark.slow
@each_way
def test_a_small_file_of_gigabytes_takes_no_memory_but_what_is_asked_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(WAYS[name](bytes(1 << 26)))
    stream, _ = open_bytes(path)
    with stream:
        assert isinstance(stream.raw, io.RawIOBase)
        assert 0 < stream.raw.readinto(bytearray(1000)) <= 1000


@pytest.mark.slow
@each_way
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(flips=st.lists(st.tuples(st.integers(6, 10**6), st.integers(0, 255)), max_size=6), cut=st.integers(8, 3000))
def test_damage_never_raises_but_for_a_file_of_no_kind(
    tmp_path: Path, name: str, flips: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(WAYS[name](pcap(exchange() * 20))[:cut])
    for at, byte in flips:
        content[at % len(content)] = byte
    try:
        replay(tmp_path, bytes(content))
    except CaptureError as error:
        assert str(error).startswith("cannot ")


def test_an_xz_stream_that_wants_much_memory_is_refused(tmp_path: Path) -> None:
    packed = lzma.compress(pcap(exchange()), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}])
    # The dictionary's size is one byte of the block header (xz file format, section 5.3.1), guarded by a CRC.
    header = bytearray(packed[12:24])
    header[4] = 36  # 1 GiB
    header[8:12] = zlib.crc32(header[:8]).to_bytes(4, "little")
    wants = packed[:12] + bytes(header) + packed[24:]
    assert lzma.decompress(wants) == pcap(exchange()), "nothing else is wrong with it"
    with pytest.raises(CaptureError, match="the xz stream is damaged"):
        replay(tmp_path, wants)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"#separator \\x09\n#set_separator\t,\n", "another log of Zeek"),
        (b'{"timestamp": "2026-01-05T00:00:00"}\n', "another log of JSON objects"),
        (b"PK\x03\x04\x14\x00", "a zip archive"),
    ],
)
def test_a_kind_that_is_not_read_is_named(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=rf"cannot read .*: it is {name}.* and neither "):
        kind_of(path)


def test_a_progress_bar_may_ask_in_the_moment_in_which_the_reader_closes_the_file(tmp_path: Path) -> None:
    """Between its look at the file object and its system call, another thread had closed the descriptor: EBADF."""
    path = tmp_path / "a"
    path.write_bytes(pcap([(T0, linked(1, ip4(udp(question(ident=n))))) for n in range(3)]))
    source = open_source([path])
    batches = source.batches(1)
    next(batches)
    (number,) = [int(fd.name) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink() and fd.resolve() == path]
    kept = os.dup(number)
    os.close(number)
    try:
        assert source.done == source.size
    finally:
        os.dup2(kept, number)
        os.close(kept)
    assert sum(map(len, batches)) == 2
