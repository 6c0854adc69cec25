"""A finished query as one RECORD, without a kernel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from agents import wire
from agents.errors import MessageError
from agents.records import record_of
from agents.sources.upstream import Pending
from agents.types import UNKNOWN


def record_of_query(pending: Pending, answer: bytes | None, rtt_ms: float) -> NDArray[np.void]:
    """An array of one. Without an answer: what the client was told (SERVFAIL), unknown size, TTL and latency."""
    question = pending.question
    facts, rlen = wire.Answer(wire.SERVFAIL, 0, "", UNKNOWN, False), UNKNOWN
    if answer is None:
        rtt_ms = math.nan
    else:
        facts, rlen = _facts(answer, question.end), len(answer)
    return record_of(
        (
            pending.ts, pending.client, question.qname, question.qtype, len(pending.query),
            facts.rcode, facts.ancount, rlen, facts.ttl_min, rtt_ms, facts.types,
        )
    )  # fmt: skip


def _facts(answer: bytes, question_end: int) -> wire.Answer:
    """Facts of an answer that matched its question; what is damaged behind the header is unknown."""
    try:
        return wire.parse_answer(answer, question_end=question_end)
    except MessageError:
        return wire.parse_answer(answer, question_end=question_end, partial=True)
