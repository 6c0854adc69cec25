"""`dns-tunnel listen` that enforces, with all its processes: a command blocks and undoes, a kill changes nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.zone
import pytest

from agents.dns.blocks import BLOCKS_FILE
from agents.runtime.heartbeat import PARTS, read_heartbeat
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.running import ROOT, free_port, product
from tests.support.stubs import StubServer

pytestmark = pytest.mark.integration


def rcode(port: int, name: str, source: str = "127.0.0.1") -> int:
    try:
        query = dns.message.make_query(name, "A")
        return int(dns.query.udp(query, "127.0.0.1", port=port, source=source, timeout=patient(2)).rcode())
    except (dns.exception.Timeout, OSError):
        return -1


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command in a shell that has no settings but DATA_DIR: those of the running listener count."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "DATA_DIR": str(folder)}
    argv = [sys.executable, "-m", "agents", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=patient(60))


@pytest.mark.slow
def test_a_command_blocks_and_undoes_whatever_is_killed(tmp_path: Path) -> None:
    port, zone_port = free_port(), free_port()
    settings = {"enforce": "on", "enforce_dry_days": "0", "rpz_listen": f"127.0.0.1:{zone_port}"}
    settings |= {"listen_port": str(port), "listener_processes": "2", "own_zones": "corp.example.com"}
    with StubServer() as stub:
        settings["upstreams"] = f"127.0.0.1:{stub.endpoint[1]}"
        with product("listen", tmp_path, **settings):
            assert rcode(port, "a.evil.example.net") == dns.rcode.NOERROR
            told = command(tmp_path, "block", "add", "evil.example[.]net", "--reason", "a test", "--author", "ann")
            assert told.returncode == 0, told.stderr
            assert told.stdout.startswith("blocked: ") and "evil.example.net  all clients  nxdomain" in told.stdout
            one = command(
                tmp_path, "block", "add", "one.net", "--client", "127.0.0.2", "--reason", "x", "--answer", "refused"
            )
            assert one.returncode == 0, one.stderr
            # each listener, whichever of them a query meets
            wait_until(lambda: {rcode(port, f"{n}.evil.example.net") for n in range(12)} == {dns.rcode.NXDOMAIN}, 3)
            assert [rcode(port, "one.net", source) for source in ("127.0.0.1", "127.0.0.2")] == [0, dns.rcode.REFUSED]
            wait_until(lambda: "evil.example.net" in _zone(zone_port), 3)
            refused = command(tmp_path, "block", "add", "example.com", "--reason", "x")
            assert (refused.returncode, refused.stdout) == (2, "")
            assert refused.stderr.strip().endswith("cannot block example.com: corp.example.com is a zone of your own")
            processes = _processes(tmp_path)
            for name in ("rpz", "detector", "listener-1"):
                os.kill(processes[name]["pid"], signal.SIGKILL)
            wait_until(lambda: rcode(port, f"x{time.monotonic_ns()}.evil.example.net") == dns.rcode.NXDOMAIN, 5)
            wait_until(lambda: rcode(port, f"x{time.monotonic_ns()}.good.net") == dns.rcode.NOERROR, 5)
            wait_until(lambda: "evil.example.net" in _zone(zone_port), 20)
            shown = command(tmp_path, "block", "list").stdout
            assert "evil.example.net  all clients  nxdomain  until" in shown and "ann: a test" in shown
            assert "ENFORCE=on: 2 blocks in force" in shown
            undone = command(tmp_path, "block", "undo-all", "--author", "bob")
            assert undone.stdout.startswith("2 blocks undone; none is made without a person until:"), undone.stderr
            wait_until(lambda: {rcode(port, f"{n}.evil.example.net") for n in range(12)} == {dns.rcode.NOERROR}, 3)
            wait_until(lambda: _zone(zone_port) == set(), 3)
            assert command(tmp_path, "block", "resume").stdout == "blocks are made again\n"
            wait_until(lambda: "ended" in command(tmp_path, "block", "log").stdout, 30)
        (tmp_path / "data" / BLOCKS_FILE).write_text("{")
        with product("listen", tmp_path, **settings):
            assert rcode(port, "a.evil.example.net") == dns.rcode.NOERROR, "a damaged file blocks nothing at a start"
            bad = command(tmp_path, "block", "list")
            assert bad.returncode == 2 and "cannot read" in bad.stderr


@pytest.mark.slow
def test_a_zone_that_cannot_be_served_holds_no_answer_up(tmp_path: Path) -> None:
    with StubServer() as stub, socket.create_server(("127.0.0.1", 0)) as other:
        port, zone_port = free_port(), other.getsockname()[1]
        settings = {"enforce": "on", "enforce_dry_days": "0", "rpz_listen": f"127.0.0.1:{zone_port}"}
        settings |= {"listen_port": str(port), "listener_processes": "1"}
        settings["upstreams"] = f"127.0.0.1:{stub.endpoint[1]}"
        with product("listen", tmp_path, **settings):
            assert rcode(port, "a.example.net") == dns.rcode.NOERROR
            wait_until(lambda: _processes(tmp_path)["rpz"]["restarts"] > 0, 20)
            assert rcode(port, "b.example.net") == dns.rcode.NOERROR
            other.close()
            wait_until(lambda: _zone(zone_port) == set(), 20)


def _processes(folder: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}

    def known() -> bool:
        found.update(read_heartbeat(folder / "data" / PARTS["listener"]).get("processes", {}))
        return "rpz" in found

    wait_until(known, 20)
    return found


def _zone(port: int) -> set[str]:
    zone = dns.zone.Zone("dns-tunnel.rpz")
    try:
        dns.query.inbound_xfr("127.0.0.1", zone, port=port, timeout=patient(3))
    except (dns.exception.DNSException, OSError):
        return {"it does not answer"}
    return {str(name) for name in zone} - {"@"}
