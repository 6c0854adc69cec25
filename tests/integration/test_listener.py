"""The listener over real sockets, with dnspython as client and StubServer as upstream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import socket

import dns.message
import dns.query
import pytest
from dns.flags import TC
from dns.rcode import Rcode

from agents.errors import AgentsError
from agents.sources import forwarder
from agents.sources.listener import Listener
from tests.listening import listening, wait_until
from tests.stubs import Asked, StubServer, answer_a, answer_large, lying, silent

UNUSED = ("127.0.0.1", 9)
"""Discard: nobody listens there."""


def udp(listener: Listener, query: dns.message.Message, host: str = "127.0.0.1") -> dns.message.Message:
    return dns.query.udp(query, host, port=listener.ports[0], timeout=5, ignore_unexpected=False)


def tcp(listener: Listener, query: dns.message.Message, host: str = "127.0.0.1") -> dns.message.Message:
    return dns.query.tcp(query, host, port=listener.ports[0], timeout=5)


def connect(listener: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.ports[0]), timeout=5)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message


def read_answer(connection: socket.socket) -> bytes:
    size = connection.recv(2, socket.MSG_WAITALL)
    return connection.recv(int.from_bytes(size), socket.MSG_WAITALL)


@pytest.mark.parametrize("ask", [udp, tcp])
def test_answers_and_offers_a_row_with_the_answers_facts(ask) -> None:  # type: ignore[no-untyped-def]
    with StubServer() as stub, listening(stub) as (listener, rows):
        query = dns.message.make_query("wWw.Example.com", "A")
        answer = ask(listener, query)
        assert answer.answer[0][0].to_text() == "192.0.2.1"
        assert listener.counters.received == listener.counters.answered == 1
        wait_until(lambda: len(rows) == 1)
        ts, client, qname, qtype, qlen, rcode, ancount, rlen, ttl_min, rtt_ms, types = rows[0]
        assert (client, qname, qtype) == ("127.0.0.1", b"\3wWw\7Example\3com", 1)
        assert (rcode, ancount, ttl_min, types) == (0, 1, 60, "A")
        assert qlen == len(query.to_wire())
        assert rlen > qlen
        assert 0 < rtt_ms < 5000
        assert ts > 1.7e9


def test_forwards_every_byte_but_the_id() -> None:
    query = dns.message.make_query("MiXed.example", "TXT", want_dnssec=True, payload=1400, pad=64)
    query.flags |= 0x30
    with StubServer() as stub, listening(stub) as (listener, _):
        answer = udp(listener, query)
        assert stub.asked[0].message[2:] == query.to_wire()[2:]
        assert answer.question == query.question


def test_ids_and_source_ports_are_random() -> None:
    with StubServer() as stub, listening(stub) as (listener, _):
        for _ in range(200):
            udp(listener, dns.message.make_query("example.com", "A", id=7))
        ids = [int.from_bytes(asked.message[:2]) for asked in stub.asked]
        ports = [asked.peer[1] for asked in stub.asked]
        assert len(set(ids)) > 190
        assert max(ids) - min(ids) > 50_000
        assert 20 <= len(set(ports)) <= 32
        assert max(ports) - min(ports) > 30_000
        assert sum(abs(a - b) == 1 for a, b in itertools.pairwise(ports)) < 5


def test_sockets_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "USES_MAX", 2)
    with StubServer() as stub, listening(stub) as (listener, _):
        for _ in range(300):
            assert udp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR
        assert len({asked.peer[1] for asked in stub.asked}) > 100


def test_wrong_ids_and_questions_never_reach_a_client() -> None:
    with StubServer(lying) as stub, listening(stub) as (listener, _):
        for number in range(20):
            answer = udp(listener, dns.message.make_query(f"Host{number}.example", "A"))
            assert answer.answer[0][0].to_text() == "192.0.2.1"
        assert listener.counters.answered == 20
        assert listener.counters.mismatched_answers >= 20 * 200


def test_answers_from_another_address_are_not_taken() -> None:
    def behaviour(asked: Asked) -> list[bytes]:
        (forged,) = answer_a(asked, "203.0.113.66")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
            elsewhere.sendto(forged, asked.peer)
        return answer_a(asked)

    with StubServer(behaviour) as stub, listening(stub) as (listener, _):
        assert udp(listener, dns.message.make_query("example", "A")).answer[0][0].to_text() == "192.0.2.1"


@pytest.mark.parametrize("ask", [udp, tcp])
def test_silent_upstream_then_the_next_one(ask) -> None:  # type: ignore[no-untyped-def]
    with (
        StubServer(silent) as dead,
        StubServer() as live,
        listening([("", [dead.endpoint, live.endpoint])]) as (listener, rows),
    ):
        for _ in range(5):
            assert ask(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR
        assert listener.counters.timeouts == 3, "after three time-outs the second is asked first"
        wait_until(lambda: [row[5] for row in rows] == [0] * 5)


def test_unreachable_upstream_does_not_cost_its_timeout() -> None:
    with StubServer() as live, listening([("", [UNUSED, live.endpoint])], timeout_s=30) as (listener, _):
        assert udp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR


def test_servfail_when_no_upstream_answers_and_the_row_says_so() -> None:
    with StubServer(silent) as dead, listening([("", [dead.endpoint, UNUSED])]) as (listener, rows):
        answer = udp(listener, dns.message.make_query("example.com", "A"))
        assert answer.rcode() == Rcode.SERVFAIL
        assert answer.question
        wait_until(lambda: len(rows) == 1)
        assert rows[0][5:9] == (2, 0, -1, -1)
        assert math.isnan(rows[0][9])
        assert (listener.counters.servfail, listener.counters.timeouts) == (1, 1)


def test_zones_go_to_their_own_upstreams() -> None:
    with StubServer() as default, StubServer() as corp, StubServer() as lab:
        zones = [
            ("", [default.endpoint]),
            ("corp.example", [corp.endpoint]),
            ("lab.corp.example", [lab.endpoint]),
        ]
        with listening(zones) as (listener, _):
            for name in ("notcorp.example", "x.CORP.example", "corp.example", "a.b.lab.corp.example", "."):
                udp(listener, dns.message.make_query(name, "A"))
    assert [len(stub.asked) for stub in (default, corp, lab)] == [2, 2, 1]


def test_no_upstream_for_a_name_is_servfail() -> None:
    with StubServer() as corp, listening([("corp.example", [corp.endpoint])]) as (listener, _):
        assert udp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.SERVFAIL


def test_truncated_answers_are_fetched_over_tcp() -> None:
    with StubServer(answer_large) as stub, listening(stub) as (listener, rows):
        roomy = udp(listener, dns.message.make_query("big.example", "TXT", use_edns=0, payload=8192))
        assert len(roomy.answer[0]) == 20
        assert not roomy.flags & TC
        wait_until(lambda: len(rows) == 1)
        assert rows[0][6] == 20
        small = udp(listener, dns.message.make_query("big.example", "TXT"))
        assert small.flags & TC
        assert not small.answer
        wait_until(lambda: len(rows) == 2)
        assert rows[1][6] == 20, "the row has the facts of the whole answer"
        assert not tcp(listener, dns.message.make_query("big.example", "TXT")).flags & TC
        assert [asked.proto for asked in stub.asked] == ["udp", "tcp"] * 3
        assert listener.counters.tcp_fallbacks == 3


def test_truncated_answer_without_tcp_upstream_reaches_the_udp_client() -> None:
    def behaviour(asked: Asked) -> list[bytes]:
        return answer_large(asked) if asked.proto == "udp" else [b"\0"]

    with StubServer(behaviour) as stub, listening(stub) as (listener, _):
        assert udp(listener, dns.message.make_query("big.example", "TXT")).flags & TC
        assert tcp(listener, dns.message.make_query("big.example", "TXT")).rcode() == Rcode.SERVFAIL


def test_clients_outside_the_access_list_are_refused_and_never_forwarded() -> None:
    with StubServer() as stub, listening(stub, allowed_clients=["10.0.0.0/8"]) as (listener, rows):
        assert udp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.REFUSED
        with pytest.raises((EOFError, OSError)):
            tcp(listener, dns.message.make_query("example.com", "A"))
        assert (listener.counters.refused, listener.counters.tcp_refused) == (1, 1)
        assert (stub.asked, rows) == ([], [])


def exchange(listener: Listener, message: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
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
            client.settimeout(5)
            for message in (
                b"",
                b"\0" * 11,
                b"\0\1\x80\0\0\1" + bytes(6) + query.to_wire()[12:],
                query.to_wire(),
            ):
                client.sendto(message, ("127.0.0.1", listener.ports[0]))
            assert client.recv(65535)[:2] == query.to_wire()[:2], "the first answer is the query's"
        assert listener.counters.malformed == 3


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
        assert udp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR
        wait_until(lambda: listener.inflight == 0)
        total = listener.counters
        assert total.received == 10_001
        finished = (
            total.malformed + total.refused + total.notimp + total.shed + total.answered + total.servfail
        )
        assert total.received == finished
        assert total.malformed > 5000


def test_over_inflight_max_is_servfail_at_once() -> None:
    with StubServer(silent) as stub, listening(stub, inflight_max=3, timeout_s=2) as (listener, rows):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            for ident in range(4):
                query = dns.message.make_query("example.com", "A", id=ident)
                client.sendto(query.to_wire(), ("127.0.0.1", listener.ports[0]))
            answer = client.recv(512)
            assert (answer[:2], answer[3] & 0xF) == (b"\0\3", Rcode.SERVFAIL)
        assert (listener.counters.shed, listener.inflight, rows) == (1, 3, [])


def test_two_clients_with_the_same_id_and_question_both_get_answers() -> None:
    with StubServer() as stub, listening(stub) as (listener, _):
        message = dns.message.make_query("example.com", "A", id=1).to_wire()
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for client in clients * 2:
            client.settimeout(5)
            client.sendto(message, ("127.0.0.1", listener.ports[0]))
        for client in clients * 2:
            assert client.recv(512)[:2] == b"\0\1"
        for client in clients:
            client.close()


def test_pipelined_tcp_queries_are_answered_in_any_order() -> None:
    with StubServer() as stub, listening(stub) as (listener, _), connect(listener) as client:
        queries = [dns.message.make_query(f"n{n}.example", "A", id=n).to_wire() for n in range(300)]
        client.sendall(b"".join(map(framed, queries)))
        client.shutdown(socket.SHUT_WR)
        answers = [read_answer(client) for _ in queries]
        assert sorted(int.from_bytes(answer[:2]) for answer in answers) == list(range(300))
        assert client.recv(1) == b"", "closed after the last answer"


def test_a_query_may_arrive_byte_by_byte() -> None:
    with StubServer() as stub, listening(stub) as (listener, _), connect(listener) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed(dns.message.make_query("example.com", "A", id=5).to_wire()):
            client.sendall(bytes((byte,)))
        assert read_answer(client)[:2] == b"\0\5"


def test_slow_and_silent_tcp_clients_are_cut_off_and_make_room() -> None:
    with StubServer() as stub, listening(stub, tcp_clients_max=2, tcp_idle_s=0.3) as (listener, _):
        slow = [connect(listener), connect(listener)]
        slow[0].sendall(b"\0\x20\0")
        wait_until(lambda: listener.counters.tcp_clients == 2)
        with connect(listener) as third:
            assert third.recv(1) == b""
        assert listener.counters.tcp_shed == 1
        wait_until(lambda: listener.counters.tcp_clients == 0)
        assert tcp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR
        for client in slow:
            client.close()


def test_tcp_client_that_does_not_read_is_cut_off() -> None:
    with StubServer(answer_large) as stub, listening(stub, tcp_idle_s=0.5) as (listener, _):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(5)
        client.connect(("127.0.0.1", listener.ports[0]))
        query = framed(dns.message.make_query("big.example", "TXT").to_wire())
        with contextlib.suppress(ConnectionError, TimeoutError):
            client.sendall(query * 10_000)
        wait_until(lambda: listener.counters.received > 0 and listener.counters.tcp_clients == 0)
        client.close()


def test_clients_that_vanish_do_no_harm() -> None:
    with StubServer(silent) as stub, listening(stub) as (listener, rows):
        message = dns.message.make_query("example.com", "A").to_wire()
        for _ in range(5):
            with connect(listener) as client:
                client.sendall(framed(message))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(lambda: len(rows) == 5)
        stub.behaviour = answer_a
        assert tcp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR


def test_large_garbage_over_tcp_closes_the_connection_only() -> None:
    with StubServer() as stub, listening(stub) as (listener, _):
        with connect(listener) as client:
            client.sendall(framed(b"\xff" * 65535))
            assert client.recv(1) == b""
        assert tcp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR


def test_ipv6_client_and_upstream() -> None:
    with StubServer(host="::1") as stub, listening(stub, ["::1"]) as (listener, rows):
        for ask in (udp, tcp):
            assert (
                ask(listener, dns.message.make_query("example.com", "AAAA"), "::1").rcode() == Rcode.NOERROR
            )
        wait_until(lambda: [row[1] for row in rows] == ["::1", "::1"])


def test_wildcard_answers_from_the_address_that_was_asked() -> None:
    with StubServer() as stub, listening(stub, ["0.0.0.0", "::"]) as (listener, rows):
        for host in ("127.0.0.7", "127.1.2.3"):
            assert udp(listener, dns.message.make_query("example.com", "A"), host).rcode() == Rcode.NOERROR
        query = dns.message.make_query("example.com", "A")
        answer = dns.query.udp(query, "::1", port=listener.ports[1], timeout=5)
        assert answer.rcode() == Rcode.NOERROR
        wait_until(lambda: rows[-1][1] == "::1")


def test_two_hosts_are_served_by_one_listener() -> None:
    with StubServer() as stub, listening(stub, ["127.0.0.1", "127.0.0.2"]) as (listener, _):
        for host, port in listener.addresses:
            answer = dns.query.udp(dns.message.make_query("example.com", "A"), host, port=port, timeout=5)
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
        offer=print,
    )
    asyncio.run(listener.start())


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
    with pytest.raises(
        AgentsError, match=f"^cannot forward to 127.0.0.1:{port}: that is this listener itself"
    ):
        start(host, port=port, upstream=("127.0.0.1", port))
    start("127.0.0.1", port=port)  # the failed start left no socket behind


def test_stop_answers_what_is_in_flight() -> None:
    with StubServer(silent) as stub, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        with listening(stub, timeout_s=60) as (listener, rows):
            query = dns.message.make_query("example.com", "A").to_wire()
            client.sendto(query, ("127.0.0.1", listener.ports[0]))
            wait_until(lambda: listener.inflight == 1)
        assert client.recv(512)[3] & 0xF == Rcode.SERVFAIL
        assert len(rows) == 1
