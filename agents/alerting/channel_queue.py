"""A queue, a pace, a deadline and a circuit breaker for one channel: a channel that hangs holds nobody else's messages.

The breaker (Nygard, Release It!, chapter 5.2) opens when the channel cannot be reached: its messages wait, and after a
pause the gravest is tried. The pause doubles with each failure in a row, from PAUSE_S up to PAUSE_MAX_S.
"""

from __future__ import annotations

import asyncio
import bisect
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic

import structlog

from agents.alerting.delivery import RefusedError
from agents.alerting.outbox import Folder, Letter, Sent
from agents.core.errors import NotifyError
from agents.core.protocols import Receiver

QUEUE_MAX = 1000
"""Messages that wait for one channel; of more, the least grave is dropped and counted."""
SEND_S = 60.0
"""Deadline for one message with its retries."""
PAUSE_S, PAUSE_MAX_S = 30.0, 900.0
PACE_S = 1.0
"""Seconds between two messages: Slack takes one a second from a webhook (docs.slack.dev, rate limits), Teams four."""
GIVE_UP_S = 86_400.0
"""A message that a channel did not take for so long, while this process ran, is given up."""
LOOK_S = 30.0
"""How often a queue looks for messages that a person put back."""
_log = structlog.get_logger()


class ChannelQueue(Generic[Sent]):
    """Messages of one channel, sent by a thread of its own, the gravest first; counts "sent", "failed", "dropped".

    Messages that an earlier process left in `letters` are sent, too. Raises OSError where they cannot be read.
    """

    def __init__(
        self,
        notifier: Receiver[Sent],
        letters: Folder[tuple[Sent, float]],
        count: Callable[[str], None],
        *,
        pace_s: float = PACE_S,
        pause_s: float = PAUSE_S,
        send_s: float = SEND_S,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        self.name, self._give_up_s = notifier.name, give_up_s
        self._notifier, self._letters, self._count = notifier, letters, count
        self._pace_s, self._pause_s, self._send_s = pace_s, pause_s, send_s
        self._failures, self._next_at = 0, 0.0
        self._error, self._looked = "", time.monotonic()
        self._closing = False
        self._changed = threading.Condition()
        self._waiting = [Letter(message, at, file) for (message, at), file in letters.found()]
        self._waiting.sort(key=_grave)
        self._thread = threading.Thread(target=self._work, name=f"channel {self.name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread that sends lives."""
        return self._thread.is_alive()

    def put(self, message: Sent, at: float | None = None, key: str = "") -> None:
        """Take over a message; waits for nobody but the disk. at: when it was written, now by default.

        key: what the disk knows it by.
        """
        letter = Letter(message, time.time() if at is None else at, None)
        letter.file = self._letters.put((message, letter.at), key)
        with self._changed:
            bisect.insort(self._waiting, letter, key=_grave)
            dropped = self._waiting.pop() if len(self._waiting) > QUEUE_MAX else None
            self._changed.notify()
        if dropped is not None:
            self._letters.done(dropped.file)
            self._count("dropped")

    def state(self) -> dict[str, Any]:
        """For health: how many messages wait, how often sending failed in a row, and why it did last."""
        return {"waiting": len(self._waiting), "failures": self._failures, "error": self._error}

    def end(self) -> None:
        """Send what can be sent at once, and end; `join` waits for that."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def join(self, timeout_s: float) -> None:
        """Wait for the end; messages that are left then are sent by the next process."""
        self._thread.join(timeout_s)
        if self._thread.is_alive() or self._waiting:
            _log.warning("alerts_left", channel=self.name, waiting=len(self._waiting))
        if not self._thread.is_alive():
            self._letters.close()

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            while (letter := self._gravest()) is not None:
                if not self._letters.begin(letter.file):
                    self._fail(letter, "its sending ended several processes")
                    continue
                runner.run(self._try(letter))

    def _gravest(self) -> Letter[Sent] | None:
        """The next message, when it may be sent; None at the end."""
        with self._changed:
            while True:
                wait_s = self._next_at - time.monotonic()
                if self._closing and (not self._waiting or self._failures):
                    return None
                if self._waiting and wait_s <= 0:
                    return self._waiting.pop(0)
                self._changed.wait(min(wait_s, LOOK_S) if self._waiting else LOOK_S)
                self._take_returned()

    def _take_returned(self) -> None:
        """Line up what a person put back; not more often than LOOK_S."""
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        for (message, at), file in self._letters.returned():
            bisect.insort(self._waiting, Letter(message, at, file), key=_grave)

    async def _try(self, letter: Letter[Sent]) -> None:
        sending = asyncio.wait_for(self._notifier.send(letter.message), self._send_s)
        (error,) = await asyncio.gather(sending, return_exceptions=True)
        if error is None:
            self._letters.done(letter.file)
            self._count("sent")
            self._reached()
        elif isinstance(error, TimeoutError):
            self._away(letter, f"cannot send to {self.name}: no answer within {self._send_s:g} s")
        elif isinstance(error, NotifyError) and not isinstance(error, RefusedError):
            self._away(letter, str(error))
        else:
            self._fail(letter, str(error) if isinstance(error, RefusedError) else type(error).__name__)
        self._next_at = max(self._next_at, time.monotonic() + self._pace_s)

    def _reached(self) -> None:
        if self._failures:
            _log.info("channel_reached", channel=self.name)
        self._failures, self._error = 0, ""

    def _away(self, letter: Letter[Sent], error: str) -> None:
        """The channel took nothing: the message waits, unless it has waited for too long."""
        pause_s = min(self._pause_s * 2.0 ** min(self._failures, 30), PAUSE_MAX_S)
        self._failures, self._error = self._failures + 1, error
        self._next_at = time.monotonic() + pause_s
        if time.monotonic() - letter.since >= self._give_up_s:
            self._fail(letter, error)
            return
        self._letters.put_back(letter.file)
        _log.error("alert_failed", channel=self.name, error=error, again_in_s=pause_s)
        with self._changed:
            bisect.insort(self._waiting, letter, key=_grave)

    def _fail(self, letter: Letter[Sent], error: str) -> None:
        self._letters.give_up(letter.file)
        self._count("failed")
        _log.error("alert_given_up", channel=self.name, title=letter.message.title, error=error)


def end_all(queues: Sequence[ChannelQueue[Any]], within_s: float) -> None:
    """Let all channels send what they can at once, for so many seconds together: they may all hang."""
    end = time.monotonic() + within_s
    for queue in queues:
        queue.end()
    for queue in queues:
        queue.join(max(end - time.monotonic(), 0.0))


def _grave(letter: Letter[Any]) -> tuple[int, float]:
    return -letter.message.severity, letter.at
