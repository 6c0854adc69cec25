"""Joins captured queries with their answers, and puts them in order of the queries' times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heappop, heappush

from agents.core.types import UNKNOWN, Row
from agents.dns import message as wire
from agents.stream.record import client_text, mapped

WAIT_S = 5.0
"""Seconds of capture time that a query waits for its answer: a stub resolver's (resolv.conf(5))."""
WAITING_MAX = 65_536
"""Queries that wait at once; beyond it the oldest goes on as it is."""

_Key = tuple[bytes, bytes, int, int, bytes]


class _Waiting:
    __slots__ = ("answer", "client", "key", "qlen", "question", "rlen", "rtt_ms", "ts")

    def __init__(self, ts: float, client: bytes, question: wire.Question, qlen: int, key: _Key) -> None:
        self.ts, self.client, self.question, self.qlen, self.key = ts, client, question, qlen, key
        self.answer: wire.Answer | None = None
        self.rlen, self.rtt_ms = UNKNOWN, math.nan

    def row(self) -> Row:
        question, answer = self.question, self.answer
        head = (self.ts, client_text(mapped(self.client)), question.qname, question.qtype, self.qlen)
        if answer is None:
            return (*head, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, math.nan, "")
        return (*head, answer.rcode, answer.ancount, self.rlen, answer.ttl_min, self.rtt_ms, answer.types)


class Joiner:
    """Feed messages in capture order; `ready` gives the rows whose time has come. No clock is read."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Waiting]] = []
        self._open: dict[_Key, _Waiting] = {}
        self._count = 0

    def query(self, ts: float, client: bytes, port: int, server: bytes, message: bytes, size: int) -> None:
        """Take a query; one that is sent again while it waits is another one. Raises MessageError."""
        question = wire.parse_question(message)
        key = (client, server, port, question.id, message[wire.HEADER_SIZE : question.end].lower())
        waiting = _Waiting(ts, client, question, size, key)
        self._open.setdefault(key, waiting)
        self._count += 1
        heappush(self._heap, (ts, self._count, waiting))

    def answer(self, ts: float, client: bytes, port: int, server: bytes, message: bytes, size: int) -> None:
        """Take an answer; one that answers nothing is ignored. Raises MessageError."""
        question = wire.parse_question(message)
        key = (client, server, port, question.id, message[wire.HEADER_SIZE : question.end].lower())
        waiting = self._open.pop(key, None)
        if waiting is not None and ts - waiting.ts <= WAIT_S:
            waiting.answer = wire.parse_answer(message, question_end=question.end, partial=True)
            waiting.rlen, waiting.rtt_ms = size, (ts - waiting.ts) * 1000

    def ready(self, now: float) -> Iterator[Row]:
        """Rows older than the wait, and the oldest beyond the bound; `now` is the last frame's time."""
        heap = self._heap
        while heap and (now - heap[0][0] > WAIT_S or len(heap) > WAITING_MAX):
            yield self._pop()

    def rest(self) -> Iterator[Row]:
        """All that still wait: the capture has ended."""
        while self._heap:
            yield self._pop()

    def _pop(self) -> Row:
        waiting = heappop(self._heap)[2]
        if self._open.get(waiting.key) is waiting:
            del self._open[waiting.key]
        return waiting.row()
