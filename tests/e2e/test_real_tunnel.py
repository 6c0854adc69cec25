"""Real tunnels, dns2tcp and iodine, through the real product: found, stored, told; ordinary DNS goes on meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e import iodine
from tests.e2e.tunnel import Asker, Sink, dns2tcp_client, dns2tcp_server, push
from tests.support.patience import patient
from tests.support.running import ROOT, free_port, product, wait_for
from tests.support.stubs import StubServer
from tests.support.webhook import webhook

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
RESOLVER = "127.0.0.77"
"""dns2tcp's client asks port 53 only, so the listener needs an address whose port 53 is free."""
SIZE = 200_000
SMALL = 40_000
"""iodine is slower: it sends a few kilobytes a second."""
TOKEN = "token of the real tunnels"
PUSH = """
import os, socket, sys
host, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with socket.create_connection((host, port), 30) as connection:
    connection.settimeout(float(sys.argv[4]))
    connection.sendall(os.urandom(size))
    said = b""
    while f"{size}\\n".encode() not in said:
        said += connection.recv(4096)
"""
"""A client of the sink: sends so many bytes, and ends when the far end has acknowledged them all."""


def test_a_dns2tcp_tunnel_is_found_stored_and_told(tmp_path: Path) -> None:
    if shutil.which("dns2tcpc") is None or shutil.which("dns2tcpd") is None:
        pytest.skip("needs the Debian package dns2tcp")
    if os.geteuid() == 0:
        _tunnel(tmp_path)
    else:
        _again_in_a_namespace(tmp_path)


def _tunnel(tmp_path: Path) -> None:
    sink, api, upstream, entrance = Sink(), free_port(), free_port(), free_port()
    settings = {
        "listen_host": RESOLVER,
        "listen_port": "53",
        "api_port": str(api),
        "api_token": TOKEN,
        "forward": "verbatim",
        "burn_in_days": "0",
    }
    with StubServer() as stub, webhook() as hook:
        settings["upstreams"] = f"tunnel.test=127.0.0.1:{upstream},127.0.0.1:{stub.port}"
        with (
            product("run", tmp_path / "data", slack_webhook_url=hook.url, **settings),
            dns2tcp_server(tmp_path, sink, upstream, "tunnel.test"),
            dns2tcp_client(tmp_path, RESOLVER, entrance, "tunnel.test"),
            Asker(RESOLVER) as asker,
        ):
            push(entrance, sink, SIZE)
            incident = wait_for(lambda: _incident(api), "the incident is stored")
            wait_for(lambda: hook.got, "the alert arrives")
    _is_the_tunnel(incident, "127.0.0.1")
    told = str(hook.got[0])
    assert "tunnel[.]test" in told
    assert "tunnel.test" not in told.replace("tunnel[.]test", "")
    assert len(hook.got) <= 2, "one alert an incident, and one more where it became CRITICAL"
    assert asker.lost == 0
    assert len(asker.waits_ms) > 20, "too few to say anything"
    assert statistics.median(asker.waits_ms) < 250
    assert sink.received == SIZE


def test_a_dns2tcp_tunnel_breaks_where_the_case_of_names_is_ours(tmp_path: Path) -> None:
    if shutil.which("dns2tcpc") is None or shutil.which("dns2tcpd") is None or os.geteuid() != 0:
        pytest.skip("needs the Debian package dns2tcp, and root for port 53")
    sink, api, upstream, entrance = Sink(), free_port(), free_port(), free_port()
    settings = {"listen_host": RESOLVER, "listen_port": "53", "api_port": str(api), "api_token": TOKEN}
    with (
        product("run", tmp_path / "data", upstreams=f"tunnel.test=127.0.0.1:{upstream},127.0.0.1:9", **settings),
        dns2tcp_server(tmp_path, sink, upstream, "tunnel.test"),
        dns2tcp_client(tmp_path, RESOLVER, entrance, "tunnel.test"),
        socket.create_connection(("127.0.0.1", entrance), patient(10)) as connection,
    ):
        connection.settimeout(patient(20))
        connection.sendall(os.urandom(1000))
        with contextlib.suppress(OSError):
            while connection.recv(4096):
                continue
    assert sink.received == 0


@pytest.mark.parametrize("kind", ["TXT", "NULL"])
def test_an_iodine_tunnel_is_found_and_stored(tmp_path: Path, kind: str) -> None:
    if reason := iodine.missing():
        pytest.skip(reason)
    sink, api, upstream = Sink("0.0.0.0"), free_port(), free_port()
    settings = {"listen_host": iodine.HERE, "listen_port": "53", "api_port": str(api), "api_token": TOKEN}
    settings["forward"] = "verbatim"
    with (
        iodine.client_space() as space,
        product("run", tmp_path / "data", upstreams=f"tunnel.test=127.0.0.1:{upstream},127.0.0.1:9", **settings),
        iodine.tunnel(tmp_path, space, upstream, "tunnel.test", kind),
    ):
        command = [*space, sys.executable, "-c", PUSH, iodine.INSIDE, str(sink.port), str(SMALL), str(patient(60))]
        subprocess.run(command, check=True, capture_output=True, timeout=patient(90))
        incident = wait_for(lambda: _incident(api, SMALL / 2), "the incident is stored")
    assert sink.received == SMALL
    _is_the_tunnel(incident, iodine.THERE)


def _incident(port: int, leaked_bytes: float = SIZE / 2) -> dict[str, Any] | None:
    answer = httpx.get(f"http://127.0.0.1:{port}/incidents", headers={"Authorization": f"Bearer {TOKEN}"})
    found: list[dict[str, Any]] = answer.json()["incidents"]
    grave = [one for one in found if one["severity"] in {"HIGH", "CRITICAL"} and one["leaked_bytes"] > leaked_bytes]
    return grave[0] if grave else None


def _is_the_tunnel(incident: dict[str, Any], client: str) -> None:
    assert (incident["client"], incident["domain"]) == (client, "tunnel.test")
    assert incident["queries_before_detection"] < 100
    assert incident["bytes_before_detection"] < 5_000
    assert incident["reasons"]
    assert incident["unique_names"] > 100


def _again_in_a_namespace(tmp_path: Path) -> None:
    """Port 53 is for root; in a user and network namespace of one's own, everybody is."""
    inside = ["unshare", "-Urn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root, or user namespaces and iproute2, for port 53")
    pytest_ = [sys.executable, "-m", "pytest", "-m", "e2e", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t")]
    ran = subprocess.run([*inside, *pytest_, __file__], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
