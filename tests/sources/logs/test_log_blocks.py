"""Blocks of log lines: compiled code gives what the line reader gives, or leaves the line to it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agents.core.types import QueryBatch
from agents.dns.name import NAME_MAX, from_text, to_text, wire_of
from agents.dns.name_kernels import LABEL_MAX
from agents.sources import SPECS, pairs
from agents.sources.intake import BlockReader, LineReader
from agents.sources.logs.bulk import fields_kernels
from agents.sources.logs.bulk.held import HeldRows, in_order, joined_batches
from agents.sources.logs.bulk.lines import BlockLines
from agents.sources.logs.bulk.rows import read_rows
from agents.sources.logs.source import LogLines
from tests.support.log_lines import EVE, OTHER_EVENT, SAMPLES, T0, TUNNEL, eve

UNHURRIED = settings(deadline=None)
"""The first example loads the kernels."""
KINDS = {spec.name: spec for spec in SPECS}
NUMBERS = ("ts", "qtype", "qlen", "rcode", "ancount", "rlen", "ttl_min", "rtt_ms", "cached", "ans_hash", "ans_bytes")


def reader_of(kind: str, **options: object) -> LineReader:
    made = KINDS[kind].reader
    assert made is not None
    return made(options, float(T0))


def rows_of(batches: Sequence[QueryBatch | None]) -> list[tuple[object, ...]]:
    """All rows, in order."""
    found = []
    for batch in batches:
        if batch is not None:
            columns = [getattr(batch, name).tolist() for name in (*NUMBERS, "negative_ttl")]
            columns += [list(batch.client), list(batch.qname), list(batch.ans_types)]
            found += [tuple(None if one != one else one for one in row) for row in zip(*columns, strict=True)]
    return found


def read(log: LogLines, lines: Sequence[bytes], size: int) -> list[QueryBatch | None]:
    return [log.take(lines[at : at + size]) for at in range(0, len(lines), size)] + [log.rest()]


def assert_equal_rows(kind: str, lines: Sequence[bytes], size: int = 7, **options: object) -> list[tuple[object, ...]]:
    """Both ways give the same; the rows."""
    plain, block = LogLines(reader_of(kind, **options)), BlockLines(reader_of(kind, **options))  # type: ignore[arg-type]
    expected, found = rows_of(read(plain, lines, size)), rows_of(read(block, lines, size))
    assert found == expected
    told = [(log.at, log.queries, log.malformed, log.first_bad) for log in (plain, block)]
    assert told[0] == told[1]
    return found


def certain(kind: str, line: str, **options: object) -> bool:
    """Whether compiled code reads a line by itself."""
    reader = reader_of(kind, **options)
    assert isinstance(reader, BlockReader)
    return not len(read_rows([line.encode("utf-8", "surrogateescape")], reader.scan, reader.unix).unread)


def bind(
    qname: str = "a.example",
    time: str = "2026-01-05T00:00:00.250Z ",
    category: str = "queries: info: ",
    client: str = "@0x7f24aeafe098 192.0.2.7#53124",
    asked: str = " (a.example)",
    view: str = "",
    rest: str = "IN A +E(0)K (192.0.2.53)",
) -> str:
    return f"{time}{category}client {client}{asked}: {view}query: {qname} {rest}"


BIND_LINES = [
    bind(),
    bind(category=""),
    bind(category="queries: "),
    bind(category="info: "),
    bind(time="05-Jan-2026 01:02:03.004 "),
    bind(time="2026-01-05T00:00:00.250 "),
    bind(time="2028-02-29T23:59:59.999Z "),
    bind(time="2000-02-29T00:00:00.000Z "),
    bind(client="192.0.2.7#1"),
    bind(client="@0x0 2001:db8::7#53124", view="view inside: "),
    bind(client="fe80::1%eth0#1", asked=""),
    bind("\\000\\255\\046\\;\\$a\\\\b\\.c.example"),
    bind("."),
    bind("a.example."),
    bind(rest="CH TYPE65399 -SETDC (192.0.2.53)"),
    bind(rest="CLASS257 HTTPS +"),
]
"""Lines that compiled code is to read."""
ODD_BIND_LINES = [
    bind(time=""),
    bind(time="2026-02-29T00:00:00.250Z "),
    bind(time="2100-02-29T00:00:00.250Z "),
    bind(time="2026-01-05T00:00:60.250Z "),
    bind(time="05-Foo-2026 01:02:03.004 "),
    bind(time="1969-12-31T23:59:59.999Z "),
    bind(time="9999-12-31T23:59:59.999Z "),
    bind(time="2026-01-05T24:00:00.250Z "),
    bind(client="192.0.2.7#1/key host.example"),
    bind(client="192.0.2.777#1"),
    bind(client="@0xAB 192.0.2.7#1"),
    bind(view="view two words: "),
    bind(view="view : "),
    bind("a..example"),
    bind("\\256.example"),
    bind("\\12.example"),
    bind("x" * 64 + ".example"),
    bind(".".join(["x" * 63] * 4) + ".example"),
    bind("äöü.example"),
    bind(rest="IN NOTYPE + (192.0.2.53)"),
    bind(rest="IN A"),
    bind(asked=" (a.example"),
    "Jan  5 00:00:00 ns1 named[812]: " + bind(time="", category=""),
    "<30>1 2026-01-05T00:00:00Z ns1 named 812 - - " + bind(time="", category=""),
    bind()[:-30],
    "05-Jan-2026 01:02:03.004 general: info: zone example/IN: loaded serial 1",
    "",
]


@pytest.mark.parametrize("line", BIND_LINES)
def test_usual_lines_of_bind_are_read_by_compiled_code(line: str) -> None:
    assert certain("bind", line)
    assert len(assert_equal_rows("bind", [line.encode() + b"\r\n"])) == 1


@pytest.mark.parametrize("line", ODD_BIND_LINES)
def test_odd_lines_of_bind_are_left_to_the_line_reader(line: str) -> None:
    assert not certain("bind", line)
    assert_equal_rows("bind", [line.encode(), BIND_LINES[0].encode(), line.encode()])


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize("month", ["Mar", "Oct"])
def test_local_times_are_of_the_logs_zone_also_where_clocks_change(zone: str, month: str) -> None:
    lines = [
        bind(time=f"{day:02d}-{month}-2026 {hour:02d}:30:00.125 ") for day in (1, 8, 25, 29, 31) for hour in range(24)
    ]
    rows = assert_equal_rows("bind", [line.encode() for line in lines], 50, log_timezone=zone)
    assert len(rows) == len(lines)


PIECES = st.sampled_from(
    ["client ", "query: ", "queries: ", "info: ", "view ", ": ", " ", "#", "(", ")", "@0x", "\\", ".", "Z", "-", "A",
     "IN", "05-Jan-2026 ", "T", "0", "\n", "\x00", "ÿ", "\udcff", "/key "]
)  # fmt: skip


@UNHURRIED
@given(
    st.sampled_from(BIND_LINES + ODD_BIND_LINES),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 6), PIECES), max_size=4),
    st.sampled_from(["UTC", "Europe/Berlin"]),
)
def test_changed_lines_of_bind_are_read_alike(line: str, changes: list[tuple[int, int, str]], zone: str) -> None:
    for at, size, text in changes:
        at %= len(line) + 1
        line = line[:at] + text + line[at + size :]
    data = line.encode("utf-8", "surrogateescape")
    assert_equal_rows("bind", [BIND_LINES[0].encode(), data, BIND_LINES[4].encode()], log_timezone=zone)


@UNHURRIED
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6))
def test_any_name_comes_back_from_the_escapes_of_bind(labels: list[bytes]) -> None:
    wire = wire_of(labels)
    line = bind(to_text(wire))
    assert certain("bind", line) == (len(wire) <= 254)
    assert_equal_rows("bind", [line.encode()])


def dumped(record: object, **more: object) -> str:
    return json.dumps(record, **more)  # type: ignore[arg-type]


QUESTION = {"version": 3, "type": "request", "id": 9, "queries": [{"rrname": TUNNEL, "rrtype": "TXT"}]}
EVE_LINES = [
    *(line for version in EVE.values() for line in version),
    OTHER_EVENT,
    eve({**QUESTION, "queries": [{"rrname": "", "rrtype": "NS"}]}),
    eve({**QUESTION, "queries": [{"rrname": "a\\x00\\xFFb\\q..é.example.", "rrtype": "A"}, {"rrname": "b"}]}),
    eve({**QUESTION, "queries": [{"rrname": 'a\u0001\t"/\\b.example', "rrtype": "A"}]}).replace("/", "\\/"),
    eve({"type": "query", "tx_id": 3, "rrname": "a.example", "rrtype": "A"}),
    eve(QUESTION, "23:59:59", src_ip="2001:db8::7"),
    eve({"type": "response", "id": 9, "rcode": "NXDOMAIN", "rrname": "a.example", "rrtype": "A", "answers": []}),
    eve(QUESTION).replace('": ', '":'),
    eve(QUESTION, nested={"a": [1.5e-3, -0, [], {}, True, False, None, {"dns": {"x": "\\ud83d\\ude00"}}]}),
    eve(QUESTION).replace("+0000", "-0530"),
    eve(QUESTION).replace("+0000", "Z"),
    eve(
        {"type": "answer", "id": 9, "rcode": "REFUSED", "rrname": "a.example", "rrtype": "A"},
        src_port=5300,
        dest_port=9,
    ),
]
"""Records that compiled code is to read."""
ODD_EVE_LINES = [
    eve(QUESTION)[:-1],
    eve(QUESTION) + "x",
    "[" + eve(QUESTION) + "]",
    eve(QUESTION, flow_id=2.5),
    eve(QUESTION, flow_id=10**30),
    eve(QUESTION, flow_id=True),
    eve(QUESTION, src_ip="nobody"),
    eve(QUESTION, src_ip=7),
    eve(QUESTION, dest_port=53.0),
    eve(QUESTION, timestamp="2026-01-05 00:00:00"),
    eve(QUESTION, timestamp="2026-13-05T00:00:00.25+0000"),
    eve(QUESTION, timestamp=None),
    eve(QUESTION, deep=[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]),
    eve({**QUESTION, "type": 7}),
    eve({**QUESTION, "queries": []}),
    eve({**QUESTION, "queries": [7]}),
    eve({**QUESTION, "queries": [{"rrname": "x" * 64, "rrtype": "A"}]}),
    eve({**QUESTION, "queries": [{"rrname": "\ud83d\ude00.example", "rrtype": "A"}]}),
    eve({**QUESTION, "queries": [{"rrname": "a.example", "rrtype": "NO-TYPE"}]}),
    eve({**QUESTION, "queries": [{"rrname": "a.example", "rrtype": "*"}]}),
    eve({"type": "answer", "id": 9, "rcode": "BADVERS", "rrname": "a.example", "rrtype": "A"}),
    eve({"type": "answer", "id": 9, "rcode": "NOERROR", "rrname": "a.example", "rrtype": "A", "answers": [7]}),
    eve({"type": "answer", "id": 9, "rrname": "a.example", "rrtype": "A", "answers": [{"rrtype": "A", "ttl": -1}]}),
    eve({"type": "answer", "id": 9, "rcode": "NOERROR"}),
    eve(QUESTION).replace('"flow_id"', '"flow\\u005fid"'),
    eve(QUESTION).replace('"flow_id": 5', '"flow_id": 5, "flow_id": 6'),
    eve(QUESTION).replace('"flow_id": 5', '"flow_id": NaN'),
    eve(QUESTION).replace('"flow_id": 5', '"flow_id": 05'),
    eve(QUESTION).replace(TUNNEL, "a\tb"),
    eve(QUESTION).replace(TUNNEL, "a\x1fb"),
    eve(QUESTION).replace(TUNNEL, "\\u12"),
]


@pytest.mark.parametrize("line", EVE_LINES)
def test_usual_records_of_suricata_are_read_by_compiled_code(line: str) -> None:
    assert certain("suricata", line)
    assert_equal_rows("suricata", [line.encode() + b"\n"])


@pytest.mark.parametrize("line", ODD_EVE_LINES)
def test_odd_records_of_suricata_are_left_to_the_line_reader(line: str) -> None:
    assert not certain("suricata", line)
    assert_equal_rows("suricata", [line.encode(), EVE_LINES[0].encode(), line.encode()])


RECORD_PIECES = st.sampled_from(
    ['"', "\\", "{", "}", "[", "]", ",", ":", "\\u0000", "\\ud800", "\\u00e4", "ä", "\udcff", "0", "-", ".", "e5",
     "null", "true", '"event_type": "dns"', '"dns": ', '"id": ', " ", "\t", "\x01", "\\x41", "..", "9" * 20, "53"]
)  # fmt: skip


@UNHURRIED
@given(
    st.sampled_from(EVE_LINES + ODD_EVE_LINES),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 6), RECORD_PIECES), max_size=4),
)
def test_changed_records_of_suricata_are_read_alike(line: str, changes: list[tuple[int, int, str]]) -> None:
    for at, size, text in changes:
        at %= len(line) + 1
        line = line[:at] + text + line[at + size :]
    data = line.encode("utf-8", "surrogateescape")
    assert_equal_rows("suricata", [EVE_LINES[0].encode(), data, EVE_LINES[1].encode()])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@UNHURRIED
@given(st.text(max_size=40), VALUES, st.booleans())
@example("\ud800.example", None, True)
def test_any_name_beside_any_values_is_read_alike(name: str, value: object, ascii_only: bool) -> None:
    record = {**json.loads(eve({**QUESTION, "queries": [{"rrname": name, "rrtype": "A"}], "more": value})), "x": value}
    line = json.dumps(record, ensure_ascii=ascii_only)
    assert_equal_rows("suricata", [line.encode("utf-8", "surrogatepass")])


HALVES = st.tuples(
    st.integers(0, 12), st.integers(0, 3), st.booleans(), st.integers(0, 2), st.booleans()
)  # seconds, id, whether it is an answer, a name, whether the line is odd


@UNHURRIED
@given(st.lists(HALVES, max_size=40), st.integers(1, 9))
def test_queries_and_answers_of_both_readers_are_joined_alike(
    halves: list[tuple[int, int, bool, int, bool]], size: int
) -> None:
    lines = []
    for second, ident, is_answer, name, odd in halves:
        dns: dict[str, object] = {
            "type": "answer" if is_answer else "query",
            "id": ident,
            "rrname": f"n{name}.example",
            "rrtype": "A",
        }
        if is_answer:
            dns |= {"rcode": "NXDOMAIN", "answers": [{"rrtype": "TXT", "ttl": 5}] * name}
        flow = {"flow_id": 10**30} if odd and ident == 3 else {}
        line = eve(dns, f"00:00:{second:02d}.5", **flow)
        lines.append(line.replace('"type"', '"\\u0074ype"').encode() if odd else line.encode())
    assert_equal_rows("suricata", lines, size)


@pytest.mark.parametrize("kind", ["bind", "suricata"])
@UNHURRIED
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 7)), max_size=8), st.integers(0, 4000))
def test_damaged_logs_are_read_alike(kind: str, flips: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(SAMPLES[kind])
    for at, bit in flips:
        damaged[at % len(damaged)] ^= 1 << bit
    content = bytes(damaged[: len(damaged) - cut % len(damaged)])
    assert_equal_rows(kind, content.split(b"\n"))


def test_what_waits_for_its_answer_is_held_and_nothing_else() -> None:
    log = BlockLines(reader_of("suricata"))  # type: ignore[arg-type]
    asked, answered = EVE["v2"]
    late = asked.replace("00:00:00.25", "00:00:09.25").replace('"id": 9', '"id": 10')
    assert log.take([asked.encode()] * 3) is None
    batch = log.take([answered.encode(), late.encode()])
    assert batch is not None
    assert batch.rcode.tolist() == [0, -1, -1]
    assert batch.rtt_ms[0] == pytest.approx(20, abs=0.01)
    assert log._held.size <= 2
    assert len(log.rest() or ()) == 1
    assert log._held.size == 0


def test_late_answers_of_the_last_pairs_are_left_out_however_many_came_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "PAIRS_MAX", 4)
    joined = pairs.Pairs[str]()
    for number in range(6):
        joined.add(0.0, number, False, f"query {number}")
        joined.add(0.0, number, True, f"answer {number}")
    assert list(joined.ready()) == [(f"query {number}", f"answer {number}") for number in range(6)]
    for number in (5, 1):
        joined.add(0.0, number, True, "late")
    assert joined.empty


def test_lines_that_are_too_long_and_none_at_all() -> None:
    log = BlockLines(reader_of("bind"))  # type: ignore[arg-type]
    assert (log.take([]), log.take([None]), log.malformed, log.at) == (None, None, 1, 1)


def test_held_rows_come_back_from_several_blocks_in_any_order_of_answers() -> None:
    reader = reader_of("suricata")
    assert isinstance(reader, BlockReader)
    held = HeldRows()
    for number in range(4):
        asked = eve(
            {"type": "query", "id": number, "rrname": f"n{number}.example", "rrtype": "A"}, src_ip=f"192.0.2.{number}"
        )
        held.add(read_rows([asked.encode()], reader.scan, reader.unix).batch)
    found = held.take(np.array([0, 1, 3]), np.array([3, 1, 2]))
    assert list(found.qname) == [from_text(f"n{at}.example") for at in (0, 1, 3)]
    assert list(found.client) == ["192.0.2.0", "192.0.2.1", "192.0.2.3"]
    assert [math.isnan(rtt) for rtt in found.rtt_ms.tolist()] == [False, True, False]
    twice = in_order(joined_batches([found, found]))
    assert twice.client == [*found.client] * 2


@settings(deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=63), min_size=1, max_size=9))
@example([63, 63, 63, 61, 63, 1])
def test_a_name_too_long_is_given_up_before_its_room_ends(sizes: list[int]) -> None:
    text = ".".join("x" * size for size in sizes).encode()
    room = NAME_MAX + 2 + LABEL_MAX
    out = np.full(room + 8, 0xAA, np.uint8)
    size = fields_kernels.literal_name(np.frombuffer(text, np.uint8), np.int64(0), np.int64(len(text)), out)
    assert (out[room:] == 0xAA).all()
    wire = sum(size + 1 for size in sizes if size)
    assert size == (wire if wire <= NAME_MAX else -1)
