"""NATS and its JetStream: the extra `nats` (nats-py). A connection for each record."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from agents.alerting.delivery import RetryPolicy, TryAgainError, retried
from agents.core.errors import NotifyError
from agents.core.protocols import Field, library
from agents.export.formats import BY_NAME
from agents.export.outputs.base import Output, format_field, readable, trusting
from agents.export.record import Record
from agents.stream.bus.options import nats_address

SWITCH = "EXPORT_NATS"


class NatsOutput:
    """Publishes on one subject; with stream, JetStream must say that it has the record, and keeps it once."""

    name = "nats"

    def __init__(
        self,
        url: str,
        subject: str,
        form: str,
        stream: bool,
        token: str = "",
        ca: str = "",
        retry: RetryPolicy | None = None,
    ) -> None:
        self._nats, self._errors = (
            library("nats", "nats", f"setting {SWITCH}"),
            library("nats.errors", "nats", f"setting {SWITCH}"),
        )
        self._url, self._subject, self._form, self._stream = url, subject, form, stream
        self._retry = retry or RetryPolicy()
        self._options: dict[str, Any] = {"token": token} if token else {}
        if url.startswith("tls://"):
            self._options["tls"] = trusting(ca)

    async def send(self, message: Record) -> None:
        """Hand over a record, or raise NotifyError."""
        lines = BY_NAME[self._form].render(message).split("\n")

        async def attempt() -> None:
            try:
                async with asyncio.timeout(self._retry.timeout_s):
                    await self._publish(message, lines)
            except TimeoutError:
                raise TryAgainError(f"no answer within {self._retry.timeout_s:g} s") from None
            except (self._errors.Error, OSError) as error:
                raise TryAgainError(type(error).__name__) from None

        await retried(self.name, self._retry, attempt)

    async def _publish(self, message: Record, lines: list[str]) -> None:
        problems: list[BaseException] = []

        async def note(error: BaseException) -> None:
            problems.append(error)

        client = await self._nats.connect(
            self._url,
            name="dns-tunnel",
            allow_reconnect=False,
            max_reconnect_attempts=0,
            connect_timeout=self._retry.timeout_s,
            error_cb=note,
            **self._options,
        )
        try:
            for number, line in enumerate(lines):
                headers = {"Nats-Msg-Id": f"{message.key}{number}"}
                if self._stream:
                    await client.jetstream(timeout=self._retry.timeout_s).publish(
                        self._subject, line.encode(), headers=headers
                    )
                else:
                    await client.publish(self._subject, line.encode(), headers=headers)
            await client.flush()
        finally:
            await client.close()
        if problems:  # such as a subject that this user may not publish on
            raise NotifyError(f"cannot send to nats: {type(problems[0]).__name__}")


def _made(values: Mapping[str, Any], retry: RetryPolicy | None = None) -> NatsOutput:
    return NatsOutput(
        str(values["export_nats"]),
        values["export_nats_subject"],
        values["export_nats_format"],
        values["export_nats_jetstream"],
        str(values["export_nats_token"]),
        values["export_nats_ca"],
        retry,
    )


SPEC = Output(
    name="nats",
    summary="NATS (extra nats)",
    fields=(
        Field("export_nats", str, "", "nats://[USER:PASSWORD@]HOST:4222, or tls://…", nats_address, secret=True),
        Field("export_nats_subject", str, "dns-tunnel.incidents", "subject"),
        format_field("nats", "json"),
        Field("export_nats_jetstream", bool, False, "wait until a stream has each record; there must be one"),
        Field("export_nats_token", str, "", "token, instead of a user", secret=True),
        Field("export_nats_ca", str, "", "file of certificates to trust instead of the system's", readable),
    ),
    factory=_made,
)
