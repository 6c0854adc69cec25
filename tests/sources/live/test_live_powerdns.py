"""PowerDNS' protobuf: messages as dnsmessage.proto has them, and the recursor of this machine."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import AgentsError
from agents.dns.message import type_number
from agents.dns.name import from_text, to_text
from agents.sources.dnstap import dnstap_kernels as kernels
from agents.sources.dnstap.merging_kernels import AT_ANSWERED, AT_ASKED, NAME_END, SIZE, new_merger
from tests.support.frames import field
from tests.support.log_lines import T0
from tests.support.receiving import receiver_at
from tests.support.resolvers import HOST, ODD, ask, resolver
from tests.support.running import free_port

SCAN = kernels.new_scan(new_merger((3, 5)))
ROOM = np.zeros(400, np.uint8)


def made(kind: int, name: str = "a.example.", rcode: int = 0, asked: int = T0, **more: bytes) -> bytes:
    """A PBDNSMessage. kind: 1 = DNSQueryType, 2 = DNSResponseType."""
    found = field(1, kind) + field(6, b"\xc0\0\2\7") + field(8, 40) + field(9, T0) + field(10, 250_000) + field(11, 77)
    found += field(12, field(1, name.encode()) + field(2, 16) + field(3, 1)) + field(20, 4000)
    record = field(1, b"a.example.") + field(2, 1) + field(3, 1) + field(4, 60) + field(5, b"\xc0\0\2\1")
    if kind == 2:
        found += field(13, field(1, rcode) + field(2, record) * 2 + field(5, asked) + field(6, 200_000))
    return found + b"".join(more.values())


def read(message: bytes) -> int:
    return int(kernels.read_powerdns(SCAN, np.frombuffer(message or b"\0", np.uint8), 0, len(message)))


def test_a_query_and_its_answer_are_read() -> None:
    assert read(made(1)) == kernels.CLIENTS
    numbers, times = SCAN.exchange.numbers, SCAN.exchange.times
    assert bytes(SCAN.name[: numbers[NAME_END]]) == from_text("a.example")
    assert (times[AT_ASKED], numbers[SIZE]) == (T0 + 0.25, 40)
    assert read(made(2, asked=T0)) == kernels.CLIENTS
    assert times[AT_ASKED] == pytest.approx(T0 + 0.2)
    assert times[AT_ANSWERED] == T0 + 0.25


def test_what_is_no_message_of_a_client_is_told() -> None:
    assert read(made(3)) == kernels.OTHER
    assert read(field(1, 1) + field(12, field(1, b"a."))) == kernels.NO_CLIENT
    assert read(made(1, more=field(6, b"\1\2\3"))) == kernels.BAD_ADDRESS
    for name in ("a..b.", "x" * 64 + ".", ".".join(["x" * 63] * 5), "\\", "\\25", "\\999.", ""):
        assert read(made(1, name)) == kernels.BAD_QUESTION, name
    assert read(made(1)[:-3] + b"\xff\xff\xff") == kernels.BAD_FIELDS


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=63), max_size=4))
def test_names_come_back_from_their_text(labels: list[bytes]) -> None:
    wire = b"".join(len(label).to_bytes(1) + label for label in labels)
    if len(wire) > 254:
        return
    for text in (to_text(wire) + "." if labels else ".", to_text(wire) if labels else "."):
        data = np.frombuffer(text.encode(), np.uint8)
        size = kernels.wire_name(data, 0, len(data), ROOM)
        assert bytes(ROOM[:size]) == wire


@settings(deadline=None)
@given(st.text(max_size=300))
def test_no_text_is_read_otherwise_than_by_the_reader_of_names(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    size = kernels.wire_name(np.frombuffer(data or b"\0", np.uint8), 0, len(data), ROOM)
    if text.isascii() and text.isprintable() and " " not in text:
        try:
            wanted = from_text(text) if text else None
        except AgentsError:
            wanted = None
        assert (bytes(ROOM[:size]) if size >= 0 else None) == wanted


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=3))
def test_no_damage_does_anything_but_be_refused(noise: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(made(2))
    for place, byte in changes:
        damaged[place % len(damaged)] = byte
    for message in (noise, bytes(damaged), bytes(damaged) + noise):
        if read(message) == kernels.CLIENTS:
            assert 0 <= SCAN.exchange.numbers[NAME_END] <= 254


def recursor(folder: Path, port: int, log: Path) -> list[str]:
    """PowerDNS Recursor with a zone of its own, that sends protobuf to the port in `target`."""
    (folder / "zone").write_text("$ORIGIN example.\n@ 60 SOA a b 1 2 3 4 5\n@ 60 NS a\n* 60 A 192.0.2.9\n")
    target = (folder / "target").read_text()
    (folder / "rec.lua").write_text(f'protobufServer("{HOST}:{target}", {{logQueries=true, logResponses=true}})\n')
    lines = {
        "local-address": HOST, "local-port": port, "socket-dir": folder, "lua-config-file": folder / "rec.lua",
        "auth-zones": f"example={folder / 'zone'}", "security-poll-suffix": "", "hint-file": "no", "dnssec": "off",
        "disable-syslog": "yes", "daemon": "no", "max-cache-entries": 1000,
    }  # fmt: skip
    (folder / "recursor.conf").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    return ["pdns_recursor", f"--config-dir={folder}"]


@pytest.mark.integration
def test_what_this_machines_recursor_sends_is_what_it_was_asked(tmp_path: Path) -> None:
    target = free_port()
    (tmp_path / "target").write_text(str(target))
    asked = [(name, kind) for name, kind in ODD if name.endswith(".example")]
    began = time.time()
    with (
        receiver_at(f"powerdns+tcp://{HOST}:{target}", state_dir=tmp_path) as heard,
        resolver(recursor, tmp_path) as (port, _),
    ):
        ask(port, asked)
        batch = heard.batch(len(asked), 30.0)
    found = sorted(zip(batch.qname, batch.qtype.tolist(), strict=True))
    assert found == sorted((from_text(qname), type_number(qtype)) for qname, qtype in asked)
    assert set(batch.rcode.tolist()) == {0}
    assert (batch.rlen > 0).all() and (batch.ancount == -1).all() and (batch.ans_bytes == -1).all()
    assert "A" in set(batch.ans_types)
    assert began - 0.1 <= batch.ts.min() <= batch.ts.max() <= time.time()


@pytest.mark.integration
def test_frames_come_in_any_pieces(tmp_path: Path) -> None:
    port = free_port()
    with (
        receiver_at(f"powerdns+tcp://{HOST}:{port}", state_dir=tmp_path) as heard,
        socket.create_connection((HOST, port)) as sock,
    ):
        for message in (made(1), made(2), made(1, "b.example."), b"\xff" * 9):
            framed = len(message).to_bytes(2) + message
            for at in range(0, len(framed), 7):
                sock.sendall(framed[at : at + 7])
        batch = heard.batch(2)
    assert sorted(map(to_text, batch.qname)) == ["a.example", "b.example"]
