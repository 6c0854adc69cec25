"""Files that are never left half written, even after a crash or on a full disk: atomic write, lock, queue on disk.

And files that people write while we run: what they hold is read again when they change.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import structlog

from agents.core.errors import AgentsError, QueueFullError

T = TypeVar("T")

FILE_MODE = 0o644
"""Mode of models and reports: other services and people read them; they do not hold secrets."""
UNPACKED_MAX = 2 << 30
"""A file of state that unpacks to more bytes is refused."""
PRIVATE_MODE = 0o600
"""Mode of files that hold the names that people looked up."""
PRIVATE_FOLDER_MODE = 0o700
LOOK_S = 0.05
"""How often a lock that another process holds is tried again."""
_PART = ".part"
"""Ending of the name of a file that is not complete yet."""
_log = structlog.get_logger()


def write_atomic(
    path: Path, data: bytes, mode: int = FILE_MODE, sync: bool = True, owner: tuple[int, int] | None = None
) -> None:
    """Write `data` to a file beside `path` and rename it to `path` in one step.

    sync: the file is on the disk when this returns, and survives a loss of power; without sync it survives only the
    end of the process. owner: user and group that the file is given to. Raises OSError; then `path` is unchanged, and
    the file beside it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            if sync:
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # after the rename it does not exist any more
    if sync:
        _sync_folder(path.parent)


def place_file(part: Path, path: Path, mode: int = PRIVATE_MODE, owner: tuple[int, int] | None = None) -> None:
    """Rename a file that is complete to `path`, on the same disk, in one step; it survives a loss of power.

    owner: user and group that the file is given to. Raises OSError; then `path` is unchanged.
    """
    handle = os.open(part, os.O_RDONLY)
    try:
        os.fchmod(handle, mode)
        if owner is not None:
            os.fchown(handle, *owner)
        os.fsync(handle)
    finally:
        os.close(handle)
    part.replace(path)
    _sync_folder(path.parent)


def json_state(path: Path) -> dict[str, Any]:
    """The JSON object in a file that may be missing or damaged; then {}."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def heirs_of(path: Path) -> tuple[int, int] | None:
    """User and group to whom a file belongs that root writes for a service: those of its folder; None for others.

    A service that gave up root's rights could not read what a command of root's leaves in its folder. Raises OSError.
    """
    if os.geteuid() != 0:
        return None
    found = path.parent.stat()
    return found.st_uid, found.st_gid


def make_private_folder(path: Path) -> None:
    """Make a folder, and those above it, that only its owner can look into; also where it is there. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True)
    if path.stat().st_uid == os.geteuid():
        path.chmod(PRIVATE_FOLDER_MODE)


def make_private(path: Path) -> None:
    """Make an empty file that only its owner can read, unless the file exists. Raises OSError."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, PRIVATE_MODE))


def locked(path: Path, wait: bool = False) -> IO[bytes]:
    """A lock file, held until it is closed or this process ends, also by a crash; it contains the process' id.

    wait: wait until the lock is free. Raises BlockingIOError if another process holds it, OSError. Makes folders.
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


def locked_within(path: Path, wait_s: float) -> IO[bytes]:
    """As `locked`, but another holder has so many seconds to let the lock go. Raises BlockingIOError, OSError."""
    end = time.monotonic() + wait_s
    while True:
        try:
            return locked(path)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(LOOK_S)


def holder(path: Path) -> str:
    """The process id in a lock file that another process holds; "unknown" if the file is empty or unreadable."""
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
    """One file of a queue. key: identifies the contents; attempts: how often work on it was begun."""

    key: str
    attempts: int
    path: Path


class DiskQueue:
    """Files `<number>-<key>-<attempts><suffix>`, oldest first, bounded; one process owns the folder.

    A file is complete or does not exist, and each key occurs once. sync: files survive a loss of power, not only the
    end of the process. old: matches names of files that an earlier release wrote, with a group `key`, a group
    `attempts`, or both. Threads may share a queue. Raises BlockingIOError if another process owns the folder, OSError.
    """

    def __init__(
        self, folder: Path, suffix: str, *, max_bytes: int, sync: bool, old: re.Pattern[str] | None = None
    ) -> None:
        self._folder, self._suffix, self._max_bytes, self._sync = folder, suffix, max_bytes, sync
        self._guard = threading.Lock()
        if not folder.exists():  # one that is there may be somebody's: a mounted disk for the spool
            make_private_folder(folder)
        self._lock = locked(folder / "lock")
        for left_over in (*folder.glob("*.tmp"), *folder.glob(f".*{_PART}")):
            left_over.unlink()
        self._name = re.compile(rf"[0-9]{{16}}-(?P<key>[0-9a-zA-Z]*)-(?P<attempts>[0-9]){re.escape(suffix)}", re.ASCII)
        self.entries: dict[str, Queued] = {}
        self._bytes = self._number = 0
        for path in sorted(folder.iterdir()):
            if path.suffix == ".bad":
                self._bytes += path.stat().st_size
            elif match := self._name.fullmatch(path.name) or (old and old.fullmatch(path.name)):
                self._find(path, match.groupdict())

    def _find(self, path: Path, named: dict[str, str]) -> None:
        self._number = max(self._number, int(path.name[:16]))
        one = Queued(named.get("key", ""), int(named.get("attempts", 0)), path)
        if self.entries.setdefault(self._place(one), one) is one:
            self._bytes += path.stat().st_size
        else:
            path.unlink()  # an earlier release could leave two files with one key

    @staticmethod
    def _place(one: Queued) -> str:
        return one.key or one.path.name[:16]

    def __len__(self) -> int:
        return len(self.entries)

    def waiting(self) -> list[Queued]:
        """All files, oldest first."""
        with self._guard:
            return list(self.entries.values())

    def oldest(self) -> Queued | None:
        """The oldest file; it stays until `done` or `set_aside`."""
        with self._guard:
            return next(iter(self.entries.values()), None)

    def find(self, key: str) -> Queued | None:
        """The file with this key, or None."""
        return self.entries.get(key)

    @property
    def share_full(self) -> float:
        """Bytes in use, as a share of what there may be."""
        return self._bytes / self._max_bytes

    def put(self, data: bytes, key: str = "") -> Queued:
        """Add a file; if a file with this key waits already, it is returned unchanged.

        Raises QueueFullError at the bound, OSError if the file cannot be written.
        """
        with self._guard:
            if key and key in self.entries:
                return self.entries[key]
            if self._bytes + len(data) > self._max_bytes:
                raise QueueFullError(f"cannot keep a file: {self._folder} has reached {self._max_bytes} bytes")
            self._number += 1
            one = Queued(key, 0, self._folder / f"{self._number:016d}-{key}-0{self._suffix}")
            write_atomic(one.path, data, PRIVATE_MODE, self._sync)
            self._bytes += len(data)
            return self.entries.setdefault(self._place(one), one)

    def begin(self, one: Queued) -> None:
        """Count an attempt in the file's name, so that the next process can read it. Raises OSError."""
        attempts = min(one.attempts + 1, 9)
        name = f"{one.path.name[:16]}-{one.key}-{attempts}{self._suffix}"
        one.path, one.attempts = one.path.rename(one.path.with_name(name)), attempts

    def put_back(self, one: Queued) -> None:
        """Count no attempt any more: the last one came to an end. Raises OSError."""
        name = f"{one.path.name[:16]}-{one.key}-0{self._suffix}"
        one.path, one.attempts = one.path.rename(one.path.with_name(name)), 0

    def done(self, one: Queued) -> None:
        """Remove a file. Raises OSError, but not if the file is already gone: a person may have deleted it."""
        with self._guard:
            self.entries.pop(self._place(one), None)
            with suppress(FileNotFoundError):
                self._bytes -= one.path.stat().st_size
                one.path.unlink()

    def set_aside(self, one: Queued) -> str:
        """Rename a file to `.bad` for people to look at; it still counts as used space. Returns its old name."""
        with self._guard:
            self.entries.pop(self._place(one), None)
            with suppress(FileNotFoundError):
                one.path.rename(one.path.with_suffix(".bad"))
            return one.path.name

    def drop_aside(self, keep: int) -> None:
        """Remove the oldest files that were set aside, all but so many. Raises OSError."""
        with self._guard:
            aside = sorted(self._folder.glob("*.bad"))
            for path in aside[: max(len(aside) - keep, 0)]:
                self._bytes -= path.stat().st_size
                path.unlink()

    def returned(self) -> list[Queued]:
        """Files that a person renamed from `.bad`, or put there, since the folder was last read."""
        found = []
        with self._guard:
            known = {one.path.name for one in self.entries.values()}
            for path in sorted(self._folder.iterdir()):
                match = self._name.fullmatch(path.name)
                if match is None or path.name in known:
                    continue
                one = Queued(match["key"], int(match["attempts"]), path)
                if self.entries.setdefault(self._place(one), one) is one:
                    found.append(one)
        return found

    def close(self) -> None:
        """Release the folder; the files stay."""
        self._lock.close()


LOOK_EVERY_S = 1.0
"""A file is looked at this often, at most."""


class Reread(Generic[T]):
    """The value that `read` makes of a file. Raises what `read` raises, at the first reading alone."""

    def __init__(self, path: Path, read: Callable[[Path], T]) -> None:
        self.path, self._read = path, read
        self._stamp = _stamp(path)
        self._value = read(path)
        self._looked = time.monotonic()

    def value(self) -> T:
        """The value of the file as it is now, or as it was within the last LOOK_EVERY_S seconds."""
        now = time.monotonic()
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            self._look()
        return self._value

    def _look(self) -> None:
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._value = self._read(self.path)
        except AgentsError as error:
            _log.warning("file_not_read_again", error=str(error))
        else:
            _log.info("file_read_again", path=str(self.path))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file's contents; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
