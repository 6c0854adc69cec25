"""A syslog server around any query log: datagrams (RFC 5426) and streams (RFC 6587), whose lines a log's reader reads.

In a stream a message is counted ("57 <30>1 …", RFC 6587 section 3.4.1) or ends with a line end or a NUL (3.4.2). What a
line is, is found for each sender and program by itself, as a file's kind is by its content.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import structlog

from agents.core.text import printable
from agents.core.types import QueryBatch
from agents.sources.intake import Intake
from agents.sources.live.frame_protocol import FIRST_DATA_S
from agents.sources.logs import SPECS
from agents.sources.logs.source import LOG_LINE_MAX, LogLines, log_lines
from agents.sources.pairs import PAIR_WAIT_S

STREAMS_MAX = 256
"""Senders and programs that are read apart; the one that was silent for longest goes first."""
LINES_MAX = 4096
"""Lines that wait to be read together, at most."""
TRIES_MAX, TRY_EVERY = 1000, 100
"""So many lines of a program that are of no kind, and only each hundredth is looked at."""
_FRAMED = frozenset({"bind", "coredns", "dnsdist", "dnsmasq", "unbound"})
"""Kinds whose readers take the frame off, for its time."""
_COUNT_MAX = len(str(LOG_LINE_MAX))
_COUNTED = re.compile(rb"([1-9][0-9]{0,%d}) " % (_COUNT_MAX - 1))
_TOO_LONG = re.compile(rb"([1-9][0-9]{%d,19}) <" % (_COUNT_MAX - 1))
"""A count that may be of a message that is too long; a line may begin with such a number, but no message is without
its "<" (RFC 6587 section 3.4.1)."""
_DIGITS_MAX = 9
"""Digits of a count that can be skipped: with more, what follows has no bounds."""
_ENDS = re.compile(rb"\r?[\n\0]")
_HEADER = re.compile(
    rb"<\d{1,3}>(?:1 \S+ (?P<host>\S+) (?P<app>\S+) \S+ \S+ (?:-|(?:\[(?:[^\]\\]|\\.)*\])+)"
    rb"(?: (?:\xef\xbb\xbf)?(?P<text>.*))?"
    rb"|(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+) (?:(?P<peer>\S+) )?(?P<tag>[^\s:\[]+)"
    rb"(?:\[[^\]]*\])?: ?(?P<old>.*))",
    re.DOTALL,
)
"""RFC 5424 section 6 and RFC 3164 section 4.1, as logs/frames.py reads them with their times."""
_log = structlog.get_logger()


class SyslogMessage(NamedTuple):
    """One message: who wrote it, and its text without the frame."""

    writer: tuple[bytes, bytes]
    text: bytes


def read_message(line: bytes) -> SyslogMessage:
    """Take a message out of its frame; one without any is text as a whole."""
    match = _HEADER.fullmatch(line)
    if match is None:
        return SyslogMessage((b"", b""), line)
    if match["app"] is not None:
        return SyslogMessage((match["host"], match["app"]), match["text"] or b"")
    return SyslogMessage((match["peer"] or b"", match["tag"]), match["old"])


class Framer:
    """Cuts a stream into messages; one that is too long is None. is_broken: no message can be found any more."""

    def __init__(self) -> None:
        self._rest, self._skips, self._skip = b"", False, 0
        self.is_broken = False

    def feed(self, data: bytes) -> list[bytes | None]:
        """The messages that these bytes complete."""
        data, found, at = self._rest + data, list[bytes | None](), 0
        while at < len(data) and not self.is_broken:
            if self._skip:  # bytes of a counted message that is too long
                passed = min(self._skip, len(data) - at)
                at, self._skip = at + passed, self._skip - passed
                continue
            counted = None if self._skips else _COUNTED.match(data, at)
            if counted is not None and int(counted[1]) <= LOG_LINE_MAX:
                end = counted.end() + int(counted[1])
                if end > len(data):
                    break
                found.append(data[counted.end() : end].rstrip(b"\r\n\0"))
                at = end
                continue
            if not self._skips and (long := _TOO_LONG.match(data, at)):
                found.append(None)
                self.is_broken = len(long[1]) > _DIGITS_MAX
                at, self._skip = long.end() - 1, int(long[1])
                continue
            ended = _ENDS.search(data, at)
            if ended is None:
                if len(data) - at > LOG_LINE_MAX:
                    self._skips, at = True, len(data)
                break
            line = data[at : ended.start()]
            if self._skips or len(line) > LOG_LINE_MAX:
                found.append(None)
            elif line:
                found.append(line)
            self._skips, at = False, ended.end()
        self._rest = b"" if self.is_broken else data[at:]
        return found

    def rest(self) -> list[bytes | None]:
        """What is left at the stream's end, if it is a line."""
        line, self._rest = self._rest, b""
        is_line = not self._skips and not _COUNTED.match(line)
        return [line] if line and is_line else []


class _Writer:
    """The lines of one program of one sender."""

    def __init__(self) -> None:
        self.log: LogLines | None = None
        self.kind: Intake | None = None
        self.lines: list[bytes | None] = []
        self.tries = 0
        self.heard = -math.inf


class SyslogLines:
    """All messages of one intake. kind: a name of a kind of logs, "auto" = found by their content."""

    def __init__(self, kind: str, options: Mapping[str, Any]) -> None:
        self._kinds = [spec for spec in SPECS if spec.reader is not None and kind in ("auto", spec.name)]
        self._fixed, self._options = kind != "auto", options
        self._writers: OrderedDict[tuple[str, tuple[bytes, bytes]], _Writer] = OrderedDict()
        self._waiting = self._gone_malformed = self._gone_nameless = self.passed_over = self.too_long = 0
        self._done: list[QueryBatch] = []
        self._now = 0.0

    def feed(self, sender: str, line: bytes | None, now: float) -> None:
        """Take one message; it is read with others, by `taken`. now: of time.monotonic()."""
        self._now = now
        if line is None:
            self.too_long += 1
            return
        message = read_message(line.rstrip(b"\r\n\0"))
        writer = self._writer((sender, message.writer))
        if writer.kind is None and not self._find_kind(writer, sender, line, message):
            self.passed_over += 1
            return
        assert writer.kind is not None
        writer.lines.append(line if writer.kind.name in _FRAMED else message.text)
        writer.heard = now
        self._waiting += 1
        if self._waiting >= LINES_MAX:
            self._read()

    def taken(self) -> list[QueryBatch]:
        """Queries of the messages that came."""
        self._read()
        done, self._done = self._done, []
        return done

    def due(self, now: float) -> list[QueryBatch]:
        """Queries that waited for an answer of writers that are silent."""
        self._now = now
        for writer in self._writers.values():
            if writer.log is not None and now - writer.heard > PAIR_WAIT_S:
                self._keep(writer.log.rest())
        return self.taken()

    def rest(self) -> list[QueryBatch]:
        """All queries that wait for an answer."""
        self._read()
        for writer in self._writers.values():
            self._keep(writer.log.rest() if writer.log is not None else None)
        return self.taken()

    @property
    def malformed(self) -> int:
        """Messages that could not be read."""
        return (
            self.too_long + self._gone_malformed + sum(one.log.malformed for one in self._writers.values() if one.log)
        )

    @property
    def nameless(self) -> int:
        """Queries without a name."""
        found = sum(one.log.reader.nameless for one in self._writers.values() if one.log)
        return self._gone_nameless + found

    @property
    def kinds(self) -> list[str]:
        """Kinds of logs that were found."""
        return sorted({writer.kind.name for writer in self._writers.values() if writer.kind})

    def _writer(self, key: tuple[str, tuple[bytes, bytes]]) -> _Writer:
        found = self._writers.get(key)
        if found is None:
            if len(self._writers) >= STREAMS_MAX:
                self._forget()
            found = self._writers[key] = _Writer()
        self._writers.move_to_end(key)
        return found

    def _forget(self) -> None:
        self._read()
        _, old = self._writers.popitem(last=False)
        if old.log is not None:
            self._keep(old.log.rest())
            self._gone_malformed += old.log.malformed
            self._gone_nameless += old.log.reader.nameless

    def _find_kind(self, writer: _Writer, sender: str, line: bytes, message: SyslogMessage) -> bool:
        writer.tries += 1
        if writer.tries > TRIES_MAX and writer.tries % TRY_EVERY:
            return False
        for spec in self._kinds:
            text = line if spec.name in _FRAMED else message.text
            if self._fixed or spec.recognizes(text + b"\n"):
                assert spec.reader is not None
                writer.kind, writer.log = spec, log_lines(spec.reader(spec.values(self._options), math.inf))
                program = printable(message.writer[1].decode("utf-8", "replace"), 64)
                _log.info("log_followed", sender=sender, program=program, kind=spec.summary, by=spec.sign)
                return True
        return False

    def _read(self) -> None:
        if not self._waiting:
            return
        self._waiting = 0
        for writer in self._writers.values():
            if writer.lines and writer.log is not None:
                lines, writer.lines = writer.lines, []
                self._keep(writer.log.take(lines))

    def _keep(self, batch: QueryBatch | None) -> None:
        if batch is not None:
            self._done.append(batch)


class SyslogStream(asyncio.Protocol):
    """One connection of a sender."""

    def __init__(
        self,
        lines: SyslogLines,
        sender: str,
        clock: Callable[[], float],
        left: Callable[[Any], None],
        refuse: Callable[[str, str], None],
    ) -> None:
        """left: called when the connection has ended. refuse: told of a sender that is ended, and why."""
        self._lines, self._sender, self._clock, self._left, self._refuse = lines, sender, clock, left, refuse
        self._framer = Framer()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The sender is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(FIRST_DATA_S, self._end, "it sent nothing")

    def data_received(self, data: bytes) -> None:
        """Take whole messages."""
        if self._timer:
            self._timer.cancel()
        now = self._clock()
        for line in self._framer.feed(data):
            self._lines.feed(self._sender, line, now)
        if self._framer.is_broken:
            self._end("a message of more bytes than can be skipped")

    def _end(self, why: str) -> None:
        self._refuse(self._sender, why)
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The sender is gone."""
        if self._timer:
            self._timer.cancel()
        for line in self._framer.rest():
            self._lines.feed(self._sender, line, self._clock())
        self._left(self)

    def close(self) -> None:
        """End the connection."""
        if self._transport:
            self._transport.close()


class SyslogDatagrams(asyncio.DatagramProtocol):
    """Datagrams, a message each."""

    def __init__(
        self,
        lines: SyslogLines,
        allows: Callable[[str], bool],
        clock: Callable[[], float],
        refuse: Callable[[str, str], None],
    ) -> None:
        """refuse: told of a sender that may not send, and why."""
        self._lines, self._allows, self._clock, self._refuse = lines, allows, clock, refuse

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Take one message."""
        host = str(addr[0]).partition("%")[0]
        if self._allows(host):
            self._lines.feed(host, data, self._clock())
        else:
            self._refuse(host, "its address is not in RECEIVE_ALLOWED")

    def error_received(self, exc: Exception) -> None:
        """What an earlier answer met is no matter: nothing is answered."""
