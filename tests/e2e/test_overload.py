"""More than can be answered, a disk that is full, domains without end: nothing ends, nothing grows, all is counted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import dns.message
import dns.query
import psycopg2
import pytest

from agents.core.types import QueryBatch
from agents.core.types import batch_of as rows_of
from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.dns.name import to_text
from agents.learning.baseline import golden_sessions
from tests.e2e.overload import fast_upstream, figure, memory_mb, perf
from tests.support.detecting import START, bytes_held, query, shipped_model
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.postgres_server import DEAD, PostgresServer, make_database
from tests.support.supervised import Supervised, assert_adds_up, lost_for, supervised

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
SECONDS, SETTLING_S = 120, 30
NAMES, ODD_EVERY = 20_000, 10
GROWTH_MAX = 1.05
"""Of the mean memory of the second half over the first's, once the rings and the store's caches have been filled."""


def names_file(folder: Path) -> Path:
    """Queries for dnsperf: hosts of many domains, some of odd names."""
    path = folder / "names.txt"
    odd = (hashlib.sha256(b"%d" % number).hexdigest()[:40] for number in range(NAMES))
    lines = [f"{label if n % ODD_EVERY == 0 else f'host{n}'}.d{n % 997}.test A\n" for n, label in enumerate(odd)]
    path.write_text("".join(lines))
    return path


def test_three_times_what_can_be_answered(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """With Postgres, as SQLite's page cache grows with the file until it is as large as it may be."""
    if shutil.which("dnsperf") is None:
        pytest.skip("needs the Debian package dnsperf")
    names, url = names_file(tmp_path), make_database(own_postgres.url)
    with fast_upstream() as upstream:
        # a short queue: the detector may well keep up with what the listener can answer
        settings = {"DATABASE_URL": url, "QUEUE_MAX": "8192", "CACHE_MB": "0", "FORWARD": "verbatim"}
        one = Supervised(tmp_path / "data", upstream, **settings)
        try:
            one.wait_ready()
            perf(one.port, names, 3, 100).wait()
            capacity = figure(names, "Queries per second")
            memory, answered = [], []
            load = perf(one.port, names, SECONDS, 20_000, per_s=int(3 * capacity))
            while load.poll() is None:
                memory.append(memory_mb(one.process.pid))
                answered.append(one.next_state()["counters"]["answered"])
            wait_until(lambda: one.state()["queue_waiting"] == 0, 60)
            state = one.rested()
            assert one.stop() == 0
        finally:
            one.process.kill()
            one.process.wait()
    assert figure(names, "Queries completed") > 0
    answered.pop()  # the last look may be at a time when dnsperf only waits for what is not answered
    assert len(answered) > 5 and all(before < after for before, after in pairwise(answered)), "answers go on"
    assert {child["restarts"] for child in state["processes"].values()} == {0}
    assert_adds_up(state)
    assert state["queue_dropped"] + state["sampled_out"] + state["unexplained"] > 0
    assert one.events("process_died") == one.events("process_failed") == []
    memory = memory[len(memory) * SETTLING_S // SECONDS :]
    half = len(memory) // 2
    assert statistics.mean(memory[half:]) <= GROWTH_MAX * statistics.mean(memory[:half]), memory


class Tunnel:
    """A golden session that leaks from `client`, a piece at a time."""

    def __init__(self, client: str, session: str) -> None:
        self._client, self._whole = client, golden_sessions()[session]

    def piece(self, ts: float, start: int, end: int) -> QueryBatch:
        """Some of its queries, a second apart."""
        names = self._whole.qname[start:end]
        return rows_of([query(ts + at, self._client, name, 16) for at, name in enumerate(names)])


def test_a_million_domains_of_one_client_hide_no_tunnel() -> None:
    keys_max, count, batch = 20_000, 1_000_000, 2000
    detector = TunnelDetector(shipped_model(), keys_max, 3600.0, Scale())
    own, other = Tunnel("10.9.0.9", "iodine-txt-base32"), Tunnel("10.9.0.10", "dns2tcp-txt-up200k")
    random_ = random.Random(4)
    detector.detect(own.piece(START, 0, 4))
    held = []
    for at in range(0, count, batch):
        names = [f"{random_.getrandbits(40):010x}.{random_.getrandbits(48):012x}.com" for _ in range(batch)]
        ts = START + 10 + at / 5000
        detector.detect(rows_of([query(ts + n / 5000, "10.9.0.9", name) for n, name in enumerate(names)]))
        held.append(bytes_held(detector.flows))
        assert len(detector.flows) <= keys_max
    assert held[-1] == held[len(held) // 2], "no array grows once the cap is reached"
    assert detector.flows.refused > count // 2
    ts = START + 10 + count / 5000
    found = [*detector.detect(own.piece(ts, 4, 60)).incidents, *detector.detect(other.piece(ts + 60, 0, 60)).incidents]
    assert {"10.9.0.9", "10.9.0.10"} <= {one.client for one in found if one.domain != "*"}


def test_a_million_domains_asked_of_a_listener_hide_no_tunnel(own_postgres: PostgresServer, tmp_path: Path) -> None:
    """One address asks for all of it: first the beginning of the tunnel, last the rest."""
    if shutil.which("dnsperf") is None:
        pytest.skip("needs the Debian package dnsperf")
    names, url = tmp_path / "names.txt", make_database(own_postgres.url)
    random_, keys_max, per_s, seconds = random.Random(5), 20_000, 25_000, 40
    lines = (f"{random_.getrandbits(40):010x}.{random_.getrandbits(48):012x}.com A\n" for _ in range(per_s * seconds))
    names.write_text("".join(lines))
    tunnel = [to_text(qname) for qname in golden_sessions()["iodine-txt-base32"].qname[:60]]
    with fast_upstream() as upstream:
        settings = {"DATABASE_URL": url, "FLOWS_MAX": str(keys_max), "FORWARD": "verbatim"}
        one = Supervised(tmp_path / "data", upstream, **settings)
        try:
            one.wait_ready()
            ask(one, tunnel[:4])
            load, memory = perf(one.port, names, seconds, 1000, per_s=per_s), []
            while load.poll() is None:
                memory.append(memory_mb(one.process.pid))
                assert one.next_state()["flows"] <= keys_max
            before = one.rested()
            ask(one, tunnel[4:])
            wait_until(lambda: one.state()["scored"] >= before["scored"] + len(tunnel) - 4, 20)
            assert one.stop() == 0
        finally:
            one.process.kill()
            one.process.wait()
    assert before["flows_refused"] > per_s * seconds // 2
    assert_adds_up(before)
    half, last = len(memory) // 2, len(memory) * 3 // 4  # a slow machine fills the tables in the first half
    assert statistics.mean(memory[last:]) <= GROWTH_MAX * statistics.mean(memory[half:last]), memory
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT domain FROM incidents")
        assert "tunnel.test" in {domain for (domain,) in cursor.fetchall()}


def ask(one: Supervised, names: list[str]) -> None:
    """Each name once, one after the other."""
    for name in names:
        dns.query.udp(dns.message.make_query(name, "TXT"), "127.0.0.1", port=one.port, timeout=patient(5))


@contextlib.contextmanager
def small_disk(folder: Path, size_kb: int) -> Iterator[None]:
    """A file system of its own, which is soon full, where `folder` is. Skips where that cannot be."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root and mount, for a small disk")
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k,mode=0700", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs a small disk: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_is_one_error_and_dns_goes_on(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "data" / "spool", 200),
        supervised(tmp_path, DATABASE_URL=DEAD, BATCH_WAIT_MS="100") as one,
    ):
        assert lost_for(one) == "cannot spool a batch: No space left on device"
        assert list((tmp_path / "data" / "spool").glob("*.npz")) != []
