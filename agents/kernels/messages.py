"""DNS messages as bytes, in a buffer. The definitions are wire.parse_question and wire.parse_answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.kernels import kernel_in_place

HEADER_SIZE = 12
NAME_MAX, LABEL_MAX = 254, 63
OPT = 41
_POINTER, _TTL_MAX = 0xC0, 0x7FFFFFFF
_DAMAGED = -1


@kernel_in_place
def u16(data: Any, at: Any) -> Any:
    """The big-endian number in two bytes."""
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])


@kernel_in_place
def question_end(data: Any, start: Any, end: Any) -> Any:
    """Offset of the root byte of the one question's name in the message data[start:end], or -1."""
    if end - start < HEADER_SIZE or u16(data, start + 4) != 1:
        return _DAMAGED
    at = start + HEADER_SIZE
    while at < end and data[at] != 0:
        if data[at] > LABEL_MAX:
            return _DAMAGED
        at += 1 + np.int64(data[at])
    if at + 5 > end or at - start - HEADER_SIZE > NAME_MAX:
        return _DAMAGED
    return at


@kernel_in_place
def _skip_name(data: Any, start: Any, at: Any, end: Any) -> Any:
    """Offset after the name at `at`, or -1."""
    first = at
    while at < end:
        length = np.int64(data[at])
        if length == 0:
            return at + 1
        if length >= _POINTER:
            if at + 2 > end or ((length & 0x3F) << 8 | np.int64(data[at + 1])) >= first - start:
                return _DAMAGED
            return at + 2
        if length > LABEL_MAX or at - first > NAME_MAX:
            return _DAMAGED
        at += length + 1
    return _DAMAGED


@kernel_in_place
def read_answer(data: Any, start: Any, at: Any, end: Any, row: Any) -> None:
    """Note in a record what the answer data[start:end] says; `at` is where its question ends.

    Of an answer that is cut off or damaged the records before count (wire.parse_answer, partial).
    """
    rcode, answers = np.int64(data[start + 3]) & 0xF, u16(data, start + 6)
    count = answers + u16(data, start + 8) + u16(data, start + 10)
    types, ttl_min = 0, np.int64(-1)
    for seen in range(count):
        at = _skip_name(data, start, at, end)
        if at < 0 or at + 10 > end:
            break
        kind, ttl = u16(data, at), u16(data, at + 4) << 16 | u16(data, at + 6)
        at += 10 + u16(data, at + 8)
        if at > end:
            break
        if seen < answers:
            ttl *= ttl <= _TTL_MAX
            ttl_min = ttl if ttl_min < 0 else min(ttl, ttl_min)
            known = kind == 0
            for i in range(types):
                known = known or row.ans_types[i] == kind
            if not known and types < len(row.ans_types):
                row.ans_types[types] = kind
                types += 1
        elif kind == OPT:
            rcode |= ttl >> 24 << 4
    row.rcode, row.ancount, row.ttl_min = rcode, answers, ttl_min
