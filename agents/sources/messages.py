"""Whole DNS messages that a source has beside a query: the question's own bytes, and the facts of the answer."""

from __future__ import annotations

import numpy as np

from agents.dns import message_kernels as kernels
from agents.dns.message import parse_question, question_end, type_name
from agents.sources.intake import Observed
from agents.stream.answer_key import ANSWERS

_facts = kernels.new_facts(ANSWERS.key)


def with_question(asked: Observed, message: bytes) -> Observed:
    """With name and type as the message's question has them, if it is whole."""
    if not question_end(message):
        return asked
    question = parse_question(message)
    return asked._replace(qname=question.qname, qtype=type_name(question.qtype))


def with_answer(asked: Observed, answer: bytes) -> Observed:
    """With what an answer says, if its question is whole."""
    end = question_end(answer)
    if not end:
        return asked
    _facts[kernels.KEY :] = ANSWERS.key
    kernels.answer_facts(np.frombuffer(answer, np.uint8), 0, end, len(answer), _facts)
    facts: list[int] = _facts.tolist()
    return asked._replace(
        rcode=facts[kernels.RCODE],
        ancount=facts[kernels.ANCOUNT],
        rlen=len(answer),
        ttl_min=facts[kernels.TTL_MIN],
        ans_types=",".join(type_name(kind) for kind in facts[kernels.TYPES : kernels.KEY] if kind),
        ans_hash=facts[kernels.ANS_HASH],
        ans_bytes=facts[kernels.ANS_BYTES],
        negative_ttl=facts[kernels.NEGATIVE_TTL],
    )
