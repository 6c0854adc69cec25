"""JSON (RFC 8259) as a table of its values, in one walk. What Python's reader would refuse gives no table."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.dns.characters import (
    BACKSLASH,
    CLOSE_BRACE,
    CLOSE_BRACKET,
    COLON,
    COMMA,
    DASH,
    DOT,
    LOWER_B,
    LOWER_E,
    LOWER_F,
    LOWER_N,
    LOWER_R,
    LOWER_T,
    LOWER_U,
    OPEN_BRACE,
    OPEN_BRACKET,
    PLUS,
    QUOTE,
    SLASH,
    ZERO,
)
from agents.dns.message_kernels import int64
from agents.sources.logs.bulk.fields_kernels import begins, digits, hex_digit

OBJECT, ARRAY, TEXT, ESCAPED, INTEGER, NUMBER, OTHER = range(7)
"""Kinds of values: ESCAPED is a string with escapes in it, OTHER is true, false or null."""
KIND, BEGIN, END, KEY, NEXT = range(5)
"""LineColumns of the table. A string's bytes are without its quotes; KEY: number of a known key, -1 = another or none;
NEXT: the row behind all of the value."""
VALUES_MAX, DEPTH_MAX = 1024, 24
_NUMBER_MAX = 400
"""Longest number in bytes; Python refuses integers above 4,300 digits."""
_LONG = 18
"""Digits of an integer that surely fits 63 bits."""
_WORDS = tuple(np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null"))
_TRUE, _FALSE, _NULL = _WORDS


class Keys(NamedTuple):
    """Known keys, packed: the i-th is data[starts[i] : starts[i + 1]]."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]


class Table(NamedTuple):
    """Room for one text's values."""

    values: NDArray[np.int64]  # (VALUES_MAX, 5)
    stack: NDArray[np.int64]  # (DEPTH_MAX,)
    at: NDArray[np.int64]  # (2,): where the walk is, and the number of the key before it


def keys_of(*names: str) -> Keys:
    """A table of keys, by their order."""
    packed = [name.encode() for name in names]
    return Keys(np.frombuffer(b"".join(packed), np.uint8), np.cumsum([0, *map(len, packed)]))


def new_table() -> Table:
    """An empty table."""
    return Table(np.zeros((VALUES_MAX, 5), np.int64), np.zeros(DEPTH_MAX, np.int64), np.zeros(2, np.int64))


@kernel_in_place
def _blanks(data: Any, at: Any, end: Any) -> Any:
    """The offset behind whitespace."""
    while at < end and (data[at] == 0x20 or data[at] == 0x09 or data[at] == 0x0A or data[at] == 0x0D):
        at += 1
    return at


@kernel_in_place
def _string(data: Any, at: Any, end: Any) -> Any:
    """Offset of a string's last quote, and its kind. at: behind the first quote. The offset is -1 if it is damaged."""
    kind = TEXT
    while at < end:
        byte = int64(data[at])
        if byte == QUOTE:
            return at, kind
        if byte < 0x20:
            break
        if byte == BACKSLASH:
            kind = ESCAPED
            at += 1
            if at >= end:
                break
            byte = int64(data[at])
            if byte == LOWER_U:
                if at + 4 >= end or min(hex_digit(data[at + 1]), hex_digit(data[at + 2])) < 0:
                    break
                if min(hex_digit(data[at + 3]), hex_digit(data[at + 4])) < 0:
                    break
                at += 4
            elif byte not in (QUOTE, BACKSLASH, SLASH, LOWER_B, LOWER_F, LOWER_N, LOWER_R, LOWER_T):
                break
        at += 1
    return int64(-1), kind


@kernel_in_place
def _digits_end(data: Any, at: Any, end: Any) -> Any:
    """The offset behind decimal digits."""
    while at < end and digits(data, at, 1) >= 0:
        at += 1
    return at


@kernel_in_place
def _number(data: Any, at: Any, end: Any) -> Any:
    """Offset behind a number, and its kind; -1 if there is none."""
    begin, kind = at, INTEGER
    if at < end and data[at] == DASH:
        at += 1
    whole = at
    at = at + 1 if at < end and data[at] == ZERO else _digits_end(data, at, end)
    if at == whole:
        return int64(-1), kind
    if at + 1 < end and data[at] == DOT and digits(data, at + 1, 1) >= 0:
        at, kind = _digits_end(data, at + 1, end), NUMBER
    if at < end and int64(data[at]) | 0x20 == LOWER_E:
        sign = at + 1 < end and (data[at + 1] == PLUS or data[at + 1] == DASH)
        first = at + 2 if sign else at + 1
        after = _digits_end(data, first, end)
        if after > first:
            at, kind = after, NUMBER
    return at if at - begin <= _NUMBER_MAX else int64(-1), kind


@kernel_in_place
def _word(data: Any, at: Any, end: Any) -> Any:
    """Offset behind true, false or null; -1 for something else."""
    if begins(data, at, end, _TRUE) or begins(data, at, end, _NULL):
        return at + 4
    return at + 5 if begins(data, at, end, _FALSE) else int64(-1)


@kernel_in_place
def _key(data: Any, at: Any, end: Any, keys: Any, table: Any) -> Any:
    """Read `"key":` at an offset; False if there is none, or one with escapes."""
    at = _blanks(data, at, end)
    if at >= end or data[at] != QUOTE:
        return False
    stop, kind = _string(data, at + 1, end)
    if stop < 0 or kind == ESCAPED:
        return False
    found, size = int64(-1), stop - at - 1
    for number in range(len(keys.starts) - 1):
        begin = keys.starts[number]
        if keys.starts[number + 1] - begin == size:
            same = True
            for place in range(size):
                if data[at + 1 + place] != keys.data[begin + place]:
                    same = False
                    break
            if same:
                found = int64(number)
                break
    after = _blanks(data, stop + 1, end)
    if after >= end or data[after] != COLON:
        return False
    table.at[0], table.at[1] = _blanks(data, after + 1, end), found
    return True


@kernel_in_place
def _scalar(data: Any, at: Any, end: Any, value: Any) -> Any:
    """Read a string, number or word into a row of the table; the offset behind it, or -1."""
    byte = int64(data[at])
    if byte == QUOTE:
        stop, kind = _string(data, at + 1, end)
        value[KIND], value[BEGIN], value[END] = kind, at + 1, stop
        return stop + 1 if stop >= 0 else int64(-1)
    if byte == DASH or digits(data, at, 1) >= 0:
        stop, kind = _number(data, at, end)
    else:
        stop, kind = _word(data, at, end), OTHER
    value[KIND], value[BEGIN], value[END] = kind, at, stop
    return stop


@kernel_in_place
def _after(data: Any, at: Any, end: Any, keys: Any, table: Any, depth: Any, count: Any) -> Any:
    """Go on behind a value: to the next one, where table.at is then; how deep that is, 0 = the end, -1 = damaged."""
    values, stack = table.values, table.stack
    while True:
        at = _blanks(data, at, end)
        if depth == 0:
            return int64(0) if at == end else int64(-1)
        if at >= end:
            return int64(-1)
        top = stack[depth - 1]
        is_object = values[top, KIND] == OBJECT
        if data[at] == COMMA:
            if is_object:
                return depth if _key(data, at + 1, end, keys, table) else int64(-1)
            table.at[0], table.at[1] = _blanks(data, at + 1, end), -1
            return depth
        if data[at] != (CLOSE_BRACE if is_object else CLOSE_BRACKET):
            return int64(-1)
        values[top, END], values[top, NEXT] = at + 1, count
        depth -= 1
        at += 1


@kernel_in_place
def read_json(data: Any, begin: Any, end: Any, keys: Any, table: Any) -> Any:
    """Fill the table with the values of data[begin:end] (u8), the first of which is all of it; their number, or -1.

    -1: it is no JSON, or it has more than there is room for, or a key with escapes.
    """
    values, count, depth = table.values, int64(0), int64(0)
    table.at[0], table.at[1] = _blanks(data, begin, end), -1
    while True:
        at = table.at[0]
        if at >= end or count == VALUES_MAX:
            return int64(-1)
        byte = int64(data[at])
        values[count, KEY], values[count, NEXT] = table.at[1], count + 1
        if byte in (OPEN_BRACE, OPEN_BRACKET):
            if depth == DEPTH_MAX:
                return int64(-1)
            is_object = byte == OPEN_BRACE
            values[count, KIND], values[count, BEGIN] = OBJECT if is_object else ARRAY, at
            table.stack[depth] = count
            depth, count = depth + 1, count + 1
            at = _blanks(data, at + 1, end)
            closes = at < end and data[at] == (CLOSE_BRACE if is_object else CLOSE_BRACKET)
            if not closes:
                if not is_object:
                    table.at[0], table.at[1] = at, -1
                elif not _key(data, at, end, keys, table):
                    return int64(-1)
                continue
        else:
            at = _scalar(data, at, end, values[count])
            if at < 0:
                return int64(-1)
            count += 1
        depth = _after(data, at, end, keys, table, depth, count)
        if depth <= 0:
            return count if depth == 0 else int64(-1)


@kernel_in_place
def members(table: Any, row: Any, found: Any) -> Any:
    """Note in `found` (i64, one a known key) the row of each member of an object, -1 where there is none.

    False: a key is there twice.
    """
    for place in range(len(found)):
        found[place] = -1
    values = table.values
    at, stop = row + 1, values[row, NEXT]
    while at < stop:
        key = values[at, KEY]
        if key >= 0:
            if found[key] >= 0:
                return False
            found[key] = at
        at = values[at, NEXT]
    return True


@kernel_in_place
def integer(data: Any, value: Any) -> Any:
    """Whether a row of the table is a plain integer without a sign that fits 63 bits, and which."""
    begin, size = value[BEGIN], value[END] - value[BEGIN]
    if value[KIND] != INTEGER or size > _LONG or data[begin] == DASH:
        return False, int64(0)
    return True, digits(data, begin, size)


@kernel_in_place
def _escape(data: Any, at: Any, end: Any) -> Any:
    """The character of the escape behind a backslash, and the offset behind it; -1 for half of a surrogate pair."""
    byte = int64(data[at])
    if byte == LOWER_U:
        code = int64(0)
        for place in range(at + 1, at + 5):
            code = code << 4 | hex_digit(data[place])
        return (int64(-1) if 0xD800 <= code < 0xE000 else code), at + 5
    code = byte
    if byte == LOWER_B:
        code = int64(0x08)
    elif byte == LOWER_F:
        code = int64(0x0C)
    elif byte == LOWER_N:
        code = int64(0x0A)
    elif byte == LOWER_R:
        code = int64(0x0D)
    elif byte == LOWER_T:
        code = int64(0x09)
    return code, at + 1


@kernel_in_place
def unescaped_text(data: Any, at: Any, end: Any, out: Any) -> Any:
    """Write a string of the table that has escapes to `out` in UTF-8; its size, -1 if that is uncertain."""
    to = int64(0)
    while at < end:
        if to + 3 > len(out):
            return int64(-1)
        code = int64(data[at])
        at += 1
        if code != BACKSLASH:
            out[to] = code
            to += 1
            continue
        code, at = _escape(data, at, end)
        if code < 0:
            return int64(-1)
        if code < 0x80:
            out[to] = code
            to += 1
        elif code < 0x800:
            out[to], out[to + 1] = 0xC0 | code >> 6, 0x80 | code & 0x3F
            to += 2
        else:
            out[to], out[to + 1], out[to + 2] = 0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
            to += 3
    return to
