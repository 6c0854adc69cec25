"""Intakes: kinds of files that queries are read from, one file as a Source, and several files as one."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from agents.core.protocols import Source, Spec
from agents.core.types import UNKNOWN, QueryBatch
from agents.sources.files import Opened, open_counted

HEAD_BYTES = 65_536
"""Bytes at a file's beginning by which its kind is found."""


@dataclass(frozen=True)
class Fidelity:
    """What a kind of source loses of queries, a phrase each; "" = it keeps all of it."""

    names: str = ""
    answers: str = ""
    clients: str = ""
    time: str = ""

    @property
    def losses(self) -> tuple[str, ...]:
        """One text for each part that is not kept whole."""
        parts = (("names", self.names), ("answers", self.answers), ("clients", self.clients), ("time", self.time))
        return tuple(f"{name}: {text}" for name, text in parts if text)


EXACT = Fidelity()
"""The source keeps whole messages."""


@dataclass(frozen=True)
class Intake(Spec[Source]):
    """A kind of file. factory: (path, values of the fields) -> a Source; it raises CaptureError for a bad file.

    recognizes: whether a file that begins with these bytes, HEAD_BYTES at most, is of this kind. sign: what it was
    recognized by, a noun phrase. reader: what reads it line by line while it grows, None = it is read whole only.
    """

    recognizes: Callable[[bytes], bool]
    sign: str = "its content"
    fidelity: Fidelity = EXACT
    reader: Callable[[Mapping[str, Any], float], LineReader] | None = None


class Observed(NamedTuple):
    """One query as a log has it. ts: Unix seconds, NaN = the log has no time.

    qname: presentation form, or wire form as bytes. qtype: a name or number as text. Other values are those of
    types.QueryBatch. pair: what a query and its answer have in common where they are two lines; None = the line is all
    there is. is_answer: the line is that of the answer.
    """

    ts: float
    client: str
    qname: str | bytes
    qtype: str
    qlen: int = UNKNOWN
    rcode: int = UNKNOWN
    ancount: int = UNKNOWN
    rlen: int = UNKNOWN
    ttl_min: int = UNKNOWN
    rtt_ms: float = math.nan
    ans_types: str = ""
    cached: int = UNKNOWN
    ans_hash: int = 0
    ans_bytes: int = UNKNOWN
    negative_ttl: int = UNKNOWN
    pair: Any = None
    is_answer: bool = False


class LineReader(Protocol):
    """Reads one kind of log, a line at a time; lines before may say how the next ones are read."""

    nameless: int
    """Queries that the log has without their names, up to now."""

    def read(self, line: str) -> Observed | None:
        """The query or answer in a line without its line end; None for lines on other things.

        Bytes that are not UTF-8 are surrogates (PEP 383). Raises ValueError for a line that cannot be read.
        """
        ...


@runtime_checkable
class BlockReader(LineReader, Protocol):
    """A LineReader of a kind of which compiled code reads many lines at once."""

    @property
    def unix(self) -> Callable[[int], float]:
        """Unix seconds of a whole second of a clock in the log's own zone, as if it were UTC."""
        ...

    @property
    def scan(self) -> Callable[[Any, Any, Any], None]:
        """Reads what it is certain of: (the lines' bytes, where each begins and the last ends, LineColumns)."""
        ...


class FileSource:
    """One file, plain or compressed: what was counted, how far it has been read. A kind adds `check` and `batches`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.malformed = 0
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self.losses: tuple[str, ...] = ()
        self.taken: tuple[str, ...] = ()
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

    def __init__(self, sources: Sequence[Source], losses: Sequence[str] = (), taken: Sequence[str] = ()) -> None:
        """losses, taken: see Source."""
        self._sources = sources
        self.losses, self.taken = tuple(losses), tuple(taken)
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
