"""What does not succeed on a bus: counted, and told once when it goes away and once when it is back.

Lines of the log that anybody who sends can cause: so many a minute, and how many were left out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import structlog

LINES_MAX, LINES_S = 20, 60.0
"""Lines of one event that are logged in so many seconds, at most."""
_log = structlog.get_logger()


class BusFaults:
    """failures: requests that did not succeed. error: why the last one did not, "" = it did."""

    def __init__(self, servers: str, error: str = "") -> None:
        """servers: as people see them. error: before the first request."""
        self._servers, self.error, self.failures = servers, error, 0
        self._away_logged = False

    def note(self, error: Exception | None) -> None:
        """Take note of a request; None = it succeeded."""
        if error is None:
            if self._away_logged:
                _log.info("stream_is_back", servers=self._servers)
            self._away_logged, self.error = False, ""
            return
        self.failures += 1
        self.error = str(error)
        if not self._away_logged:
            self._away_logged = True
            _log.warning("stream_is_away", servers=self._servers, error=self.error)


class LimitedLog:
    """Errors by event. A sender that causes very many fills no disk; each minute one line says how many are missing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._clock, self._begun = clock, clock()
        self._found: Counter[str] = Counter()

    def error(self, event: str, **facts: object) -> None:
        """Log an event, or count it."""
        self.tell_due()
        self._found[event] += 1
        if self._found[event] <= LINES_MAX:
            _log.error(event, **facts)

    def tell_due(self) -> None:
        """Say what the last minute left out, once it is over."""
        if self._clock() - self._begun >= LINES_S:
            self.tell()

    def tell(self) -> None:
        """Say what was left out until now, and begin anew."""
        for event, count in self._found.items():
            if count > LINES_MAX:
                _log.error(event, left_out=count - LINES_MAX)
        self._found.clear()
        self._begun = self._clock()
