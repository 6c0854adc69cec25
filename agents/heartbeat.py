"""What one process tells the others: a small file, rewritten while it lives."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from agents.files import write_atomic

PARTS = ("listener", "api", "scheduler")
"""What writes one, as its name with .json."""
EVERY_S = 2.0
STALE_S = 30.0
"""A process that has not written for this long is taken for dead."""
_log = structlog.get_logger()


class Heartbeat:
    """Writes what `collect` returns to `path` every few seconds, on a thread of its own."""

    def __init__(self, path: Path, collect: Callable[[], Mapping[str, Any]], every_s: float = EVERY_S) -> None:
        self._path, self._collect, self._every_s = path, collect, every_s
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._write()
        self._thread.start()

    def stop(self) -> None:
        """End, and take the file away: this process lives no more. Without a start there is nothing to take."""
        self._stop.set()
        if self._thread.ident is None:
            return
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._write()

    def _write(self) -> None:
        try:
            write_atomic(self._path, json.dumps({"at": time.time(), **self._collect()}).encode())
        except OSError as error:
            if not self._failing:  # not every two seconds
                _log.warning("heartbeat_not_written", path=str(self._path), error=str(error))
            self._failing = True
        else:
            self._failing = False


def read(path: Path) -> dict[str, Any]:
    """The last word of another process, with "ok": whether it is recent."""
    try:
        found: dict[str, Any] = dict(json.loads(path.read_bytes()))
        # a word from the future is one from before the clock was set back: who lives has written since
        return {"ok": abs(time.time() - float(found.pop("at", 0))) < STALE_S, **found}
    except (OSError, ValueError, TypeError):
        return {"ok": False}
