"""Without numba, by the setting or because there is none: everything works, with the same results."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.core import jit
from agents.sources.listener.server import can_compile
from tests.support.commands import ROOT, call, is_one_line
from tests.support.supervised import Load, libraries, mixed, supervised

pytestmark = pytest.mark.integration

ASKED = 100


def without(how: str, folder: Path) -> dict[str, str]:
    """Settings of a process that has no compiler."""
    if how == "setting":
        return {"COMPILED": "off"}
    (folder / "numba.py").write_text("raise ImportError('not for this platform')\n")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def judged(folder: Path, **settings: str) -> tuple[dict[str, tuple[Any, ...]], set[str]]:
    """What is stored of the first names of a load, and what the processes had loaded."""
    with supervised(folder, LISTENER_PROCESSES="1", **settings) as one:
        load = Load(one.port, mixed, per_s=1000, under_way=1)
        load.wait_answered(ASKED)
        load.stop()
        state = one.rested()
        loaded = set[str]().union(*(libraries(process["pid"]) for process in state["processes"].values()))
        assert one.stop() == 0
    assert state["scored"] == state["stored"] == load.sent
    columns = "qname, domain, severity, score, reasons, qtype, rcode, ancount, qlen, rlen, ttl_min, ans_types"
    with contextlib.closing(sqlite3.connect(folder / "data" / "dns-tunnel.db")) as database:
        stored = {row[0]: row for row in database.execute(f"SELECT {columns} FROM queries")}
    return {mixed(number): stored[mixed(number)] for number in range(ASKED)}, loaded


@pytest.mark.skipif(not can_compile(), reason="kernels are off, or not for this platform")
@pytest.mark.parametrize("how", ["setting", "platform"])
@pytest.mark.slow
def test_a_listener_answers_judges_and_stores_the_same(tmp_path: Path, how: str) -> None:
    plain, loaded = judged(tmp_path / "without", **without(how, tmp_path))
    assert "numpy" in loaded and "llvmlite" not in loaded
    compiled, loaded = judged(tmp_path / "with")
    assert "llvmlite" in loaded
    assert plain == compiled
    assert {row[2] for row in plain.values()} > {0}, "and not all of them are NORMAL"


@pytest.mark.skipif(not jit.COMPILED, reason="kernels are off")
@pytest.mark.slow
def test_a_retraining_learns_the_same(tmp_path: Path) -> None:
    judged(tmp_path / "listener")
    with contextlib.closing(sqlite3.connect(tmp_path / "listener" / "data" / "dns-tunnel.db")) as database, database:
        database.execute("DELETE FROM incidents")  # there is one client, and near its incidents nothing is learnt
    models = []
    for mode in ("on", "off"):
        folder = tmp_path / mode
        shutil.copytree(tmp_path / "listener" / "data", folder / "data" / "data")
        done = call(folder, "retrain", "--samples", "2000", timeout_s=100, COMPILED=mode, COMPARE_TYPES="none")
        assert done.code == 0, done.err
        (path,) = (folder / "data" / "models").glob("*.npz")
        with np.load(path) as found:
            models.append({key: found[key] for key in found.files if key != "manifest"})
    assert models[0].keys() == models[1].keys()
    for key, array in models[0].items():
        np.testing.assert_array_equal(array, models[1][key], err_msg=key)


def test_numba_that_is_asked_for_and_not_there_is_one_line(tmp_path: Path) -> None:
    done = call(tmp_path, "score", "a.test", COMPILED="on", PYTHONPATH=without("platform", tmp_path)["PYTHONPATH"])
    assert done.code == 2
    assert is_one_line(done) and "cannot set COMPILED to on" in done.err
