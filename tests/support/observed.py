"""What a running product says of itself: its sign of life and its log."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.support.listening import wait_until


class Observed:
    """A product on DATA_DIR `folder` that logs to `log`."""

    folder: Path
    log: Path

    def state(self) -> dict[str, Any]:
        """The newest sign of life; empty while there is none."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "data" / "detector.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def next_state(self) -> dict[str, Any]:
        """A sign of life that was given after now."""
        now = time.time()
        wait_until(lambda: self.state().get("at", 0) > now, 20)
        return self.state()

    def pid(self, name: str) -> int:
        """Of the process of this name that runs now."""
        wait_until(lambda: bool(self.state().get("processes", {}).get(name, {}).get("up")), 20)
        return int(self.state()["processes"][name]["pid"])

    def rested(self) -> dict[str, Any]:
        """The state when all that was seen has been judged and nothing waits on disk."""

        def at_rest() -> bool:
            state = self.state()
            seen = state.get("counters", {}).get("answered", 0) + state.get("counters", {}).get("servfail", 0)
            return bool(seen) and state["queue_waiting"] == 0 == state["spool_waiting"]

        wait_until(at_rest, 60)
        return self.next_state()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log with this event, but the last one while it is being written."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        lines = [line for line in whole.splitlines() if line.startswith("{")]
        return [found for found in map(json.loads, lines) if found["event"] == name]
