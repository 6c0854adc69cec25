"""Slack, incoming webhook, Block Kit.

Limits (docs.slack.dev, Block Kit reference): 50 blocks, 150 characters in a header, 3,000 in a section's
text, 2,000 in a field, 10 fields in a section; about 13 kB in all. A webhook uploads
no file: the report is linked.
"""

from __future__ import annotations

from typing import Any

from agents.alerting.delivery import Channel, RetryPolicy, clip, fitted, post_json, webhook_url
from agents.core.protocols import Field
from agents.core.text import web_address
from agents.core.types import Message, Severity

FACTS_MAX = 300  # 30 blocks
SIZE_MAX = 12_000
"""Bytes of a request."""
_MARKS = {Severity.NORMAL: "🟢", Severity.SUSPICIOUS: "🟡", Severity.HIGH: "🟠", Severity.CRITICAL: "🔴"}


class SlackNotifier:
    """Sends to one webhook. `url` is a secret."""

    name = "slack"

    def __init__(self, url: str, retry: RetryPolicy | None = None) -> None:
        self._url = url
        self._retry = retry or RetryPolicy()

    async def send(self, message: Message) -> None:
        """Deliver, or raise NotifyError."""
        await post_json(self.name, self._url, payload(message), self._retry)


def payload(message: Message) -> dict[str, Any]:
    """The webhook's JSON: `text` is the fallback that notifications show, `blocks` the message."""
    return fitted(message, _request, SIZE_MAX)


def _request(message: Message) -> dict[str, Any]:
    mark = _MARKS[message.severity]
    title = {"type": "plain_text", "text": clip(_escape(f"{mark} {message.title}"), 150), "emoji": True}
    blocks: list[dict[str, Any]] = [{"type": "header", "text": title}]
    blocks.append({"type": "section", "text": _text(message.summary or message.title, 2000)})
    blocks += _fact_blocks(message)
    if message.link:
        blocks.append({"type": "section", "text": _link(message)})
    return {"text": clip(_escape(f"{message.title}: {message.summary}"), 300), "blocks": blocks}


def _fact_blocks(message: Message) -> list[dict[str, Any]]:
    fields = [
        _mrkdwn(f"*{clip(_escape(key), 150)}*\n{clip(_escape(value), 280)}") for key, value in message.facts[:FACTS_MAX]
    ]
    return [{"type": "section", "fields": fields[at : at + 10]} for at in range(0, len(fields), 10)]


def _text(text: str, size: int) -> dict[str, Any]:
    return _mrkdwn(clip(_escape(text), size))


def _mrkdwn(text: str) -> dict[str, Any]:
    # verbatim: Slack makes no links, channel names or mentions of what only looks like one.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _link(message: Message) -> dict[str, Any]:
    url = _escape(message.link or "").replace("|", "%7C")
    return _mrkdwn(f"<{url}|{_escape(message.link_text)}>")


def _escape(text: str) -> str:
    """Slack's three control characters (docs.slack.dev, "Formatting message text")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


SPEC = Channel(
    name="slack",
    summary="a Slack channel, by an incoming webhook",
    fields=(Field("slack_webhook_url", str, "", "Slack incoming webhook", web_address, secret=True),),
    factory=lambda values, retry=None: SlackNotifier(webhook_url(values, "slack_webhook_url"), retry),
)
