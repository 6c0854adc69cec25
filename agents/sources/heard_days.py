"""What was heard in the last days, by intake. What listeners heard is kept here over restarts, others do so."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agents.core.files import PRIVATE_MODE, json_state, write_atomic
from agents.core.types import DAY_S
from agents.sources.collector import Heard, collected, queries_of_days

LISTENED = "listened.json"
"""The file with the counts of the listeners."""
LISTENER = "listener"
"""What they are called there and for people."""
WRITE_S = 60.0
"""It is written so often."""


class Listened:
    """Counts what all listeners received, by the day. Only the detector's process writes it."""

    def __init__(self, state_dir: Path) -> None:
        self._path, self._write_at = state_dir / LISTENED, 0.0
        kept = json_state(self._path)
        self._heard, self._run_id = Heard(kept), str(kept.get("run_id", ""))
        self._before = before if isinstance(before := kept.get("before"), int) else 0

    def note(self, run_id: str, received: int) -> None:
        """Take over the sum of a run of the supervisor."""
        if run_id != self._run_id:
            self._run_id, self._before = run_id, 0
        if received > self._before:
            self._heard.add(received - self._before)
            self._before = received
        if time.monotonic() >= self._write_at:
            self._write_at = time.monotonic() + WRITE_S
            self.write()

    def write(self) -> None:
        """Write it down; that it was written lately says that listeners run, whether they are asked or not."""
        state = {**self._heard.to_json(), "run_id": self._run_id, "before": self._before}
        with suppress(OSError):  # the heartbeat says that the disk takes nothing, and it is tried again
            write_atomic(self._path, json.dumps(state).encode(), PRIVATE_MODE)


def queries_by_intake(state_dir: Path, days: int) -> dict[str, int]:
    """Queries of each intake that was there in so many days: the listener, then logs and live intakes by name."""
    now, found = time.time(), dict[str, Mapping[str, Any]]()
    with suppress(OSError):
        if now - (state_dir / LISTENED).stat().st_mtime < days * DAY_S:
            found[LISTENER] = json_state(state_dir / LISTENED)
    found |= collected(state_dir, days * DAY_S)
    return {name: queries_of_days(one, days, now) for name, one in found.items()}
