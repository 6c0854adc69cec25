"""The zone's server, asked by dnspython as a resolver asks: transfers, changes, keys, notices; and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.xfr
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.files import write_atomic
from agents.dns.blocks import BLOCKS_FILE, Block, BlockFile, BlockList
from agents.enforcement.rpz.options import RpzOptions, TsigKey, endpoints_of, key_of
from agents.enforcement.rpz.server import PolicyServer
from agents.enforcement.rpz.zone import STATE_FILE, STEPS_MAX, PolicyZone
from tests.enforcement.blocks import block
from tests.support.listening import wait_until
from tests.support.patience import patient

pytestmark = pytest.mark.integration
ZONE = "dns-tunnel.rpz"
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
KEY = TsigKey("rpz-key", "hmac-sha256", SECRET)
KEYRING = {dns.name.from_text("rpz-key"): dns.tsig.Key("rpz-key", SECRET, "hmac-sha256")}
WRONG = {dns.name.from_text("rpz-key"): dns.tsig.Key("rpz-key", base64.b64encode(b"x" * 32).decode(), "hmac-sha256")}
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))


def keep(folder: Path, *blocks: Block) -> None:
    write_atomic(folder / BLOCKS_FILE, BlockList(blocks).to_json())


@contextmanager
def serving(folder: Path, enforced: bool = True, **options: Any) -> Iterator[PolicyServer]:
    """A running server at a free port of loopback; its sinkhole is 192.0.2.99."""
    values = {"listen": (("127.0.0.1", 0),), "zone": ZONE, "clients": LOOPBACK} | options
    zone = PolicyZone(ZONE, folder / STATE_FILE, ["192.0.2.99"])
    server = PolicyServer(RpzOptions(**values), zone, BlockFile(folder / BLOCKS_FILE), enforced)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(patient(10))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def ask(server: PolicyServer, kind: str, *, tcp: bool = True, name: str = ZONE, **options: Any) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    if keyring := options.pop("keyring", None):
        query.use_tsig(keyring)
    where = {"port": server.addresses[0][1], "timeout": patient(5), **options}
    return (dns.query.tcp if tcp else dns.query.udp)(query, "127.0.0.1", **where)


def serial(server: PolicyServer) -> int:
    return int(ask(server, "SOA", tcp=False).answer[0][0].serial)


def transferred(server: PolicyServer, zone: dns.zone.Zone | None = None, keyring: Any = None) -> dns.zone.Zone:
    """The zone as a secondary has it: the whole, or brought up to date."""
    zone = zone or dns.zone.Zone(ZONE)
    query, _ = dns.xfr.make_query(zone, keyring=keyring)
    dns.query.inbound_xfr("127.0.0.1", zone, query, port=server.addresses[0][1], timeout=patient(10))
    return zone


def names(zone: dns.zone.Zone) -> set[str]:
    return {str(name) for name in zone} - {"@"}


def test_a_transfer_has_each_domain_and_all_below_it(tmp_path: Path) -> None:
    keep(
        tmp_path,
        block("evil.example"),
        block("hole.example", action="sinkhole"),
        block("refused.example", action="refused"),
        block("slow.example", action="slow"),
        block("one.example", "192.0.2.7"),
        block("dry.example", dry=True),
        block("over.example", until=time.time()),
        block(".".join(["x" * 60] * 4)),
    )
    with serving(tmp_path) as server:
        zone = transferred(server)
        expected = {"evil.example", "hole.example", "refused.example"}
        assert names(zone) == expected | {f"*.{one}" for one in expected}
        assert zone["evil.example"].to_text(dns.name.from_text("x")) == "x. 5 IN CNAME ."
        assert zone["*.hole.example"].to_text(dns.name.from_text("x")) == "x. 5 IN A 192.0.2.99"
        soa = zone["@"].get_rdataset(dns.rdataclass.IN, dns.rdatatype.SOA)[0]
        assert soa.expire == 3600 and soa.serial == serial(server), "a server that is gone blocks nothing for long"
        assert ask(server, "AXFR").question[0].name == dns.name.from_text(ZONE)


@pytest.mark.slow
def test_changes_go_as_changes(tmp_path: Path) -> None:
    keep(tmp_path, *(block(f"evil{number}.example") for number in range(2000)))
    with serving(tmp_path) as server:
        zone = transferred(server)
        before = serial(server)
        keep(tmp_path, *(block(f"evil{number}.example") for number in range(1, 2001)))
        wait_until(lambda: serial(server) > before, 3)
        query, _ = dns.xfr.make_query(zone)
        answer = dns.query.tcp(query, "127.0.0.1", port=server.addresses[0][1], timeout=patient(5))
        assert sum(len(one) for one in answer.answer) < 12, "not the whole zone"
        transferred(server, zone)
        assert "evil2000.example" in names(zone) and "evil0.example" not in names(zone) and len(names(zone)) == 4000
        udp = dns.message.make_query(ZONE, "IXFR")
        udp.authority = query.authority
        assert len(dns.query.udp(udp, "127.0.0.1", port=server.addresses[0][1], timeout=patient(5)).answer) == 1


def test_the_last_hundred_steps_are_kept_and_a_restart_moves_no_serial(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    zone = PolicyZone(ZONE, tmp_path / STATE_FILE, clock=lambda: now[0])
    for number in range(STEPS_MAX + 2):
        assert zone.update([block(f"evil{number}.example")])
    first = 1_800_000_000
    assert zone.serial == first + STEPS_MAX + 1, "a serial a change, though the clock stands still"
    assert zone.changes(zone.serial) == [(1, zone.soa())]
    assert zone.changes(first + 1)[0][0] == 1 + STEPS_MAX * 6 + 1
    assert zone.changes(first) is zone.transfer() and zone.changes(5) is zone.transfer()
    again = PolicyZone(ZONE, tmp_path / STATE_FILE, clock=lambda: now[0])
    assert not again.update([block(f"evil{STEPS_MAX + 1}.example")]) and again.serial == zone.serial
    other = PolicyZone(ZONE, tmp_path / STATE_FILE, clock=lambda: 5.0)
    assert other.update([]) and other.serial == zone.serial + 1, "a clock that was set back moves it on, too"
    assert other.changes(zone.serial) is other.transfer(), "what the process before had is not known"
    (tmp_path / STATE_FILE).write_text("{")
    assert PolicyZone(ZONE, tmp_path / STATE_FILE).serial == 0


@pytest.mark.slow
@given(st.lists(st.sets(st.integers(0, 12)), min_size=1, max_size=8))
def test_a_secondary_that_takes_changes_has_the_whole(states: list[set[int]]) -> None:
    """By a reader of our own: each change from each earlier state leads to the newest."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        zone = PolicyZone(ZONE, Path(folder) / STATE_FILE)
        seen: list[tuple[int, frozenset[bytes]]] = []
        for state in states:
            zone.update([block(f"evil{number}.example") for number in state])
            seen.append((zone.serial, zone._records))
        for since, records in seen:
            have = set(records)
            steps = {step.before: step for step in zone._steps}
            while since in steps:
                step = steps[since]
                assert set(step.gone) <= have and not set(step.new) & have
                have = (have - set(step.gone)) | set(step.new)
                since = step.after
            assert have == zone._records and since == zone.serial


@pytest.mark.slow
def test_a_key_is_asked_for_and_answers_are_signed(tmp_path: Path) -> None:
    keep(tmp_path, *(block(f"evil{number}.example") for number in range(5000)))
    with serving(tmp_path, key=KEY) as server:
        assert ask(server, "SOA").rcode() == dns.rcode.REFUSED
        assert ask(server, "AXFR").rcode() == dns.rcode.REFUSED
        assert len(names(transferred(server, keyring=KEYRING))) == 10_000, "in several messages, each signed"
        assert ask(server, "SOA", keyring=KEYRING).had_tsig
        refused = [(WRONG, dns.rcode.NOTAUTH)]
        other = {dns.name.from_text("other"): dns.tsig.Key("other", SECRET, "hmac-sha256")}
        refused.append((other, dns.rcode.NOTAUTH))
        for keyring, rcode in refused:
            query = dns.message.make_query(ZONE, "SOA")
            query.use_tsig(keyring)
            raw = _raw(server, query.to_wire())
            assert raw[3] & 0xF == rcode and len(raw) == 12, "and nothing of the zone"
    with serving(tmp_path, key=KEY, unsigned=LOOPBACK) as server:
        assert len(names(transferred(server))) == 10_000, "unbound has no keys"
    with serving(tmp_path) as server:
        query = dns.message.make_query(ZONE, "SOA")
        query.use_tsig(KEYRING)
        assert _raw(server, query.to_wire())[3] & 0xF == dns.rcode.NOTAUTH


def _raw(server: PolicyServer, wire: bytes) -> bytes:
    with socket.socket(type=socket.SOCK_DGRAM) as asking:
        asking.settimeout(patient(5))
        asking.sendto(wire, ("127.0.0.1", server.addresses[0][1]))
        return asking.recv(65_535)


def test_others_are_refused(tmp_path: Path) -> None:
    keep(tmp_path, block("evil.example"))
    with serving(tmp_path, clients=(ipaddress.ip_network("127.0.0.2/32"),)) as server:
        assert ask(server, "AXFR").rcode() == dns.rcode.REFUSED
        assert ask(server, "AXFR", source="127.0.0.2").answer
    with serving(tmp_path) as server:
        for kind, name, tcp in (("AXFR", ZONE, False), ("A", f"evil.example.{ZONE}", True), ("SOA", "example", True)):
            assert ask(server, kind, name=name, tcp=tcp).rcode() == dns.rcode.REFUSED
        update = dns.message.make_query(ZONE, "SOA")
        update.set_opcode(dns.opcode.UPDATE)
        assert _raw(server, update.to_wire())[3] & 0xF == dns.rcode.NOTIMP
        assert _raw(server, b"\0\1\0\0\0\1" + bytes(6) + b"\xff")[3] & 0xF == dns.rcode.FORMERR
        assert ask(server, "NS").answer


@given(st.binary(max_size=80))
def test_no_bytes_end_the_server(data: bytes) -> None:
    zone = PolicyZone(ZONE, Path("/nonexistent"))
    server = PolicyServer(RpzOptions(zone=ZONE, clients=LOOPBACK, key=KEY), zone, BlockFile(Path("/nonexistent")))
    query = dns.message.make_query(ZONE, "AXFR", use_edns=True).to_wire()
    for wire in (data, query + data, query[:-3] + data, query[: len(data)] + data):
        for answer in server.answers(wire, "127.0.0.1"):
            assert answer[:2] == wire[:2] and answer[2] & 0x80


def test_without_enforcement_the_zone_is_empty(tmp_path: Path) -> None:
    keep(tmp_path, block("evil.example"))
    with serving(tmp_path, enforced=False) as server:
        assert names(transferred(server)) == set()


def test_resolvers_are_told_until_they_answer(tmp_path: Path) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.1", 0))
        resolver.settimeout(patient(10))
        keep(tmp_path)
        with serving(tmp_path, notify=(resolver.getsockname(),)) as server:
            wire, client = resolver.recvfrom(512)  # it has started
            told = dns.message.from_wire(wire)
            assert told.opcode() == dns.opcode.NOTIFY and client[0] == "127.0.0.1"
            assert resolver.recvfrom(512)[0] == wire, "again, since nobody answered"
            told.flags |= dns.flags.QR
            resolver.sendto(told.to_wire(), client)
            keep(tmp_path, block("evil.example"))
            wire, client = resolver.recvfrom(512)
            assert dns.message.from_wire(wire).answer[0][0].serial == serial(server)


def test_a_block_that_ends_leaves_the_zone(tmp_path: Path) -> None:
    keep(tmp_path, block("evil.example", until=time.time() + 1.5))
    with serving(tmp_path) as server:
        assert names(transferred(server))
        wait_until(lambda: not names(transferred(server)), 5)


@pytest.mark.parametrize(
    "text", ["a", "a:hmac-md5:eHh4", "a:hmac-sha256:!!", f"a:hmac-sha256:{SECRET[:8]}", f":hmac-sha256:{SECRET}"]
)
def test_a_bad_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        key_of(text)
    assert SECRET[:8] not in str(caught.value)


def test_addresses_have_ports() -> None:
    assert endpoints_of("127.0.0.1, ::1,[2001:db8::1]:5300,192.0.2.1:54") == (
        ("127.0.0.1", 53),
        ("::1", 53),
        ("2001:db8::1", 5300),
        ("192.0.2.1", 54),
    )
    for wrong in ("host", "127.0.0.1:99999", "http://x", "127.0.0.1/24"):
        with pytest.raises(ValueError):
            endpoints_of(wrong)


def test_a_name_that_means_something_else_in_the_zone_is_left_out(tmp_path: Path) -> None:
    zone = PolicyZone(ZONE, tmp_path / STATE_FILE)
    zone.update([block("32.8.8.8.8.rpz-client-ip"), block("rpz-x.example"), block("evil.example")])
    assert (zone.left_out, len(zone)) == (1, 4)
