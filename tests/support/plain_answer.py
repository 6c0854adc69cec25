"""The facts of an answer, and its data, in plain Python: an oracle of dns/message_kernels.py's answer_facts."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from agents.core.errors import MessageError
from agents.dns import message as wire

QUESTION_NAME, RECORD = b"\xc0\x0c", Struct("!HHIH")
"""A pointer to the question's name; type, class, TTL and size of data (RFC 1035 section 4.1.3)."""


class Answer(NamedTuple):
    """Facts of an answer. rcode includes the EDNS bits (RFC 6891 section 6.1.3); ttl_min in seconds or -1."""

    rcode: int
    ancount: int
    types: tuple[int, ...]  # the first ANSWER_TYPES_MAX distinct types of the answer section in order
    ttl_min: int
    truncated: bool


class AnswerData(NamedTuple):
    """Type and data of each whole answer record, and seconds that an answer without any is kept; -1 = it has some."""

    records: list[tuple[int, bytes]]
    negative_ttl: int

    @property
    def size(self) -> int:
        return sum(len(data) for _, data in self.records)


def answer_data(message: bytes, end: int) -> AnswerData:
    """What an answer holds, up to the first damaged record. end: of its question."""
    counts = [int.from_bytes(message[at : at + 2]) for at in (6, 8, 10)]
    records: list[tuple[int, bytes]] = []
    kept, at, rcode = (-1 if counts[0] else 0), end, message[3] & 0xF
    for number in range(sum(counts)):
        try:
            at = wire.skip_name(message, at)
        except MessageError:
            break
        kind, ttl = int.from_bytes(message[at : at + 2]), int.from_bytes(message[at + 4 : at + 8])
        data = message[at + 10 : at + 10 + int.from_bytes(message[at + 8 : at + 10])]
        at += 10 + int.from_bytes(message[at + 8 : at + 10])
        if at > len(message):
            break
        if number < counts[0]:
            records.append((kind, data))
        elif kind == wire.SOA and not counts[0] and len(data) > wire.SOA_TAIL and rcode in (0, 3):
            kept = min(ttl, int.from_bytes(data[-4:]))
            kept = 0 if kept > wire.TTL_MAX else kept
        elif kind == wire.OPT:
            rcode |= ttl >> 24 << 4
    return AnswerData(records, kept)


def parse_answer(message: bytes, *, question_end: int = 0, partial: bool = False) -> Answer:
    """Read the facts of an answer. Raises MessageError on damage. With `question_end`, the question is not read again.

    With `partial` (a capture with a snapshot length, a first fragment) only whole records count, and only a broken
    header or question is an error.
    """
    size, at = len(message), question_end or wire.HEADER_SIZE
    if size < wire.HEADER_SIZE:
        raise MessageError("cannot read message: shorter than a header")
    _, flags, questions, ancount, nscount, arcount = wire.header(message)
    if questions and not question_end:
        at = wire.parse_question(message).end
    rcode, ttl_min = flags & 0xF, -1
    types: tuple[int, ...] = ()
    try:
        for number in range(ancount + nscount + arcount):
            if message[at : at + 2] == QUESTION_NAME and at > wire.HEADER_SIZE:
                at += 2
            else:
                at = wire.skip_name(message, at)
            if at + 10 > size:
                raise MessageError("cannot read record: it is cut off")
            rtype, _, ttl, length = RECORD.unpack_from(message, at)
            at += 10 + length
            if at > size:
                raise MessageError("cannot read record: its data is cut off")
            if number < ancount:
                if ttl > wire.TTL_MAX:
                    ttl = 0
                if ttl < ttl_min or ttl_min < 0:
                    ttl_min = ttl
                if rtype not in types and rtype and len(types) < wire.ANSWER_TYPES_MAX:  # 0 is reserved (RFC 6895)
                    types += (rtype,)
            elif rtype == wire.OPT:
                rcode |= ttl >> 24 << 4
    except MessageError:
        if not partial:
            raise
    return Answer(rcode, ancount, types, ttl_min, flags & wire.TC > 0)
