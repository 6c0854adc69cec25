"""Queries from a table: a header line, then a query a line, qname in presentation form (RFC 1035 section 5.1).

Needed columns: ts client qname qtype. Optional: rcode ancount qlen rlen rtt_ms ans_types ttl_min. Others are
ignored, an empty field and "-" are unknown. Columns are separated by tabs, commas or semicolons. Rows are taken in the
file's order, which should be that of time.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import islice
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import AgentsError, CaptureError
from agents.core.text import counted, printable
from agents.core.types import UNKNOWN, QueryBatch
from agents.sources.intake import FileSource, Intake

NEEDED = ("ts", "client", "qname", "qtype")
OPTIONAL = ("rcode", "ancount", "qlen", "rlen", "ttl_min", "rtt_ms", "ans_types")
LINE_MAX = 65_536
"""Longest line in bytes; a name takes at most 1,016 characters (255 octets, each as \\DDD)."""
MISSING = ("", "-")
"""Fields without a value; `-` is that of Zeek and of web servers' logs."""
_TEXT_MAX = 1024
_INTEGERS = {"rcode": np.int16, "ancount": np.int32, "qlen": np.int32, "rlen": np.int32, "ttl_min": np.int64}
_EPOCHS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""From this number on a time counts this many units a second: nano-, micro- or milliseconds since 1970.

Read as seconds, 1e11 is the year 5138; read as milliseconds it is 1973, and so on for the others.
"""
_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?:[:#]\d{1,5})?|(?P<any>[^#]+)#\d{1,5}|(?P<v4>[^:]+):\d{1,5}", re.ASCII)
"""A client with its port: `[2001:db8::1]:5353`, `192.0.2.1#5353` as BIND logs it, `192.0.2.1:5353`."""
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


@lru_cache(maxsize=4096)
def _type_number(text: str) -> int:
    from agents.dns.message import type_number  # imported here, as in `_convert`

    return type_number(text)


@lru_cache(maxsize=4096)
def _rcode_number(text: str) -> int:
    from agents.dns.message import rcode_number  # imported here, as in `_convert`

    return rcode_number(text)


class _Utf8(io.RawIOBase):
    """The bytes of a UTF-16 stream as UTF-8; a lone surrogate becomes bytes that no UTF-8 text has."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            block = self._stream.read(LINE_MAX)
            if not block:
                return 0
            self._rest = self._decoder.decode(block).encode("utf-8", "surrogatepass")
        size = min(len(target), len(self._rest))
        target[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()


class Layout:
    """The columns of a table, read from its header line.

    names: the header's fields in small letters; separator: tab, comma or semicolon. A field may stand in quotes (RFC
    4180) unless tabs separate the columns of a header without quotes: a quote may be part of a name.
    """

    def __init__(self, line: str) -> None:
        line = line.removeprefix("\ufeff").rstrip("\r\n")
        self.separator = max("\t,;", key=line.count)
        self.split = self._split_quoted if '"' in line or self.separator != "\t" else self._split_plain
        self.names = [name.strip().lower() for name in self.split(line)]
        self.columns = [name for name in (*NEEDED, *OPTIONAL) if name in self.names]
        self.missing = [name for name in NEEDED if name not in self.names]
        self._pick = itemgetter(*[self.names.index(name) for name in self.columns]) if not self.missing else None

    split: Callable[[str], list[str]]

    def _split_plain(self, line: str) -> list[str]:
        return line.split(self.separator)

    def _split_quoted(self, line: str) -> list[str]:
        return next(csv.reader((line,), delimiter=self.separator, strict=True), [""])

    def fields(self, line: bytes) -> _Fields:
        """The fields of a row in the order of `columns`; none for a blank line. Raises ValueError."""
        text = line.decode().rstrip("\r\n")
        if not text:
            return ()
        fields = self.split(text)
        if len(fields) != len(self.names):
            raise ValueError(f"{counted(len(fields), 'field')}, but the header line has {len(self.names)}")
        return self._pick(fields) if self._pick else ()


_Fields = Sequence[str]
_BadRow = (AgentsError, ValueError, OverflowError, csv.Error)


def is_table(head: bytes) -> bool:
    """Whether a file that begins so has a header line with the needed columns."""
    encoding = _UTF16.get(head[:2], "utf-8")
    line = head.decode(encoding, "replace").partition("\n")[0]
    try:
        return not Layout(line).missing
    except csv.Error:
        return False


class TsvSource(FileSource):
    """One table, plain or compressed. Raises CaptureError if it cannot be read or lacks a needed column.

    A bad row is counted in `malformed` and left out; a warning names the first one. A table whose first batch has no
    times at all gets one second a row, and a warning; in any other table a row without a time is bad.
    """

    def check(self, stream: io.BufferedReader) -> None:
        """Read the header line. Raises CaptureError if it lacks a needed column."""
        line = self._text(stream).readline(LINE_MAX).decode("utf-8", "replace")
        try:
            self._layout = Layout(line)
        except csv.Error as error:
            raise CaptureError(f"cannot read {self._path}: its header line has {error}") from None
        if self._layout.missing:
            raise CaptureError(f"cannot read {self._path}: no column {self._layout.missing[0]} in its header line")
        self._first_bad = ""

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield batches of at most `size` queries."""
        line, row, back, last, timeless = 2, 0, 0, -math.inf, False
        with self._text(self._open()) as stream:
            stream.readline(LINE_MAX)
            lines = iter(partial(stream.readline, LINE_MAX), b"")
            while chunk := list(islice(lines, size)):
                rows, numbers = self._split(chunk, line)
                if row == 0 and rows:
                    timeless = all(fields[0] in MISSING for fields in rows)
                if timeless:
                    rows = [
                        (str(float(row + number - line)), *fields[1:])
                        for number, fields in zip(numbers, rows, strict=True)
                    ]
                row += len(chunk)
                line += len(chunk)
                batch = self._batch(rows, numbers)
                if batch:
                    back += int((np.diff(batch.ts, prepend=last) < 0).sum())
                    last = float(batch.ts[-1])
                    yield batch
        self._warn_of_damage()
        if self.malformed and last == -math.inf:
            self.errors.append(f"cannot read {self._path}: no row can be read; {self._first_bad}")
        elif self.malformed:
            self._warn(f"{counted(self.malformed, 'row')} could not be read; the first: {self._first_bad}")
        if timeless:
            self._warn("no times; the rows were taken one second apart")
        if back:
            self._warn(f"{counted(back, 'row')} {'is' if back == 1 else 'are'} older than the row before")

    def _text(self, stream: io.BufferedReader) -> io.BufferedReader:
        """The stream as UTF-8."""
        encoding = _UTF16.get(stream.peek(2)[:2])
        return io.BufferedReader(_Utf8(stream, encoding)) if encoding else stream

    def _bad(self, line: int, reason: Exception) -> None:
        """Count a bad row."""
        self.malformed += 1
        text = (
            "it is not UTF-8" if isinstance(reason, UnicodeDecodeError) else printable(reason).removeprefix("cannot ")
        )
        self._first_bad = self._first_bad or f"line {line}: {text}"

    def _split(self, lines: Sequence[bytes], first: int) -> tuple[list[_Fields], list[int]]:
        """Fields in the order of the layout's columns, and the number of each one's line; blank lines are left out."""
        rows: list[_Fields] = []
        numbers: list[int] = []
        for number, line in enumerate(lines, first):
            try:
                fields = self._layout.fields(line)
            except _BadRow as error:
                self._bad(number, error)
                continue
            if fields:
                rows.append(fields)
                numbers.append(number)
        return rows, numbers

    def _batch(self, rows: list[_Fields], numbers: list[int]) -> QueryBatch | None:
        """All rows at once; if one is bad, each is tried alone first."""
        if not rows:
            return None
        try:
            return self._convert(rows)
        except _BadRow:
            good = [fields for number, fields in zip(numbers, rows, strict=True) if self._is_good(number, fields)]
        return self._convert(good) if good else None

    def _is_good(self, number: int, fields: _Fields) -> bool:
        try:
            self._convert([fields])
        except _BadRow as error:
            self._bad(number, error)
            return False
        return True

    def _convert(self, rows: Sequence[_Fields]) -> QueryBatch:
        # Imported here: it loads the compiler, which the list of kinds does not need.
        from agents.dns.name import wires_of

        columns = dict(zip(self._layout.columns, zip(*rows, strict=True), strict=True))
        count = len(rows)
        ts = np.array([_seconds(text) for text in columns["ts"]], np.float64)
        if not np.isfinite(ts).all():
            raise ValueError("a time is not finite")
        unknown = ("",) * count
        numbers: dict[str, Any] = {
            name: _integers(columns.get(name), kind, count, name) for name, kind in _INTEGERS.items()
        }
        return QueryBatch(
            ts=ts,
            client=_texts([_without_port(text) for text in columns["client"]]),
            qname=wires_of(_filled(columns["qname"])),
            qtype=np.array([_type_number(text) for text in columns["qtype"]], np.uint16),
            rtt_ms=np.array(
                [math.nan if text in MISSING else float(text) for text in columns.get("rtt_ms", unknown)], np.float32
            ),
            ans_types=_texts(["" if text in MISSING else text for text in columns.get("ans_types", unknown)]),
            **numbers,
        )


def _seconds(text: str) -> float:
    """A time as seconds since 1970: a number of them or of their fractions, or ISO 8601, UTC if it names no zone."""
    try:
        number = float(text)
    except ValueError:
        return _iso_seconds(text.strip())
    for least, units in _EPOCHS:
        if number >= least:
            return number / units
    return number


def _iso_seconds(text: str) -> float:
    try:
        when = datetime.fromisoformat(text.removesuffix(" UTC").replace(" +", "+"))
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no time" if text not in MISSING else "it has no time") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _without_port(text: str) -> str:
    """A client without the port behind its address; "" for one that is missing."""
    if text in MISSING:
        return ""
    match = _WITH_PORT.fullmatch(text) if ":" in text or "#" in text or "[" in text else None
    return match["v6"] or match["any"] or match["v4"] or text if match else text


def _integers(column: Sequence[str] | None, kind: Any, count: int, name: str) -> NDArray[Any]:
    """Numbers of a column, UNKNOWN where it is missing. Raises ValueError, OverflowError, MessageError."""
    if column is None:
        return np.full(count, UNKNOWN, kind)
    read = _rcode_number if name == "rcode" else int
    numbers: NDArray[Any] = np.array([UNKNOWN if text in MISSING else read(text) for text in column], kind)
    if numbers.min() < UNKNOWN:
        raise ValueError(f"{name} is negative")
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
    sign="its header line",
)
