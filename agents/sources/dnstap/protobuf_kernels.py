"""Messages of Protocol Buffers, walked in place: where each field lies, or which number it has.

The encoding is that of protobuf.dev/programming-guides/encoding. A field counts where it has the wire type that its
schema gives it; the last of several counts. Others are stepped over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import kernel_in_place
from agents.dns.message_kernels import int64

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types; 3 and 4 are groups, which no schema that is read here has."""
FIELDS = 32
"""Fields with smaller numbers are kept."""
_NUMBER_MAX = (1 << 29) - 1
"""The largest number of a field."""
_VARINT_BITS = 70
"""Bits in the ten bytes of the longest varint."""


def schema(fields: Mapping[int, int]) -> NDArray[np.int64]:
    """i64[FIELDS]: the wire type of each field that is kept, -1 for others."""
    found = np.full(FIELDS, -1)
    for number, kind in fields.items():
        found[number] = kind
    return found


class Fields(NamedTuple):
    """What a message has of its schema, by the fields' numbers.

    Of what is length-delimited a value is the first byte, and a stop the byte behind the last; of a number, the number
    and something above 0. The stop of a field that is not there is 0.
    """

    values: NDArray[np.int64]  # (FIELDS,)
    stops: NDArray[np.int64]  # (FIELDS,)
    one: NDArray[np.int64]  # (4,): the field at hand: number, wire type, value, stop


def new_fields() -> Fields:
    """Room for one message after another."""
    return Fields(np.zeros(FIELDS, np.int64), np.zeros(FIELDS, np.int64), np.zeros(4, np.int64))


@kernel_in_place
def varint(data: Any, at: Any, end: Any) -> Any:
    """The number at `at`, and the offset behind it; -1 for one that is cut off. One of 64 bits may be negative."""
    value, shift = int64(0), int64(0)
    while at < end and shift < _VARINT_BITS:
        byte = int64(data[at])
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    return value, int64(-1)


@kernel_in_place
def _little(data: Any, at: Any, size: Any) -> Any:
    """The number of `size` bytes at `at`, the least significant one first."""
    value = int64(0)
    for place in range(size):
        value |= int64(data[at + place]) << (8 * place)
    return value


@kernel_in_place
def read_field(data: Any, at: Any, end: Any, found: Any) -> Any:
    """Read one field into `found`: see Fields.one.

    Returns the offset of the next field, or -1 for a field that is cut off or of no known wire type.
    """
    key, at = varint(data, at, end)
    if at < 0 or key < 8 or key >> 3 > _NUMBER_MAX:
        return int64(-1)
    kind, found[0], found[1] = key & 7, key >> 3, key & 7
    if kind == VARINT:
        found[2], at = varint(data, at, end)
        found[3] = at
        return at
    if kind == BYTES:
        size, at = varint(data, at, end)
        if at < 0 or size < 0 or size > end - at:
            return int64(-1)
        found[2], found[3] = at, at + size
        return found[3]
    if kind != FIXED64 and kind != FIXED32:
        return int64(-1)
    size = int64(8 if kind == FIXED64 else 4)
    if size > end - at:
        return int64(-1)
    found[2], found[3] = _little(data, at, size), at + size
    return found[3]


@kernel_in_place
def walk(data: Any, at: Any, end: Any, kinds: Any, fields: Any) -> Any:
    """Read the message data[at:end] of the schema `kinds`; False if it is damaged."""
    values, stops, one = fields.values, fields.stops, fields.one
    for number in range(FIELDS):
        stops[number] = 0
    while at < end:
        at = read_field(data, at, end, one)
        if at < 0:
            return False
        number = one[0]
        if number < FIELDS and kinds[number] == one[1]:
            values[number], stops[number] = one[2], one[3]
    return True
