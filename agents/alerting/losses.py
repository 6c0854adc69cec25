"""Verdicts that neither database nor disk took: they stay visible until a person has acknowledged them.

The detector writes one file, whoever acknowledges the other, so neither overwrites what the other knows. While the
disk takes nothing, memory holds the numbers (stream/ledger.py), and they are written as soon as there is room.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agents.core.files import PRIVATE_MODE, json_state, write_atomic
from agents.core.text import command, counted
from agents.core.types import DAY_S, Message, Severity

LOST_FILE, ACKNOWLEDGED_FILE = "losses.json", "losses_acknowledged.json"


class Losses:
    """Counts losses over all runs, and tells the channels: when losing begins, and once a day while it lasts."""

    def __init__(
        self, state_dir: Path, tell: Callable[[Message], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._state_dir, self._tell, self._clock = state_dir, tell, clock
        kept = json_state(state_dir / LOST_FILE)
        self._run_id, self._before = str(kept.get("run_id", "")), _number(kept, "before")
        self._run, self._told, self._told_at = _number(kept, "run"), _number(kept, "told"), _number(kept, "told_at")
        self._written = dict(kept)

    def note(self, run_id: str, lost: int, why: str) -> tuple[int, int]:
        """Take over the sum of a run: (lost in all runs, of these not acknowledged). why: what the disk says."""
        if run_id != self._run_id:
            self._run_id, self._before, self._run = run_id, self._before + self._run, 0
        self._run = max(self._run, lost)
        total, known = self._before + self._run, acknowledged(self._state_dir)
        now = self._clock()
        if total > max(self._told, known) and (known >= self._told or abs(now - self._told_at) >= DAY_S):
            self._tell(_message(total - known, why))
            self._told, self._told_at = total, int(now)
        self._write()
        return total, max(total - known, 0)

    def _write(self) -> None:
        state = {"run_id": self._run_id, "before": self._before, "run": self._run}
        state |= {"told": self._told, "told_at": self._told_at}
        if state == self._written or not (self._before or self._run):
            return
        with suppress(OSError):  # it is tried again with the next heartbeat
            write_atomic(self._state_dir / LOST_FILE, json.dumps(state).encode(), PRIVATE_MODE)
            self._written = dict(state)


def acknowledged(state_dir: Path) -> int:
    """Lost verdicts of which a person has taken note."""
    return _number(json_state(state_dir / ACKNOWLEDGED_FILE), "lost")


def lost_in_all(state_dir: Path) -> int:
    """Lost verdicts of all runs, as they were written last."""
    kept = json_state(state_dir / LOST_FILE)
    return _number(kept, "before") + _number(kept, "run")


def acknowledge(state_dir: Path, total: int) -> int:
    """Take note of all verdicts that were lost; how many are new. Raises OSError."""
    new = total - acknowledged(state_dir)
    write_atomic(state_dir / ACKNOWLEDGED_FILE, json.dumps({"lost": total}).encode(), PRIVATE_MODE)
    return max(new, 0)


def _message(lost: int, why: str) -> Message:
    return Message(
        "DNS tunnel detector: verdicts are lost",
        f"{counted(lost, 'verdict')} could not be kept: {why or 'neither the database nor the disk takes them'}."
        " DNS is answered and queries are judged, but what is lost cannot be looked up."
        f" Make room, then: {command('health --acknowledge')}.",
        [("Lost", f"{lost:,}")],
        Severity.CRITICAL,
    )


def _number(kept: dict[str, Any], name: str) -> int:
    value = kept.get(name, 0)
    return value if isinstance(value, int) and value >= 0 else 0
