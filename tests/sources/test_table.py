"""Tables of queries: columns, unknown values, bad rows."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.core.errors import CaptureError
from agents.core.types import QueryBatch
from agents.dns import name
from agents.sources import open_source
from agents.sources.table import TsvSource

HEADER = "ts\tclient\tserver\tqtype\tqname\trcode\tancount\tqlen\trlen\trtt_ms\tans_types\tlabel"


def read(path: Path, text: str | bytes, size: int = 1000) -> tuple[list[QueryBatch], TsvSource]:
    file = path / "t.tsv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    source = TsvSource(file)
    return list(source.batches(size)), source


def test_all_columns(tmp_path: Path) -> None:
    text = f"{HEADER}\n1.25\t192.0.2.1\tx\tTXT\tWww.a\\.b\\255.example\t3\t2\t40\t90\t1.5\tCNAME,TXT\tbenign\n"
    (batch,), source = read(tmp_path, text)
    assert (batch.ts[0], batch.client[0], batch.qtype[0]) == (1.25, "192.0.2.1", 16)
    assert batch.qname[0] == b"\3Www\4a.b\xff\7example"
    assert [int(column[0]) for column in (batch.rcode, batch.ancount, batch.qlen, batch.rlen)] == [
        3,
        2,
        40,
        90,
    ]
    assert (batch.rtt_ms[0], batch.ans_types[0], batch.ttl_min[0]) == (1.5, "CNAME,TXT", -1)
    assert (source.malformed, source.warnings) == (0, [])


def test_only_the_needed_columns_in_another_order(tmp_path: Path) -> None:
    text = "qtype\tqname\tclient\tts\r\nTYPE65399\t.\t\t7\r\n28\ta.b.\t::1\t8\r\n"
    (batch,), source = read(tmp_path, text)
    assert list(batch.qtype) == [65399, 28]
    assert list(batch.qname) == [b"", b"\1a\1b"]
    assert list(batch.client) == ["", "::1"]
    assert (batch.rcode == -1).all()
    assert (batch.rlen == -1).all()
    assert np.isnan(batch.rtt_ms).all()
    assert source.malformed == 0


@pytest.mark.parametrize(
    "row",
    [
        "",  # no fields at all is only a blank line
        "1\tc\t\tA",
        "\tc\t\tA\ta.b\t\t\t\t\t\t\t",
        "x\tc\t\tA\ta.b\t\t\t\t\t\t\t",
        "nan\tc\t\tA\ta.b\t\t\t\t\t\t\t",
        "1\tc\t\t\ta.b\t\t\t\t\t\t\t",
        "1\tc\t\tNOSUCH\ta.b\t\t\t\t\t\t\t",
        "1\tc\t\tA\t\t\t\t\t\t\t\t",
        "1\tc\t\tA\ta..b\t\t\t\t\t\t\t",
        "1\tc\t\tA\t" + "a" * 64 + "\t\t\t\t\t\t\t",
        "1\tc\t\tA\ta\\999\t\t\t\t\t\t\t",
        "1\tc\t\tA\ta.b\t99999\t\t\t\t\t\t",
        "1\tc\t\tA\ta.b\t-7\t\t\t\t\t\t",
        "1\tc\t\tA\ta.b\t\t\t1.5\t\t\t\t",
        "1\tc\x1b[2J\t\tA\ta.b\t\t\t\t\t\t\t",
        "1\tc\t\tA\ta.b\t\t\t\t\tfast\t\t",
        "1\tc\t\tA\ta.b\t" + "\t" * 70_000,
    ],
)
def test_bad_rows_are_counted_and_left_out(tmp_path: Path, row: str) -> None:
    good = "1\tc\t\tA\ta.b\t\t\t\t\t\t\t"
    batches, source = read(tmp_path, f"{HEADER}\n{good}\n{row}\n{good}")
    assert [len(batch) for batch in batches] == [2]
    assert source.malformed == {"": 0}.get(row, -(-len(row) // 65_536))


def test_bytes_that_are_no_utf8_are_a_bad_row(tmp_path: Path) -> None:
    batches, source = read(tmp_path, b"ts\tclient\tqname\tqtype\n1\tc\t\xff\tA\n2\tc\tb\xc3\xa4r\tA\n")
    assert (batches[0].qname, source.malformed) == ([b"\4b\xc3\xa4r"], 1)


def test_a_table_without_times_is_spaced_and_told(tmp_path: Path) -> None:
    batches, source = read(tmp_path, "ts\tclient\tqname\tqtype\n" + "\tc\ta.b\tA\n" * 5, size=2)
    assert [ts for batch in batches for ts in batch.ts] == [0, 1, 2, 3, 4]
    assert source.warnings[0].endswith("no times; the rows were taken one second apart")


def test_rows_back_in_time_are_told(tmp_path: Path) -> None:
    _, source = read(tmp_path, "ts\tclient\tqname\tqtype\n" + "".join(f"{ts}\tc\ta\tA\n" for ts in (5, 4, 6, 1)), 2)
    assert source.warnings[0].endswith("2 rows are older than the row before")


def test_gzip_that_is_cut_off(tmp_path: Path) -> None:
    text = "ts\tclient\tqname\tqtype\n" + "".join(f"{n}\tc\tn{n * 7919 % 10007}.example\tA\n" for n in range(5000))
    content = gzip.compress(text.encode())
    batches, source = read(tmp_path, content[: len(content) // 2])
    assert 1000 < sum(map(len, batches)) < 4500
    assert "cut off" in source.warnings[0]


@pytest.mark.parametrize("text", ["", "ts\tclient\tqname\n", "a,b\n1,2\n", 'ts,client,qname,"qtype\n'])
def test_no_table(tmp_path: Path, text: str) -> None:
    with pytest.raises(CaptureError, match=r"^cannot read "):
        read(tmp_path, text)


WHEN = 1_767_571_200.25


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1767571200.25", WHEN),
        ("1767571200250", WHEN),
        ("1767571200250000", WHEN),
        ("1767571200250000000", WHEN),
        ("2026-01-05T00:00:00.25Z", WHEN),
        ("2026-01-05 00:00:00.250", WHEN),
        ("2026-01-05 00:00:00.250 UTC", WHEN),
        ("2026-01-05T01:30:00.250000+01:30", WHEN),
        ("2026-01-04T19:00:00.25-0500", WHEN),
        ("2026-01-05 01:00:00.25 +0100", WHEN),
        ("2026-01-05T00:00:00.250000000Z", WHEN),
        ("7", 7),
    ],
)
def test_times_as_people_have_them(tmp_path: Path, text: str, seconds: float) -> None:
    (batch,), source = read(tmp_path, f"ts\tclient\tqname\tqtype\n{text}\tc\ta.b\tA\n")
    assert batch.ts[0] == pytest.approx(seconds, abs=1e-6)
    assert source.warnings == []


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("192.0.2.1#53124", "192.0.2.1"),
        ("192.0.2.1:53124", "192.0.2.1"),
        ("[2001:db8::1]:53124", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1#53124", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::1", "::1"),
        ("laptop:5353", "laptop"),
        ("02:00:5e:00:53:01", "02:00:5e:00:53:01"),
        ("-", ""),
        ("", ""),
    ],
)
def test_a_client_is_its_address_without_a_port(tmp_path: Path, text: str, client: str) -> None:
    (batch,), _ = read(tmp_path, f"ts\tclient\tqname\tqtype\n1\t{text}\ta.b\tA\n")
    assert list(batch.client) == [client]


@pytest.mark.parametrize(("text", "rcode"), [("NXDOMAIN", 3), ("nxdomain", 3), ("3", 3), ("RCODE11", 11), ("-", -1)])
def test_response_codes_by_name_and_number(tmp_path: Path, text: str, rcode: int) -> None:
    (batch,), _ = read(tmp_path, f"ts\tclient\tqname\tqtype\trcode\trtt_ms\n1\tc\ta.b\tA\t{text}\t-\n")
    assert batch.rcode[0] == rcode
    assert np.isnan(batch.rtt_ms[0])


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_separators_quotes_capitals_and_encodings(tmp_path: Path, separator: str, encoding: str, quote: str) -> None:
    rows = [["TS", "Client", "QNAME", "QType"], ["1", "192.0.2.1", "b\u00e4r.example", "TXT"], ["2", "::1", "a.b", "A"]]
    text = "\r\n".join(separator.join(f"{quote}{field}{quote}" for field in row) for row in rows)
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    file = tmp_path / "t"
    file.write_bytes((mark + text).encode(encoding))
    (batch,) = open_source([file]).batches(9)
    assert list(batch.qname) == [b"\4b\xc3\xa4r\7example", b"\1a\1b"]
    assert (list(batch.client), list(batch.qtype)) == (["192.0.2.1", "::1"], [16, 1])


def test_the_first_bad_row_is_named_with_its_reason(tmp_path: Path) -> None:
    text = "ts\tclient\tqname\tqtype\n1\tc\ta.b\tA\n\n2\tc\ta.b\tNO\x1b[2JSUCH\n3\tc\ta.b\n"
    _, source = read(tmp_path, text)
    (warning,) = source.warnings
    assert warning.endswith(r"2 rows could not be read; the first: line 5: 3 fields, but the header line has 4")
    _, source = read(tmp_path, text.replace("3\tc\ta.b\n", ""))
    (warning,) = source.warnings
    assert r"1 row could not be read; the first: line 4: read record type 'NO\x1b[2JSUCH'" in warning


def test_a_table_without_a_good_row_is_an_error(tmp_path: Path) -> None:
    batches, source = read(tmp_path, "ts\tclient\tqname\tqtype\nyesterday\tc\ta.b\tA\n\tc\ta.b\tA\n")
    assert (batches, source.malformed, source.warnings) == ([], 2, [])
    assert source.errors == [f"cannot read {tmp_path / 't.tsv'}: no row can be read; line 2: 'yesterday' is no time"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200), st.sampled_from([",", ";", "\t"]), st.sampled_from(["utf-8", "utf-16"]))
def test_random_tables_of_any_layout_never_raise(tmp_path: Path, body: bytes, separator: str, encoding: str) -> None:
    header = separator.join(('"ts"', "client", "qname", "qtype")) + "\n"
    batches, source = read(tmp_path, header.encode(encoding) + body)
    assert sum(map(len, batches)) + source.malformed <= len(body) + 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=6))
def test_any_name_survives_its_presentation_form(tmp_path: Path, labels: list[bytes]) -> None:
    wire = name.wire_of(labels)
    batches, _ = read(tmp_path, f"ts\tclient\tqname\tqtype\n1\tc\t{name.to_text(wire)}\tA\n")
    assert batches[0].qname[0] == wire


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200))
def test_random_tables_never_raise(tmp_path: Path, body: bytes) -> None:
    lines = body.count(b"\n") + 1
    batches, source = read(tmp_path, b"ts\tclient\tqname\tqtype\n" + body)
    assert sum(map(len, batches)) + source.malformed <= lines
