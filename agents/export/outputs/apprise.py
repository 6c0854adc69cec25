"""All other services, as far as Apprise knows them: the extra `apprise`. People read it, so it is a sentence."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from agents.alerting.delivery import RetryPolicy, TryAgainError, retried
from agents.core.errors import SettingsError
from agents.core.protocols import Field, library
from agents.core.text import harmless
from agents.core.types import Severity
from agents.export.outputs.base import Output
from agents.export.record import Record

SWITCH = "EXPORT_APPRISE"
BODY_MAX = 1500
_KINDS = {Severity.SUSPICIOUS: "info", Severity.HIGH: "warning", Severity.CRITICAL: "failure"}


class AppriseOutput:
    """Sends to every address; the addresses hold secrets. Raises SettingsError for one that Apprise does not know."""

    name = "apprise"

    def __init__(self, urls: str, retry: RetryPolicy | None = None) -> None:
        apprise = library("apprise", "apprise", f"setting {SWITCH}")
        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it logs addresses
        self._services, self._retry = [], retry or RetryPolicy()
        for number, url in enumerate(urls.split(), start=1):
            service = apprise.Apprise()
            if not service.add(url):
                raise SettingsError(f"cannot use setting {SWITCH}: address {number} is none that Apprise knows")
            self._services.append(service)

    async def send(self, message: Record) -> None:
        """Hand over a record, or raise NotifyError. What some services took already is not sent to them again."""
        body = harmless(f"{message.severity.name}: {message.reasons}", BODY_MAX) + (
            f"\n{message.link}" * bool(message.link)
        )
        title, kind = harmless(message.title), _KINDS.get(message.severity, "info")
        left = list(self._services)

        async def attempt() -> None:
            for service in list(left):
                try:
                    async with asyncio.timeout(self._retry.timeout_s):
                        sent = await service.async_notify(body, title=title, notify_type=kind, interpret_escapes=False)
                except TimeoutError:
                    sent = False
                if sent:
                    left.remove(service)
            if left:
                raise TryAgainError(f"{len(left)} of {len(self._services)} services did not take it")

        await retried(self.name, self._retry, attempt)


def _made(values: Mapping[str, Any], retry: RetryPolicy | None = None) -> AppriseOutput:
    return AppriseOutput(str(values["export_apprise"]), retry)


SPEC = Output(
    name="apprise",
    summary="all other services, by Apprise (extra apprise)",
    fields=(
        Field("export_apprise", str, "", "addresses as Apprise has them, divided by spaces: ntfy://…", secret=True),
    ),
    factory=_made,
)
