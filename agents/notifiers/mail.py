"""A message as mail: text and HTML in one, files attached, messages of one thread kept together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from html import escape

from agents.notifiers.post import clip
from agents.types import Message

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
