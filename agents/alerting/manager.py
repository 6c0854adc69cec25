"""What is sent, to whom, how often: AlertManager, and the sink that feeds it and never blocks detection."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog

from agents import settings as settings_module
from agents.alerting import email, slack, teams
from agents.alerting.delivery import Channel, RetryPolicy
from agents.alerting.messages import alert_message, incident_message
from agents.alerting.outbox import Due, Outbox
from agents.core.errors import NotifyError
from agents.core.protocols import Notifier
from agents.core.types import ChannelResult, Incident, Message, Severity, Verdicts
from agents.settings import Settings

CHANNELS: tuple[Channel, ...] = (slack.SPEC, email.SPEC, teams.SPEC)
QUIET_S = 3600.0
"""One alert per client and domain in this many seconds, unless the severity rises."""
REMEMBERED_MAX = 100_000
"""Pairs whose last alert is remembered; an attacker chooses domains, so the oldest is forgotten."""
RETRY_S = 60.0
"""An incident whose alert no channel took is tried again after this many seconds."""
QUEUE_MAX = 1000
ALERT_COUNTS = ("sent", "failed", "suppressed", "dropped")
"""What AlertSink counts."""
CLOSE_S = 10.0
"""Seconds that closing waits for alerts under way."""
_log = structlog.get_logger()


def notifiers_from(settings: Settings, retry: RetryPolicy | None = None) -> list[Notifier]:
    """The channels that the settings name. Raises SettingsError where mail lacks a sender or recipients."""
    values = {spec: settings.of(spec) for spec in CHANNELS}
    return [spec.factory(own, retry) for spec, own in values.items() if own[spec.fields[0].name]]


class AlertManager:
    """Sends alerts, incidents and runs. Without arguments the channels come from the settings (`.env`)."""

    def __init__(
        self,
        notifiers: Sequence[Notifier] | None = None,
        *,
        quiet_s: float | None = None,
        link_base: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if notifiers is None:
            settings = settings_module.load(CHANNELS)
            notifiers = notifiers_from(settings)
            link_base = settings.public_url if link_base is None else link_base
            quiet_s = settings.incident_quiet_s if quiet_s is None else quiet_s
        self.notifiers = tuple(notifiers)
        self._link_base = (link_base or "").rstrip("/")
        self._quiet_s, self._clock = QUIET_S if quiet_s is None else quiet_s, clock
        self._sent: OrderedDict[tuple[str, str], tuple[float, Severity]] = OrderedDict()
        self._guard = threading.Lock()

    async def send_slack_alert(
        self, query: str, client: str, score: float, severity: str, details: dict[str, Any]
    ) -> bool:
        """Send one alert to Slack; True when taken. Raises NotifyError, also where Slack is not set up."""
        return await self._alert("slack", query, client, score, severity, details)

    async def send_email_alert(
        self, query: str, client: str, score: float, severity: str, details: dict[str, Any]
    ) -> bool:
        """Send one alert by mail; True when taken. Raises NotifyError, also where mail is not set up."""
        return await self._alert("email", query, client, score, severity, details)

    async def send_teams_alert(
        self, query: str, client: str, score: float, severity: str, details: dict[str, Any]
    ) -> bool:
        """Send one alert to Teams; True when taken. Raises NotifyError, also where Teams is not set up."""
        return await self._alert("teams", query, client, score, severity, details)

    async def send_claimed(self, incident: Incident) -> tuple[ChannelResult, ...]:
        """Alert every channel of an incident that `claim` granted; if none takes it, it may come again."""
        results = await self.broadcast(incident_message(incident, self._link_base))
        if not any(one.ok for one in results):
            self.release(incident)
        return results

    async def broadcast(self, message: Message) -> tuple[ChannelResult, ...]:
        """Send to all channels at once; one that fails stops no other. Never raises because of a channel."""
        sends = [channel.send(message) for channel in self.notifiers]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        return tuple(_result(one.name, out) for one, out in zip(self.notifiers, outcomes, strict=True))

    def claim(self, incident: Incident) -> bool:
        """True if this open incident is to be alerted now; from then on it is quiet, unless its severity rises."""
        if incident.closed_at is not None or incident.severity < Severity.HIGH or not self.notifiers:
            return False
        key, now = (incident.client, incident.domain), self._clock()
        with self._guard:
            at, severity = self._sent.get(key, (float("-inf"), Severity.NORMAL))
            if abs(now - at) < self._quiet_s and incident.severity <= severity:
                return False
            self._note(key, now, incident.severity)
        return True

    def remember(self, incidents: Iterable[Incident]) -> None:
        """Incidents that another process has alerted: they are quiet now, unless their severity rises."""
        now = self._clock()
        with self._guard:
            for incident in incidents:
                key = (incident.client, incident.domain)
                if key not in self._sent:
                    self._note(key, now, incident.severity)

    def _note(self, key: tuple[str, str], now: float, severity: Severity) -> None:
        self._sent[key] = (now, severity)
        self._sent.move_to_end(key)
        if len(self._sent) > REMEMBERED_MAX:
            self._sent.popitem(last=False)

    def release(self, incident: Incident) -> None:
        """A claimed incident was not sent: let it come again, but not with every batch."""
        quiet_until = self._clock() + min(RETRY_S, self._quiet_s)
        with self._guard:
            self._sent[incident.client, incident.domain] = (quiet_until - self._quiet_s, incident.severity)

    async def _alert(
        self, channel: str, query: str, client: str, score: float, severity: str, details: dict[str, Any]
    ) -> bool:
        notifier = next((one for one in self.notifiers if one.name == channel), None)
        if notifier is None:
            switch = next(spec.switch for spec in CHANNELS if spec.name == channel)
            raise NotifyError(f"cannot send to {channel}: {switch} is not set")
        await notifier.send(alert_message(query, client, score, severity, details))
        _log.info("alert_sent", channel=channel)
        return True


def _result(channel: str, outcome: BaseException | None) -> ChannelResult:
    if outcome is None:
        return ChannelResult(channel, ok=True)
    text = str(outcome) if isinstance(outcome, NotifyError) else type(outcome).__name__
    return ChannelResult(channel, ok=False, error=text)


class AlertSink:
    """Incidents onto a bounded queue, sent by a thread; `counts` has ALERT_COUNTS.

    What is in `outbox` when it begins is sent first. Raises OSError where that cannot be read.
    """

    name = "alerts"
    incidents_only = True

    def __init__(
        self, manager: AlertManager, outbox: Outbox, queue_max: int = QUEUE_MAX, close_s: float = CLOSE_S
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._manager, self._outbox = manager, outbox
        self._queue_max, self._close_s = queue_max, close_s
        self._queue: queue.SimpleQueue[Due | None] = queue.SimpleQueue()
        for due in outbox.found():
            manager.remember([due.incident])
            self._queue.put(due)
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Incidents on the queue."""
        return self._queue.qsize()

    @property
    def alive(self) -> bool:
        """Whether the thread that sends lives."""
        return self._thread.is_alive()

    def accept(self, verdicts: Verdicts) -> None:
        """Take over the batch's incidents; waits for nobody but the disk."""
        for incident in verdicts.incidents:
            if incident.severity < Severity.HIGH or incident.closed_at is not None:
                continue
            if not self._manager.claim(incident):
                self.counts["suppressed"] += 1
            elif self.waiting >= self._queue_max:
                self.counts["dropped"] += 1
                self._manager.release(incident)
            else:
                self._queue.put(self._outbox.put(incident))

    def close(self) -> None:
        """Send what waits, for CLOSE_S at most; what is left then is sent by the next process."""
        self._queue.put(None)
        self._thread.join(self._close_s)
        if self._thread.is_alive():
            _log.warning("alerts_left", waiting=self.waiting)
        else:
            self._outbox.close()

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            while (due := self._queue.get()) is not None:
                if self._outbox.begin(due):
                    results = runner.run(self._manager.send_claimed(due.incident))
                    self._outbox.done(due)
                    self._count(results)
                else:
                    self.counts["failed"] += 1
                    _log.error("alert_given_up", client=due.incident.client, domain=due.incident.domain)

    def _count(self, results: Sequence[ChannelResult]) -> None:
        self.counts["sent" if any(one.ok for one in results) else "failed"] += 1
        for bad in (one for one in results if not one.ok):
            _log.error("alert_failed", channel=bad.channel, error=bad.error)
