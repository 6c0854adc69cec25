"""One session, heard in several ways at once, gives the same incidents: a capture, dnstap, a query log, live or not.

tests/data/parity has real sessions of dns2tcp through BIND and of iodine through unbound, each recorded at the server.
"""

from __future__ import annotations

import gzip
import socket
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import unpack_from
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.core.types import Incident, QueryBatch, Severity, batch_of
from agents.detection.limits import Scale
from agents.dns.message import question_end, type_name
from agents.dns.name import labels_of
from agents.sources import open_source
from agents.sources.live.frame_protocol import STOP, control_frame
from agents.stream.record import batch_of_records
from tests.support.detecting import fresh_detector, shipped_model
from tests.support.listening import listening, wait_until
from tests.support.log_lines import ZEEK_HEAD
from tests.support.network_namespace import in_namespace
from tests.support.patience import patient
from tests.support.receiving import FrameSender, receiver_at
from tests.support.stubs import Asked, StubServer

pytestmark = pytest.mark.integration
DATA = Path(__file__).parents[1] / "data" / "parity"
SESSIONS = {"bind-dns2tcp": "dns2tcp", "unbound-iodine": "iodine"}


class Told(NamedTuple):
    """What of an incident does not depend on how it was heard, and the bytes that left."""

    client: str
    domain: str
    severity: Severity
    tool: str | None
    leaked_bytes: float


def told(batches: Iterable[QueryBatch]) -> Told:
    """The one incident of the batches."""
    detector, found = fresh_detector(shipped_model(), Scale()), dict[str, Incident]()
    for batch in batches:
        for incident in detector.detect(batch).incidents:
            found[incident.incident_id] = incident
    (one,) = found.values()
    return Told(one.client, one.domain, one.severity, one.tool, one.leaked_bytes)


def cut(records: NDArray[np.void]) -> Iterator[QueryBatch]:
    """Batches of records."""
    for at in range(0, len(records), 1024):
        yield batch_of_records(records[at : at + 1024])


def of_file(name: str) -> Told:
    return told(open_source([DATA / name]).batches(1024))


def same(one: Told, other: Told) -> None:
    assert one[:4] == other[:4]
    assert one.leaked_bytes == pytest.approx(other.leaked_bytes, rel=0.002)


@pytest.mark.parametrize("session", SESSIONS)
def test_a_capture_and_dnstap_of_a_session_tell_the_same(session: str) -> None:
    captured, tapped = of_file(f"{session}.pcap.gz"), of_file(f"{session}.fstrm.gz")
    same(captured, tapped)
    assert (captured.severity, captured.tool) == (Severity.CRITICAL, SESSIONS[session])


def test_a_query_log_of_a_session_tells_the_same_but_for_what_it_does_not_have() -> None:
    captured, logged = of_file("bind-dns2tcp.pcap.gz"), of_file("bind-dns2tcp.querylog.gz")
    assert captured[:2] == logged[:2]
    assert logged.severity == captured.severity
    assert logged.leaked_bytes == pytest.approx(captured.leaked_bytes, rel=0.05)


@pytest.mark.parametrize("session", SESSIONS)
def test_a_session_that_is_sent_to_a_live_intake_tells_the_same(session: str, tmp_path: Path) -> None:
    path = tmp_path / "tap.sock"
    data = gzip.decompress((DATA / f"{session}.fstrm.gz").read_bytes())
    begin = 8 + int.from_bytes(data[4:8])  # behind START, which the sender writes itself
    frames = data[begin:].removesuffix(control_frame(STOP))
    with receiver_at(f"dnstap+unix://{path}", state_dir=tmp_path) as heard:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        sender = FrameSender(sock)
        sock.sendall(frames)
        sender.stop()
        expected = sum(map(len, open_source([DATA / f"{session}.fstrm.gz"]).batches(1024)))
        records = heard.records(expected, 30.0)
    records = records[records["ts"].argsort(kind="stable")]  # as the stream does within a batch
    same(
        told(batch_of_records(records[at : at + 1024]) for at in range(0, len(records), 1024)),
        of_file(f"{session}.fstrm.gz"),
    )


def frames_of(pcap: bytes) -> list[bytes]:
    """The frames of a capture of Ethernet in this machine's byte order."""
    found, at = list[bytes](), 24
    while at < len(pcap):
        size = unpack_from("=I", pcap, at + 8)[0]
        found.append(pcap[at + 16 : at + 16 + size])
        at += 16 + size
    return found


def messages_of(session: str) -> tuple[list[tuple[float, bytes]], dict[bytes, deque[bytes]]]:
    """Queries of a capture with their times, and answers by their question, both in their order."""
    queries, answers = list[tuple[float, bytes]](), defaultdict[bytes, deque[bytes]](deque)
    pcap = gzip.decompress((DATA / f"{session}.pcap.gz").read_bytes())
    unit = 1e-9 if pcap[:4] == b"\x4d\x3c\xb2\xa1" else 1e-6
    for at, frame in zip(times_of(pcap, unit), frames_of(pcap), strict=True):
        message = frame[14 + 4 * (frame[14] & 0x0F) + 8 :]  # behind Ethernet, IPv4 and UDP
        if message[2] & 0x80:
            answers[asked_in(message)].append(message)
        else:
            queries.append((at, message))
    return queries, answers


def times_of(pcap: bytes, unit: float) -> Iterator[float]:
    at = 24
    while at < len(pcap):
        seconds, fraction, size = unpack_from("=III", pcap, at)
        yield seconds + fraction * unit
        at += 16 + size


def asked_in(message: bytes) -> bytes:
    return message[12 : question_end(message)]


@pytest.mark.parametrize("session", SESSIONS)
def test_a_session_that_goes_through_the_forwarder_tells_the_same(session: str) -> None:
    queries, answers = messages_of(session)

    def behaviour(asked: Asked) -> list[bytes]:
        waiting = answers[asked_in(asked.message)]
        return [asked.message[:2] + (waiting.popleft() if len(waiting) > 1 else waiting[0])[2:]] if waiting else []

    with StubServer(behaviour) as stub, listening(stub) as (listener, rows):
        with socket.socket(type=socket.SOCK_DGRAM) as asking:
            asking.connect(("127.0.0.1", listener.ports[0]))
            asking.settimeout(patient(10))
            for _, message in queries:
                asking.send(message)
                asking.recv(65_535)
        wait_until(lambda: len(rows) >= len(queries))
    rows.sort(key=lambda row: row[0])
    heard, captured = told([batch_of([(*row[:11], *row[12:15]) for row in rows])]), of_file(f"{session}.pcap.gz")
    assert heard[1:4] == captured[1:4]
    assert heard.leaked_bytes == pytest.approx(captured.leaked_bytes, rel=0.02)


def zeek_text(name: bytes) -> str:
    """A wire name as Zeek writes it: odd bytes as \\xNN, dots within labels as they are."""
    text = b".".join(labels_of(name))
    return "".join(chr(byte) if 0x20 < byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}" for byte in text)


@pytest.mark.parametrize("session", SESSIONS)
def test_a_log_as_zeek_writes_it_tells_the_same_but_for_what_it_does_not_have(session: str, tmp_path: Path) -> None:
    lines = [ZEEK_HEAD]
    for batch in open_source([DATA / f"{session}.pcap.gz"]).batches(1024):
        for row in range(len(batch)):
            qtype, rcode = int(batch.qtype[row]), int(batch.rcode[row])
            told_of = (f"{batch.ts[row]:.6f}", f"C{row}", batch.client[row], "4000", zeek_text(bytes(batch.qname[row])))
            lines.append(
                "\t".join((*told_of, str(qtype), type_name(qtype), str(rcode) if rcode >= 0 else "-", "-", "-", "-"))
            )
    (tmp_path / "dns.log").write_text("\n".join([lines[0].rstrip("\n"), *lines[1:]]) + "\n")
    logged, captured = told(open_source([tmp_path / "dns.log"]).batches(1024)), of_file(f"{session}.pcap.gz")
    assert logged[:3] == captured[:3]
    assert logged.leaked_bytes == pytest.approx(captured.leaked_bytes, rel=0.05)


@pytest.mark.parametrize("session", SESSIONS)
def test_a_session_on_an_interface_tells_the_same(session: str, tmp_path: Path) -> None:
    capture = DATA / f"{session}.pcap.gz"
    pcap = gzip.decompress(capture.read_bytes())
    assert pcap[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1")
    assert pcap[20:24] == (1).to_bytes(4, "little")
    expected = sum(map(len, open_source([capture]).batches(1024)))

    def work() -> Told:
        with receiver_at("packet://veth-b", state_dir=tmp_path) as heard:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sending:
                sending.bind(("veth-a", 0))
                for frame in frames_of(pcap):
                    sending.send(frame)
            records = heard.records(expected, 30.0)
        return told(cut(records))

    same(in_namespace(work), of_file(capture.name))
