"""What compiled readers of log lines share: the columns that they fill, and reading times, digits and names."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.dns.characters import BACKSLASH, COLON, DASH, DOT, LOWER_X, NINE, UPPER_T, ZERO
from agents.dns.message_kernels import copy_bytes, int64
from agents.dns.name import NAME_MAX
from agents.dns.name_kernels import LABEL_MAX

UNREAD, PASSED, ROW = range(3)
"""What is known of a line: nothing, so that the line reader reads it; that it is on other things; its values."""
LOCAL, EXACT = range(2)
"""What SECOND is: seconds of a clock of the log's own zone, or Unix seconds."""
SECOND, TIMED, CLIENT, CLIENT_END, NAME, NAME_END, TYPE, TYPE_END = range(8)
FLOW, IDENT, PAIRED, IS_ANSWER, RCODE, ANCOUNT, TTL_MIN, KINDS, KINDS_END = range(8, 17)
"""LineColumns of numbers. CLIENT … and TYPE … are places in the lines' bytes, NAME … in `wires`, KINDS … in `kinds`."""
NUMBERS = 17
SECONDS_MAX = 253_402_214_400
"""Later times (the last day of the year 9999) are left to the line reader, which refuses what no log has."""
_DAYS_BEFORE = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365)
_EPOCH = 719_163
"""Number of 1970-01-01, counted in days from 0001-01-01, which is day 1."""
_UNITS = (1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)


class LineColumns(NamedTuple):
    """Room for the values of n lines."""

    codes: NDArray[np.uint8]  # (n,): UNREAD, PASSED or ROW
    numbers: NDArray[np.int64]  # (n, NUMBERS)
    fractions: NDArray[np.float64]  # (n,): of a second, to be added to SECOND
    wires: NDArray[np.uint8]  # names in wire form, as many bytes as the lines have
    kinds: NDArray[np.uint8]  # "CNAME,A", as many bytes
    sizes: NDArray[np.int64]  # (2,): bytes in use of wires and kinds
    name: NDArray[np.uint8]  # scratch: a name, and a label longer than it may be
    text: NDArray[np.uint8]  # scratch: a string without its escapes


TEXT_MAX = 2048
"""Longest string that is taken out of its escapes: a name of 254 bytes takes six characters a byte at most."""


def new_line_columns(lines: int, size: int) -> LineColumns:
    """Room for so many lines of so many bytes together."""
    return LineColumns(
        np.zeros(lines, np.uint8),
        np.zeros((lines, NUMBERS), np.int64),
        np.zeros(lines),
        np.empty(size, np.uint8),
        np.empty(size, np.uint8),
        np.zeros(2, np.int64),
        np.zeros(NAME_MAX + 2 + LABEL_MAX, np.uint8),
        np.zeros(TEXT_MAX, np.uint8),
    )


@kernel_in_place
def digits(data: Any, at: Any, count: Any) -> Any:
    """The number in `count` decimal digits from an offset on, all inside; -1 where one is none."""
    found = int64(0)
    for place in range(at, at + count):
        byte = int64(data[place])
        if byte < ZERO or byte > NINE:
            return int64(-1)
        found = found * 10 + byte - ZERO
    return found


@kernel_in_place
def begins(data: Any, at: Any, end: Any, word: Any) -> Any:
    """Whether data[at:end] begins with a word (u8)."""
    size = len(word)
    if at + size > end:
        return False
    for place in range(size):  # noqa: SIM110 - compiled code has no generators
        if data[at + place] != word[place]:
            return False
    return True


@kernel_in_place
def clock_seconds(year: Any, month: Any, day: Any, data: Any, at: Any, end: Any) -> Any:
    """Seconds from 1970 to a date (numbers) and the time of day HH:MM:SS at an offset; -1 if there is none such."""
    if at + 8 > end or data[at + 2] != COLON or data[at + 5] != COLON:
        return int64(-1)
    hour, minute, second = digits(data, at, 2), digits(data, at + 3, 2), digits(data, at + 6, 2)
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return int64(-1)
    if year < 1970 or month < 1 or month > 12 or day < 1:
        return int64(-1)
    leaps = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > _DAYS_BEFORE[month] - _DAYS_BEFORE[month - 1] + (leaps and month == 2):
        return int64(-1)
    before = year - 1
    days = 365 * before + before // 4 - before // 100 + before // 400
    days += _DAYS_BEFORE[month - 1] + (leaps and month > 2) + day - _EPOCH
    found = days * 86_400 + hour * 3600 + minute * 60 + second
    return found if found < SECONDS_MAX else int64(-1)


@kernel_in_place
def iso_seconds(data: Any, at: Any, end: Any) -> Any:
    """Seconds from 1970 to the 19 bytes YYYY-MM-DDTHH:MM:SS at an offset; -1 if there is none such."""
    if at + 19 > end or data[at + 4] != DASH or data[at + 7] != DASH or data[at + 10] != UPPER_T:
        return int64(-1)
    return clock_seconds(digits(data, at, 4), digits(data, at + 5, 2), digits(data, at + 8, 2), data, at + 11, end)


@kernel_in_place
def fraction(data: Any, at: Any, count: Any) -> Any:
    """The fraction of a second in up to nine digits from an offset on, NaN where one is none."""
    found = digits(data, at, count)
    return found / _UNITS[count] if found >= 0 else np.nan  # both are exact numbers, so this is "0.…" read as one


@kernel_in_place
def hex_digit(byte: Any) -> Any:
    """The value of a hexadecimal digit, -1 for another byte."""
    if ZERO <= byte <= NINE:
        return int64(byte) - ZERO
    small = int64(byte) | 0x20
    return small - 0x61 + 10 if 0x61 <= small <= 0x66 else int64(-1)


@kernel_in_place
def literal_name(data: Any, at: Any, end: Any, out: Any) -> Any:
    """Write a name that a log has with \\xNN for odd bytes, no other escapes, to `out` in wire form; its size or -1.

    Any other backslash is a byte of the name; labels without a byte are left out (logs.source.unescaped).
    """
    head, to = int64(0), int64(1)
    while at < end:
        byte = int64(data[at])
        at += 1
        if byte == DOT:
            if to - head > 1:
                out[head] = to - head - 1
                head, to = to, to + 1
                if head > NAME_MAX:
                    return int64(-1)
            continue
        if byte == BACKSLASH and at + 3 <= end and data[at] == LOWER_X:
            high, low = hex_digit(data[at + 1]), hex_digit(data[at + 2])
            if high >= 0 and low >= 0:
                byte = high << 4 | low
                at += 3
        out[to] = byte
        to += 1
        if to - head - 1 > LABEL_MAX or head > NAME_MAX:
            return int64(-1)
    if to - head > 1:
        out[head] = to - head - 1
        head = to
    return head if head <= NAME_MAX else int64(-1)


@kernel_in_place
def keep_name(columns: Any, line: Any, size: Any) -> Any:
    """Keep the name in `columns.name` as that of a line. False if size is -1, or there is no room."""
    if size < 0:
        return False
    used, numbers = columns.sizes[0], columns.numbers
    if used + size > len(columns.wires):
        return False
    copy_bytes(columns.wires, used, columns.name, 0, size)
    numbers[line, NAME], numbers[line, NAME_END] = used, used + size
    columns.sizes[0] = used + size
    return True
