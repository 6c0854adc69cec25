"""Writing files so that a reader, a crash or a full disk never meets half of one."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

FILE_MODE = 0o644
"""Models and reports are read by other services and by people; they hold no secret."""
PRIVATE_MODE = 0o600
"""What people looked up is nobody else's business."""


def write_atomic(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """Write `data` beside `path`, flush it to the disk, and put it in place in one step.

    Raises OSError; then `path` is what it was, and nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def open_private(path: Path) -> IO[bytes]:
    """Open a file for writing, empty; one that is made is its owner's alone. Raises OSError."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_MODE), "wb")


def make_private(path: Path) -> None:
    """Make an empty file that is its owner's alone, where there is none. Raises OSError."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, PRIVATE_MODE))


def locked(path: Path) -> IO[bytes]:
    """A lock file, held until it is closed or this process ends, however that ends. Raises BlockingIOError, OSError."""
    file = open_private(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
