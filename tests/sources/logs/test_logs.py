"""Query logs: what each kind keeps of real servers' odd names, what is unknown, what damage does."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import AgentsError, CaptureError
from agents.core.protocols import Source
from agents.core.types import FROM_CACHE, QueryBatch
from agents.dns.message import type_name
from agents.dns.name import from_text, to_text, wire_of
from agents.sources import SPECS, kind_of, losses_of, open_source
from agents.sources.intake import LineReader
from agents.sources.logs.source import LOG_LINE_MAX, LogLines
from agents.sources.pairs import PAIR_WAIT_S
from tests.support import log_lines as lines
from tests.support.log_lines import SAMPLES, T0, TUNNEL
from tests.support.patience import patient
from tests.support.resolvers import ODD, SERVERS, ask, question_of, resolver

ALIASES = {"CDSNKEY": 60, "NSAPPTR": 23, "nsappt": 23, "ND": 3, "*": 255, "TYPE65399": 65399}
KINDS = {spec.name: spec for spec in SPECS}


def read(path: Path, content: str | bytes, format: str = "auto", **options: object) -> tuple[Source, list[QueryBatch]]:
    path.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    source = open_source([path], format, options)
    return source, list(source.batches(1000))


def one(path: Path, content: str | bytes, format: str = "auto", **options: object) -> QueryBatch:
    source, batches = read(path, content, format, **options)
    assert (source.malformed, source.errors, [len(batch) for batch in batches]) == (0, [], [1])
    return batches[0]


def names_of(batches: list[QueryBatch]) -> list[tuple[str, str]]:
    return [
        (to_text(qname), type_name(int(qtype)))
        for batch in batches
        for qname, qtype in zip(batch.qname, batch.qtype, strict=True)
    ]


def kept(kind: str) -> list[tuple[str, str]]:
    """What a kind of log keeps of ODD."""
    asked = [(to_text(from_text(qname)), "PRIVATE" if qtype == "TYPE65399" else qtype) for qname, qtype in ODD]
    if kind == "unbound":
        odd = re.compile(r"\\(?:\d{3}|.)|[^a-zA-Z0-9.*_-]")
        return [(odd.sub("?", qname), qtype) for qname, qtype in asked]
    if kind == "dnsmasq":  # a byte that cannot be printed, or a dot within a label: not in the log
        return [
            (qname, qtype) for qname, qtype in asked if not re.search(r"\\(?:\d{3}|\.)", qname.replace("\\032", " "))
        ]
    return asked


@pytest.mark.parametrize("kind", sorted(SERVERS))
def test_the_logs_that_real_servers_wrote_have_the_names_they_were_asked(kind: str) -> None:
    path = lines.DATA / f"{kind}.log"
    source = open_source([path])
    batches = list(source.batches(5))
    assert names_of(batches) == kept(kind)
    assert (source.malformed, source.errors) == (0, [])
    assert {client for batch in batches for client in batch.client} == {"127.0.0.1"}
    assert f"is read as {KINDS[kind].summary}, by " in source.taken[0]
    lost = len(ODD) - len(kept(kind))
    assert source.warnings == ([f"{path}: {lost} queries without a name, not judged"] if lost else [])


@pytest.mark.integration
@pytest.mark.parametrize("kind", sorted(SERVERS))
def test_what_a_server_of_this_machine_logs_is_read_as_it_was_asked(kind: str, tmp_path: Path) -> None:
    began = time.time()
    with resolver(SERVERS[kind], tmp_path) as (port, log):
        ask(port, ODD)
        ask(port, ODD[:3])
        end = time.monotonic() + patient(10)
        while not log.exists() or log.read_bytes().count(ODD[0][0].encode()) < 2:
            assert time.monotonic() < end, (tmp_path / "output").read_text()
            time.sleep(0.05)
    batches = list(open_source([log]).batches(1000))
    assert names_of(batches) == [*kept(kind), *kept(kind)[:3]]
    ts = np.concatenate([batch.ts for batch in batches])
    assert began - 1.5 <= ts.min() <= ts.max() <= time.time()


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_each_kind_is_told_from_all_others_by_its_content(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(SAMPLES[kind])
    assert kind_of(path).name == kind
    assert [spec.name for spec in SPECS if spec.recognizes(SAMPLES[kind])] == [kind]


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_a_compressed_log_is_the_same_log(kind: str, tmp_path: Path) -> None:
    _, plain = read(tmp_path / "a", SAMPLES[kind])
    _, packed = read(tmp_path / "b", gzip.compress(SAMPLES[kind]))
    assert names_of(packed) == names_of(plain) != []


def test_bind_before_and_after_its_formats_changed(tmp_path: Path) -> None:
    asked = "client 192.0.2.7#53124: query: a.example IN A +E(0) (192.0.2.53)"
    seen = "client @0x7f24aeafe098 2001:db8::7#53124 (a.example): view inside: query: a.example IN A -SET (192.0.2.53)"
    assert one(tmp_path / "a", f"05-Jan-2026 01:00:00.250 {asked}\n", log_timezone="Europe/Berlin").ts[0] == T0 + 0.25
    batch = one(tmp_path / "a", f"2026-01-05T00:00:00.250Z {seen}\n")
    assert (batch.client[0], batch.ts[0]) == ("2001:db8::7", T0 + 0.25)


@pytest.mark.parametrize(
    "frame",
    [
        "Jan  5 00:00:00 ns1 named[812]: ",
        "<30>Jan  5 00:00:00 ns1 named[812]: ",
        "2026-01-05T00:00:00.000000+00:00 ns1 named[812]: ",
        '<30>1 2026-01-05T00:00:00Z ns1 named 812 - [x@1 a="\\]"] ',
        "<30>1 2026-01-05T00:00:00Z ns1 named 812 - - \ufeff",
        "2026-01-05T00:00:00.000000000Z stderr F ",
    ],
)
def test_syslog_and_containers_around_a_line_give_its_time(frame: str, tmp_path: Path) -> None:
    line = "client @0x7f24aeafe098 192.0.2.7#53124 (a.example): query: a.example IN A + (192.0.2.53)"
    batch = one(tmp_path / "a", f"{frame}{line}\n")
    assert (batch.ts[0], batch.client[0]) == (T0, "192.0.2.7")


def test_docker_and_journald_keep_lines_in_json(tmp_path: Path) -> None:
    line = lines.coredns(frame="")
    docker = json.dumps({"log": line + "\n", "stream": "stdout", "time": "2026-01-05T00:00:00.5Z"})
    journal = json.dumps({"MESSAGE": line, "__REALTIME_TIMESTAMP": str(int((T0 + 0.5) * 1e6))})
    for content in (docker, journal):
        assert one(tmp_path / "a", content + "\n").ts[0] == T0 + 0.25


def test_years_are_those_before_the_file_was_last_written(tmp_path: Path) -> None:
    text = "Dec 31 23:59:58 dnsmasq[1]: query[A] a.example from 192.0.2.7\n"
    path = tmp_path / "a"
    path.write_text(text + text.replace("Dec 31 23:59:58", "Jan  1 00:00:01"))
    os.utime(path, (T0, T0))
    (batch,) = open_source([path]).batches(9)
    assert batch.ts.tolist() == [1767225598.0, 1767225601.0]


def test_adguard_has_the_bytes_of_names_and_all_of_answers(tmp_path: Path) -> None:
    batch = one(tmp_path / "a", lines.adguard() + "\n")
    assert names_of([batch]) == [("GQ5vam9/BA==.t.example", "TXT")]
    assert batch.ts[0] == pytest.approx(T0 + 0.519796123)
    facts = batch.rcode[0], batch.ancount[0], batch.ttl_min[0], batch.ans_types[0], batch.ans_bytes[0], batch.cached[0]
    assert facts == (0, 1, 60, "A", 4, FROM_CACHE)
    assert batch.rlen[0] == len(lines.answer_of("GQ5vam9/BA==.t.example", "TXT"))
    assert batch.rtt_ms[0] == pytest.approx(0.837429)
    bare = one(tmp_path / "a", lines.adguard(Answer=None, Cached=None, Upstream=None) + "\n")
    assert names_of([bare]) == [("gq5vam9/ba==.t.example", "TXT")]
    assert (bare.rcode[0], bare.ancount[0], bare.rlen[0], bare.cached[0], bare.ans_bytes[0]) == (-1,) * 5


def test_zeek_in_columns_and_in_json(tmp_path: Path) -> None:
    batch = one(tmp_path / "a", lines.ZEEK_HEAD + lines.zeek())
    assert names_of([batch]) == [("a\\255b.t.example", "TXT")]
    assert (batch.ts[0], batch.ttl_min[0], batch.ancount[0], batch.rcode[0]) == (T0 + 0.25, 30, 2, 0)
    assert batch.rtt_ms[0] == pytest.approx(20)
    batch = one(tmp_path / "a", lines.zeek_json() + "\n")
    assert (names_of([batch]), batch.rcode[0], batch.ts[0]) == ([(TUNNEL, "TXT")], 3, T0 + 0.25)
    assert one(tmp_path / "a", lines.zeek_json(ts="2026-01-05T00:00:00.250000Z") + "\n").ts[0] == T0 + 0.25
    source, batches = read(tmp_path / "a", lines.ZEEK_HEAD + lines.zeek("-") + lines.zeek())
    assert (len(batches[0]), source.malformed) == (1, 0)  # an answer without its question


@pytest.mark.parametrize("version", sorted(lines.EVE))
def test_suricata_joins_query_and_answer_of_each_version(version: str, tmp_path: Path) -> None:
    batch = one(tmp_path / "a", "\n".join([lines.OTHER_EVENT, *lines.EVE[version], ""]))
    assert names_of([batch]) == [(TUNNEL, "TXT")]
    assert (batch.ts[0], batch.client[0], batch.rcode[0]) == (T0 + 0.25, "192.0.2.7", 0)
    assert batch.rtt_ms[0] == pytest.approx(20, abs=0.01)
    if version != "v1":
        assert (batch.ancount[0], batch.ttl_min[0], batch.ans_types[0]) == (2, 30, "TXT,A")


def test_a_query_is_counted_without_its_answer_and_an_answer_without_its_query(tmp_path: Path) -> None:
    asked = "[{}] unbound[1:0] info: 192.0.2.7 {}.example. A IN{}\n"
    content = (
        asked.format(T0, "a", "")
        + asked.format(T0 + 1, "b", "")
        + asked.format(T0 + 1, "b", " NOERROR 0.250000 0 99")
        + asked.format(T0 + 2, "c", " NXDOMAIN 0.000000 1 31")
        + asked.format(T0 + int(PAIR_WAIT_S) + 3, "d", "")
    )
    source, batches = read(tmp_path / "a", content)
    assert [qname for qname, _ in names_of(batches)] == [f"{label}.example" for label in "abcd"]
    first = batches[0]
    assert first.rcode.tolist() == [-1, 0, 3]
    assert (first.rlen.tolist(), first.cached.tolist()) == ([-1, 99, 31], [-1, 0, 1])
    assert first.rtt_ms[1] == 250
    assert source.malformed == 0


def test_dnsdist_writes_nanoseconds_without_leading_zeros(tmp_path: Path) -> None:
    line = f"[{T0}.50204473] Packet from [2001:db8::7]:53124 for a.example. TYPE10 with id 59395\n"
    batch = one(tmp_path / "a", line)
    assert batch.ts[0] == pytest.approx(T0 + 0.050204473, abs=1e-6)
    assert (batch.client[0], names_of([batch])) == ("2001:db8::7", [("a.example", "NULL")])


def test_a_name_in_dnsmasqs_log_cannot_pass_for_its_client(tmp_path: Path) -> None:
    name = "a from 203.0.113.9.query[A] x.example"
    for frame in ("Jan  5 00:00:00 dnsmasq[1]: ", "Jan  5 00:00:00 ns1 dnsmasq[1]: 5 192.0.2.7/53124 "):
        batch = one(tmp_path / "a", f"{frame}query[A] {name} from 192.0.2.7\n")
        assert (batch.client[0], names_of([batch])) == ("192.0.2.7", [(name.replace(" ", "\\032"), "A")])


def test_names_that_unbound_cut_have_lost_their_domain_and_are_not_judged(tmp_path: Path) -> None:
    asked = f"[{T0}] unbound[1:0] info: 192.0.2.7 {{}} NULL IN{{}}\n"
    answered = " NOERROR 0.000080 0 1062"
    whole = asked.format("a.example.", "")
    source, batches = read(
        tmp_path / "a", whole + asked.format("x.tunnel.&", "") + asked.format("x.tunnel.&", answered)
    )
    assert (names_of(batches), source.malformed) == ([("a.example", "NULL")], 0)
    assert source.warnings == [f"{tmp_path / 'a'}: 1 query without a name, not judged"]
    source, batches = read(tmp_path / "a", asked.format("x.tunnel.&", answered) * 2)
    assert (batches, source.errors) == ([], [])
    assert source.warnings == [f"{tmp_path / 'a'}: 2 queries without a name, not judged"]


def test_bytes_in_hexadecimal_and_backslashes_of_zeek_and_suricata(tmp_path: Path) -> None:
    odd = {"a\\x00\\xff.example": "a\\000\\255.example", "a\\b.example": "a\\\\b.example"}
    for written, read_as in odd.items():
        asked = {"version": 3, "type": "request", "queries": [{"rrname": written, "rrtype": "A"}]}
        assert names_of([one(tmp_path / "a", lines.eve(asked) + "\n")]) == [(read_as, "A")]
    batch = one(tmp_path / "a", lines.ZEEK_HEAD + lines.zeek("a\\x00\\\\b.example"))
    assert names_of([batch]) == [("a\\000\\\\b.example", "TXT")]


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("a\\\\x07.example", "a\\007.example"),  # legacy: the byte, or its text, which reads alike
        ("a\\u0007.example", "a\\007.example"),  # 8.1
        ("a\\\\\\\\x07\\\\xff.example", "a\\\\x07\\255.example"),  # TSV
        ("a\\udb80\\udc07\\udb80\\udcff\\\\x07.example", "a\\007\\255\\\\x07.example"),  # PUA
    ],
)
def test_zeek_escapes_bytes_in_json_as_its_releases_did(written: str, read_as: str, tmp_path: Path) -> None:
    line = lines.zeek_json("NAME").replace("NAME", written)
    assert [name for name, _ in names_of([one(tmp_path / "a", line + "\n")])] == [read_as]


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("a...t.example", "a.t.example"),
        ("..a.t.example", "a.t.example"),
        ("a\\999..t.example.", "a\\\\999.t.example"),
        ("..", "."),
    ],
)
def test_a_label_of_dots_or_a_backslash_hides_no_name(written: str, read_as: str, tmp_path: Path) -> None:
    asked = {"version": 3, "type": "request", "queries": [{"rrname": written, "rrtype": "A"}]}
    for line in (
        lines.eve(asked),
        lines.zeek_json(written),
        lines.route53(written),
        f"Jan  5 00:00:00 dnsmasq[1]: query[A] {written} from 192.0.2.7",
    ):
        assert [name for name, _ in names_of([one(tmp_path / "a", line + "\n")])] == [read_as], line


def test_types_as_suricata_names_them(tmp_path: Path) -> None:
    asked = [{"type": "query", "id": at, "rrname": "a.example", "rrtype": name} for at, name in enumerate(ALIASES)]
    _, batches = read(tmp_path / "a", "".join(lines.eve(one) + "\n" for one in asked))
    assert [int(qtype) for batch in batches for qtype in batch.qtype] == list(ALIASES.values())


def test_answers_of_suricatas_first_version_are_one_answer(tmp_path: Path) -> None:
    asked, first = lines.EVE["v1"]
    more = {"type": "answer", "id": 9, "rcode": "NOERROR", "rrname": "cdn.example", "rrtype": "CNAME", "ttl": 60}
    batch = one(tmp_path / "a", "\n".join([asked, lines.eve(more), first, lines.eve(more), ""]))
    assert names_of([batch]) == [(TUNNEL, "TXT")]
    assert batch.rcode[0] == 0


def test_an_answer_that_comes_late_is_no_query_of_its_own(tmp_path: Path) -> None:
    asked = "[{}] unbound[1:0] info: 192.0.2.7 {}.example. A IN{}\n"
    late = T0 + int(PAIR_WAIT_S) + 2
    content = (
        asked.format(T0, "a", "") + asked.format(late, "b", "") + asked.format(late, "a", " NOERROR 7.000000 0 99")
    )
    _, batches = read(tmp_path / "a", content)
    assert names_of(batches) == [("a.example", "A"), ("b.example", "A")]
    reader = KINDS["unbound"].reader
    assert reader is not None
    log = LogLines(reader({}, math.inf))
    queries, answer = content.splitlines(keepends=True)[:2], content.splitlines(keepends=True)[2]
    given = [log.take([line.encode()]) for line in queries] + [log.rest(), log.take([answer.encode()]), log.rest()]
    assert [len(batch) for batch in given if batch is not None] == [1, 1]


def test_a_query_of_bind_that_is_signed(tmp_path: Path) -> None:
    line = "client @0x7f 192.0.2.7#53/key host.example (a.example): query: a.example IN A +ES (192.0.2.53)"
    batch = one(tmp_path / "a", f"Jan  5 00:00:00 ns1 named[1]: {line}\n")
    assert (batch.client[0], names_of([batch])) == ("192.0.2.7", [("a.example", "A")])


def test_dnsdist_in_a_syslog_of_another_zone(tmp_path: Path) -> None:
    line = "Jan  5 01:00:00 ns1 dnsdist[1]: Packet from 192.0.2.7:53124 for a.example. A with id 1\n"
    assert one(tmp_path / "a", line, log_timezone="Europe/Berlin").ts[0] == T0
    assert "log_timezone" in {field.name for field in KINDS["dnsdist"].fields}


@pytest.mark.parametrize("bad", [{"rcode": [1]}, {"rtt": [1]}, {"rcode": {}}, {"answers": [1], "TTLs": [None]}])
def test_values_of_another_kind_cost_one_line(bad: dict[str, object], tmp_path: Path) -> None:
    source, batches = read(tmp_path / "a", f"{lines.zeek_json()}\n{lines.zeek_json(TUNNEL, **bad)}\n")
    assert ([len(batch) for batch in batches], source.malformed) == ([1], 1)


@pytest.mark.parametrize("ts", [math.inf, -math.inf, math.nan, -1, 1e15])
def test_a_time_that_is_none_costs_one_line(ts: float, tmp_path: Path) -> None:
    source, batches = read(tmp_path / "a", f"{lines.zeek_json(ts=ts)}\n{lines.zeek_json()}\n")
    assert ([len(batch) for batch in batches], source.malformed) == ([1], 1)


def test_a_time_that_is_none_ends_no_waiting_for_answers(tmp_path: Path) -> None:
    asked = "[{}] unbound[1:0] info: 192.0.2.7 a.example. A IN{}\n"
    content = asked.format(10**12 - 1, "") + asked.format(T0, "") + asked.format(T0, " NXDOMAIN 0.25 0 99")
    source, batches = read(tmp_path / "a", content)
    assert (source.malformed, [batch.rcode.tolist() for batch in batches]) == (1, [[3]])


def test_windows_counts_a_label_in_bytes(tmp_path: Path) -> None:
    batch = one(tmp_path / "a", lines.windows(qname="(6)äöü(3)\udcff.b(7)example(0)") + "\n")
    assert names_of([batch]) == [("\\195\\164\\195\\182\\195\\188.\\255\\.b.example", "TXT")]


def test_coredns_and_route53(tmp_path: Path) -> None:
    batch = one(tmp_path / "a", lines.coredns() + "\n")
    assert names_of([batch]) == [("two\\032words.t.example", "TXT")]
    assert (batch.ts[0], batch.qlen[0], batch.rlen[0], batch.rcode[0], batch.rtt_ms[0]) == (T0 + 0.25, 41, 68, 3, 250)
    batch = one(tmp_path / "a", lines.route53() + "\n")
    assert names_of([batch]) == [("mzxw6ytb*.t.example", "TXT")]
    assert (batch.ts[0], batch.rcode[0], batch.ancount[0], batch.ans_types[0]) == (T0, 0, 1, "TXT")


@pytest.mark.parametrize(
    ("text", "order", "ts"),
    [
        ("1/5/2026 12:00:00 AM", "auto", T0),
        ("1/5/2026 1:02:03 PM", "auto", T0 + 13 * 3600 + 123),
        ("05.01.2026 00:00:00", "auto", T0),
        ("05/01/2026 00:00:00", "auto", T0),
        ("5/01/2026 12:00:00 AM", "dmy", T0),
        ("2026-01-05 00:00:00", "auto", T0),
    ],
)
def test_windows_writes_its_times_in_the_order_of_its_region(text: str, order: str, ts: float, tmp_path: Path) -> None:
    batch = one(tmp_path / "a", lines.windows(text) + "\n", log_date_order=order)
    assert (names_of([batch]), batch.ts[0]) == ([("mzxw6ytb.t.example", "TXT")], ts)


def test_windows_own_questions_are_not_its_clients(tmp_path: Path) -> None:
    forwarded = lines.windows(way="Snd")
    answered = lines.windows(way="Rcv", response="R")
    content = "\n".join(
        [lines.windows(), forwarded, answered, lines.windows(way="Snd", response="R", rcode="NXDOMAIN"), ""]
    )
    assert one(tmp_path / "a", content).rcode[0] == 3
    odd = one(tmp_path / "a", lines.windows(qname="(3)a.b(4)c(d)(7)example(0)") + "\n")
    assert names_of([odd]) == [("a\\.b.c(d).example", "TXT")]


def test_events_of_windows_have_whole_messages_or_names_alone(tmp_path: Path) -> None:
    batch = one(tmp_path / "a", SAMPLES["windows-events"])
    assert names_of([batch]) == [("GQ5vam9/BA==.t.example", "TXT")]
    answer = lines.answer_of("GQ5vam9/BA==.t.example", "TXT")
    facts = batch.rcode[0], batch.ancount[0], batch.rlen[0], batch.ans_bytes[0], batch.client[0], batch.ts[0]
    assert facts == (0, 1, len(answer), 4, "192.0.2.7", T0 + 0.25)
    failed = lines.windows_event(258, "a&b.example", b"", RCODE="3")
    asked = lines.windows_event(256, "a&b.example", b"")
    batch = one(tmp_path / "a", f"{asked}\n{failed}\n{lines.windows_event(260)}\n")
    assert (names_of([batch]), batch.rcode[0], batch.ans_bytes[0]) == ([("a&b.example", "TXT")], 3, -1)
    source, _ = read(
        tmp_path / "a", f"{asked}\n{asked[:-40]}\n{lines.windows_event(256, Source='')}\n", "windows-events"
    )
    assert source.malformed == 2


@pytest.mark.parametrize("shape", ["winlogbeat", "nxlog"])
def test_events_of_windows_as_agents_forward_them(shape: str, tmp_path: Path) -> None:
    packet = "0x" + question_of("a.example", "A", 7).hex()
    data = {"Source": "2001:db8::7", "QNAME": "a.example.", "QTYPE": "1", "XID": "7", "PacketData": packet}
    event: dict[str, object]
    if shape == "winlogbeat":
        log = {"provider_name": "Microsoft-Windows-DNSServer", "event_id": "256", "event_data": data}
        event = {"@timestamp": "2026-01-05T00:00:00.250Z", "winlog": log}
    else:
        source = {"SourceName": "Microsoft-Windows-DNSServer", "EventID": 256, "QTYPE": 1, "XID": 7}
        event = {"EventTime": "2026-01-05 01:00:00.250", **data, **source}
    zone = "UTC" if shape == "winlogbeat" else "Europe/Berlin"
    batch = one(tmp_path / "a", json.dumps(event) + "\n", log_timezone=zone)
    assert (names_of([batch]), batch.client[0], batch.ts[0]) == ([("a.example", "A")], "2001:db8::7", T0 + 0.25)
    assert batch.qlen[0] == len(question_of("a.example", "A", 7))


def test_pihole_database(tmp_path: Path) -> None:
    path = tmp_path / "pihole-FTL.db"
    rows = [
        (T0, 7, 2, TUNNEL, "192.0.2.7", 2, 0.25),
        (T0 + 1, 65399 + 100, 3, "b.example", "2001:db8::7", 4, 0.0),
        (T0 + 2, 14, 1, "c.example", "192.0.2.7", None, None),
        (T0 + 3, 1, 2, "hidden", "0.0.0.0", 4, 0.1),
    ]
    lines.pihole(path, [*rows, (T0 + 4, 99, 2, "d.example", "192.0.2.7", 4, 0.1)])
    source = open_source([path])
    (batch,) = source.batches(100)
    assert names_of([batch]) == [(TUNNEL, "TXT"), ("b.example", "PRIVATE"), ("c.example", "TYPE0")]
    assert (batch.rcode.tolist(), batch.cached.tolist()) == ([3, 0, -1], [0, 1, -1])
    assert batch.rtt_ms[0] == 250
    assert math.isnan(batch.rtt_ms[2])
    assert source.malformed == 1
    assert source.warnings[-1].endswith("1 query without a name, not judged")
    assert (source.size, source.done) == (path.stat().st_size, path.stat().st_size)


def test_other_databases_are_refused_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE other (id INTEGER)")
    database.commit()
    database.close()
    with pytest.raises(CaptureError, match=r"x.db: a database without Pi-hole's queries \(timestamp\)"):
        open_source([path])
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(CaptureError, match=r"^cannot read .*x.db: "):
        open_source([path])
    path.write_bytes(gzip.compress(b"SQLite format 3\0" + bytes(5000)))
    with pytest.raises(CaptureError, match="unpacked first"):
        open_source([path])


def test_lines_that_cannot_be_read_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    good = SAMPLES["bind"].decode()
    cut = good.splitlines()[0][:-25]
    source, batches = read(tmp_path / "a", f"{good}{cut}\nanother message\n")
    assert len(names_of(batches)) == len(ODD)
    assert (source.malformed, source.warnings) == (
        1,
        [f"{tmp_path / 'a'}: 1 line could not be read; the first: line 18: a query of BIND is cut off or damaged"],
    )
    source, batches = read(tmp_path / "a", f"{cut}\n", "bind")
    assert batches == []
    assert source.errors == [
        f"cannot read {tmp_path / 'a'}: no query in 1 line; line 1: a query of BIND is cut off or damaged"
    ]


def test_a_line_without_an_end_costs_one_line(tmp_path: Path) -> None:
    endless = b"x" * (2 * LOG_LINE_MAX + 5)
    source, batches = read(tmp_path / "a", SAMPLES["bind"] + endless + b"\n" + SAMPLES["bind"])
    assert len(names_of(batches)) == 2 * len(ODD)
    assert source.malformed == 1


def test_lines_without_any_time_are_a_second_apart_and_among_others_they_are_bad(tmp_path: Path) -> None:
    source, batches = read(tmp_path / "a", lines.coredns(frame="") + "\n" + lines.coredns(frame="") + "\n")
    assert batches[0].ts.tolist() == [0, 1]
    assert source.warnings == [f"{tmp_path / 'a'}: no times; the queries were taken one second apart"]
    source, batches = read(tmp_path / "a", lines.coredns() + "\n" + lines.coredns(frame="") + "\n")
    assert (len(batches[0]), source.malformed) == (1, 1)


def test_every_log_says_what_it_loses_and_what_it_does_not_have_is_unknown(tmp_path: Path) -> None:
    for kind, content in SAMPLES.items():
        _, batches = read(tmp_path / "a", content)
        losses = losses_of([KINDS[kind]])
        assert losses == KINDS[kind].fidelity.losses
        if any(text.startswith("answers: none") for text in losses):
            for batch in batches:
                assert set(batch.ans_bytes.tolist()) == {-1}
                assert set(batch.ancount.tolist()) == {-1}
    both = losses_of([KINDS["bind"], KINDS["unbound"]])
    assert both[0].startswith("a query log of BIND: answers: ")
    assert losses_of([KINDS["pcap"]]) == ()


@given(st.sampled_from(sorted(SAMPLES)), st.binary(max_size=200))
def test_no_line_makes_a_reader_fail_otherwise_than_with_an_error(kind: str, noise: bytes) -> None:
    reader = KINDS[kind].reader
    assert reader is not None
    made = reader({}, float(T0))
    for line in (*SAMPLES[kind].splitlines()[:12], noise):
        feed(made, line)


def feed(reader: LineReader, line: bytes) -> None:
    try:
        reader.read(line.decode("utf-8", "surrogateescape"))
    except (ValueError, AgentsError):
        return


@given(
    st.sampled_from(sorted(SAMPLES)),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 7)), max_size=8),
    st.integers(0, 4000),
)
def test_damaged_logs_are_read_to_their_end(kind: str, flips: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(SAMPLES[kind])
    for at, bit in flips:
        damaged[at % len(damaged)] ^= 1 << bit
    content = bytes(damaged[: len(damaged) - cut % len(damaged)])
    reader = KINDS[kind].reader
    assert reader is not None
    log = LogLines(reader({}, float(T0)))
    batches = [log.take([line]) for line in content.splitlines(keepends=True)] + [log.rest()]
    assert log.queries == sum(len(batch) for batch in batches if batch is not None)
    assert all(to_text(name) for batch in batches if batch is not None for name in batch.qname)


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=6))
def test_any_name_comes_back_from_the_escapes_of_bind(labels: list[bytes]) -> None:
    wire = wire_of(labels)
    text = to_text(wire)
    reader = KINDS["bind"].reader
    assert reader is not None
    found = reader({}, 0.0).read(f"client 192.0.2.7#1 ({text}): query: {text} IN A + (192.0.2.1)")
    assert found is not None
    assert from_text(str(found.qname)) == wire
