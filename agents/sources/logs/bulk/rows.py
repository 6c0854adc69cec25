"""What compiled code read of some lines, as columns."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import hash_pieces
from agents.core.columns import Coded, coded, distinct_rows, gathered
from agents.core.errors import AgentsError
from agents.core.types import UNKNOWN, QueryBatch
from agents.sources.logs.bulk.fields_kernels import (
    ANCOUNT,
    CLIENT,
    CLIENT_END,
    FLOW,
    IDENT,
    IS_ANSWER,
    KINDS,
    KINDS_END,
    LOCAL,
    NAME,
    NAME_END,
    PAIRED,
    RCODE,
    ROW,
    SECOND,
    TIMED,
    TTL_MIN,
    TYPE,
    TYPE_END,
    UNREAD,
    LineColumns,
    new_line_columns,
)
from agents.sources.logs.source import client_address, type_of

_TEXT_KEY = np.uint64(secrets.randbits(64)), np.uint64(secrets.randbits(64))
"""Key of the texts' hashes: without it, an attacker cannot make two collide."""


class LineRows(NamedTuple):
    """Queries and answers of some lines. batch: a row each, in the order of the lines; lines: their numbers.

    unread: lines that the line reader is to read. pairs, answers: as in intake.Observed, None where no row has a pair.
    """

    batch: QueryBatch
    lines: NDArray[np.int64]
    unread: NDArray[np.int64]
    pairs: list[Any] | None
    answers: list[bool]


def read_rows(lines: Sequence[bytes], scan: Callable[[Any, Any, Any], None], unix: Callable[[int], float]) -> LineRows:
    """Read lines. scan, unix: see intake.BlockReader."""
    data = b"".join(lines)
    starts = np.zeros(len(lines) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)), out=starts[1:])
    columns, text = new_line_columns(len(lines), len(data)), np.frombuffer(data, np.uint8)
    columns.numbers[:, [RCODE, ANCOUNT, TTL_MIN]] = UNKNOWN
    scan(text, starts, columns)
    rows = np.flatnonzero(columns.codes == ROW)
    numbers = np.ascontiguousarray(columns.numbers[rows].T)  # of one layout, however many rows there are
    clients = _distinct(text, data, numbers, CLIENT, CLIENT_END, _address)
    qtypes = _distinct(text, data, numbers, TYPE, TYPE_END, _number)
    ts = _times(numbers, columns.fractions[rows], unix)
    bad = _bad_rows(clients) | _bad_rows(qtypes) | ~(ts >= 0)
    if bad.any():  # the line reader says what is wrong
        columns.codes[rows[bad]] = UNREAD
        rows, numbers, ts = rows[~bad], np.ascontiguousarray(numbers[:, ~bad]), ts[~bad]
        clients, qtypes = (Coded(one.codes[~bad], one.values) for one in (clients, qtypes))
    batch = _batch(columns, numbers, ts, clients, qtypes)
    pairs, answers = _pairs(numbers), (numbers[IS_ANSWER] > 0).tolist()
    return LineRows(batch, rows, np.flatnonzero(columns.codes == UNREAD), pairs, answers)


def _batch(
    columns: LineColumns, numbers: NDArray[np.int64], ts: NDArray[np.float64], clients: Coded, qtypes: Coded
) -> QueryBatch:
    count = len(ts)
    numbered = np.array([int(number or 0) for number in qtypes.values], np.uint16)
    return QueryBatch(
        ts=ts,
        client=clients,
        qname=gathered(columns.wires, numbers[NAME], numbers[NAME_END] - numbers[NAME]),
        qtype=numbered[qtypes.codes],
        qlen=np.full(count, UNKNOWN, np.int32),
        rcode=numbers[RCODE].astype(np.int16),
        ancount=numbers[ANCOUNT].astype(np.int32),
        rlen=np.full(count, UNKNOWN, np.int32),
        ttl_min=numbers[TTL_MIN].copy(),
        rtt_ms=np.full(count, math.nan, np.float32),
        ans_types=_distinct(columns.kinds, columns.kinds, numbers, KINDS, KINDS_END, str),
    )


def _address(text: str) -> str:
    """The address in its usual form, "" for none."""
    try:
        return client_address(text)
    except ValueError:
        return ""


def _number(text: str) -> str:
    """The type's number in digits, "" for none."""
    try:
        return str(type_of(text))
    except AgentsError:
        return ""


def _distinct(
    array: NDArray[np.uint8],
    data: Any,
    numbers: NDArray[np.int64],
    begin: int,
    end: int,
    made: Callable[[str], str],
) -> Coded:
    """A column of pieces of a buffer as texts; each different one is made once of its ASCII."""
    begins, sizes, keys = numbers[begin], numbers[end] - numbers[begin], np.empty(numbers.shape[1], np.uint64)
    hash_pieces(array, begins, sizes, *_TEXT_KEY, keys)
    codes, firsts = distinct_rows(keys)
    pieces = zip(begins[firsts].tolist(), (begins + sizes)[firsts].tolist(), strict=True)
    texts = coded([made(bytes(data[first:last]).decode("ascii")) for first, last in pieces])
    return Coded(texts.codes[codes], texts.values)


def _bad_rows(column: Coded) -> NDArray[np.bool_]:
    wrong = np.array([not text for text in column.values], np.bool_)
    return wrong[column.codes] if wrong.any() else np.zeros(len(column.codes), np.bool_)


def _times(
    numbers: NDArray[np.int64], fractions: NDArray[np.float64], unix: Callable[[int], float]
) -> NDArray[np.float64]:
    """Unix seconds."""
    seconds = numbers[SECOND].astype(np.float64)
    local = np.flatnonzero(numbers[TIMED] == LOCAL)
    if len(local):
        own, places = np.unique(numbers[SECOND, local], return_inverse=True)
        seconds[local] = np.array([unix(second) for second in own.tolist()])[places]
    times: NDArray[np.float64] = seconds + fractions
    return times


def _pairs(numbers: NDArray[np.int64]) -> list[Any] | None:
    """Flow and id of each row, None for one without; None as a whole where no row has one."""
    paired = numbers[PAIRED] > 0
    if not paired.any():
        return None
    found: list[Any] = list(zip(numbers[FLOW].tolist(), numbers[IDENT].tolist(), strict=True))
    if not paired.all():
        found = [pair if has else None for pair, has in zip(found, paired.tolist(), strict=True)]
    return found
