"""`dns-tunnel listen` with its processes: each is killed under load, DNS goes on, and what is stored is stored once."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.alerting.sink import AlertSink
from agents.core.errors import AgentsError
from agents.core.files import DiskQueue
from agents.detection.detector import TunnelDetector
from agents.runtime.judging.judge import Judge
from agents.store.sql import Store
from agents.stream.ledger import Ledger
from agents.stream.shared import SharedStream
from tests.support.commands import is_one_line, run_inside
from tests.support.filled import fill
from tests.support.listening import wait_until
from tests.support.live import running
from tests.support.patience import patient
from tests.support.postgres_server import DEAD, PostgresServer, drop_database, make_database
from tests.support.running import free_port
from tests.support.supervised import Load, assert_adds_up, postgres_names, replaced, supervised

pytestmark = pytest.mark.integration

HOLDS = """
def replacement(self):
    time.sleep({0})
    real(self)
"""
"""The detector takes so many seconds to end."""
DIES = """
def replacement(self, *given, **named):
    {before}
    if Path("armed").exists():
        Path("armed").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    {after}
"""
"""The detector kills itself once, before or after a step, when there is a file of the name "armed"."""
DIES_BEFORE = DIES.format(before="pass", after="return real(self, *given, **named)")
DIES_AFTER = DIES.format(before="found = real(self, *given, **named)", after="return found")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("step", "dying"),
    [
        pytest.param(TunnelDetector.detect, DIES_BEFORE, id="before it judges"),
        pytest.param(Store.write, DIES_BEFORE, id="before it writes"),
        pytest.param(Store.write, DIES_AFTER, id="after it wrote"),
        pytest.param(Ledger.finish, DIES_BEFORE, id="before it notes the end"),
        pytest.param(Ledger._apply, DIES_BEFORE, id="before it counts"),
        pytest.param(Ledger._apply, DIES_AFTER, id="after it counted"),
    ],
)
@pytest.mark.slow
def test_wherever_the_detector_is_killed_each_query_is_stored_once(
    tmp_path: Path, step: Callable[..., Any], dying: str
) -> None:
    first = replaced(step, dying)
    with supervised(tmp_path, first) as one:
        load = Load(one.port)
        load.wait_answered(200)
        (tmp_path / "armed").touch()
        wait_until(lambda: one.events("process_died") != [], 20)
        load.wait_answered(200)
        load.stop()
        state = one.rested()
        assert one.stop() == 0
    names = one.sqlite_names()
    assert len(names) == len(set(names)), "none twice"
    assert set(names) == load.answered, "none missing"
    assert len(load.answered) == load.sent, "DNS went on"
    assert state["stored"] == len(names)
    assert_adds_up(state)
    (died,) = one.events("process_died")
    assert (died["process"], died["code"]) == ("detector", -signal.SIGKILL)
    assert state["processes"]["detector"]["restarts"] == 1


@pytest.mark.slow
def test_a_killed_listener_is_followed_by_another_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    with supervised(tmp_path) as one:
        load = Load(one.port)
        load.wait_answered(200)
        for name in ("listener-1", "listener-2"):
            one.kill(name)
            load.wait_answered(300)
        load.stop()
        assert load.sent - len(load.answered) <= 2 * Load.UNDER_WAY, "those that it was asking for"
        state = one.rested()
        assert one.stop() == 0
    names = one.sqlite_names()
    assert len(names) == len(set(names)) == state["stored"] == state["scored"]
    lost = load.answered - set(names)
    assert len(lost) <= 2 * Load.UNDER_WAY, "those that were being answered"
    assert [state["processes"][name]["restarts"] for name in ("listener-1", "listener-2", "detector")] == [1, 1, 0]
    assert load.sent - 2 * Load.UNDER_WAY <= state["counters"]["received"] <= load.sent, "counters outlive the process"


@pytest.mark.slow
def test_a_listener_that_dies_again_and_again_is_back_within_a_second(tmp_path: Path) -> None:
    with supervised(tmp_path) as one:
        one.next_state()
        for _ in range(4):
            one.kill("listener-1")
        assert one.stop() == 0
    assert [line["restart_in_s"] for line in one.events("process_died")] == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.slow
def test_both_listeners_take_part(tmp_path: Path) -> None:
    told = """
def replacement(shared, counts):
    print("taken", *(counts[at] + counts[at + 1] for at in (0, 2)), flush=True)
    return real(shared, counts)
"""
    with supervised(tmp_path, replaced(SharedStream.records, told)) as one:
        load = Load(one.port)
        load.wait_answered(100)
        load.stop()
        assert one.stop() == 0
    taken = [list(map(int, line.split()[1:])) for line in one.log.read_text().splitlines() if line.startswith("taken ")]
    assert all(map(sum, zip(*taken, strict=True))), "records of each listener"


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_postgres_and_the_detector_come_and_go_under_load(own_postgres: PostgresServer, tmp_path: Path) -> None:
    url = make_database(own_postgres.url)
    with supervised(tmp_path, DATABASE_URL=url) as one:
        load = Load(one.port)
        load.wait_answered(300)
        one.kill("detector")
        load.wait_answered(300)
        own_postgres.kill()
        try:
            wait_until(lambda: one.state()["spool_waiting"] > 0, 20)
            load.wait_answered(300)
            one.kill("detector")
            load.wait_answered(300)
        finally:
            own_postgres.start()
        load.wait_answered(100)
        load.stop()
        state = one.rested()
        assert one.stop() == 0
    names = postgres_names(url)
    drop_database(own_postgres.url, url)
    assert len(load.answered) == load.sent, "DNS went on"
    assert len(names) == len(set(names)), "none twice"
    assert set(names) == load.answered, "none missing"
    assert state["stored"] + state["spooled"] == len(names)
    assert state["lost"] == 0
    assert_adds_up(state)


@pytest.mark.slow
def test_a_batch_that_ends_each_detector_is_given_up(tmp_path: Path) -> None:
    broken = """
def replacement(self, batch, **named):
    if any(b"poison" in name for name in batch.qname):
        raise KeyError("a bug")
    return real(self, batch, **named)
"""
    with supervised(tmp_path, replaced(TunnelDetector.detect, broken)) as one:
        load = Load(one.port, lambda number: "poison.test" if number == 0 else f"host{number}.test")
        load.wait_answered(1)
        wait_until(lambda: one.events("batch_given_up") != [], 30)
        load.wait_answered(100)
        load.stop()
        state = one.rested()
        assert one.stop() == 0
    assert state["lost"] == one.events("batch_given_up")[0]["queries"] > 0
    assert state["processes"]["detector"]["restarts"] == 3
    assert_adds_up(state)
    assert len(load.answered) == load.sent
    assert all("a bug" in line["exception"] for line in one.events("process_failed"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "settings", "kept"),
    [
        pytest.param(Store.write, {}, "stored", id="stored"),
        pytest.param(DiskQueue.put, {"DATABASE_URL": DEAD}, "spooled", id="spooled"),
    ],
)
def test_a_batch_that_is_given_up_is_not_lost_where_it_was_kept(
    tmp_path: Path, step: Callable[..., Any], settings: dict[str, str], kept: str
) -> None:
    """The detector dies each time it has kept a certain batch."""
    dying = """
def replacement(self, *given):
    from agents.core.compression import zstd
    found = real(self, *given)
    if b"poison" in (zstd.decompress(given[0]) if isinstance(given[0], bytes) else b" ".join(given[0].queries.qname)):
        os.kill(os.getpid(), signal.SIGKILL)
    return found
"""
    with supervised(tmp_path, replaced(step, dying), **settings) as one:
        load = Load(one.port, lambda number: "poison.test" if number == 0 else f"host{number}.test")
        load.wait_answered(1)
        wait_until(lambda: one.events("batch_given_up") != [], 60)
        load.wait_answered(100)
        load.stop()
        wait_until(lambda: one.state()["queue_waiting"] == 0, 30)
        state = one.next_state()
        assert one.stop() == 0
    (given_up,) = one.events("batch_given_up")
    assert (given_up["lost"], state["lost"]) == (0, 0)
    assert state[kept] == state["scored"] == load.sent
    assert_adds_up(state)
    if kept == "stored":
        assert sorted(one.sqlite_names()) == sorted(load.answered)
    else:
        ids = [path.stem.partition("-")[2] for path in (tmp_path / "data" / "spool").glob("*.npz")]
        assert len(ids) == len(set(ids))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "thread"),
    [
        pytest.param(Judge._poll_known, "ticker", id="ticker"),
        pytest.param(AlertSink._work, "alerts", id="alerts"),
    ],
)
def test_a_thread_that_dies_ends_its_process_which_is_started_again(
    tmp_path: Path, step: Callable[..., Any], thread: str
) -> None:
    broken = """
def replacement(self):
    if Path("armed").exists():
        Path("armed").unlink()
        raise KeyError("a bug")
    return real(self)
"""
    with supervised(tmp_path, replaced(step, broken)) as one:
        one.next_state()
        (tmp_path / "armed").touch()
        if thread == "alerts":  # it waits for incidents: the next process finds the file
            one.kill("detector")
        wait_until(lambda: one.events("thread_died") != [], 30)
        deaths = 2 if thread == "alerts" else 1
        wait_until(lambda: one.state().get("processes", {}).get("detector", {}).get("restarts") == deaths, 30)
        assert one.stop() == 0
    (died,) = one.events("thread_died")
    assert (died["thread"], died["level"]) == (thread, "critical")
    assert [line["code"] for line in one.events("process_died")][-1] == 1


@pytest.mark.slow
def test_a_process_that_cannot_be_started_again_says_so_once_each_time(tmp_path: Path) -> None:
    broken = f"""
from {AgentsError.__module__} import AgentsError
def replacement(self, settings):
    if Path("armed").exists():
        raise AgentsError("cannot judge: a test says so")
    real(self, settings)
"""
    with supervised(tmp_path, replaced(Judge.__init__, broken)) as one:
        one.next_state()
        (tmp_path / "armed").touch()
        os.kill(one.pid("detector"), signal.SIGKILL)

        def died_often() -> bool:
            os.kill(one.process.pid, signal.SIGCHLD)  # the supervisor looks at all its processes
            return len(one.events("process_died")) >= 4

        wait_until(died_often, 30)
        (tmp_path / "armed").unlink()
        wait_until(lambda: one.state().get("processes", {}).get("detector", {}).get("restarts", 0) >= 4, 30)
        assert one.stop() == 0
    died, said = one.events("process_died"), one.events("process_not_started")
    assert [line["error"] for line in said] == ["cannot judge: a test says so"] * (len(died) - 1)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.slow
def test_when_the_supervisor_ends_all_end(tmp_path: Path, ending: signal.Signals) -> None:
    with supervised(tmp_path) as one:
        pids = [process["pid"] for process in one.next_state()["processes"].values()]
        assert len(pids) == 3
        assert all(map(alive, pids))
        os.kill(one.process.pid, ending)
        assert one.process.wait(patient(30)) == (0 if ending != signal.SIGKILL else -signal.SIGKILL)
        wait_until(lambda: not any(map(alive, pids)), 10)


@pytest.mark.slow
def test_two_signals_at_once_are_one_and_a_later_one_is_impatience(tmp_path: Path) -> None:
    for holds_s, code, killed in ((0.9, 0, 0), (9.0, 1, 1)):
        folder = tmp_path / str(code)
        with supervised(folder, replaced(Judge.close, HOLDS.format(holds_s))) as one:
            one.next_state()
            one.process.terminate()
            wait_until(lambda found=one: bool(found.events("stopping")), 20)  # type: ignore[misc]
            if killed:
                wait_until(lambda found=one: bool(found.events("waiting_for_end")), 20)  # type: ignore[misc]
                assert one.events("waiting_for_end")[0]["processes"] == ["detector"]
            one.process.terminate()
            assert one.process.wait(patient(30)) == code
        assert len(one.events("process_killed")) == killed


@pytest.mark.slow
def test_it_ends_though_whoever_started_it_had_blocked_the_signals(tmp_path: Path) -> None:
    first = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])"
    with supervised(tmp_path, first) as one:
        one.next_state()
        one.kill("detector")
        assert one.stop() == 0


@pytest.mark.slow
def test_a_signal_to_each_process_of_the_group_leaves_no_noise(tmp_path: Path) -> None:
    first = """
import asyncio.selector_events, os, signal
real = asyncio.selector_events.BaseSelectorEventLoop.close
def closing(self):
    real(self)
    os.kill(os.getpid(), signal.SIGTERM)
asyncio.selector_events.BaseSelectorEventLoop.close = closing
"""
    with supervised(tmp_path, first) as one:
        assert one.stop() == 0
    assert "Exception ignored" not in one.log.read_text()


@pytest.mark.slow
def test_what_waits_when_it_ends_is_judged_and_windows_are_saved(tmp_path: Path) -> None:
    with supervised(tmp_path, BATCH_WAIT_MS="60000") as one:
        load = Load(one.port)
        load.wait_answered(100)
        load.stop()
        wait_until(lambda: bool(one.events("store_opened")), 20)
        assert one.sqlite_names() == []
        assert one.stop() == 0
    assert len(one.sqlite_names()) == load.sent
    assert (tmp_path / "data" / "windows.snapshot").stat().st_size > 0


@pytest.mark.slow
def test_what_waits_is_judged_though_the_detector_is_away_when_it_ends(tmp_path: Path) -> None:
    with supervised(tmp_path) as one:
        for _ in range(2):  # the second time it is not started again at once
            one.kill("detector")
        os.kill(one.pid("detector"), signal.SIGKILL)
        wait_until(lambda: len(one.events("process_died")) == 3)
        load = Load(one.port)
        load.wait_answered(100)
        load.stop()
        assert one.stop() == 0
    assert len(one.sqlite_names()) == load.sent
    assert one.events("process_died")[-1]["restart_in_s"] > 0


def test_a_port_that_is_taken_is_one_line_and_no_process_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_inside(tmp_path, "run", LISTEN_PORT=str(port), API_PORT=str(free_port()), UPSTREAMS="127.0.0.1:9")
    assert done.code == 1
    assert done.err == f"dns-tunnel: cannot listen on 127.0.0.1:{port}: address already in use\n"


@pytest.mark.slow
def test_what_cannot_start_beside_one_that_runs_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with supervised(tmp_path / "data") as one:
        taken, free = str(one.port), str(free_port())
        in_use = f"cannot listen on 127.0.0.1:{taken}: address already in use"
        for folder, port, upstream, code, why in (
            (tmp_path / "other", taken, "127.0.0.1:9", 1, in_use),
            (tmp_path, free, f"127.0.0.1:{free}", 2, "that is this listener itself"),
            (tmp_path, free, "127.0.0.1:9", 1, "another process holds it"),
        ):
            done = run_inside(folder, "listen", LISTEN_PORT=port, UPSTREAMS=upstream)
            assert (done.code, is_one_line(done), why in done.err) == (code, True, True), done
        assert one.stop() == 0


@pytest.mark.slow
def test_a_retraining_under_way_is_brought_to_its_end(tmp_path: Path) -> None:
    fill(tmp_path)
    with running(tmp_path, RETRAIN_SAMPLES="2000") as process:
        assert process.client.post("/retrain").status_code == 202
        assert process.stop() == 0
    assert len(list((tmp_path / "reports" / "training_reports").glob("*.html"))) == 1


@pytest.mark.slow
def test_the_last_line_of_the_log_holds_all_counts(tmp_path: Path) -> None:
    with supervised(tmp_path) as one:
        load = Load(one.port, per_s=200)
        load.wait_answered(100)
        load.stop()
        assert one.stop() == 0
        (last,) = one.events("stopped")
    assert_adds_up(last)
    assert last["counters"]["answered"] == last["scored"] == len(load.answered)
