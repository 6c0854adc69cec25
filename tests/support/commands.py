"""The command line: as other programs call it, a process, or in the tests' own; its output, its exit code."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from agents.cli import parser
from tests.support.patience import patient
from tests.support.running import free_port

__all__ = ["BASE", "ROOT", "Done", "Inside", "call", "environment", "free_port", "is_one_line", "run_inside"]

Inside = Callable[..., "Done"]
"""The fixture `inside`: `run_inside` in the test's own folder."""
ROOT = Path(__file__).resolve().parents[2]
BASE = [sys.executable, "-m", "agents"]


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def environment(**settings: str) -> dict[str, str]:
    """The tests' own environment without any setting of the detector, and these. All alerts are sent at once."""
    names = {"PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR"}
    kept = {name: value for name, value in os.environ.items() if name in names}
    return kept | {"PYTHONPATH": str(ROOT), "NO_PROXY": "*", "BURN_IN_DAYS": "0", "COMPARE_TYPES": "none"} | settings


def call(folder: Path, *arguments: str | bytes | Path, timeout_s: float = 40, **settings: str) -> Done:
    """`dns-tunnel ARGUMENTS` with DATA_DIR=folder/data, in `folder`."""
    command: Sequence[str | bytes | Path] = [*BASE, "--data-dir", folder / "data", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(**settings), capture_output=True, timeout=patient(timeout_s), check=False
    )
    found = Done(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
    assert "Traceback" not in found.err, found.err
    return found


@contextlib.contextmanager
def _only(settings: dict[str, str]) -> Iterator[None]:
    """While the block lasts, these settings stand in the environment beside those that a test has set there."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run_inside(folder: Path, *arguments: str | bytes | Path, **settings: str) -> Done:
    """As `call`, but in this process, which saves the seconds that one of its own takes to start.

    For all commands that end by themselves, where no process matters.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.chdir(folder), _only(settings), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = parser.main(["--data-dir", str(folder / "data"), *map(os.fsdecode, arguments)])
        except SystemExit as error:  # how argparse ends
            code = int(error.code or 0)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            structlog.reset_defaults()
    found = (stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err))
    return Done(code, *found)


def is_one_line(done: Done) -> bool:
    """Whether the error is one line of the program's own."""
    return done.err.startswith("dns-tunnel: cannot ") and done.err.count("\n") == 1
