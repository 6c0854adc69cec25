"""Facts of the layout: what a newcomer may rely on, and what import-linter does not say."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "agents"
FILES = sorted(PACKAGE.rglob("*.py"))
LINES_MAX, FUNCTION_LINES_MAX = 300, 50


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def test_files_are_short() -> None:
    sizes = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {path: size for path, size in sizes.items() if size > LINES_MAX} == {}


def test_functions_are_short() -> None:
    found = [
        f"{path.name}: {node.name}"
        for path, node in functions()
        if (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert found == []


def test_every_module_says_what_it_is() -> None:
    silent = [path.name for path in FILES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert silent == []


def test_only_fanout_catches_everything() -> None:
    found = {
        path.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ExceptHandler) and _is_broad(node)
    }
    assert found == {"fanout.py"}


FAULTS = {"LookupError", "KeyError", "TypeError", "AttributeError"}
"""What a programmer's mistake raises."""
OTHER_ROOMS = {"snapshot.py"}
"""Still to be parsed strictly."""


def test_no_long_list_of_exceptions_hides_a_programmers_error() -> None:
    found = {
        path.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and isinstance(node.type, ast.Tuple)
        and len(node.type.elts) > 3
        and FAULTS & {one.id for one in node.type.elts if isinstance(one, ast.Name)}
    }
    constants = {
        path.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and isinstance(node.type, ast.Name)
        and node.type.id.isupper()
        and FAULTS & {one.__name__ for one in _constant(path, node.type.id)}
    }
    assert found | constants <= OTHER_ROOMS


def _constant(path: Path, name: str) -> tuple[type[BaseException], ...]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    value: tuple[type[BaseException], ...] = getattr(importlib.import_module(module), name)
    return value


def _is_broad(node: ast.ExceptHandler) -> bool:
    named = [node.type] if not isinstance(node.type, ast.Tuple) else node.type.elts
    return any(one is None or (isinstance(one, ast.Name) and one.id in ("Exception", "BaseException")) for one in named)


@pytest.mark.parametrize(
    "part", ["agents.runtime.services", "agents.cli.models", "agents.cli.parser", "agents.cli.doctor"]
)
def test_only_a_retraining_loads_scikit_learn(part: str) -> None:
    code = f"import sys, {part}; print('sklearn' in sys.modules, 'scipy.sparse' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", "False"]


def test_every_module_can_be_imported_first() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES if "migrations" not in path.parts]
    for name in names:
        assert importlib.import_module(name.removesuffix(".__init__"))


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_imports_point_down_and_a_file_without_a_floor_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "agents", ignore=shutil.ignore_patterns("__pycache__", "baseline"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    kept = lint_imports(tmp_path)
    assert kept.returncode == 0, kept.stdout + kept.stderr
    (tmp_path / "agents" / "utils.py").write_text('"""Odds and ends."""\n')
    assert "agents.utils" in lint_imports(tmp_path).stdout
    (tmp_path / "agents" / "utils.py").unlink()
    with (tmp_path / "agents" / "names.py").open("a") as file:
        file.write("from agents import detection, settings\nimport sklearn\n")
    broken = lint_imports(tmp_path)
    assert broken.returncode == 1
    for wrong in (
        "agents.dns.name -> agents.detection.detector",
        "agents.dns.name -> agents.settings",
        "agents.dns.name -> sklearn",
    ):
        assert wrong in broken.stdout


def test_scripts_that_cron_calls_are_short() -> None:
    assert len((ROOT / "scripts" / "automated_retraining.py").read_text("utf-8").splitlines()) <= 40


def test_notifiers_are_one_short_file_each() -> None:
    sizes = {path.name: len(path.read_text("utf-8").splitlines()) for path in (PACKAGE / "notifiers").glob("*.py")}
    assert {name for name, size in sizes.items() if size > 100} == set()
