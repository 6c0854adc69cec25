"""dnstap files: whole messages of clients; answers alone suffice, damage costs what it hits."""

from __future__ import annotations

import math
import time
from pathlib import Path

import dnstap_pb
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.protocols import Source
from agents.core.types import QueryBatch
from agents.dns.message import type_number
from agents.dns.message_kernels import question_end
from agents.dns.name import from_text, to_text
from agents.sources import kind_of, open_source
from agents.sources.dnstap import dnstap_kernels as kernels
from agents.sources.dnstap.merging_kernels import AT_ANSWERED, AT_ASKED, IDENT, PORT, WIRE, WIRE_END, new_merger
from agents.sources.dnstap.protobuf_kernels import BYTES, FIELDS, VARINT, new_fields, schema, walk
from tests.support.frames import client_frame, field, stream
from tests.support.log_lines import DATA, T0, answer_of
from tests.support.resolvers import ODD, ask, bind_dnstap, question_of, resolver

NAME = "GQ5vam9/BA==.t.example"
QUERY, ANSWER = question_of(NAME, "TXT", 7), answer_of(NAME, "TXT")
ASKED = [(from_text(qname), type_number(qtype)) for qname, qtype in ODD]


def read(path: Path, content: bytes) -> tuple[Source, list[QueryBatch]]:
    path.write_bytes(content)
    source = open_source([path])
    return source, list(source.batches(1000))


def asked_in(batches: list[QueryBatch]) -> list[tuple[bytes, int]]:
    return [pair for batch in batches for pair in zip(batch.qname, batch.qtype.tolist(), strict=True)]


def test_what_bind_wrote_has_every_name_to_the_byte() -> None:
    path = DATA / "bind.fstrm"
    assert kind_of(path).name == "dnstap"
    source = open_source([path])
    batches = list(source.batches(5))
    assert asked_in(batches) == ASKED
    assert {int(rcode) for batch in batches for rcode in batch.rcode} == {5}
    assert (source.malformed, source.warnings, source.losses) == (0, [], ())


@pytest.mark.integration
def test_what_this_machines_bind_writes_is_what_it_was_asked(tmp_path: Path) -> None:
    began = time.time()
    with resolver(bind_dnstap, tmp_path) as (port, log):
        ask(port, ODD)
    batches = list(open_source([log]).batches(1000))
    assert asked_in(batches) == ASKED
    ts = np.concatenate([batch.ts for batch in batches])
    assert began - 0.1 <= ts.min() <= ts.max() <= time.time()


def test_query_and_answer_are_one_query(tmp_path: Path) -> None:
    frames = client_frame(5, QUERY, T0 + 0.25), client_frame(6, ANSWER, None, T0 + 0.27)
    _, (batch,) = read(tmp_path / "a", stream(*frames))
    assert [to_text(name) for name in batch.qname] == [NAME]
    facts = batch.qlen[0], batch.rcode[0], batch.ancount[0], batch.ttl_min[0], batch.ans_types[0], batch.ans_bytes[0]
    assert facts == (len(QUERY), 0, 1, 60, "A", 4)
    assert (batch.ts[0], batch.client[0]) == (T0 + 0.25, "192.0.2.7")
    assert batch.rtt_ms[0] == pytest.approx(20, abs=0.01)


def test_an_answer_alone_suffices_and_a_query_without_one_counts(tmp_path: Path) -> None:
    both_times = client_frame(6, ANSWER, T0 + 0.25, T0 + 0.27, bytes(15) + b"\1")
    _, (batch,) = read(tmp_path / "a", stream(both_times))
    assert (batch.ts[0], batch.client[0], batch.qlen[0]) == (T0 + 0.25, "::1", -1)
    assert batch.rtt_ms[0] == pytest.approx(20, abs=0.01)
    _, (batch,) = read(tmp_path / "a", stream(client_frame(6, ANSWER, None, T0 + 0.27)))
    assert batch.ts[0] == T0 + 0.27
    assert math.isnan(batch.rtt_ms[0])
    _, (batch,) = read(tmp_path / "a", stream(client_frame(5, QUERY, T0)))
    assert (batch.rcode[0], batch.rlen[0], batch.ans_bytes[0], batch.ancount[0]) == (-1, -1, -1, -1)


def test_what_the_server_asks_itself_is_not_its_clients(tmp_path: Path) -> None:
    source, batches = read(tmp_path / "a", stream(client_frame(3, QUERY, T0), client_frame(4, ANSWER, T0)))
    assert batches == []
    said = "2 frames of other kinds: CLIENT_QUERY and CLIENT_RESPONSE are read"
    assert source.warnings == [f"{tmp_path / 'a'}: no query in 2 frames", f"{tmp_path / 'a'}: {said}"]


def test_a_bad_frame_costs_itself_and_a_bad_length_what_follows(tmp_path: Path) -> None:
    good = client_frame(6, ANSWER, T0)
    bad = [client_frame(6, ANSWER[:14], T0), client_frame(6, ANSWER, T0, client=b"\1\2\3"), good[:-9], b"\xff" * 30]
    source, batches = read(tmp_path / "a", stream(good, *bad, good))
    assert (sum(map(len, batches)), source.malformed) == (2, len(bad))
    assert source.warnings[0].startswith(f"{tmp_path / 'a'}: 4 frames could not be read; the first: frame 2: ")
    huge = (kernels.DNSTAP_FRAME_MAX + 1).to_bytes(4)
    source, batches = read(tmp_path / "a", stream(good, whole=False) + huge + good)
    assert sum(map(len, batches)) == 1
    assert source.warnings == [
        f"{tmp_path / 'a'}: a frame of {kernels.DNSTAP_FRAME_MAX + 1} bytes; what came before was used"
    ]
    source, batches = read(tmp_path / "a", stream(good, good, whole=False)[:-5])
    assert sum(map(len, batches)) == 1
    assert source.warnings == [f"{tmp_path / 'a'}: the last frame is cut off; what came before was used"]


@settings(deadline=None)  # called by itself it is compiled once more
@given(st.dictionaries(st.integers(1, FIELDS - 1), st.one_of(st.integers(0, 2**63 - 1), st.binary(max_size=300))))
def test_fields_come_back_as_they_were_written(wanted: dict[int, int | bytes]) -> None:
    data = b"".join(field(number, value) for number, value in wanted.items())
    kinds = schema({number: BYTES if isinstance(value, bytes) else VARINT for number, value in wanted.items()})
    found = new_fields()
    assert walk(np.frombuffer(data or b"\0", np.uint8), 0, len(data), kinds, found)
    values, stops = found.values.tolist(), found.stops.tolist()
    read = {
        number: values[number] if kinds[number] == VARINT else data[values[number] : stops[number]]
        for number in range(FIELDS)
        if stops[number]
    }
    assert read == wanted


SCAN = kernels.new_scan(new_merger((3, 5)))


def kind_of_frame(frame: bytes) -> int:
    return int(kernels.read_dnstap(SCAN, np.frombuffer(frame or b"\0", np.uint8), 0, len(frame)))


def same_time(found: float, seconds: int, fraction: int, there: bool) -> bool:
    return math.isnan(found) if not there else found == pytest.approx(seconds + fraction * 1e-9, abs=1e-6)


def check_against_the_library(frame: bytes) -> None:
    """What is read as a message of a client is what the library reads."""
    kind = kind_of_frame(frame)
    try:
        message = dnstap_pb.Dnstap.FromString(frame).message
    except DecodeError:
        return
    is_answer = message.type == dnstap_pb.Message.CLIENT_RESPONSE
    wire = message.response_message if is_answer else message.query_message
    if kind != kernels.CLIENTS:
        is_client = message.type in (dnstap_pb.Message.CLIENT_QUERY, dnstap_pb.Message.CLIENT_RESPONSE)
        whole = len(message.query_address) in (4, 16) and question_end(
            np.frombuffer(wire or b"\0", np.uint8), 0, len(wire)
        )
        assert not is_client or not whole, kind
        return
    numbers, times = SCAN.exchange.numbers.tolist(), SCAN.exchange.times.tolist()
    assert frame[numbers[WIRE] : numbers[WIRE_END]] == wire
    assert bytes(SCAN.exchange.client).endswith(message.query_address)
    assert (numbers[PORT] & 0xFFFFFFFF, numbers[IDENT]) == (message.query_port, int.from_bytes(wire[:2]))
    if not math.isinf(times[AT_ASKED]):
        there = message.HasField("query_time_sec")
        assert same_time(times[AT_ASKED], message.query_time_sec, message.query_time_nsec, there)
    if is_answer and not math.isinf(times[AT_ANSWERED]):
        there = message.HasField("response_time_sec")
        assert same_time(times[AT_ANSWERED], message.response_time_sec, message.response_time_nsec, there)


@given(
    st.sampled_from([3, 5, 6, 9]),
    st.integers(0, 2**33),
    st.integers(0, 999_999_999),
    st.booleans(),
    st.sampled_from([4, 16, 5]),
    st.integers(0, 65_535),
    st.booleans(),
)
def test_frames_are_read_as_the_library_reads_them(
    kind: int, second: int, fraction: int, timed: bool, width: int, port: int, whole: bool
) -> None:
    message = dnstap_pb.Message(type=kind, query_address=bytes(range(width)), query_port=port, socket_family=1)
    message.query_message = QUERY if whole else QUERY[:20]
    message.response_message = ANSWER if whole else ANSWER[:20]
    if timed:
        message.query_time_sec, message.query_time_nsec = second, fraction
        message.response_time_sec, message.response_time_nsec = second + 1, fraction
    frame = dnstap_pb.Dnstap(type=1, identity=b"ns1", version=b"x", message=message, extra=b"y" * 40)
    check_against_the_library(frame.SerializeToString())


@given(
    st.binary(max_size=200),
    st.integers(0, 300),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=3),
)
def test_no_damage_does_anything_but_be_refused(noise: bytes, at: int, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(client_frame(6, ANSWER, T0, T0 + 1))
    for place, byte in changes:
        damaged[place % len(damaged)] = byte
    for frame in (noise, bytes(damaged), bytes(damaged[:at]), field(14, noise), bytes(damaged) + noise):
        kind_of_frame(frame)
        check_against_the_library(frame)


@given(st.binary(max_size=400), st.sampled_from([kernels.FRAME_STREAMS, kernels.POWERDNS]))
def test_no_stream_leaves_its_bytes(noise: bytes, framing: int) -> None:
    scan = kernels.new_scan(SCAN.merger)
    data = np.frombuffer(noise or b"\0", np.uint8)
    stopped = kernels.CONTROL
    while stopped == kernels.CONTROL:
        stopped = kernels.scan_frames(scan, data, len(noise), framing, 0, float(T0), 2.5)
    assert stopped in (kernels.MORE, kernels.HUGE)
    assert 0 <= scan.numbers[kernels.AT] <= len(noise)
