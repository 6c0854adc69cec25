"""A log with a query or an answer a line as a Source: reads lines, pairs them, makes columns of them."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice, starmap
from pathlib import Path
from typing import Any

import numpy as np

from agents.core.errors import AgentsError
from agents.core.text import counted, ip_of, printable
from agents.core.types import TIME_MAX, QueryBatch
from agents.sources.intake import BlockReader, FileSource, Intake, LineReader, Observed
from agents.sources.pairs import Pairs

LOG_LINE_MAX = 1 << 18
"""Longest line in bytes: a message of 65,535 bytes in base64, and what stands beside it, is shorter."""
LOG_HEAD_MAX = 200
"""Lines at a log's beginning by which its kind is found."""
_BadLine = (AgentsError, ValueError, TypeError, OverflowError)
_ALIASES = {"CDSNKEY": 60, "NSAPPT": 23, "NSAPPTR": 23, "ND": 3}
"""Names that Suricata's log has for CDNSKEY, NSAP-PTR and MD."""
_DOTS = re.compile(r"\.{2,}")


@lru_cache(maxsize=65_536)
def client_address(text: str) -> str:
    """The textual form of an address, without an interface. Raises ValueError."""
    return str(ip_of(text))


@lru_cache(maxsize=4096)
def type_of(text: str) -> int:
    """Number of a record type as logs write it. Raises AgentsError."""
    from agents.dns.message import type_number  # here: the list of kinds needs no compiler

    return _ALIASES.get(text.upper()) or type_number(text)


@lru_cache(maxsize=4096)
def rcode_of(text: str) -> int:
    """Number of a response code as logs write it. Raises AgentsError."""
    from agents.dns.message import rcode_number  # as in type_of

    return rcode_number(text)


class Rows:
    """Makes batches of observed queries, and counts rows that cannot be used. at: the number of the row at hand.

    noun: what a row is called.
    """

    def __init__(self, noun: str = "line") -> None:
        self.noun = noun
        self.at = self.queries = self.malformed = 0
        self.first_bad = ""
        self._timed = False

    def note_bad(self, error: Exception) -> None:
        """Count a row that cannot be used."""
        self.malformed += 1
        self.first_bad = self.first_bad or f"{self.noun} {self.at}: {printable(error).removeprefix('cannot ')}"

    def batch(self, rows: list[Observed]) -> QueryBatch | None:
        """The rows that can be used, in order of time. Times are NaN where no row up to now had one."""
        return self.usable(rows)[1]

    def usable(self, rows: list[Observed]) -> tuple[list[Observed], QueryBatch | None]:
        """The rows that can be used, in order of time, and as a batch; see `batch`."""
        timed = [row for row in rows if row.ts == row.ts]
        self._timed |= bool(timed)
        if self._timed and len(timed) < len(rows):
            for _ in range(len(rows) - len(timed)):
                self.note_bad(ValueError("it has no time, other lines have one"))
            rows = timed
        if not rows:
            return [], None
        rows = sorted(rows, key=_time_of)
        try:
            batch = _columns(rows)
        except _BadLine:
            rows = [row for row in rows if self._is_good(row)]
            if not rows:
                return [], None
            batch = _columns(rows)
        self.queries += len(batch)
        return rows, batch

    def _is_good(self, row: Observed) -> bool:
        try:
            _columns([row])
        except _BadLine as error:
            self.note_bad(error)
            return False
        return True


class LogLines(Rows):
    """Queries out of the lines of one log, whichever way they come."""

    def __init__(self, reader: LineReader) -> None:
        super().__init__()
        self.reader, self._pairs = reader, Pairs[Observed]()

    def take(self, lines: Iterable[bytes | None]) -> QueryBatch | None:
        """The queries that the lines complete, in order of time. None as a line: one that was too long."""
        pairs, rows = self._pairs, list[Observed]()
        for line in lines:
            found = self.observed(line)
            if found is None:
                continue
            if found.pair is None and pairs.empty:
                rows.append(found)
            else:
                pairs.add(found.ts, found.pair, found.is_answer, found)
        return self.batch([*rows, *starmap(joined_halves, pairs.ready())])

    def rest(self) -> QueryBatch | None:
        """The queries that wait for an answer, at the end of the log."""
        return self.batch(list(starmap(joined_halves, self._pairs.ready(all_of_them=True))))

    def observed(self, line: bytes | None) -> Observed | None:
        """What the line reader gives for the next line; None where it has no query, or cannot be read."""
        self.at += 1
        try:
            if line is None:
                raise ValueError(f"it is longer than {LOG_LINE_MAX} bytes")
            found = self.reader.read(line.decode("utf-8", "surrogateescape").rstrip("\r\n"))
            if found is not None:
                _check_time(found.ts)  # before it is compared with times of others
        except _BadLine as error:
            self.note_bad(error)
            return None
        return found


def joined_halves(query: Observed, answer: Observed | None) -> Observed:
    """One row of a query and its answer, None = without one; where both are one line, it is the row."""
    if answer is None or answer is query:
        return query
    rtt_ms = answer.rtt_ms if not math.isnan(answer.rtt_ms) else max(answer.ts - query.ts, 0.0) * 1000
    ts, client, qname, qtype, qlen = query[:5]
    return answer._replace(ts=ts, client=client, qname=qname, qtype=qtype, qlen=qlen, rtt_ms=rtt_ms)


def log_lines(reader: LineReader) -> LogLines:
    """What reads the lines of a log: many at once where the kind has a compiled reader, and there is a compiler."""
    from agents.core.jit import COMPILED  # here: it loads the compiler, which the list of kinds needs not

    if not COMPILED or not isinstance(reader, BlockReader):
        return LogLines(reader)
    from agents.sources.logs.bulk.lines import BlockLines  # as above

    return BlockLines(reader)


def _columns(rows: Sequence[Observed]) -> QueryBatch:
    """Columns of rows in order of time. Raises ValueError or AgentsError if one of them cannot be used."""
    columns = tuple(zip(*rows, strict=True))
    ts, client, qname, qtype, qlen, rcode, ancount, rlen, ttl_min, rtt_ms, ans_types, cached = columns[:12]
    ans_hash, ans_bytes, negative_ttl = columns[12:15]
    for time in (ts[0], ts[-1]):
        _check_time(time)
    if "" in qname:
        raise ValueError("a name is empty")
    return QueryBatch(
        ts=np.array(ts, np.float64),
        client=[client_address(text) for text in client],
        qname=_wires(qname),
        qtype=np.array([type_of(text) for text in qtype], np.uint16),
        qlen=np.array(qlen, np.int32),
        rcode=np.array(rcode, np.int16),
        ancount=np.array(ancount, np.int32),
        rlen=np.array(rlen, np.int32),
        ttl_min=np.array(ttl_min, np.int64),
        rtt_ms=np.array(rtt_ms, np.float32),
        ans_types=ans_types,
        cached=np.array(cached, np.int8),
        ans_hash=np.array(ans_hash, np.uint64),
        ans_bytes=np.array(ans_bytes, np.int32),
        negative_ttl=np.array(negative_ttl, np.int32),
    )


def _wires(names: Sequence[str | bytes]) -> Sequence[bytes]:
    """Wire forms of names in either form. Raises NameFormatError."""
    from agents.dns.name import from_text, wires_of  # here: it loads the compiler, which the list of kinds needs not

    kinds = set(map(type, names))
    if kinds == {str}:
        return wires_of([str(name) for name in names])
    return [name if isinstance(name, bytes) else from_text(name) for name in names]


def _time_of(row: Observed) -> float:
    return row.ts


def _check_time(ts: float) -> None:
    """Raise ValueError for a time that no log has; NaN, none at all, may pass."""
    if ts < 0 or ts > TIME_MAX:
        raise ValueError(f"{ts:.9g} is no time in seconds since 1970")


class RowSource(FileSource):
    """A file that is read row by row."""

    def warn_of_rows(self, rows: Rows, nameless: int) -> None:
        """Warn of rows that could not be read, and of `nameless` queries without a name."""
        if rows.malformed and not rows.queries:
            self.errors.append(f"cannot read {self._path}: no query in {counted(rows.at, rows.noun)}; {rows.first_bad}")
        elif rows.malformed:
            self._warn(f"{counted(rows.malformed, rows.noun)} could not be read; the first: {rows.first_bad}")
        elif not rows.queries and not nameless:
            self._warn(f"no query in {counted(rows.at, rows.noun)}")
        if nameless:
            self._warn(f"{counted(nameless, 'query')} without a name, not judged")


class LogSource(RowSource):
    """One log, plain or compressed. Raises CaptureError if it cannot be read.

    A line that cannot be read is counted in `malformed` and left out; a warning names the first one. A log without any
    time gets one second a query, and a warning.
    """

    def __init__(self, path: Path, reader: Callable[[float], LineReader]) -> None:
        """reader: called with the time of the file's last change, Unix seconds."""
        super().__init__(path)
        self._log = log_lines(reader(path.stat().st_mtime))

    def check(self, stream: io.BufferedReader) -> None:
        """Any content may be a log: what cannot be read is counted."""

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield batches of at most `size` queries."""
        log, timeless = self._log, 0
        with self._open() as stream:
            for batch in self._all(lines_of(stream), size):
                if np.isnan(batch.ts).any():
                    batch.ts[:] = np.arange(timeless, timeless + len(batch))
                    timeless += len(batch)
                for begin in range(0, len(batch), size):
                    yield batch.part(begin, min(begin + size, len(batch)))
        self.malformed = log.malformed
        self._warn_of_damage()
        self.warn_of_rows(log, log.reader.nameless)
        if timeless:
            self._warn("no times; the queries were taken one second apart")

    def _all(self, lines: Iterator[bytes | None], size: int) -> Iterator[QueryBatch]:
        while chunk := list(islice(lines, size)):
            if (batch := self._log.take(chunk)) is not None:
                yield batch
        if (batch := self._log.rest()) is not None:
            yield batch


def lines_of(stream: io.BufferedReader) -> Iterator[bytes | None]:
    """The lines of a stream, each with its end; None for one longer than LOG_LINE_MAX, of which nothing is kept."""
    while line := stream.readline(LOG_LINE_MAX):
        if line.endswith(b"\n") or len(line) < LOG_LINE_MAX:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(LOG_LINE_MAX)
        yield None


Reader = Callable[[Mapping[str, Any], float], LineReader]
"""Makes a reader: (values of the fields, when the log was last written)."""


def opened(reader: Reader) -> Callable[[Path, Mapping[str, Any]], LogSource]:
    """The factory of an Intake of logs."""
    return lambda path, options: LogSource(path, lambda written: reader(options, written))


def recognizer(reader: Reader) -> Callable[[bytes], bool]:
    """Whether one of the first lines of a file is a query or an answer for this reader."""

    def recognizes(head: bytes) -> bool:
        made = reader({}, math.inf)
        lines = head.split(b"\n")[: LOG_HEAD_MAX + 1]
        return any(_reads(made, line) for line in (lines[:-1] or lines))

    return recognizes


def _reads(reader: LineReader, line: bytes) -> bool:
    before = reader.nameless
    try:
        found = reader.read(line.decode("utf-8", "surrogateescape").rstrip("\r"))
    except _BadLine:
        return False
    return found is not None or reader.nameless > before


def literal(text: str) -> str:
    """Presentation form (RFC 1035 section 5.1) of a name that a log has without escapes, "" being the root.

    Dots beside each other, or at the beginning, were a label of dots: one is left of them, for no label is empty.
    """
    return _without_empty_labels(text.replace("\\", "\\\\")) or "."


def _without_empty_labels(text: str) -> str:
    if ".." in text:
        text = _DOTS.sub(".", text)
    return text[1:] if text.startswith(".") else text


def unescaped(text: str, escapes: re.Pattern[str], base: int = 16) -> str:
    """Presentation form of a name with escapes of its log's own; group 1 of a match is a byte, a number to `base`.

    A match without it is a backslash; none may be left. Of dots see `literal`.
    """
    if "\\" not in text:
        return literal(text)
    text = escapes.sub(lambda match: f"\\{int(match[1], base):03d}" if match[1] else "\\\\", text)
    return _without_empty_labels(text)


def log_intake(name: str, summary: str, sign: str, reader: Reader, **more: Any) -> Intake:
    """An Intake of logs. more: its fields and fidelity, and `recognizes` where one line does not tell the kind."""
    more.setdefault("fields", ())
    more.setdefault("recognizes", recognizer(reader))
    return Intake(name=name, summary=summary, sign=sign, factory=opened(reader), reader=reader, **more)
