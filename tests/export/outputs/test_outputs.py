"""Ways out, each over real sockets: what arrives, what is tried again, what is refused."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agents.alerting.delivery import RefusedError, RetryPolicy
from agents.alerting.grouping import Event
from agents.core.errors import NotifyError, SettingsError
from agents.export.formats import BY_NAME
from agents.export.outputs.elasticsearch import ElasticsearchOutput
from agents.export.outputs.file import FileOutput
from agents.export.outputs.splunk import SplunkOutput
from agents.export.outputs.syslog import SyslogOutput, parsed
from agents.export.outputs.webhook import KEY, SIGNATURE, TIMESTAMP, WebhookOutput, signature
from agents.export.record import Record
from tests.support.incidents import incident
from tests.support.patience import patient

pytestmark = pytest.mark.integration

FAST = RetryPolicy(attempts=3, base_s=0.01, timeout_s=5.0)
RECORD = Record(incident(), Event.NEW, 1_763_604_900.0)
SECRET = "0123456789abcdef"


@contextmanager
def collector(tls: tuple[Path, Path] | None = None) -> Iterator[tuple[int, list[bytes], threading.Event]]:
    """A syslog server: what each connection sent, until it was closed."""
    got, arrived = list[bytes](), threading.Event()
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            got.append(self.rfile.read())
            arrived.set()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def get_request(self) -> tuple[Any, Any]:
            connection, where = super().get_request()
            return (context.wrap_socket(connection, server_side=True) if context else connection), where

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that trusts nobody breaks off."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1], got, arrived
        finally:
            server.shutdown()
            thread.join()


def frames(data: bytes) -> list[bytes]:
    """Octet-counted frames (RFC 6587 section 3.4.1)."""
    found = []
    while data:
        size, _, data = data.partition(b" ")
        found.append(data[: int(size)])
        data = data[int(size) :]
    return found


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    made = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout {folder}/key -out {folder}/cert"
    subprocess.run(shlex.split(made), check=True, capture_output=True)
    return folder / "cert", folder / "key"


@pytest.mark.parametrize("form", ["rfc5424", "cef", "json"])
def test_syslog_over_tcp_counts_octets(form: str) -> None:
    with collector() as (port, got, arrived):
        asyncio.run(SyslogOutput(f"tcp://127.0.0.1:{port}", form, retry=FAST).send(RECORD))
        assert arrived.wait(patient(10))
    (one,) = frames(got[0])
    head, _, rest = one.partition(b" dns-tunnel ")
    assert head.startswith(b"<131>1 2025-11-20T")  # local0, error
    _, message_id, message = rest.split(b" ", 2)
    assert message_id == b"incident"
    expected = BY_NAME[form].render(RECORD)
    assert message.decode() == (expected if form == "rfc5424" else f"- {expected}")


def test_syslog_over_tls_asks_for_a_certificate_that_is_trusted(certificate: tuple[Path, Path]) -> None:
    with collector(certificate) as (port, got, arrived):
        asyncio.run(SyslogOutput(f"tls://localhost:{port}", "ocsf-dns", str(certificate[0]), FAST).send(RECORD))
        assert arrived.wait(patient(10))
        with pytest.raises(NotifyError, match="cannot send to syslog: self-signed certificate"):
            asyncio.run(SyslogOutput(f"tls://localhost:{port}", "cef", "", FAST).send(RECORD))
    (one,) = frames(got[0])
    assert json.loads(one.partition(b" - ")[2])["class_uid"] == 4003


def test_syslog_over_udp_is_one_datagram() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(patient(10))
        asyncio.run(SyslogOutput(f"udp://127.0.0.1:{server.getsockname()[1]}", "cef", retry=FAST).send(RECORD))
        assert server.recv(65_536).endswith(BY_NAME["cef"].render(RECORD).encode())


def test_a_collector_that_is_away_is_said_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(NotifyError, match=r"cannot send to syslog: no connection .*tried 3 times"):
            asyncio.run(SyslogOutput(f"tcp://127.0.0.1:{taken.getsockname()[1]}", "cef", retry=FAST).send(RECORD))


@pytest.mark.parametrize(
    "address", ["", "syslog.example", "http://x:1", "tcp://", "tls://h:99999", "udp://h:1/path", "tcp://h:x"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="cannot use setting EXPORT_SYSLOG"):
        SyslogOutput(address, "cef")


def test_ports_are_those_of_the_standards() -> None:
    assert [parsed(f"{one}://h")[2] for one in ("udp", "tcp", "tls")] == [514, 601, 6514]


def test_lines_are_appended_whole_also_after_one_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "incidents.ndjson"
    path.write_bytes(b'{"cut":')
    output = FileOutput(path, "ecs")
    asyncio.run(output.send(RECORD))
    path.rename(tmp_path / "rotated")
    asyncio.run(output.send(RECORD))
    assert [bool(one.strip()) for one in (tmp_path / "rotated").read_text().split("\n")] == [True, True, False]
    assert json.loads(path.read_text())["event"]["kind"] == "alert"
    with pytest.raises(NotifyError, match="cannot write"):
        asyncio.run(FileOutput(tmp_path / "nowhere" / "x", "ecs").send(RECORD))


class Receiver:
    """An HTTP server that keeps requests, and gives `answers` in turn: status and body."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, bytes]] = []


@contextmanager
def receiving() -> Iterator[tuple[str, Receiver]]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.got.append((self.path, dict(self.headers), body))
            status, answer = kept.answers.pop(0) if kept.answers else (200, b"{}")
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Tests read what they need from `got`."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", kept
        finally:
            server.shutdown()
            thread.join()


def test_a_webhook_is_signed_over_time_and_body() -> None:
    with receiving() as (url, kept):
        kept.answers = [(503, b"")]
        asyncio.run(WebhookOutput(url + "/hook", SECRET, "json", FAST).send(RECORD))
    assert len(kept.got) == 2 and kept.got[0][1][KEY] == kept.got[1][1][KEY] == RECORD.key
    path, headers, body = kept.got[1]
    assert path == "/hook" and json.loads(body)["domain"] == "evil.com"
    assert headers[SIGNATURE] == signature(SECRET, headers[TIMESTAMP], body)
    assert headers[SIGNATURE] != signature(SECRET, headers[TIMESTAMP], body + b" ")


BULK = b'{"errors":%b,"items":[{"create":{"status":%d}}]}'


def test_elasticsearch_gets_a_document_with_an_id_of_its_own() -> None:
    with receiving() as (url, kept):
        kept.answers = [(200, BULK % (b"true", 429)), (200, BULK % (b"false", 201))]
        asyncio.run(ElasticsearchOutput(url, "tunnels", "key", retry=FAST).send(RECORD))
        action, document = kept.got[1][2].splitlines()
        assert json.loads(action) == {"create": {"_index": "tunnels", "_id": RECORD.key}}
        assert json.loads(document)["event"]["id"] == RECORD.key
        assert kept.got[1][0] == "/_bulk" and kept.got[1][1]["Authorization"] == "ApiKey key"
        kept.answers = [(200, BULK % (b"true", 409))]  # a second time, after a restart
        asyncio.run(ElasticsearchOutput(url, "tunnels", retry=FAST).send(RECORD))
        kept.answers = [(200, BULK % (b"true", 400))]
        with pytest.raises(RefusedError, match="it answered 400 for the document"):
            asyncio.run(ElasticsearchOutput(url, "tunnels", retry=FAST).send(RECORD))
        kept.answers = [(200, b"<html>")]
        with pytest.raises(NotifyError, match="none of the bulk API"):
            asyncio.run(ElasticsearchOutput(url, "tunnels", retry=FAST).send(RECORD))


def test_splunk_gets_an_event_with_the_token() -> None:
    with receiving() as (url, kept):
        asyncio.run(SplunkOutput(url, "t0ken", "json", retry=FAST).send(RECORD))
        asyncio.run(SplunkOutput(url, "t0ken", "cef", retry=FAST).send(RECORD))
    (path, headers, body), (_, _, text) = kept.got
    assert path == "/services/collector/event" and headers["Authorization"] == "Splunk t0ken"
    assert json.loads(body)["event"]["incident_id"] == RECORD.incident.incident_id
    assert json.loads(text)["event"].startswith("CEF:0|")
