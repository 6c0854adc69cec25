"""Live intakes that lose what senders send: told when it begins, and once a day while it lasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from agents.core.text import command, printable
from agents.core.types import DAY_S, Message, Severity


class IntakeLosses:
    """Tells the channels of intakes that lose more than they may. tell: sends a message."""

    def __init__(self, tell: Callable[[Message], None], clock: Callable[[], float] = time.time) -> None:
        self._tell, self._clock = tell, clock
        self._told: dict[str, float] = {}

    def note(self, losing: Mapping[str, float]) -> None:
        """Take over the intakes that lose too much at present, and the share that each loses."""
        now = self._clock()
        due = {name: share for name, share in losing.items() if abs(now - self._told.get(name, 0.0)) >= DAY_S}
        if due:
            self._tell(_lost_frames(due))
            self._told |= dict.fromkeys(due, now)


def _lost_frames(due: Mapping[str, float]) -> Message:
    return Message(
        "DNS tunnel detector: an intake loses queries",
        "Part of what was sent did not arrive and was not judged. A server drops what a busy machine does not read in"
        f" time. See {command('doctor')}.",
        [(printable(name), f"{share:.2%} lost in the last minute") for name, share in due.items()],
        Severity.HIGH,
    )
