"""Files that a reader, a crash or a full disk never meets half of: one atomic write, one lock, one queue on disk."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from agents.core.errors import QueueFullError

FILE_MODE = 0o644
"""Models and reports are read by other services and by people; they hold no secret."""
PRIVATE_MODE = 0o600
"""What people looked up is nobody else's business."""
_PART = ".part"
"""Ends the name of a file that is not whole yet."""


def write_atomic(path: Path, data: bytes, mode: int = FILE_MODE, sync: bool = True) -> None:
    """Write `data` beside `path` and put it in place in one step.

    sync: it is on the disk when this returns, and outlives a loss of power; without, it outlives the process.
    Raises OSError; then `path` is what it was, and nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if sync:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if sync:
        _sync_folder(path.parent)


def make_private(path: Path) -> None:
    """Make an empty file that is its owner's alone, where there is none. Raises OSError."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, PRIVATE_MODE))


def locked(path: Path, wait: bool = False) -> IO[bytes]:
    """A lock file, held until it is closed or this process ends, however that ends; it holds the process' id.

    wait: until the holder lets go. Raises BlockingIOError where another holds it, OSError. Folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE_MODE), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
    except OSError:
        file.close()
        raise
    return file


def holder(path: Path) -> str:
    """The process id in a lock file that another holds; "unknown" where it holds none."""
    try:
        return path.read_bytes()[:20].decode("ascii", "replace").strip() or "unknown"
    except OSError:
        return "unknown"


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(slots=True)
class Queued:
    """One file of a queue. key: what its maker knows it by; attempts: how often work on it was begun."""

    key: str
    attempts: int
    path: Path


class DiskQueue:
    """Files `<number>-<key>-<attempts><suffix>`, oldest first, bounded; one process owns the folder.

    A file is there whole or not at all, and each key once. sync: files outlive a loss of power, not only the process.
    old: the names of files that an earlier release wrote, with a group `key`, a group `attempts`, or both.
    Safe to share between threads. Raises BlockingIOError where another process owns the folder, OSError.
    """

    def __init__(
        self, folder: Path, suffix: str, *, max_bytes: int, sync: bool, old: re.Pattern[str] | None = None
    ) -> None:
        self._folder, self._suffix, self._max_bytes, self._sync = folder, suffix, max_bytes, sync
        self._guard = threading.Lock()
        self._lock = locked(folder / "lock")
        for left_over in (*folder.glob("*.tmp"), *folder.glob(f".*{_PART}")):
            left_over.unlink()
        name = re.compile(rf"[0-9]{{16}}-(?P<key>[0-9a-zA-Z]*)-(?P<attempts>[0-9]){re.escape(suffix)}", re.ASCII)
        self._waiting: dict[str, Queued] = {}
        self._bytes = self._number = 0
        for path in sorted(folder.iterdir()):
            if path.suffix == ".bad":
                self._bytes += path.stat().st_size
            elif match := name.fullmatch(path.name) or (old and old.fullmatch(path.name)):
                self._find(path, match.groupdict())

    def _find(self, path: Path, named: dict[str, str]) -> None:
        self._number = max(self._number, int(path.name[:16]))
        one = Queued(named.get("key", ""), int(named.get("attempts", 0)), path)
        if self._waiting.setdefault(self._place(one), one) is one:
            self._bytes += path.stat().st_size
        else:
            path.unlink()  # one key twice: a release before this one could leave that

    @staticmethod
    def _place(one: Queued) -> str:
        return one.key or one.path.name[:16]

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting(self) -> list[Queued]:
        """All files, oldest first."""
        with self._guard:
            return list(self._waiting.values())

    def oldest(self) -> Queued | None:
        """The file that waits longest; it stays until `done` or `set_aside`."""
        with self._guard:
            return next(iter(self._waiting.values()), None)

    def find(self, key: str) -> Queued | None:
        """The file with this key."""
        return self._waiting.get(key)

    def put(self, data: bytes, key: str = "") -> Queued:
        """Keep a file; one that waits with this key already is left alone, and returned.

        Raises QueueFullError at the bound, OSError where the disk does not take it.
        """
        with self._guard:
            if key and key in self._waiting:
                return self._waiting[key]
            if self._bytes + len(data) > self._max_bytes:
                raise QueueFullError(f"cannot keep a file: {self._folder} has reached {self._max_bytes} bytes")
            self._number += 1
            one = Queued(key, 0, self._folder / f"{self._number:016d}-{key}-0{self._suffix}")
            write_atomic(one.path, data, PRIVATE_MODE, self._sync)
            self._bytes += len(data)
            return self._waiting.setdefault(self._place(one), one)

    def begin(self, one: Queued) -> None:
        """Note in the file's name that work on it begins, so that the next process knows. Raises OSError."""
        attempts = min(one.attempts + 1, 9)
        name = f"{one.path.name[:16]}-{one.key}-{attempts}{self._suffix}"
        one.path, one.attempts = one.path.rename(one.path.with_name(name)), attempts

    def done(self, one: Queued) -> None:
        """Remove a file. Raises OSError, but not for a file that is gone: somebody tidied up."""
        with self._guard:
            self._waiting.pop(self._place(one), None)
            with suppress(FileNotFoundError):
                self._bytes -= one.path.stat().st_size
                one.path.unlink()

    def set_aside(self, one: Queued) -> str:
        """Keep a file as `.bad`, for people to look at; it goes on to count as used space. Returns its old name."""
        with self._guard:
            self._waiting.pop(self._place(one), None)
            with suppress(FileNotFoundError):
                one.path.rename(one.path.with_suffix(".bad"))
            return one.path.name

    def close(self) -> None:
        """Let the folder go; the files stay."""
        self._lock.close()
