"""Queries from a table: tab-separated, a header line, qname in presentation form (RFC 1035 section 5.1).

Needed columns: ts client qname qtype. Optional: rcode ancount qlen rlen rtt_ms ans_types ttl_min. Others are
ignored, an empty field is unknown. Rows are taken in the file's order, which should be that of time.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import AgentsError, CaptureError
from agents.core.types import UNKNOWN, QueryBatch
from agents.sources.intake import FileSource, Intake

NEEDED = ("ts", "client", "qname", "qtype")
OPTIONAL = ("rcode", "ancount", "qlen", "rlen", "ttl_min", "rtt_ms", "ans_types")
LINE_MAX = 65_536
"""Longest line in bytes; a name takes at most 1,016 characters (255 octets, each as \\DDD)."""
_TEXT_MAX = 1024
_INTEGERS = {"rcode": np.int16, "ancount": np.int32, "qlen": np.int32, "rlen": np.int32, "ttl_min": np.int64}


@lru_cache(maxsize=4096)
def _type_number(text: str) -> int:
    from agents.dns.message import type_number  # imported here, as in `_convert`

    return type_number(text)


_Fields = Sequence[str]
_BadRow = (AgentsError, ValueError, OverflowError)


def is_table(head: bytes) -> bool:
    """Whether a file that begins so has a header line with the needed columns."""
    return set(NEEDED) <= set(_columns(head.partition(b"\n")[0]))


def _columns(line: bytes) -> list[str]:
    return line.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\r\n").split("\t")


class TsvSource(FileSource):
    """One table (also gzip). Raises CaptureError if it cannot be read or lacks a needed column.

    A bad row is counted in `malformed` and left out. A table whose first batch has no times at all gets one
    second a row, and a warning; in any other table a row without a time is bad.
    """

    def check(self, stream: io.BufferedReader) -> None:
        """Read the header line. Raises CaptureError if it lacks a needed column."""
        self._header = _columns(stream.readline(LINE_MAX))
        missing = [name for name in NEEDED if name not in self._header]
        if missing:
            raise CaptureError(f"cannot read {self._path}: no column {missing[0]} in its header line")
        self._columns = [name for name in (*NEEDED, *OPTIONAL) if name in self._header]
        self._pick = itemgetter(*[self._header.index(name) for name in self._columns])

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield batches of at most `size` queries."""
        row, back, last, timeless = 0, 0, -math.inf, False
        with self._open() as stream:
            stream.readline(LINE_MAX)
            lines = iter(partial(stream.readline, LINE_MAX), b"")
            while chunk := list(islice(lines, size)):
                rows = self._split(chunk)
                if row == 0 and rows:
                    timeless = not any(fields[0] for fields in rows)
                if timeless:
                    rows = [(str(float(at)), *fields[1:]) for at, fields in enumerate(rows, start=row)]
                row += len(chunk)
                batch = self._batch(rows)
                if batch:
                    back += int((np.diff(batch.ts, prepend=last) < 0).sum())
                    last = float(batch.ts[-1])
                    yield batch
        self._warn_of_damage()
        if timeless:
            self._warn("no times; the rows were taken one second apart")
        if back:
            self._warn(f"{back} rows are older than the row before")

    def _split(self, lines: Sequence[bytes]) -> list[_Fields]:
        """Fields in the order of `_columns`; lines with another number of fields or bad UTF-8 are bad."""
        rows: list[_Fields] = []
        pick, width = self._pick, len(self._header)
        for line in lines:
            try:
                fields = line.decode().rstrip("\r\n").split("\t")
            except UnicodeDecodeError:
                fields = []
            if len(fields) == width:
                rows.append(pick(fields))
            elif fields != [""]:
                self.malformed += 1
        return rows

    def _batch(self, rows: list[_Fields]) -> QueryBatch | None:
        """All rows at once; if one is bad, each is tried alone first."""
        if not rows:
            return None
        try:
            return self._convert(rows)
        except _BadRow:
            good = [fields for fields in rows if self._is_good(fields)]
        self.malformed += len(rows) - len(good)
        return self._convert(good) if good else None

    def _is_good(self, fields: _Fields) -> bool:
        try:
            self._convert([fields])
        except _BadRow:
            return False
        return True

    def _convert(self, rows: Sequence[_Fields]) -> QueryBatch:
        # Imported here: it loads the compiler, which the list of kinds does not need.
        from agents.dns.name import wires_of

        columns = dict(zip(self._columns, zip(*rows, strict=True), strict=True))
        count = len(rows)
        ts = np.array([float(text) for text in columns["ts"]], np.float64)
        if not np.isfinite(ts).all():
            raise ValueError("a time is not finite")
        numbers: dict[str, Any] = {name: _integers(columns.get(name), kind, count) for name, kind in _INTEGERS.items()}
        return QueryBatch(
            ts=ts,
            client=_texts(columns["client"]),
            qname=wires_of(_filled(columns["qname"])),
            qtype=np.array([_type_number(text) for text in columns["qtype"]], np.uint16),
            rtt_ms=np.array(
                [float(text) if text else math.nan for text in columns.get("rtt_ms", ("",) * count)],
                np.float32,
            ),
            ans_types=_texts(columns.get("ans_types", ("",) * count)),
            **numbers,
        )


def _integers(column: Sequence[str] | None, kind: Any, count: int) -> NDArray[Any]:
    """Numbers of a column, UNKNOWN where it is empty. Raises ValueError or OverflowError."""
    if column is None:
        return np.full(count, UNKNOWN, kind)
    numbers: NDArray[Any] = np.array([int(text) if text else UNKNOWN for text in column], kind)
    if numbers.min() < UNKNOWN:
        raise ValueError("a number is negative")
    return numbers


def _filled(column: Sequence[str]) -> Sequence[str]:
    if "" in column:
        raise ValueError("a name is empty")
    return column


def _texts(column: Sequence[str]) -> Sequence[str]:
    """Short printable texts, as they are. Raises ValueError."""
    for text in set(column):
        if len(text) > _TEXT_MAX or not text.isprintable():
            raise ValueError("a text is too long or has control characters")
    return column


SPEC = Intake(
    name="tsv",
    summary=f"a table with {', '.join(NEEDED[:-1])} and {NEEDED[-1]}",
    fields=(),
    factory=lambda path, options: TsvSource(path),
    recognizes=is_table,
)
