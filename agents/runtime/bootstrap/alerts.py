"""From settings to who is notified: channels, hand-over, exports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from agents.alerting.handover import HandOver, Sender
from agents.alerting.manager import AlertManager, channel_values, notifiers_from
from agents.core.protocols import Receiver
from agents.core.types import ChannelResult, Message
from agents.export.outputs import OUTPUTS
from agents.export.record import Record
from agents.runtime.heartbeat import EXPORTS, OUTBOX
from agents.settings import Settings


def alert_manager_of(settings: Settings) -> AlertManager:
    """Alerts over every channel that is set up."""
    return AlertManager(notifiers_from(settings), quiet_s=settings.incident_quiet_s, link_base=settings.public_url)


def judging_manager_of(settings: Settings) -> AlertManager:
    """Alerts of what judges: over every channel, or to the process that sends them."""
    if not handed_over(settings):
        return alert_manager_of(settings)
    notifiers = [HandOver(outbox_of(settings))]
    return AlertManager(notifiers, quiet_s=settings.incident_quiet_s, link_base=settings.public_url)


def broadcaster_of(settings: Settings) -> Callable[[Message], Sequence[ChannelResult]]:
    """What sends a message over every channel that is set up, at once."""
    return lambda message: asyncio.run(alert_manager_of(settings).broadcast(message))


def sender_of(settings: Settings) -> Sender | None:
    """What sends the alerts that were handed over, where the scheduler is to do that."""
    return Sender(notifiers_from(settings), outbox_of(settings)) if handed_over(settings) else None


def outbox_of(settings: Settings) -> Path:
    """Where alerts wait."""
    return settings.state_dir / OUTBOX


def exports_of(settings: Settings) -> Path:
    """Where records for other programs wait."""
    return settings.state_dir / EXPORTS


def outputs_of(settings: Settings) -> list[Receiver[Record]]:
    """The ways out that the settings name. Raises SettingsError."""
    values = {spec: channel_values(settings, spec) for spec in OUTPUTS}
    return [spec.factory(own, None) for spec, own in values.items() if own[spec.fields[0].name]]


def handed_over(settings: Settings) -> bool:
    return settings.alerts_sent_by == "scheduler"
