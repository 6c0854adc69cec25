"""Upstreams by name, over TCP, TLS and HTTPS, with real certificates; and listeners that are each other's upstream."""

from __future__ import annotations

import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.message
import pytest
from dns.rcode import Rcode
from hypothesis import given, settings

from agents.sources.listener.server import Listener
from agents.sources.listener.sockets import bind_pair
from agents.sources.listener.upstream import Outgoing, UpstreamAddress, parse_upstreams
from agents.sources.listener.upstream_watch import LoopProbes
from tests.support.listening import listening, tcp, udp, wait_until
from tests.support.mutations import Mutation, essence, mutations
from tests.support.patience import patient
from tests.support.stubs import Asked, StubServer, named

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]
NAME = "resolver.example.net"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for NAME and 127.0.0.1, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "chain.pem", folder / "key.pem"
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *subject]
    subprocess.run([*made, "-keyout", key, "-out", chain], check=True, capture_output=True)
    return chain, key


@pytest.fixture
def trusted(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The server's side; clients of this process trust the certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


class StreamServer:
    """DNS over TCP or TLS: every message of every connection goes to `named`; `connections` counts."""

    def __init__(self, context: ssl.SSLContext | None = None, per_connection: int = 1000) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._context, self._per_connection = context, per_connection
        self.asked: list[bytes] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) if self._context else plain as connection:
                for _ in range(self._per_connection):
                    size = int.from_bytes(_exactly(connection, 2))
                    message = _exactly(connection, size)
                    self.asked.append(message)
                    for answer in named(Asked(message, ("", 0), "tcp")):
                        connection.sendall(len(answer).to_bytes(2) + answer)
        except (OSError, EOFError):
            return

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise EOFError
        found += part
    return found


@contextmanager
def stream_server(context: ssl.SSLContext | None = None, per_connection: int = 1000) -> Iterator[StreamServer]:
    server = StreamServer(context, per_connection)
    yield server
    server.close()


def ask_all(listener, count: int = 10) -> None:  # type: ignore[no-untyped-def]
    for number in range(count):
        ask = (udp, tcp)[number % 2]
        answer = ask(listener, dns.message.make_query(f"{number:03}.x", "A", use_edns=0, payload=1232))
        assert answer.answer[0][0].to_text() == f"10.{48}.{48}.{48 + number}"


@pytest.mark.parametrize("per_connection", [1000, 3])
def test_tcp_upstreams_keep_their_connection_and_open_another_one(per_connection: int) -> None:
    with stream_server(per_connection=per_connection) as server:
        zones = parse_upstreams(f"tcp://127.0.0.1:{server.port}")
        with listening(zones, timeout_s=5) as (listener, rows):
            ask_all(listener)
            wait_until(lambda: len(rows) == 10)
        assert server.connections == -(-10 // per_connection)


@pytest.mark.parametrize("pin", ["", f"#{NAME}"])
def test_tls_upstreams_are_asked_with_padding(pin: str, trusted: ssl.SSLContext) -> None:
    with stream_server(trusted) as server:
        with listening(parse_upstreams(f"tls://127.0.0.1:{server.port}{pin}"), timeout_s=5) as (listener, _):
            ask_all(listener)
        assert server.connections == 1
        assert {len(message) % 128 for message in server.asked} == {0}


def test_a_certificate_for_another_name_is_refused(trusted: ssl.SSLContext) -> None:
    with stream_server(trusted) as server, StubServer() as plain:
        wrong = f"tls://127.0.0.1:{server.port}#other.example.net"
        with listening(parse_upstreams(wrong), timeout_s=5) as (listener, _):
            assert udp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.SERVFAIL
        with listening(parse_upstreams(f"{wrong},127.0.0.1:{plain.port}"), timeout_s=5) as (listener, _):
            assert udp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR
        assert server.asked == []


Seen = list[tuple[str, str, bytes]]
"""Path, host and message of each request."""


@contextmanager
def https_server(context: ssl.SSLContext, seen: Seen) -> Iterator[int]:
    """DNS over HTTPS: every message is answered by `named`; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            message = self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, self.headers["host"], message))
            (answer,) = named(Asked(message, ("", 0), "https"))
            self.send_response(200)
            self.send_header("content-type", "application/dns-message")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize("pin", ["", f"#{NAME}"])
def test_https_upstreams(pin: str, trusted: ssl.SSLContext) -> None:
    seen: Seen = []
    with https_server(trusted, seen) as port:
        zones = parse_upstreams(f"https://127.0.0.1:{port}/dns-query{pin}")
        with listening(zones, timeout_s=5) as (listener, _):
            ask_all(listener)
    assert {path for path, *_ in seen} == {"/dns-query"}
    assert {message[:2] for *_, message in seen} == {b"\0\0"}, "the id is 0, so that caches may help"


def upstream_sees(listener: Listener, asked: Callable[[], list[bytes]]) -> None:
    """Over a stream, too, what an upstream sees depends on name, type, CD and DO alone."""
    seen: dict[tuple[bool, bool], set[bytes]] = {}

    @settings(max_examples=30, deadline=None)
    @given(mutations(b"\4data\7example\3com", 16))
    def check(mutation: Mutation) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(patient(5))
            sock.connect(("127.0.0.1", listener.ports[0]))
            sock.send(mutation.message)
            assert sock.recv(65_535)[:2] == mutation.message[:2]
        kind = mutation.checking_disabled, mutation.dnssec_ok
        seen.setdefault(kind, set()).add(essence(asked()[-1]))

    check()
    assert {len(messages) for messages in seen.values()} == {1}


def test_a_normalised_query_over_tls_is_what_was_asked(trusted: ssl.SSLContext) -> None:
    with stream_server(trusted) as server:
        zones = parse_upstreams(f"tls://127.0.0.1:{server.port}")
        with listening(zones, timeout_s=5, outgoing=Outgoing(normalised=True)) as (listener, _):
            upstream_sees(listener, lambda: server.asked)
        assert {len(message) for message in server.asked} == {128}, "no length tells of what was left out"


def test_a_normalised_query_over_https_is_what_was_asked(trusted: ssl.SSLContext) -> None:
    seen: Seen = []
    with https_server(trusted, seen) as port:
        zones = parse_upstreams(f"https://127.0.0.1:{port}/dns-query")
        with listening(zones, timeout_s=5, outgoing=Outgoing(normalised=True)) as (listener, _):
            upstream_sees(listener, lambda: [message for *_, message in seen])


def test_an_upstream_by_its_name_and_one_that_no_name_leads_to() -> None:
    with StubServer() as stub:
        zones = [("", [UpstreamAddress("localhost", stub.port)]), ("x.example", [UpstreamAddress("gone.invalid", 53)])]
        with listening(zones, timeout_s=5) as (listener, _):
            for ask in (udp, tcp):
                assert ask(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR
            assert udp(listener, dns.message.make_query("a.x.example", "A")).rcode() == Rcode.SERVFAIL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1:53"),
        ("udp://[2001:db8::1]", "[2001:db8::1]:53"),
        ("dns.example.net:5353", "dns.example.net:5353"),
        ("tls://192.0.2.1#dns.example.net", "tls://192.0.2.1:853#dns.example.net"),
        ("tcp://192.0.2.1", "tcp://192.0.2.1:53"),
        ("https://dns.example.net/q?a=b", "https://dns.example.net:443/q?a=b"),
        ("https://dns.example.net", "https://dns.example.net:443/dns-query"),
    ],
)
def test_upstreams_are_written_so(text: str, expected: str) -> None:
    for zone, prefix in (("", ""), ("corp.example", "corp.example=")):
        ((found, (endpoint,)),) = parse_upstreams(prefix + text)
        assert (found, str(endpoint)) == (zone, expected)


def test_listeners_that_are_each_others_upstream_end_at_once() -> None:
    pairs = [bind_pair("127.0.0.1", 0) for _ in range(2)]
    first, second = (("127.0.0.1", int(pair[0].getsockname()[1])) for pair in pairs)
    with (
        listening([("", [second])], pairs=pairs[:1], probes=LoopProbes(), timeout_s=2) as (one, _),
        listening([("", [first])], pairs=pairs[1:], probes=LoopProbes(), timeout_s=2) as (two, _),
    ):
        wait_until(lambda: one.counters.loops + two.counters.loops > 0)
        before = one.counters.received + two.counters.received
        for number in range(10):
            answer = udp(one, dns.message.make_query(f"n{number}.example", "A"))
            assert answer.rcode() == Rcode.SERVFAIL
        assert one.counters.received + two.counters.received < before + 100
        wait_until(lambda: one.inflight == two.inflight == 0)
