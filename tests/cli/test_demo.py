"""make demo, as a newcomer runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import patient

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parent.parent.parent
README = (REPOSITORY / "README.md").read_text("utf-8")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """dns-tunnel of this repository, as one file."""
    path = tmp_path / "dns-tunnel"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m agents "$@"\n')
    path.chmod(0o755)
    return path


def figures(text: str) -> list[str]:
    """The lines that a demo prints, without times, model ids and paths, which differ."""
    without = re.sub(r"in [0-9.]+ s:|DEPLOYED \w+|(report: *|--data-dir |rm -r ).*", r"\1…", text)
    return [line for line in without.splitlines() if line]


def run(*command: str | Path, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=patient(200), check=False)


@pytest.mark.slow
def test_the_demo_finds_the_tunnel_retrains_and_says_how_to_look_further(program: Path, tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    demo.mkdir()
    for left in (".demo", "of an earlier demo"):
        (demo / left).touch()
    done = run(REPOSITORY / "scripts" / "demo.sh", program, demo)
    assert done.returncode == 0, done.stderr
    assert "CRITICAL incident: 10.53.0.11 -> tunnel.test" in done.stdout
    assert "1 incident" in done.stdout
    assert "DEPLOYED" in done.stdout
    assert not (demo / "of an earlier demo").exists()
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines()[-3:])
    assert figures(README.partition("\n$ dns-tunnel replay")[2].partition("```")[0]) == figures(
        done.stdout.replace(str(program), ".venv/bin/dns-tunnel").partition("\n$ dns-tunnel replay")[2]
    )
    (report,) = demo.rglob("*.html")
    assert said["report"].strip() == str(report)
    found = run(*said["look at it"].split(), cwd=tmp_path)
    assert "decodes to" in found.stdout, found.stderr
    assert run(*said["remove it"].split()).returncode == 0
    assert not demo.exists()


def test_the_demo_takes_no_directory_that_somebody_uses(program: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").touch()
    done = run(REPOSITORY / "scripts" / "demo.sh", program, mine)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"cannot use {mine}: it is neither empty nor an earlier demo's\n"
    assert (mine / "thesis.txt").exists()
