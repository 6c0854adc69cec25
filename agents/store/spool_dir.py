"""Batches on disk, oldest first, bounded.

A file is there whole or not at all; one process owns the directory.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from agents.core.errors import SpoolFullError, StoreError
from agents.core.files import locked, open_private

_NAME = re.compile(r"[0-9]{16}-[0-9a-zA-Z]+\.npz", re.ASCII)


class SpoolDir:
    """Files `<sequence>-<batch id>.npz`. Raises StoreError when the directory cannot be ours alone."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = locked(directory / "lock")
        except BlockingIOError:
            raise StoreError(f"cannot use spool {directory}: another process holds it (listen or run)") from None
        except OSError as error:
            raise StoreError(f"cannot use spool {directory}: {error.strerror}") from None
        for left_over in directory.glob("*.tmp"):
            left_over.unlink()
        self._waiting: dict[str, Path] = {}  # by batch id, oldest first
        for path in sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name)):
            if self._waiting.setdefault(_id_of(path), path) is not path:
                path.unlink()  # one batch twice: the store would take one
        self._bytes = sum(path.stat().st_size for path in directory.iterdir())
        self._sequence = max((int(path.name.partition("-")[0]) for path in self._waiting.values()), default=0)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, batch_id: str, data: bytes) -> None:
        """Keep a batch; one that waits under this id already is left alone.

        Raises SpoolFullError at the bound, OSError when the disk does not take it.
        """
        if batch_id in self._waiting:
            return
        if self._bytes + len(data) > self._max_bytes:
            raise SpoolFullError(f"cannot spool a batch: {self._directory} has reached {self._max_bytes} bytes")
        self._sequence += 1
        path = self._directory / f"{self._sequence:016d}-{batch_id}.npz"
        partial = path.with_suffix(".tmp")
        try:
            with open_private(partial) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
            self._sync()
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        self._waiting[batch_id] = path
        self._bytes += len(data)

    def _sync(self) -> None:
        """Make the new name itself safe from a loss of power."""
        handle = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def oldest(self) -> tuple[str, bytes] | None:
        """(batch id, content) of the batch that waits longest; it stays until `done` or `set_aside`."""
        for batch_id, path in self._waiting.items():
            return batch_id, path.read_bytes()
        return None

    def content(self, batch_id: str) -> bytes | None:
        """The batch that waits under this id, if one does. Raises OSError."""
        path = self._waiting.get(batch_id)
        return None if path is None else path.read_bytes()

    def done(self) -> None:
        """Forget the oldest batch: it is stored."""
        path = self._pop()
        with suppress(FileNotFoundError):  # somebody tidied up: stored all the same
            self._bytes -= path.stat().st_size
            path.unlink()

    def set_aside(self) -> str:
        """Keep the oldest batch as `.bad`, for people to look at; it goes on to count as used space."""
        path = self._pop()
        with suppress(FileNotFoundError):
            path.rename(path.with_suffix(".bad"))
        return path.name

    def _pop(self) -> Path:
        return self._waiting.pop(next(iter(self._waiting)))

    def close(self) -> None:
        self._lock.close()


def _id_of(path: Path) -> str:
    return path.stem.partition("-")[2]
