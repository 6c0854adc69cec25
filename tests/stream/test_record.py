import ipaddress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core import column_kernels, columns
from agents.core.columns import Coded, Names, coded, packed
from agents.stream import record as records
from agents.stream.record import RECORD, batch_of_records, client_bytes, client_text
from tests.support.interpreted import interpreted


@given(st.lists(st.binary(max_size=20)))
def test_packed_names_are_the_names(names: list[bytes]) -> None:
    column = packed(names)
    assert list(column) == names == [column[i] for i in range(len(names))]
    assert column == names
    assert packed(column) is column
    assert column[1:] == names[1:]


@given(st.lists(st.text(max_size=3)))
def test_coded_texts_are_the_texts(texts: list[str]) -> None:
    column = coded(texts)
    assert list(column) == texts == [column[i] for i in range(len(texts))]
    assert len(column.values) == len(set(texts))
    assert coded(column) is column
    assert column[1:] == texts[1:]


def test_columns_differ_where_a_row_differs() -> None:
    assert packed([b"a", b"b"]) != [b"a", b"c"]
    assert coded(["a"]) != ["a", "a"]
    with pytest.raises(IndexError):
        packed([b"a"])[1]


@given(st.ip_addresses())
def test_client_addresses_come_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    text = str(address)
    expected = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped else address
    assert client_text(client_bytes(text)) == str(expected)


def test_records_become_a_batch() -> None:
    made = np.zeros(2, RECORD)
    for record, (client, name, types) in zip(
        made, [("192.0.2.1", b"\1a\3com", (5, 1)), ("2001:db8::1", b"", ())], strict=True
    ):
        record["client"] = np.frombuffer(client_bytes(client), np.uint8)
        record["qname_size"] = len(name)
        record["qname"][: len(name)] = np.frombuffer(name, np.uint8)
        record["ans_types"][: len(types)] = types
    made["ts"], made["ttl_min"], made["rcode"] = [1.5, 2.5], -1, 3
    batch = batch_of_records(made)
    made["ts"] = 0
    assert isinstance(batch.qname, Names) and isinstance(batch.client, Coded)
    assert batch.client == ["192.0.2.1", "2001:db8::1"]
    assert batch.qname == [b"\1a\3com", b""]
    assert batch.ans_types == ["CNAME,A", ""]
    assert batch.ts.tolist() == [1.5, 2.5] and batch.rcode.tolist() == [3, 3] and batch.ttl_min.tolist() == [-1, -1]


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=255), st.sampled_from([(), (1,), (5, 1)]))))
def test_without_a_compiler_the_batch_is_the_same(rows: list[tuple[int, bytes, tuple[int, ...]]]) -> None:
    queries = np.zeros(len(rows), RECORD)
    for record, (client, name, types) in zip(queries, rows, strict=True):
        record["client"][15], record["qname_size"] = client, len(name)
        record["qname"] = 0xFF  # what lies behind a name is not part of it
        record["qname"][: len(name)] = np.frombuffer(name, np.uint8)
        record["ans_types"][: len(types)] = types
    found = batch_of_records(queries)
    with interpreted(records, columns, column_kernels):
        plain = batch_of_records(queries)
    assert found.qname == plain.qname == [name for _, name, _ in rows]
    assert found.client == plain.client and found.ans_types == plain.ans_types
    assert isinstance(found.client, Coded) and len(found.client.values) == len({client for client, _, _ in rows})
