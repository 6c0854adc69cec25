"""The atomic write, the lock and the queue on disk."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from agents.core.errors import QueueFullError
from agents.core.files import DiskQueue, holder, locked, write_atomic

OLD = re.compile(r"[0-9]{16}-(?P<key>[a-z]+)\.x", re.ASCII)


def queue(folder: Path, max_bytes: int = 1000, sync: bool = False) -> DiskQueue:
    return DiskQueue(folder, ".x", max_bytes=max_bytes, sync=sync, old=OLD)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


def test_files_come_back_in_order_with_key_and_attempts(tmp_path: Path) -> None:
    one = queue(tmp_path)
    first, second = one.put(b"a", "k"), one.put(b"b")
    one.begin(second)
    assert one.put(b"other", "k") is first
    assert names(tmp_path) == ["0000000000000001-k-0.x", "0000000000000002--1.x"]
    one.close()
    again = queue(tmp_path)
    assert [(file.key, file.attempts, file.path.read_bytes()) for file in again.waiting()] == [
        ("k", 0, b"a"),
        ("", 1, b"b"),
    ]
    assert again.put(b"c").path.name == "0000000000000003--0.x"
    again.close()


def test_names_of_an_earlier_release_are_read_and_left_overs_go(tmp_path: Path) -> None:
    for name in ("0000000000000004-old.x", "0000000000000005-old.x", "7-old.x", "mine.x", "a.tmp", ".b.x.part"):
        (tmp_path / name).write_bytes(b"x")
    one = queue(tmp_path)
    (found,) = one.waiting()
    assert (found.key, found.attempts) == ("old", 0)
    assert names(tmp_path) == ["0000000000000004-old.x", "7-old.x", "mine.x"]
    one.begin(found)
    assert found.path.name == "0000000000000004-old-1.x"
    one.close()


def test_the_bound_counts_what_waits_and_what_is_set_aside(tmp_path: Path) -> None:
    one = queue(tmp_path, max_bytes=10)
    first, second = one.put(b"12345"), one.put(b"12345")
    with pytest.raises(QueueFullError, match="has reached 10 bytes"):
        one.put(b"1")
    one.set_aside(first)
    with pytest.raises(QueueFullError):
        one.put(b"1")
    one.done(second)
    assert one.put(b"12345").path.exists()
    assert names(tmp_path) == ["0000000000000001--0.bad", "0000000000000003--0.x"]
    one.close()
    again = queue(tmp_path, max_bytes=10)
    with pytest.raises(QueueFullError):
        again.put(b"1")
    again.close()


def test_one_process_owns_a_queue_and_a_lock_names_its_holder(tmp_path: Path) -> None:
    one = queue(tmp_path)
    with pytest.raises(BlockingIOError):
        queue(tmp_path)
    assert holder(tmp_path / "lock") == str(os.getpid())
    one.close()
    locked(tmp_path / "lock").close()
    assert holder(tmp_path / "none") == "unknown"


@pytest.mark.parametrize("sync", [True, False])
def test_a_write_is_forced_onto_the_disk_or_not(tmp_path: Path, sync: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    forced: list[int] = []
    monkeypatch.setattr("os.fsync", forced.append)
    write_atomic(tmp_path / "a", b"x", mode=0o600, sync=sync)
    assert len(forced) == (2 if sync else 0)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
