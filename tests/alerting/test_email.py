from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from agents.alerting import email as email_module
from agents.alerting.delivery import RetryPolicy
from agents.alerting.email import EmailNotifier, compose
from agents.core.errors import NotifyError
from agents.core.types import Message, Severity
from tests.support.patience import patient

pytestmark = pytest.mark.integration

FAST = RetryPolicy(attempts=3, base_s=0.01, timeout_s=patient(5.0))
HASTY = RetryPolicy(attempts=1, timeout_s=0.2)
REPORT = ("training_report_20261120_020000.html", "text/html", b"<!doctype html><p>report</p>")
MESSAGE = Message(
    "Retraining 20261120_020000: WAITING",
    "A <b>summary</b> with ümlaut",
    [("Client", "<script>")],
    Severity.HIGH,
    thread_id="model fedcba9876543210",
    link="https://c.example/reports/a.html?x=1&y=2",
    attachments=[REPORT],
)


class Inbox:
    """An aiosmtpd handler that keeps mails, and first gives the answers it was told."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.mails: list[EmailMessage] = []
        self.tls: list[bool] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answers:
            return self.answers.pop(0)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.tls.append(session.ssl is not None)
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.logins.append((data.login, data.password))
        right = bool(data.password == b"right")
        return AuthResult(success=right, handled=right)


class OnAnyPort(Controller):
    """A controller whose self-test knows the port that the system chose."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@contextmanager
def server(inbox: Inbox, **options: Any) -> Iterator[int]:
    controller = OnAnyPort(inbox, hostname="127.0.0.1", port=0, **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server context, client context that trusts it)."""
    folder: Path = tmp_path_factory.mktemp("tls")
    address = str(ipaddress.ip_address("127.0.0.1"))
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=mail"
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    names = ["-addext", f"subjectAltName=IP:{address}"]
    subprocess.run([*command.split(), *files, *names], check=True, capture_output=True)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "cert", folder / "key")
    return serving, ssl.create_default_context(cafile=str(folder / "cert"))


def notifier(port: int, **options: Any) -> EmailNotifier:
    return EmailNotifier(
        "127.0.0.1", port, "alerts@a.example", ["ml@a.example", "soc@a.example"], retry=FAST, **options
    )


def send(mailer: EmailNotifier, message: Message = MESSAGE) -> None:
    asyncio.run(mailer.send(message))


def test_text_html_and_report_arrive() -> None:
    inbox = Inbox()
    with server(inbox) as port:
        send(notifier(port))
    (mail,) = inbox.mails
    assert mail["Subject"] == MESSAGE.title
    assert mail["To"] == "ml@a.example, soc@a.example"
    assert mail["Auto-Submitted"] == "auto-generated"
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "A <b>summary</b> with ümlaut" in text.get_content()
    assert "&lt;script&gt;" in html.get_content()
    assert "<script>" not in html.get_content()
    (attached,) = mail.iter_attachments()
    assert attached.get_filename() == REPORT[0]
    assert attached.get_payload(decode=True) == REPORT[2]
    (alternative,) = [part for part in mail.walk() if part.get_content_type() == "multipart/alternative"]
    assert alternative.is_multipart()


def test_starttls_and_login(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    inbox = Inbox()
    with server(inbox, tls_context=tls[0], auth_required=True, authenticator=inbox.authenticate) as port:
        send(notifier(port, username="me", password="right", context=tls[1]))
        assert inbox.tls == [True]
        assert inbox.logins == [(b"me", b"right")]
        with pytest.raises(NotifyError, match="login refused") as caught:
            send(notifier(port, username="me", password="wr0ng", context=tls[1]))
    assert "wr0ng" not in str(caught.value)
    assert len(inbox.mails) == 1


@pytest.mark.parametrize(
    ("mode", "error"),
    [("required", "the server offers no TLS"), ("opportunistic", None), ("off", None), ("", None)],
)
def test_mail_without_tls_is_a_choice(mode: str, error: str | None) -> None:
    inbox = Inbox()
    with server(inbox) as port:
        if error:
            with pytest.raises(NotifyError, match=error):
                send(notifier(port, tls=mode))
        else:
            send(notifier(port, tls=mode))
    assert len(inbox.mails) == (0 if error else 1)


def test_off_speaks_no_tls_where_it_is_offered(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    inbox = Inbox()
    with server(inbox, tls_context=tls[0]) as port:
        send(notifier(port, tls="off"))
        send(notifier(port, tls="opportunistic", context=tls[1]))
    assert inbox.tls == [False, True]


def test_another_machine_must_offer_tls_unless_a_setting_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is not loopback's; the connection itself stays on loopback."""
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1", *rest, **more))
    inbox = Inbox()
    with server(inbox) as port:
        for mode, error in (("", "offers no TLS"), ("opportunistic", "")):
            mailer = EmailNotifier("mail.example", port, "a@a.example", ["b@a.example"], retry=FAST, tls=mode)
            if error:
                with pytest.raises(NotifyError, match=error):
                    send(mailer)
            else:
                send(mailer)
    assert len(inbox.mails) == 1


def test_a_server_that_dribbles_is_left_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        done = threading.Event()

        def dribble() -> None:
            taken, _ = listening.accept()
            with taken, suppress(OSError):
                while not done.wait(0.02):
                    taken.sendall(b"2")

        thread = threading.Thread(target=dribble)
        thread.start()
        mailer = EmailNotifier("127.0.0.1", listening.getsockname()[1], "a@a.example", ["b@a.example"], retry=HASTY)
        with pytest.raises(NotifyError, match=r"no answer within 0\.2 s"):
            send(mailer)
        done.set()
        thread.join()


def test_a_certificate_that_is_not_trusted_gets_no_mail(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    inbox = Inbox()
    with server(inbox, tls_context=tls[0]) as port, pytest.raises(NotifyError, match="no secure connection"):
        send(notifier(port))
    assert inbox.mails == []


def test_a_password_never_leaves_without_tls() -> None:
    inbox = Inbox()
    with (
        server(inbox, auth_require_tls=False, authenticator=inbox.authenticate) as port,
        pytest.raises(NotifyError, match="no TLS"),
    ):
        send(notifier(port, username="me", password="right"))
    assert inbox.logins == []


def test_smtps_speaks_tls_from_the_start(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox()
    with server(inbox, ssl_context=tls[0]) as port:
        monkeypatch.setattr(email_module, "SMTPS_PORT", port)
        send(notifier(port, context=tls[1]))
    assert len(inbox.mails) == 1


def test_a_busy_server_is_tried_again() -> None:
    inbox = Inbox("451 later", "421 later still")
    with server(inbox) as port:
        send(notifier(port))
    assert len(inbox.mails) == 1


@pytest.mark.parametrize(("answers", "text"), [(["554 no"] * 3, "it answered 554"), (["451 no"] * 3, "tried 3 times")])
def test_giving_up_is_one_clear_error(answers: list[str], text: str) -> None:
    inbox = Inbox(*answers)
    with server(inbox) as port, pytest.raises(NotifyError, match=text):
        send(notifier(port))
    assert inbox.mails == []


def test_no_server_at_all() -> None:
    with server(Inbox()) as port:
        closed = port
    with pytest.raises(NotifyError, match="cannot send to email: no connection"):
        send(notifier(closed))


def headers(change: Callable[[Message], Message] = lambda message: message) -> EmailMessage:
    return compose(change(MESSAGE), "Alerts <alerts@a.example>", ["ml@a.example"])


def test_mails_of_one_model_belong_together_and_equal_ones_have_one_id() -> None:
    first, again = headers(), headers()
    later = headers(lambda message: replace(message, title="Retraining 20261120_020000: approved"))
    assert first["Message-ID"] == again["Message-ID"] != later["Message-ID"]
    assert first["References"] == later["References"] == later["In-Reply-To"]
    assert first["Message-ID"].endswith("@a.example>")


@pytest.mark.parametrize("evil", ["a\r\nBcc: x@evil.example", "a\nX-A: b", "a\x00b", "a\u2028b", "x" * 5000])
def test_no_header_can_be_smuggled_in(evil: str) -> None:
    mail = headers(lambda message: replace(message, title=evil, attachments=[(evil, "text/html", b"x")]))
    parsed = message_from_bytes(mail.as_bytes(), policy=policy.default)
    assert parsed["Bcc"] is None
    assert parsed["X-A"] is None
    assert set(parsed.keys()) == set(headers().keys())
