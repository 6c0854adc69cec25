"""What every finite Source promises, over the same twelve queries as pcap, pcapng, table, and two files."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest

from agents.core.protocols import Source
from agents.dns import name as names
from agents.sources import open_source
from agents.sources.capture import frame_kernels as ll
from tests.support.captures import CLIENT, T0, enhanced, interface, ip4, pcap, question, section, udp
from tests.support.frames import client_frame, stream
from tests.support.resolvers import question_of

pytestmark = pytest.mark.contract

NAMES = [f"n{number}.example" for number in range(12)]
FRAMES = [(T0 + at / 8, ip4(udp(question(name, at)))) for at, name in enumerate(NAMES)]


def pcapng() -> bytes:
    return section() + interface(ll.RAW) + b"".join(enhanced(int(ts * 1e6), frame) for ts, frame in FRAMES)


def table() -> bytes:
    rows = "".join(f"{T0 + at / 8:.6f}\t{CLIENT}\t{name}\tA\t\n" for at, name in enumerate(NAMES))
    return ("ts\tclient\tqname\tqtype\trcode\n" + rows).encode()


def bind_log() -> bytes:
    def line(ts: float, name: str) -> str:
        at = datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        return f"{at}Z queries: info: client @0x7f {CLIENT}#53 ({name}): query: {name} IN A + (192.0.2.53)\n"

    return "".join(line(T0 + at / 8, name) for at, name in enumerate(NAMES)).encode()


def dnstap() -> bytes:
    packed = ip_address(CLIENT).packed
    return stream(
        *(client_frame(5, question_of(name, "A", at), T0 + at / 8, client=packed) for at, name in enumerate(NAMES))
    )


def one(content: bytes) -> list[bytes]:
    return [content]


MAKERS: dict[str, Callable[[], list[bytes]]] = {
    "pcap": lambda: one(pcap(FRAMES, ll.RAW)),
    "pcapng": lambda: one(pcapng()),
    "tsv": lambda: one(table()),
    "tsv.gz": lambda: one(gzip.compress(table(), mtime=0)),
    "bind": lambda: one(bind_log()),
    "dnstap": lambda: one(dnstap()),
    "two": lambda: [pcap(FRAMES[:5], ll.RAW), pcap(FRAMES[5:], ll.RAW)],
}


@pytest.fixture(params=sorted(MAKERS))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    paths = []
    for number, content in enumerate(MAKERS[request.param]()):
        paths.append(tmp_path / f"{number}.capture")
        paths[-1].write_bytes(content)
    return open_source(paths)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_all_queries_once_in_time_order_in_bounded_batches(source: Source, size: int) -> None:
    batches = list(source.batches(size))
    assert all(1 <= len(batch) <= size for batch in batches)
    assert [names.to_text(name) for batch in batches for name in batch.qname] == NAMES
    ts = np.concatenate([batch.ts for batch in batches])
    assert ts == pytest.approx([T0 + at / 8 for at in range(12)])
    assert (source.malformed, source.warnings) == (0, [])


def test_columns_have_one_length_and_the_declared_types(source: Source) -> None:
    for batch in source.batches(5):
        columns = [getattr(batch, name) for name in type(batch).__dataclass_fields__]
        assert {len(column) for column in columns} == {len(batch)}
        kinds = [column.dtype.name for column in columns if isinstance(column, np.ndarray)]
        numbers = ["float64", "uint16", "int32", "int16", "int32", "int32", "int64", "float32", "int8"]
        assert kinds == [*numbers, "uint64", "int32", "int32", "uint8"]


def test_what_was_not_seen_is_unknown(source: Source) -> None:
    for batch in source.batches(1000):
        for column in (batch.rcode, batch.ancount, batch.rlen, batch.ttl_min):
            assert (column == -1).all()
        assert np.isnan(batch.rtt_ms).all()
        assert set(batch.ans_types) == {""}
        assert set(batch.client) == {CLIENT}
