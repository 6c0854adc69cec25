"""Kernels are compiled once, kept, and found again, also where the installed package cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agents import kernels, warm
from agents.kernels import cache

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65_534
pytestmark = pytest.mark.skipif(not kernels.COMPILED, reason="kernels are off")


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *code.split(" ", 1)],
        cwd=ROOT,
        env={**os.environ, "KERNELS": "on", **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=390,
    )


UNCOMPILED = """
import importlib, pkgutil
from agents import kernels, warm
for load in warm.LOADS:
    load()
found = [f"{module.name}.{name}"
    for module in pkgutil.iter_modules(kernels.__path__)
    for name, value in vars(importlib.import_module(f"agents.kernels.{module.name}")).items()
    if hasattr(value, "signatures") and not value.signatures]
print(found)
"""


@pytest.mark.timeout(400)
def test_warming_leaves_no_kernel_for_later_and_nothing_is_compiled_twice(tmp_path: Path) -> None:
    cold = run(f"-c {UNCOMPILED}", NUMBA_CACHE_DIR=str(tmp_path), PYTHONWARNINGS="ignore")
    assert cold.stdout.strip() == "[]"
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
    assert kept
    (tmp_path / ("0" * 16)).mkdir()
    assert [warm.NOTE in run("-m agents.warm", NUMBA_CACHE_DIR=str(tmp_path)).stderr for _ in range(2)] == [True, False]
    assert not (tmp_path / ("0" * 16)).exists()
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")} == kept, "compiled again"
    assert run("-c from agents import warm; warm.up(print)", NUMBA_CACHE_DIR=str(tmp_path)).stdout == ""


def test_a_cold_start_says_what_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(warm, "KEPT", tmp_path)
    warm.up(said.append)
    assert said == [warm.NOTE]


def test_kernels_of_other_versions_go_and_nothing_else(tmp_path: Path) -> None:
    current, old, other = (tmp_path / name for name in ("0123456789abcdef", "fedcba9876543210", "notes-of-mine"))
    for folder in (current, old, other):
        folder.mkdir()
        (folder / "kernel.nbc").write_bytes(b"machine code")
    assert cache.prune(current) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0123456789abcdef", "notes-of-mine"]
    assert (current / "kernel.nbc").exists()


FOLDER = """
import os, pathlib
from agents.kernels import cache
if os.geteuid() == 0:
    os.setuid({nobody})
print(cache.folder())
"""


def test_where_the_package_cannot_be_written_its_kernels_are_copied(tmp_path: Path) -> None:
    digest = cache.sources_digest()
    package, own = tmp_path / "package", tmp_path / "own"
    (package / digest).mkdir(parents=True)
    (package / digest / "kernel.nbc").write_bytes(b"machine code")
    own.mkdir()
    own.chmod(0o777)
    package.chmod(0o555)
    (package / digest).chmod(0o555)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == tmp_path.owner() and "pytest" in str(folder):
            folder.chmod(0o755)
    environment = {"NUMBA_CACHE_DIR": str(package), "XDG_CACHE_HOME": str(own), "KERNELS": "off"}
    for _ in range(2):
        found = Path(run(f"-c {FOLDER.format(nobody=NOBODY)}", **environment).stdout.strip())
        assert found == own / "dns-tunnel-detector" / digest
        assert (found / "kernel.nbc").read_bytes() == b"machine code"
    nowhere = run(f"-c {FOLDER.format(nobody=NOBODY)}", **{**environment, "XDG_CACHE_HOME": "/proc/nowhere"})
    assert nowhere.stdout.strip() == "None"
