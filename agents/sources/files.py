"""Capture files as byte streams, plain or gzip (told by content), that end where a file is damaged."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import Any

from agents.core.errors import CaptureError

_GZIP_MAGIC = b"\x1f\x8b"
"""RFC 1952 section 2.3.1."""
_GZIP_WINDOW = 31  # zlib: 15 bits and a gzip header
_BLOCK = 1 << 18


class Inflated(io.RawIOBase):
    """Decompressed bytes of a gzip stream of one or more members; `damage` says why it ended early, or ""."""

    def __init__(self, raw: io.BufferedReader) -> None:
        self.source = raw
        self._inflater = zlib.decompressobj(_GZIP_WINDOW)
        self._compressed = b""
        self.damage = ""

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        while not self.damage:
            if self._inflater.eof and not self._next_member():
                return 0
            self._compressed = self._compressed or self.source.read(_BLOCK)
            if not self._compressed:
                self.damage = "the gzip stream is cut off"
                return 0
            try:
                data = self._inflater.decompress(self._compressed, len(target))
            except zlib.error:
                self.damage = "the gzip stream is damaged"
                return 0
            self._compressed = self._inflater.unconsumed_tail
            if data:
                target[: len(data)] = data
                return len(data)
        return 0

    def _next_member(self) -> bool:
        """Begin the next gzip member, if there is one; zero padding behind the last is no member."""
        rest = self._inflater.unused_data or self.source.read(_BLOCK)
        self._compressed = rest.lstrip(b"\0") if rest else b""
        if self._compressed:
            self._inflater = zlib.decompressobj(_GZIP_WINDOW)
        return bool(self._compressed)  # at the end the old one stays, so that the end is found again

    def close(self) -> None:
        self.source.close()
        super().close()


class Position:
    """How far a file has been read, in bytes as they lie on the disk. May be asked from another thread."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        self._file: Any = None

    def follow(self, stream: io.BufferedReader, inflated: Inflated | None) -> None:
        """Look at a file that was opened by open_bytes."""
        self._file = (inflated.source if inflated else stream).raw

    @property
    def done(self) -> int:
        """At most `size`."""
        if self._file is None:
            return 0
        try:
            return int(self._file.tell())
        except ValueError:  # it is closed
            return self.size


def open_bytes(path: Path) -> tuple[io.BufferedReader, Inflated | None]:
    """Open for reading. Raises CaptureError if the file is missing, empty, a directory or not allowed."""
    try:
        raw = path.open("rb")
        if raw.peek(2)[:2] != _GZIP_MAGIC:
            stream, inflated = raw, None
        else:
            inflated = Inflated(raw)
            stream = io.BufferedReader(inflated, _BLOCK)
        empty = not stream.peek(1)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise CaptureError(f"cannot read {path}: {reason}") from None
    if empty:
        stream.close()
        reason = inflated.damage if inflated else ""
        raise CaptureError(f"cannot read {path}: {reason or 'the file is empty'}")
    return stream, inflated
