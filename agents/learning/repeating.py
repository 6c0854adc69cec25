"""A thread that does one thing again and again, until its process ends."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class RepeatingThread(ABC):
    """Steps that are `every_s` seconds apart; the first one comes after one interval.

    stop_s: what a step under way, which may wait for a database that hangs, has before the process ends.
    """

    def __init__(self, name: str, every_s: float, stop_s: float = 5.0) -> None:
        self._every_s, self._stop_s = every_s, stop_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def step(self) -> None:
        """One step; what goes wrong in it is logged, not raised."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(self._stop_s)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.step()
