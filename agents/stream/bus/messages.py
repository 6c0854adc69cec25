"""Records as the body of a message: without the room that short names leave, a third of their size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import Names, gathered
from agents.core.errors import NameFormatError
from agents.core.npz import FormatError
from agents.core.types import FORWARDED, FROM_CACHE_STALE, QueryBatch
from agents.dns.name import NAME_MAX, split_names
from agents.stream.bus.options import MESSAGE_MAX
from agents.stream.bus.protocol import RUNS_KEPT_S
from agents.stream.record import RECORD, batch_of_records

RECORDS_MAX = 256
"""Records of one message, at most."""
assert RECORD.fields is not None
_NAME_AT = RECORD.fields["qname"][1]
_AFTER = _NAME_AT + NAME_MAX
_FIXED = RECORD.itemsize - NAME_MAX
_MARK = b"Q1"
_HEAD = len(_MARK) + 2
BODY_MAX = MESSAGE_MAX - 1024
"""Bytes of the longest body: headers take the rest."""
_SIZES = (-1, 65_535)
_POSSIBLE = {
    "ttl_min": (-1, 2**32 - 1),
    "ans_hash": (0, 2**63 - 1),
    "qlen": _SIZES,
    "ancount": _SIZES,
    "rlen": _SIZES,
    "ans_bytes": _SIZES,
    "negative_ttl": (-1, 2**31 - 1),
    "rcode": (-1, 4095),  # RFC 6891 section 6.1.3: 12 bits
    "cached": (FORWARDED, FROM_CACHE_STALE),
}
"""What a listener writes at least and at most; lengths and counts are those of DNS messages."""


def packed_records(records: NDArray[np.void]) -> bytes:
    """n records as bytes: a mark, the fixed fields of each, then the names one after the other."""
    rows = np.ascontiguousarray(records).view(np.uint8).reshape(len(records), RECORD.itemsize)
    fixed = np.concatenate([rows[:, :_NAME_AT], rows[:, _AFTER:]], axis=1)
    begins = np.arange(len(records)) * RECORD.itemsize + _NAME_AT
    names = gathered(rows.reshape(-1), begins, records["qname_size"].astype(np.int64))
    return b"".join([_MARK, len(records).to_bytes(2, "little"), fixed.tobytes(), names.data])


def bodies_of(records: NDArray[np.void]) -> list[bytes]:
    """Bodies of as few messages as will hold these records, in their order."""
    sizes = _FIXED + records["qname_size"].astype(np.int64)
    found, begin = list[bytes](), 0
    while begin < len(records):
        ends = np.cumsum(sizes[begin : begin + RECORDS_MAX])
        count = max(int(np.searchsorted(ends, BODY_MAX - _HEAD, "right")), 1)
        found.append(packed_records(records[begin : begin + count]))
        begin += count
    return found


def message_records(data: bytes) -> NDArray[np.void]:
    """The records again. Raises FormatError for bytes that `packed_records` did not write whole."""
    head = _HEAD
    count = int.from_bytes(data[len(_MARK) : head], "little")
    body = head + count * _FIXED
    if not data.startswith(_MARK) or len(data) < body:
        raise FormatError("cannot read a message of the bus: it was not written by this release")
    rows = np.zeros((count, RECORD.itemsize), np.uint8)
    fixed = np.frombuffer(data, np.uint8, count * _FIXED, head).reshape(count, _FIXED)
    rows[:, :_NAME_AT], rows[:, _AFTER:] = fixed[:, :_NAME_AT], fixed[:, _NAME_AT:]
    records = rows.reshape(-1).view(RECORD)
    sizes = records["qname_size"].astype(np.int64)
    if sizes.sum() != len(data) - body or (count and sizes.max() > NAME_MAX):
        raise FormatError("cannot read a message of the bus: it is cut off")
    ends = np.cumsum(sizes)
    places = np.arange(len(data) - body) + np.repeat(
        np.arange(count) * RECORD.itemsize + _NAME_AT - (ends - sizes), sizes
    )
    rows.reshape(-1)[places] = np.frombuffer(data, np.uint8, offset=body)
    return records


def heard_records(data: bytes, now: float) -> tuple[NDArray[np.void], QueryBatch]:
    """The records of a message that anybody may have sent, and their columns. now: Unix seconds; times that lie ahead
    count as now, and those before RUNS_KEPT_S are refused: each day has tables of its own.

    Raises FormatError for what no listener writes: judging takes it for granted that names are whole and numbers
    possible, and a process that ends by a message would read it again.
    """
    records = message_records(data)
    for column, (least, most) in _POSSIBLE.items():
        values = records[column]
        if len(values) and (values.min() < least or values.max() > most):
            raise FormatError(f"cannot read a message of the bus: an impossible {column}")
    lately = (records["ts"] > now - RUNS_KEPT_S) & (records["ts"] < np.inf)
    if not lately.all() or np.isinf(records["rtt_ms"]).any():
        raise FormatError("cannot read a message of the bus: an impossible time")
    records["ts"] = np.minimum(records["ts"], now)  # a clock that is ahead would end windows of others
    batch = batch_of_records(records)
    assert isinstance(batch.qname, Names)
    try:
        split_names(batch.qname)
    except NameFormatError as error:
        raise FormatError(f"cannot read a message of the bus: {error}") from None
    return records, batch
