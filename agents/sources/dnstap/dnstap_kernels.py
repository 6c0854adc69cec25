"""Frames of dnstap and of PowerDNS, walked in bulk: each frame is a query or an answer of a client, or another message.

dnstap.proto of dnstap.info has the numbers of dnstap's fields and the README of the Frame Streams library its framing;
dnsmessage.proto of PowerDNS those of its messages, each behind two bytes with its length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.core.types import TIME_MAX, UNKNOWN
from agents.dns import message_kernels as facts
from agents.dns.message import ANSWER_TYPES_MAX, HEADER_SIZE, TTL_MAX
from agents.dns.message_kernels import copy_bytes, int64, question_end, u16
from agents.dns.name import NAME_MAX
from agents.dns.name_kernels import LABEL_MAX
from agents.sources.capture.frame_kernels import u32
from agents.sources.dnstap.merging_kernels import (
    AT_ANSWERED,
    AT_ASKED,
    FREE,
    IDENT,
    IS_ANSWER,
    NAME,
    NAME_END,
    PORT,
    QTYPE,
    SIZE,
    WIRE,
    WIRE_END,
    Exchange,
    Merger,
    new_exchange,
    take_half,
)
from agents.sources.dnstap.protobuf_kernels import (
    BYTES,
    FIXED32,
    VARINT,
    Fields,
    new_fields,
    read_field,
    schema,
    walk,
)

FRAME_STREAMS, POWERDNS = range(2)
"""Framings."""
DNSTAP_FRAME_MAX = 1 << 18
"""Longest frame in bytes: two messages of 65,535 bytes, and what stands beside them, are shorter."""
CONTROL_FRAME_MAX = 512
"""Longest control frame, as of the Frame Streams library (FSTRM_CONTROL_FRAME_LENGTH_MAX)."""

# Fields, by name as in the .proto files.

_IDENTITY, _MESSAGE = 1, 14
_DNSTAP = schema({_IDENTITY: BYTES, _MESSAGE: BYTES})
_TYPE, _QUERY_ADDRESS, _QUERY_PORT = 1, 4, 6
_QUERY_SEC, _QUERY_NSEC, _QUERY_MESSAGE = 8, 9, 10
_RESPONSE_SEC, _RESPONSE_NSEC, _RESPONSE_MESSAGE = 12, 13, 14
_DNSTAP_MESSAGE = schema(
    {
        _TYPE: VARINT,
        _QUERY_ADDRESS: BYTES,
        _QUERY_PORT: VARINT,
        _QUERY_SEC: VARINT,
        _QUERY_NSEC: FIXED32,
        _QUERY_MESSAGE: BYTES,
        _RESPONSE_SEC: VARINT,
        _RESPONSE_NSEC: FIXED32,
        _RESPONSE_MESSAGE: BYTES,
    }
)
_CLIENT_QUERY, _CLIENT_RESPONSE = 5, 6
_FROM, _IN_BYTES, _TIME_SEC, _TIME_USEC, _ID, _QUESTION, _RESPONSE, _FROM_PORT = 6, 8, 9, 10, 11, 12, 13, 20
_PB_MESSAGE = schema(
    {
        _TYPE: VARINT,
        _FROM: BYTES,
        _IN_BYTES: VARINT,
        _TIME_SEC: VARINT,
        _TIME_USEC: VARINT,
        _ID: VARINT,
        _QUESTION: BYTES,
        _RESPONSE: BYTES,
        _FROM_PORT: VARINT,
    }
)
_DNS_QUERY, _DNS_RESPONSE = 1, 2
_QNAME, _QTYPE = 1, 2
_PB_QUESTION = schema({_QNAME: BYTES, _QTYPE: VARINT})
_RCODE, _RRS, _ASKED_SEC, _ASKED_USEC = 1, 2, 5, 6
_PB_RESPONSE = schema({_RCODE: VARINT, _ASKED_SEC: VARINT, _ASKED_USEC: VARINT})
_RR_TYPE, _RR_TTL = 2, 4
_PB_RR = schema({_RR_TYPE: VARINT, _RR_TTL: VARINT})

OTHER, CLIENTS, BAD_FIELDS, NO_CLIENT, BAD_ADDRESS, BAD_QUESTION, BAD_TIME = range(7)
"""What a frame is: another message, one of a client, or damaged, and how."""
DAMAGES = {
    BAD_FIELDS: "a field is cut off or of an unknown kind",
    NO_CLIENT: "a message of a client has no address or no DNS in it",
    BAD_ADDRESS: "an address has neither 4 nor 16 bytes",
    BAD_QUESTION: "a message has no whole question",
    BAD_TIME: "it has no time, or one after the year 9999",
}
"""The words for damaged frames."""

MORE, CONTROL, HUGE, FULL, _DATA = range(5)
"""Reasons to stop: no whole frame is left, there is a control frame, a frame claims an impossible size, or no
row is free."""
AT, FRAME, FRAME_END, CLAIMED, FRAMES, OTHERS, DAMAGED, FIRST_DAMAGED, DAMAGE = range(9)
"""State of a scan: where it goes on; the control frame; a size that was claimed; counts of frames, of those with other
messages, of damaged ones; number and kind of the first damaged one."""


class Scan(NamedTuple):
    """Place and counts of one stream of frames. merger and exchange: of several streams together."""

    merger: Merger
    exchange: Exchange
    fields: Fields
    inner: Fields
    name: NDArray[np.uint8]  # scratch: a name in wire form
    numbers: NDArray[np.int64]  # AT …


def new_scan(merger: Merger) -> Scan:
    """A stream at its beginning."""
    room = np.zeros(NAME_MAX + 2 + LABEL_MAX, np.uint8)
    return Scan(merger, new_exchange(), new_fields(), new_fields(), room, np.zeros(9, np.int64))


@kernel_in_place
def _address(data: Any, at: Any, end: Any, client: Any) -> Any:
    """Copy an address of 4 or 16 bytes into 16, an IPv4 one mapped; False for another."""
    size = end - at
    if size != 4 and size != 16:
        return False
    for place in range(16 - size):
        client[place] = 0 if place < 10 else 0xFF
    copy_bytes(client, 16 - size, data, at, size)
    return True


@kernel_in_place
def _time(fields: Any, seconds: Any, fraction: Any, unit: Any) -> Any:
    """Unix seconds, NaN where the message has none, infinite for one that is none."""
    if not fields.stops[seconds]:
        return np.nan
    whole = fields.values[seconds]
    if whole < 0 or whole > TIME_MAX:
        return np.inf
    part = fields.values[fraction] if fields.stops[fraction] else 0
    return whole + part * unit if 0 <= part * unit < 1 else np.inf


@kernel_in_place
def read_dnstap(scan: Any, data: Any, at: Any, end: Any) -> Any:
    """Read the dnstap frame data[at:end] into the exchange; what it is."""
    fields, found, times = scan.fields, scan.exchange.numbers, scan.exchange.times
    if not walk(data, at, end, _DNSTAP, fields):
        return BAD_FIELDS
    if not fields.stops[_MESSAGE]:
        return OTHER
    if not walk(data, fields.values[_MESSAGE], fields.stops[_MESSAGE], _DNSTAP_MESSAGE, fields):
        return BAD_FIELDS
    values, stops = fields.values, fields.stops
    kind = values[_TYPE] if stops[_TYPE] else 0
    if kind != _CLIENT_QUERY and kind != _CLIENT_RESPONSE:
        return OTHER
    is_answer = kind == _CLIENT_RESPONSE
    message = _RESPONSE_MESSAGE if is_answer else _QUERY_MESSAGE
    if not stops[_QUERY_ADDRESS] or not stops[message]:
        return NO_CLIENT
    wire, wire_end = values[message], stops[message]
    if not _address(data, values[_QUERY_ADDRESS], stops[_QUERY_ADDRESS], scan.exchange.client):
        return BAD_ADDRESS
    question = question_end(data, wire, wire_end)
    if not question:
        return BAD_QUESTION
    found[IS_ANSWER], found[PORT] = is_answer, values[_QUERY_PORT] if stops[_QUERY_PORT] else 0
    found[IDENT], found[NAME], found[NAME_END] = u16(data, wire), wire + HEADER_SIZE, question - 5
    found[QTYPE], found[SIZE], found[WIRE], found[WIRE_END] = u16(data, question - 4), wire_end - wire, wire, wire_end
    times[AT_ASKED] = _time(fields, _QUERY_SEC, _QUERY_NSEC, 1e-9)
    times[AT_ANSWERED] = _time(fields, _RESPONSE_SEC, _RESPONSE_NSEC, 1e-9) if is_answer else np.nan
    return CLIENTS


@kernel_in_place
def _digit(data: Any, at: Any, end: Any) -> Any:
    """The decimal digit at an offset, -1 for something else."""
    return int64(data[at]) - 0x30 if at < end and 0x30 <= data[at] <= 0x39 else int64(-1)


@kernel_in_place
def wire_name(data: Any, at: Any, end: Any, out: Any) -> Any:
    """Write a name in presentation form (RFC 1035 section 5.1) to `out` in wire form, without the root's byte.

    Returns its size, or -1 if it is none. out: two bytes and a label longer than a name.
    """
    if at == end or (end - at == 1 and data[at] == 0x2E):
        return int64(0) if at < end else int64(-1)
    head, to = int64(0), int64(1)
    while at < end:
        byte = int64(data[at])
        at += 1
        if byte == 0x2E:
            if to - head - 1 == 0:
                return int64(-1)
            out[head] = to - head - 1
            head, to = to, to + 1
        else:
            if byte == 0x5C:
                if at >= end:
                    return int64(-1)
                hundreds, tens, ones = _digit(data, at, end), _digit(data, at + 1, end), _digit(data, at + 2, end)
                byte = int64(data[at])
                if hundreds >= 0:
                    byte = hundreds * 100 + tens * 10 + ones
                    if tens < 0 or ones < 0 or byte > 255:
                        return int64(-1)
                    at += 2
                at += 1
            out[to] = byte
            to += 1
        if to - head - 1 > LABEL_MAX or head > NAME_MAX:
            return int64(-1)
    if to - head > 1:  # no dot at its end
        out[head] = to - head - 1
        head = to
    return head if head <= NAME_MAX else int64(-1)


@kernel_in_place
def _records(scan: Any, data: Any, at: Any, end: Any) -> Any:
    """Read types and TTLs of a response's records into the facts; False if one is damaged."""
    kept, fields, one = scan.merger.facts, scan.fields, scan.inner.one
    kinds = int64(0)
    while at < end:
        at = read_field(data, at, end, one)
        if at < 0:
            return False
        if one[0] != _RRS or one[1] != BYTES:
            continue
        if not walk(data, one[2], one[3], _PB_RR, fields):
            return False
        ttl = fields.values[_RR_TTL] if fields.stops[_RR_TTL] else 0
        ttl = ttl if 0 <= ttl <= TTL_MAX else 0
        if kept[facts.TTL_MIN] < 0 or ttl < kept[facts.TTL_MIN]:
            kept[facts.TTL_MIN] = ttl
        kind = fields.values[_RR_TYPE] & 0xFFFF if fields.stops[_RR_TYPE] else 0
        is_new = kind != 0
        for place in range(kinds):
            if kept[facts.TYPES + place] == kind:
                is_new = False
        if is_new and kinds < ANSWER_TYPES_MAX:
            kept[facts.TYPES + kinds] = kind
            kinds += 1
    return True


@kernel_in_place
def _response(scan: Any, data: Any, begin: Any, end: Any) -> Any:
    """Read a response's part into facts and times; False if it is damaged.

    A server writes the records of some types alone, so neither their number nor their data is known.
    """
    kept, fields = scan.merger.facts, scan.inner
    for place in range(facts.KEY):
        kept[place] = 0
    kept[facts.RCODE] = kept[facts.ANCOUNT] = kept[facts.TTL_MIN] = UNKNOWN
    kept[facts.ANS_BYTES] = kept[facts.NEGATIVE_TTL] = UNKNOWN
    if end == 0:
        return True
    if not walk(data, begin, end, _PB_RESPONSE, fields):
        return False
    if fields.stops[_RCODE] and 0 <= fields.values[_RCODE] < 1 << 12:  # 65536: the server could not be reached
        kept[facts.RCODE] = fields.values[_RCODE]
    scan.exchange.times[AT_ASKED] = _time(fields, _ASKED_SEC, _ASKED_USEC, 1e-6)
    return _records(scan, data, begin, end)


@kernel_in_place
def read_powerdns(scan: Any, data: Any, at: Any, end: Any) -> Any:
    """Read the PBDNSMessage data[at:end] into the exchange; what it is. The name is in `scan.name`."""
    fields, found, times = scan.fields, scan.exchange.numbers, scan.exchange.times
    if not walk(data, at, end, _PB_MESSAGE, fields):
        return BAD_FIELDS
    values, stops = fields.values, fields.stops
    kind = values[_TYPE] if stops[_TYPE] else 0
    if kind != _DNS_QUERY and kind != _DNS_RESPONSE:
        return OTHER
    is_answer = kind == _DNS_RESPONSE
    if not stops[_FROM] or not stops[_QUESTION]:
        return NO_CLIENT
    if not _address(data, values[_FROM], stops[_FROM], scan.exchange.client):
        return BAD_ADDRESS
    found[IS_ANSWER], found[PORT] = is_answer, values[_FROM_PORT] if stops[_FROM_PORT] else 0
    found[IDENT] = values[_ID] & 0xFFFF if stops[_ID] else 0
    size = values[_IN_BYTES] if stops[_IN_BYTES] else UNKNOWN
    found[SIZE], found[WIRE_END] = size if 0 < size <= 0xFFFF else UNKNOWN, 0
    ts = _time(fields, _TIME_SEC, _TIME_USEC, 1e-6)
    times[AT_ASKED], times[AT_ANSWERED] = np.nan if is_answer else ts, ts if is_answer else np.nan
    question, question_stop = values[_QUESTION], stops[_QUESTION]
    if is_answer and not _response(scan, data, values[_RESPONSE], stops[_RESPONSE]):
        return BAD_FIELDS
    if not walk(data, question, question_stop, _PB_QUESTION, fields):
        return BAD_FIELDS
    size = wire_name(data, values[_QNAME], stops[_QNAME], scan.name) if stops[_QNAME] else int64(-1)
    if size < 0 or not stops[_QTYPE]:
        return BAD_QUESTION
    found[NAME], found[NAME_END], found[QTYPE] = 0, size, values[_QTYPE] & 0xFFFF
    return CLIENTS


@kernel_in_place
def _note(scan: Any, kind: Any) -> None:
    """Count a frame that is no message of a client."""
    numbers = scan.numbers
    if kind == OTHER:
        numbers[OTHERS] += 1
        return
    numbers[DAMAGED] += 1
    if numbers[DAMAGED] == 1:
        numbers[FIRST_DAMAGED], numbers[DAMAGE] = numbers[FRAMES], kind


@kernel_in_place
def _frame(scan: Any, data: Any, end: Any, framing: Any) -> Any:
    """Find the next frame: FRAME … FRAME_END, and AT behind it. CLAIMED is its size. _DATA, or a reason to stop."""
    numbers = scan.numbers
    at, head = numbers[AT], 4 if framing == FRAME_STREAMS else 2
    if at + head > end:
        return MORE
    size = u32(data, at, True) if framing == FRAME_STREAMS else u16(data, at)
    most, kind = DNSTAP_FRAME_MAX, _DATA
    if size == 0 and framing == FRAME_STREAMS:
        if at + 8 > end:
            return MORE
        head, size, most, kind = 8, u32(data, at + 4, True), CONTROL_FRAME_MAX, CONTROL
    numbers[CLAIMED] = size
    if size > most:
        return HUGE
    if at + head + size > end:
        return MORE
    numbers[FRAME], numbers[FRAME_END] = at + head, at + head + size
    numbers[AT] = numbers[FRAME_END]
    return kind


@kernel_in_place
def scan_frames(scan: Any, data: Any, end: Any, framing: Any, sender: Any, arrived: Any, hold: Any) -> Any:
    """Go on through data[:end] (u8) from AT, and take each message of a client; the reason to stop.

    framing: FRAME_STREAMS or POWERDNS. sender: its number below SENDERS. arrived, hold: see merging_kernels.take_half.
    """
    numbers, times = scan.numbers, scan.exchange.times
    while scan.merger.numbers[FREE]:
        stopped = _frame(scan, data, end, framing)
        if stopped != _DATA:
            return stopped
        numbers[FRAMES] += 1
        begin, stop = numbers[FRAME], numbers[FRAME_END]
        if framing == FRAME_STREAMS:
            kind = read_dnstap(scan, data, begin, stop)
        else:
            kind = read_powerdns(scan, data, begin, stop)
        if kind == CLIENTS:
            timeless = times[AT_ASKED] != times[AT_ASKED] and times[AT_ANSWERED] != times[AT_ANSWERED]
            if times[AT_ASKED] == np.inf or times[AT_ANSWERED] == np.inf or (timeless and arrived != arrived):
                kind = BAD_TIME
        if kind != CLIENTS:
            _note(scan, kind)
        elif framing == FRAME_STREAMS:
            take_half(scan.merger, scan.exchange, data, data, sender, arrived, hold)
        else:
            take_half(scan.merger, scan.exchange, scan.name, data, sender, arrived, hold)
    return FULL
