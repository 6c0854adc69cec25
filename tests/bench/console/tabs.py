"""What tabs that are open on the live page cost each process of `dns-tunnel run`, beside queries that it answers."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from agents.runtime import warmup
from tests.bench.console.measuring import Session, console
from tests.bench.live import wires
from tests.bench.processes import REPOSITORY, family
from tests.support.listening import wait_until
from tests.support.running import free_port

TABS, WATCHED_S, ROUNDS = 50, 10.0, 5
"""Tabs that are open; for how long they are watched, and how often: each time between two spans without them."""
LOAD = 200
"""Queries a second that are answered meanwhile."""
PROCESSES = ("supervisor", "listener", "detector", "console")
"""Processes of `run` in the order in which they begin."""
_UDP = [sys.executable, "-m", "tests.bench.udp"]


class Watched(NamedTuple):
    """CPU of one process, seconds a second: without a tab, with tabs, and without one again, in each round."""

    process: str
    rounds: Sequence[tuple[float, float, float]]

    @property
    def alone(self) -> float:
        """The median of all spans without a tab."""
        return statistics.median(one for before, _, after in self.rounds for one in (before, after))

    @property
    def with_tabs(self) -> float:
        return statistics.median(tabs for _, tabs, _ in self.rounds)

    @property
    def ratio(self) -> float:
        """With tabs to without, of the same round: the median."""
        return self._to_alone(lambda before, tabs, after: tabs)

    @property
    def noise(self) -> float:
        """By which share two spans of a round without a tab differ: the median."""
        return self._to_alone(lambda before, tabs, after: abs(after - before))

    def _to_alone(self, what: Callable[[float, float, float], float]) -> float:
        """The median of what a round has to its mean without a tab; not a number where none used any CPU."""
        used = [(what(*one), (one[0] + one[2]) / 2) for one in self.rounds]
        return statistics.median([part / alone for part, alone in used if alone] or [math.nan])


def tabs(directory: Path, say: Callable[[str], None]) -> None:
    """CPU of each process of `dns-tunnel run` that answers LOAD queries a second, without a tab and with TABS."""
    warmup.up(say)
    with _loaded(directory) as (port, pid):
        wait_until(lambda: len(family(pid)) == len(PROCESSES), 30)
        found = watched(Session(port), pid)
    say(f"CPU of each process of `run` at {LOAD} queries a second, seconds a second, without a tab and with {TABS};")
    say(f"their ratio, and by how much two spans without a tab differ (medians of {ROUNDS} rounds of 3 times")
    say(f"{WATCHED_S:g} s):")
    say("| process | without | with | ratio | noise |")
    say("|---|---:|---:|---:|---:|")
    for one in found:
        say(f"| {one.process} | {one.alone:.2%} | {one.with_tabs:.2%} | {one.ratio:.2f} | {one.noise:.0%} |")


@contextmanager
def _loaded(directory: Path) -> Iterator[tuple[int, int]]:
    """`run` while it answers: the console's port, and the number of the first process."""
    names, listen_port = directory / "wires.txt", free_port()
    wires(names)
    with subprocess.Popen(_UDP, cwd=REPOSITORY, stdout=subprocess.PIPE) as upstream:
        assert upstream.stdout is not None
        listen = {"LISTEN_PORT": str(listen_port), "LISTEN_HOST": "127.0.0.1", "LISTENER_PROCESSES": "1"}
        listen["UPSTREAMS"] = f"127.0.0.1:{int(upstream.stdout.readline())}"
        try:
            with console(directory, f"sqlite:///{directory / 'tabs.db'}", "run", **listen) as found:
                asked = [*_UDP, str(listen_port), str(LOAD), str(6 * ROUNDS * WATCHED_S + 120), str(names)]
                with subprocess.Popen(asked, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as load:
                    try:
                        yield found
                    finally:
                        load.kill()
        finally:
            upstream.kill()


def watched(session: Session, pid: int) -> list[Watched]:
    """CPU of each process of a console's family: ROUNDS times without a tab, with TABS of them, and without one."""
    pids, rounds = family(pid), list[tuple[Mapping[int, float], ...]]()
    _cpu_a_second(pids)  # what begins with the process is done by then
    for _ in range(ROUNDS):
        before, open_tabs = _cpu_a_second(pids), [session.stream() for _ in range(TABS)]
        try:
            with_tabs = _cpu_a_second(pids)
        finally:
            for one in open_tabs:
                one.close()
        rounds.append((before, with_tabs, _cpu_a_second(pids)))
    return [
        Watched(name, [(before[one], tabs[one], after[one]) for before, tabs, after in rounds])
        for name, one in zip(PROCESSES, pids, strict=True)
    ]


def _cpu_a_second(pids: Sequence[int]) -> dict[int, float]:
    before, begun = {one: _cpu_s(one) for one in pids}, time.perf_counter()
    time.sleep(WATCHED_S)
    span = time.perf_counter() - begun
    return {one: (_cpu_s(one) - before[one]) / span for one in pids}


def _cpu_s(pid: int) -> float:
    """CPU of all threads that a process has, by the nanosecond (kernel documentation, "sched-stats")."""
    used = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # one that has just ended
            used += int((thread / "schedstat").read_text("ascii").split()[0])
    return used / 1e9
