"""iodine with its client in a network namespace of its own: a real VPN through DNS. Needs root and /dev/net/tun."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.running import process, wait_for

HERE, THERE = "10.98.53.1", "10.98.53.2"
"""Our end of the wire, where the resolver listens, and the client's."""
INSIDE = "10.99.53.1"
"""The server's address in the tunnel."""
PASSWORD = "not-a-secret"
PROGRAMS = ("iodined", "iodine", "ip")


def missing() -> str:
    """Why iodine cannot run here; empty where it can."""
    if os.geteuid() != 0:
        return "needs root, for a network namespace and a TUN device"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    gone = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs the Debian packages iodine and iproute2: no {', '.join(gone)}" if gone else ""


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@contextlib.contextmanager
def client_space() -> Iterator[list[str]]:
    """A namespace joined to ours by a wire; yields what to put in front of a command to run it there."""
    space, wire = f"iodine{os.getpid()}", f"i{os.getpid()}"
    try:
        _ip("netns", "add", space)
        _ip("link", "add", f"{wire}a", "type", "veth", "peer", "name", f"{wire}b", "netns", space)
        _ip("addr", "add", f"{HERE}/30", "dev", f"{wire}a")
        _ip("link", "set", f"{wire}a", "up")
        _ip("-n", space, "addr", "add", f"{THERE}/30", "dev", f"{wire}b")
        _ip("-n", space, "link", "set", f"{wire}b", "up")
        yield ["ip", "netns", "exec", space]
    finally:
        _ip("link", "del", f"{wire}a", check=False)
        _ip("netns", "del", space, check=False)


@contextlib.contextmanager
def tunnel(directory: Path, space: list[str], port: int, zone: str, kind: str) -> Iterator[None]:
    """iodined on 127.0.0.1:`port`, and a client that reaches it through the resolver at HERE."""
    server = ["iodined", "-f", "-c", "-P", PASSWORD, "-l", "127.0.0.1", "-p", str(port)]
    server += ["-d", f"s{os.getpid()}", f"{INSIDE}/27", zone]
    client = [*space, "iodine", "-f", "-r", "-P", PASSWORD, "-d", "dns0", "-T", kind, "-m", "400", HERE, zone]
    there, here = directory / "iodined.log", directory / "iodine.log"
    with process(server, there):
        wait_for(lambda: b"Listening to dns" in there.read_bytes(), "iodined listens", 10)
        with process(client, here):
            wait_for(lambda: b"Connection setup complete" in here.read_bytes(), "the tunnel stands", 60)
            yield
