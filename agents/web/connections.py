"""Limits on what one connection, and all of them, may take of the server: requests that never end hold nothing up."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX = 256
"""Connections at once. Beyond it, the one that has waited longest for its client is closed: a browser opens six."""
REQUEST_S, RESPONSE_S = 10.0, 60.0
"""Seconds for a client to send a request, headers and body, and for it to take the answer."""
LARGE, LARGE_BYTES_MAX = b"POST /fleet/", (2 << 20) + 65_536
"""How requests begin that may be larger, and how large: what a site of a fleet sends."""
REQUEST_BYTES_MAX = 65_536
"""Headers and body of one request; h11 has a limit of its own for the headers (16 KiB)."""


class LimitedProtocol(H11Protocol):
    """Uvicorn's protocol with limits on time, size and number; what exceeds one is closed without an answer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._received, self._since, self._served = 0, time.monotonic(), False
        self._most = REQUEST_BYTES_MAX
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the request."""
        super().connection_made(transport)
        self._wait(REQUEST_S)
        if len(self.connections) > CONNECTIONS_MAX:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Take what has come; the time for a request does not begin anew with each byte."""
        waited = self._received > 0
        if not waited:
            self._most = LARGE_BYTES_MAX if data.startswith(LARGE) else REQUEST_BYTES_MAX
        self._received += len(data)
        super().data_received(data)
        if self._is_answering():
            self._wait(RESPONSE_S)
        elif self._received > self._most:
            self._give_up()
        elif not waited:
            self._wait(REQUEST_S)

    def on_response_complete(self) -> None:
        """Uvicorn waits for another request, and has a limit for that."""
        self._received, self._since, self._served = 0, time.monotonic(), True
        self._stop_waiting()
        super().on_response_complete()
        if self._is_answering():
            self._wait(RESPONSE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        """Whether a whole request has come and its answer is not complete."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._limit = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _give_up(self) -> None:
        self.connections.discard(self)
        if self._received:
            self.transport.abort()
        else:  # between two requests: the client sees the end before it sends another
            self.transport.close()

    def _make_room(self) -> None:
        """Close the connection that has waited longest for its client, or this one where all are being answered.

        One that has brought a whole request before is spared as long as there are others.
        """
        idle = [one for one in self.connections if isinstance(one, LimitedProtocol) and not one._is_answering()]
        min(idle, key=lambda one: (one._served, one._since), default=self)._give_up()
