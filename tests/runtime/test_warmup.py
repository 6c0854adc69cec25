"""Kernels are compiled once, kept, and found again, also where the installed package cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from agents.core import jit
from agents.dns.message import type_name
from agents.dns.name import to_text
from agents.runtime import warmup
from tests.support.commands import Inside, call
from tests.support.filled import fill
from tests.support.listening import wait_until
from tests.support.live import running
from tests.support.make_capture import write
from tests.support.mixed import mixed
from tests.support.patience import patient

ROOT = Path(__file__).parent.parent.parent
NOBODY = 65_534
pytestmark = [pytest.mark.integration, pytest.mark.skipif(not jit.COMPILED, reason="kernels are off")]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *code.split(" ", 1)],
        cwd=ROOT,
        env={**os.environ, "COMPILED": "on", **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=patient(390),
    )


UNCOMPILED = """
import importlib, pkgutil
import agents
from agents.runtime import warmup
for load in warmup.LOADS:
    load()
modules = [one.name for one in pkgutil.walk_packages(agents.__path__, "agents.") if one.name.endswith("kernels")]
kernels = {(module, name): value
    for module in modules
    for name, value in vars(importlib.import_module(module)).items()
    if hasattr(value, "signatures")}
print(len(modules), len(kernels), [".".join(at) for at, value in kernels.items() if not value.signatures])
"""


def compiled(folder: Path) -> dict[str, int]:
    """What is kept, and when it was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}


@pytest.mark.timeout(1200)
@pytest.mark.e2e  # it compiles all kernels anew: a sixth of the time of all other tests
def test_warming_leaves_no_kernel_for_later_and_nothing_is_compiled_twice(tmp_path: Path, postgres_url: str) -> None:
    """For types that no warming call had, the compiler would make a kernel anew, in the middle of the work."""
    kernels_ = tmp_path / "kernels"
    cold = run(f"-c {UNCOMPILED}", NUMBA_CACHE_DIR=str(kernels_), PYTHONWARNINGS="ignore")
    modules, kernels, uncompiled = cold.stdout.strip().split(" ", 2)
    assert int(modules) == len(list((ROOT / "agents").rglob("*kernels.py")))
    assert int(kernels) > 50
    assert uncompiled == "[]"
    kept = compiled(kernels_)
    assert kept
    (kernels_ / ("0" * 16)).mkdir()
    said = [run("-m agents.runtime.warmup", NUMBA_CACHE_DIR=str(kernels_)).stderr for _ in range(2)]
    assert [warmup.NOTE in text for text in said] == [True, False]
    assert not (kernels_ / ("0" * 16)).exists()
    assert compiled(kernels_) == kept, "compiled again"
    assert run("-c from agents.runtime import warmup; warmup.up(print)", NUMBA_CACHE_DIR=str(kernels_)).stdout == ""
    stores = (commands(tmp_path, kernels_, store) for store in (postgres_url, ""))
    for what in chain(*stores, live(tmp_path, kernels_)):
        assert compiled(kernels_) == kept, what


def commands(folder: Path, kernels_: Path, store: str) -> Iterator[str]:
    """Run what judges, stores and learns; the name of each when it has ended."""
    write(folder / "capture.pcap", 20_000, clients=10)
    lines = [f"{row[0]}\t{row[1]}\t{to_text(row[2])}\t{type_name(row[3])}" for row in mixed()]
    (folder / "mixed.tsv").write_text("\n".join(["ts\tclient\tqname\tqtype", *lines]))
    (folder / "names.txt").write_text("\n".join(line.split("\t")[2] for line in lines))
    for arguments in (
        ("replay", "capture.pcap", "mixed.tsv", "--json", "-", "--store"),
        ("retrain", "--days", "3000"),
        ("score", "--file", "names.txt", "--json", "-"),
    ):
        done = call(folder, *arguments, timeout_s=60, NUMBA_CACHE_DIR=str(kernels_), DATABASE_URL=store)
        assert done.code in (0, 3), done.err
        yield f"{arguments[0]} {store}"


def live(folder: Path, kernels_: Path) -> Iterator[str]:
    """Run listener and detector, twice, the second time with the windows that the first wrote down."""
    (folder / "live").mkdir()
    with running(folder / "live", NUMBA_CACHE_DIR=str(kernels_)) as listener:
        for row in mixed()[:100]:
            listener.ask(row[2])
        wait_until(lambda: listener.stored() >= 100, 20)
        assert listener.stop() == 0
        (folder / "live" / "data" / "detector.json").touch()
        listener.restart()
    yield "run"


@pytest.mark.slow
def test_a_cold_start_says_what_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(warmup, "KEPT", tmp_path)
    warmup.up(said.append)
    assert said == [warmup.NOTE]


@pytest.mark.slow
def test_a_cold_retraining_and_a_cold_restore_say_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: Inside
) -> None:
    monkeypatch.setattr(warmup, "KEPT", tmp_path)
    fill(tmp_path / "data")
    done = inside("retrain", "--samples", "2000")
    assert done.code == 0
    assert warmup.NOTE in done.err
    (backup,) = (tmp_path / "data" / "models" / "backups").glob("*.npz")
    done = inside("models", "restore", backup)
    assert done.code == 0
    assert done.err.startswith(f"dns-tunnel: {warmup.NOTE}\n")


def test_kernels_of_other_versions_go_and_nothing_else(tmp_path: Path) -> None:
    current, old, other = (tmp_path / name for name in ("0123456789abcdef", "fedcba9876543210", "notes-of-mine"))
    for folder in (current, old, other):
        folder.mkdir()
        (folder / "kernel.nbc").write_bytes(b"machine code")
    assert jit.prune_caches(current) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0123456789abcdef", "notes-of-mine"]
    assert (current / "kernel.nbc").exists()


FOLDER = """
import os, pathlib
from agents.core import jit as cache
if os.geteuid() == 0:
    os.setuid({nobody})
print(cache.folder())
"""


def test_where_the_package_cannot_be_written_its_kernels_are_copied(tmp_path: Path) -> None:
    digest = jit.sources_digest()
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
    environment = {"NUMBA_CACHE_DIR": str(package), "XDG_CACHE_HOME": str(own), "COMPILED": "off"}
    for _ in range(2):
        found = Path(run(f"-c {FOLDER.format(nobody=NOBODY)}", **environment).stdout.strip())
        assert found == own / "dns-tunnel-detector" / digest
        assert (found / "kernel.nbc").read_bytes() == b"machine code"
    nowhere = run(f"-c {FOLDER.format(nobody=NOBODY)}", **{**environment, "XDG_CACHE_HOME": "/proc/nowhere"})
    assert nowhere.stdout.strip() == "None"
