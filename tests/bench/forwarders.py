"""Forwarders beside ours: dnsdist, unbound and dnsmasq as the distribution ships them, on high ports of loopback, each
with a configuration of its own in a temporary folder: without a cache, and what a hit in the cache costs beside that.

Every one is pinned to the first core, load and upstream to the others, all of them before other work of the machine
where the user may ask for that. CPU is what the kernel counted for the process
(utime + stime of proc(5), all threads) while dnsperf had 500 queries under way, divided by the queries answered.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.bench.load import latencies, messages
from tests.bench.table import Figure
from tests.support.listening import wait_until

REPOSITORY = Path(__file__).parent.parent.parent
ROUNDS, LOAD_S, PROBE_S = 3, 3, 2.0
RATES = (1_000, 10_000)
NAMES = 50_000
_ASKED = [b"\4warm\7example"]
_TICKS = os.sysconf("SC_CLK_TCK")
_CORES = sorted(os.sched_getaffinity(0))
OURS, OURS_JUDGING, BASE = "ours", "ours, judging and storing", "dnsdist"

_DNSDIST = """setLocal("127.0.0.1:{port}")
newServer({{address="127.0.0.1:{upstream}", checkInterval=60}})
setMaxUDPOutstanding(65535)
"""
_DNSDIST_CACHED = _DNSDIST + 'getPool(""):setCache(newPacketCache(100000))\n'
_UNBOUND = """server:
  interface: 127.0.0.1@{port}
  port: {port}
  num-threads: 1
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  logfile: ""
  use-syslog: no
  module-config: "iterator"
  do-not-query-localhost: no
  msg-cache-size: 0
  rrset-cache-size: 0
  outgoing-range: 8192
  num-queries-per-thread: 4096
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{upstream}
"""
_UNBOUND_CACHED = _UNBOUND.replace("-cache-size: 0", "-cache-size: 64m")
CACHED_NAMES = 1_000
"""Names that are asked again and again, for hits; each is in the cache before it is measured."""
CACHED = ", from its cache"


class Forwarder(NamedTuple):
    """How to start one; `program` is what must be installed for it.

    One that judges is not probed: pinned to one core at one priority, its answers wait for its judging.
    """

    name: str
    program: str
    command: list[str]
    files: Mapping[str, str] = {}
    settings: Mapping[str, str] = {}
    probed: bool = True


def forwarders(folder: Path, port: int, upstream: int) -> list[Forwarder]:
    """All of them, on the same port: they run one after the other."""
    values = {"port": port, "upstream": upstream, "folder": folder}
    dnsmasq = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--no-resolv", "--no-hosts"]
    dnsmasq += [f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces", f"--server=127.0.0.1#{upstream}"]
    dnsmasq += ["--cache-size=0", "--dns-forward-max=8192", "--user=", "--log-facility=-"]
    ours = {"LISTEN_PORT": str(port), "UPSTREAMS": f"127.0.0.1:{upstream}", "DATA_DIR": str(folder / "data")}
    return [
        Forwarder(BASE, "dnsdist", ["dnsdist", "--supervised", "-C", str(folder / "dnsdist.conf")],
                  {"dnsdist.conf": _DNSDIST.format(**values)}),
        Forwarder(OURS, sys.executable, [sys.executable, "-m", "tests.bench.bare", str(port), str(upstream)]),
        Forwarder(OURS_JUDGING, sys.executable, [sys.executable, "-m", "agents", "listen"],
                  settings=ours, probed=False),
        Forwarder("unbound", "unbound", ["unbound", "-d", "-c", str(folder / "unbound.conf")],
                  {"unbound.conf": _UNBOUND.format(**values)}),
        Forwarder("dnsmasq", "dnsmasq", dnsmasq),
    ]  # fmt: skip


def with_caches(folder: Path, port: int, upstream: int) -> list[Forwarder]:
    """Those that have a cache in the same process, with it."""
    values = {"port": port, "upstream": upstream, "folder": folder}
    files = {
        BASE: {"dnsdist.conf": _DNSDIST_CACHED.format(**values)},
        OURS: {},
        "unbound": {"unbound.conf": _UNBOUND_CACHED.format(**values)},
    }
    found = [one for one in forwarders(folder, port, upstream) if one.name in files]
    return [
        one._replace(
            name=one.name + CACHED,
            files=files[one.name],
            command=[*one.command, "32"] if one.name == OURS else one.command,
            probed=False,
        )
        for one in found
    ]


def _placed(cores: Sequence[int]) -> None:
    """Pin the process; where that is allowed (root), let it go before other work."""
    os.sched_setaffinity(0, cores)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


@contextmanager
def running(command: Sequence[str], cores: Sequence[int], **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A process on these cores, ended with the block."""
    environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin", "PYTHONPATH": str(REPOSITORY), "LOG_LEVEL": "error"}
    with subprocess.Popen(
        list(command),
        cwd=REPOSITORY,
        env=environment | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: _placed(cores),
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def cpu_s(pid: int) -> float:
    """User and system time of a process, all its threads and the children it has."""
    total = 0.0
    for task in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = task.read_text("ascii", "replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(task.parent.name) == pid or int(fields[1]) == pid:
            total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def load(port: int, names: Path, cores: Sequence[int]) -> tuple[int, float]:
    """(queries answered, seconds) of dnsperf."""
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(names), "-l", str(LOAD_S)]
    command += ["-q", "500", "-c", "8"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=lambda: _placed(cores))
    answered = re.search(r"Queries completed:\s+(\d+)", done.stdout)
    took = re.search(r"Run time \(s\):\s+([\d.]+)", done.stdout)
    assert answered and took, done.stdout
    return int(answered[1]), float(took[1])


def probed(port: int, rate: int, wires: Path, cores: Sequence[int]) -> dict[str, float]:
    """Latencies of the probe, a process of its own."""
    command = [sys.executable, "-m", "tests.bench.udp", str(port), str(rate), str(PROBE_S), str(wires)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=REPOSITORY,
        preexec_fn=lambda: _placed(cores),
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _ready(port: int) -> bool:
    try:
        return bool(latencies(port, messages(_ASKED), 1.0))
    except ConnectionRefusedError:
        return False


class Measured(NamedTuple):
    """One round of one forwarder. Microseconds; latencies by rate."""

    cpu_us: float
    rate: float
    latency: dict[int, dict[str, float]]


def measure(one: Forwarder, folder: Path, port: int, names: Path, wires: Path) -> Measured:
    """Start it, load it, probe it, end it."""
    for name, text in one.files.items():
        (folder / name).write_text(text, "utf-8")
    own, others = _CORES[:1], _CORES[1:] or _CORES
    with running(one.command, own, **one.settings) as process:
        wait_until(lambda: _ready(port), 60)
        load(port, names, others)  # warm: sockets, memory, what is compiled on first use
        before = cpu_s(process.pid)
        answered, took = load(port, names, others)
        used = cpu_s(process.pid) - before
        latency = {rate: probed(port, rate, wires, others) for rate in RATES if one.probed}
    return Measured(used / answered * 1e6, answered / took, latency)


def hits(directory: Path, free_port: int) -> Iterator[Figure]:
    """CPU of a query that the cache answers beside one that is forwarded, each forwarder beside itself."""
    os.environ["PATH"] += ":/usr/sbin"
    if not shutil.which("dnsperf"):
        print("caches skipped: dnsperf is not installed", file=sys.stderr)
        return
    names, few, wires = (directory / name for name in ("names.txt", "few.txt", "wires.txt"))
    lines = [f"h{number:x}{'x' * (number * 7 % 24)}.bench.example A\n" for number in range(NAMES)]
    names.write_text("".join(lines), "ascii")
    few.write_text("".join(lines[:CACHED_NAMES]), "ascii")
    found: dict[str, list[float]] = {}
    others = _CORES[1:] or _CORES
    with running([sys.executable, "-m", "tests.bench.udp"], others) as upstream:
        assert upstream.stdout is not None
        bare = int(upstream.stdout.readline())
        load(bare, few, others)
        before = cpu_s(upstream.pid)
        floor = load(bare, few, others)[0] / (cpu_s(upstream.pid) - before)
        cached = [one for one in with_caches(directory, free_port, bare) if shutil.which(one.program)]
        plain = [one._replace(probed=False) for one in forwarders(directory, free_port, bare)]
        for _ in range(ROUNDS):
            for hit in cached:
                for one in (next(one for one in plain if one.name + CACHED == hit.name), hit):
                    asked = few if one is hit else names
                    used = measure(one, directory, free_port, asked, wires).cpu_us
                    found.setdefault(one.name, []).append(used)
    for hit in cached:
        forwarded = hit.name.removesuffix(CACHED)
        cost, base = statistics.median(found[hit.name]), statistics.median(found[forwarded])
        yield Figure(f"{hit.name}: CPU per query", cost, "µs", base, f"{forwarded}, forwarded")
        if forwarded == OURS:
            yield Figure("a datagram in and one out: CPU", 1e6 / floor, "µs", base, f"{forwarded}, forwarded")


def compared(directory: Path, free_port: int, only: Sequence[str] = ()) -> Iterator[Figure]:
    """Each forwarder's figures beside dnsdist's of the same run: medians of ROUNDS rounds, in turn."""
    os.environ["PATH"] += ":/usr/sbin"
    for program in ("dnsperf", "dnsdist"):
        if not shutil.which(program):
            print(f"forwarders skipped: {program} is not installed", file=sys.stderr)
            return
    names, wires = directory / "names.txt", directory / "wires.txt"
    # of 24 lengths in turn, as real names are: what depends on equal sizes must not look better than it is
    made = [f"h{number:x}{'x' * (number * 7 % 24)}" for number in range(NAMES)]
    names.write_text("".join(f"{label}.bench.example A\n" for label in made), "ascii")
    tail = b"\5bench\7example"
    wires.write_text("\n".join((bytes([len(label)]) + label.encode() + tail).hex() for label in made[:10_000]), "ascii")
    others = _CORES[1:] or _CORES
    with running([sys.executable, "-m", "tests.bench.udp"], others) as upstream:
        assert upstream.stdout is not None
        bare = int(upstream.stdout.readline())
        found: dict[str, list[Measured]] = {}
        chosen = [one for one in forwarders(directory, free_port, bare) if not only or one.name in (BASE, *only)]
        for one in chosen:
            if not shutil.which(one.program):
                print(f"{one.name} skipped: {one.program} is not installed", file=sys.stderr)
        for _ in range(ROUNDS):
            for one in chosen:
                if shutil.which(one.program):
                    measured = measure(one, directory, free_port, names, wires)
                    found.setdefault(one.name, []).append(measured)
        direct = {rate: probed(bare, rate, wires, others) for rate in RATES}
    yield from _figures(found, direct)


def _figures(found: Mapping[str, list[Measured]], direct: Mapping[int, Mapping[str, float]]) -> Iterator[Figure]:
    def median(name: str, of: str, rate: int = 0) -> float:
        rounds = found[name]
        return statistics.median(one.latency[rate][of] if rate else getattr(one, of) for one in rounds)

    for name in found:
        yield Figure(f"{name}: CPU per query", median(name, "cpu_us"), "µs", median(BASE, "cpu_us"), BASE)
        yield Figure(f"{name}: answered on one core", median(name, "rate"), "/s", median(BASE, "rate"), BASE)
    for rate in RATES:
        for part in ("p50", "p99"):
            base = median(BASE, part, rate)
            yield Figure(f"upstream alone, {rate:,}/s: {part}", direct[rate][part], "µs", base, BASE)
            for name in (name for name, rounds in found.items() if rounds[0].latency):
                yield Figure(f"{name}, {rate:,}/s: {part}", median(name, part, rate), "µs", base, BASE)
