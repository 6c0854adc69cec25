"""Microsoft Teams, Workflows webhook ("When a Teams webhook request is received"), Adaptive Card 1.4.

The answer 202 says that the flow took the request, not that anyone sees it. Facts are TextRuns, not a
FactSet: a FactSet reads Markdown, and a queried name must not be able to write a link.
"""

from __future__ import annotations

from typing import Any

from agents.alerting.delivery import Channel, RetryPolicy, clip, fitted, post_json, webhook_url
from agents.core.protocols import Field
from agents.core.text import web_address
from agents.core.types import Message, Severity

SIZE_MAX = 20_000
"""Bytes of a request; Teams refuses more than about 28 kB."""
_COLORS = {
    Severity.NORMAL: "Good",
    Severity.SUSPICIOUS: "Warning",
    Severity.HIGH: "Attention",
    Severity.CRITICAL: "Attention",
}


class TeamsNotifier:
    """Sends to one webhook. `url` is a secret, and its shape means nothing."""

    name = "teams"

    def __init__(self, url: str, retry: RetryPolicy | None = None) -> None:
        self._url = url
        self._retry = retry or RetryPolicy()

    async def send(self, message: Message) -> None:
        """Hand over to the flow, or raise NotifyError."""
        await post_json(self.name, self._url, payload(message), self._retry)


def payload(message: Message) -> dict[str, Any]:
    """The webhook's JSON, at most SIZE_MAX bytes."""
    return fitted(message, _request, SIZE_MAX)


def _request(message: Message) -> dict[str, Any]:
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": clip(message.title, 200),
        "body": [
            _rich(_run(clip(message.title, 200), weight="Bolder", size="Large", color=_COLORS[message.severity])),
            _rich(_run(clip(message.summary, 2000))),
            *(_rich(_run(f"{clip(k, 100)}  ", weight="Bolder"), _run(clip(v, 500))) for k, v in message.facts),
        ],
        "msteams": {"width": "full"},
    }
    if message.link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": message.link_text, "url": message.link}]
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": card}]}


def _rich(*runs: dict[str, str]) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": list(runs)}


def _run(text: str, **style: str) -> dict[str, str]:
    return {"type": "TextRun", "text": text or " ", **style}


SPEC = Channel(
    name="teams",
    summary="a Teams channel, by a Workflows webhook",
    fields=(Field("teams_webhook_url", str, "", "Teams Workflows webhook", web_address, secret=True),),
    factory=lambda values, retry=None: TeamsNotifier(webhook_url(values, "teams_webhook_url"), retry),
    probe=lambda values: "set up; Teams answers 202 whether or not it delivers: look into the channel",
)
