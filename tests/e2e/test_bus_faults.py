"""Three servers under load: one is silent, one has a full disk, and a detector sleeps for longer than its lease."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agents.stream.bus.jetstream import stream_name, subject_of
from tests.e2e.test_bus import all_is_stored_once, has_stored, leader_of
from tests.support.bus import SLOTS, Cluster, Detecting, cluster
from tests.support.listening import wait_until
from tests.support.supervised import Load, Supervised

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
SILENT_S = 12.0
"""For so long a server, and later a detector, does not move: longer than an election, and than STREAM_LEASE_S."""
SMALL_DISK = "256m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """What server 2 keeps its streams on."""
    folder = tmp_path / "nats2" / "js"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def name_of(host: str, number: int) -> str:
    return f"h{number}.{host}.load.test"


def _goes_on(bus: Cluster, count: int = 500) -> None:
    """So many more queries are stored."""
    wait_until(partial(has_stored, bus, bus.stored() + count), 120)


def _silent_server(bus: Cluster) -> None:
    """The leader of a stream answers nobody for a while, and its connections stay: as behind a broken line."""
    victim = bus.servers[leader_of(bus, stream_name(subject_of(0)))].process
    victim.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    _goes_on(bus)
    wait_until(lambda: time.monotonic() - begun > SILENT_S, 2 * SILENT_S)
    victim.send_signal(signal.SIGCONT)
    _goes_on(bus)


def _filled(path: Path) -> bool:
    """All room that is left is taken; again and again, as the server, which says nothing of it, frees some itself."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    return os.statvfs(path.parent).f_bavail == 0


def _full_disk(bus: Cluster, folder: Path) -> None:
    """One server of three cannot write; then a person makes room, and starts it again."""
    filling = folder / "filling"
    more, full = bus.stored() + 1000, []

    def stored_meanwhile() -> bool:
        full.append(_filled(filling))
        return has_stored(bus, more)

    wait_until(stored_meanwhile, 120)
    assert sum(full) > len(full) / 2, "the server had room"
    filling.unlink()
    bus.servers[2].kill()
    bus.servers[2].start()
    _goes_on(bus)


def _sleeping_detector(one: Detecting, other: Detecting) -> None:
    """All processes of a host stop for longer than the lease; others take its slots, and give some back later."""
    pids = [one.process.pid, *(child["pid"] for child in one.state()["processes"].values())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: other.slots == set(range(SLOTS)), 90)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: len(one.slots) == len(other.slots) == SLOTS // 2, 120)


def test_a_silent_server_a_full_disk_and_a_sleeping_detector_cost_nothing(tmp_path: Path, small_disk: Path) -> None:
    pytest.importorskip("nats")
    with cluster(tmp_path, servers=3) as bus:
        bus.settings |= {"STREAM_LEASE_S": "8", "STREAM_KEEP_MB": "90"}
        heard: list[Supervised] = [bus.listening("a"), bus.listening("b")]
        judging = [bus.detecting("d1"), bus.detecting("d2")]
        for host in (*heard, *judging):
            host.wait_ready()
        wait_until(lambda: [len(one.slots) for one in judging] == [SLOTS // 2] * 2, 90)
        loads = [Load(host.port, partial(name_of, host.folder.name), 50) for host in heard]
        _goes_on(bus, 100)
        _silent_server(bus)
        _full_disk(bus, small_disk)
        _sleeping_detector(*judging)
        for load in loads:
            load.stop()
        assert [len(load.answered) for load in loads] == [load.sent for load in loads]
        all_is_stored_once(bus, heard, sum(load.sent for load in loads))
        assert [host.stop() for host in (*heard, *judging)] == [0, 0, 0, 0]
