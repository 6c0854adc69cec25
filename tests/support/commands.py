"""The command line as other programs call it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.patience import patient
from tests.support.running import free_port

__all__ = ["BASE", "ROOT", "Done", "Inside", "call", "environment", "free_port", "is_one_line"]

Inside = Callable[..., "Done"]
"""The fixture `inside`: a command in this process, which is a second quicker than one of its own."""
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
    """The tests' own environment without any setting of the detector, and these."""
    names = {"PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR"}
    kept = {name: value for name, value in os.environ.items() if name in names}
    return kept | {"PYTHONPATH": str(ROOT), "NO_PROXY": "*"} | settings


def call(folder: Path, *arguments: str | bytes | Path, timeout_s: float = 40, **settings: str) -> Done:
    """`dns-tunnel ARGUMENTS` with DATA_DIR=folder/data, in `folder`."""
    command: Sequence[str | bytes | Path] = [*BASE, "--data-dir", folder / "data", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(**settings), capture_output=True, timeout=patient(timeout_s), check=False
    )
    found = Done(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
    assert "Traceback" not in found.err, found.err
    return found


def is_one_line(done: Done) -> bool:
    """Whether the error is one line of the program's own."""
    return done.err.startswith("dns-tunnel: cannot ") and done.err.count("\n") == 1
