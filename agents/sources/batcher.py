"""From records to batches: a bounded queue between the listener, which never waits, and one consumer thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Event, Lock, Thread

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.records import RECORD, batch_of_records
from agents.types import QueryBatch

Consumer = Callable[[QueryBatch], None]

_WARN_EVERY_S = 10.0
_log = structlog.get_logger()


class Batcher:
    """Collects records into batches of at most `batch_max` or `batch_wait_ms` after the first one.

    `offer` never waits for the consumer: beyond `queue_max` waiting records the newest are dropped and counted. The
    consumer runs on the batcher's own thread; its failure ends that thread (`alive`), and the queue then fills up.
    """

    def __init__(self, queue_max: int, batch_max: int, batch_wait_ms: float, consumer: Consumer) -> None:
        self._queue_max, self._batch_max, self._wait_s = queue_max, batch_max, batch_wait_ms / 1000
        self._consumer = consumer
        self._parts: deque[NDArray[np.void]] = deque()
        self._lock = Lock()  # of the parts and their number; held for a few operations
        self._some, self._enough = Event(), Event()
        self._closing = False
        self.waiting = 0  # records in the queue now
        self.dropped = 0
        self.accepted = 0
        self._thread = Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def offer(self, records: NDArray[np.void]) -> int:
        """Queue the records, which the caller leaves as they are; drop and count what there is no room for.

        Returns how many were taken: the first so many.
        """
        with self._lock:
            taken = 0 if self._closing else max(0, min(len(records), self._queue_max - self.waiting))
            self.dropped += len(records) - taken
            self.accepted += taken
            if not taken:
                return 0
            self._parts.append(records[:taken])
            self.waiting += taken
            waiting = self.waiting
        if not self._some.is_set():
            self._some.set()
        if waiting >= self._batch_max and not self._enough.is_set():
            self._enough.set()
        return taken

    def close(self) -> None:
        """Take no more records, hand on those that wait, and end the thread."""
        self._closing = True
        self._some.set()
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        warned_at, warned = time.monotonic(), 0
        while True:
            self._some.wait()
            self._enough.wait(self._wait_s)
            records = self._drain()
            if len(records):
                self._consumer(batch_of_records(records))
            elif self._closing:
                return
            if self.dropped > warned and time.monotonic() - warned_at >= _WARN_EVERY_S:
                _log.warning("queries_dropped", dropped=self.dropped - warned, queue_max=self._queue_max)
                warned_at, warned = time.monotonic(), self.dropped

    def _drain(self) -> NDArray[np.void]:
        """The oldest records, in time order."""
        parts: list[NDArray[np.void]] = []
        with self._lock:
            room = self._batch_max
            while self._parts and room:
                part = self._parts.popleft()
                if len(part) > room:
                    self._parts.appendleft(part[room:])
                    part = part[:room]
                parts.append(part)
                room -= len(part)
            self.waiting -= self._batch_max - room
            if not self._closing:
                _set_if(self._some, self.waiting > 0)
                _set_if(self._enough, self.waiting >= self._batch_max)
        records = np.concatenate(parts) if parts else np.empty(0, RECORD)
        return records[np.argsort(records["ts"], kind="stable")]


def _set_if(event: Event, wanted: bool) -> None:
    if wanted:
        event.set()
    else:
        event.clear()
