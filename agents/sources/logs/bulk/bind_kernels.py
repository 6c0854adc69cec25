"""Lines of BIND's query log, many at once: the same fields that the pattern in bind.py finds."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.core.jit import kernel_in_place
from agents.dns.characters import CLOSE, COLON, DASH, DOT, HASH, PERCENT, PLUS, SPACE, UNDERSCORE, UPPER_Z
from agents.dns.message_kernels import int64
from agents.sources.dnstap.dnstap_kernels import wire_name
from agents.sources.logs.bulk.fields_kernels import (
    CLIENT,
    CLIENT_END,
    EXACT,
    LOCAL,
    ROW,
    SECOND,
    TIMED,
    TYPE,
    TYPE_END,
    UNREAD,
    begins,
    clock_seconds,
    digits,
    fraction,
    hex_digit,
    iso_seconds,
    keep_name,
)


def _word(text: str) -> Any:
    return np.frombuffer(text.encode(), np.uint8)


_QUERIES, _INFO, _CLIENT, _POINTER = _word("queries: "), _word("info: "), _word("client "), _word("@0x")
_VIEW, _QUERY, _NAMED, _MONTHS = (
    _word("view "),
    _word("query: "),
    _word(" ("),
    _word("JanFebMarAprMayJunJulAugSepOctNovDec"),
)
_ISO_SIZE, _LOCAL_SIZE = 23, 24
"""Bytes of 2026-01-05T00:00:00.250 and of 05-Jan-2026 00:00:00.250."""


@kernel_in_place
def _month(data: Any, at: Any) -> Any:
    for month in range(12):
        if (
            data[at] == _MONTHS[3 * month]
            and data[at + 1] == _MONTHS[3 * month + 1]
            and data[at + 2] == _MONTHS[3 * month + 2]
        ):
            return int64(month + 1)
    return int64(0)


@kernel_in_place
def _time(columns: Any, line: Any, data: Any, at: Any, end: Any) -> Any:
    """Read a line's time; the offset behind it and its blank, -1 if there is none or it is uncertain."""
    numbers = columns.numbers
    if at + _LOCAL_SIZE + 1 > end or digits(data, at, 2) < 0:
        return int64(-1)
    if data[at + 2] == DASH:
        second = clock_seconds(digits(data, at + 7, 4), _month(data, at + 3), digits(data, at, 2), data, at + 12, end)
        dash, blank, tail, kind = data[at + 6] == DASH, data[at + 11] == SPACE, at + _LOCAL_SIZE, LOCAL
    else:
        second, dash, blank, tail, kind = iso_seconds(data, at, end), True, True, at + _ISO_SIZE, LOCAL
    part = fraction(data, tail - 3, 3)
    if second < 0 or not dash or not blank or data[tail - 4] != DOT or part != part:
        return int64(-1)
    if data[at + 2] != DASH and data[tail] == UPPER_Z:
        tail, kind = tail + 1, EXACT
    if tail >= end or data[tail] != SPACE:
        return int64(-1)
    numbers[line, SECOND], numbers[line, TIMED], columns.fractions[line] = second, kind, part
    return tail + 1


@kernel_in_place
def _token_end(data: Any, at: Any, end: Any) -> Any:
    """Where the printable ASCII from an offset on ends before a blank; -1 where another byte or no blank follows."""
    while at < end and 0x21 <= data[at] <= 0x7E:
        at += 1
    return at if at < end and data[at] == SPACE else int64(-1)


@kernel_in_place
def _client(columns: Any, line: Any, data: Any, at: Any, end: Any) -> Any:
    """Read `@0x… address#port (name): `; the offset behind it, or -1."""
    if begins(data, at, end, _POINTER):
        at += 3
        first = at
        while at < end and hex_digit(data[at]) >= 0 and not 0x41 <= data[at] <= 0x46:
            at += 1
        if at == first or at >= end or data[at] != SPACE:
            return int64(-1)
        at += 1
    first = at
    while at < end:
        byte = int64(data[at])
        letter = 0x61 <= (byte | 0x20) <= 0x7A
        if not (letter or 0x30 <= byte <= 0x3A or byte in (DOT, PERCENT, UNDERSCORE)):
            break
        at += 1
    columns.numbers[line, CLIENT], columns.numbers[line, CLIENT_END] = first, at
    if at == first or at + 1 >= end or data[at] != HASH or digits(data, at + 1, 1) < 0:
        return int64(-1)
    at += 1
    while at < end and digits(data, at, 1) >= 0:
        at += 1
    if begins(data, at, end, _NAMED):
        at = _token_end(data, at + 2, end)
        if at < 0 or data[at - 1] != COLON or data[at - 2] != CLOSE:
            return int64(-1)
        return at + 1
    if at + 1 < end and data[at] == COLON and data[at + 1] == SPACE:
        return at + 2
    return int64(-1)


@kernel_in_place
def _line(columns: Any, line: Any, data: Any, at: Any, end: Any) -> Any:
    """Read the line data[at:end]; ROW, or UNREAD."""
    at = _time(columns, line, data, at, end)
    if at < 0:
        return UNREAD
    if begins(data, at, end, _QUERIES):
        at += len(_QUERIES)
    if begins(data, at, end, _INFO):
        at += len(_INFO)
    if not begins(data, at, end, _CLIENT):
        return UNREAD
    at = _client(columns, line, data, at + len(_CLIENT), end)
    if at < 0:
        return UNREAD
    if begins(data, at, end, _VIEW):
        first = at + len(_VIEW)
        at = _token_end(data, first, end)
        if at < first + 2 or data[at - 1] != COLON:
            return UNREAD
        at += 1
    if not begins(data, at, end, _QUERY):
        return UNREAD
    name = at + len(_QUERY)
    name_end = _token_end(data, name, end)
    class_end = _token_end(data, name_end + 1, end) if name_end > name else int64(-1)
    type_end = _token_end(data, class_end + 1, end) if class_end > name_end + 1 else int64(-1)
    if type_end <= class_end + 1 or type_end + 1 >= end:
        return UNREAD
    if data[type_end + 1] != DASH and data[type_end + 1] != PLUS:
        return UNREAD
    columns.numbers[line, TYPE], columns.numbers[line, TYPE_END] = class_end + 1, type_end
    return ROW if keep_name(columns, line, wire_name(data, name, name_end, columns.name)) else UNREAD


@kernel_in_place
def scan_bind(data: Any, starts: Any, columns: Any) -> None:
    """Read n lines of data (u8), the i-th data[starts[i] : starts[i + 1]] with its end, starts i64 (n + 1,)."""
    for line in range(len(starts) - 1):
        begin, end = starts[line], starts[line + 1]
        while end > begin and (data[end - 1] == 0x0A or data[end - 1] == 0x0D):
            end -= 1
        columns.codes[line] = _line(columns, line, data, begin, end)
