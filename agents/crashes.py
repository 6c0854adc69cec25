"""A thread that dies of an exception is a programmer's error: the process is to end, and be started again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

_log = structlog.get_logger()


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
