"""What is sent, to whom, how often: AlertManager."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog

from agents import settings as settings_module
from agents.alerting import email, slack, teams
from agents.alerting.delivery import PLAIN_HTTP, Channel, RetryPolicy
from agents.alerting.grouping import Event, Group
from agents.alerting.messages import alert_message, digest_message, group_message
from agents.core.errors import NotifyError
from agents.core.protocols import Notifier, Spec
from agents.core.types import ChannelResult, Incident, Message, Severity
from agents.settings import Settings

CHANNELS: tuple[Channel, ...] = (slack.SPEC, email.SPEC, teams.SPEC)
QUIET_S = 3600.0
"""One alert per client and domain in this many seconds, unless the severity rises."""
REMEMBERED_MAX = 100_000
"""Pairs whose last alert is remembered; an attacker chooses domains, so the oldest is forgotten."""
BROADCAST_S = 120.0
"""Deadline of each channel for a message that is sent at once."""
_log = structlog.get_logger()


def channel_values(settings: Settings, spec: Spec[Any]) -> dict[str, Any]:
    """The values that the channel's factory takes: its own settings, and one that webhooks share."""
    return {**settings.of(spec), PLAIN_HTTP: settings.webhooks_plain_http == "on"}


def notifiers_from(settings: Settings, retry: RetryPolicy | None = None) -> list[Notifier]:
    """The channels that the settings name. Raises SettingsError where mail lacks a sender or recipients."""
    values = {spec: channel_values(settings, spec) for spec in CHANNELS}
    return [spec.factory(own, retry) for spec, own in values.items() if own[spec.fields[0].name]]


def is_paged(incident: Incident) -> bool:
    """Whether an incident is told at once: HIGH and above; while the network's habits are unknown, what is CRITICAL and
    looks like no kind of benign service."""
    if incident.evidence.get("burn_in"):
        return incident.severity >= Severity.CRITICAL and "explanation" not in incident.evidence
    return incident.severity >= Severity.HIGH


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

    async def broadcast(self, message: Message) -> tuple[ChannelResult, ...]:
        """Send to all channels at once; one that fails stops no other. Never raises because of a channel."""
        sends = [asyncio.wait_for(channel.send(message), BROADCAST_S) for channel in self.notifiers]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        return tuple(_result(one.name, out) for one, out in zip(self.notifiers, outcomes, strict=True))

    def claim(self, incident: Incident) -> Event | None:
        """What is to be alerted of this incident now, if anything.

        From then on it is quiet, unless its severity rises; when it has ended, that is said once.
        """
        if not self.notifiers:
            return None
        key, now = (incident.client, incident.domain), self._clock()
        with self._guard:
            if incident.closed_at is not None:
                return Event.ENDED if self._sent.pop(key, None) else None
            if not is_paged(incident):
                return None
            event = Event.UPDATE if key in self._sent else Event.NEW
            at, severity = self._sent.get(key, (float("-inf"), Severity.NORMAL))
            if abs(now - at) < self._quiet_s and incident.severity <= severity:
                return None
            self._note(key, now, incident.severity)
        return event

    def message(self, groups: Sequence[Group]) -> Message:
        """The message about the incidents of one client, or of several."""
        if len(groups) == 1:
            return group_message(groups[0], self._link_base)
        return digest_message(groups, self._link_base)

    def remember(self, incidents: Iterable[Incident]) -> None:
        """Incidents that another process has alerted: they are quiet now, unless their severity rises."""
        now = self._clock()
        with self._guard:
            for incident in filter(is_paged, incidents):
                key = (incident.client, incident.domain)
                if key not in self._sent:
                    self._note(key, now, incident.severity)

    def _note(self, key: tuple[str, str], now: float, severity: Severity) -> None:
        self._sent[key] = (now, severity)
        self._sent.move_to_end(key)
        if len(self._sent) > REMEMBERED_MAX:
            self._sent.popitem(last=False)

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
    if isinstance(outcome, TimeoutError):
        return ChannelResult(channel, ok=False, error=f"cannot send to {channel}: no answer within {BROADCAST_S:g} s")
    text = str(outcome) if isinstance(outcome, NotifyError) else type(outcome).__name__
    return ChannelResult(channel, ok=False, error=text)
