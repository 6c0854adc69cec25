"""Real resolvers that take the zone: unbound, BIND, PowerDNS Recursor. A block is in force within three seconds, and so
is its end; a zone of 40,000 records arrives whole; where the server is gone, they go on answering.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest

from agents.enforcement.rpz.server import PolicyServer
from tests.enforcement.blocks import block
from tests.enforcement.rpz.test_rpz import KEY, LOOPBACK, SECRET, ZONE, keep, serving
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.resolvers import HOST
from tests.support.running import free_port
from tests.support.stubs import StubServer

pytestmark = pytest.mark.integration
IN_FORCE_S = 3.0
Configure = Callable[[Path, int, int, int], list[str]]
"""Writes a configuration into a folder: (folder, port, port of the zone's server, port of the upstream) -> command."""


def unbound(folder: Path, port: int, primary: int, upstream: int) -> list[str]:
    """Debian's has no TSIG for a zone that it takes."""
    (folder / "unbound.conf").write_text(
        f"""server:
  interface: {HOST}@{port}
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "{folder}"
  pidfile: "{folder / "unbound.pid"}"
  use-syslog: no
  logfile: "{folder / "log"}"
  do-not-query-localhost: no
  module-config: "respip iterator"
rpz:
  name: {ZONE}
  primary: {HOST}@{primary}
  zonefile: "{folder / "zone"}"
forward-zone:
  name: "."
  forward-addr: {HOST}@{upstream}
remote-control:
  control-enable: no\n"""
    )
    return ["unbound", "-d", "-c", str(folder / "unbound.conf")]


def bind(folder: Path, port: int, primary: int, upstream: int) -> list[str]:
    (folder / "named.conf").write_text(
        f"""options {{ directory "{folder}"; listen-on port {port} {{ {HOST}; }}; listen-on-v6 {{ none; }};
        recursion yes; forward only; forwarders {{ {HOST} port {upstream}; }}; dnssec-validation no; notify no;
        response-policy {{ zone "{ZONE}"; }} min-update-interval 1 qname-wait-recurse no;
        pid-file none; session-keyfile none; }};
        controls {{}};
        key "{KEY.name}" {{ algorithm {KEY.algorithm}; secret "{SECRET}"; }};
        zone "{ZONE}" {{ type secondary; primaries {{ {HOST} port {primary} key "{KEY.name}"; }}; file "zone";
        allow-notify {{ {HOST}; }}; allow-query {{ none; }}; }};
        logging {{ channel l {{ file "{folder / "log"}"; severity info; }}; category default {{ l; }}; }};\n"""
    )
    return ["named", "-f", "-n", "1", "-c", str(folder / "named.conf")]


def recursor(folder: Path, port: int, primary: int, upstream: int) -> list[str]:
    """It takes no notice of NOTIFY, and asks every second."""
    (folder / "recursor.conf").write_text(
        f"""local-address={HOST}
local-port={port}
socket-dir={folder}
forward-zones-recurse=.={HOST}:{upstream}
dnssec=off
threads=1
allow-from=127.0.0.0/8
security-poll-suffix=
lua-config-file={folder / "rpz.lua"}\n"""
    )
    (folder / "rpz.lua").write_text(
        f"""rpzPrimary({{"{HOST}:{primary}"}}, "{ZONE}", {{ refresh=1, tsigname="{KEY.name}", """
        f"""tsigalgo="{KEY.algorithm}", tsigsecret="{SECRET}" }})\n"""
    )
    return ["pdns_recursor", f"--config-dir={folder}", "--daemon=no", "--disable-syslog"]


RESOLVERS: dict[str, Configure] = {"unbound": unbound, "bind": bind, "pdns-recursor": recursor}


def rcode(port: int, name: str) -> int:
    """What a resolver answers; -1 for nothing."""
    query = dns.message.make_query(name, "A")
    try:
        return int(dns.query.udp(query, HOST, port=port, timeout=patient(1)).rcode())
    except (dns.exception.Timeout, OSError):
        return -1


@contextmanager
def resolving(name: str, folder: Path, *domains: str) -> Iterator[tuple[int, PolicyServer, Path]]:
    """A resolver that takes the zone: its port, the server, the folder of blocks. Skips where it is not installed."""
    port, state = free_port(), folder / "state"
    state.mkdir()
    keep(state, block("always.example"), *map(block, domains))
    with (
        StubServer() as stub,
        serving(state, key=KEY, unsigned=LOOPBACK if name == "unbound" else (), notify=((HOST, port),)) as server,
    ):
        command = RESOLVERS[name](folder, port, server.addresses[0][1], stub.endpoint[1])
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        with (folder / "output").open("wb") as output:
            running = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: rcode(port, f"x{time.monotonic_ns()}.always.example") == dns.rcode.NXDOMAIN, 40)
            yield port, server, state
        finally:
            running.terminate()
            running.wait()


@pytest.mark.parametrize("name", RESOLVERS)
def test_a_block_is_in_force_and_undone_within_three_seconds(name: str, tmp_path: Path) -> None:
    with resolving(name, tmp_path) as (port, _, state):
        assert rcode(port, "good.example") == dns.rcode.NOERROR
        for turn in range(2):
            assert rcode(port, f"{turn}.a.evil.example") == dns.rcode.NOERROR
            for blocked, expected in ((True, dns.rcode.NXDOMAIN), (False, dns.rcode.NOERROR)):
                keep(state, block("always.example"), *([block("evil.example")] if blocked else []))
                begun = time.monotonic()

                def is_so(expected: int = expected) -> bool:
                    return rcode(port, f"x{time.monotonic_ns()}.evil.example") == expected

                wait_until(is_so, 10)
                assert time.monotonic() - begun < patient(IN_FORCE_S)
        assert rcode(port, "good.example") == dns.rcode.NOERROR


@pytest.mark.slow
@pytest.mark.parametrize("name", RESOLVERS)
def test_forty_thousand_records_arrive(name: str, tmp_path: Path) -> None:
    many = [f"evil{number}.example" for number in range(20_000)]
    with resolving(name, tmp_path, *many) as (port, server, _):
        assert len(server._zone) == 40_002
        for domain in (many[0], f"a.{many[9_999]}", f"b.c.{many[-1]}"):
            assert rcode(port, domain) == dns.rcode.NXDOMAIN
        assert rcode(port, "evil20000.example") == dns.rcode.NOERROR


@pytest.mark.parametrize("name", RESOLVERS)
def test_without_the_server_resolvers_answer(name: str, tmp_path: Path) -> None:
    with resolving(name, tmp_path) as (port, server, _):
        loop = server._servers[0].get_loop()
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(patient(10))
        assert rcode(port, "fresh.example") == dns.rcode.NOERROR
        assert rcode(port, "y.always.example") == dns.rcode.NXDOMAIN, "until the zone expires, an hour later"
