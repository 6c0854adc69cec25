"""`dns-tunnel listen` with all its processes, and a load of DNS queries on it, for tests that kill and starve."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg2

from agents.dns.name import from_text
from tests.support.commands import environment
from tests.support.listening import wait_until
from tests.support.observed import Observed
from tests.support.patience import patient
from tests.support.running import free_port
from tests.support.stubs import StubServer

ODD_EVERY = 4
_RUN = "import sys; from agents.cli.parser import main; sys.exit(main(sys.argv[1:]))"


class Upstream(Protocol):
    """Whatever answers on this port of 127.0.0.1."""

    @property
    def port(self) -> int: ...


class Supervised(Observed):
    """One supervisor in `folder`; `first` is Python that runs before the command line does, in the same process."""

    def __init__(self, folder: Path, upstream: Upstream, first: str = "", **settings: str) -> None:
        self.folder, self.port = folder, free_port()
        folder.mkdir(exist_ok=True)
        self.log = folder / "process.log"
        given = {"LISTEN_PORT": str(self.port), "UPSTREAMS": f"127.0.0.1:{upstream.port}", "DATA_DIR": str(folder)}
        self.settings = given | {"LISTENER_PROCESSES": "2"} | settings
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{first}\n{_RUN}", "listen"],
                cwd=folder,
                env=environment(**self.settings),
                stdout=log,
                stderr=log,
            )

    def wait_ready(self) -> None:
        wait_until(lambda: self.process.poll() is not None or b"listener_started" in self.log.read_bytes(), 30)
        assert self.process.poll() is None, self.log.read_text()

    def kill(self, name: str) -> None:
        """kill -9, and wait until another one is up."""
        old = self.pid(name)
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: self.state().get("processes", {}).get(name, {"pid": old})["pid"] != old, 30)

    def sqlite_names(self) -> list[str]:
        """What is stored, where it is SQLite."""
        with contextlib.closing(sqlite3.connect(self.folder / "data" / "dns-tunnel.db")) as database:
            return [row[0] for row in database.execute("SELECT qname FROM queries")]

    def stop(self) -> int:
        """SIGTERM; the exit code, and the log for whoever reads of a failed test."""
        self.process.terminate()
        code = self.process.wait(patient(30))
        if code:
            print(self.log.read_text())
        return code


@contextlib.contextmanager
def supervised(folder: Path, first: str = "", **settings: str) -> Iterator[Supervised]:
    """A ready one and its upstream, ended with the block."""
    with StubServer() as upstream:
        made = Supervised(folder, upstream, first, **settings)
        try:
            made.wait_ready()
            yield made
        finally:
            if made.process.poll() is None:
                made.process.terminate()
                try:
                    made.process.wait(patient(30))
                finally:
                    made.process.kill()


def replaced(step: Callable[..., Any], by: str) -> str:
    """Python for a supervisor's `first`: the method `step` is replaced by `by`, which defines `replacement`.

    In it the method itself is `real`. The child finds the class where it stands, so that no test names its file.
    """
    owner, _, method = step.__qualname__.rpartition(".")
    return f"""
import os, signal, time
from pathlib import Path
from {step.__module__} import {owner}
real = {owner}.{method}
{by}
{owner}.{method} = replacement
"""


def libraries(pid: int) -> set[str]:
    """Packages of which a process has loaded compiled parts (proc(5), "maps")."""
    return set(re.findall(r"/(?:site|dist)-packages/(\w+)[./]", Path(f"/proc/{pid}/maps").read_text()))


def postgres_names(url: str) -> list[str]:
    """What is stored in a Postgres; nothing while it is away."""
    try:
        connection = psycopg2.connect(url)
    except psycopg2.OperationalError:
        return []
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT qname FROM queries")
        return [str(row[0]) for row in cursor.fetchall()]


def plain(number: int) -> str:
    return f"host{number}.load.test"


class Load(threading.Thread):
    """Asks for `name(0)`, `name(1)`, … from many ports, a few at a time, until stopped; notes what is answered.

    With `under_way` 1 each query waits for the answer to the one before, and all are judged in the order they are sent.
    """

    SOCKETS, UNDER_WAY, PATIENCE_S = 16, 32, 3.0

    def __init__(
        self, port: int, name: Callable[[int], str] = plain, per_s: float = 1000.0, under_way: int = UNDER_WAY
    ) -> None:
        super().__init__(daemon=True)
        self._name, self._pause_s, self._most = name, 1 / per_s, under_way
        self._halt = threading.Event()
        self._sockets = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(self.SOCKETS)]
        for one in self._sockets:
            one.connect(("127.0.0.1", port))
            one.setblocking(False)
        self.sent = 0
        self.answered: set[str] = set()
        self._under_way: dict[int, float] = {}
        self.start()

    def run(self) -> None:
        patience_s = patient(self.PATIENCE_S)
        while not self._halt.wait(self._pause_s):
            self._receive(0)
            now = time.monotonic()
            self._under_way = {n: at for n, at in self._under_way.items() if now - at < patience_s}
            if len(self._under_way) < self._most:
                self._send(now)

    def _send(self, now: float) -> None:
        wire = from_text(self._name(self.sent)) + b"\0"
        head = (self.sent & 0xFFFF).to_bytes(2) + b"\1\0\0\1\0\0\0\0\0\0"
        self._sockets[self.sent % self.SOCKETS].send(head + wire + b"\0\1\0\1")
        self._under_way[self.sent] = now
        self.sent += 1

    def _receive(self, timeout_s: float) -> None:
        for one in select.select(self._sockets, [], [], timeout_s)[0]:
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                while True:
                    ident = int.from_bytes(one.recv(4096)[:2])
                    number = next((n for n in self._under_way if n & 0xFFFF == ident), None)
                    if number is not None:
                        del self._under_way[number]
                        self.answered.add(self._name(number))

    def wait_answered(self, more: int) -> None:
        """Until so many more have been answered."""
        wanted = len(self.answered) + more
        wait_until(lambda: len(self.answered) >= wanted, 30)

    def stop(self) -> None:
        """Ask no more, and wait for the answers that are due."""
        self._halt.set()
        self.join()
        end = time.monotonic() + patient(self.PATIENCE_S)
        while self._under_way and time.monotonic() < end:
            self._receive(0.1)
        for one in self._sockets:
            one.close()


def mixed(number: int) -> str:
    """Plain names, and now and then, on every port of a load, an odd one below its own domain, which is no incident."""
    if (number // Load.SOCKETS + number) % ODD_EVERY:
        return plain(number)
    return f"{hashlib.sha256(str(number).encode()).hexdigest()[:40]}.d{number}.test"


def assert_adds_up(state: dict[str, Any]) -> None:
    """Every query that was finished is somewhere, once."""
    counters = state["counters"]
    assert counters["answered"] + counters["servfail"] == state["scored"] + state["queue_dropped"]
    assert state["scored"] == sum(state[name] for name in ("stored", "spooled", "sampled_out", "lost"))


def lost_for(one: Supervised, per_s: float = 1000.0) -> str:
    """Load it until verdicts are lost, and end it: DNS went on, all adds up, and one line said why; returns that."""
    load = Load(one.port, per_s=per_s)
    wait_until(lambda: one.state().get("lost", 0) > 100, 90)
    load.wait_answered(200)
    load.stop()
    wait_until(lambda: one.state()["queue_waiting"] == 0, 30)
    state = one.next_state()
    assert one.stop() == 0
    assert len(load.answered) == load.sent
    assert_adds_up(state)
    assert list((one.folder / "data" / "spool").glob("*.tmp")) == []
    (error,) = one.events("verdicts_lost")
    return str(error["error"])
