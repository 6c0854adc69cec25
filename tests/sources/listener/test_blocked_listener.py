"""Blocks at the listener, over real sockets: what is blocked never leaves, over UDP or TCP, past no cache.

Undone, it is answered again."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import dns.message
import dns.query
import pytest
from dns.rcode import Rcode

from agents.core.files import write_atomic
from agents.core.text import NETWORK
from agents.dns.blocks import BLOCKS_FILE, Block, BlockList
from agents.dns.strict_groups import StrictGroups, read_groups
from agents.sources.listener.blocking import blocking
from agents.sources.listener.blocking.blocking import BlockConfig
from agents.sources.listener.cache import CacheLimits
from agents.sources.listener.server import SLOWED_SHARE, Listener
from agents.sources.listener.special_names import SPEC
from tests.enforcement.blocks import block
from tests.support.listening import adds_up, listening, tcp, udp, wait_until
from tests.support.patience import patient
from tests.support.stubs import StubServer

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("both_ways")]
CACHE = CacheLimits(size=1 << 20)


def keep(folder: Path, *blocks: Block) -> BlockConfig:
    """Write the file that listeners read."""
    write_atomic(folder / BLOCKS_FILE, BlockList(blocks).to_json())
    return BlockConfig(folder / BLOCKS_FILE, ["192.0.2.99", "2001:db8::99"])


def rcode(listener: Listener, name: str, qtype: str = "A", source: str = "127.0.0.1") -> int:
    query = dns.message.make_query(name, qtype)
    port = listener.ports[0]
    return int(dns.query.udp(query, "127.0.0.1", port=port, source=source, timeout=patient(5)).rcode())


@pytest.mark.parametrize("ask", [udp, tcp])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_domain_blocked_for_all_never_leaves(ask, host: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    blocks = keep(tmp_path, block("evil.example"), block("refused.example", action="refused"))
    with StubServer() as stub, listening(stub, [host], blocks=blocks, cache=CACHE) as (listener, rows):
        query = dns.message.make_query("Secret.Evil.example", "TXT", use_edns=True)
        answer = ask(listener, query, host)
        assert (answer.rcode(), answer.answer, answer.question) == (Rcode.NXDOMAIN, [], query.question)
        assert ask(listener, dns.message.make_query("refused.example", "A"), host).rcode() == Rcode.REFUSED
        assert stub.asked == []
        for name in ("notevil.example", "example"):
            assert ask(listener, dns.message.make_query(name, "A"), host).answer
        assert len(stub.asked) == 2
        wait_until(lambda: len(rows) == 4 and listener.inflight == 0)
        assert [row[2] for row in rows][:2] == [b"\6Secret\4Evil\7example", b"\7refused\7example"], "it is judged, too"
        assert listener.counters.local == 2 and adds_up(listener.counters)


def test_for_one_client_the_others_are_answered(tmp_path: Path) -> None:
    blocks = keep(tmp_path, block("evil.example", "127.0.0.2"), block("other.example", "127.0.0.4/31"))
    with StubServer() as stub, listening(stub, blocks=blocks, cache=CACHE) as (listener, _):
        assert rcode(listener, "a.evil.example", source="127.0.0.1") == Rcode.NOERROR
        assert rcode(listener, "a.evil.example", source="127.0.0.2") == Rcode.NXDOMAIN, "not from the cache either"
        assert rcode(listener, "a.good.example", source="127.0.0.2") == Rcode.NOERROR
        assert [rcode(listener, "other.example", source=f"127.0.0.{n}") for n in (3, 4, 5, 6)] == [0, 3, 3, 0]
        wait_until(lambda: listener.inflight == 0)
        assert adds_up(listener.counters)


def test_a_sinkhole_answers_with_its_addresses(tmp_path: Path) -> None:
    blocks = keep(tmp_path, block("evil.example", action="sinkhole"))
    with StubServer() as stub, listening(stub, blocks=blocks) as (listener, rows):
        for qtype, expected in (("A", ["192.0.2.99"]), ("AAAA", ["2001:db8::99"]), ("TXT", [])):
            answer = udp(listener, dns.message.make_query("x.evil.example", qtype, use_edns=True))
            assert answer.rcode() == Rcode.NOERROR
            assert [one.to_text() for some in answer.answer for one in some] == expected
        assert stub.asked == []
        wait_until(lambda: len(rows) == 3)


def test_blocks_are_in_force_and_undone_within_three_seconds(tmp_path: Path) -> None:
    blocks = BlockConfig(tmp_path / BLOCKS_FILE)
    with StubServer() as stub, listening(stub, blocks=blocks, cache=CACHE) as (listener, _):
        assert rcode(listener, "a.evil.example") == Rcode.NOERROR
        keep(tmp_path, block("evil.example"), block("client.example", "127.0.0.1"))
        wait_until(lambda: rcode(listener, "a.evil.example") == Rcode.NXDOMAIN, 3)
        assert rcode(listener, "client.example") == Rcode.NXDOMAIN
        keep(tmp_path)
        wait_until(lambda: rcode(listener, "a.evil.example") == Rcode.NOERROR, 3)
        assert rcode(listener, "client.example") == Rcode.NOERROR
        keep(tmp_path, block("evil.example", until=time.time() + 1.5))
        wait_until(lambda: rcode(listener, "a.evil.example") == Rcode.NXDOMAIN, 3)
        wait_until(lambda: rcode(listener, "a.evil.example") == Rcode.NOERROR, 5)
        keep(tmp_path, block("evil.example"))
        wait_until(lambda: rcode(listener, "a.evil.example") == Rcode.NXDOMAIN, 3)
        (tmp_path / BLOCKS_FILE).write_text('{"blocks": [')
        time.sleep(2 * blocking.GLANCE_S)
        assert rcode(listener, "a.evil.example") == Rcode.NXDOMAIN, "a damaged file changes nothing"
        (tmp_path / BLOCKS_FILE).unlink()
        wait_until(lambda: rcode(listener, "a.evil.example") == Rcode.NOERROR, 3)
        assert adds_up(listener.counters)


def test_a_dry_block_and_an_ended_one_block_nothing(tmp_path: Path) -> None:
    now = time.time()
    dry, ended = block("dry.example", dry=True), block("ended.example", ended_at=now, ended_by="ann")
    blocks = keep(tmp_path, dry, ended, block("over.example", until=now))
    with StubServer() as stub, listening(stub, blocks=blocks) as (listener, _):
        assert {rcode(listener, f"{one}.example") for one in ("dry", "ended", "over")} == {Rcode.NOERROR}


def test_a_slowed_client_has_one_answer_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "SLOW_S", 0.4)
    monkeypatch.setattr(blocking, "SLOW_WAIT_MAX_S", 0.6)
    for client in (NETWORK, "127.0.0.1"):
        blocks = keep(tmp_path, block("evil.example", client, "slow"))
        with StubServer() as stub, listening(stub, blocks=blocks, client_wait_s=5.0) as (listener, rows):
            begun = time.monotonic()
            assert rcode(listener, "1.evil.example") == Rcode.NOERROR
            assert rcode(listener, "2.evil.example") == Rcode.NOERROR
            assert time.monotonic() - begun >= 0.4
            with socket.socket(type=socket.SOCK_DGRAM) as many:
                many.settimeout(patient(5))
                for number in range(5):
                    query = dns.message.make_query(f"{number}.many.evil.example", "A")
                    many.sendto(query.to_wire(), ("127.0.0.1", listener.ports[0]))
                codes = sorted(many.recv(512)[3] & 0xF for _ in range(5))
            answered = codes.count(Rcode.NOERROR)
            assert 1 <= answered <= 2 and codes.count(Rcode.SERVFAIL) == 5 - answered, "more wait than have a turn"
            wait_until(lambda: listener.inflight == 0 and len(rows) == 7)
            assert len(stub.asked) == 2 + answered
            assert adds_up(listener.counters)


def test_slowed_queries_take_no_others_room(tmp_path: Path) -> None:
    blocks = keep(tmp_path, block("evil.example", action="slow"))
    with StubServer() as stub, listening(stub, blocks=blocks, inflight_max=2 * SLOWED_SHARE) as (listener, rows):
        codes = []
        for number in range(6):
            with socket.socket(type=socket.SOCK_DGRAM) as many:
                many.bind((f"127.0.0.{number + 2}", 0))
                many.settimeout(patient(5))
                for turn in range(4):
                    query = dns.message.make_query(f"{number}.{turn}.evil.example", "A")
                    many.sendto(query.to_wire(), ("127.0.0.1", listener.ports[0]))
                codes += [many.recv(512)[3] & 0xF for _ in range(2)]
        assert len(listener._slowed) <= 2
        assert codes.count(Rcode.SERVFAIL) >= 8, "answered at once"
        assert rcode(listener, "a.good.example") == Rcode.NOERROR
        wait_until(lambda: listener.inflight == 0 and len(rows) == 25)
        assert adds_up(listener.counters)


def test_what_is_answered_here_and_strict_groups_stay(tmp_path: Path) -> None:
    (tmp_path / "allow.txt").write_text("evil.example\n")
    groups = StrictGroups(read_groups("127.0.0.3=allow.txt", tmp_path))
    blocks = keep(tmp_path, block("evil.example"), block("localhost"), block("long.invalid"))
    special = SPEC.factory(SPEC.values({}))
    with StubServer() as stub, listening(stub, blocks=blocks, strict=groups, special=special) as (listener, rows):
        assert udp(listener, dns.message.make_query("localhost", "A")).answer
        assert rcode(listener, "a.long.invalid") == Rcode.NXDOMAIN
        assert rcode(listener, "evil.example", source="127.0.0.3") == Rcode.NXDOMAIN
        keep(tmp_path, block("other.example"))
        wait_until(lambda: rcode(listener, "evil.example", source="127.0.0.3") == Rcode.NOERROR, 3)
        assert rcode(listener, "unlisted.example", source="127.0.0.3") == Rcode.NXDOMAIN
        assert udp(listener, dns.message.make_query("localhost", "A")).answer
        assert {str(one) for one in stub.asked} and rows


def test_more_blocks_than_rows_of_the_compiled_way(tmp_path: Path) -> None:
    many = [block(f"evil{number}.example") for number in range(blocking.ROWS_MAX + 1)]
    with StubServer() as stub, listening(stub, blocks=keep(tmp_path, *many)) as (listener, _):
        assert {rcode(listener, f"a.evil{number}.example") for number in (0, 100, blocking.ROWS_MAX)} == {
            Rcode.NXDOMAIN
        }
        assert rcode(listener, "good.example") == Rcode.NOERROR
        assert len(stub.asked) == 1
