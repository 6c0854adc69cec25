"""The cache in a real listener, between real sockets: what clients get, what upstreams are asked, what is recorded."""

from __future__ import annotations

import socket
import time

import dns.edns
import dns.flags
import dns.message
import pytest
from dns.rcode import Rcode

from agents.core.types import FORWARDED, FROM_CACHE, FROM_CACHE_STALE
from agents.sources.listener.cache import CacheLimits
from agents.sources.listener.cache_kernels import FAILURE_S
from agents.sources.origins import LISTENER
from tests.support.listening import UNUSED, adds_up, listening, tcp, udp, wait_until
from tests.support.stubs import Asked, StubServer, answer_a, answer_large, reply, silent

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]

CACHED = 11
"""Place of a row that says where its answer came from; after it come hash, bytes and negative TTL of the answer."""
CACHE = CacheLimits(1 << 20, prefetch_percent=0)
STALE_AT_ONCE = CACHE._replace(stale_wait_s=0.05)


def query(name: str = "www.example.com", kind: str = "A", **options: object) -> dns.message.Message:
    return dns.message.make_query(name, kind, **options)  # type: ignore[arg-type]


def brief(asked: Asked) -> list[bytes]:
    """An answer that expires after a second."""
    return answer_a(asked, ttl=1)


@pytest.mark.parametrize("first", [udp, tcp])
@pytest.mark.parametrize("second", [udp, tcp])
def test_the_second_query_is_answered_here_and_recorded_like_the_first(first, second) -> None:  # type: ignore[no-untyped-def]
    with StubServer() as stub, listening(stub, cache=CACHE) as (listener, rows):
        answer = first(listener, query("www.example.com", use_edns=0))
        wait_until(lambda: len(rows) == 1)
        question = query("WwW.Example.COM", use_edns=0)
        again = second(listener, question)
        assert (again.id, str(again.question[0].name)) == (question.id, "WwW.Example.COM.")
        assert str(again.answer[0][0]) == str(answer.answer[0][0]) and again.answer[0].ttl in (59, 60)
        wait_until(lambda: len(rows) == 2)
        assert len(stub.asked) == 1
        plain, hit = (dict(zip(("ts", "client", "qname", "qtype", "qlen"), row, strict=False)) for row in rows)
        assert [row[CACHED] for row in rows] == [FORWARDED, FROM_CACHE]
        assert (hit["qname"], plain["qname"]) == (b"\3WwW\7Example\3COM", b"\3www\7example\3com")
        assert rows[0][CACHED + 1] == rows[1][CACHED + 1] > 0
        assert rows[0][CACHED + 2 :] == rows[1][CACHED + 2 :] == (4, -1, LISTENER)
        assert [row[3:8] for row in rows] == [rows[0][3:8]] * 2 and rows[0][10] == rows[1][10] == "A"
        assert (listener.counters.cache_hits, listener.counters.cache_misses) == (1, 1)
        assert listener.counters.cache_entries == 1 and listener.counters.cache_bytes > 0
        assert adds_up(listener.counters)


def test_a_client_without_edns_gets_no_opt_and_one_with_little_room_a_truncated_answer() -> None:
    with StubServer(answer_large) as stub, listening(stub, cache=CACHE) as (listener, rows):
        whole = tcp(listener, query(kind="TXT"))
        assert len(whole.answer[0]) == 20
        cut = udp(listener, query(kind="TXT"))
        assert cut.flags & dns.flags.TC and not cut.answer and cut.edns == -1
        wait_until(lambda: len(rows) == 2)
        assert rows[1][CACHED] == FROM_CACHE and rows[1][7] == rows[0][7], "the record has the whole answer"
        assert listener.counters.cache_hits == 1


def test_without_a_cache_each_query_is_forwarded() -> None:
    with StubServer() as stub, listening(stub) as (listener, rows):
        for _ in range(3):
            udp(listener, query())
        wait_until(lambda: len(rows) == 3)
        assert len(stub.asked) == 3 and [row[CACHED] for row in rows] == [FORWARDED] * 3
        assert listener.counters.cache_misses == 0


def test_an_answer_for_one_network_is_not_shared() -> None:
    with StubServer() as stub, listening(stub, cache=CACHE) as (listener, _):
        for net in ("192.0.2.0", "198.51.100.0", "192.0.2.0"):
            udp(listener, query(use_edns=0, options=[dns.edns.ECSOption(net, 24)]))
        assert len(stub.asked) == 3 and listener.counters.cache_entries == 0


def test_a_cookie_does_not_keep_an_answer_out() -> None:
    with StubServer() as stub, listening(stub, cache=CACHE) as (listener, _):
        for cookie in (b"a" * 8, b"b" * 8):
            udp(listener, query(use_edns=0, options=[dns.edns.GenericOption(dns.edns.OptionType.make(10), cookie)]))
        assert len(stub.asked) == 1


def test_an_answer_to_another_question_is_not_kept() -> None:
    def lying_first(asked: Asked) -> list[bytes]:
        (true,) = answer_a(asked)
        (false,) = answer_a(asked, "203.0.113.66")
        return [false[:13] + b"-" + false[14:], bytes([false[0] ^ 1]) + false[1:], true]

    with StubServer(lying_first) as stub, listening(stub, cache=CACHE) as (listener, _):
        for _ in range(2):
            assert str(udp(listener, query()).answer[0][0]) == "192.0.2.1"
        assert udp(listener, query("-ww.example.com")).answer[0].name.to_text() == "-ww.example.com."
        assert len(stub.asked) == 2


def test_an_expired_answer_is_used_while_upstreams_are_silent_and_replaced_when_they_are_back() -> None:
    with StubServer(brief) as stub, listening(stub, cache=STALE_AT_ONCE) as (listener, rows):
        udp(listener, query())
        stub.behaviour = silent
        wait_until(lambda: udp(listener, query()).answer[0].ttl == 30)
        assert listener.counters.cache_stale == 1
        asked = len(stub.asked)
        assert udp(listener, query()).answer[0].ttl == 30 and tcp(listener, query()).answer[0].ttl == 30
        assert len(stub.asked) == asked, "upstreams are not asked again at once"
        assert listener.counters.cache_stale == 3
        wait_until(lambda: listener.inflight == 0)
        wait_until(lambda: [row[CACHED] for row in rows].count(FROM_CACHE_STALE) == 3)
        assert adds_up(listener.counters) and listener.counters.servfail == 0


@pytest.mark.parametrize("rcode", [Rcode.SERVFAIL, Rcode.REFUSED, Rcode.FORMERR])
def test_an_expired_answer_is_used_where_an_upstream_fails(rcode: Rcode) -> None:
    with StubServer(brief) as stub, listening(stub, cache=CACHE) as (listener, rows):
        udp(listener, query())
        stub.behaviour = lambda asked: reply(asked, flags=0x8180 | rcode)
        wait_until(lambda: udp(listener, query()).answer[0].ttl == 30)
        assert listener.counters.cache_stale == 1
        wait_until(lambda: rows[-1][CACHED] == FROM_CACHE_STALE)
        assert udp(listener, query("other.example.com")).rcode() == rcode
        wait_until(lambda: listener.inflight == 0)
        assert adds_up(listener.counters)


def test_a_late_answer_is_kept_though_the_client_got_an_expired_one() -> None:
    held: list[bool] = []

    def slow(asked: Asked) -> list[bytes]:
        wait_until(lambda: bool(held))
        return answer_a(asked, "192.0.2.2")

    with StubServer(brief) as stub, listening(stub, cache=STALE_AT_ONCE, timeout_s=5.0) as (listener, _):
        udp(listener, query())
        wait_until(lambda: not is_fresh(listener))
        stub.behaviour = slow
        assert str(udp(listener, query()).answer[0][0]) == "192.0.2.1"
        held.append(True)
        wait_until(lambda: str(udp(listener, query()).answer[0][0]) == "192.0.2.2")
        wait_until(lambda: listener.inflight == 0)
        assert adds_up(listener.counters) and listener.counters.servfail == 0


def is_fresh(listener) -> bool:  # type: ignore[no-untyped-def]
    """Whether the one answer of the cache is still valid."""
    cache = listener._cache.state
    return bool(cache.entries["expires"][cache.entries["live"] == 1].max() > time.monotonic_ns())


def test_a_popular_answer_is_asked_for_anew_before_it_expires() -> None:
    limits = CACHE._replace(prefetch_percent=90)
    with StubServer(lambda asked: answer_a(asked, ttl=5)) as stub, listening(stub, cache=limits) as (listener, rows):
        udp(listener, query())
        wait_until(lambda: bool(udp(listener, query())) and listener.counters.cache_prefetches == 1)
        wait_until(lambda: len(stub.asked) == 2 and listener.inflight == 0)
        assert udp(listener, query()).answer[0].ttl == 5, "it is a new one"
        assert listener.counters.answered == 1 and adds_up(listener.counters)
        wait_until(lambda: len(rows) == listener.counters.received)
        assert [row[CACHED] for row in rows].count(FORWARDED) == 1


def test_when_there_is_no_room_in_flight_an_expired_answer_is_better_than_none() -> None:
    with StubServer(brief) as stub, listening(stub, cache=CACHE, inflight_max=1, timeout_s=5.0) as (listener, _):
        udp(listener, query())
        wait_until(lambda: not is_fresh(listener))
        stub.behaviour = silent
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(query("silent.example.com").to_wire(), ("127.0.0.1", listener.ports[0]))
            wait_until(lambda: listener.inflight == 1)
            assert udp(listener, query()).answer[0].ttl == 30
            assert udp(listener, query("none.example.com")).rcode() == Rcode.SERVFAIL
            assert listener.counters.rejected == 1


def test_when_the_listener_stops_nothing_of_the_cache_is_left_waiting() -> None:
    with StubServer(brief) as stub, listening(stub, cache=CACHE) as (listener, _):
        udp(listener, query())
    assert listener.inflight == 0 and adds_up(listener.counters)


def dead() -> list[tuple[str, list[tuple[str, int]]]]:
    """An upstream that refuses every datagram."""
    return [("", [UNUSED])]


@pytest.mark.parametrize("ask", [udp, tcp])
def test_a_time_out_is_kept_like_a_failure_that_an_upstream_names(ask) -> None:  # type: ignore[no-untyped-def]
    with StubServer(silent) as stub, listening(stub, cache=CACHE) as (listener, rows):
        first = ask(listener, query(use_edns=0))
        asked = len(stub.asked)
        again = ask(listener, query("WWW.example.com", use_edns=0))
        assert (first.rcode(), again.rcode(), again.edns) == (Rcode.SERVFAIL, Rcode.SERVFAIL, 0)
        assert str(again.question[0].name) == "WWW.example.com."
        assert len(stub.asked) == asked, "nobody is asked again at once"
        wait_until(lambda: [(row[5], row[CACHED]) for row in rows] == [(2, FORWARDED), (2, FROM_CACHE)])
        assert udp(listener, query("other.example.com", use_edns=0)).rcode() == Rcode.SERVFAIL
        assert len(stub.asked) > asked, "of another name nothing is known"
        assert adds_up(listener.counters)


def test_an_unreachable_upstream_is_kept_as_a_failure() -> None:
    with listening(dead(), cache=CACHE) as (listener, rows):
        assert [udp(listener, query()).rcode() for _ in range(2)] == [Rcode.SERVFAIL] * 2
        wait_until(lambda: [row[CACHED] for row in rows] == [FORWARDED, FROM_CACHE])


@pytest.mark.parametrize("rcode", [Rcode.FORMERR, Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED, Rcode.NOTAUTH])
def test_whatever_an_upstream_fails_with_is_kept(rcode: Rcode) -> None:
    def failing(asked: Asked) -> list[bytes]:
        return reply(asked, flags=0x8180 | rcode)

    with StubServer(failing) as stub, listening(stub, cache=CACHE) as (listener, _):
        assert [udp(listener, query()).rcode() for _ in range(3)] == [rcode] * 3
        assert len(stub.asked) == 1


@pytest.mark.slow
def test_a_failure_is_forgotten_after_seconds() -> None:
    with StubServer(silent) as stub, listening(stub, cache=CACHE) as (listener, _):
        assert udp(listener, query()).rcode() == Rcode.SERVFAIL
        stub.behaviour = answer_a
        begun = time.monotonic()
        wait_until(lambda: udp(listener, query()).rcode() == Rcode.NOERROR, FAILURE_S + 5)
        assert time.monotonic() - begun > 1


def test_no_room_is_no_failure_of_the_name() -> None:
    with StubServer(silent) as stub, listening(stub, cache=CACHE, inflight_max=1, timeout_s=5.0) as (listener, _):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(query("silent.example.com").to_wire(), ("127.0.0.1", listener.ports[0]))
            wait_until(lambda: listener.inflight == 1)
            assert udp(listener, query()).rcode() == Rcode.SERVFAIL
        assert listener.counters.cache_entries == 0
