"""`dns-tunnel health`, over real heartbeats and a real HTTP server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agents.cli.parser import main
from agents.runtime.heartbeat import PARTS, Heartbeat, read_heartbeat
from tests.support.commands import ROOT


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def _beat(path: Path, age_s: float, **state: Any) -> None:
    path.write_text(json.dumps({"at": time.time() - age_s, **state}))


@pytest.mark.parametrize(
    ("part", "state", "code"),
    [
        ("listener", {"age_s": 1.0, "judging": True}, 0),
        ("listener", {"age_s": 1.0, "judging": False}, 1),
        ("listener", {"age_s": 600.0, "judging": True}, 1),
        ("listener", {"age_s": -86_400.0, "judging": True}, 1),  # the clock was set back, and nobody wrote since
        ("scheduler", {"age_s": 1.0, "next_run": 1.0}, 0),
        ("scheduler", {"age_s": 1.0, "error": "cannot read the schedule"}, 0),
        ("scheduler", {"age_s": 600.0}, 1),
    ],
)
def test_a_process_is_well_while_it_writes(data: Path, part: str, state: dict[str, Any], code: int) -> None:
    _beat(data / PARTS[part], **state)
    assert main(["health", part]) == code


_LIVE = """
import sys, time
from pathlib import Path
from agents.runtime.heartbeat import Heartbeat

Heartbeat(Path(sys.argv[1]), dict).start()
print("written", flush=True)
time.sleep(600)
"""


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="nothing else has a /proc that tells")


@needs_proc
@pytest.mark.parametrize("reaped", [True, False], ids=["no trace left", "not yet reaped"])
def test_a_process_that_was_killed_is_not_well_from_then_on(data: Path, reaped: bool) -> None:
    path = data / "scheduler.json"
    with subprocess.Popen([sys.executable, "-c", _LIVE, path], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        assert main(["health", "scheduler"]) == 0
        process.kill()
        if reaped:
            process.wait()
        else:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert main(["health", "scheduler"]) == 1
        said = json.loads(path.read_bytes())
        path.write_text(json.dumps(said | {"writer": ["another container", *said["writer"][1:]]}))
        assert main(["health", "scheduler"]) == 0, "its process ids mean nothing here"


@needs_proc
def test_a_process_that_has_the_number_of_a_dead_one_is_another(data: Path) -> None:
    path = data / "scheduler.json"
    beat = Heartbeat(path, dict)
    beat.start()
    said = json.loads(path.read_bytes())
    assert read_heartbeat(path) == {"ok": True}
    beat.stop()
    where, pid, began = said["writer"]
    path.write_text(json.dumps(said | {"writer": [where, pid, str(int(began) - 1)]}))
    assert read_heartbeat(path) == {"ok": False}


def test_a_disk_that_takes_no_sign_of_life_is_logged_once_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with capture_logs() as lines:
        beat = Heartbeat(folder / "x.json", dict)
        for full in (True, True, False, True, True):
            if full:
                folder.write_text("a file where the folder should be")
            beat._write()
            (shutil.rmtree if folder.is_dir() else os.unlink)(folder)
    assert [line["event"] for line in lines] == ["heartbeat_not_written"] * 2


@pytest.mark.parametrize("part", ["listener", "scheduler"])
@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_no_heartbeat_or_a_damaged_one_is_no_sign_of_life(data: Path, part: str, content: str | None) -> None:
    if content is not None:
        (data / PARTS[part]).write_text(content)
    assert main(["health", part]) == 1


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    status = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Not of interest."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setenv("API_PORT", str(server.server_port))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield status
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_api_is_well_while_it_answers(
    data: Path, answering: list[int], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_HOST", host)
    assert main(["health", "api"]) == 0
    answering[0] = 500
    assert main(["health", "api"]) == 1


def test_without_a_part_all_that_runs_here_is_looked_at(
    data: Path, answering: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["health"]) == 1
    assert capsys.readouterr().out == f"nothing runs on {data.parent}\n"
    _beat(data / "scheduler.json", 1.0)
    assert main(["health"]) == 0
    assert capsys.readouterr().out == "scheduler: ok\n"
    _beat(data / "api.json", 600.0)  # whether it answers is what counts
    _beat(data / PARTS["listener"], 600.0, judging=True)
    assert main(["health"]) == 1
    assert capsys.readouterr().out == "listener: no sign of life\napi: ok\nscheduler: ok\n"


def test_an_api_that_is_not_there_is_not_well(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_PORT", "9")
    assert main(["health", "api"]) == 1
    assert capsys.readouterr().out == "api: no answer from 127.0.0.1 port 9\n"
