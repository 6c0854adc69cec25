"""`dns-tunnel collect`: logs that grow are judged, stored and alerted like what a listener hears, each line once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.core.errors import CaptureError
from agents.runtime.bootstrap import losses_at_start
from agents.runtime.health import ProcessHealth
from agents.sources.collector import COLLECTED, Collecting, Collector
from agents.stream.shared import STEPS, SharedStream
from tests.support.commands import Inside, environment, free_port, is_one_line
from tests.support.log_lines import EVE, SAMPLES
from tests.support.patience import patient
from tests.support.pihole_server import PASSWORD, pi_hole_server
from tests.support.running import process, wait_for

pytestmark = pytest.mark.integration


class Logged:
    """BIND's query log as a server writes it."""

    def __init__(self, path: Path) -> None:
        self.path, self.names = path, list[str]()

    def ask(self, *names: str, client: str = "192.0.2.7") -> None:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        with self.path.open("a") as file:
            for name in names:
                file.write(f"{at}Z queries: info: client @0x7f {client}#53 ({name}): query: {name} IN A + (::1)\n")
        self.names += names

    def ask_many(self, label: str, count: int) -> None:
        self.ask(*(f"{label}{number}.example.com" for number in range(count)))


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    log = Logged(tmp_path / "queries.log")
    log.ask_many("before", 3)
    return log


def stored(folder: Path) -> list[str]:
    """The names in the database; none where it is not made yet."""
    if (folder / "data" / "dns-tunnel.db").exists():
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(folder / "data" / "dns-tunnel.db")) as database,
        ):
            return sorted(row[0] for row in database.execute("SELECT qname FROM queries"))
    return []


def state(folder: Path) -> dict[str, dict[str, int]]:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, dict[str, int]] = json.loads((folder / "data" / "detector.json").read_bytes())["processes"]
        return found
    return {}


@contextlib.contextmanager
def following(folder: Path, *arguments: str, **values: str) -> Iterator[subprocess.Popen[bytes]]:
    """`dns-tunnel` with these arguments on a folder; it is up when the block begins."""
    log = folder.with_name("process.log")
    command = [sys.executable, "-m", "agents", "--data-dir", str(folder), *arguments]
    with process(command, log, environment(UPSTREAMS="127.0.0.1:9", **values)) as started:
        wait_for(lambda: b"collector_started" in log.read_bytes() or started.poll() is not None, "it starts")
        assert started.poll() is None, log.read_text()
        yield started


@pytest.mark.slow
def test_each_line_is_stored_once_over_kills_rotation_and_a_restart(logged: Logged, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with following(folder, "collect", str(logged.path), "--from-start") as running:
        wait_for(lambda: stored(folder) == sorted(logged.names), "what was there is stored")
        for name in ("detector", "collector"):
            wait_for(lambda: len(state(folder)) == 2, "their pids are known")
            os.kill(state(folder)[name]["pid"], signal.SIGKILL)
            logged.ask_many(name, 50)
            wait_for(lambda: stored(folder) == sorted(logged.names), f"all is stored after the {name} was killed")
        logged.path.rename(logged.path.with_name("queries.log.1"))
        logged.ask_many("rotated", 5)
        wait_for(lambda: stored(folder) == sorted(logged.names), "the new file is followed")
        running.terminate()
        assert running.wait(patient(30)) == 0
    logged.ask_many("missed", 5)
    logged.path.rename(logged.path.with_name("queries.log.2"))
    logged.ask_many("fresh", 5)
    with following(folder, "collect", str(logged.path)):
        wait_for(lambda: stored(folder) == sorted(logged.names), "what was written meanwhile is stored")


@pytest.mark.slow
def test_a_tunnel_in_a_log_is_an_incident_that_says_what_is_not_known(
    logged: Logged, tmp_path: Path, inside: Inside
) -> None:
    folder = tmp_path / "data"
    with following(folder, "listen", COLLECT_FILES=str(logged.path), LISTEN_PORT=str(free_port())):
        chunks = [os.urandom(30).hex() for _ in range(60)]
        logged.ask(*(f"{chunk}.t.bad-example.com" for chunk in chunks), client="192.0.2.9")
        wait_for(lambda: "bad-example.com" in (tmp_path / "process.log").read_text(), "an incident is opened")
        shown = wait_for(
            lambda: (done := inside("explain", "192.0.2.9", "bad-example.com")).code == 0 and done, "stored"
        )
        assert f"heard by    {logged.path}" in shown.out
        assert "not known   answers: none: data in answers is not seen" in shown.out
        wait_for(lambda: "60 queries in 1 h" in inside("doctor").out, "doctor says what was heard")
        (line,) = [line for line in inside("doctor").out.splitlines() if line.startswith("ok   logs")]
        assert "answers: none: data in answers is not seen" in line
    assert not any(name.startswith("before") for name in stored(folder))  # it began at the end


@pytest.mark.slow
def test_a_pi_hole_is_asked_and_goes_on_where_it_was(tmp_path: Path, inside: Inside) -> None:
    folder = tmp_path / "data"
    with pi_hole_server() as pi_hole:
        pi_hole.sid = "session"
        names = [f"{word}.example.com" for word in ("first", "second")]
        for name, more in ((names[0], ("--from-start",)), (names[1], ())):
            pi_hole.ask(time.time(), name)
            with following(folder, "collect", pi_hole.url, *more, PIHOLE_PASSWORD=PASSWORD):
                wait_for(lambda: stored(folder) == sorted(row["domain"] for row in pi_hole.rows), "each is stored once")
        doctor = inside("doctor").out
    assert f"{pi_hole.url}: a database of Pi-hole; 2 queries in 1 h" in doctor
    assert PASSWORD not in (folder / "data" / "collected.json").read_text() + doctor


def test_health_and_metrics_say_what_was_heard_and_fall_silent_with_the_collector(tmp_path: Path) -> None:
    health = ProcessHealth(tmp_path, None)  # type: ignore[arg-type]
    health._model.state = lambda: {"ok": True}  # type: ignore[method-assign]
    assert "intakes" not in health.components()
    hour = int(time.time() // 3600)
    one = {
        "queries": 9,
        "malformed": 2,
        "nameless": 1,
        "hours": {str(hour): 4, str(hour - 5): 5, "odd": 7},
        "error": "",
    }
    path = tmp_path / COLLECTED
    path.write_text(json.dumps({"a.log": one, "b.log": {**one, "error": "permission denied"}}))
    heard = health.components()["intakes"]
    assert (heard["ok"], heard["followed"], heard["queries_1h"], heard["queries_24h"]) == (False, 2, 8, 18)
    assert heard["error"] == "cannot hear 1 of 2: see dns-tunnel doctor"
    found = {metric.name: metric.value for metric in health.metrics()}
    assert (found["intake_queries_total"], found["intake_malformed_total"], found["intake_nameless_total"]) == (
        18,
        4,
        2,
    )
    os.utime(path, (1, 1))
    assert "intakes" not in health.components()
    assert "intake_queries_total" not in {metric.name for metric in health.metrics()}


def taking(folder: Path, collecting: Collecting, done: Callable[[Collector, int], bool]) -> Collector:
    """Have a collector run until `done` says so of it and of the number of records that it put."""
    stream = SharedStream(1, 4096, ["collector"])
    (rings, _), _ = stream.writers(0)
    (ring,) = rings.rings
    collector, stop = Collector(collecting, rings), threading.Event()
    thread = threading.Thread(target=collector.run, args=(stop, lambda: None))
    thread.start()
    taken, end = 0, time.monotonic() + patient(20)
    while not done(collector, taken) and time.monotonic() < end and thread.is_alive():
        count = ring.waiting
        ring.advance_to(ring.tail + count)
        taken += count
        time.sleep(0.01)
    alive = thread.is_alive()
    stop.set()
    thread.join()
    stream.close()
    assert alive
    assert done(collector, taken)
    return collector


def test_an_answer_of_a_type_that_is_not_known_ends_no_collector(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    asked, answer = EVE["v2"]
    path.write_text(f"{asked}\n{answer.replace('TXT', 'NOSUCHTYPE')}\n")
    path.write_text(path.read_text().replace('"rrtype": "NOSUCHTYPE", "answers"', '"rrtype": "TXT", "answers"'))
    assert "NOSUCHTYPE" in path.read_text()
    collecting = Collecting([path], tmp_path, from_start=True)
    taking(tmp_path, collecting, lambda collector, taken: taken == 1)


def test_a_damaged_state_is_none(tmp_path: Path, logged: Logged) -> None:
    hours = {"odd": 1, "\u0663": 1, "9" * 5000: 1, "-1": 1}
    damaged = {"hours": hours, "heard_at": 1e400, "queries": "x", "position": [1]}
    (tmp_path / COLLECTED).write_text(json.dumps({str(logged.path): damaged}))
    collecting = Collecting([logged.path], tmp_path, from_start=True)
    taking(tmp_path, collecting, lambda collector, taken: taken == len(logged.names))


def test_a_state_that_does_not_change_is_written_once_and_kept_fresh(tmp_path: Path, logged: Logged) -> None:
    path, files, times = tmp_path / COLLECTED, set[int](), set[int]()

    def seen(collector: Collector, taken: int) -> bool:
        if taken == len(logged.names) and path.exists() and json.loads(path.read_bytes())[str(logged.path)]["queries"]:
            files.add(path.stat().st_ino)
            times.add(path.stat().st_mtime_ns)
        return len(times) >= 3

    taking(tmp_path, Collecting([logged.path], tmp_path, from_start=True), seen)
    assert len(files) == 1


def test_a_listener_starts_whatever_state_its_logs_are_in(tmp_path: Path) -> None:
    fresh, absent, noise = tmp_path / "fresh", tmp_path / "absent", tmp_path / "noise"
    fresh.touch()
    noise.write_text("nothing of a log\n")
    (tmp_path / "file").write_text("x")
    inside = tmp_path / "file" / "queries.log"
    bind = tmp_path / "bind.log"
    bind.write_bytes(SAMPLES["bind"])
    collecting = Collecting([fresh, absent, noise, inside, bind], tmp_path)
    kinds, unknown = collecting.kinds(strict=False)
    assert ([kind.name for kind in kinds], unknown) == (["bind"], [fresh, absent, noise, inside])
    with pytest.raises(CaptureError):
        collecting.kinds(strict=True)
    assert [kind.name for kind in replace(collecting, format="zeek").kinds(strict=True)[0]] == ["zeek"] * 5
    with pytest.raises(CaptureError, match="is read as a whole"):
        replace(collecting, format="tsv").kinds(strict=False)
    losses = losses_at_start(collecting, listens=True)
    assert f"answers: not known until the kind of {noise} is found" in losses
    assert losses[0].startswith("a query log of BIND: ")
    named = losses_at_start(replace(collecting, format="dnsdist"), listens=True)
    assert named == ("a query log of dnsdist: answers: none: data in answers is not seen",)


@pytest.mark.parametrize("url", ["http://pi.hole", "http://192.0.2.7:8080", "http://127.0.0.1@192.0.2.7"])
def test_a_password_does_not_travel_in_the_clear(url: str, inside: Inside) -> None:
    done = inside("collect", url, UPSTREAMS="127.0.0.1:9", PIHOLE_PASSWORD=PASSWORD)
    assert (done.code, is_one_line(done), "WEBHOOKS_PLAIN_HTTP=on" in done.err) == (2, True, True), done.err
    assert PASSWORD not in done.err


def test_doctor_does_not_take_a_dead_collector_for_one_that_hears(tmp_path: Path, inside: Inside) -> None:
    folder = tmp_path / "data" / "data"
    folder.mkdir(parents=True)
    path = folder / COLLECTED
    path.write_text(json.dumps({"a.log": {"kind": "bind", "hours": {}, "error": ""}}))
    os.utime(path, (1, 1))
    said = next(line for line in inside("doctor", UPSTREAMS="127.0.0.1:9").out.splitlines() if " logs " in line)
    assert said.startswith("ok   logs")
    assert "no collector hears them at present" in said
    beat = {"at": time.time(), "processes": {"collector": {}}}
    (folder / "detector.json").write_text(json.dumps(beat))
    said = next(line for line in inside("doctor", UPSTREAMS="127.0.0.1:9").out.splitlines() if " logs " in line)
    assert said.startswith("BAD  logs")


def test_what_cannot_be_followed_is_one_line(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "a.tsv").write_text("ts\tclient\tqname\tqtype\n")
    (tmp_path / "noise").write_text("nothing of a log\n")
    (tmp_path / "zeek.log").write_bytes(SAMPLES["zeek"])
    for arguments in ((), ("a.tsv",), ("noise",), ("zeek.log", "a.tsv")):
        done = inside("collect", *arguments, UPSTREAMS="127.0.0.1:9")
        assert (done.code, is_one_line(done)) == (2, True), done.err
    done = inside("collect", "zeek.log", UPSTREAMS="127.0.0.1:9", COLLECT_FORMAT="nothing")
    assert (done.code, is_one_line(done), "COLLECT_FORMAT=nothing" in done.err) == (2, True, True)


def test_a_ring_that_fills_makes_the_collector_wait_before_load_is_shed(tmp_path: Path) -> None:
    log = Logged(tmp_path / "queries.log")
    log.ask_many("n", 3000)
    stream = SharedStream(1, 4096, ["collector"])
    (rings, _), _ = stream.writers(0)
    (ring,) = rings.rings
    collector = Collector(Collecting([log.path], tmp_path, from_start=True), rings)
    stop = threading.Event()
    thread = threading.Thread(target=collector.run, args=(stop, lambda: None))
    thread.start()
    taken, end = 0, time.monotonic() + patient(60)
    while taken < 3000 and time.monotonic() < end:
        assert ring.waiting <= ring.capacity * STEPS[0]
        count = ring.waiting
        ring.advance_to(ring.tail + count)
        taken += count
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert (taken, ring.dropped) == (3000, 0)
    stream.close()
