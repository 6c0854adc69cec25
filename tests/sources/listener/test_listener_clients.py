"""The listener and its clients: bad queries, access list, floods, addresses."""

from __future__ import annotations

import asyncio
import random
import socket

import dns.message
import dns.query
import pytest
from dns.rcode import Rcode

from agents.core.errors import AgentsError
from agents.sources.listener.server import Listener
from tests.support.listening import UNUSED, listening, ring_of, tcp, udp, wait_until
from tests.support.patience import patient
from tests.support.stubs import StubServer, silent

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]


def test_clients_outside_the_access_list_are_refused_and_never_forwarded() -> None:
    with StubServer() as stub, listening(stub, allowed_clients=["10.0.0.0/8"]) as (listener, rows):
        assert udp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.REFUSED
        with pytest.raises((EOFError, OSError)):
            tcp(listener, dns.message.make_query("example.com", "A"))
        assert (listener.counters.refused, listener.counters.tcp_refused) == (1, 1)
        assert (stub.asked, rows) == ([], [])


def exchange(listener: Listener, message: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(patient(5))
        client.sendto(message, ("127.0.0.1", listener.ports[0]))
        return client.recv(65535)


@pytest.mark.parametrize(
    ("message", "rcode"),
    [
        (b"\x12\x34" + b"\1\0" + bytes(8), Rcode.FORMERR),
        (b"\x12\x34" + b"\1\0" + b"\0\2" + bytes(6) + b"\0\0\1\0\1" * 2, Rcode.FORMERR),
        (b"\x12\x34" + b"\1\0" + b"\0\1" + bytes(6) + b"\3www", Rcode.FORMERR),
        (b"\x12\x34" + b"\1\0" + b"\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1", Rcode.FORMERR),
        (b"\x12\x34" + b"\x28\0" + b"\0\1" + bytes(6) + b"\0\0\6\0\1", Rcode.NOTIMP),
        (b"\x12\x34" + b"\1\0" + b"\0\1" + bytes(6) + b"\0\0\xfc\0\1", Rcode.NOTIMP),
    ],
)
def test_bad_queries_are_answered_with_an_error(message: bytes, rcode: int) -> None:
    with StubServer() as stub, listening(stub) as (listener, rows):
        answer = exchange(listener, message)
        assert answer[:2] == b"\x12\x34"
        assert answer[2] & 0x80
        assert answer[3] & 0xF == rcode
        assert len(answer) <= len(message)
        assert (stub.asked, rows) == ([], [])


def test_responses_and_fragments_get_no_answer() -> None:
    with StubServer() as stub, listening(stub) as (listener, _):
        query = dns.message.make_query("example.com", "A")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(patient(5))
            for message in (
                b"",
                b"\0" * 11,
                b"\0\1\x80\0\0\1" + bytes(6) + query.to_wire()[12:],
                query.to_wire(),
            ):
                client.sendto(message, ("127.0.0.1", listener.ports[0]))
            assert client.recv(65535)[:2] == query.to_wire()[:2], "the first answer is the query's"
        assert listener.counters.malformed == 3


@pytest.mark.slow
def test_ten_thousand_random_packets_and_it_still_answers() -> None:
    dice = random.Random(1)
    with StubServer() as stub, listening(stub) as (listener, _):
        valid = dns.message.make_query("example.com", "A", want_dnssec=True).to_wire()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", listener.ports[0]))
            for number in range(10_000):
                packet = bytearray(valid if number % 2 else dice.randbytes(dice.randrange(600)))
                for _ in range(dice.randrange(1, 4) if packet else 0):
                    packet[dice.randrange(len(packet))] = dice.randrange(256)
                client.send(packet[: dice.randrange(len(packet) + 1)] if number % 3 else packet)
                if number % 50 == 49:
                    wait_until(lambda wanted=number + 1: listener.counters.received >= wanted)  # type: ignore[misc]
        wait_until(lambda: listener.inflight == 0)  # the upstream, in Python, is behind
        assert udp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR
        total = listener.counters
        assert total.received == 10_001
        finished = total.malformed + total.refused + total.notimp + total.rejected + total.answered + total.servfail
        assert total.received == finished
        assert total.malformed > 5000


def test_over_inflight_max_is_servfail_at_once() -> None:
    with StubServer(silent) as stub, listening(stub, inflight_max=3, timeout_s=2) as (listener, rows):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(patient(1))
            for ident in range(4):
                query = dns.message.make_query("example.com", "A", id=ident)
                client.sendto(query.to_wire(), ("127.0.0.1", listener.ports[0]))
            answer = client.recv(512)
            assert (answer[:2], answer[3] & 0xF) == (b"\0\3", Rcode.SERVFAIL)
        assert (listener.counters.rejected, listener.inflight, rows) == (1, 3, [])


def test_two_clients_with_the_same_id_and_question_both_get_answers() -> None:
    with StubServer() as stub, listening(stub) as (listener, _):
        message = dns.message.make_query("example.com", "A", id=1).to_wire()
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for client in clients * 2:
            client.settimeout(patient(5))
            client.sendto(message, ("127.0.0.1", listener.ports[0]))
        for client in clients * 2:
            assert client.recv(512)[:2] == b"\0\1"
        for client in clients:
            client.close()


def test_ipv6_client_and_upstream() -> None:
    with StubServer(host="::1") as stub, listening(stub, ["::1"]) as (listener, rows):
        for ask in (udp, tcp):
            assert ask(listener, dns.message.make_query("example.com", "AAAA"), "::1").rcode() == Rcode.NOERROR
        wait_until(lambda: [row[1] for row in rows] == ["::1", "::1"])


def test_wildcard_answers_from_the_address_that_was_asked() -> None:
    with StubServer() as stub, listening(stub, ["0.0.0.0", "::"]) as (listener, rows):
        for host in ("127.0.0.7", "127.1.2.3"):
            assert udp(listener, dns.message.make_query("example.com", "A"), host).rcode() == Rcode.NOERROR
        query = dns.message.make_query("example.com", "A")
        answer = dns.query.udp(query, "::1", port=listener.ports[1], timeout=patient(5))
        assert answer.rcode() == Rcode.NOERROR
        wait_until(lambda: bool(rows) and rows[-1][1] == "::1")


def test_two_hosts_are_served_by_one_listener() -> None:
    with StubServer() as stub, listening(stub, ["127.0.0.1", "127.0.0.2"]) as (listener, _):
        for host, port in listener.addresses:
            answer = dns.query.udp(dns.message.make_query("example.com", "A"), host, port=port, timeout=patient(5))
            assert answer.rcode() == Rcode.NOERROR


def start(*hosts: str, port: int, upstream: tuple[str, int] = UNUSED) -> None:
    listener = Listener(
        hosts,
        port,
        [("", [upstream])],
        allowed_clients=["127.0.0.0/8"],
        timeout_s=1,
        tcp_clients_max=1,
        tcp_idle_s=1,
        inflight_max=1,
        offer=len,
        ring=ring_of(1),
    )

    async def start_and_stop() -> None:
        await listener.start()
        await listener.stop()

    asyncio.run(start_and_stop())


def test_port_in_use_is_one_line() -> None:
    with StubServer() as stub, pytest.raises(AgentsError) as caught:
        start("127.0.0.1", port=stub.port)
    assert str(caught.value) == f"cannot listen on 127.0.0.1:{stub.port}: address already in use"


def test_foreign_address_is_one_line() -> None:
    with pytest.raises(AgentsError, match=r"^cannot listen on \[2001:db8::1\]:5399: cannot assign"):
        start("2001:db8::1", port=5399)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_refuses_to_forward_to_itself(host: str) -> None:
    with StubServer() as free:
        port = free.port
    with pytest.raises(AgentsError, match=f"^cannot forward to 127.0.0.1:{port}: that is this listener itself"):
        start(host, port=port, upstream=("127.0.0.1", port))
    start("127.0.0.1", port=port)  # the failed start left no socket behind


def test_stop_answers_what_is_in_flight() -> None:
    with StubServer(silent) as stub, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(patient(5))
        with listening(stub, timeout_s=60) as (listener, rows):
            query = dns.message.make_query("example.com", "A").to_wire()
            client.sendto(query, ("127.0.0.1", listener.ports[0]))
            wait_until(lambda: listener.inflight == 1)
        assert client.recv(512)[3] & 0xF == Rcode.SERVFAIL
        assert len(rows) == 1
