"""Base images are pinned by tag and digest, all or none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "maintainer" / "pin_images.py"
DIGEST, OTHER = "sha256:" + "a1" * 32, "sha256:" + "b2" * 32
FILES = {
    "Dockerfile": "FROM python:3.11-slim-bookworm AS build\nRUN x\nFROM python:3.11-slim-bookworm\n",
    "docker-compose.yml": "services:\n  a:\n    image: postgres:17-trixie\n  b:\n    image: our-own-image\n",
}
DOCKER = """#!/bin/sh
case $4 in
    python:*) echo '{"digest": "%s"}' ;;
    *) %s ;;
esac
"""


def pin(folder: Path, postgres: str) -> subprocess.CompletedProcess[str]:
    docker = folder / "bin" / "docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text(DOCKER % (DIGEST, postgres))
    docker.chmod(0o755)
    for name, text in FILES.items():
        if not (folder / name).exists():
            (folder / name).write_text(text)
    return subprocess.run(
        [sys.executable, str(SCRIPT), *FILES],
        cwd=folder,
        env={**os.environ, "PATH": f"{docker.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_each_tag_gets_its_digest_and_a_second_run_renews_it(tmp_path: Path) -> None:
    for postgres in (DIGEST, OTHER):
        done = pin(tmp_path, f"""echo '{{"digest": "{postgres}"}}'""")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "Dockerfile").read_text().splitlines() == [
            f"FROM python:3.11-slim-bookworm@{DIGEST} AS build",
            "RUN x",
            f"FROM python:3.11-slim-bookworm@{DIGEST}",
        ]
        text = (tmp_path / "docker-compose.yml").read_text()
        assert f"    image: postgres:17-trixie@{postgres}\n" in text
        assert "    image: our-own-image\n" in text


@pytest.mark.parametrize("postgres", ["echo no such image >&2; exit 1", """echo '{"digest": "sha256:12"}'"""])
def test_an_image_that_cannot_be_asked_for_changes_nothing(tmp_path: Path, postgres: str) -> None:
    done = pin(tmp_path, postgres)
    assert done.returncode == 1
    assert done.stderr.startswith("cannot pin postgres:17-trixie: ")
    assert {name: (tmp_path / name).read_text() for name in FILES} == FILES
