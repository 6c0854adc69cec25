"""The listener and its upstreams: dnspython as client, StubServer as upstream, real sockets."""

from __future__ import annotations

import itertools
import math
import socket

import dns.edns
import dns.message
import dns.query
import pytest
from dns.flags import TC
from dns.rcode import Rcode

from agents.core.types import FORWARDED
from agents.sources.listener import upstream
from agents.sources.origins import LISTENER
from tests.support.listening import UNUSED, listening, tcp, udp, wait_until
from tests.support.stubs import Asked, StubServer, answer_a, answer_large, lying, silent

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]


@pytest.mark.parametrize("ask", [udp, tcp])
def test_answers_and_offers_a_row_with_the_answers_facts(ask) -> None:  # type: ignore[no-untyped-def]
    with StubServer() as stub, listening(stub) as (listener, rows):
        query = dns.message.make_query("wWw.Example.com", "A")
        answer = ask(listener, query)
        assert answer.answer[0][0].to_text() == "192.0.2.1"
        assert listener.counters.received == listener.counters.answered == 1
        wait_until(lambda: len(rows) == 1)
        ts, client, qname, qtype, qlen, rcode, ancount, rlen, ttl_min, rtt_ms, types, cached, *data = rows[0]
        assert (client, qname, qtype) == ("127.0.0.1", b"\3wWw\7Example\3com", 1)
        assert (rcode, ancount, ttl_min, types) == (0, 1, 60, "A")
        assert cached == FORWARDED
        assert data[0] > 0 and data[1:] == [4, -1, LISTENER]
        assert qlen == len(query.to_wire())
        assert rlen > qlen
        assert 0 < rtt_ms < 5000
        assert ts > 1.7e9


def test_a_query_is_offered_before_its_client_is_answered() -> None:
    rows: list[tuple[object, ...]] = []
    with StubServer() as stub, listening(stub, offer=rows.extend) as (listener, _):
        tcp(listener, dns.message.make_query("www.example.com", "A"))
        assert len(rows) == 1


def test_forwards_every_byte_but_the_id() -> None:
    options = [dns.edns.ECSOption("192.0.2.0"), dns.edns.GenericOption(dns.edns.OptionType.make(65001), b"abc")]
    query = dns.message.make_query("MiXed.example", "TXT", want_dnssec=True, payload=1400, options=options)
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
    monkeypatch.setattr(upstream, "USES_MAX", 2)
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
        assert listener.counters.mismatched_answers >= 20 * upstream.NEAR_MISSES_MAX
        assert listener.counters.forgeries == 20


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
