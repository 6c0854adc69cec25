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
_SKIP = 1 << 26
"""Bytes skipped at once in a file that was read in part: packed ones take a moment."""
_COMMENTS_MAX = 1 << 16
_PACKED = (".gz", ".xz", ".zst", ".bz2", ".lz4")
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
        self._seen: list[tuple[int, str]] = []  # sizes and hashes of heads of older files
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
            if (block := next(self._older, None)) is not None:
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
        self._begin()
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
        self._begin()
        self._catch_up(before)

    def _begin(self) -> None:
        """Be at the beginning of the file at hand. What rotation made up to now is older than it."""
        self._offset, self._rest, self._head, self._skips = 0, b"", b"", False
        self._extend_head()
        self._seen = list(_identities(self._rotated()))

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
        before, old = Position(len(self._head), _hash(self._head), self._offset), os.fstat(self._descriptor)
        rest: list[bytes | None] = [None] if self._skips else [self._rest] if self._rest else []
        seen, self._rest = self._seen, b""
        self._leave()
        self.open()
        return [] if self._goes_through_newer(before, old, seen) else rest

    def _goes_through_newer(self, before: Position, old: os.stat_result, seen: list[tuple[int, str]]) -> bool:
        """Have the files read that came between the one just read to its end and the one that has its name now.

        before, old: of the file just read, whose last line may still come; seen: what is older than it. False = there
        are none: it rotated once. Times do not tell them: what packs a file may give it a new one.
        """
        found = [path for path in self._rotated() if not _is_one_of(path, seen)]
        own = [path for path in found if _is_file(path, old)] or [path for path in found if _begins(path, before)]
        newer = [path for path in found if path not in own]
        if newer:
            self.lost |= not own
            self._read_older(before, [*own[:1], *newer], before.offset if own else 0)
        return bool(newer)

    def _catch_up(self, known: Position) -> None:
        """Have older files read that lie beside this one: from a position on, and what is newer than it."""
        candidates = self._rotated()
        for at, path in enumerate(candidates):
            if _begins(path, known):
                self._read_older(known, candidates[at:], known.offset)
                return
        self.lost |= known.offset > 0

    def _read_older(self, known: Position, paths: list[Path], offset: int) -> None:
        self._before = known
        with suppress(CaptureError), open_counted(paths[0]).stream as stream:
            self._comments = _comments_in(stream.read(_COMMENTS_MAX)) if offset else []
        self._older = self._blocks(offset, paths)

    def _rotated(self) -> list[Path]:
        """Files that rotation made of this one, the oldest first. One that is being packed is there once, unpacked."""
        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        pattern = re.compile(
            rf"{stem}(?:{suffix}[.-]\d[\d._-]*|[.-]\d[\d._-]*{suffix})(?:{'|'.join(map(re.escape, _PACKED))})?"
        )
        found: dict[str, tuple[int, Path]] = {}
        with suppress(OSError):
            for path in self.path.parent.iterdir():
                if pattern.fullmatch(path.name) and (written := _written(path)):
                    found[path.name] = written, path
        twice = {name for name in found if Path(name).suffix in _PACKED and Path(name).stem in found}
        return [path for _, path in sorted(row for name, row in found.items() if name not in twice)]

    def _blocks(self, offset: int, paths: list[Path]) -> Iterator[bytes]:
        """The bytes of files, the first one from an offset on; each ends with a line end. b"": it takes a moment more.

        A file that cannot be read, or not to its end, is lost.
        """
        for path in paths:
            for one in (path, *(path.with_name(path.name + suffix) for suffix in _PACKED)):  # it may be packed by now
                try:
                    yield from self._blocks_of(one, offset)
                except CaptureError:
                    continue
                break
            else:
                self.lost |= _size(path) != 0  # an empty one has no line
            offset = 0

    def _blocks_of(self, path: Path, offset: int) -> Iterator[bytes]:
        opened = open_counted(path)
        with opened.stream as stream:
            left, told = offset, offset
            while left and (skipped := len(stream.read(min(left, TAIL_CHUNK)))):
                left -= skipped
                if told - left >= _SKIP:
                    told = left
                    yield b""
            last = b"\n"
            self._before = Position(*_identity(path), offset)
            while block := stream.read(TAIL_CHUNK):
                last = block
                yield block
            if not last.endswith(b"\n"):
                yield b"\n"
            self.lost |= opened.inflated is not None and bool(opened.inflated.damage)

    def _end_older(self) -> None:
        self._older = self._before = None
        self._rest, self._skips = b"", False

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


def _is_file(path: Path, known: os.stat_result) -> bool:
    """Whether a path is that of an open file."""
    with suppress(OSError):
        return os.path.samestat(path.stat(), known)
    return False


def _identities(paths: list[Path]) -> Iterator[tuple[int, str]]:
    for path in paths:
        with suppress(CaptureError):
            yield _identity(path)


def _is_one_of(path: Path, seen: list[tuple[int, str]]) -> bool:
    """Whether a file begins as one of those whose sizes and hashes of heads are given."""
    with suppress(CaptureError), open_counted(path).stream as stream:
        head = stream.read(HEAD_MAX)
        return any(_hash(head[:size]) == known for size, known in seen)
    return False


def _written(path: Path) -> int:
    """When a file was last written, nanoseconds since 1970; 0 where it was taken away."""
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _size(path: Path) -> int:
    """Bytes of a file; -1 where it was taken away."""
    with suppress(OSError):
        return path.stat().st_size
    return -1


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
