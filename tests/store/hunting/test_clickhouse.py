"""Queries sent to ClickHouse, by its own engine: each block once, in every view; nothing waits for the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.core.errors import StoreError, UsageError
from agents.core.types import HOUR_S, UNKNOWN, Severity, Verdicts
from agents.store import open_store
from agents.store.hunting.clickhouse import ClickHouse, clickhouse_address
from agents.store.hunting.columns import HUNT_NAMES
from agents.store.hunting.days import DayFiles
from agents.store.hunting.hunter import FileHunter
from agents.store.hunting.hunts import HUNTS
from agents.store.hunting.sending import NOTE, SENT, HuntSink, packed_batch
from agents.store.hunting.tables import TABLES
from tests.support.clickhouse_server import ClickHouseServer
from tests.support.listening import wait_until
from tests.support.patience import patient
from tests.support.running import free_port
from tests.support.verdicts import verdicts

pytest.importorskip("chdb", reason="needs chdb (requirements-hunt-test.txt)")
KEPT_DAYS = 3650
BEGIN = float(int(time.time()) // HOUR_S * HOUR_S - 48 * HOUR_S)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    made = ClickHouseServer(tmp_path_factory.mktemp("clickhouse"))
    ClickHouse(made.url).make(KEPT_DAYS)
    yield made
    made.close()


@pytest.fixture
def server(engine: ClickHouseServer) -> ClickHouseServer:
    """With empty tables."""
    for table in TABLES:
        engine.run(f"TRUNCATE TABLE {table}")
    engine.fail = engine.swallow = 0
    engine.hang.set()
    engine.inserts.clear()
    return engine


def some(count: int, begin: float = BEGIN, batch_id: str = "", name: str = "h{}.example.com") -> Verdicts:
    made = verdicts([name.format(i) for i in range(count)], ts=[begin + i for i in range(count)])
    return replace(made, batch_id=batch_id)


def sink_of(server: ClickHouseServer, folder: Path, max_bytes: int = 1 << 30) -> HuntSink:
    return HuntSink(ClickHouse(server.url), folder, KEPT_DAYS, max_bytes, every_s=0.01, pause_s=0.05)


def stored(server: ClickHouseServer) -> tuple[int, int, int]:
    """Rows, and what two views count."""
    found = [server.rows(f"SELECT sum({what}) FROM {table}")[0][0] for what, table in
             (("1", "queries"), ("queries", "domain_hours"), ("queries", "flow_hours"))]  # fmt: skip
    return tuple(int(one) for one in found)  # type: ignore[return-value]


def sent(sink: HuntSink, count: int) -> bool:
    return sink.counts.sent >= count and not sink.state()["waiting"]


def test_what_is_judged_arrives_in_the_table_and_in_each_view(server: ClickHouseServer, tmp_path: Path) -> None:
    sink = sink_of(server, tmp_path / "hunt")
    for number in range(20):
        sink.accept(some(10, BEGIN + 600 * number, f"b{number}"))
    wait_until(lambda: sent(sink, 200), 30)
    sink.close()
    assert stored(server) == (200, 200, 200)
    assert sink.state() == {
        "sent": 200, "lost": 0, "failed": 0, "damaged": 0, "waiting": 0, "failures": 0, "error": ""
    }  # fmt: skip
    assert len(server.inserts) < 20, "batches are joined"


def test_a_block_whose_answer_was_lost_is_stored_and_counted_once(server: ClickHouseServer, tmp_path: Path) -> None:
    server.swallow = 3
    sink = sink_of(server, tmp_path / "hunt")
    sink.accept(some(50, batch_id="b1"))
    wait_until(lambda: sent(sink, 50), 30)
    sink.close()
    assert len(server.inserts) >= 2
    assert len(set(server.inserts)) == 1, "the same token each time"
    assert sink.counts.failed == 3
    assert stored(server) == (50, 50, 50)


def test_the_next_process_sends_the_block_that_was_begun(server: ClickHouseServer, tmp_path: Path) -> None:
    server.swallow = 1_000
    sink = sink_of(server, tmp_path / "hunt")
    for number in range(3):
        sink.accept(some(10, batch_id=f"b{number}"))
    wait_until(lambda: bool(server.inserts), 30)
    sink.close()
    server.swallow = 0
    assert (tmp_path / "hunt" / NOTE).exists()
    again = sink_of(server, tmp_path / "hunt")
    again.accept(some(10, BEGIN + 900, "b9"))
    wait_until(lambda: sent(again, 11), 30)
    again.close()
    assert stored(server) == (40, 40, 40)


def test_a_batch_that_is_judged_again_after_a_crash_is_sent_once(server: ClickHouseServer, tmp_path: Path) -> None:
    sink = sink_of(server, tmp_path / "hunt")
    sink.accept(some(10, batch_id="b1"))
    wait_until(lambda: sent(sink, 10), 30)
    sink.close()
    assert (tmp_path / "hunt" / SENT).exists()
    again = sink_of(server, tmp_path / "hunt")
    again.accept(some(10, batch_id="b1"))
    again.accept(some(10, batch_id="b2"))
    wait_until(lambda: sent(again, 10), 30)
    again.close()
    assert stored(server) == (20, 20, 20)


def test_a_server_that_hangs_or_refuses_holds_nobody_up(server: ClickHouseServer, tmp_path: Path) -> None:
    server.hang.clear()
    sink = sink_of(server, tmp_path / "hunt")
    begun = time.monotonic()
    for number in range(50):
        sink.accept(some(10, BEGIN + 60 * number, f"b{number}"))
    took = time.monotonic() - begun
    assert sink.state()["waiting"] == 50
    assert took < patient(20), "a server that hangs would take a minute for one"
    server.fail = 2
    server.hang.set()
    wait_until(lambda: sink.counts.failed >= 2 and sent(sink, 500), 60)
    sink.close()
    assert stored(server) == (500, 500, 500)


def test_a_server_that_is_away_is_said(server: ClickHouseServer, tmp_path: Path) -> None:
    url = f"clickhouse+http://u:secret@127.0.0.1:{free_port()}/default"
    sink = HuntSink(ClickHouse(url), tmp_path / "hunt", KEPT_DAYS, 1 << 30, every_s=0.01, pause_s=0.01)
    sink.accept(some(10, batch_id="b1"))
    wait_until(lambda: sink.counts.failed >= 2, 30)
    state = sink.state()
    sink.close()
    assert "no ClickHouse at 127.0.0.1:" in state["error"]
    assert "secret" not in state["error"]
    assert (state["waiting"], state["sent"]) == (1, 0)


def test_a_full_spool_loses_what_is_new_and_counts_it(server: ClickHouseServer, tmp_path: Path) -> None:
    server.hang.clear()
    one = some(10, batch_id="b0")
    sink = sink_of(server, tmp_path / "hunt", max_bytes=3 * len(packed_batch(one, "b0")) + 60)
    for number in range(5):
        sink.accept(some(10, batch_id=f"b{number}"))
    assert (sink.counts.lost, sink.state()["waiting"]) == (20, 3)
    server.hang.set()
    wait_until(lambda: sent(sink, 30), 60)
    sink.close()
    assert stored(server)[0] == 30


def test_a_damaged_batch_is_set_aside(server: ClickHouseServer, tmp_path: Path) -> None:
    server.hang.clear()
    sink = sink_of(server, tmp_path / "hunt")
    sink.accept(some(10, batch_id="b1"))
    sink.close()
    (path,) = (tmp_path / "hunt").glob("*.z")
    path.write_bytes(b"damaged")
    server.hang.set()
    again = sink_of(server, tmp_path / "hunt")
    again.accept(some(7, batch_id="b2"))
    wait_until(lambda: sent(again, 7), 30)
    again.close()
    assert again.counts.damaged == 1
    assert stored(server) == (7, 7, 7)


def test_both_engines_have_the_same_rows_and_answers(server: ClickHouseServer, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    names = [
        'a,b".example.com',
        r"\010\000x.example.com",
        "",
        "x.example.org",
        *(f"n{i}.example.net" for i in range(12)),
    ]
    made = verdicts(names, score=0.43, severity=Severity.HIGH, reasons=('says "hello"', "x"))
    count = len(names)
    queries = replace(
        made.queries,
        ts=np.array([BEGIN + 0.123456 + i for i in range(count)]),
        rtt_ms=np.array([np.nan, 1.5, *[2.25] * (count - 2)], np.float32),
        rcode=np.array([UNKNOWN, 0, 2, 2, *[3] * 12], np.int16),
        cached=np.array([UNKNOWN, 0, 1, 2, *[0] * 12], np.int8),
        client=["", "192.0.2.1", "fd00::1", 'a "b", \'c', *["192.0.2.1", "192.0.2.2"] * 6],
    )
    made = replace(made, queries=queries, batch_id="odd")
    store = open_store(f"sqlite:///{tmp_path / 'queries.db'}")
    store.migrate()
    store.write(made, "odd")
    files = DayFiles(store, tmp_path / "files", 256)
    files.write()
    sink = sink_of(server, tmp_path / "hunt")
    sink.accept(made)
    wait_until(lambda: sent(sink, count), 30)
    sink.close()
    theirs, ours = ClickHouse(server.url), FileHunter(files)
    asked = f"SELECT {', '.join(HUNT_NAMES)} FROM queries ORDER BY ts"
    rows, known = theirs.ask(asked, 100, 60), ours.ask(asked, 100, 60)
    assert rows.names == known.names
    for one, other in zip(rows.rows, known.rows, strict=True):
        assert one == tuple(pytest.approx(value, rel=1e-6) if isinstance(value, float) else value for value in other)
    assert set(theirs.ask("SELECT * FROM queries", 1, 60).names) == set(HUNT_NAMES)
    for name, hunt in HUNTS.items():
        since, until = BEGIN - 1 * HOUR_S, BEGIN + 1 * HOUR_S
        here = ours.ask(hunt.of_span(since, until, "duckdb"), 100, 60)
        there = theirs.ask(hunt.of_span(since, until, "clickhouse"), 100, 60)
        assert here.rows, name
        assert (there.names, there.rows) == (here.names, [tuple(map(_whole, row)) for row in here.rows]), name
    store.close()


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def test_a_span_has_what_is_new_in_it_alone(server: ClickHouseServer, tmp_path: Path) -> None:
    sink = sink_of(server, tmp_path / "hunt")
    sink.accept(some(3, BEGIN, "b1", "h{}.old.com"))
    sink.accept(some(3, BEGIN + 10 * HOUR_S, "b2", "h{}.old.com"))
    sink.accept(some(3, BEGIN + 10 * HOUR_S, "b3", "h{}.new.com"))
    wait_until(lambda: sent(sink, 9), 30)
    sink.close()
    sql = HUNTS["new-domains"].of_span(BEGIN + 9 * HOUR_S, BEGIN + 11 * HOUR_S, "clickhouse")
    assert [row[0] for row in ClickHouse(server.url).ask(sql, 10, 60).rows] == ["new.com"]


@pytest.mark.parametrize(
    "sql",
    [
        "selec 1", "SELECT nothing FROM queries", "DROP TABLE queries", "INSERT INTO queries (client) VALUES ('x')",
        "SELECT 1; DROP TABLE queries", "SELECT 1) FORMAT TSV; SELECT (1",
        "SELECT * FROM file('/etc/passwd', LineAsString)",
        "SELECT * FROM url('http://127.0.0.1:9/', TSV, 'a String')", "SELECT 1 INTO OUTFILE '/tmp/never'",
        "SELECT 1) SETTINGS readonly = 0 --", "",
    ],
)  # fmt: skip
def test_a_hunt_reads_the_tables_alone(server: ClickHouseServer, sql: str) -> None:
    with pytest.raises(UsageError, match=r"^cannot hunt: [^\n]+$"):
        ClickHouse(server.url).ask(sql, 10, 30)
    assert stored(server) == (0, 0, 0)


def test_a_server_that_was_sent_nothing_is_no_fault_of_the_question(server: ClickHouseServer) -> None:
    server.run("RENAME TABLE queries TO away")
    try:
        with pytest.raises(StoreError, match=r"^cannot hunt: [^\n]+ has been sent no queries yet$"):
            ClickHouse(server.url).ask("SELECT count(*) FROM queries", 10, 30)
    finally:
        server.run("RENAME TABLE away TO queries")


def test_rows_and_time_are_limited_there_too(server: ClickHouseServer) -> None:
    found = ClickHouse(server.url).ask("SELECT number FROM numbers(10) -- all\n;", 3, 30)
    assert (found.names, found.rows, found.cut) == (("number",), [(0,), (1,), (2,)], True)
    with pytest.raises(StoreError, match="cannot hunt"):
        ClickHouse(server.url).ask("SELECT count() FROM numbers(1000000000000) WHERE sleepEachRow(0.001)", 1, 1)


def test_a_wrong_password_is_one_line_without_it(server: ClickHouseServer) -> None:
    url = server.url.replace("p%40ss", "wrong-secret")
    with pytest.raises(StoreError, match=r"^cannot hunt: [^\n]*Authentication failed") as caught:
        ClickHouse(url).ask("SELECT 1", 1, 30)
    assert "wrong-secret" not in str(caught.value)


def test_an_erased_client_is_in_no_table_that_names_it(server: ClickHouseServer, tmp_path: Path) -> None:
    sink = sink_of(server, tmp_path / "hunt")
    made = some(6, batch_id="b1")
    sink.accept(replace(made, queries=replace(made.queries, client=["192.0.2.1", "192.0.2.2"] * 3)))
    wait_until(lambda: sent(sink, 6), 30)
    sink.close()
    there = ClickHouse(server.url)
    assert [row["ts"] for row in there.rows_of("192.0.2.1")] == [BEGIN + 4, BEGIN + 2, BEGIN]
    assert there.erase("192.0.2.1") == 3
    assert list(there.rows_of("192.0.2.1")) == []
    for table in ("queries", "flow_hours"):
        assert server.rows(f"SELECT DISTINCT client FROM {table}") == [["192.0.2.2"]]


def test_rows_are_kept_for_the_days_of_the_setting(server: ClickHouseServer) -> None:
    for days in (30, 60):
        ClickHouse(server.url).make(days)
        found = server.rows(
            "SELECT name, engine_full FROM system.tables WHERE database = 'default' AND engine LIKE '%MergeTree'"
        )
        assert {name for name, _ in found} == set(TABLES)
        assert all(f"toIntervalDay({days})" in text for _, text in found)
    ClickHouse(server.url).make(KEPT_DAYS)


@pytest.mark.parametrize(
    "text",
    ["http://h/db", "clickhouse+http://h", "clickhouse+http:///db", "clickhouse+http://h:x/db", "clickhouse://h/db"],
)
def test_addresses_that_cannot_be_used(text: str) -> None:
    with pytest.raises(ValueError, match=r"clickhouse\+http"):
        clickhouse_address(text)
    clickhouse_address("")
    clickhouse_address("clickhouse+https://u:p@h.example/db")
