"""Intakes: kinds of files that queries are read from, one file as a Source, and several files as one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.core.protocols import Source, Spec
from agents.core.types import QueryBatch
from agents.sources.files import Opened, open_counted

HEAD_BYTES = 65_536
"""Bytes at a file's beginning by which its kind is found."""


@dataclass(frozen=True)
class Intake(Spec[Source]):
    """A kind of file. factory: (path, values of the fields) -> a Source; it raises CaptureError for a bad file.

    recognizes: whether a file that begins with these bytes, HEAD_BYTES at most, is of this kind.
    """

    recognizes: Callable[[bytes], bool]


class FileSource:
    """One file, plain or compressed: what was counted, how far it has been read. A kind adds `check` and `batches`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.malformed = 0
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self._opened: Opened | None = None
        with self._open() as stream:
            self._size = self._path.stat().st_size
            self.check(stream)
        self._opened = None

    def check(self, stream: io.BufferedReader) -> None:
        """Raise CaptureError unless the file begins as its kind does."""
        raise NotImplementedError

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield the queries in batches of `size` at most."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Bytes of the file on the disk."""
        return self._size

    @property
    def done(self) -> int:
        """Bytes read up to now, as they lie on the disk. The file is not asked: its reader may close it meanwhile."""
        return self._opened.file.bytes_read if self._opened else 0

    def _open(self) -> io.BufferedReader:
        self._opened = open_counted(self._path)
        return self._opened.stream

    def _warn(self, text: str) -> None:
        self.warnings.append(f"{self._path}: {text}")

    def _warn_of_damage(self, damage: str = "") -> None:
        """Warn where decompression failed, or else of the damage that the reader found, if any."""
        inflated = self._opened.inflated if self._opened else None
        damage = (inflated.damage if inflated else "") or damage
        if damage:
            self._warn(f"{damage}; what came before was used")


class Sources:
    """Several sources, one after the other; batches do not span two of them."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.malformed = 0
        self.warnings: list[str] = []
        self.errors: list[str] = []

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(source.size for source in self._sources)

    @property
    def done(self) -> int:
        """Bytes read up to now, as they lie on the disk."""
        return sum(source.done for source in self._sources)

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield the batches of each source; `malformed`, `warnings` and `errors` grow as sources end."""
        for source in self._sources:
            yield from source.batches(size)
            self.malformed += source.malformed
            self.warnings.extend(source.warnings)
            self.errors.extend(source.errors)
