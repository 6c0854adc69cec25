"""AdGuard Home's `querylog.json`: a JSON object a line, with the whole answer, whose question has the name's bytes."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        self._facts: NDArray[np.int64] | None = None

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
        if question := _message(entry.get("Question")):
            asked = _with_question(asked, question)._replace(qlen=len(question))
        if answer := _message(entry.get("Answer")):
            asked = self._with_answer(_with_question(asked, answer), answer)
        return asked

    def _with_answer(self, asked: Observed, answer: bytes) -> Observed:
        # Imported here: it loads the compiler, which the list of kinds does not need.
        from agents.dns import message_kernels as kernels
        from agents.dns.message import question_end, type_name
        from agents.stream.record import ANSWER_KEY

        end = question_end(answer)
        if not end:
            return asked
        if self._facts is None:
            self._facts = kernels.new_facts(ANSWER_KEY)
        facts = self._facts
        kernels.answer_facts(np.frombuffer(answer, np.uint8), 0, end, len(answer), facts)
        return asked._replace(
            rcode=int(facts[kernels.RCODE]),
            ancount=int(facts[kernels.ANCOUNT]),
            rlen=len(answer),
            ttl_min=int(facts[kernels.TTL_MIN]),
            ans_types=",".join(type_name(kind) for kind in facts[kernels.TYPES : kernels.KEY].tolist() if kind),
            ans_hash=int(facts[kernels.ANS_HASH]),
            ans_bytes=int(facts[kernels.ANS_BYTES]),
            negative_ttl=int(facts[kernels.NEGATIVE_TTL]),
        )


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


def _with_question(asked: Observed, message: bytes) -> Observed:
    """With name and type as the message's question has them, if it is whole."""
    from agents.dns.message import parse_question, question_end, type_name
    from agents.dns.name import to_text

    if not question_end(message):
        return asked
    question = parse_question(message)
    return asked._replace(qname=to_text(question.qname), qtype=type_name(question.qtype))


SPEC = log_intake(
    "adguard",
    "a query log of AdGuard Home",
    "JSON objects with T, QH, QT and IP",
    AdGuardReader,
    recognizes=lambda head: b'"QH"' in head and b'"QT"' in head and b'"IP"' in head and head[:1] == b"{",
    fidelity=Fidelity(names="small letters where an entry has no answer", clients="anonymised if AdGuard is so set"),
)
