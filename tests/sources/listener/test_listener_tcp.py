"""The listener's TCP side: pipelining, slow, vanishing and hostile clients."""

from __future__ import annotations

import contextlib
import socket

import dns.message
import dns.query
import pytest
from dns.rcode import Rcode

from agents.dns import message as wire
from agents.sources.listener.server import Listener
from agents.sources.listener.upstream import FAILURES_BEFORE_SWITCH
from tests.support.hostile import hostile
from tests.support.listening import adds_up, listening, tcp, wait_until
from tests.support.patience import patient
from tests.support.stubs import StubServer, answer_a, answer_large, named, silent

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]


def connect(listener: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.ports[0]), timeout=patient(5))


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message


def read_answer(connection: socket.socket) -> bytes:
    size = connection.recv(2, socket.MSG_WAITALL)
    return connection.recv(int.from_bytes(size), socket.MSG_WAITALL)


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


def test_slow_and_silent_tcp_clients_are_cut_off() -> None:
    with StubServer() as stub, listening(stub, tcp_clients_max=8, tcp_idle_s=0.3) as (listener, _):
        slow = [connect(listener), connect(listener)]
        slow[0].sendall(b"\0\x20\0")
        wait_until(lambda: listener.counters.tcp_clients == 2)
        wait_until(lambda: listener.counters.tcp_clients == 0)
        assert tcp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR
        for client in slow:
            client.close()


@pytest.mark.slow
def test_tcp_client_that_does_not_read_is_cut_off() -> None:
    with StubServer(answer_large) as stub, listening(stub, tcp_idle_s=0.5) as (listener, _):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(patient(5))
        client.connect(("127.0.0.1", listener.ports[0]))
        query = framed(dns.message.make_query("big.example", "TXT").to_wire())
        with contextlib.suppress(ConnectionError, TimeoutError):
            client.sendall(query * 10_000)
        wait_until(lambda: listener.counters.received > 0 and listener.counters.tcp_clients == 0)
        client.close()


def test_clients_that_vanish_do_no_harm() -> None:
    with StubServer(silent) as stub, listening(stub, tcp_clients_max=40) as (listener, rows):
        message = dns.message.make_query("example.com", "A").to_wire()
        for _ in range(5):
            with connect(listener) as client:
                client.sendall(framed(message))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(lambda: len(rows) == 5)
        stub.behaviour = answer_a
        assert tcp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR


def test_a_message_that_is_no_query_does_not_drop_its_neighbours() -> None:
    with StubServer() as stub, listening(stub) as (listener, _), connect(listener) as client:
        queries = [dns.message.make_query(f"n{n}.example", "A", id=n).to_wire() for n in range(4)]
        answer = bytes((queries[0][0], queries[0][1], 0x81, 0x80)) + queries[0][4:]
        for query, junk in zip(queries, (b"", b"\0" * 11, answer, b"\0\1\x80"), strict=True):
            client.sendall(framed(query) + framed(junk))
        assert sorted(read_answer(client)[:2] for _ in queries) == [bytes((0, n)) for n in range(4)]
        assert listener.counters.malformed == 4


def test_a_stream_that_is_no_dns_ends_its_connection_only() -> None:
    with StubServer() as stub, listening(stub) as (listener, _):
        with connect(listener) as client, contextlib.suppress(ConnectionError):
            client.sendall(framed(b"\xff" * 65535) * 17)
            assert client.recv(1) == b""
        wait_until(lambda: listener.counters.tcp_clients == 0)
        assert tcp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR


def padded(size: int, ident: int = 7) -> bytes:
    """A query of so many bytes, made long by an EDNS option (RFC 6891 section 6.1.2, for local use)."""
    asked = ident.to_bytes(2) + b"\1\0\0\1\0\0\0\0\0\1" + b"\7example\3com\0\0\1\0\1"
    left = size - len(asked) - 11
    return asked + b"\0\0\x29\x10\0\0\0\0\0" + left.to_bytes(2) + b"\xfd\xe9" + (left - 4).to_bytes(2) + bytes(left - 4)


def test_the_longest_queries_fit_no_datagram_and_that_is_no_upstreams_fault() -> None:
    with (
        StubServer(silent) as first,
        StubServer() as second,
        listening([("", [first.endpoint, second.endpoint])]) as (listener, rows),
        connect(listener) as client,
    ):
        for number in range(FAILURES_BEFORE_SWITCH - 1):
            client.sendall(framed(padded(65_535, number)))
            assert read_answer(client)[:4] == number.to_bytes(2) + b"\x81\x82", "SERVFAIL"
        for _ in range(2):  # of one real time-out nothing follows yet
            client.sendall(framed(padded(60_000)))
            assert read_answer(client)[:4] == b"\0\7\x81\x80"
        assert (len(first.asked), len(second.asked)) == (2, 2), "the first is preferred as before"
        wait_until(lambda: len(rows) == FAILURES_BEFORE_SWITCH + 1)


def test_hostile_messages_over_tcp_do_not_harm_the_next_query() -> None:
    """A good query comes behind each on the same connection, then a part of one."""
    with StubServer(named) as stub, listening(stub) as (listener, rows):
        for number, message in enumerate(hostile(300)):
            good = dns.message.make_query(f"{number:03}.x", "A", id=number).to_wire()
            with connect(listener) as client:
                client.sendall(framed(message) + framed(good) + framed(good)[: number % 20])
                client.shutdown(socket.SHUT_WR)
                answers = list(iter(lambda client=client: read_answer(client), b""))  # type: ignore[misc]
            is_query = len(message) >= wire.HEADER_SIZE and not message[2] & 0x80
            own = [answer for answer in answers if answer[:2] == good[:2] and answer[12:].startswith(good[12:])]
            assert len(answers) == 1 + is_query
            assert [answer[-4:] for answer in own] == [b"\x0a%03d" % number]
        wait_until(lambda: listener.counters.tcp_clients == 0)
        assert adds_up(listener.counters)
        assert len(rows) == listener.counters.answered > 300


def ask_again(connection: socket.socket) -> None:
    connection.sendall(framed(dns.message.make_query("example.com", "A", id=3).to_wire()))
    assert read_answer(connection)[:2] == b"\0\3"


def test_one_address_holds_at_most_a_quarter_of_the_connections_and_the_longest_idle_makes_room() -> None:
    with StubServer() as stub, listening(stub, ["127.0.0.1"], tcp_clients_max=8) as (listener, _):
        first, second = connect(listener), connect(listener)
        ask_again(second)
        ask_again(first)
        third = connect(listener)
        ask_again(third)
        assert second.recv(1) == b"", "it was idle for longest"
        ask_again(first)
        assert (listener.counters.tcp_clients, listener.counters.tcp_evicted) == (2, 1)
        for client in (first, second, third):
            client.close()


def test_five_addresses_do_not_hold_all_connections() -> None:
    """They take turns to keep every connection in use, as the idle time would else end them."""
    with StubServer() as stub, listening(stub, ["127.0.0.1"], tcp_clients_max=8, tcp_idle_s=60) as (listener, _):
        at = ("127.0.0.1", listener.ports[0])
        held = [socket.create_connection(at, patient(5), (f"127.0.1.{number // 2 + 1}", 0)) for number in range(8)]
        for client in held:
            ask_again(client)
        for number in range(3):
            with socket.create_connection(at, patient(5), (f"127.0.2.{number + 1}", 0)) as newcomer:
                ask_again(newcomer)
            wait_until(lambda number=number: listener.counters.tcp_clients == 7)  # type: ignore[misc]
            held.append(socket.create_connection(at, patient(5), ("127.0.1.1", 0)))
            ask_again(held[-1])
        assert listener.counters.tcp_rejected == 0
        for client in held:
            client.close()
        wait_until(lambda: listener.counters.tcp_clients == 0)


def test_busy_connections_are_not_closed_for_new_ones() -> None:
    with (
        StubServer(silent) as stub,
        listening(stub, tcp_clients_max=8, timeout_s=1) as (listener, _),
        connect(listener) as first,
        connect(listener) as second,
    ):
        for number, busy in enumerate((first, second), 1):
            busy.sendall(framed(dns.message.make_query("example.com", "A", id=3).to_wire()))
            wait_until(lambda number=number: listener.inflight == number)  # type: ignore[misc]
        with connect(listener) as third:
            assert third.recv(1) == b""
        assert (listener.counters.tcp_rejected, listener.counters.tcp_evicted) == (1, 0)
        assert read_answer(first)[:2] == read_answer(second)[:2] == b"\0\3"
