"""A finished query as one RECORD, without a kernel."""

from __future__ import annotations

import math
from functools import lru_cache
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from agents import wire
from agents.errors import MessageError
from agents.names import MAX_NAME
from agents.records import RECORD, client_bytes
from agents.sources.upstream import Pending
from agents.types import UNKNOWN

_LAYOUT = Struct(f"<dqfiiiHh{wire.ANSWER_TYPES_MAX}H16sB{MAX_NAME}s5x")
assert _LAYOUT.size == RECORD.itemsize


@lru_cache(maxsize=4096)
def _type_numbers(types: str) -> tuple[int, ...]:
    found = [wire.type_number(name) for name in types.split(",") if name]
    return (*found, *[0] * (wire.ANSWER_TYPES_MAX - len(found)))


def record_of(pending: Pending, answer: bytes | None, rtt_ms: float) -> NDArray[np.void]:
    """An array of one. Without an answer: what the client was told (SERVFAIL), unknown size, TTL and latency."""
    facts, rlen = wire.Answer(wire.SERVFAIL, 0, "", UNKNOWN, False), UNKNOWN
    if answer is None:
        rtt_ms = math.nan
    else:
        facts, rlen = _facts(answer, pending.question.end), len(answer)
    question = pending.question
    packed = _LAYOUT.pack(
        pending.ts, facts.ttl_min, rtt_ms, len(pending.query), facts.ancount, rlen, question.qtype, facts.rcode,
        *_type_numbers(facts.types), client_bytes(pending.client), len(question.qname), question.qname,
    )  # fmt: skip
    return np.frombuffer(packed, RECORD)


def _facts(answer: bytes, question_end: int) -> wire.Answer:
    """Facts of an answer that matched its question; what is damaged behind the header is unknown."""
    try:
        return wire.parse_answer(answer, question_end=question_end)
    except MessageError:
        return wire.parse_answer(answer, question_end=question_end, partial=True)
