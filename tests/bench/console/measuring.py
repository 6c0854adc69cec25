"""A console as a process of its own, and how long its pages take, one after another, to their last byte."""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from tests.bench.load import percentile
from tests.bench.processes import REPOSITORY, cpu_s, dns_tunnel, family
from tests.support.listening import wait_until
from tests.support.running import free_port

TOKEN = "a token of sixteen characters and more"
PAGE_MS, PAGE_P99_MS, NAMES_MS = 300.0, 1_000.0, 2_000.0
"""What a page may take at the median and at p99, and a search for a part of a name."""
Address = Callable[[int], str]
"""The path of a page in its n-th round: each round asks for another client, domain or day."""


class Took(NamedTuple):
    """What a page took, milliseconds; cpu: of the console's processes, on average."""

    page: str
    median: float
    p99: float
    cpu: float
    budget: float

    @property
    def within(self) -> bool:
        return self.median <= self.budget and self.p99 <= max(PAGE_P99_MS, self.budget)


class Session:
    """Somebody who has logged in, on one connection."""

    def __init__(self, port: int) -> None:
        self._port, self.cookie = port, ""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        form = urlencode({"password": TOKEN, "name": "bench", "next": "/"})
        self._connection.request("POST", "/login", form, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = self._connection.getresponse()
        answer.read()
        self.cookie = answer.headers.get("Set-Cookie", "").partition(";")[0]
        assert self.cookie, f"cannot log in: {answer.status}"

    def get(self, path: str) -> bytes:
        """The page. AssertionError for an answer that is none."""
        self._connection.request("GET", path, headers={"Cookie": self.cookie})
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 200, f"{path}: {answer.status}"
        return body

    def stream(self) -> http.client.HTTPConnection:
        """A tab that is open on the live page."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", "/console/events", headers={"Cookie": self.cookie})
        assert connection.getresponse().status == 200
        return connection


@contextmanager
def console(directory: Path, url: str, command: str = "api", **settings: str) -> Iterator[tuple[int, int]]:
    """`dns-tunnel api` over a database: its port and the number of its process."""
    port = free_port()
    known = {"API_PORT": str(port), "API_TOKEN": TOKEN, "DATABASE_URL": url, "UPSTREAMS": "127.0.0.1:9"}
    settings = known | settings
    log = directory / "console.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            dns_tunnel(directory, command, **settings), cwd=REPOSITORY, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            wait_until(lambda: process.poll() is not None or _answers(port), 90)
            assert process.poll() is None, log.read_text("utf-8", "replace")
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(60)


def _answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/login")
        return connection.getresponse().status == 200
    except OSError:
        return False


def took(session: Session, pid: int, page: str, address: Address, rounds: int, budget: float = PAGE_MS) -> Took:
    """One page, asked for again and again."""
    times, pids = [], family(pid)
    before = cpu_s(pids)
    for number in range(rounds):
        begun = time.perf_counter()
        session.get(address(number))
        times.append((time.perf_counter() - begun) * 1e3)
    cpu = (cpu_s(pids) - before) / rounds * 1e3
    return Took(page, percentile(times, 0.5), percentile(times, 0.99), cpu, budget)


def table(title: str, rows: Sequence[Took]) -> str:
    """The figures, those that are over their budget marked."""
    lines = [f"| {title} | median, ms | p99, ms | CPU, ms | budget, ms |", "|---|---:|---:|---:|---:|"]
    for one in rows:
        over = "" if one.within else " (over)"
        lines.append(f"| {one.page} | {one.median:,.0f} | {one.p99:,.0f} | {one.cpu:,.0f} | {one.budget:,.0f}{over} |")
    return "\n".join(lines)
