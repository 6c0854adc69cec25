"""Files as byte streams, plain or gzip by their content; a stream ends where its file is damaged."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

from agents.core.errors import CaptureError

_GZIP_MAGIC = b"\x1f\x8b"
"""RFC 1952 section 2.3.1."""
_GZIP_WINDOW = 31  # zlib: 15 bits and a gzip header
_BLOCK = 1 << 18


class Inflated(io.RawIOBase):
    """Decompressed bytes of a gzip stream of one or more members; `damage` is why it ended early, or ""."""

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
        return bool(self._compressed)  # at the end the old one stays, so that the next read finds the end again

    def close(self) -> None:
        self.source.close()
        super().close()


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
