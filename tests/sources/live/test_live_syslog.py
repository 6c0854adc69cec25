"""A syslog server around query logs: datagrams, streams of both framings, TLS, and syslog-ng of this machine."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.dns.message import type_number
from agents.dns.name import from_text, to_text
from agents.sources.live import syslog_protocol
from agents.sources.live.frame_protocol import FINISH
from agents.sources.live.receiver import LiveReceiver
from agents.sources.live.sockets import open_sockets
from agents.sources.live.syslog_protocol import STREAMS_MAX, Framer, SyslogLines, read_message
from agents.sources.logs.source import LOG_LINE_MAX
from agents.stream.rings import Rings
from tests.support.frames import client_frame
from tests.support.log_lines import SAMPLES, answer_of
from tests.support.patience import patient
from tests.support.receiving import FrameSender, receiver_at, receiving_of
from tests.support.resolvers import ODD, SERVERS, ask, resolver
from tests.support.running import free_port, process, wait_for

LINE = "client @0x7f 192.0.2.7#4000 (a.example): query: a.example IN A + (::1)"


def bind_line(name: str) -> str:
    return f"client @0x7f 192.0.2.7#4000 ({name}): query: {name} IN A + (::1)"


def old(text: str, when: datetime | None = None) -> bytes:
    """A message of RFC 3164."""
    at = when or datetime.now(UTC)
    return f"<30>{at:%b} {at.day:>2} {at:%H:%M:%S} ns1 named[77]: {text}".encode()


def new(text: str, app: str = "named") -> bytes:
    """A message of RFC 5424 with structured data."""
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return f'<30>1 {at} ns1 {app} 77 - [a@1 b="x\\]y"] {text}'.encode()


TEXTS = st.lists(
    st.binary(min_size=1, max_size=40).filter(lambda one: not set(one) & set(b"\n\0\r") and one[:1].isalpha())
)


@given(
    TEXTS,
    st.lists(st.booleans(), min_size=1),
    st.lists(st.integers(1, 50), min_size=1),
    st.sampled_from([b"\n", b"\0", b"\r\n"]),
)
def test_messages_come_out_of_a_stream_however_it_is_cut(
    texts: list[bytes], counted: list[bool], cuts: list[int], end: bytes
) -> None:
    stream = b"".join(
        b"%d %s" % (len(text), text) if counted[at % len(counted)] else text + end for at, text in enumerate(texts)
    )
    framer, found, at, number = Framer(), list[bytes | None](), 0, 0
    while at < len(stream):
        size = cuts[number % len(cuts)]
        found += framer.feed(stream[at : at + size])
        at, number = at + size, number + 1
    assert found + framer.rest() == texts


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_no_bytes_keep_a_stream_from_going_on(noise: list[bytes]) -> None:
    framer = Framer()
    for part in noise:
        for message in framer.feed(part):
            assert message is None or len(message) <= LOG_LINE_MAX
    assert len(framer._rest) <= sum(map(len, noise))


def test_a_message_that_is_too_long_costs_itself() -> None:
    framer = Framer()
    assert framer.feed(b"x" * (LOG_LINE_MAX + 10)) == []
    assert framer.feed(b"y" * 10 + b"\nnext\n") == [None, b"next"]
    assert len(framer._rest) == 0
    assert Framer().feed(b"99999999 abc\nnext\n") == [b"99999999 abc", b"next"]


@given(st.integers(LOG_LINE_MAX + 1, LOG_LINE_MAX + 9), st.lists(st.integers(1, 100_000), min_size=1, max_size=5))
def test_a_counted_message_that_is_too_long_is_skipped_by_its_count(size: int, cuts: list[int]) -> None:
    texts = (b"x\n" * (size // 2 - 3) + b"y" * (size % 2), b"z" * (size - 6))
    stream = b"".join(b"%d <30>1 %s3 %s" % (size, text, end) for text, end in zip(texts, (b"one", b"two"), strict=True))
    framer, found, at, number = Framer(), list[bytes | None](), 0, 0
    while at < len(stream):
        cut = cuts[number % len(cuts)] + 1000
        found += framer.feed(stream[at : at + cut])
        at, number = at + cut, number + 1
    assert found == [None, b"one", None, b"two"]
    assert framer.rest() == []


def test_a_count_without_bounds_ends_the_stream_and_keeps_what_came_before() -> None:
    framer = Framer()
    assert framer.feed(b"3 one12345678901 <30>1 x3 two") == [b"one", None]
    assert framer.is_broken
    assert framer.rest() == []


@given(st.binary(max_size=200))
def test_any_message_has_a_text(noise: bytes) -> None:
    found = read_message(noise)
    assert noise.endswith(found.text)


def test_frames_are_taken_off() -> None:
    for made in (old(LINE), new(LINE)):
        assert read_message(made) == ((b"ns1", b"named"), LINE.encode())
    assert read_message(LINE.encode()) == ((b"", b""), LINE.encode())


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), max_size=30))
def test_programs_are_told_apart_and_their_queries_counted_once(programs: list[str]) -> None:
    lines = SyslogLines("auto", {})
    for number, program in enumerate(programs):
        lines.feed("192.0.2.1", new(bind_line(f"n{number}.example"), program), float(number))
    batches = lines.taken()
    assert sorted(to_text(name) for batch in batches for name in batch.qname) == sorted(
        f"n{number}.example" for number in range(len(programs))
    )
    assert lines.kinds == (["bind"] if programs else [])


def test_writers_without_end_are_forgotten_and_other_programs_passed_over() -> None:
    lines, found = SyslogLines("auto", {}), 0
    for number in range(STREAMS_MAX + 50):
        lines.feed(f"192.0.2.{number}", old(LINE), 0.0)
        lines.feed("192.0.2.1", new("session opened for user root", f"sshd{number}"), 0.0)
    found = sum(map(len, lines.taken()))
    assert found == STREAMS_MAX + 50
    assert lines.passed_over == STREAMS_MAX + 50
    assert lines.malformed == 0


def test_json_within_syslog_is_read_without_its_frame() -> None:
    lines = SyslogLines("auto", {})
    for line in SAMPLES["suricata"].splitlines():
        lines.feed("192.0.2.1", new(line.decode(), "suricata"), 0.0)
    assert lines.kinds == ["suricata"]
    assert sum(map(len, lines.rest())) > 0


@pytest.mark.integration
def test_datagrams_and_both_framings_of_streams_are_heard(tmp_path: Path) -> None:
    port = free_port()
    names = [f"syslog+{one}://127.0.0.1:{port}" for one in ("udp", "tcp")]
    with receiver_at(*names, state_dir=tmp_path) as heard:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(old(bind_line("udp.example")), ("127.0.0.1", port))
        with socket.create_connection(("127.0.0.1", port)) as stream:
            for name in ("one.example", "two.example"):
                made = new(bind_line(name))
                stream.sendall(b"%d %s" % (len(made), made))
        with socket.create_connection(("127.0.0.1", port)) as stream:
            stream.sendall(old(bind_line("lines.example")) + b"\n" + old(bind_line("rest.example")))
        batch = heard.batch(5)
    assert sorted(map(to_text, batch.qname)) == [
        "lines.example", "one.example", "rest.example", "two.example", "udp.example",
    ]  # fmt: skip
    assert abs(batch.ts - time.time()).max() < 60


@pytest.mark.integration
def test_what_is_not_taken_is_counted_and_said(tmp_path: Path) -> None:
    port = free_port()
    address, said = f"syslog+tcp://127.0.0.1:{port}", f"syslog+udp://127.0.0.1:{port}"
    with receiver_at(address, said, state_dir=tmp_path, receive_allowed="127.0.0.1/32") as heard:
        with socket.create_connection(("127.0.0.1", port)) as stream:
            stream.sendall(new("session opened", "sshd") + b"\n" + b"99999999999 <30>1 x")
            stream.settimeout(patient(10.0))
            assert not stream.recv(1), "it is ended"
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.2", 0))
            sock.sendto(old(LINE), ("127.0.0.1", port))
        wait_for(lambda: heard.told(said).get("refused") == 1, "a stranger's datagram is counted")
        wait_for(lambda: heard.told(address).get("refused") == 1, "the broken stream is counted")
        assert (heard.told(address)["passed_over"], heard.told(address)["malformed"]) == (1, 1)


@pytest.mark.integration
def test_a_sender_that_says_nothing_is_ended_and_one_address_has_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syslog_protocol, "FIRST_DATA_S", 1.0)
    port = free_port()
    with receiver_at(f"syslog+tcp://127.0.0.1:{port}", state_dir=tmp_path, receive_connections_max=8):
        kept = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        for sock in kept[:2]:
            sock.sendall(old(LINE) + b"\n")
        fifth = socket.create_connection(("127.0.0.1", port))
        fifth.settimeout(patient(10.0))
        assert not fifth.recv(1), "it is more than a share"
        with socket.socket() as other:
            other.bind(("127.0.0.2", 0))
            other.connect(("127.0.0.1", port))
            other.settimeout(patient(10.0))
            other.sendall(old(LINE) + b"\n")
            for sock in kept[2:]:
                sock.settimeout(patient(10.0))
                assert not sock.recv(1), "it sent nothing"
            for sock in (*kept[:2], other):
                sock.setblocking(False)
                with pytest.raises(BlockingIOError):
                    sock.recv(1)
        for sock in (*kept, fifth):
            sock.close()


@pytest.mark.integration
def test_datagrams_that_found_no_room_are_counted_once_over_a_restart(tmp_path: Path) -> None:
    address = f"syslog+udp://127.0.0.1:{(port := free_port())}"
    receiving = receiving_of([address], tmp_path)
    (one,) = open_sockets(receiving.addresses, receiving.values, receiving.ports)
    assert one.sock is not None
    one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for _ in range(2000):
            sock.sendto(bytes(1000), ("127.0.0.1", port))

    async def hear() -> int:
        ring = Rings(memoryview(bytearray(Rings.size_of(1, 1 << 14))), 1 << 14)
        stop = asyncio.Event()
        await LiveReceiver(receiving, [one], ring).run(stop, stop.set, lambda: None)
        return int(json.loads(receiving.note.read())[address]["dropped"])

    first = asyncio.run(hear())
    assert 0 < first < 2000
    assert asyncio.run(hear()) == first
    one.end()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    subprocess.run(
        [*"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split(),
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(path) + ".crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + Path(str(path) + ".crt").read_text())
    return path


@pytest.mark.integration
def test_senders_over_tls_need_a_certificate_where_that_is_set(tmp_path: Path, certificate: Path) -> None:
    port = free_port()
    own = ssl.create_default_context(cafile=str(certificate))
    made = new(bind_line("tls.example"))
    tls: dict[str, Any] = {"receive_tls_certificate": str(certificate)}
    with receiver_at(f"syslog+tls://127.0.0.1:{port}", state_dir=tmp_path, **tls) as heard:
        plain = socket.create_connection(("127.0.0.1", port))
        plain.sendall(made + b"\n" + bytes(200))
        with own.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost") as stream:
            stream.sendall(b"%d %s" % (len(made), made))
            assert [to_text(name) for name in heard.batch(1).qname] == ["tls.example"]
    tls["receive_tls_client_ca"] = str(certificate)
    with receiver_at(f"syslog+tls://127.0.0.1:{port}", state_dir=tmp_path, **tls) as heard:
        stranger = own.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
        stranger.settimeout(patient(10.0))
        with pytest.raises(OSError, match=r"certificate required|reset|EOF"):
            stranger.sendall(made + b"\n")
            if not stranger.recv(1):
                raise OSError("EOF")
        own.load_cert_chain(certificate)
        with own.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost") as stream:
            stream.sendall(made + b"\n")
            assert len(heard.batch(1)) == 1


@pytest.mark.integration
def test_dnstap_over_tls_is_heard(tmp_path: Path, certificate: Path) -> None:
    port = free_port()
    own = ssl.create_default_context(cafile=str(certificate))
    address = f"dnstap+tls://127.0.0.1:{port}"
    with receiver_at(address, state_dir=tmp_path, receive_tls_certificate=str(certificate)) as heard:
        sock = own.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
        sender = FrameSender(sock)
        sender.send(client_frame(6, answer_of("tls.example", "A"), None, time.time()))
        assert sender.stop() == FINISH.to_bytes(4)
        assert [to_text(name) for name in heard.batch(1).qname] == ["tls.example"]


@contextmanager
def syslog_ng(folder: Path, log: Path, target: str) -> Iterator[None]:
    """syslog-ng that forwards the lines of a file."""
    if shutil.which("syslog-ng") is None:
        pytest.skip("syslog-ng is not installed")
    config = folder / "syslog-ng.conf"
    config.write_text(
        f"""@version: 3.38
        source s {{ file("{log}" follow-freq(1) flags(no-parse) program-override("named")); }};
        destination d {{ {target} }};
        log {{ source(s); destination(d); }};\n"""
    )
    command = ["syslog-ng", "-F", "--no-caps", "-f", str(config), "-R", str(folder / "persist"), "-c",
               str(folder / "ng.ctl"), "--pidfile", str(folder / "ng.pid")]  # fmt: skip
    with process(command, folder / "ng.log"):
        yield


FORWARDS = {
    "octet counting": ("tcp", 'syslog("127.0.0.1" transport("tcp") port({port}));'),
    "RFC 3164 lines": ("tcp", 'network("127.0.0.1" transport("tcp") port({port}));'),
    "datagrams": ("udp", 'syslog("127.0.0.1" transport("udp") port({port}));'),
}


@pytest.mark.integration
@pytest.mark.parametrize("way", FORWARDS)
def test_what_syslog_ng_forwards_of_binds_log_is_what_bind_was_asked(way: str, tmp_path: Path) -> None:
    transport, target = FORWARDS[way]
    asked: Sequence[tuple[str, str]] = ODD
    port = free_port()
    with (
        receiver_at(f"syslog+{transport}://127.0.0.1:{port}", state_dir=tmp_path) as heard,
        resolver(SERVERS["bind"], tmp_path) as (dns, log),
    ):
        ask(dns, asked)
        with syslog_ng(tmp_path, log, target.format(port=port)):
            batch = heard.batch(len(asked), 40.0)
    found = sorted(zip(batch.qname, batch.qtype.tolist(), strict=True))
    assert found == sorted((from_text(qname), type_number(qtype)) for qname, qtype in asked)
