"""Email: one mail server, TLS wherever it can be had, no password without it."""

from __future__ import annotations

import asyncio
import hashlib
import smtplib
import socket
import ssl
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from html import escape
from typing import Any

from agents.alerting.delivery import Channel, RetryPolicy, TryAgainError, clip, retried
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
"""TLS from the start (RFC 8314 section 3.3); on every other port STARTTLS where the server offers it."""


class EmailNotifier:
    """Sends through one mail server; no `username`, no login. `tls` is for servers with a CA of their own."""

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
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port, self._sender, self._recipients = host, port, sender, tuple(recipients)
        self._username, self._password = username, password
        self._retry, self._tls = retry or RetryPolicy(), tls or ssl.create_default_context()

    async def send(self, message: Message) -> None:
        """Deliver to the mail server, or raise NotifyError."""
        mail = compose(message, self._sender, self._recipients)
        await retried(self.name, self._retry, lambda: asyncio.to_thread(self._attempt, mail))

    def _attempt(self, mail: EmailMessage) -> None:
        try:
            self._deliver(mail)
        except (smtplib.SMTPAuthenticationError, smtplib.SMTPNotSupportedError) as error:
            raise NotifyError(f"cannot send to email: login refused ({type(error).__name__})") from None
        except smtplib.SMTPResponseException as error:
            if 400 <= error.smtp_code < 500:
                raise TryAgainError(f"it answered {error.smtp_code}") from None
            raise NotifyError(f"cannot send to email: it answered {error.smtp_code}") from None
        except smtplib.SMTPRecipientsRefused as error:
            codes = sorted({code for code, _ in error.recipients.values()})
            raise NotifyError(f"cannot send to email: recipients refused {codes}") from None
        except ssl.SSLError as error:
            raise NotifyError(f"cannot send to email: no secure connection ({error.reason})") from None
        except (OSError, smtplib.SMTPException) as error:
            raise TryAgainError(f"no connection ({type(error).__name__})") from None

    def _deliver(self, mail: EmailMessage) -> None:
        with self._connect() as server:
            server.ehlo()
            if self._port != SMTPS_PORT and server.has_extn("starttls"):
                server.starttls(context=self._tls)
                server.ehlo()
            if self._username:
                self._login(server)
            server.send_message(mail)

    def _connect(self) -> smtplib.SMTP:
        if self._port == SMTPS_PORT:
            return smtplib.SMTP_SSL(self._host, self._port, timeout=self._retry.timeout_s, context=self._tls)
        return smtplib.SMTP(self._host, self._port, timeout=self._retry.timeout_s)

    def _login(self, server: smtplib.SMTP) -> None:
        if not isinstance(server.sock, ssl.SSLSocket):
            raise NotifyError("cannot send to email: the server offers no TLS, the password stays here")
        server.login(self._username, self._password)


def _port(number: int) -> None:
    if not 1 <= number <= 65535:
        raise ValueError("a port is a number from 1 to 65535")


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
        Field("email_smtp_port", int, 587, "465 = TLS from the start, else STARTTLS where the server offers it", _port),
        Field("email_from", str, "", "sender"),
        Field("email_to", str, "", "recipients, comma-separated"),
        Field("email_username", str, "", "login at the mail server; empty = none"),
        Field("email_password", str, "", "password at the mail server", secret=True),
    ),
    factory=_notifier,
    probe=_probe,
)
