"""Shares of the table and rates of clients: one's flood is one's own. Real sockets, and no exception for loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dns.message
import pytest
from dns.flags import TC
from dns.rcode import Rcode
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.dns import name as names
from agents.sources.listener.server import Listener
from agents.sources.listener.traffic import TrafficLimits, default_limits, domain_of
from agents.sources.listener.traffic_kernels import DISCARD, PASS, SLIP
from tests.support.listening import adds_up, listening, tcp, udp, wait_until
from tests.support.patience import patient
from tests.support.stubs import Asked, StubServer, answer_a, reply, silent

FREE: dict[str, Any] = {"inflight_client_share": 1.0, "inflight_domain_share": 1.0, "inflight_upstream_share": 1.0}


def limits(**changed: Any) -> TrafficLimits:
    return default_limits(**(FREE | {"rate_exempt": "", "client_qps_max": 0.0} | changed))


@contextmanager
def client(listener: Listener, host: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.settimeout(patient(5))
        sock.connect(("127.0.0.1", listener.ports[0]))
        yield sock


def asking(name: str, number: int = 7) -> bytes:
    return dns.message.make_query(name, "A", id=number).to_wire()


def rcode_of(sock: socket.socket, name: str) -> int:
    sock.send(asking(name))
    return dns.message.from_wire(sock.recv(4096)).rcode()


@pytest.mark.parametrize(
    ("share", "counter", "flood", "flooder"),
    [
        ("inflight_client_share", "rejected_client", "n%d.x%d.example", "127.0.1.1"),
        ("inflight_domain_share", "rejected_domain", "n%d-%d.silent.example", "127.0.1.1"),
    ],
)
@pytest.mark.usefixtures("both_ways")
def test_a_flood_holds_its_share_and_no_more(share: str, counter: str, flood: str, flooder: str) -> None:
    def behaviour(asked: Asked) -> list[bytes]:
        return answer_a(asked) if b"good" in asked.message else []

    with (
        StubServer(behaviour) as stub,
        listening(stub, inflight_max=40, timeout_s=30, limits=limits(**{share: 0.25})) as (listener, _),
        client(listener, flooder) as bad,
        client(listener, "127.0.2.1") as good,
    ):
        for number in range(100):
            bad.send(asking(flood % (number, number), number))
        wait_until(lambda: getattr(listener.counters, counter) == 90)
        assert listener.inflight == 10
        for number in range(30):
            assert rcode_of(good, f"good{number}.org") == Rcode.NOERROR
        assert listener.counters.rejected == 90
        assert {dns.message.from_wire(bad.recv(512)).rcode() for _ in range(90)} == {Rcode.SERVFAIL}


@pytest.mark.usefixtures("both_ways")
def test_a_dead_upstream_holds_its_share_and_the_zone_next_to_it_works() -> None:
    with StubServer(silent) as dead, StubServer() as live:
        zones = [("", [live.endpoint]), ("corp.example", [dead.endpoint])]
        share = limits(inflight_upstream_share=0.5)
        with (
            listening(zones, inflight_max=20, timeout_s=5, limits=share) as (listener, _),
            client(listener, "127.0.1.1") as bad,
        ):
            for number in range(50):
                bad.send(asking(f"n{number}.corp.example", number))
            wait_until(lambda: listener.counters.rejected_upstream == 40)
            for number in range(20):
                assert udp(listener, dns.message.make_query(f"n{number}.org", "A")).rcode() == Rcode.NOERROR


@pytest.mark.usefixtures("both_ways")
def test_what_was_held_is_given_back() -> None:
    def lossy(asked: Asked) -> list[bytes]:
        return [] if b"lost" in asked.message else answer_a(asked)

    shares = limits(inflight_client_share=0.1, inflight_domain_share=0.1)
    with (
        StubServer(lossy) as stub,
        listening(stub, inflight_max=100, timeout_s=0.1, limits=shares) as (listener, _),
        client(listener, "127.0.1.1") as sock,
    ):
        for _ in range(3):
            for number in range(10):
                sock.send(asking(f"lost{number}.example", number))
            assert {dns.message.from_wire(sock.recv(512)).rcode() for _ in range(10)} == {Rcode.SERVFAIL}
            wait_until(lambda: listener.inflight == 0)
        for number in range(50):
            assert rcode_of(sock, f"n{number}.example") == Rcode.NOERROR
        assert listener.counters.rejected == 0
        assert tcp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR
        assert adds_up(listener.counters)


@pytest.mark.usefixtures("both_ways")
def test_a_network_above_its_rate_is_dropped_and_slips_to_tcp() -> None:
    slow = limits(client_qps_max=20.0, rate_slip=2, rate_prefix_v4=24)
    with (
        StubServer() as stub,
        listening(stub, limits=slow) as (listener, _),
        client(listener, "127.0.1.1") as bad,
        client(listener, "127.0.1.99") as neighbour,
        client(listener, "127.0.2.1") as good,
    ):
        for number in range(200):
            (bad, neighbour)[number // 2 % 2].send(asking(f"n{number}.example", number))
        wait_until(lambda: listener.counters.received == 200)
        counters = listener.counters
        assert counters.rate_dropped + counters.rate_slipped >= 120, "the network's addresses have one rate"
        assert abs(counters.rate_dropped - counters.rate_slipped) <= 1
        assert rcode_of(good, "fine.example") == Rcode.NOERROR
        wait_until(lambda: adds_up(listener.counters))
        flags = {dns.message.from_wire(bad.recv(512)).flags & TC for _ in range(20)}
        assert TC in flags
        assert tcp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR


@pytest.mark.usefixtures("both_ways")
def test_equal_answers_errors_and_nxdomains_have_rates_of_their_own() -> None:
    def behaviour(asked: Asked) -> list[bytes]:
        return reply(asked, flags=0x8183) if b"none" in asked.message else answer_a(asked)

    rates = limits(rrl_responses_per_s=5.0, rrl_nxdomains_per_s=5.0, rrl_errors_per_s=5.0, rate_slip=0)
    with (
        StubServer(behaviour) as stub,
        listening(stub, limits=rates) as (listener, rows),
        client(listener, "127.0.1.1") as sock,
    ):
        for kind, dropped in (("same.example", 45), ("n%d.none.example", 90), ("", 135)):
            for number in range(50):
                query = asking(kind % number if "%" in kind else kind or "x", number)
                sock.send(query if kind else query[:4] + b"\0\0" + query[6:12])
            wait_until(lambda dropped=dropped: listener.counters.rrl_dropped >= dropped - 2)  # type: ignore[misc]
        for number in range(50):
            sock.send(asking(f"n{number}.example", number))
        wait_until(lambda: adds_up(listener.counters))
        assert listener.counters.rrl_dropped <= 135, "different answers are not alike"
        wait_until(lambda: len(rows) == 150)  # what is not answered is recorded all the same


@pytest.mark.usefixtures("both_ways")
def test_loopback_has_no_rates_by_default() -> None:
    mine = default_limits(**FREE, client_qps_max=1.0, rrl_responses_per_s=1.0)
    with StubServer() as stub, listening(stub, limits=mine) as (listener, _):
        for _ in range(30):
            assert udp(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.NOERROR


def test_a_rate_is_a_bucket_of_one_second_and_a_flood_that_goes_on_gets_nothing() -> None:
    rates = limits(client_qps_max=10.0, rrl_responses_per_s=10.0, rate_slip=3)
    client_bytes = bytes(10) + b"\xff\xff\x0a\0\0\1"
    assert [rates.on_query(client_bytes) for _ in range(10)] == [PASS] * 10
    over = [rates.on_query(client_bytes) for _ in range(9)]
    assert over.count(SLIP) == 3
    assert over.count(DISCARD) == 6
    answers = [rates.on_response(client_bytes, b"\1a", 1, 0) for _ in range(400)]
    assert answers[:10] == [PASS] * 10
    assert PASS not in answers[20:]
    assert rates.on_response(client_bytes, b"\1b", 1, 0) == PASS


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("a.b.example.com", "example.com"),
        ("A.Example.CO.uk", "example.co.uk"),
        ("example.com", "example.com"),
        ("www.spiegel.de", "spiegel.de"),
        ("com", "com"),
        (".", "."),
    ],
)
def test_a_domain_is_two_labels_or_three(name: str, domain: str) -> None:
    assert domain_of(names.from_text(name)) == names.from_text(domain)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=63), max_size=4))
def test_a_domain_is_the_end_of_its_name(labels: list[bytes]) -> None:
    name = b"".join(bytes([len(label)]) + label for label in labels)
    assert name.lower().endswith(domain_of(name))
    assert bool(domain_of(name)) == bool(labels)
