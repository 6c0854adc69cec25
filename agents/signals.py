"""Signals that one thread waits for with a time-out, with what every Unix has: macOS lacks sigtimedwait(2)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Collection, Iterator
from typing import Self


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
        return self

    def __exit__(self, *_: object) -> None:
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


def be_deaf() -> None:
    """This process is ending: another SIGTERM, as service managers send one to each process, finds it half closed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
