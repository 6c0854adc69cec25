"""A log that grows: each new line once, over rotation (renamed, copied and truncated, compressed) and restarts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from agents.core.errors import CaptureError
from agents.core.protocols import Field, Spec
from agents.sources.files import open_counted
from agents.sources.logs.source import LOG_LINE_MAX

HEAD_MAX = 1024
"""Bytes at its beginning by which a file is known again, under whichever name."""
COLLECT_MAX = 100
"""Files that one process follows, at most: their positions lie in one shared note."""
TAIL_CHUNK = 1 << 17
"""Bytes read at once: some thousand lines, which come twice where their reader is killed."""
_COMMENTS_MAX = 1 << 16
COLLECT = Spec(
    "collect",
    "logs that grow",
    (
        Field("collect_files", str, "", "logs that run, listen and collect follow, comma-separated (docs/intakes.md)"),
        Field("collect_format", str, "auto", "their kind, as `replay --format` names it; auto = each by its content"),
        Field(
            "pihole_password",
            str,
            "",
            "password of a Pi-hole whose address, http://…, stands in COLLECT_FILES; an application password will do",
            secret=True,
        ),
    ),
    lambda values: values,
)
"""The settings of following."""


class Position(NamedTuple):
    """How far a file has been read. head: hash of its first `size` bytes, HEAD_MAX at most; offset: of the next line.

    offset counts decompressed bytes: a file may be compressed when it is found again.
    """

    size: int
    head: str
    offset: int

    @classmethod
    def of(cls, found: object) -> Position | None:
        """The position in a saved JSON value, or None if it is none."""
        if not isinstance(found, list) or len(found) != 3:
            return None
        size, head, offset = found
        known = isinstance(size, int) and isinstance(head, str) and isinstance(offset, int) and 0 <= size <= HEAD_MAX
        return cls(size, head, offset) if known and offset >= 0 else None


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class TailedFile:
    """One log by its name. `read` gives new lines; `position` is behind the last of them.

    position: where an earlier process was, None = a file that is there begins at its end, or at its beginning where
    `from_start`. One that appears later is read from its beginning.
    """

    def __init__(self, path: Path, position: Position | None = None, from_start: bool = False) -> None:
        self.path, self._known, self._from_start = path, position, from_start or position is not None
        self._descriptor, self._identity = -1, (0, 0)
        self._offset, self._rest, self._skips, self._gone = 0, b"", False, False
        self._head = b""
        self._comments: list[bytes] = []
        self._older: Iterator[bytes] | None = None
        self._before: Position | None = None  # in an older file that is still to be read to its end
        self.lost = False
        """The file that was read before was not found again: lines may be missing."""
        self.error = ""
        """Why the file cannot be read at present, or ""."""

    @property
    def position(self) -> Position | None:
        """Behind the last line given; None before the file was there."""
        if self._before is not None or self._descriptor < 0:
            return self._before or self._known
        return Position(len(self._head), _hash(self._head), self._offset)

    def close(self) -> None:
        """Close the file; it is gone on with when it is read again."""
        self._known = self.position
        self._leave()

    def _leave(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._older, self._before = -1, None, None

    def read(self) -> list[bytes | None]:
        """The lines that came since the last call, as many as TAIL_CHUNK bytes hold; none = nothing new at present.

        None stands for a line longer than LOG_LINE_MAX. Before lines of a file that is not read from its beginning
        come the lines with # that it begins with: they say how others are read.
        """
        lines = self._read()
        comments, self._comments = self._comments, []
        return [*comments, *lines]

    def _read(self) -> list[bytes | None]:
        if not self.open():
            return []
        if self._older is not None:
            if block := next(self._older, b""):
                return self._lines(block)
            self._end_older()
        if self._is_another():
            self._start_over()
            return []
        while block := os.pread(self._descriptor, TAIL_CHUNK, self._offset + len(self._rest)):
            self._gone = False
            self._extend_head()
            if lines := self._lines(block):
                return lines
        return self._look_for_a_new_one()

    def open(self) -> bool:
        """Open the file where it is not open yet; whether it is there."""
        if self._descriptor >= 0:
            return True
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            self.error = os.strerror(error.errno or 0).lower()
            if isinstance(error, FileNotFoundError):
                self._from_start = True  # what appears later is new
            return False
        self.error = ""
        found = os.fstat(self._descriptor)
        self._identity = found.st_dev, found.st_ino
        known, self._known = self._known, None
        self._offset, self._rest, self._head = 0, b"", b""
        self._extend_head()
        if known is not None and not self._goes_on(known, found.st_size):
            self._catch_up(known)
        elif known is None and not self._from_start:
            self._offset = self._last_line_end(found.st_size)
        if self._offset:
            self._comments = _comments_in(os.pread(self._descriptor, _COMMENTS_MAX, 0))
        self._from_start = True
        return True

    def _goes_on(self, known: Position, size: int) -> bool:
        """Whether the file is the one of a position; then it is gone on with."""
        data = os.pread(self._descriptor, known.size, 0)
        if size < known.offset or len(data) < known.size or _hash(data) != known.head:
            return False
        self._offset = known.offset
        return True

    def _last_line_end(self, size: int) -> int:
        """Where the last whole line of a file ends."""
        begin = max(size - LOG_LINE_MAX, 0)
        return begin + os.pread(self._descriptor, size - begin, begin).rfind(b"\n") + 1

    def _extend_head(self) -> None:
        if len(self._head) < HEAD_MAX:
            self._head = os.pread(self._descriptor, HEAD_MAX, 0)

    def _is_another(self) -> bool:
        """Whether what was read is gone from the file at hand: it was truncated, and perhaps written again."""
        size = os.fstat(self._descriptor).st_size
        if size < self._offset + len(self._rest):
            return True
        return os.pread(self._descriptor, len(self._head), 0) != self._head

    def _start_over(self) -> None:
        """Read the rest of the copy that was made before the file was truncated, then the file from its beginning."""
        before = Position(len(self._head), _hash(self._head), self._offset)
        self._offset, self._rest, self._head = 0, b"", b""
        self._extend_head()
        self._catch_up(before)

    def _look_for_a_new_one(self) -> list[bytes | None]:
        """At the end of the file: where another has its name, go over to that. A writer may need a moment to do so."""
        try:
            found = self.path.stat()
        except OSError:
            return []
        if (found.st_dev, found.st_ino) == self._identity or not found.st_size:
            return []  # an empty one has been made in advance: the writer may still have the old one
        if not self._gone:
            self._gone = True
            return []
        self._gone = False
        rest, self._rest = self._rest, b""
        self._leave()
        self.open()
        return [rest] if rest else []

    def _catch_up(self, known: Position) -> None:
        """Have older files read that lie beside this one: from a position on, and what is newer than it."""
        candidates = self._rotated()
        for at, path in enumerate(candidates):
            if _begins(path, known):
                self._before = known
                with open_counted(path).stream as stream:
                    self._comments = _comments_in(stream.read(_COMMENTS_MAX))
                self._older = self._blocks(known.offset, candidates[at:])
                return
        self.lost |= known.offset > 0

    def _rotated(self) -> list[Path]:
        """Files that rotation made of this one, the oldest first."""
        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        pattern = re.compile(rf"{stem}(?:{suffix}[.-]\d[\d._-]*|[.-]\d[\d._-]*{suffix})(?:\.(?:gz|xz|zst|bz2|lz4))?")
        found: list[tuple[int, Path]] = []
        with suppress(OSError):  # one may be taken away at this moment
            siblings = (path for path in self.path.parent.iterdir() if pattern.fullmatch(path.name))
            found.extend((path.stat().st_mtime_ns, path) for path in siblings)
        return [path for _, path in sorted(found)]

    def _blocks(self, offset: int, paths: list[Path]) -> Iterator[bytes]:
        """The bytes of files, the first one from an offset on; each ends with a line end."""
        for path in paths:
            with suppress(CaptureError), open_counted(path).stream as stream:
                left = offset
                while left and (skipped := len(stream.read(min(left, TAIL_CHUNK)))):
                    left -= skipped
                last = b"\n"
                self._before = Position(*_identity(path), offset)
                while block := stream.read(TAIL_CHUNK):
                    last = block
                    yield block
                if not last.endswith(b"\n"):
                    yield b"\n"
            offset = 0

    def _end_older(self) -> None:
        self._older = self._before = None
        self._rest = b""

    def _lines(self, block: bytes) -> list[bytes | None]:
        """The whole lines in what is left from before and a new block."""
        data = self._rest + block
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        whole = data[: end - 1].split(b"\n") if end else []
        lines: list[bytes | None] = [line if len(line) <= LOG_LINE_MAX else None for line in whole]
        self._advance(end)
        if self._skips and lines:  # the end of a line that was too long
            lines[0], self._skips = None, False
        if len(self._rest) > LOG_LINE_MAX:
            self._advance(len(self._rest))
            self._rest, self._skips = b"", True
        return lines

    def _advance(self, size: int) -> None:
        if self._before is not None:
            self._before = self._before._replace(offset=self._before.offset + size)
        else:
            self._offset += size


def _identity(path: Path) -> tuple[int, str]:
    """Size and hash of a file's head, as Position has them."""
    with open_counted(path).stream as stream:
        head = stream.read(HEAD_MAX)
    return len(head), _hash(head)


def _comments_in(head: bytes) -> list[bytes]:
    """The lines with # that a file begins with."""
    lines = head.splitlines(keepends=True)
    count = next((at for at, line in enumerate(lines) if not line.startswith(b"#")), len(lines))
    return lines[:count]


def _begins(path: Path, known: Position) -> bool:
    """Whether a file, plain or compressed, begins as the one of a position did."""
    try:
        with open_counted(path).stream as stream:
            data = stream.read(known.size)
    except CaptureError:
        return False
    return len(data) == known.size > 0 and _hash(data) == known.head


def files_of(values: dict[str, Any]) -> list[str]:
    """The paths and addresses in COLLECT_FILES."""
    return [part.strip() for part in str(values["collect_files"]).split(",") if part.strip()]


def is_address(name: str) -> bool:
    """Whether a name is the address of a server, not a path."""
    return name.startswith(("http://", "https://"))
