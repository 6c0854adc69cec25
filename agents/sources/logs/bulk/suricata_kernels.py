"""Records of Suricata's EVE log, many at once: the same values that suricata.py finds in each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.core.types import UNKNOWN
from agents.dns.characters import COLON, COMMA, DASH, DOT, PLUS, QUOTE, SPACE, UPPER_Z
from agents.dns.message_kernels import copy_bytes, int64
from agents.sources.logs.bulk.fields_kernels import (
    ANCOUNT,
    CLIENT,
    CLIENT_END,
    EXACT,
    FLOW,
    IDENT,
    IS_ANSWER,
    KINDS,
    KINDS_END,
    PAIRED,
    PASSED,
    RCODE,
    ROW,
    SECOND,
    TIMED,
    TTL_MIN,
    TYPE,
    TYPE_END,
    UNREAD,
    begins,
    digits,
    fraction,
    iso_seconds,
    keep_name,
    literal_name,
)
from agents.sources.logs.bulk.json_kernels import (
    ARRAY,
    BEGIN,
    END,
    ESCAPED,
    KIND,
    NEXT,
    NUMBER,
    OBJECT,
    TEXT,
    Keys,
    Table,
    integer,
    keys_of,
    members,
    new_table,
    read_json,
    unescaped_text,
)

_KEYS = (
    "timestamp", "flow_id", "src_ip", "src_port", "dest_ip", "dest_port", "dns", "type", "id", "tx_id", "rrname",
    "rrtype", "rcode", "answers", "queries", "query", "ttl",
)  # fmt: skip
_TIMESTAMP, _FLOW_ID, _SRC_IP, _SRC_PORT, _DEST_IP, _DEST_PORT, _DNS, _DNS_TYPE, _ID = range(9)
_TX_ID, _RRNAME, _RRTYPE, _RCODE, _ANSWERS, _QUERIES, _QUERY, _TTL = range(9, 17)
_RECORD, _IN_DNS, _IN_QUESTION, _IN_ANSWER = range(4)
"""Objects whose members are noted."""
_RCODES = tuple(
    np.frombuffer(name, np.uint8) for name in (b"NOERROR", b"FORMERR", b"SERVFAIL", b"NXDOMAIN", b"NOTIMP", b"REFUSED")
)
"""By their numbers (RFC 1035 section 4.1.1); others are left to the line reader."""
_NOERROR, _FORMERR, _SERVFAIL, _NXDOMAIN, _NOTIMP, _REFUSED = _RCODES
_EVENT, _DNS_EVENT = np.frombuffer(b'"event_type"', np.uint8), np.frombuffer(b'"dns"', np.uint8)
_ANSWER, _RESPONSE = np.frombuffer(b"answer", np.uint8), np.frombuffer(b"response", np.uint8)
_KINDS_MAX, _KINDS_BYTES = 8, 200
"""Types of one answer, and the bytes of their names; more is left to the line reader."""
_SECONDS = 19
"""Bytes of 2026-01-05T00:00:00."""


class EveScan(NamedTuple):
    """Room for one record's values."""

    keys: Keys
    table: Table
    found: NDArray[np.int64]  # (4, keys): rows of members
    kinds: NDArray[np.int64]  # (_KINDS_MAX, 2): types of an answer, as places in the line


def new_eve_scan() -> EveScan:
    """Room for a scan."""
    found, kinds = np.zeros((4, len(_KEYS)), np.int64), np.zeros((_KINDS_MAX, 2), np.int64)
    return EveScan(keys_of(*_KEYS), new_table(), found, kinds)


@kernel_in_place
def _is_dns(data: Any, at: Any, end: Any) -> Any:
    """Whether `"event_type":"dns"` stands in the bytes, with a blank at most on each side of the colon."""
    while at + len(_EVENT) < end:
        if data[at] == QUOTE and begins(data, at, end, _EVENT):
            after = at + len(_EVENT)
            after += after < end and data[after] == SPACE
            if after < end and data[after] == COLON:
                after += 1
                after += after < end and data[after] == SPACE
                if begins(data, after, end, _DNS_EVENT):
                    return True
        at += 1
    return False


@kernel_in_place
def _is_text(data: Any, value: Any, word: Any) -> Any:
    """Whether a row of the table is a string of these bytes."""
    same = value[KIND] == TEXT and value[END] - value[BEGIN] == len(word)
    return same and begins(data, value[BEGIN], value[END], word)


@kernel_in_place
def _time(columns: Any, line: Any, data: Any, value: Any) -> Any:
    """Read a timestamp, with or without a fraction and a zone; False if it is uncertain."""
    at, end = value[BEGIN], value[END]
    second = iso_seconds(data, at, end) if value[KIND] == TEXT else int64(-1)
    if second < 0:
        return False
    at += _SECONDS
    part = 0.0
    if at < end and (data[at] == DOT or data[at] == COMMA):
        first = at + 1
        at = first
        while at < end and at - first < 9 and digits(data, at, 1) >= 0:
            at += 1
        if at == first:
            return False
        part = fraction(data, first, at - first)
    if at < end and data[at] == UPPER_Z:
        at += 1
    elif at < end and (data[at] == PLUS or data[at] == DASH):
        sign = 1 if data[at] == PLUS else -1
        colon = at + 3 < end and data[at + 3] == COLON
        minute_at = at + 4 if colon else at + 3
        if minute_at + 2 > end:
            return False
        hours, minutes = digits(data, at + 1, 2), digits(data, minute_at, 2)
        if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
            return False
        second -= sign * (hours * 3600 + minutes * 60)
        at = minute_at + 2
    columns.numbers[line, SECOND], columns.numbers[line, TIMED], columns.fractions[line] = second, EXACT, part
    return at == end and second >= 0


@kernel_in_place
def _is_dns_port(data: Any, values: Any, row: Any) -> Any:
    """Whether a member is 53: 1 or 0; 2 where that is uncertain."""
    if row < 0:
        return 0
    value = values[row]
    if value[KIND] == NUMBER:
        return 2
    is_plain, number = integer(data, value)
    return 1 if is_plain and number == 53 else 0


@kernel_in_place
def _client(scan: Any, columns: Any, line: Any, data: Any, is_answer: Any) -> Any:
    """Read who asked; False if it is uncertain. See suricata.py on directions."""
    values, record = scan.table.values, scan.found[_RECORD]
    to_dns, from_dns = _is_dns_port(data, values, record[_DEST_PORT]), _is_dns_port(data, values, record[_SRC_PORT])
    if to_dns == 2 or from_dns == 2:
        return False
    row = record[_SRC_IP]
    if to_dns == 0 and (from_dns == 1 or is_answer):
        row = record[_DEST_IP]
    if row < 0 or values[row, KIND] != TEXT:
        return False
    for at in range(values[row, BEGIN], values[row, END]):
        if data[at] >= 0x80:
            return False
    columns.numbers[line, CLIENT], columns.numbers[line, CLIENT_END] = values[row, BEGIN], values[row, END]
    return True


@kernel_in_place
def _question(scan: Any, columns: Any, line: Any, data: Any) -> Any:
    """Read name and type, of the record itself or of its first question; False if that is uncertain."""
    values, dns, asked = scan.table.values, scan.found[_IN_DNS], scan.found[_IN_DNS]
    row = dns[_QUERIES] if dns[_QUERIES] >= 0 else dns[_QUERY]
    if row >= 0:
        first = row + 1
        if values[row, KIND] != ARRAY or values[row, NEXT] == first or values[first, KIND] != OBJECT:
            return False
        asked = scan.found[_IN_QUESTION]
        if not members(scan.table, first, asked):
            return False
    if asked[_RRNAME] < 0 or asked[_RRTYPE] < 0:
        return False
    name, kind = values[asked[_RRNAME]], values[asked[_RRTYPE]]
    if kind[KIND] != TEXT or not _is_plain(data, kind):
        return False
    columns.numbers[line, TYPE], columns.numbers[line, TYPE_END] = kind[BEGIN], kind[END]
    if name[KIND] == TEXT:
        return keep_name(columns, line, literal_name(data, name[BEGIN], name[END], columns.name))
    if name[KIND] != ESCAPED:
        return False
    size = unescaped_text(data, name[BEGIN], name[END], columns.text)
    return size >= 0 and keep_name(columns, line, literal_name(columns.text, int64(0), size, columns.name))


@kernel_in_place
def _is_plain(data: Any, value: Any) -> Any:
    """Whether a string is of letters and digits of ASCII, one at least."""
    for at in range(value[BEGIN], value[END]):
        byte = int64(data[at])
        if not (0x30 <= byte <= 0x39 or 0x61 <= (byte | 0x20) <= 0x7A):
            return False
    return value[END] > value[BEGIN]


@kernel_in_place
def _pair(scan: Any, columns: Any, line: Any, data: Any) -> Any:
    """Read flow and id, which query and answer share, where there are both; False if they are uncertain."""
    values, numbers = scan.table.values, columns.numbers
    flow, dns = scan.found[_RECORD][_FLOW_ID], scan.found[_IN_DNS]
    ident = dns[_ID] if dns[_ID] >= 0 else dns[_TX_ID]
    if flow >= 0:
        is_plain, numbers[line, FLOW] = integer(data, values[flow])
        if not is_plain:
            return False
    if ident >= 0:
        is_plain, numbers[line, IDENT] = integer(data, values[ident])
        if not is_plain:
            return False
    numbers[line, PAIRED] = flow >= 0 and ident >= 0
    return True


@kernel_in_place
def _rcode(data: Any, value: Any) -> Any:
    """The number of a response code, -1 for one that is left to the line reader."""
    if _is_text(data, value, _NOERROR):
        return int64(0)
    if _is_text(data, value, _NXDOMAIN):
        return int64(3)
    if _is_text(data, value, _SERVFAIL):
        return int64(2)
    if _is_text(data, value, _REFUSED):
        return int64(5)
    if _is_text(data, value, _FORMERR):
        return int64(1)
    return int64(4) if _is_text(data, value, _NOTIMP) else int64(-1)


@kernel_in_place
def _note_kind(scan: Any, data: Any, value: Any, count: Any) -> Any:
    """Note a type of an answer where it is new; how many there are then, -1 if it is uncertain."""
    if value[KIND] != TEXT or not _is_plain(data, value):
        return int64(-1)
    begin, size = value[BEGIN], value[END] - value[BEGIN]
    for known in range(count):
        first = scan.kinds[known, 0]
        if scan.kinds[known, 1] - first == size:
            same = True
            for place in range(size):
                if data[begin + place] != data[first + place]:
                    same = False
            if same:
                return count
    if count == _KINDS_MAX:
        return int64(-1)
    scan.kinds[count, 0], scan.kinds[count, 1] = begin, begin + size
    return count + 1


@kernel_in_place
def _keep_kinds(scan: Any, columns: Any, line: Any, data: Any, count: Any) -> Any:
    """Write the types of an answer as "CNAME,A"; False where there is no room."""
    used, out = columns.sizes[1], columns.kinds
    to = used
    for known in range(count):
        begin, size = scan.kinds[known, 0], scan.kinds[known, 1] - scan.kinds[known, 0]
        if to + size + 1 > len(out) or to + size + 1 - used > _KINDS_BYTES:
            return False
        if known:
            out[to] = COMMA
            to += 1
        copy_bytes(out, to, data, begin, size)
        to += size
    columns.numbers[line, KINDS], columns.numbers[line, KINDS_END] = used, to
    columns.sizes[1] = to
    return True


@kernel_in_place
def _answer(scan: Any, columns: Any, line: Any, data: Any) -> Any:
    """Read what is known of an answer; False if it is uncertain."""
    values, numbers, dns = scan.table.values, columns.numbers, scan.found[_IN_DNS]
    rcode, answers, rows, ttl_min, count = int64(UNKNOWN), dns[_ANSWERS], int64(0), int64(UNKNOWN), int64(0)
    if dns[_RCODE] >= 0:
        rcode = _rcode(data, values[dns[_RCODE]])
        if rcode < 0:
            return False
    if answers >= 0:
        if values[answers, KIND] != ARRAY:
            return False
        at, found = answers + 1, scan.found[_IN_ANSWER]
        while at < values[answers, NEXT]:
            if values[at, KIND] != OBJECT or not members(scan.table, at, found):
                return False
            rows += 1
            if found[_TTL] >= 0:
                is_plain, ttl = integer(data, values[found[_TTL]])
                if not is_plain:
                    return False
                ttl_min = ttl if ttl_min < 0 else min(ttl_min, ttl)
            if found[_RRTYPE] >= 0:
                count = _note_kind(scan, data, values[found[_RRTYPE]], count)
                if count < 0:
                    return False
            at = values[at, NEXT]
    numbers[line, RCODE], numbers[line, TTL_MIN] = rcode, ttl_min
    numbers[line, ANCOUNT] = rows if answers >= 0 or rcode > 0 else UNKNOWN
    return _keep_kinds(scan, columns, line, data, count)


@kernel_in_place
def _record(scan: Any, columns: Any, line: Any, data: Any, begin: Any, end: Any) -> Any:
    """Read the record data[begin:end]; ROW, PASSED, or UNREAD."""
    if not _is_dns(data, begin, end):
        return PASSED
    values, record, dns = scan.table.values, scan.found[_RECORD], scan.found[_IN_DNS]
    count = read_json(data, begin, end, scan.keys, scan.table)
    if count < 1 or values[0, KIND] != OBJECT or not members(scan.table, int64(0), record):
        return UNREAD
    if record[_DNS] < 0 or record[_TIMESTAMP] < 0 or values[record[_DNS], KIND] != OBJECT:
        return UNREAD
    if not members(scan.table, record[_DNS], dns) or not _time(columns, line, data, values[record[_TIMESTAMP]]):
        return UNREAD
    is_answer = False
    if dns[_DNS_TYPE] >= 0:
        kind = values[dns[_DNS_TYPE]]
        if kind[KIND] != TEXT:
            return UNREAD
        is_answer = _is_text(data, kind, _ANSWER) or _is_text(data, kind, _RESPONSE)
    numbers = columns.numbers
    numbers[line, IS_ANSWER] = is_answer
    numbers[line, RCODE], numbers[line, ANCOUNT], numbers[line, TTL_MIN] = UNKNOWN, UNKNOWN, UNKNOWN
    if not _client(scan, columns, line, data, is_answer) or not _pair(scan, columns, line, data):
        return UNREAD
    if is_answer and not _answer(scan, columns, line, data):
        return UNREAD
    return ROW if _question(scan, columns, line, data) else UNREAD


@kernel_in_place
def scan_eve(data: Any, starts: Any, columns: Any, scan: Any) -> None:
    """Read n lines of data (u8), the i-th data[starts[i] : starts[i + 1]] with its end, starts i64 (n + 1,)."""
    for line in range(len(starts) - 1):
        begin, end = starts[line], starts[line + 1]
        while end > begin and (data[end - 1] == 0x0A or data[end - 1] == 0x0D):
            end -= 1
        columns.codes[line] = _record(scan, columns, line, data, begin, end)
