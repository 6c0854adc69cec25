"""How processes live and end: signs of life, signals that one thread waits for, threads that die of an exception."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Self

import structlog

ENDING = frozenset({signal.SIGTERM, signal.SIGINT})
"""What people and service managers send so that a process ends."""

Beat = Callable[[float], None]
"""A sign of life of a process: told how many seconds may pass before the next one, beyond BEAT_S."""
BEAT_S = 1.0
"""A process that has nothing to do moves at least so often."""


def stopping() -> asyncio.Event:
    """An event of this event loop that SIGTERM sets, which is taken from here on; whoever forked us had blocked it."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return stop


async def beat_on(beat: Beat, well: Callable[[], bool] = lambda: True) -> None:
    """Give signs of life while the event loop turns and `well` says that all else does."""
    while True:
        if well():
            beat(0.0)
        await asyncio.sleep(BEAT_S / 2)


class Signals:
    """While it is entered, by the main thread, signals of these kinds do nothing but wait to be taken."""

    def __init__(self, kinds: Collection[signal.Signals]) -> None:
        self._kinds = frozenset(kinds)

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):
            os.set_blocking(end, False)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._before = {kind: signal.signal(kind, lambda *_: None) for kind in self._kinds}
        self._mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, self._kinds)  # whoever started us may have blocked them
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def leave(self) -> None:
        """Have them handled as before. A process that was forked does so and takes what is held when it is ready."""
        for kind, handler in self._before.items():
            signal.signal(kind, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reading)
        os.close(self._writing)

    def wait(self, timeout_s: float) -> int | None:
        """The next signal that came, or None after `timeout_s`."""
        if select.select([self._reading], [], [], timeout_s)[0]:
            return os.read(self._reading, 1)[0]
        return None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal stays with the kernel: what is forked here takes none before it is prepared for it."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._kinds)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def first_of(kinds: Collection[signal.Signals]) -> Iterator[list[signal.Signals]]:
    """Inside, the first signal of these kinds is put into the list, and a second one ends the process.

    For the main thread.
    """
    came: list[signal.Signals] = []

    def note(number: int, _: object) -> None:
        came.append(signal.Signals(number))
        for kind in kinds:
            signal.signal(kind, signal.SIG_DFL)

    before = {kind: signal.signal(kind, note) for kind in kinds}
    try:
        yield came
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def live(work: Coroutine[Any, Any, int]) -> int:
    """A process' event loop from beginning to end; its exit code.

    Service managers send SIGTERM to each process of a group, and the supervisor sends another: one that comes while
    the loop is being closed would find it half closed.
    """
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(LoopErrors())
        code = runner.run(work)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    return code


_log = structlog.get_logger()
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Why accept(2) fails while others hold what it needs."""
LOG_S = 60.0
"""Connections that cannot be accepted are logged at most this often, with their number."""


class LoopErrors:
    """An event loop's exception handler: a flood of connections does not become a flood of log lines."""

    def __init__(self) -> None:
        self._count, self._log_after = 0, float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _NO_ROOM:
            loop.default_exception_handler(context)
            return
        self._count += 1
        if time.monotonic() >= self._log_after:
            _log.error("connections_not_accepted", times=self._count, error=error.strerror)
            self._count, self._log_after = 0, time.monotonic() + LOG_S


@contextmanager
def crashes_end(end: Callable[[], object], spare: str = "") -> Iterator[list[str]]:
    """Log every exception that ends a thread, note the thread's name in the list yielded, and call `end`.

    A thread of the name `spare` is only logged.
    """
    crashed: list[str] = []

    def note(found: threading.ExceptHookArgs) -> None:
        name = found.thread.name if found.thread else "unknown"
        if issubclass(found.exc_type, SystemExit):
            return
        value = found.exc_value or found.exc_type()
        _log.critical("thread_died", thread=name, exc_info=(found.exc_type, value, found.exc_traceback))
        if name != spare:
            crashed.append(name)
            end()

    before, threading.excepthook = threading.excepthook, note
    try:
        yield crashed
    finally:
        threading.excepthook = before
