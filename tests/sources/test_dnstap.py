"""dnstap files: whole messages of clients; answers alone suffice, damage costs what it hits."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import MessageError
from agents.core.protocols import Source
from agents.core.types import QueryBatch
from agents.dns.message import type_number
from agents.dns.name import from_text, to_text
from agents.sources import kind_of, open_source
from agents.sources.dnstap import FRAME_MAX, fields_of, observed_in
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
    huge = (FRAME_MAX + 1).to_bytes(4)
    source, batches = read(tmp_path / "a", stream(good, whole=False) + huge + good)
    assert sum(map(len, batches)) == 1
    assert source.warnings == [f"{tmp_path / 'a'}: a frame of {FRAME_MAX + 1} bytes; what came before was used"]
    source, batches = read(tmp_path / "a", stream(good, good, whole=False)[:-5])
    assert sum(map(len, batches)) == 1
    assert source.warnings == [f"{tmp_path / 'a'}: the last frame is cut off; what came before was used"]


@given(st.dictionaries(st.integers(1, 20), st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=300))))
def test_fields_come_back_as_they_were_written(fields: dict[int, int | bytes]) -> None:
    assert fields_of(b"".join(field(number, value) for number, value in fields.items())) == fields


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 2000))
def test_no_frame_does_anything_but_be_refused(noise: bytes, at: int, flip: int) -> None:
    damaged = bytearray(client_frame(6, ANSWER, T0, T0 + 1))
    damaged[flip // 8 % len(damaged)] ^= 1 << flip % 8
    for frame in (noise, bytes(damaged), bytes(damaged[:at]), field(14, noise)):
        try:
            found = observed_in(frame)
        except (ValueError, MessageError):
            continue
        assert found is None or isinstance(found.qname, bytes)
