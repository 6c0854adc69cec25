"""Splunk's HTTP Event Collector."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

from agents.alerting.delivery import RetryPolicy, post, webhook_url
from agents.core.errors import SettingsError
from agents.core.protocols import Field
from agents.core.text import web_address
from agents.export.formats import BY_NAME
from agents.export.outputs.base import Output, format_field, readable, trusting
from agents.export.record import Record

SOURCETYPE = "dns_tunnel:incident"


class SplunkOutput:
    """Sends to one collector; the token is a secret."""

    name = "splunk"

    def __init__(self, url: str, token: str, form: str, ca: str = "", retry: RetryPolicy | None = None) -> None:
        self._url, self._form = url.rstrip("/") + "/services/collector/event", form
        self._headers = {"Content-Type": "application/json", "Authorization": f"Splunk {token}"}
        self._retry, self._tls = retry or RetryPolicy(), trusting(ca) if url.startswith("https://") else True

    async def send(self, message: Record) -> None:
        """Hand over a record, or raise NotifyError."""
        text = BY_NAME[self._form].render(message)
        event: Any = json.loads(text) if text.startswith("{") and "\n" not in text else text
        envelope = {"time": round(message.at, 3), "host": socket.gethostname(), "source": "dns-tunnel-detector"}
        body = json.dumps(envelope | {"sourcetype": SOURCETYPE, "event": event}).encode()
        await post(self.name, self._url, body, self._headers, self._retry, tls=self._tls)


def _made(values: Mapping[str, Any], retry: RetryPolicy | None = None) -> SplunkOutput:
    token = str(values["export_splunk_token"])
    if not token:
        raise SettingsError("cannot use setting EXPORT_SPLUNK_URL: EXPORT_SPLUNK_TOKEN is not set")
    url = webhook_url(values, "export_splunk_url")
    return SplunkOutput(url, token, values["export_splunk_format"], values["export_splunk_ca"], retry)


SPEC = Output(
    name="splunk",
    summary="Splunk's HTTP Event Collector",
    fields=(
        Field("export_splunk_url", str, "", "https://HOST:8088", web_address, secret=True),
        Field("export_splunk_token", str, "", "token of the collector", secret=True),
        format_field("splunk", "json"),
        Field("export_splunk_ca", str, "", "file of certificates to trust instead of the system's", readable),
    ),
    factory=_made,
)
