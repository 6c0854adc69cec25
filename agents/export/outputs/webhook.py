"""A signed webhook: HMAC-SHA256 (RFC 2104) over time and body, and a key that is the same when a record comes twice."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any

from agents.alerting.delivery import PLAIN_HTTP, RetryPolicy, post, webhook_url
from agents.core.errors import SettingsError
from agents.core.protocols import Field
from agents.core.text import web_address
from agents.export.formats import BY_NAME
from agents.export.outputs.base import Output, format_field
from agents.export.record import Record

TIMESTAMP, SIGNATURE, KEY = "X-Timestamp", "X-Signature", "Idempotency-Key"
SECRET_MIN = 16
"""Characters of a secret."""


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the HMAC in hex, over the timestamp, a dot and the body."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class WebhookOutput:
    """Posts to one address. url, secret: both are secrets."""

    name = "webhook"

    def __init__(self, url: str, secret: str, form: str, retry: RetryPolicy | None = None) -> None:
        self._url, self._secret, self._form, self._retry = url, secret, form, retry or RetryPolicy()

    async def send(self, message: Record) -> None:
        """Hand over a record, or raise NotifyError."""
        body, timestamp = BY_NAME[self._form].render(message).encode(), str(int(time.time()))
        kind = "application/json" if body[:1] == b"{" and b"\n" not in body else "text/plain; charset=utf-8"
        headers = {"Content-Type": kind, KEY: message.key, TIMESTAMP: timestamp}
        headers[SIGNATURE] = signature(self._secret, timestamp, body)
        await post(self.name, self._url, body, headers, self._retry)


def _made(values: Mapping[str, Any], retry: RetryPolicy | None = None) -> WebhookOutput:
    secret = str(values["export_webhook_secret"])
    if len(secret) < SECRET_MIN:
        raise SettingsError(f"cannot use setting EXPORT_WEBHOOK_SECRET: it has fewer than {SECRET_MIN} characters")
    return WebhookOutput(webhook_url(values, "export_webhook_url"), secret, values["export_webhook_format"], retry)


def _probe(values: Mapping[str, Any]) -> str:
    _made({PLAIN_HTTP: False, **values})
    return "set up, signed"


SPEC = Output(
    name="webhook",
    summary="a signed webhook",
    fields=(
        Field("export_webhook_url", str, "", "address to which incidents are posted", web_address, secret=True),
        Field("export_webhook_secret", str, "", "what signs them, 16 characters or more", secret=True),
        format_field("webhook", "json"),
    ),
    factory=_made,
    probe=_probe,
)
