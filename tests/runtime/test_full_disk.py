"""A disk that is full, for real: a small file system in memory that is filled up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import BASE, environment
from tests.support.listening import wait_until
from tests.support.live import Running
from tests.support.stubs import StubServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(folder: Path) -> Path:
    """Take all room but for nothing."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError:
            return filler


def test_a_full_disk_is_named_at_once_and_what_was_lost_until_acknowledged(small: Path) -> None:
    with StubServer() as upstream:
        one = Running(small, upstream)
        try:
            one.wait_ready()
            assert one.get("/health")["components"]["disk"] == {"ok": True}
            filler = fill_up(small / "data")

            def component(name: str) -> dict[str, object]:
                for number in range(200):
                    one.ask(f"host{number}.example.com")
                found: dict[str, object] = one.get("/health")["components"][name]
                return found

            wait_until(lambda: not component("disk")["ok"], 30)
            assert "full" in str(component("disk")["error"]) or "No space left" in str(component("disk")["error"])
            wait_until(lambda: bool(component("queue").get("lost")), 60)
            assert "No space left" in str(component("disk")["error"])
            assert one.get("/health")["status"] == "degraded"
            filler.unlink()
            wait_until(lambda: bool(component("disk")["ok"]), 30)
            assert not component("queue")["ok"], "what was lost stays visible"
            done = subprocess.run(
                [*BASE, "--data-dir", str(small), "health", "--acknowledge"],
                capture_output=True,
                check=True,
                cwd=small,
                env=environment(**one.settings),
            )
            assert b"acknowledged" in done.stdout
            wait_until(lambda: bool(component("queue")["ok"]), 30)
            assert one.ask("still.example.com").answer
        finally:
            one.kill()
