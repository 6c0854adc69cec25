"""Syslog (RFC 5424) over UDP (RFC 5426), TCP and TLS (RFC 5425), there with octet counting (RFC 6587 section 3.4.1).

A connection for each record. Syslog answers nothing: over TCP the collector's own close tells that it has read all.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from agents.alerting.delivery import RetryPolicy, TryAgainError, retried
from agents.core.errors import NotifyError, SettingsError
from agents.core.protocols import Field
from agents.core.types import Severity
from agents.export.formats import BY_NAME, rfc5424
from agents.export.outputs.base import Output, format_field, readable, trusting
from agents.export.record import Record, stamp

APP, MSGID = "dns-tunnel", "incident"
FACILITY = 16
"""local0 (RFC 5424 section 6.2.1)."""
SEVERITIES = {Severity.NORMAL: 5, Severity.SUSPICIOUS: 4, Severity.HIGH: 3, Severity.CRITICAL: 2}
"""Notice, warning, error, critical."""
PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
LINGER_S = 2.0
"""Seconds that the collector has to read all and to close its side, too."""
UDP_MAX = 60_000
"""Bytes of a datagram; a longer record is cut."""
BOM = "\ufeff"
_HOST = re.compile(r"[^\x21-\x7e]")


def frame(record: Record, form: str, line: str) -> bytes:
    """The SYSLOG-MSG. The format rfc5424 has structured data; others are one line of the message."""
    structured = form == rfc5424.FORMAT.name
    data, message = (rfc5424.element(record), rfc5424.sentence(record)) if structured else ("-", line)
    if not message.isascii():
        message = BOM + message
    host = _HOST.sub("-", socket.gethostname())[:255] or "-"
    head = f"<{FACILITY * 8 + SEVERITIES[record.severity]}>1 {stamp(record.at)} {host} {APP} {os.getpid()} {MSGID}"
    return f"{head} {data} {message}".encode()


class SyslogOutput:
    """Sends to one collector. Raises SettingsError for an address that is none."""

    name = "syslog"

    def __init__(self, address: str, form: str, ca: str = "", retry: RetryPolicy | None = None) -> None:
        self._scheme, self._host, self._port = parsed(address)
        self._form, self._retry = form, retry or RetryPolicy()
        self._tls = trusting(ca) if self._scheme == "tls" else None

    async def send(self, message: Record) -> None:
        """Hand over a record, or raise NotifyError."""
        frames = [frame(message, self._form, one) for one in BY_NAME[self._form].render(message).split("\n")]

        async def attempt() -> None:
            try:
                async with asyncio.timeout(self._retry.timeout_s):
                    await (self._datagrams(frames) if self._scheme == "udp" else self._stream(frames))
            except TimeoutError:
                raise TryAgainError(f"no answer within {self._retry.timeout_s:g} s") from None
            except ssl.SSLCertVerificationError as error:
                raise NotifyError(f"cannot send to syslog: {error.verify_message}") from None
            except OSError as error:
                raise TryAgainError(f"no connection ({error.strerror or type(error).__name__})") from None

        await retried(self.name, self._retry, attempt)

    async def _datagrams(self, frames: list[bytes]) -> None:
        loop = asyncio.get_running_loop()
        (found, *_) = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        with socket.socket(found[0], socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for one in frames:
                await loop.sock_sendto(sender, one[:UDP_MAX], found[4])

    async def _stream(self, frames: list[bytes]) -> None:
        name, linger_s = (self._host, LINGER_S) if self._tls else (None, None)
        reader, writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._tls, server_hostname=name, ssl_shutdown_timeout=linger_s
        )
        try:
            writer.write(b"".join(b"%d %s" % (len(one), one) for one in frames))
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
                with suppress(TimeoutError):  # a collector need not close
                    await asyncio.wait_for(reader.read(), LINGER_S)
        finally:
            writer.close()
            with suppress(
                OSError, TimeoutError
            ):  # a collector that does not answer the end has read the record all the same
                await writer.wait_closed()


def parsed(address: str) -> tuple[str, str, int]:
    """Scheme, host and port of tls://HOST[:PORT], tcp://… or udp://…. Raises SettingsError."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise SettingsError("cannot use setting EXPORT_SYSLOG: its port is none") from None
    if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise SettingsError(
            "cannot use setting EXPORT_SYSLOG: it is tls://HOST:PORT, tcp://HOST:PORT or udp://HOST:PORT"
        )
    return parts.scheme, parts.hostname, PORTS[parts.scheme] if port is None else port


def _valid(address: str) -> None:
    if address:
        try:
            parsed(address)
        except SettingsError as error:
            raise ValueError(str(error).rpartition(": ")[2]) from None


def _made(values: Mapping[str, Any], retry: RetryPolicy | None = None) -> SyslogOutput:
    form, ca = values["export_syslog_format"], values["export_syslog_ca"]
    return SyslogOutput(values["export_syslog"], form, ca, retry)


SPEC = Output(
    name="syslog",
    summary="a syslog collector (RFC 5424): tls://HOST:6514, tcp://HOST:601 or udp://HOST:514",
    fields=(
        Field("export_syslog", str, "", "where incidents go as syslog: tls://, tcp:// or udp://HOST[:PORT]", _valid),
        format_field("syslog", "rfc5424"),
        Field("export_syslog_ca", str, "", "file of certificates to trust instead of the system's", readable),
    ),
    factory=_made,
    probe=lambda values: f"set up, as {values['export_syslog_format']}",
)
