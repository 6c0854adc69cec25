"""The product as processes of its own, and what the kernel counted for them."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")


def dns_tunnel(directory: Path, *arguments: str, **settings: str) -> list[str]:
    """The command line of the program in a directory of its own."""
    command = ["env", "-i", f"PATH={os.environ['PATH']}", f"PYTHONPATH={REPOSITORY}", f"DATA_DIR={directory}"]
    command += ["LOG_LEVEL=error", *(f"{name}={value}" for name, value in settings.items())]
    return [*command, sys.executable, "-m", "agents", *arguments]


def children_cpu_s() -> float:
    """CPU of all children that have ended (getrusage(2))."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spent_by(command: list[str], cwd: Path) -> tuple[float, float]:
    """Seconds of one run of a command, from start to exit: CPU of all its threads, and wall clock."""
    before, begun = children_cpu_s(), time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)
    return children_cpu_s() - before, time.perf_counter() - begun


def family(pid: int) -> list[int]:
    """A process and the children it has."""
    found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    return [pid, *found]


def cpu_s(pids: list[int]) -> float:
    """User and system time of these processes with all their threads (proc(5))."""
    fields = [Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS


def pss_mb(pid: int) -> float:
    """Memory of one process, what it shares divided among those that share it (proc(5), "smaps_rollup"), MB."""
    found = re.search(r"(?m)^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text("ascii"))
    assert found
    return int(found[1]) * 1024 / 1e6
