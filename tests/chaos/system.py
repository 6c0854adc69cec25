"""The product with all that it stands between, what it counted over all its lives, and its memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psycopg2

from tests.chaos.surroundings import Channel, Relay, Upstream, WallClock, Worker, small_disk
from tests.e2e.overload import memory_mb
from tests.support.listening import wait_until
from tests.support.live import Running
from tests.support.patience import patient
from tests.support.postgres_server import PostgresServer

HANG_S, FLOWS_MAX, DATA_KB, SPOOL_KB = 5, 20_000, 131_072, 16_384
SAMPLE_S = 1.0
TOLD_S = 300
"""A channel that failed several times in a row is not tried for minutes."""
JUDGED = ("answered", "servfail", "cache_hits", "cache_stale")
"""Messages that end as a record, of those that come to an end."""
ENDS = ("malformed", "refused", "notimp", "rejected", "rate_dropped", "rate_slipped", "local", *JUDGED)
"""What a message comes to at a listener; what is missing was in flight when a listener was killed."""


@cache
def can_mount() -> bool:
    """Whether a disk can be made that is soon full."""
    if os.geteuid() or shutil.which("mount") is None:
        return False
    folder = tempfile.mkdtemp()
    try:
        with small_disk(Path(folder) / "disk", SPOOL_KB):
            return True
    except subprocess.CalledProcessError:
        return False
    finally:
        shutil.rmtree(folder)


def can_set_clock() -> bool:
    """Whether the product can be given a wall clock of its own."""
    return sys.platform == "linux" and shutil.which("cc") is not None


@dataclass
class Memory:
    """Proportional set size of all processes, megabytes, by seconds since the start."""

    pid: Callable[[], int]
    begun: float = field(default_factory=time.monotonic)
    samples: list[tuple[float, float]] = field(default_factory=list)

    def look(self) -> None:
        """One sample; none where a process ended meanwhile."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self.samples.append((time.monotonic() - self.begun, memory_mb(self.pid())))
        time.sleep(SAMPLE_S)

    def third(self, number: int) -> list[float]:
        """The samples of one third of the time."""
        end = self.samples[-1][0]
        return [size for at, size in self.samples if number * end / 3 <= at <= (number + 1) * end / 3]


@dataclass
class System:
    """All that a run needs."""

    product: Running
    postgres: PostgresServer
    relay: Relay
    channel: Channel
    upstreams: dict[str, Upstream]
    disks: list[Path]  # of DATA_DIR and of the spool, small ones; none where none can be made
    clock: WallClock | None
    memory: Memory

    @property
    def port(self) -> int:
        return self.product.dns_port

    def healthy(self) -> bool:
        """Whether /health finds nothing to say but that a channel failed lately, and what was lost on a full disk.

        Losses stay until a person acknowledges them.
        """
        try:
            parts = self.product.client.get("/health").json()["components"]
        except httpx.TransportError:
            return False
        waiting = parts["queue"].get("waiting", 1)
        return not waiting and all(parts[name].get("ok") for name in ("database", "listener", "overload"))

    def restart(self) -> None:
        """SIGTERM, and start again: the queries that come meanwhile are the clients' to repeat."""
        try:
            code = self.product.stop()
        except subprocess.TimeoutExpired:
            self.product.kill()
            code = -signal.SIGKILL
        self.product.restart()
        assert code == 0, f"the product ended with {code}"

    def rest(self) -> None:
        """Until all that was seen has been judged, nothing waits on disk, and no message waits for its channel."""
        self.product.rested()
        wait_until(lambda: not any(one["waiting"] for one in self.product.state()["channels"].values()), TOLD_S)

    def counted(self) -> Counter[str]:
        """Sums over all lives, from the last line of each."""
        found: Counter[str] = Counter()
        for life in self.product.events("stopped"):
            numbers = {name: value for name, value in life.items() if isinstance(value, int)}
            found.update(numbers | life["counters"])
            for process in life["processes"].values():
                found.update({"restarts": process["restarts"], "hangs": process["hangs"]})
        return found

    def rows(self) -> int:
        """Stored queries."""
        return int(self._found("SELECT count(*) FROM queries")[0][0])

    def domains(self) -> set[str]:
        """Domains of which an incident is stored."""
        return {str(row[0]) for row in self._found("SELECT DISTINCT domain FROM incidents")}

    def _found(self, statement: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(psycopg2.connect(self.postgres.url)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()


@contextlib.contextmanager
def system(folder: Path) -> Iterator[System]:
    """Start all, and end all."""
    with contextlib.ExitStack() as stack:
        postgres = PostgresServer(folder)
        stack.callback(postgres.stop)
        relay, channel = Relay(postgres.port), Channel()
        upstreams = {name: Upstream(mode) for name, mode in (("first", "true"), ("second", "true"), ("mute", "silent"))}
        for close in (relay.close, channel.close, *(one.close for one in upstreams.values())):
            stack.callback(close)
        ports = {name: one.port for name, one in upstreams.items()}
        data = folder / "product"
        disks = {data: DATA_KB, data / "data" / "spool": SPOOL_KB} if can_mount() else {}
        for disk, size_kb in disks.items():
            stack.enter_context(small_disk(disk, size_kb))
        data.mkdir(exist_ok=True)
        clock = WallClock(folder) if can_set_clock() else None
        product = Running(
            data,
            upstreams["first"],
            folder / "process.log",
            **(clock.settings if clock else {}),
            UPSTREAMS="127.0.0.1:{first},127.0.0.1:{second},silent.test=127.0.0.1:{mute}".format_map(ports),
            DATABASE_URL=postgres.url.replace(str(postgres.port), str(relay.port)),
            SLACK_WEBHOOK_URL=channel.url,
            BURN_IN_DAYS="0",
            LISTENER_PROCESSES="2",
            HANG_S=str(HANG_S),
            FORWARD="verbatim",
            FLOWS_MAX=str(FLOWS_MAX),
            RATE_EXEMPT="127.0.0.1/32",
            ALERT_INTERVAL_S="5",
            ALERTS_PER_HOUR_MAX="1000",
        )
        stack.callback(product.close)
        product.wait_ready()
        memory = Memory(lambda: product.process.pid)
        stack.callback(Worker(memory.look).stop)
        yield System(product, postgres, relay, channel, upstreams, list(disks), clock, memory)


def soon(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition that looks at files and processes, not in every millisecond."""
    end = time.monotonic() + patient(seconds)
    while not condition():
        assert time.monotonic() < end, f"it did not come true within {seconds:g} s"
        time.sleep(0.1)
