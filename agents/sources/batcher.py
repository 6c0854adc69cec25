"""From rows to batches: a bounded queue between the listener, which never waits, and one consumer thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from threading import Event, Thread

import structlog

from agents.types import QueryBatch, Row, batch_of

Consumer = Callable[[QueryBatch], None]

_WARN_EVERY_S = 10.0
_log = structlog.get_logger()


class Batcher:
    """Collects rows into batches of at most `batch_max` rows or `batch_wait_ms` after the first one.

    `offer` never blocks: beyond `queue_max` waiting rows the newest are dropped and counted. The consumer
    runs on the batcher's own thread; its failure ends that thread (`alive`), and the queue then fills up.
    """

    def __init__(self, queue_max: int, batch_max: int, batch_wait_ms: float, consumer: Consumer) -> None:
        self._queue_max, self._batch_max, self._wait_s = queue_max, batch_max, batch_wait_ms / 1000
        self._consumer = consumer
        self._rows: deque[Row] = deque()
        self._some, self._enough = Event(), Event()
        self._closing = False
        self.dropped = 0
        self.accepted = 0
        self._thread = Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Rows in the queue now."""
        return len(self._rows)

    def offer(self, row: Row) -> None:
        """Queue a row, or drop and count it."""
        waiting = len(self._rows)
        if waiting >= self._queue_max or self._closing:
            self.dropped += 1
            return
        self.accepted += 1
        self._rows.append(row)
        if not self._some.is_set():
            self._some.set()
        if waiting + 1 >= self._batch_max and not self._enough.is_set():
            self._enough.set()

    def close(self) -> None:
        """Take no more rows, hand on those that wait, and end the thread."""
        self._closing = True
        self._some.set()
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        warned_at, warned = time.monotonic(), 0
        while True:
            self._some.wait()
            self._enough.wait(self._wait_s)
            rows = self._drain()
            if rows:
                self._consumer(batch_of(rows))
            elif self._closing:
                return
            if self.dropped > warned and time.monotonic() - warned_at >= _WARN_EVERY_S:
                _log.warning("queries_dropped", dropped=self.dropped - warned, queue_max=self._queue_max)
                warned_at, warned = time.monotonic(), self.dropped

    def _drain(self) -> list[Row]:
        """The oldest rows, in time order. The events are cleared first, so that no later row goes unseen."""
        if not self._closing:
            self._enough.clear()
            self._some.clear()
        rows = [self._rows.popleft() for _ in range(min(len(self._rows), self._batch_max))]
        if self._rows:
            self._some.set()
            if len(self._rows) >= self._batch_max:
                self._enough.set()
        rows.sort(key=itemgetter(0))
        return rows
