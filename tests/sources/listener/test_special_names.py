"""Names that the listener answers itself, over real sockets."""

from __future__ import annotations

import dns.message
import dns.rdatatype
import pytest
from dns.rcode import Rcode

from agents.sources.listener.special_names import SPEC
from tests.support.listening import adds_up, listening, tcp, udp, wait_until
from tests.support.stubs import StubServer

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]

DEFAULTS = SPEC.factory(SPEC.values({}))
LOOPBACK6 = "1." + "0." * 31 + "ip6.arpa"
ANSWERS: list[tuple[str, str, Rcode, list[str]]] = [
    ("localhost", "A", Rcode.NOERROR, ["127.0.0.1"]),
    ("LocalHost", "AAAA", Rcode.NOERROR, ["::1"]),
    ("a.b.localhost", "A", Rcode.NOERROR, ["127.0.0.1"]),
    ("localhost", "MX", Rcode.NOERROR, []),
    ("1.0.0.127.in-addr.arpa", "PTR", Rcode.NOERROR, ["localhost."]),
    ("2.0.0.127.in-addr.arpa", "PTR", Rcode.NXDOMAIN, []),
    (LOOPBACK6, "PTR", Rcode.NOERROR, ["localhost."]),
    ("x.invalid", "A", Rcode.NXDOMAIN, []),
    ("abc.onion", "A", Rcode.NXDOMAIN, []),
    ("x.alt", "A", Rcode.NXDOMAIN, []),
    ("_dns.resolver.arpa", "SVCB", Rcode.NOERROR, []),
    ("other.resolver.arpa", "SVCB", Rcode.NXDOMAIN, []),
    ("use-application-dns.net", "A", Rcode.NXDOMAIN, []),
]


@pytest.mark.parametrize("ask", [udp, tcp])
def test_they_are_answered_here_and_recorded(ask) -> None:  # type: ignore[no-untyped-def]
    with StubServer() as stub, listening(stub, special=DEFAULTS) as (listener, rows):
        for name, kind, rcode, data in ANSWERS:
            answer = ask(listener, dns.message.make_query(name, kind))
            assert answer.rcode() == rcode, name
            assert [item.to_text() for rrset in answer.answer for item in rrset] == data, name
        wait_until(lambda: len(rows) == len(ANSWERS))
        assert (listener.counters.local, stub.asked) == (len(ANSWERS), [])
        assert adds_up(listener.counters)
        wait_until(lambda: listener.inflight == 0)


def test_names_that_only_look_like_them_are_forwarded() -> None:
    names = ["localhost.example", "xlocalhost", "onion.example", "x.local", "x.test", "1.0.0.128.in-addr.arpa", "."]
    with StubServer() as stub, listening(stub, special=DEFAULTS) as (listener, _):
        for name in names:
            assert udp(listener, dns.message.make_query(name, "A")).answer
        assert len(stub.asked) == len(names)


def test_each_has_a_setting() -> None:
    none = SPEC.factory({field.name: False for field in SPEC.fields})
    all_of_them = SPEC.factory({field.name: True for field in SPEC.fields})
    with StubServer() as stub, listening(stub, special=none) as (listener, _):
        for name, kind, *_ in ANSWERS:
            udp(listener, dns.message.make_query(name, kind))
        assert len(stub.asked) == len(ANSWERS)
    with StubServer() as stub, listening(stub, special=all_of_them) as (listener, _):
        for name in ("printer.local", "x.test"):
            assert udp(listener, dns.message.make_query(name, "A")).rcode() == Rcode.NXDOMAIN


def test_an_upstream_for_such_a_name_is_asked() -> None:
    with StubServer() as stub:
        zones = [("", [stub.endpoint]), ("resolver.arpa", [stub.endpoint]), ("site.onion", [stub.endpoint])]
        with listening(zones, special=DEFAULTS) as (listener, _):
            for name in ("_dns.resolver.arpa", "a.site.onion"):
                assert udp(listener, dns.message.make_query(name, "A")).answer
            assert udp(listener, dns.message.make_query("b.onion", "A")).rcode() == Rcode.NXDOMAIN
