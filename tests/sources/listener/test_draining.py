"""What a listener that is told to stop does with the queries in flight, and with those that still come."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dns.message
import pytest
from dns.rcode import Rcode

from agents.sources.listener.cache import CacheLimits
from agents.sources.listener.server import Listener
from tests.support.listening import adds_up, listening, tcp, udp, wait_until
from tests.support.patience import patient
from tests.support.stubs import Asked, StubServer, answer_a, silent

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]

LONG_S = 60.0


class Held:
    """An upstream that answers when it may."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()

    def __call__(self, asked: Asked) -> list[bytes]:
        assert self.may_answer.wait(patient(30))
        return answer_a(asked)


@contextmanager
def asking(ask: Callable[..., Any], listener: Listener, *names: str) -> Iterator[list[dns.message.Message]]:
    """Clients that ask, each in a thread; their answers, all of them when the block is left."""
    answers: list[dns.message.Message] = []

    def one(name: str) -> None:
        answers.append(ask(listener, dns.message.make_query(name, "A")))

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    wait_until(lambda: listener.inflight == len(names))
    yield answers
    for thread in threads:
        thread.join(patient(30))


@contextmanager
def stopping(listener: Listener, drain_s: float) -> Iterator[None]:
    """Tell it to stop; the block is left when it has."""
    loop = listener._forwarder._loop
    ended = asyncio.run_coroutine_threadsafe(listener.stop(drain_s), loop)
    wait_until(lambda: listener._draining)
    yield
    ended.result(patient(30) + drain_s)


@pytest.mark.parametrize("ask", [udp, tcp])
def test_queries_in_flight_get_their_upstreams_answer(ask) -> None:  # type: ignore[no-untyped-def]
    upstream = Held()
    with StubServer(upstream) as stub, listening(stub, timeout_s=30) as (listener, rows):
        with asking(ask, listener, "a.example.com", "b.example.com") as answers:
            begun = time.monotonic()
            with stopping(listener, LONG_S):
                assert answers == []
                upstream.may_answer.set()
            assert time.monotonic() - begun < LONG_S / 2, "it ends as soon as nothing is in flight"
        assert [answer.rcode() for answer in answers] == [Rcode.NOERROR] * 2
        assert len(rows) == 2
        assert (listener.counters.answered, listener.counters.servfail, listener.inflight) == (2, 0, 0)
        assert adds_up(listener.counters)


def test_an_upstream_that_stays_silent_is_waited_for_a_bounded_time() -> None:
    with (
        StubServer(silent) as stub,
        listening(stub, timeout_s=30) as (listener, _),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(patient(5))
        client.sendto(dns.message.make_query("a.example.com", "A").to_wire(), ("127.0.0.1", listener.ports[0]))
        wait_until(lambda: listener.inflight == 1)
        begun = time.monotonic()
        with stopping(listener, 0.3):
            pass
        assert 0.3 <= time.monotonic() - begun < patient(5)
        assert client.recv(512)[3] & 0xF == Rcode.SERVFAIL


def test_new_queries_are_told_at_once_and_cached_names_are_answered() -> None:
    upstream = Held()
    with (
        StubServer() as stub,
        listening(stub, timeout_s=30, cache=CacheLimits(1 << 20)) as (listener, _),
        socket.create_connection(("127.0.0.1", listener.ports[0])) as connection,
    ):
        udp(listener, dns.message.make_query("cached.example.com", "A"))
        stub.behaviour = upstream
        asked = len(stub.asked)
        wait_until(lambda: listener.counters.tcp_clients == 1)
        with asking(udp, listener, "slow.example.com") as answers, stopping(listener, LONG_S):
            assert udp(listener, dns.message.make_query("new.example.com", "A")).rcode() == Rcode.SERVFAIL
            assert udp(listener, dns.message.make_query("cached.example.com", "A")).answer[0][0].to_text()
            new = dns.message.make_query("other.example.com", "A").to_wire()
            connection.settimeout(patient(5))
            connection.sendall(len(new).to_bytes(2) + new)
            assert connection.recv(512)[5] & 0xF == Rcode.SERVFAIL
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", listener.ports[0]), patient(5)).recv(1)
            upstream.may_answer.set()
        assert answers[0].rcode() == Rcode.NOERROR
        assert len(stub.asked) == asked + 1, "upstreams were asked nothing new"
        assert adds_up(listener.counters)
