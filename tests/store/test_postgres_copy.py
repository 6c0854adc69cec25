"""Rows for COPY, taken apart again by the letter of the format, compiled and not."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core import column_kernels
from agents.core import columns as columns_
from agents.core.columns import gathered, packed, pieces_of
from agents.dns.name import to_text
from agents.store import postgres, postgres_kernels
from agents.store.rows import COLUMNS, NUMBERS, query_columns
from tests.support.interpreted import interpreted
from tests.support.verdicts import WIDTH, verdicts
from tests.support.wire_names import wire_names

KINDS = {2: ">h", 4: ">i", 8: ">d"}


def fields_of(data: bytes) -> list[list[bytes]]:
    """Every row's fields."""
    assert data.startswith(b"PGCOPY\n\xff\r\n\0" + bytes(8))
    rows, at = [], 19
    while (count := struct.unpack_from("!h", data, at)[0]) >= 0:
        at += 2
        row = []
        for _ in range(count):
            (size,) = struct.unpack_from("!i", data, at)
            row.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        rows.append(row)
    assert data[at:] == b"\xff\xff"
    return rows


BATCHES = st.lists(wire_names(), max_size=12)


@settings(deadline=None)
@given(BATCHES, st.lists(st.text(max_size=9), min_size=12, max_size=12))
@pytest.mark.slow
def test_every_field_is_where_the_format_wants_it(names: list[bytes], clients: list[str]) -> None:
    batch = verdicts(names, client=clients[: len(names)], score=0.25, reasons=("odd", "ü"))
    columns = query_columns(batch, "id")
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in fields_of(postgres.rows_of([columns]))]
    expected: list[dict[str, Any]] = [
        dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns.lists(), strict=True)
    ]
    assert len(rows) == len(names)
    for at, (row, values) in enumerate(zip(rows, expected, strict=True)):
        assert values["qname"] == to_text(names[at])
        for name in COLUMNS[len(NUMBERS) + 1 :]:
            assert row[name].decode() == values[name]
        assert row["features"] == values["features"] == batch.features[at].astype("<f4").tobytes()
        assert len(row["features"]) == 4 * WIDTH
        assert struct.unpack(">d", row["ts"]) == (values["ts"],)
        assert struct.unpack(">f", row["score"]) == (values["score"],)
        assert struct.unpack(">q", row["ttl_min"]) == (-1,)
        for name in ("day", "qtype", "severity", "rcode", "ancount", "qlen", "rlen", "rnd"):
            assert struct.unpack(KINDS[len(row[name])], row[name]) == (values[name],)


@pytest.mark.slow
@settings(deadline=None)
@given(BATCHES)
def test_without_a_compiler_the_bytes_are_the_same(names: list[bytes]) -> None:
    columns = query_columns(verdicts(names, reasons=("odd",)), "id")
    compiled = postgres.rows_of([columns])
    with interpreted(postgres, postgres_kernels, columns_, column_kernels):
        assert postgres.rows_of([columns]) == compiled


@settings(deadline=None)
@given(st.lists(st.text(max_size=3), max_size=30))
def test_texts_get_numbers_in_the_order_they_come(texts: list[str]) -> None:
    column = pieces_of(packed([text.encode() for text in texts]))
    found = postgres.texts_of(column)
    assert list(found) == texts
    assert list(found.values) == list(dict.fromkeys(texts))
    with interpreted(postgres, postgres_kernels, columns_, column_kernels):
        plain = postgres.texts_of(column)
    assert (plain.codes.tolist(), plain.values) == (found.codes.tolist(), found.values)


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=300)), max_size=9))
def test_fields_from_the_server_are_taken_apart(rows: list[tuple[bytes, bytes]]) -> None:
    body = [struct.pack("!hi", 2, len(one)) + one + struct.pack("!i", len(two)) + two for one, two in rows]
    data = b"".join([postgres.HEADER, *body, postgres.END])
    one, two = postgres.columns_of(memoryview(data), len(rows), 2)
    assert list(zip(gathered(*one), gathered(*two), strict=True)) == rows
    assert list(two.take(np.arange(len(rows))[::-2])) == [row[1] for row in rows[::-2]]


@settings(deadline=None)
@given(st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_numbers_from_the_server_are_read(numbers: list[int]) -> None:
    column = pieces_of(packed([struct.pack("!i", number) for number in numbers]))
    assert postgres.numbers_of(column, ">i4").tolist() == numbers


def test_the_same_batch_has_the_same_random_numbers() -> None:
    batch = verdicts(["a.example"] * 100)
    first, again, other = (query_columns(batch, name).numbers[COLUMNS.index("rnd")] for name in ("one", "one", "two"))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
