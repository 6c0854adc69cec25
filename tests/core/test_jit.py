"""The compiler switch: which setting it reads, and that indexes are checked where that is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents.core import jit
from tests.support.commands import ROOT
from tests.support.patience import patient


def run(folder: Path, code: str, **environment: str) -> str:
    """What a script prints, in a folder of its own."""
    script = folder / "script.py"
    script.write_text(code)
    clean = {name: value for name, value in os.environ.items() if name not in {"COMPILED", "KERNELS"}}
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=patient(60),
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("environment", "file"),
    [
        ({"COMPILED": "off"}, ""),
        ({"KERNELS": "off"}, ""),
        ({}, "COMPILED=off"),
        ({}, "KERNELS=off"),
        ({}, "compiled=off"),
        ({"COMPILED": "off", "KERNELS": "on"}, "COMPILED=on"),
    ],
    ids=[
        "environment",
        "alias",
        "file",
        "alias in file",
        "small letters in file",
        "today's name first, and the environment",
    ],
)
def test_the_setting_is_read_wherever_it_stands(tmp_path: Path, environment: dict[str, str], file: str) -> None:
    (tmp_path / ".env").write_text(file)
    assert run(tmp_path, "from agents.core import jit; print(jit.COMPILED)", **environment) == "False"


OUTSIDE = """
import numpy as np
from agents.core import jit

def plain(values, at):
    return values[at]

for make in (jit.kernel, jit.kernel_in_place, jit.kernel_that_wraps):
    try:
        make(plain)(np.zeros(3), 1_000)
    except IndexError:
        print("refused")
"""


@pytest.mark.slow
@pytest.mark.skipif(not jit.COMPILED, reason="kernels are off")
def test_every_kind_of_kernel_checks_its_indexes_where_that_is_asked_for(tmp_path: Path) -> None:
    """What `make test-bounds` rests on."""
    kept = {"NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    assert run(tmp_path, OUTSIDE, NUMBA_BOUNDSCHECK="1", **kept).split() == ["refused"] * 3
