"""What was left out under load, and which test tunnels were missed, by the day: the weekly summary says both."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agents.core.files import PRIVATE_MODE, json_state, write_atomic
from agents.core.types import DAY_S

WEEK_NOTES = "week_notes.json"
"""The file, in the folder of the state."""
NOTES_DAYS = 60
"""Days that are kept."""
LEFT_OUT = ("detector_queue_dropped_total", "detector_sampled_out_total", "store_lost_total")
"""Metrics of what was not judged, not stored, or lost: by name, counted since the supervisor began."""
COUNTS = ("left_out", "drills", "missed")


class WeekNotes:
    """Counts by day of the clock (UTC), over restarts. One process writes them."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / WEEK_NOTES
        kept = json_state(self._path)
        self._days = {int(day): _counts(found) for day, found in _mapping(kept.get("days")).items() if day.isdigit()}
        self._before, self._drill_at = _number(kept.get("before")), _number(kept.get("drill_at"))

    def note(self, metrics: Mapping[str, float], drill: Mapping[str, Any]) -> None:
        """Take over sums that only grow, but begin anew with their processes, and the last drill; write it down."""
        day = self._days.setdefault(int(time.time() // DAY_S), dict.fromkeys(COUNTS, 0.0))
        total = sum(metrics.get(name, 0.0) for name in LEFT_OUT)
        day["left_out"] += total - self._before if total >= self._before else total
        self._before, at = total, _number(drill.get("at"))
        if at > self._drill_at:
            self._drill_at = at
            day["drills"] += 1
            day["missed"] += not drill.get("ok", True)
        oldest = int(time.time() // DAY_S) - NOTES_DAYS
        self._days = {number: found for number, found in self._days.items() if number > oldest}
        state = {"days": self._days, "before": self._before, "drill_at": self._drill_at}
        with suppress(OSError):  # health says that the disk takes nothing, and it is tried again
            write_atomic(self._path, json.dumps(state).encode(), PRIVATE_MODE)


def noted_between(state_dir: Path, since: float, until: float) -> dict[str, int]:
    """Sums of COUNTS over the days of a span, the first and the last one whole. Times are Unix seconds."""
    days = _mapping(json_state(state_dir / WEEK_NOTES).get("days"))
    within = [
        _counts(found) for day, found in days.items() if day.isdigit() and since // DAY_S <= int(day) < until / DAY_S
    ]
    return {name: int(sum(found[name] for found in within)) for name in COUNTS}


def _counts(found: Any) -> dict[str, float]:
    return {name: _number(_mapping(found).get(name)) for name in COUNTS}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e18 else 0.0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
