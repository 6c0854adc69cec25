"""Email: one mail server, TLS wherever it can be had, no password without it."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage

from agents.errors import NotifyError
from agents.notifiers.mail import compose
from agents.notifiers.post import RetryPolicy, TryAgainError, retried
from agents.types import Message

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
