"""Clients in a strict group, over real sockets: what is not listed never leaves, over UDP or TCP, past no cache."""

from __future__ import annotations

from pathlib import Path

import dns.edns
import dns.message
import dns.query
import pytest
from dns.rcode import Rcode

from agents.core.types import FORWARDED
from agents.dns.strict_groups import StrictGroups, read_groups
from agents.sources.listener.cache import CacheLimits
from agents.sources.listener.special_names import SPEC
from agents.sources.listener.upstream import Outgoing
from tests.support.listening import adds_up, listening, tcp, udp, wait_until
from tests.support.patience import patient
from tests.support.stubs import StubServer

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]
CACHE = CacheLimits(size=1 << 20)


def strict(folder: Path, text: str = "127.0.0.0/8=allow.txt,::1=allow.txt") -> StrictGroups:
    (folder / "allow.txt").write_text("listed.example\n")
    return StrictGroups(read_groups(text, folder))


@pytest.mark.parametrize("ask", [udp, tcp])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_nothing_unlisted_leaves(ask, normalised: bool, host: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    groups, outgoing = strict(tmp_path), Outgoing(normalised)
    with (
        StubServer() as stub,
        listening(stub, [host], strict=groups, outgoing=outgoing, cache=CACHE) as (listener, rows),
    ):
        query = dns.message.make_query("Secret.evil.example", "TXT", use_edns=True)
        refused = ask(listener, query, host)
        assert (refused.rcode(), refused.answer, refused.question) == (Rcode.NXDOMAIN, [], query.question)
        assert stub.asked == []
        assert ask(listener, dns.message.make_query("a.Listed.example", "A"), host).answer
        assert len(stub.asked) == 1
        wait_until(lambda: len(rows) == 2)
        assert rows[0][2:6] == (b"\6Secret\4evil\7example", 16, len(query.to_wire()), Rcode.NXDOMAIN)
        assert rows[0][-1] == FORWARDED
        assert listener.counters.local == 1 and adds_up(listener.counters)
        wait_until(lambda: listener.inflight == 0)


def test_nor_a_cached_answer(tmp_path: Path) -> None:
    """Another client's answer lies in the cache: a member does not learn of it, and a listed one comes from there."""
    groups = strict(tmp_path, "127.0.0.2=allow.txt")
    with StubServer() as stub, listening(stub, strict=groups, cache=CACHE) as (listener, rows):
        for name in ("evil.example", "listed.example"):
            assert udp(listener, dns.message.make_query(name, "A")).answer
        for source, name, rcode in (
            ("127.0.0.2", "evil.example", Rcode.NXDOMAIN),
            ("127.0.0.1", "evil.example", Rcode.NOERROR),
            ("127.0.0.2", "listed.example", Rcode.NOERROR),
        ):
            answer = dns.query.udp(
                dns.message.make_query(name, "A"),
                "127.0.0.1",
                port=listener.ports[0],
                source=source,
                timeout=patient(5),
            )
            assert (answer.rcode(), bool(answer.answer)) == (rcode, rcode == Rcode.NOERROR)
        assert len(stub.asked) == 2
        wait_until(lambda: len(rows) == 5)
        assert listener.counters.cache_hits == 2 and adds_up(listener.counters)
        wait_until(lambda: listener.inflight == 0)


def test_a_long_query_and_what_is_answered_here(tmp_path: Path) -> None:
    special = SPEC.factory(SPEC.values({}))
    with StubServer() as stub, listening(stub, strict=strict(tmp_path), special=special) as (listener, rows):
        padded = dns.message.make_query("evil.example", "A")
        padded.use_edns(options=[dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(900))])
        assert udp(listener, padded).rcode() == Rcode.NXDOMAIN
        assert udp(listener, dns.message.make_query("localhost", "A")).answer, "names answered here are answered"
        assert stub.asked == []
        wait_until(lambda: len(rows) == 2 and listener.inflight == 0)
        assert adds_up(listener.counters)
