"""Email: one mail server, TLS unless a setting says otherwise, no password without it."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from html import escape
from typing import Any

import aiosmtplib

from agents.alerting.delivery import Channel, RefusedError, RetryPolicy, TryAgainError, clip, is_loopback, retried
from agents.core.errors import NotifyError, SettingsError
from agents.core.protocols import Field
from agents.core.types import Message

PROBE_S = 2.0
_CELL = 'style="padding:4px 12px 4px 0;vertical-align:top;border-bottom:1px solid #dddddd"'


def compose(message: Message, sender: str, recipients: Sequence[str]) -> EmailMessage:
    """The mail. Equal messages get equal Message-IDs; `thread_id` becomes References (RFC 5322 3.6.4)."""
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = (
        _line(message.title),
        _line(sender),
        _line(", ".join(recipients)),
    )
    mail["Date"] = formatdate()
    host = _line(parseaddr(sender)[1].rpartition("@")[2]) or "localhost"
    mail["Message-ID"] = _id(message.thread_id, message.title, message.summary, host=host)
    if message.thread_id:
        mail["In-Reply-To"] = mail["References"] = _id(message.thread_id, host=host)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation answers
    mail.set_content(_text(message))
    mail.add_alternative(_html(message), subtype="html")
    for name, kind, content in message.attachments:
        main, _, sub = kind.partition("/")
        mail.add_attachment(content, maintype=main, subtype=sub, filename=_line(name))
    return mail


def _id(*parts: str, host: str) -> str:
    return f"<{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}@{host}>"


def _line(text: str) -> str:
    """One header line: no control character survives, so no header can be added."""
    return clip("".join(char if char.isprintable() else " " for char in text), 300)


def _text(message: Message) -> str:
    lines = [message.title, "", message.summary, "", *(f"{key}: {value}" for key, value in message.facts)]
    return "\n".join([*lines, "", message.link] if message.link else lines) + "\n"


def _html(message: Message) -> str:
    rows = "".join(
        f"<tr><td {_CELL}><b>{escape(key)}</b></td><td {_CELL}>{escape(value)}</td></tr>"
        for key, value in message.facts
    )
    link = f'<p><a href="{escape(message.link)}">{escape(message.link_text)}</a></p>' if message.link else ""
    body = f"<h2>{escape(message.title)}</h2><p>{escape(message.summary)}</p><table>{rows}</table>{link}"
    style = "font-family:system-ui,sans-serif;font-size:15px;line-height:1.5"
    return f'<!doctype html><html><body style="{style}">{body}</body></html>\n'


SMTPS_PORT = 465
"""TLS from the start (RFC 8314 section 3.3); on every other port STARTTLS (RFC 3207)."""


class EmailNotifier:
    """Sends through one mail server; no `username`, no login.

    tls: "required", "opportunistic" (where the server offers it), "off", "" = required, opportunistic to loopback.
    context: for servers with a CA of their own.
    """

    name = "email"

    def __init__(
        self,
        host: str,
        port: int,
        sender: str,
        recipients: Sequence[str],
        username: str = "",
        password: str = "",
        retry: RetryPolicy | None = None,
        tls: str = "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port, self._sender, self._recipients = host, port, sender, tuple(recipients)
        self._username, self._password = username, password
        self._retry, self._context = retry or RetryPolicy(), context or ssl.create_default_context()
        self._tls = tls or ("opportunistic" if is_loopback(host) else "required")

    async def send(self, message: Message) -> None:
        """Deliver to the mail server, or raise NotifyError."""
        mail = compose(message, self._sender, self._recipients)
        await retried(self.name, self._retry, lambda: self._attempt(mail))

    async def _attempt(self, mail: EmailMessage) -> None:
        try:
            async with asyncio.timeout(self._retry.timeout_s):
                await self._deliver(mail)
        except TimeoutError:
            raise TryAgainError(f"no answer within {self._retry.timeout_s:g} s") from None
        except aiosmtplib.SMTPAuthenticationError as error:
            raise NotifyError(f"cannot send to email: login refused ({error.code})") from None
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = sorted({one.code for one in error.recipients})
            raise NotifyError(f"cannot send to email: recipients refused {codes}") from None
        except aiosmtplib.SMTPResponseException as error:
            if 400 <= error.code < 500:
                raise TryAgainError(f"it answered {error.code}") from None
            raise RefusedError(f"cannot send to email: it answered {error.code}") from None
        except ssl.SSLError as error:
            raise NotifyError(f"cannot send to email: no secure connection ({error.reason})") from None
        except (OSError, aiosmtplib.SMTPException) as error:
            raise _unreachable(error) from None

    async def _deliver(self, mail: EmailMessage) -> None:
        smtps = self._port == SMTPS_PORT
        server = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            timeout=self._retry.timeout_s,
            use_tls=smtps,
            start_tls=False,
            tls_context=self._context,
        )
        async with server:
            secure = smtps or await self._secured(server)
            if self._username:
                if not secure:
                    raise NotifyError("cannot send to email: the server offers no TLS, the password stays here")
                await server.login(self._username, self._password)
            await server.send_message(mail)

    async def _secured(self, server: aiosmtplib.SMTP) -> bool:
        """Whether the connection is encrypted now. Raises NotifyError where it must be and cannot."""
        if self._tls == "off":
            return False
        await server.ehlo()
        if server.supports_extension("starttls"):
            await server.starttls()
            return True
        if self._tls == "required":
            raise NotifyError("cannot send to email: the server offers no TLS (EMAIL_TLS=opportunistic goes without)")
        return False


def _unreachable(error: Exception) -> TryAgainError | NotifyError:
    """A lost connection may come back; a certificate that is not trusted will not."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return NotifyError(f"cannot send to email: no secure connection ({cause.reason})")
        cause = cause.__cause__ or cause.__context__
    return TryAgainError(f"no connection ({type(error).__name__})")


def _port(number: int) -> None:
    if not 1 <= number <= 65535:
        raise ValueError("a port is a number from 1 to 65535")


def _tls_mode(text: str) -> None:
    if text not in {"", "required", "opportunistic", "off"}:
        raise ValueError("it is required, opportunistic or off")


def _notifier(values: Mapping[str, Any], retry: RetryPolicy | None = None) -> EmailNotifier:
    recipients = [part.strip() for part in values["email_to"].split(",") if part.strip()]
    for name, value in (("EMAIL_FROM", values["email_from"]), ("EMAIL_TO", recipients)):
        if not value:
            raise SettingsError(f"cannot use setting EMAIL_SMTP_HOST: {name} is not set")
    return EmailNotifier(
        values["email_smtp_host"],
        values["email_smtp_port"],
        values["email_from"],
        recipients,
        values["email_username"],
        values["email_password"],
        retry,
        values["email_tls"],
    )


def _probe(values: Mapping[str, Any]) -> str:
    """Whether the mail server takes connections."""
    host, port = values["email_smtp_host"], values["email_smtp_port"]
    try:
        with socket.create_connection((host, port), PROBE_S):
            return f"set up; {host} port {port} takes connections"
    except OSError as error:
        raise NotifyError(f"cannot reach {host} port {port}: {error.strerror or error}") from None


SPEC = Channel(
    name="email",
    summary="mail, through one mail server",
    fields=(
        Field("email_smtp_host", str, "", "mail server; empty = no mail"),
        Field("email_smtp_port", int, 587, "465 = TLS from the start, else STARTTLS", _port),
        Field(
            "email_tls",
            str,
            "",
            "required, opportunistic (where the server offers it) or off; empty = required, opportunistic to loopback",
            _tls_mode,
        ),
        Field("email_from", str, "", "sender"),
        Field("email_to", str, "", "recipients, comma-separated"),
        Field("email_username", str, "", "login at the mail server; empty = none"),
        Field("email_password", str, "", "password at the mail server", secret=True),
    ),
    factory=_notifier,
    probe=_probe,
)
