"""Incidents to channels: the sink that never blocks detection."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import structlog

from agents.alerting.channel_queue import PACE_S, PAUSE_S, SEND_S, ChannelQueue, end_all
from agents.alerting.grouping import Due, Event, Groups
from agents.alerting.manager import AlertManager, is_paged
from agents.alerting.outbox import Outbox
from agents.core.types import Message, Verdicts

ALERT_COUNTS = ("sent", "failed", "suppressed", "dropped")
"""What AlertSink counts. sent, failed: messages of each channel; suppressed: incidents that were alerted already;
dropped: incidents and messages for which there was no room."""
CLOSE_S = 5.0
"""Seconds that closing waits for messages under way, over all channels: what they did not take is on disk."""
_log = structlog.get_logger()


class AlertSink:
    """Incidents become messages, one a client and interval; each channel sends them from a thread of its own.

    `counts` has ALERT_COUNTS. Incidents that an earlier process left in `outbox` are alerted first. Raises OSError
    where that cannot be read.
    """

    name = "alerts"
    incidents_only = True

    def __init__(
        self,
        manager: AlertManager,
        outbox: Outbox,
        groups: Groups | None = None,
        *,
        close_s: float = CLOSE_S,
        pace_s: float = PACE_S,
        pause_s: float = PAUSE_S,
        send_s: float = SEND_S,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._manager, self._outbox, self._close_s = manager, outbox, close_s
        self._groups = groups or Groups()
        found = [Due(incident, event, file) for (incident, event), file in outbox.found()]
        self._channels = [
            ChannelQueue(one, outbox.letters(one.name), self._count, pace_s=pace_s, pause_s=pause_s, send_s=send_s)
            for one in manager.notifiers
        ]
        for due in found:
            if due.event != Event.ENDED:
                manager.remember([due.incident])
            self._add(due)
        self._changed, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Incidents that wait for a message."""
        return self._groups.incidents

    @property
    def fault(self) -> str:
        """Why the disk did not keep the last incident; "" where it did."""
        return self._outbox.fault

    @property
    def alive(self) -> bool:
        """Whether the threads that write and send messages live."""
        return self._thread.is_alive() and all(one.alive for one in self._channels)

    def channels(self) -> dict[str, dict[str, Any]]:
        """The state of each channel, for health."""
        return {one.name: one.state() for one in self._channels}

    def accept(self, verdicts: Verdicts) -> None:
        """Take over the batch's incidents; waits for nobody but the disk."""
        for incident in verdicts.incidents:
            event = self._manager.claim(incident)
            if event is not None:
                self._add(self._outbox.store(incident, event))
            elif incident.closed_at is None and is_paged(incident):
                self._groups.refresh(incident)
                self._count("suppressed")
        self._changed.set()

    def send(self, message: Message) -> None:
        """Give every channel a message that is about no incident."""
        for channel in self._channels:
            channel.put(message)

    def close(self) -> None:
        """Write and send what can be sent at once, for CLOSE_S at most; the next process sends the rest."""
        self._closing = True
        self._changed.set()
        self._thread.join(self._close_s)
        end_all(self._channels, self._close_s)
        if left := self.waiting:
            _log.warning("alerts_left", waiting=left)
        self._outbox.close()

    def _add(self, due: Due) -> None:
        replaced = self._groups.add(due)
        if replaced is None:
            self._count("dropped")
            replaced = [due]
        for one in replaced:
            self._outbox.done(one.file)

    def _work(self) -> None:
        while True:
            self._changed.wait(self._groups.wait_s())
            self._changed.clear()
            for groups in self._groups.due():
                self.send(self._manager.message(groups))
                for due in [due for group in groups for due in group.waiting.values()]:
                    self._outbox.done(due.file)
            if self._closing:
                return

    def _count(self, name: str) -> None:
        with self._counting:
            self.counts[name] += 1
