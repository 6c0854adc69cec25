"""Intakes: kinds of files that queries are read from, one file as a Source, and several files as one."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.core.protocols import Source, Spec
from agents.core.types import QueryBatch
from agents.sources.files import Inflated, open_bytes

HEAD_BYTES = 65_536
"""Bytes at a file's beginning by which its kind is found."""


@dataclass(frozen=True)
class Intake(Spec[Source]):
    """A kind of file. factory: (path, values of the fields) -> a Source; it raises CaptureError for a bad file.

    recognizes: whether a file that begins with these bytes, HEAD_BYTES at most, is of this kind.
    """

    recognizes: Callable[[bytes], bool]


class FileSource:
    """One file, plain or gzip: what was counted, and how far it has been read. A kind adds `check` and `batches`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.malformed = 0
        self.warnings: list[str] = []
        self._inflated: Inflated | None = None
        self._raw: Any = None  # the file itself, whose position tells how far it has been read
        with self._open() as stream:
            self._size = os.fstat(stream.fileno() if self._inflated is None else self._inflated.source.fileno()).st_size
            self.check(stream)
        self._raw = None

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
        """Bytes read up to now, as they lie on the disk."""
        if self._raw is None:
            return 0
        try:
            return int(self._raw.tell())
        except ValueError:  # it is closed
            return self._size

    def _open(self) -> io.BufferedReader:
        stream, self._inflated = open_bytes(self._path)
        self._raw = (self._inflated.source if self._inflated else stream).raw
        return stream

    def _warn(self, text: str) -> None:
        self.warnings.append(f"{self._path}: {text}")

    def _warn_of_damage(self, damage: str = "") -> None:
        """Warn where decompression failed, or else of the damage that the reader found, if any."""
        damage = (self._inflated.damage if self._inflated else "") or damage
        if damage:
            self._warn(f"{damage}; what came before was used")


class Sources:
    """Several sources, one after the other; batches do not span two of them."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.malformed = 0
        self.warnings: list[str] = []

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(source.size for source in self._sources)

    @property
    def done(self) -> int:
        """Bytes read up to now, as they lie on the disk."""
        return sum(source.done for source in self._sources)

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield the batches of each source; `malformed` and `warnings` grow as sources end."""
        for source in self._sources:
            yield from source.batches(size)
            self.malformed += source.malformed
            self.warnings.extend(source.warnings)
