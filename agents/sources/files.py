"""Files as byte streams, plain or compressed by their content; a stream ends where its file is damaged."""

from __future__ import annotations

import bz2
import io
import lzma
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import lz4.frame

from agents.core.compression import zstd
from agents.core.errors import CaptureError

_BLOCK = 1 << 18
"""Bytes read at once from the disk."""
_GZIP_WINDOW = 31  # zlib: 15 bits and a gzip header
_XZ_MEMORY_MAX = 1 << 28
"""Bytes of memory that an xz stream may ask for; `xz -9` needs 65 MiB."""


class _Decompressor(Protocol):
    """A decompressor of one member, as the standard library's bz2 and lzma have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor of a gzip member, with the methods of the others."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(_GZIP_WINDOW)

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflater.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inflater.decompress(self._inflater.unconsumed_tail + data, max_length)


@dataclass(frozen=True)
class _Compression:
    """A way to compress. magics: how a member begins; error: what its decompressor raises for damaged data."""

    name: str
    magics: tuple[bytes, ...]
    decompressor: Callable[[], _Decompressor]
    error: type[Exception]


_SKIPPABLE = tuple(bytes((0x50 + number, 0x2A, 0x4D, 0x18)) for number in range(16))
"""A skippable frame, which zstd in several threads puts first (RFC 8878 section 3.1.2)."""
_COMPRESSIONS = (
    _Compression("gzip", (b"\x1f\x8b",), _Gzip, zlib.error),  # RFC 1952 section 2.3.1
    _Compression("xz", (b"\xfd7zXZ\0",), lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY_MAX), lzma.LZMAError),
    _Compression("zstd", (b"\x28\xb5\x2f\xfd", *_SKIPPABLE), zstd.ZstdDecompressor, zstd.ZstdError),  # RFC 8878
    _Compression("bzip2", (b"BZh",), bz2.BZ2Decompressor, OSError),
    _Compression("lz4", (b"\x04\x22\x4d\x18",), lz4.frame.LZ4FrameDecompressor, RuntimeError),
)


class CountedFile(io.FileIO):
    """A file that counts the bytes read from it: another thread may ask at any time, also when it is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.bytes_read = 0

    def readinto(self, target: memoryview) -> int | None:  # type: ignore[override]
        size = super().readinto(target)
        self.bytes_read += size or 0
        return size


class Inflated(io.RawIOBase):
    """Decompressed bytes of one or more members; `damage` is why the stream ended early, or "".

    No more is decompressed at once than is asked for, however small the file is.
    """

    def __init__(self, raw: io.BufferedReader, kind: _Compression) -> None:
        self._source, self._kind = raw, kind
        self._member = kind.decompressor()
        self.damage = ""

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        rest = b""
        while not self.damage:
            if self._member.eof:
                rest = self._next_member()
                if not rest:
                    return 0
            elif self._member.needs_input:
                rest = self._source.read(_BLOCK)
                if not rest:
                    self.damage = f"the {self._kind.name} stream is cut off"
                    return 0
            try:
                data = self._member.decompress(rest, len(target))
            except self._kind.error:
                self.damage = f"the {self._kind.name} stream is damaged"
                return 0
            rest = b""
            if data:
                target[: len(data)] = data
                return len(data)
        return 0

    def _next_member(self) -> bytes:
        """Begin the next member, if there is one; its first bytes. Zero padding behind the last is no member."""
        rest = (self._member.unused_data or self._source.read(_BLOCK)).lstrip(b"\0")
        if rest:
            self._member = self._kind.decompressor()
        return rest  # at the end the old one stays, so that the next read finds the end again

    def close(self) -> None:
        self._source.close()
        super().close()


@dataclass(frozen=True)
class Opened:
    """A file that is open for reading. inflated: its decompressed bytes, or None if it is plain."""

    stream: io.BufferedReader
    file: CountedFile
    inflated: Inflated | None


def open_counted(path: Path) -> Opened:
    """Open for reading. Raises CaptureError if the file is missing, empty, a directory or not allowed."""
    try:
        file = CountedFile(path)
        stream: io.BufferedReader = io.BufferedReader(file, _BLOCK)
        inflated = None
        head = stream.peek(8)
        kind = next((one for one in _COMPRESSIONS if head.startswith(one.magics)), None)
        if kind is not None:
            inflated = Inflated(stream, kind)
            stream = io.BufferedReader(inflated, _BLOCK)
        empty = not stream.peek(1)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise CaptureError(f"cannot read {path}: {reason}") from None
    if empty:
        stream.close()
        reason = inflated.damage if inflated else ""
        raise CaptureError(f"cannot read {path}: {reason or 'the file is empty'}")
    return Opened(stream, file, inflated)


def open_bytes(path: Path) -> tuple[io.BufferedReader, Inflated | None]:
    """The stream of `open_counted`, and its decompression if there is one. Raises CaptureError."""
    opened = open_counted(path)
    return opened.stream, opened.inflated
