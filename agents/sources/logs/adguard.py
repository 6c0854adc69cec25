"""AdGuard Home's `querylog.json`: a JSON object a line, with the whole answer, whose question has the name's bytes."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

from agents.core.types import FORWARDED, FROM_CACHE, UNKNOWN
from agents.sources.intake import Fidelity, Observed
from agents.sources.logs.frames import json_object
from agents.sources.logs.source import log_intake
from agents.sources.logs.times import Clock


class AdGuardReader:
    """Reads entries of AdGuard Home's query log, also those of old releases with the question as a message."""

    def __init__(self, options: Mapping[str, Any], written: float) -> None:
        self.nameless = 0
        self._clock = Clock()

    def read(self, line: str) -> Observed | None:
        """See LineReader."""
        if '"T"' not in line and '"Time"' not in line:
            return None
        entry = json_object(line)
        time, client = entry.get("T", entry.get("Time")), entry.get("IP")
        if not isinstance(time, str) or not isinstance(client, str):
            raise ValueError("an entry of AdGuard Home has no time or no client")
        elapsed, cached = entry.get("Elapsed"), entry.get("Cached")
        asked = Observed(
            self._clock.iso(time),
            client,
            _qname(entry.get("QH")),
            str(entry.get("QT", "")),
            rtt_ms=elapsed / 1e6 if isinstance(elapsed, int) and elapsed >= 0 else math.nan,
            cached=FROM_CACHE if cached is True else FORWARDED if entry.get("Upstream") else UNKNOWN,
        )
        question, answer = _message(entry.get("Question")), _message(entry.get("Answer"))
        return _with_messages(asked, question, answer) if question or answer else asked


def _with_messages(asked: Observed, question: bytes, answer: bytes) -> Observed:
    from agents.sources.messages import with_answer, with_question  # here: the list of kinds needs no compiler

    if question:
        asked = with_question(asked, question)._replace(qlen=len(question))
    return with_answer(with_question(asked, answer), answer) if answer else asked


def _qname(text: object) -> str:
    return (text or ".") if isinstance(text, str) else ""


def _message(text: object) -> bytes:
    """A message in base64 that has a header, or b"" where there is none. Raises ValueError for other text."""
    from agents.dns.message import HEADER_SIZE

    if not isinstance(text, str) or not text:
        return b""
    try:
        message = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("a message is no base64") from None
    return message if len(message) >= HEADER_SIZE else b""


SPEC = log_intake(
    "adguard",
    "a query log of AdGuard Home",
    "JSON objects with T, QH, QT and IP",
    AdGuardReader,
    recognizes=lambda head: b'"QH"' in head and b'"QT"' in head and b'"IP"' in head and head[:1] == b"{",
    fidelity=Fidelity(names="small letters where an entry has no answer", clients="anonymised if AdGuard is so set"),
)
