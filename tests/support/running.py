"""`dns-tunnel` and other programs as processes of their own, for tests."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.patience import patient

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def process(command: list[str], log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process while the block lasts; ended by SIGTERM, or SIGKILL where that does not do."""
    with log.open("wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(patient(20))
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextlib.contextmanager
def product(command: str, directory: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """`dns-tunnel COMMAND` on a DATA_DIR of its own, with these settings and no others; ready when it says so."""
    clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    env = clean | {name.upper(): value for name, value in settings.items()}
    env |= {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "DATA_DIR": str(directory)}
    directory.mkdir(exist_ok=True)
    log = directory / "process.log"
    with process([sys.executable, "-m", "agents", command], log, env) as started:
        wait_for(
            lambda: b"listener_started" in log.read_bytes() or started.poll() is not None, "the listener starts", 60
        )
        assert started.poll() is None, log.read_text()
        yield started


def free_port() -> int:
    """A port that is free for UDP and TCP on loopback, below those that the kernel gives to clients."""
    while True:
        port = random.randrange(10_240, 32_768)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 60) -> Any:
    """The first true value of the condition. AssertionError if there is none in time."""
    deadline = time.monotonic() + patient(timeout_s)
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s in vain: {what}"
        time.sleep(0.2)
    return found
