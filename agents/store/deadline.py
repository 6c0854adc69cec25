"""A limit on how long an operation on a database may take: its connections are cut, whatever server and network do.

A server that was stopped, or a network that swallows packets, keeps a connection open and says nothing. The server's
own statement_timeout does not end that: the driver waits in the kernel. A thread of ours cuts what is overdue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

IDLE_S = 60.0
"""The thread ends after so many seconds without an operation."""


@dataclass(eq=False)
class Operation:
    """What one thread does until `due` (time.monotonic()). drivers: the connections that it uses."""

    limit_s: float
    due: float
    drivers: list[Any] = field(default_factory=list)
    cut: bool = False


class Watchdog:
    """Cuts off the connections of overdue operations. cut: ends what a connection waits for, from another thread."""

    def __init__(self, cut: Callable[[Any], object]) -> None:
        self._cut = cut
        self._changed = threading.Condition()
        self._open: list[Operation] = []
        self._watching = False
        self._here = threading.local()

    @contextmanager
    def within(self, limit_s: float) -> Iterator[Operation]:
        """Inside, connections that this thread uses are cut off `limit_s` seconds from now."""
        one = Operation(limit_s, time.monotonic() + limit_s)
        mine: list[Operation] = self._here.__dict__.setdefault("operations", [])
        with self._changed:
            self._open.append(one)
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="deadlines", daemon=True).start()
            elif one.due == min(each.due for each in self._open):
                self._changed.notify()
        mine.append(one)
        try:
            yield one
        finally:
            mine.remove(one)
            with self._changed:
                self._open.remove(one)

    def used(self) -> list[Any]:
        """The connections that this thread's innermost operation uses."""
        mine: list[Operation] = self._here.__dict__.get("operations", [])
        return mine[-1].drivers if mine else []

    def use(self, driver: Any) -> None:
        """Note that this thread's operations use a connection; one that comes too late is cut off at once."""
        with self._changed:
            for one in self._here.__dict__.get("operations", ()):
                one.drivers.append(driver)
                if one.cut:
                    self._cut(driver)

    def _watch(self) -> None:
        with self._changed:
            while self._open or self._changed.wait(IDLE_S):
                now = time.monotonic()
                for one in self._open:
                    if one.due <= now and not one.cut:
                        one.cut = True
                        for driver in one.drivers:
                            self._cut(driver)
                due = min((one.due for one in self._open if not one.cut), default=now + IDLE_S)
                self._changed.wait(max(due - time.monotonic(), 0.0))
            self._watching = False
