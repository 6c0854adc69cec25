"""What does not succeed on a bus: counted, and told once when it goes away and once when it is back."""

from __future__ import annotations

import structlog

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
