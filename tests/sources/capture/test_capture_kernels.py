"""Captures read by kernels against the plain reader: the same rows, counts and warnings, whatever is in them."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from struct import pack

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.core import jit
from agents.core.columns import coded, distinct
from agents.core.types import QueryBatch
from agents.sources.capture import frame_kernels as ll
from agents.sources.capture.capture_kernels import WAITING_MAX
from agents.sources.capture.source import PcapSource
from tests.support.captures import (
    CLIENT,
    CLIENT6,
    SERVER,
    SERVER6,
    T0,
    Timed,
    answer,
    enhanced,
    interface,
    ip4,
    ip6,
    linked,
    pcap,
    question,
    section,
    tcp,
    udp,
)  # fmt: skip
from tests.support.plain_capture import PlainSource

PORTS = frozenset({53, 5353})
LINKS = [ll.NULL, ll.ETHERNET, ll.RAW, ll.LINUX_SLL, ll.LINUX_SLL2, 12, 147]
NOTES = re.compile("other ports|not read|no query in|captured twice|fragmented")
"""Warnings that tests of their own look at."""
HASH_AT = list(QueryBatch.__dataclass_fields__).index("ans_hash")
Reading = tuple[list[list[tuple[object, ...]]], int, list[str]]


def read(source: PcapSource | PlainSource, size: int = 3) -> Reading:
    """Rows by batch, malformed, warnings; NaN as text, so that it equals itself, and whether there is a hash."""
    batches = []
    for batch in source.batches(size):
        columns = [getattr(batch, name) for name in QueryBatch.__dataclass_fields__]
        lists = [column.tolist() if isinstance(column, np.ndarray) else list(column) for column in columns]
        lists[9] = [repr(value) for value in lists[9]]
        lists[HASH_AT] = [value > 0 for value in lists[HASH_AT]]
        batches.append(list(zip(*lists, strict=True)))
    return batches, source.malformed, [text for text in source.warnings if not NOTES.search(text)]


def same(directory: Path, content: bytes) -> Reading:
    path = directory / "capture"
    path.write_bytes(content)
    plain = read(PlainSource(path, PORTS))
    assert read(PcapSource(path, PORTS)) == plain
    return plain


@st.composite
def asked(draw: st.DrawFn) -> tuple[bytes, int, bool]:
    """A query, its port, and whether it comes over IPv6: few different ones, so that they meet."""
    name = draw(st.sampled_from(["a.example", "A.Example", "x" * 63 + ".example.com"]))
    message = question(name, draw(st.integers(1, 2)), draw(st.sampled_from([1, 65, 97])))
    return message, draw(st.sampled_from([40_000, 5353])), draw(st.booleans())


@st.composite
def answered(draw: st.DrawFn, query: bytes) -> bytes:
    """An answer to the query, with up to three records and perhaps EDNS; its name in either case."""
    ttls = draw(st.lists(st.sampled_from([0, 60, 0x80000001]), max_size=3))
    found = answer(query, *ttls, rcode=draw(st.integers(0, 3)), kind=draw(st.sampled_from([1, 5, 0, 41])))
    if draw(st.booleans()):
        found = found[:10] + b"\0\1" + found[12:] + pack("!BHHIH", 0, 41, 1232, draw(st.sampled_from([0, 1 << 24])), 0)
    return found.replace(b"example", b"EXAMPLE") if draw(st.booleans()) else found


@st.composite
def frames(draw: st.DrawFn) -> tuple[int, list[Timed]]:
    """A link type and messages of two clients: asked twice, answered late, twice, or never, out of order, damaged."""
    link, ts, sent = draw(st.sampled_from(LINKS)), T0, 0
    found: list[Timed] = []
    queries: list[tuple[bytes, int, bool]] = []
    for _ in range(draw(st.integers(1, 14))):
        ts += draw(st.sampled_from([0, 0.001, 0.5, 4.9, 5.0, 5.1, -0.3, -4, -6]))
        answers = bool(queries) and draw(st.integers(0, 2)) > 0
        query = draw(st.sampled_from(queries) if answers else asked())
        queries.append(query)
        message, port, over6 = draw(answered(query[0])) if answers else query[0], query[1], query[2]
        if draw(st.integers(0, 7)) == 0:
            at = draw(st.integers(0, len(message) - 1))
            message = message[:at] + draw(st.binary(max_size=3)) + message[at + 1 :]
        sport, dport = (53, port) if answers else (port, 53)
        over_tcp = draw(st.integers(0, 4)) == 0
        body = udp(message, sport, dport)
        if over_tcp:
            body = tcp(pack("!H", len(message)) + message, 1000 + sent, sport=sport, dport=dport)
            sent += len(message) + 2
        ends = (SERVER, CLIENT) if answers else (CLIENT, SERVER)
        ends6 = (SERVER6, CLIENT6) if answers else (CLIENT6, SERVER6)
        proto, fragment = ll.TCP if over_tcp else ll.UDP, draw(st.sampled_from([0, 0, 0, 0, 0x2000, 0x2005]))
        packet = ip6(body, *ends6, proto) if over6 else ip4(body, *ends, proto, fragment)
        found.append((ts, linked(link, packet, draw(st.integers(0, 2)))))
    return link, found


UNHURRIED = settings(
    deadline=None, max_examples=200 if jit.COMPILED else 40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.slow
@UNHURRIED
@given(frames(), st.sampled_from("<>"), st.booleans(), st.sampled_from([65_535, 60, 30]))
def test_pcap_files_are_read_as_the_plain_reader_does(
    tmp_path: Path, sent: tuple[int, list[Timed]], order: str, nano: bool, snap: int
) -> None:
    link, timed = sent
    same(tmp_path, pcap(timed, link, order, nano, snap))


@pytest.mark.slow
@UNHURRIED
@given(st.lists(st.tuples(st.sampled_from("<>"), frames(), st.sampled_from([None, 9, 0x94])), min_size=1, max_size=3))
def test_pcapng_files_are_read_as_the_plain_reader_does(
    tmp_path: Path, parts: list[tuple[str, tuple[int, list[Timed]], int | None]]
) -> None:
    content = b""
    for order, (link, timed), resolution in parts:
        content += section(order) + interface(link, order, resolution)
        content += b"".join(enhanced(int(ts * 1e6), frame, order, at % 3 // 2) for at, (ts, frame) in enumerate(timed))
    same(tmp_path, content)


@pytest.mark.slow
@UNHURRIED
@given(frames(), st.booleans(), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6), st.data())
def test_damaged_files_are_read_as_the_plain_reader_does(
    tmp_path: Path, sent: tuple[int, list[Timed]], blocks: bool, flips: list[tuple[int, int]], data: st.DataObject
) -> None:
    link, timed = sent
    whole = pcap(timed, link)
    if blocks:
        whole = section() + interface(link) + b"".join(enhanced(int(ts * 1e6), frame) for ts, frame in timed)
    content = bytearray(whole[: data.draw(st.integers(24, len(whole)))])
    for at, byte in flips:
        content[4 + at % (len(content) - 4)] = byte
    if content[:4] == whole[:4]:
        same(tmp_path, bytes(content))


@pytest.mark.slow
@UNHURRIED
@given(st.sampled_from(LINKS), st.lists(st.binary(max_size=90), max_size=6), st.binary(min_size=1, max_size=2))
def test_random_frames_are_read_as_the_plain_reader_does(
    tmp_path: Path, link: int, found: list[bytes], head: bytes
) -> None:
    same(tmp_path, pcap([(T0, frame) for frame in found] + [(T0, linked(link, b"\x45" + head * 40))], link))


@pytest.mark.slow
@pytest.mark.skipif(not jit.COMPILED, reason="kernels are off: a minute")
def test_more_queries_than_may_wait_go_on_oldest_first(tmp_path: Path) -> None:
    count = WAITING_MAX + 500
    timed = [(T0, linked(ll.RAW, ip4(udp(question("n", at % 65_536), 1024 + at % 9)))) for at in range(count)]
    path = tmp_path / "capture.gz"
    path.write_bytes(gzip.compress(pcap(timed, ll.RAW), 1))
    plain = read(PlainSource(path, PORTS), 1000)
    assert sum(map(len, plain[0])) == count
    assert read(PcapSource(path, PORTS), 1000) == plain


@given(st.lists(st.text(max_size=2)))
def test_distinct_texts_of_a_column_are_those_in_it(texts: list[str]) -> None:
    column = coded(texts)
    assert set(distinct(column)) == set(distinct(texts)) == set(texts)
    column.codes[:] = 0
    assert set(distinct(column)) == set(texts[:1])
