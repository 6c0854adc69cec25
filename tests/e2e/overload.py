"""dnsperf, an upstream that keeps up with it, and the memory of all processes of a listener."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.running import ROOT


class FastUpstream:
    """A process that answers as fast as Python can, at 127.0.0.1:`port`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.stub"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@contextlib.contextmanager
def fast_upstream() -> Iterator[FastUpstream]:
    made = FastUpstream()
    try:
        yield made
    finally:
        made.close()


def perf(port: int, names: Path, seconds: int, under_way: int, per_s: int = 0) -> subprocess.Popen[bytes]:
    """dnsperf, started; so many queries under way at once at most, and per second, 0 = as fast as it can.

    What it says is in report_of(names): a pipe would fill up with its line for every query without an answer.
    """
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(names), "-l", str(seconds), "-c", "16"]
    command += ["-T", "1", "-q", str(under_way), "-t", "1", *(["-Q", str(per_s)] if per_s else [])]
    with report_of(names).open("wb") as out:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL)


def report_of(names: Path) -> Path:
    """Where dnsperf's report on these names lies."""
    return names.with_suffix(".report")


def figure(names: Path, name: str) -> float:
    """One number of dnsperf's statistics."""
    report = report_of(names).read_text()[-2000:]
    found = re.search(rf"{name}:\s+([\d.]+)", report)
    assert found, report
    return float(found[1])


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def memory_mb(pid: int) -> float:
    """Proportional set sizes of a process and all below it, summed: shared pages count once."""
    texts = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in family(pid)]
    return sum(int(found[1]) for text in texts if (found := re.search(r"^Pss:\s+(\d+) kB", text, re.M))) / 1024
