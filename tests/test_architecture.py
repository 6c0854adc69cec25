"""Facts of the layout: what a newcomer may rely on, and what import-linter does not say."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.patience import patient

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "agents"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {path.name: path for path in sorted(PACKAGE.iterdir()) if (path / "__init__.py").is_file()}
BESIDE_ROOMS = {"settings.py", "__main__.py", "__init__.py", "README.md", "DECISIONS.md"}
ROOM_FILES_MAX = 15
ALERTING_MODULES_MAX = 24
"""What importing AlertManager may load of the package: its own room, `core`, `dns` and the settings."""


def layers() -> list[set[str]]:
    """The rooms of each layer, the lowest first, as the contract in pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (found,) = [one["layers"] for one in project["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    return [{room.strip() for room in layer.split("|")} for layer in reversed(found)]


def above(room: str) -> set[str]:
    """All that stands on higher layers than a room."""
    (at,) = [number for number, layer in enumerate(layers()) if room in layer]
    return set().union(*layers()[at + 1 :])


def test_the_package_holds_rooms_and_little_beside_them() -> None:
    found = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__" and path.name not in ROOMS}
    assert found == BESIDE_ROOMS
    assert set().union(*layers()) == {*ROOMS, "settings"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_its_sentence_and_who_may_import_it(room: str) -> None:
    said = ast.get_docstring(ast.parse((ROOMS[room] / "__init__.py").read_text("utf-8"))) or ""
    first, _, rest = said.partition("\n\n") if "\n\n" in said else said.partition(". ")
    assert re.match(r"[A-Z]", first) and "\n" not in first, "one sentence, in one line"
    assert re.search(r"\bimports? it\b", rest), "who may import it"
    for clause in re.split(r"[.;]\s", rest):
        named = set(re.findall(r"`(\w+)`", clause)) & {*ROOMS}
        if "stand" in clause:
            assert not named & above(room), clause
        elif "may import it" in clause and "but" not in clause:
            assert named <= above(room), clause


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_can_be_seen_at_a_glance(room: str) -> None:
    folders = {path.parent for path in ROOMS[room].rglob("*.py") if "migrations" not in path.parts}
    sizes = {str(folder.relative_to(PACKAGE)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {folder: size for folder, size in sizes.items() if size > ROOM_FILES_MAX} == {}


def loaded_by(module: str) -> set[str]:
    """All modules that a fresh interpreter has loaded when it has imported one."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=patient(60)
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "part", ["agents.runtime.services", "agents.cli.models", "agents.cli.parser", "agents.cli.doctor"]
)
@pytest.mark.slow
def test_only_a_retraining_loads_scikit_learn(part: str) -> None:
    assert not {"sklearn", "scipy.sparse"} & loaded_by(part)


def test_whoever_alerts_loads_neither_compiler_nor_database() -> None:
    """Other programs import AlertManager as a library: it is to cost them little."""
    loaded = loaded_by("agents.alerting")
    assert not {"numba", "llvmlite", "sqlalchemy", "psycopg2", "numba.core", "scipy"} & loaded
    ours = {name for name in loaded if name.partition(".")[0] == "agents"}
    rooms = {name.split(".")[1] for name in ours if "." in name}
    assert rooms <= {"alerting", "core", "dns", "settings"}, sorted(ours)
    assert len(ours) <= ALERTING_MODULES_MAX, sorted(ours)
    assert not [name for name in ours if name.endswith("kernels")]


def test_every_module_can_be_imported_first() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES if "migrations" not in path.parts]
    for name in names:
        assert importlib.import_module(name.removesuffix(".__init__"))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=patient(60)
    )


def copied(folder: Path) -> Path:
    """The package and its contract, to break."""
    shutil.copytree(PACKAGE, folder / "agents", ignore=shutil.ignore_patterns("__pycache__", "baseline"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_imports_point_down() -> None:
    found = lint_imports(ROOT)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_file_without_a_layer_is_an_error(tmp_path: Path) -> None:
    (copied(tmp_path) / "agents" / "utils.py").write_text('"""Odds and ends."""\n')
    found = lint_imports(tmp_path)
    assert found.returncode != 0
    assert "agents.utils" in found.stdout


def test_an_import_that_points_up_is_an_error(tmp_path: Path) -> None:
    with (copied(tmp_path) / "agents" / "dns" / "name.py").open("a") as file:
        file.write("from agents import settings\nfrom agents.detection import detector\nimport sklearn\n")
    found = lint_imports(tmp_path)
    assert found.returncode == 1
    for wrong in ("agents.detection.detector", "agents.settings", "sklearn"):
        assert f"agents.dns.name -> {wrong}" in found.stdout
