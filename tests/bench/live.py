"""The whole product while it answers: CPU of all its processes at a fixed rate, memory at rest, and the first answer.

The listener runs on the first core, everything else (detector, upstream, probe, database) on the others, at ordinary
priority. A rate counts only where no query was lost, shed or left out of the database: the product says so itself.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench.filling import ordinary
from tests.bench.forwarders import _CORES, _DNSDIST, _ready
from tests.bench.processes import REPOSITORY, cpu_s, dns_tunnel, family, pss_mb
from tests.bench.table import Figure
from tests.support.listening import wait_until
from tests.support.postgres_server import PostgresServer
from tests.support.running import free_port

RATES = (1_000, 5_000, 10_000, 20_000)
RATE, PROBE_S, ROUNDS, STARTS, NAMES = 20_000, 3.0, 3, 5, 300
OURS, OURS_STORED, BASE = "ours, forwarding", "ours, scored and stored", "dnsdist"
_SCORED_S = 30


class Cost(NamedTuple):
    """Microseconds of CPU a query: of all our processes, of the detector among them, of Postgres. lost: a share."""

    cpu_us: float
    detector_us: float
    server_us: float
    lost: float
    shed: int


@contextmanager
def started(
    command: list[str], port: int, core: list[int], answering: list[float] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A forwarder that answers, its listener on the core and its detector wherever there is room.

    `answering` is given the moment of the first answer (time.perf_counter).
    """
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: _ready(port), 60)
            if answering is not None:
                answering.append(time.perf_counter())
            wait_until(lambda: _settled(process.pid), 10)
            for pid in family(process.pid)[:2]:
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), core)
            yield process
        finally:
            process.terminate()
            process.wait(30)


def _settled(pid: int) -> bool:
    """Whether the detector, which is forked after the listener, is there; a forwarder has no children."""
    return len(family(pid)) != 2


def wires(path: Path) -> None:
    """Ordinary names in wire form, in hex, for the probe: few, since many new ones of one client are an incident."""
    path.write_text("\n".join(wire.hex() for wire in ordinary(range(NAMES), NAMES)), "ascii")


def probed(port: int, rate: int, names: Path) -> tuple[int, float]:
    """(queries answered, share lost) of the probe, on the other cores."""
    command = [sys.executable, "-m", "tests.bench.udp", str(port), str(rate), str(PROBE_S), str(names)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    lost = float(json.loads(done.stdout)["lost"])
    return round(rate * PROBE_S * (1 - lost)), lost


def _heard(folder: Path) -> dict[str, int]:
    """What the product says of itself in its sign of life: scored, dropped, left out, not stored."""
    try:
        found = json.loads((folder / "data" / "detector.json").read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {"scored": 0, "shed": 0}
    shed = found["queue_dropped"] + found["unexplained"] + found["sampled_out"]
    return {"scored": found["scored"], "shed": shed}


def cost(process: subprocess.Popen[bytes], port: int, rate: int, names: Path, folder: Path | None,
         server: PostgresServer | None = None) -> Cost:  # fmt: skip
    """Load it at that rate; where it judges (folder: its DATA_DIR), until all that was answered is judged."""
    pids, before = family(process.pid), _heard(folder) if folder else {}
    used, judged = cpu_s(pids), cpu_s(pids[-1:])
    stored = server.cpu_seconds() if server else 0.0
    answered, lost = probed(port, rate, names)
    shed = 0
    if folder is not None:
        wait_until(lambda: _heard(folder)["scored"] >= before["scored"] + answered, _SCORED_S)
        shed = _heard(folder)["shed"] - before["shed"]
    each = 1e6 / answered
    mine, detector = cpu_s(pids) - used, cpu_s(pids[-1:]) - judged if folder else 0.0
    return Cost(mine * each, detector * each, (server.cpu_seconds() - stored) * each if server else 0.0, lost, shed)


def costs(directory: Path, rates: tuple[int, ...]) -> dict[str, dict[int, list[Cost]]]:
    """Each forwarder at each rate, ROUNDS times in turn, all beside one upstream."""
    names, port, server = directory / "wires.txt", free_port(), PostgresServer(directory)
    wires(names)
    found: dict[str, dict[int, list[Cost]]] = {}
    upstream = subprocess.Popen([sys.executable, "-m", "tests.bench.udp"], cwd=REPOSITORY, stdout=subprocess.PIPE)
    try:
        assert upstream.stdout is not None
        bare, folder = int(upstream.stdout.readline()), directory / "product"
        (directory / "dnsdist.conf").write_text(_DNSDIST.format(port=port, upstream=bare), "utf-8")
        settings = {"LISTEN_PORT": str(port), "UPSTREAMS": f"127.0.0.1:{bare}", "LISTENER_PROCESSES": "1"}
        judging = dns_tunnel(folder, "listen", DATABASE_URL=server.url, **settings)
        commands = {
            BASE: ["dnsdist", "--supervised", "-C", str(directory / "dnsdist.conf")],
            OURS: [sys.executable, "-m", "tests.bench.bare", str(port), str(bare)],
            OURS_STORED: judging,
        }
        for _ in range(ROUNDS):
            for name, command in commands.items():
                own = folder if name == OURS_STORED else None
                with started(command, port, _CORES[:1]) as process:
                    cost(process, port, rates[0], names, own)  # warm
                    for rate in rates:
                        once = cost(process, port, rate, names, own, server if own else None)
                        found.setdefault(name, {}).setdefault(rate, []).append(once)
    finally:
        upstream.terminate()
        upstream.wait()
        server.stop()
    return found


def middle(found: list[Cost], of: str) -> float:
    """The median of the rounds."""
    return float(statistics.median(getattr(one, of) for one in found))


def live(directory: Path) -> Iterator[Figure]:
    """CPU a query at RATE, as sums over processes, beside dnsdist's at that rate."""
    found = {name: rates[RATE] for name, rates in costs(directory, (RATE,)).items()}
    base, ours = middle(found[BASE], "cpu_us"), found[OURS_STORED]
    lost, shed = max(one.lost for one in ours), max(one.shed for one in ours)
    at = f"at {RATE:,}/s"
    yield Figure(f"{OURS}: CPU per query {at}", middle(found[OURS], "cpu_us"), "µs", base, BASE)
    what = f"{OURS_STORED} ({lost:.2%} lost, {shed} shed), without Postgres"
    yield Figure(f"{what}: CPU per query {at}", middle(ours, "cpu_us"), "µs", base, BASE)
    detector, server = middle(ours, "detector_us"), middle(ours, "server_us")
    yield Figure("… of it the detector: judging and the client's side of storing", detector, "µs", base, BASE)
    yield Figure("… beside it Postgres", server, "µs", base, BASE)
    whole = middle(ours, "cpu_us") + server
    yield Figure("live, answered, scored and stored a core, Postgres counted", 1e6 / whole, "/s", 1e6 / base, BASE)
    yield Figure("… without what answering costs", 1e6 / (detector + server), "/s", 1e6 / base, BASE)


def footprint(directory: Path) -> Iterator[Figure]:
    """Memory of all processes at rest, of a million domains, and start to first answer."""
    port, answering = free_port(), list[float]()
    took, memory, bare = list[float](), list[float](), list[float]()
    with subprocess.Popen([sys.executable, "-m", "tests.bench.stub"], cwd=REPOSITORY, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as stub:  # fmt: skip
        assert stub.stdout is not None
        settings = {"LISTEN_PORT": str(port), "UPSTREAMS": f"127.0.0.1:{int(stub.stdout.readline())}"}
        for _ in range(STARTS):
            begun = time.perf_counter()
            with started(dns_tunnel(directory, "listen", **settings), port, _CORES, answering) as process:
                took.append(answering[-1] - begun)
                memory.append(sum(map(pss_mb, family(process.pid))))
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import numpy"], check=True)
            bare.append(time.perf_counter() - begun)
        stub.terminate()
    against = "Python with NumPy"
    yield Figure("start to first answer", statistics.median(took), "s", statistics.median(bare), against)
    yield Figure("listeners and detector idle, all processes", statistics.median(memory), "MB", 350, "the target")
    million = {"queries": 1_000_000, "names": 1_000_000, "domains": 1_000_000, "clients": 5_000, "keys": 1_000_000}
    yield Figure("a million domains in the windows", filled(**million)["grown_mb"], "MB", 250, "the target")


def filled(**options: float) -> dict[str, float]:
    """The detector over made-up queries, in a process of its own (filling.py)."""
    command = [sys.executable, "-m", "tests.bench.filling", *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    found: dict[str, float] = json.loads(done.stdout)
    return found
