"""Ctrl-C and SIGTERM: a command ends, says nothing of its inside, and leaves nothing half done."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.runtime import bootstrap
from agents.runtime.bootstrap import load_settings
from tests.support.commands import BASE, ROOT, environment
from tests.support.filled import fill
from tests.support.patience import patient
from tests.support.webhook import webhook

pytestmark = pytest.mark.integration


def _runs(folder: Path) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(folder / "data" / "dns-tunnel.db")) as database:
        return [json.loads(row[0]) for row in database.execute("SELECT payload FROM runs")]


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_retraining_that_is_stopped_is_one_that_failed(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    """While it tells that it is about to deploy, which is the last step but one."""
    command = [*BASE, "--data-dir", str(tmp_path), "retrain"]
    fill(tmp_path)
    with webhook() as hook:
        hook.hold.clear()
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(SLACK_WEBHOOK_URL=hook.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert hook.arrived.wait(patient(60))
            process.send_signal(sent)
            hook.hold.set()
            out, err = process.communicate(timeout=patient(30))
        assert process.returncode == code, err
        assert len(hook.got) == 2
        assert f"stopped by {sent.name}" in json.dumps(hook.got[1])
    assert "Traceback" not in err
    assert f"cannot go on: stopped by {sent.name}" in out
    (run,) = _runs(tmp_path)
    assert (run["state"], run["error"]) == ("FAILED", f"cannot go on: stopped by {sent.name}")
    registry = bootstrap.registry_of(load_settings(data_dir=tmp_path))
    with registry.lock():
        assert not registry.champion_path.exists()
    assert list(tmp_path.rglob("*.part")) == []


def test_a_second_signal_does_not_wait_for_the_end_of_a_step(tmp_path: Path) -> None:
    script = """
import os, signal, time
from agents.runtime.signals import ENDING, first_of

with first_of(ENDING) as came:
    os.kill(os.getpid(), signal.SIGINT)
    assert came == [signal.SIGINT]
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=patient(30), check=False)
    assert done.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    "first",
    [
        "sys.meta_path.insert(0, type('Slow', (), {'find_spec': lambda at, *_: interrupt(at, 'structlog')}))",
        "sys.meta_path.insert(0, type('Slow', (), {'find_spec': lambda at, *_: interrupt(at, 'agents.cli.models')}))",
        "atexit.register(lambda: interrupt('', ''))",
    ],
    ids=["while it is loaded", "while its command is loaded", "while Python ends"],
)
@pytest.mark.slow
def test_ctrl_c_before_and_after_a_command_is_silent(tmp_path: Path, first: str) -> None:
    script = f"""
import atexit, os, signal, sys

def interrupt(name, wanted):
    if name == wanted:
        os.kill(os.getpid(), signal.SIGINT)

{first}
from agents.__main__ import main
main(["models", "list"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=patient(30),
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")
