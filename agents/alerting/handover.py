"""Alerts from the process that judges to the process that holds the channels' secrets: letters in a shared folder.

A judging process that answers strangers' DNS need not know a webhook or a password. It writes each message as a file,
as a mail spool does (Bernstein's maildir: complete under its final name, or not there); the sender moves it into the
queue of each channel. A letter keeps its name as its key on the way, so that one that was moved by a process that was
killed is not moved twice.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import structlog

from agents.alerting.channel_queue import PACE_S, PAUSE_S, QUEUE_MAX, SEND_S, ChannelQueue, end_all
from agents.alerting.outbox import Letters, letter_of, letter_row
from agents.alerting.sink import CLOSE_S
from agents.core.errors import NotifyError
from agents.core.files import PRIVATE_MODE, locked, make_private_folder, write_atomic
from agents.core.protocols import Notifier
from agents.core.types import Message

HANDED = "handed"
"""The folder of letters inside the outbox."""
LOOK_S = 0.5
"""The sender looks for letters, or for the end of another sender, so often."""
_log = structlog.get_logger()


def letters_in(outbox: Path) -> list[Path]:
    """Letters that no sender has taken yet, the oldest first."""
    return sorted((outbox / HANDED).glob("*.json"))


def oldest_s(outbox: Path) -> float:
    """Seconds for which the oldest letter has waited for a sender; 0 where none waits."""
    for path in letters_in(outbox):
        with suppress(OSError):
            return max(time.time() - path.stat().st_mtime, 0.0)
    return 0.0


class HandOver:
    """A channel that leads to another process: a message is a file in the outbox. Several processes may hand over."""

    name = "handover"

    def __init__(self, outbox: Path) -> None:
        self._outbox = outbox

    async def send(self, message: Message) -> None:
        """Write a letter. Raises NotifyError where the disk does not take it, or QUEUE_MAX letters wait already."""
        if len(letters_in(self._outbox)) >= QUEUE_MAX:
            raise NotifyError(f"cannot hand over a message: {QUEUE_MAX} wait, no process sends them")
        at = time.time()
        data = json.dumps(letter_row((message, at))).encode()
        try:
            make_private_folder(self._outbox / HANDED)
            path = self._outbox / HANDED / f"{time.time_ns():020d}{secrets.token_hex(4)}.json"
            write_atomic(path, data, PRIVATE_MODE, sync=False)
        except OSError as error:
            raise NotifyError(f"cannot hand over a message: {error.strerror or error}") from None


class Sender:
    """Sends the letters of an outbox over its channels, on threads of its own, while no other process does.

    Letters that a channel has not taken outlive this process, and the next one sends them.
    """

    def __init__(
        self,
        notifiers: Sequence[Notifier],
        outbox: Path,
        *,
        pace_s: float = PACE_S,
        pause_s: float = PAUSE_S,
        send_s: float = SEND_S,
    ) -> None:
        self._notifiers, self._outbox = tuple(notifiers), outbox
        self._times = {"pace_s": pace_s, "pause_s": pause_s, "send_s": send_s}
        self._counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._queues: Sequence[ChannelQueue[Message]] = ()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send what can be sent at once, for CLOSE_S at most."""
        self._stop.set()
        self._thread.join()

    def state(self) -> dict[str, Any]:
        """For a heartbeat: the state of each channel, and counts since the start; none while another process sends."""
        channels = {one.name: one.state() for one in self._queues}
        return {"channels": channels, "alerts": dict(self._counts)} if channels else {}

    def _run(self) -> None:
        waits = False
        while not self._stop.is_set():
            with ExitStack() as held:
                try:
                    held.enter_context(locked(self._outbox / "sender.lock"))
                    letters = self._letters(held)
                except BlockingIOError:
                    if not waits:
                        _log.warning("alerts_sent_elsewhere", folder=str(self._outbox))
                    waits = True
                else:
                    waits = False
                    self._send(letters)
            self._stop.wait(LOOK_S)

    def _letters(self, held: ExitStack) -> list[Letters]:
        """The folder of each channel. Raises BlockingIOError where another process owns one."""
        found = []
        for notifier in self._notifiers:
            found.append(Letters(self._outbox / notifier.name))
            held.callback(found[-1].close)
        return found

    def _send(self, letters: Sequence[Letters]) -> None:
        """Be the sender until this is stopped."""
        for path in letters_in(self._outbox):  # before anything is sent: a key is known while its letter waits
            if (read := self._read(path)) is not None:
                for folder in letters:
                    folder.put(read, path.stem)
                path.unlink(missing_ok=True)
        self._queues = [
            ChannelQueue(one, folder, self._count, **self._times)
            for one, folder in zip(self._notifiers, letters, strict=True)
        ]
        while not self._stop.wait(LOOK_S):
            self._move()
        self._move()
        end_all(self._queues, CLOSE_S)

    def _move(self) -> None:
        for path in letters_in(self._outbox):
            if (read := self._read(path)) is not None:
                for queue in self._queues:
                    queue.put(*read, key=path.stem)
                path.unlink(missing_ok=True)

    @staticmethod
    def _read(path: Path) -> tuple[Message, float] | None:
        """A letter; None where it is gone, or is none: then it is set aside."""
        try:
            return letter_of(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            _log.error("alert_unreadable", file=path.name, error=str(error))
            with suppress(OSError):
                path.rename(path.with_suffix(".bad"))
            return None

    def _count(self, name: str) -> None:
        with self._counting:
            self._counts[name] += 1
