"""What a client gets when upstreams answer late, oddly, falsely or with a failure: real sockets on both sides."""

from __future__ import annotations

import struct
import threading
import time

import dns.edns
import dns.message
import pytest
from dns.flags import TC
from dns.rcode import Rcode

from agents.dns import message as wire
from agents.sources.listener import upstream
from tests.support.listening import listening, tcp, udp, wait_until
from tests.support.patience import patient
from tests.support.stubs import Asked, StubServer, answer_a, reply, silent

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]

OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)


def without_question(asked: Asked, rcode: int, opt: bytes = b"") -> bytes:
    return asked.message[:2] + struct.pack("!5H", 0x8180 | rcode, 0, 0, 0, int(bool(opt))) + opt


def second(asked: Asked) -> list[bytes]:
    return answer_a(asked, "192.0.2.2")


def failing(rcode: int):  # type: ignore[no-untyped-def]
    return lambda asked: reply(asked, flags=0x8180 | rcode)


def address(answer: dns.message.Message) -> str:
    return str(answer.answer[0][0])


@pytest.mark.parametrize("ask", [udp, tcp])
@pytest.mark.parametrize("rcode", [Rcode.FORMERR, Rcode.NOTIMP])
def test_an_error_without_a_question_is_the_answer(ask, rcode: Rcode) -> None:  # type: ignore[no-untyped-def]
    with StubServer(lambda asked: [without_question(asked, rcode)]) as old, listening(old) as (listener, rows):
        answer = ask(listener, dns.message.make_query("example.com", "A", use_edns=0))
        assert (answer.rcode(), str(answer.question[0].name), answer.edns) == (rcode, "example.com.", 0)
        wait_until(lambda: len(rows) == 1)
        assert (listener.counters.answered, listener.counters.timeouts) == (1, 0)


def test_badvers_without_a_question_is_the_answer() -> None:
    opt = b"\0" + struct.pack("!HHIH", 41, 0, 1 << 24, 0)
    with StubServer(lambda asked: [without_question(asked, 0, opt)]) as old, listening(old) as (listener, _):
        assert udp(listener, dns.message.make_query("example.com", "A", use_edns=0)).rcode() == Rcode.BADVERS


@pytest.mark.parametrize("rcode", [Rcode.NOERROR, Rcode.NXDOMAIN])
def test_no_other_answer_without_a_question_is_used(rcode: Rcode) -> None:
    def forged_first(asked: Asked) -> list[bytes]:
        return [without_question(asked, rcode), *answer_a(asked)]

    with StubServer(forged_first) as stub, listening(stub) as (listener, _):
        assert address(udp(listener, dns.message.make_query("example.com", "A"))) == "192.0.2.1"
        wait_until(lambda: listener.counters.mismatched_answers == 1)


def test_a_question_in_another_case_is_the_same_and_the_client_sees_its_own() -> None:
    def lower(asked: Asked) -> list[bytes]:
        (answer,) = answer_a(asked)
        end = wire.question_end(asked.message)
        return [answer[:12] + answer[12 : end - 4].lower() + answer[end - 4 :]]

    with StubServer(lower) as stub, listening(stub) as (listener, rows):
        query = dns.message.make_query("LoWeR.ExAmPlE", "A")
        answer = udp(listener, query)
        assert address(answer) == "192.0.2.1"
        assert answer.to_wire()[12:25] == query.to_wire()[12:25]
        wait_until(lambda: bool(rows) and rows[0][2] == b"\5LoWeR\7ExAmPlE")


def delayed(stub_of: list[StubServer], seconds: float):  # type: ignore[no-untyped-def]
    """Answers after so long, from the socket that was asked."""

    def behaviour(asked: Asked) -> list[bytes]:
        def later() -> None:
            for answer in answer_a(asked):
                stub_of[0]._udp.sendto(answer, asked.peer)

        threading.Timer(seconds, later).start()
        return []

    return behaviour


@pytest.mark.parametrize("several", [False, True])
def test_a_late_answer_is_used_as_long_as_the_client_waits(several: bool) -> None:
    holder: list[StubServer] = []
    with StubServer(delayed(holder, patient(0.5))) as late, StubServer(silent) as dead:
        holder.append(late)
        zones = [("", [late.endpoint, dead.endpoint] if several else [late.endpoint])]
        with listening(zones, timeout_s=0.2, client_wait_s=2.0) as (listener, rows):
            since = time.monotonic()
            assert address(udp(listener, dns.message.make_query("example.com", "A"))) == "192.0.2.1"
            assert time.monotonic() - since < patient(1.5), "it is not asked again"
            wait_until(lambda: len(rows) == 1)
            assert (listener.counters.late_answers, listener.counters.servfail) == (1, 0)
            assert listener.counters.timeouts >= 1
            wait_until(lambda: listener.inflight == 0)


@pytest.mark.parametrize("ask", [udp, tcp])
@pytest.mark.parametrize("rcode", [Rcode.SERVFAIL, Rcode.REFUSED])
def test_a_failure_goes_to_the_next_upstream(ask, rcode: Rcode) -> None:  # type: ignore[no-untyped-def]
    with StubServer(failing(rcode)) as bad, StubServer(second) as good:
        with listening([("", [bad.endpoint, good.endpoint])], timeout_s=5) as (listener, _):
            for _ in range(2):
                assert address(ask(listener, dns.message.make_query("example.com", "A"))) == "192.0.2.2"
            assert listener.counters.failed_over == len(bad.asked) == 2
        with listening([("", [bad.endpoint, good.endpoint])], retry_failed=False) as (listener, _):
            assert ask(listener, dns.message.make_query("example.com", "A")).rcode() == rcode


def test_a_failure_of_all_upstreams_is_the_answer_of_the_first() -> None:
    def explained(asked: Asked) -> list[bytes]:
        return reply(asked, (16, 0, b"\3why"), flags=0x8182)

    with (
        StubServer(explained) as one,
        StubServer(failing(Rcode.REFUSED)) as two,
        listening([("", [one.endpoint, two.endpoint])], timeout_s=5) as (listener, rows),
    ):
        answer = udp(listener, dns.message.make_query("example.com", "TXT"))
        assert (answer.rcode(), len(answer.answer)) == (Rcode.SERVFAIL, 1)
        wait_until(lambda: len(rows) == 1)
        assert (rows[0][5], listener.counters.answered) == (2, 1)


@pytest.mark.parametrize("edns", [False, True])
def test_an_opt_goes_to_those_who_sent_one_and_to_no_others(edns: bool) -> None:
    def with_opt(asked: Asked) -> list[bytes]:
        (answer,) = answer_a(asked)
        return [answer[:11] + b"\1" + answer[12:] + OPT]

    query = dns.message.make_query("example.com", "A", use_edns=0 if edns else False)
    with StubServer(with_opt) as stub, listening(stub, allowed_clients=["127.0.0.0/8"]) as (listener, _):
        for ask in (udp, tcp):
            answer = ask(listener, query)
            assert (address(answer), answer.edns) == ("192.0.2.1", 0 if edns else -1)
    zone = dns.message.make_query("example.com", "AXFR", use_edns=0 if edns else False)
    with StubServer(silent) as stub, listening([("", [stub.endpoint])], timeout_s=0.1) as (listener, _):
        for mine, rcode in ((zone, Rcode.NOTIMP), (query, Rcode.SERVFAIL)):
            answer = udp(listener, mine)
            assert (answer.rcode(), answer.edns) == (rcode, 0 if edns else -1)
    with StubServer() as stub, listening(stub, allowed_clients=["192.0.2.0/24"]) as (listener, _):
        answer = udp(listener, query)
        assert (answer.rcode(), answer.edns, len(answer.question)) == (Rcode.REFUSED, 0 if edns else -1, 1)


@pytest.mark.parametrize("ask", [udp, tcp])
def test_options_between_neighbours_stay_here_and_the_record_has_the_size_as_it_came(ask) -> None:  # type: ignore[no-untyped-def]
    make = dns.edns.OptionType.make
    mine: list[dns.edns.Option] = [dns.edns.GenericOption(make(code), b"12345678") for code in (10, 11, 12, 65001, 12)]
    query = dns.message.make_query("example.com", "A", use_edns=0, payload=1400, options=mine)
    with StubServer() as stub, listening(stub) as (listener, rows):
        assert ask(listener, query).rcode() == Rcode.NOERROR
        seen = dns.message.from_wire(stub.asked[0].message)
        assert [int(option.otype) for option in seen.options] == [65001]
        assert (seen.payload, stub.asked[0].message[12:29]) == (1400, query.to_wire()[12:29])
        wait_until(lambda: len(rows) == 1)
        assert rows[0][4] == len(query.to_wire())


def test_an_edns_version_that_nobody_knows_is_answered_here() -> None:
    with StubServer() as stub, listening(stub) as (listener, _):
        for ask in (udp, tcp):
            answer = ask(listener, dns.message.make_query("example.com", "A", use_edns=1))
            assert (answer.rcode(), answer.edns) == (Rcode.BADVERS, 0)
        assert (listener.counters.notimp, stub.asked) == (2, [])


def test_guesses_of_an_id_make_the_listener_ask_over_tcp() -> None:
    def guessed(asked: Asked) -> list[bytes]:
        (true,) = answer_a(asked)
        if asked.proto == "tcp":
            return [true]
        (forged,) = answer_a(asked, "203.0.113.66")
        right = int.from_bytes(true[:2])
        return [((right + n) % 65536).to_bytes(2) + forged[2:] for n in range(1, 3 * upstream.NEAR_MISSES_MAX)] + [
            forged
        ]

    with StubServer(guessed) as stub, listening(stub, timeout_s=5) as (listener, _):
        for number in range(5):
            assert address(udp(listener, dns.message.make_query(f"n{number}.example", "A"))) == "192.0.2.1"
        assert listener.counters.forgeries == 5
        assert listener.counters.mismatched_answers >= 5 * upstream.NEAR_MISSES_MAX
        assert [asked.proto for asked in stub.asked] == ["udp", "tcp"] * 5


def test_copies_of_an_answer_are_no_guesses() -> None:
    def copied(asked: Asked) -> list[bytes]:
        return answer_a(asked) * 4

    with StubServer(copied) as stub, listening(stub) as (listener, _):
        for _ in range(200):
            assert address(udp(listener, dns.message.make_query("example.com", "A"))) == "192.0.2.1"
        assert (listener.counters.forgeries, {asked.proto for asked in stub.asked}) == (0, {"udp"})


def test_truncation_without_tcp_is_told_to_a_udp_client_at_once() -> None:
    def behaviour(asked: Asked) -> list[bytes]:
        return reply(asked, flags=0x8380) if asked.proto == "udp" else [b"\0"]

    with (
        StubServer(behaviour) as stub,
        StubServer(second) as other,
        listening([("", [stub.endpoint, other.endpoint])], timeout_s=5) as (listener, _),
    ):
        assert udp(listener, dns.message.make_query("example.com", "A")).flags & TC
        assert address(tcp(listener, dns.message.make_query("example.com", "A"))) == "192.0.2.2"
