"""UDP without kernels and with them: the same answers to the same hostile input, and every query counted once."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.message
import dns.query
import pytest
from dns.flags import TC
from dns.rcode import Rcode

from agents.core.types import Row
from agents.dns import message as wire
from agents.dns.name import wire_of
from agents.sources.listener import datapath, upstream
from agents.sources.listener.server import Listener
from agents.sources.listener.sockets import bind_pair
from agents.stream.counters import Counters
from tests.support.hostile import hostile
from tests.support.listening import adds_up, listening, ring_of, rows_of, tcp, udp, wait_until
from tests.support.patience import patient
from tests.support.stubs import Asked, StubServer, answer_a, named, reply, silent

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]


@contextmanager
def client_of(listener: Listener, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(patient(5))
        client.connect((host, listener.ports[0]))
        yield client


def exchanged(compiled: bool, messages: list[bytes]) -> tuple[list[bytes], Counters, list[Row]]:
    """What a listener of either kind answers, counts and offers."""
    replies = []
    with StubServer(named) as stub, listening(stub, compiled=compiled) as (listener, rows):
        with client_of(listener) as client:
            for number, message in enumerate(messages):
                client.send(message)
                if len(message) >= wire.HEADER_SIZE and not message[2] & 0x80:
                    replies.append(client.recv(65535))
                wait_until(lambda number=number: listener.counters.received == number + 1)  # type: ignore[misc]
        wait_until(lambda: len(rows) == listener.counters.answered)
        counters = listener.counters
    return replies, counters, [(0.0, *row[1:9], 0.0, row[10]) for row in rows]


def test_hostile_queries_get_what_the_definition_answers(both_ways: bool) -> None:
    if not both_ways:
        pytest.skip("compared with itself")
    messages = hostile(600)
    expected, found = exchanged(False, messages), exchanged(True, messages)
    assert (found[0], found[1].values(), found[2]) == (expected[0], expected[1].values(), expected[2])
    assert adds_up(found[1])
    assert min(found[1].malformed, found[1].notimp, found[1].answered) > 5


def test_each_of_many_clients_with_equal_ids_gets_its_own_answer() -> None:
    with StubServer(named) as stub, listening(stub, timeout_s=10) as (listener, rows):
        # 200 queries: as many as surely fit into the upstream's receive buffer.
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
        expected = {}
        for number, client in enumerate(clients):
            client.settimeout(patient(5))
            client.connect(("127.0.0.1", listener.ports[0]))
            for ident in range(10):
                name = f"{number:02}{ident}.example"
                expected[client, ident] = socket.inet_ntoa(b"\x0a" + name[:3].encode())
                client.send(dns.message.make_query(name, "A", id=ident).to_wire())
        found = {}
        for client in clients:
            for _ in range(10):
                answer = dns.message.from_wire(client.recv(512))
                found[client, answer.id] = answer.answer[0][0].to_text()
            client.close()
        assert found == expected
        wait_until(lambda: len(rows) == 200)
        assert adds_up(listener.counters)


def test_a_flood_from_a_false_upstream_is_dropped_and_counted() -> None:
    dice = random.Random(3)

    def flooding(asked: Asked) -> list[bytes]:
        (true,) = named(asked)
        if asked.proto == "tcp":
            return [true]
        (forged,) = answer_a(asked, "203.0.113.66")
        flood = [dice.randbytes(2) + forged[2:] for _ in range(100)]
        flood = [one for one in flood if one[:2] != true[:2]]
        flood += [dice.randbytes(dice.randrange(80)) for _ in range(50)]
        flood += [forged[:2] + dice.randbytes(2) + forged[4:20], forged[:12], forged[:2], b""]
        flood += [forged[:2] + b"\1\0" + forged[4:], forged[:4] + b"\0\2" + forged[6:]]
        flood += [forged[:13] + b"-" + forged[14:], forged[:12] + b"\xc0\x0c" + forged[14:]]
        return [*(one for one in flood if not one.startswith(true[:2] + b"\x81\x80\0\1\0\1\0\0\0\0\6")), true]

    with StubServer(flooding) as stub, listening(stub) as (listener, _), client_of(listener) as client:
        for number in range(30):
            client.send(dns.message.make_query(f"Host{number:02}.example", "A", id=number).to_wire())
            answer = dns.message.from_wire(client.recv(512))
            assert answer.answer[0][0].to_text() == "10.72.111.115"
        assert listener.counters.answered == 30
        assert listener.counters.mismatched_answers >= 30 * upstream.NEAR_MISSES_MAX


def test_a_damaged_answer_reaches_the_client_and_its_whole_records_are_known() -> None:
    def damaged(asked: Asked) -> list[bytes]:
        (answer,) = reply(asked, (5, 30, b"\1a\0"), (1, 20, b"\xc0\0\2\1"), (16, 10, b"\1x"))
        return [answer[:-1]]

    with StubServer(damaged) as stub, listening(stub) as (listener, rows), client_of(listener) as client:
        client.send(dns.message.make_query("example.com", "A", id=9).to_wire())
        assert client.recv(512)[:2] == b"\0\x09"
        wait_until(lambda: len(rows) == 1)
        assert (rows[0][6], rows[0][8], rows[0][10]) == (3, 20, "CNAME,A")


@pytest.mark.parametrize(("payload", "whole"), [(None, False), (0, False), (512, False), (700, False), (1232, True)])
def test_answers_larger_than_the_client_takes_are_truncated(payload: int | None, whole: bool) -> None:
    def large(asked: Asked) -> list[bytes]:
        (answer,) = reply(asked, *[(16, 60, b"\xc8%200d" % number) for number in range(4)])
        opt = b"\0\0\x29\4\xd0\0\0\0\0\0\0"
        return [answer[:11] + b"\1" + answer[12:] + opt]

    edns = {} if payload is None else {"use_edns": 0, "payload": payload}
    with StubServer(large) as stub, listening(stub) as (listener, rows):
        answer = udp(listener, dns.message.make_query("big.example", "TXT", **edns))  # type: ignore[arg-type]
        assert bool(answer.flags & TC) is not whole
        assert len(answer.answer) == int(whole)
        assert answer.edns == (-1 if payload is None else 0)
        wait_until(lambda: len(rows) == 1)
        assert rows[0][6] == 4
        assert rows[0][7] > 800


@pytest.mark.parametrize("size", [513, 4000, 60_000])
def test_long_queries_are_forwarded_too(size: int) -> None:
    padding = b"\xfd\xe9" + (size - 4).to_bytes(2) + bytes(size - 4)  # an option for local use
    opt = b"\0\0\x29\x10\0\0\0\0\0" + len(padding).to_bytes(2) + padding
    query = b"\0\7\1\0\0\1\0\0\0\0\0\1" + b"\7example\3com\0\0\1\0\1" + opt
    with StubServer() as stub, listening(stub, ["0.0.0.0"]) as (listener, rows):
        with client_of(listener, "127.0.0.3") as client:
            client.send(query)
            assert client.recv(512)[:4] == b"\0\7\x81\x80"
        assert stub.asked[0].message[2:] == query[2:]
        wait_until(lambda: len(rows) == 1)
        assert rows[0][4] == len(query)
        assert listener.counters.received == listener.counters.answered == 1


@pytest.mark.parametrize("host", ["127.0.0.7", "::1"])
def test_after_a_time_out_the_answer_leaves_from_the_address_that_was_asked(host: str) -> None:
    with StubServer(silent) as dead, StubServer() as live:
        zones = [("", [dead.endpoint, live.endpoint])]
        with listening(zones, ["0.0.0.0" if "." in host else "::"]) as (listener, rows):
            assert udp(listener, dns.message.make_query("example.com", "A"), host).rcode() == Rcode.NOERROR
            wait_until(lambda: len(rows) == 1)
            assert rows[0][1] == ("127.0.0.1" if "." in host else "::1")
            assert (listener.counters.timeouts, listener.counters.answered) == (1, 1)


def test_a_lossy_upstream_and_every_query_ends_once() -> None:
    def lossy(asked: Asked) -> list[bytes]:
        return [] if asked.message[13] % 3 == 0 else named(asked)

    with StubServer(lossy) as first, StubServer(lossy) as second:
        zones = [("", [first.endpoint, second.endpoint])]
        with listening(zones, timeout_s=1.0) as (listener, rows), client_of(listener) as client:
            for number in range(300):
                client.send(dns.message.make_query(f"{chr(97 + number % 26)}.{number}.x", "A", id=number).to_wire())
            answered = dict(_codes(client) for _ in range(300))
            assert len(answered) == 300
            expected = {n: Rcode.NOERROR if (97 + n % 26) % 3 else Rcode.SERVFAIL for n in range(300)}
            assert answered == expected
            wait_until(lambda: len(rows) == 300)
            wait_until(lambda: listener.inflight == 0)  # an answer is recorded before it is sent
            assert adds_up(listener.counters)
            assert listener.counters.timeouts >= 2 * listener.counters.servfail > 0


def _codes(client: socket.socket) -> tuple[int, int]:
    answer = client.recv(512)
    return int.from_bytes(answer[:2]), answer[3] & 0xF


def test_no_upstream_socket_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "USES_MAX", 1)
    fds = Path("/proc/self/fd")
    with StubServer() as stub:
        before = len(list(fds.iterdir()))
        with listening(stub) as (listener, _):
            for _ in range(200):
                udp(listener, dns.message.make_query("example.com", "A"))
            wait_until(lambda: len(list(fds.iterdir())) <= before + upstream.POOL_SIZE + 12)
        wait_until(lambda: len(list(fds.iterdir())) <= before)


def test_old_sockets_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "AGE_MAX_S", 0.0)
    with StubServer() as stub, listening(stub) as (listener, _):

        def more_ports() -> bool:
            udp(listener, dns.message.make_query("example.com", "A"))
            return len({asked.peer[1] for asked in stub.asked}) > 2 * upstream.POOL_SIZE

        wait_until(more_ports, 20)


def test_a_ring_that_fills_drops_from_who_fills_it_and_answers_go_on(both_ways: bool) -> None:
    if not both_ways:
        pytest.skip("without kernels, `offer` takes them")
    rings = ring_of(64)
    (ring,) = rings.rings
    with StubServer() as stub, listening(stub, ring=rings) as (listener, _):
        names = [wire_of([b"n%d" % number, b"example"]) for number in range(100)]
        for number in range(100):
            assert udp(listener, dns.message.make_query(f"n{number}.example", "A")).rcode() == Rcode.NOERROR
        wait_until(lambda: ring.dropped == 43)
        assert [row[2] for row in rows_of(ring.peek(100))] == names[:57], "8/9 of the ring"
        query = dns.message.make_query("quiet.example", "A")
        for _ in range(9):
            dns.query.udp(query, "127.0.0.1", port=listener.ports[0], timeout=patient(5), source="127.0.0.2")
        wait_until(lambda: (ring.waiting, ring.dropped) == (64, 45), 5)
        assert [row[1] for row in rows_of(ring.peek(100))][57:] == ["127.0.0.2"] * 7
        ring.advance_to(3)
        for _ in range(5):
            udp(listener, dns.message.make_query("late.example", "A"))
        wait_until(lambda: (ring.head, ring.waiting, ring.dropped) == (64, 61, 50))
        assert listener.counters.answered == 114


@pytest.mark.parametrize("can_cut", [True, False])
def test_each_query_of_a_burst_reaches_the_upstream_as_a_datagram_of_its_own(
    can_cut: bool, both_ways: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if both_ways:
        monkeypatch.setattr(datapath, "UDP_SEGMENT", 103 if can_cut else 9999)  # unknown, and so refused
    queries = {
        ident: dns.message.make_query(f"{'x' * (ident % 7 + 1)}{ident}.example", "A", id=ident).to_wire()
        for ident in range(100, 200)
    }
    pair = bind_pair("127.0.0.1", 0)
    with StubServer() as stub, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(patient(5))
        client.connect(pair[0].getsockname())
        for query in queries.values():  # before it listens, so that they come as one batch
            client.send(query)
        with listening(stub, pairs=[pair]) as (listener, rows):
            answers = [client.recv(65535) for _ in queries]
            wait_until(lambda: len(rows) == len(queries))
            counters = listener.counters
    assert {int.from_bytes(answer[:2]) for answer in answers} == set(queries)
    for answer in answers:
        query = queries[int.from_bytes(answer[:2])]
        assert answer[wire.HEADER_SIZE : len(query)] == query[wire.HEADER_SIZE :]
    assert (counters.timeouts, counters.servfail, len(stub.asked)) == (0, 0, len(queries))


def test_tcp_and_udp_share_the_bound_of_queries_in_flight() -> None:
    with StubServer(silent) as stub, listening(stub, inflight_max=2, timeout_s=60) as (listener, _):
        with client_of(listener) as client:
            for ident in range(2):
                client.send(dns.message.make_query("example.com", "A", id=ident).to_wire())
            wait_until(lambda: listener.inflight == 2)
            assert tcp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.SERVFAIL
        assert listener.counters.rejected == 1


def test_a_thousand_queries_in_flight_when_it_stops_are_all_told_so() -> None:
    with StubServer(silent) as stub, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        client.settimeout(patient(5))
        with listening(stub, timeout_s=60) as (listener, rows):
            client.connect(("127.0.0.1", listener.ports[0]))
            for number in range(1000):
                client.send(dns.message.make_query("example.com", "A", id=number).to_wire())
                if number % 50 == 49:
                    wait_until(lambda wanted=number + 1: listener.inflight == wanted)  # type: ignore[misc]
        told = [_codes(client) for _ in range(150)]
        assert {rcode for _, rcode in told} == {Rcode.SERVFAIL}
        assert len(rows) == listener.counters.servfail == 1000
        assert adds_up(listener.counters)
        assert listener.inflight == 0
