"""What an upstream sees of a query: what was asked, and nothing else that the client chose."""

from __future__ import annotations

import socket
import struct
from collections import defaultdict
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rdataclass
import pytest
from dns.rcode import Rcode
from hypothesis import HealthCheck, given, settings

from agents.dns import message as wire
from agents.sources.listener.cache import CacheLimits
from agents.sources.listener.upstream import Outgoing
from tests.support.listening import listening, tcp, udp, wait_until
from tests.support.mutations import Mutation, essence, mutations
from tests.support.patience import patient
from tests.support.stubs import Asked, StubServer, answer_a, answer_large, reply

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]

NAME = b"\4data\7example\3com"
NORMALISED = Outgoing(normalised=True)
EVERY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def send_udp(port: int, message: bytes) -> bytes:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(patient(5))
        sock.connect(("127.0.0.1", port))
        sock.send(message)
        return sock.recv(65535)


def send_tcp(port: int, message: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=patient(5)) as sock:
        sock.sendall(len(message).to_bytes(2) + message)
        return sock.recv(65535)[2:]


def question_of(message: bytes) -> bytes:
    return message[wire.HEADER_SIZE : wire.question_end(message)]


@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize("send", [send_udp, send_tcp])
def test_an_upstream_sees_name_type_cd_and_do_alone(send, cache_mb: int) -> None:  # type: ignore[no-untyped-def]
    seen: defaultdict[tuple[bool, bool], set[bytes]] = defaultdict(set)
    with StubServer() as stub, listening(stub, outgoing=NORMALISED, cache=CacheLimits(cache_mb << 20)) as (one, _):

        @EVERY
        @given(mutations(NAME, 16))
        def check(mutation: Mutation) -> None:
            answer = send(one.ports[0], mutation.message)
            assert answer[:2] == mutation.message[:2]
            assert question_of(answer) == question_of(mutation.message)
            assert answer[2] & 1 == mutation.message[2] & 1, "RD is the client's"
            for asked in stub.asked:
                seen[mutation.checking_disabled, mutation.dnssec_ok].add(essence(asked.message))
            stub.asked.clear()

        check()
    assert {len(messages) for messages in seen.values()} == {1}
    (plain,) = seen[False, False]
    assert plain[:2] == b"\1\x20", "RD and AD, whatever was asked"
    assert plain.endswith(NAME + b"\0\0\x10\0\1" + b"\0\0\x29\x04\xd0" + bytes(6)), "an OPT of our own"


def test_the_case_of_names_is_ours_and_the_client_sees_its_own() -> None:
    with StubServer() as stub, listening(stub, outgoing=NORMALISED) as (listener, rows):
        for _ in range(40):
            query = dns.message.make_query("aBcDeFgHiJkLmNoPqRsTuVwXyZ.example", "A")
            assert udp(listener, query).question == query.question
            assert udp(listener, query).to_wire()[12:40] == query.to_wire()[12:40]
        names = {question_of(asked.message) for asked in stub.asked}
        wait_until(lambda: len(rows) == 80)
        assert {row[2] for row in rows} == {b"\x1aaBcDeFgHiJkLmNoPqRsTuVwXyZ\7example"}
    assert len(names) == 80, "33 letters in random case"
    assert len({name.lower() for name in names}) == 1


def test_a_tunnel_that_keeps_data_in_the_case_of_letters_loses_it() -> None:
    codes = ["AbCd", "aBcD", "ABcd", "abCD"]
    with StubServer() as stub, listening(stub, outgoing=NORMALISED) as (listener, _):
        for code in codes:
            udp(listener, dns.message.make_query(f"{code}.t.example", "TXT"))
        assert not all(
            question_of(asked.message)[1:5] == code.encode() for asked, code in zip(stub.asked, codes, strict=True)
        )
    with StubServer() as stub, listening(stub) as (listener, _):
        for code in codes:
            udp(listener, dns.message.make_query(f"{code}.t.example", "TXT"))
        assert [question_of(asked.message)[1:5].decode() for asked in stub.asked] == codes, "verbatim"


@pytest.mark.parametrize("ask", [udp, tcp])
@pytest.mark.parametrize("qclass", ["CH", "HS", "ANY", "NONE"])
def test_other_classes_are_refused_here(ask, qclass: str) -> None:  # type: ignore[no-untyped-def]
    with StubServer() as stub, listening(stub, outgoing=NORMALISED) as (listener, _):
        query = dns.message.make_query("version.bind", "TXT", qclass)
        assert ask(listener, query).rcode() == Rcode.REFUSED
        assert stub.asked == []
        assert listener.counters.refused == 1


@pytest.mark.parametrize("ask", [udp, tcp])
def test_ad_goes_to_who_understands_it(ask) -> None:  # type: ignore[no-untyped-def]
    with (
        StubServer(lambda asked: reply(asked, (1, 60, b"\1\2\3\4"), flags=0x81A0)) as stub,
        listening(stub, outgoing=NORMALISED, cache=CacheLimits(1 << 20)) as (listener, _),
    ):
        for flags, want_dnssec, given_ in ((dns.flags.RD, False, False), (dns.flags.AD, False, True), (0, True, True)):
            for _ in range(2):
                query = dns.message.make_query("example.com", "A", want_dnssec=want_dnssec, flags=flags)
                answer = ask(listener, query)
                assert bool(answer.flags & dns.flags.AD) is given_
                assert answer.flags & dns.flags.RD == flags & dns.flags.RD


def test_a_client_without_edns_gets_no_opt_and_no_more_than_512_bytes() -> None:
    opt = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)

    def with_opt(asked: Asked) -> list[bytes]:
        (answer,) = reply(asked, *[(16, 60, b"\xc8" + bytes(200))] * 4)
        return [answer[:11] + b"\1" + answer[12:] + opt]

    with StubServer(with_opt) as stub, listening(stub, outgoing=NORMALISED) as (listener, _):
        answer = udp(listener, dns.message.make_query("large.example", "TXT"))
        assert (answer.edns, bool(answer.flags & dns.flags.TC), answer.answer) == (-1, True, [])
        answer = udp(listener, dns.message.make_query("large.example", "TXT", use_edns=0, payload=1232))
        assert (answer.edns, len(answer.answer[0])) == (0, 1)
        answer = tcp(listener, dns.message.make_query("large.example", "TXT"))
        assert (answer.edns, len(answer.answer[0])) == (-1, 1)
    with StubServer(answer_large) as stub, listening(stub, outgoing=NORMALISED) as (listener, _):
        answer = udp(listener, dns.message.make_query("large.example", "TXT", use_edns=0, payload=65535))
        assert len(answer.answer[0]) == 20, "asked again over TCP"


def test_errors_answered_here_are_as_the_client_asked() -> None:
    with listening([("some.zone", [("127.0.0.1", 9)])], outgoing=NORMALISED, inflight_max=1) as (listener, _):
        query = dns.message.make_query("x.some.zone", "A", flags=0)
        for ask in (udp, tcp):
            answer = ask(listener, query)
            assert (answer.rcode(), answer.edns, answer.flags & dns.flags.RD) == (Rcode.SERVFAIL, -1, 0)
        query = dns.message.make_query("x.some.zone", "A", want_dnssec=True)
        assert udp(listener, query).edns == 0


# Upstreams that are not as they should be.


def folding(asked: Asked) -> list[bytes]:
    """Answers with the name in lower case."""
    (answer,) = answer_a(asked)
    end = wire.question_end(answer)
    return [answer[:12] + answer[12 : end - 4].lower() + answer[end - 4 :]]


def ask_many(listener: Any, count: int = 5) -> None:
    for number in range(count):
        query = dns.message.make_query(f"Some-Long-Name-{number}.example", "A")
        answer = udp(listener, query)
        assert answer.answer[0][0].to_text() == "192.0.2.1"
        assert answer.question == query.question


def test_an_upstream_that_folds_is_asked_over_tcp_once_and_then_in_lower_case() -> None:
    with StubServer(folding) as stub, listening(stub, outgoing=NORMALISED) as (listener, _):
        ask_many(listener)
        assert sum(asked.proto == "tcp" for asked in stub.asked) == 1
        later = [question_of(asked.message) for asked in stub.asked[-3:]]
        assert later == [one.lower() for one in later]


def test_an_upstream_that_folds_and_has_no_tcp_is_asked_in_lower_case() -> None:
    def udp_only(asked: Asked) -> list[bytes]:
        return folding(asked) if asked.proto == "udp" else []

    with StubServer(udp_only) as stub, listening(stub, outgoing=NORMALISED, client_wait_s=8.0) as (listener, _):
        ask_many(listener)
        assert sum(asked.proto == "tcp" for asked in stub.asked) == 1


def test_a_guess_with_the_right_id_and_another_case_is_no_answer() -> None:
    def forged_first(asked: Asked) -> list[bytes]:
        (true,), (forged,) = answer_a(asked), answer_a(asked, "203.0.113.66")
        if asked.proto == "tcp":
            return [true]
        return [forged[:13] + forged[13:14].swapcase() + forged[14:], true]

    with StubServer(forged_first) as stub, listening(stub, outgoing=NORMALISED) as (listener, _):
        ask_many(listener, 20)
        assert listener.counters.mismatched_answers >= 20
        assert listener.counters.answered == 20


@pytest.mark.parametrize("rcode", [Rcode.FORMERR, Rcode.NOTIMP])
@pytest.mark.parametrize("with_question", [True, False])
def test_an_upstream_without_edns_is_asked_without_it(rcode: Rcode, with_question: bool) -> None:
    def old(asked: Asked) -> list[bytes]:
        if asked.message[11]:
            error = asked.message[:2] + struct.pack("!5H", 0x8180 | rcode, int(with_question), 0, 0, 0)
            return [error + (question_of(asked.message) if with_question else b"")]
        return answer_a(asked)

    with StubServer(old) as stub, listening(stub, outgoing=NORMALISED) as (listener, _):
        ask_many(listener)
        assert len(stub.asked) == 6, "one was asked twice"
        query = dns.message.make_query("example.com", "A", use_edns=0, payload=1232)
        assert udp(listener, query).edns in (0, -1)


def test_an_error_is_passed_on_where_it_comes_again_without_edns() -> None:
    with (
        StubServer(lambda asked: reply(asked, flags=0x8180 | Rcode.FORMERR)) as stub,
        listening(stub, outgoing=NORMALISED) as (listener, _),
    ):
        for ask in (udp, tcp):
            assert ask(listener, dns.message.make_query("example.com", "A")).rcode() == Rcode.FORMERR
        assert len(stub.asked) == 4


# Subnets.


def subnet_seen(stub: StubServer) -> list[tuple[str, int]]:
    return [
        (option.address, option.srclen)
        for asked in stub.asked
        for option in dns.message.from_wire(asked.message).options
        if isinstance(option, dns.edns.ECSOption)
    ]


@pytest.mark.parametrize("ask", [udp, tcp])
@pytest.mark.parametrize(
    ("outgoing", "given_", "seen"),
    [
        (NORMALISED, ("192.0.2.77", 32), []),
        (Outgoing(True, (24, 56)), ("192.0.2.77", 32), [("192.0.2.0", 24)]),
        (Outgoing(True, (20, 56)), ("192.0.255.77", 32), [("192.0.240.0", 20)]),
        (Outgoing(True, (24, 56)), ("192.0.0.0", 16), [("192.0.0.0", 16)]),
        (Outgoing(True, (24, 52)), ("2001:db8:1:ffff::", 64), [("2001:db8:1:f000::", 52)]),
    ],
)
def test_a_subnet_is_passed_on_where_that_is_wanted(ask, outgoing, given_, seen) -> None:  # type: ignore[no-untyped-def]
    with StubServer() as stub, listening(stub, outgoing=outgoing) as (listener, _):
        options = [dns.edns.GenericOption(dns.edns.OptionType.make(65001), b"mine"), dns.edns.ECSOption(*given_)]
        ask(listener, dns.message.make_query("example.com", "A", use_edns=0, options=options))
        assert subnet_seen(stub) == seen
        ask(listener, dns.message.make_query("example.com", "A"))
        assert subnet_seen(stub) == seen
