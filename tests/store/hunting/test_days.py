"""Closed days as files: the same rows as in the database, once each, late ones too, and none of an erased client."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.core.errors import StoreError, UsageError
from agents.core.types import UNKNOWN, Severity
from agents.store import Store, open_store
from agents.store.feedback.clients import ClientRecords
from agents.store.hunting import days
from agents.store.hunting.columns import HUNT_NAMES
from agents.store.hunting.days import DayFiles
from agents.store.hunting.hunter import FileHunter
from tests.support.patience import patient
from tests.support.verdicts import DAY_S, START, verdicts

pytest.importorskip("duckdb", reason="needs the extra hunt (requirements-hunt.txt)")
FIRST = int(START // DAY_S)
ODD = ['a,b".example.com', r"\010\000x.example.com", "", "ümlaut.example.org", "'); DROP TABLE queries; --.example.net"]


def files_of(store: Store, tmp_path: Path, days_later: float = 3.5) -> DayFiles:
    return DayFiles(store, tmp_path / "hunt", 256, lambda: START + days_later * DAY_S)


def stored(store: Store, day: int, count: int, name: str = "host-{}.example.com", **more: object) -> None:
    ts = [START + day * DAY_S + 60.0 * i for i in range(count)]
    some = verdicts([name.format(i) for i in range(count)], ts=ts, **more)  # type: ignore[arg-type]
    store.write(some, f"{day}-{name}-{count}-{time.monotonic_ns()}")


def asked(files: DayFiles, sql: str, closed_only: bool = False) -> list[tuple[object, ...]]:
    return FileHunter(files, closed_only).ask(sql, 1000, 60).rows


def test_what_is_over_goes_into_files_and_the_rest_is_read_from_the_database(store: Store, tmp_path: Path) -> None:
    for day, count in ((0, 5), (1, 7), (3, 2)):
        stored(store, day, count)
    files = files_of(store, tmp_path)
    assert files.write() == 2
    assert list(files.days()) == [FIRST, FIRST + 1]
    assert files.write() == 0, "nothing is new"
    assert asked(files, "SELECT count(*) FROM queries") == [(14,)]
    assert asked(files, "SELECT count(*) FROM queries", closed_only=True) == [(12,)]
    store.drop_old(FIRST + 2)
    assert asked(files, "SELECT count(*) FROM queries") == [(14,)]
    (folder,) = {path.parent.parent for path in files.days().values()}
    assert [path.name for path in folder.iterdir() if path.name.startswith(".work")] == []
    for path in files.days().values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, "it holds names that people looked up"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_row_of_a_file_is_that_of_the_database(store: Store, tmp_path: Path) -> None:
    names = [name for name in ODD if name.isascii()]
    some = verdicts(names, score=0.43, severity=Severity.HIGH, reasons=('says "hello", twice', "x"))
    queries = replace(
        some.queries,
        ts=np.array([START + 0.123456 + i for i in range(len(names))]),
        rtt_ms=np.array([np.nan, 1.5, 2.25, 0.1], np.float32),
        rcode=np.array([UNKNOWN, 0, 3, 2], np.int16),
        cached=np.array([UNKNOWN, 0, 1, 2], np.int8),
        client=["", "192.0.2.1", "fd00::1", 'a "b", c'],
    )
    store.write(replace(some, queries=queries), "odd")
    before, _ = store.queries(limit=10)
    files = files_of(store, tmp_path)
    open_rows = asked(files, "SELECT * FROM queries ORDER BY ts DESC")
    assert files.write() == 1
    assert asked(files, "SELECT * FROM queries ORDER BY ts DESC") == open_rows
    found = [
        dict(zip(HUNT_NAMES, row, strict=True))
        for row in asked(files, "SELECT * REPLACE (epoch(ts) AS ts) FROM queries ORDER BY ts DESC")
    ]
    assert len(found) == len(names)
    for one, row in zip(found, before, strict=True):
        for name in HUNT_NAMES:
            if name == "ts":
                assert one[name] == pytest.approx(row[name], abs=1e-6)
            elif name in ("score", "rtt_ms"):
                assert one[name] == (None if row[name] is None else pytest.approx(row[name], abs=1e-3))
            elif name == "level":
                assert one[name] == Severity[row["severity"]]
            elif name == "reasons":
                assert one[name] == '["says \\"hello\\", twice", "x"]'
            else:
                assert one[name] == row[name], name


def test_rows_that_come_late_are_written_too(store: Store, tmp_path: Path) -> None:
    stored(store, 0, 5)
    files = files_of(store, tmp_path)
    assert files.write() == 1
    stored(store, 0, 3, "late-{}.example.net")
    assert asked(files, "SELECT count(*) FROM queries") == [(5,)], "until the file is written again"
    assert files.write() == 1
    assert asked(files, "SELECT count(*), count(DISTINCT domain) FROM queries") == [(8, 2)]


def test_a_day_that_retention_half_dropped_is_not_written_again(store: Store, tmp_path: Path) -> None:
    stored(store, 0, 5, client="192.0.2.1")
    stored(store, 0, 5, "other-{}.example.net", client="192.0.2.2")
    files = files_of(store, tmp_path)
    files.write()
    store.erase_queries("192.0.2.1")
    assert files.write(every=True) == 0
    assert asked(files, "SELECT count(*) FROM queries") == [(10,)]


def test_a_day_is_over_when_what_comes_in_time_is_stored(store: Store, tmp_path: Path) -> None:
    stored(store, 0, 1)
    assert files_of(store, tmp_path, 1.0).write() == 0
    assert files_of(store, tmp_path, 1.0).missing() == []
    assert files_of(store, tmp_path, 1.01).missing() == [FIRST]
    assert files_of(store, tmp_path, 1.01).missing(FIRST + 1) == []
    assert files_of(store, tmp_path, 1.01).write() == 1


def test_old_files_are_deleted(store: Store, tmp_path: Path) -> None:
    for day in range(3):
        stored(store, day, 1)
    files = files_of(store, tmp_path)
    files.write()
    assert files.forget(FIRST + 2) == 2
    assert list(files.days()) == [FIRST + 2]
    assert sorted(path.name for path in files.folder.glob("day=*")) == ["day=2026-01-03"]


@pytest.mark.slow
def test_an_erased_client_is_in_no_file(store: Store, tmp_path: Path) -> None:
    for day in range(2):
        stored(store, day, 4, client="192.0.2.1")
        stored(store, day, 6, "other-{}.example.net", client="192.0.2.2")
    files = files_of(store, tmp_path)
    files.write()
    store.drop_old(FIRST + 1)
    records = ClientRecords(store, files)
    assert len([row for row in records.rows("192.0.2.1") if row["type"] == "query"]) == 8, "of the files, too"
    done = records.erase("192.0.2.1")
    assert (done["queries"], done["in files"]) == (4, 8)
    assert list(records.rows("192.0.2.1")) == []
    assert asked(files, "SELECT client, count(*) FROM queries GROUP BY client") == [("192.0.2.2", 12)]
    for path in files.days().values():
        assert b"192.0.2.1\x00" not in path.read_bytes()
    assert files.write(every=True) == 0


def test_only_live_queries_are_hunted(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'queries.db'}")
    store.migrate()
    stored(store, 0, 2)
    replayed = verdicts(["www.example.com"])
    store.write(replace(replayed, source="capture", imported_at=START + DAY_S), "replayed")
    files = files_of(store, tmp_path)
    files.write()
    assert asked(files, "SELECT count(*) FROM queries") == [(2,)]
    store.close()


@pytest.fixture(scope="module")
def two_days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DayFiles]:
    tmp_path = tmp_path_factory.mktemp("two_days")
    store = open_store(f"sqlite:///{tmp_path / 'queries.db'}")
    store.migrate()
    for day in (0, 1):
        stored(store, day, 3)
    files = files_of(store, tmp_path)
    files.write()
    yield files
    store.close()


WRITES = [
    "COPY queries TO '{file}' (USE_TMP_FILE false)",
    "WITH x AS (COPY (SELECT 1) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)) SELECT * FROM x",
    "SELECT 1) UNION ALL (WITH x AS (COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)) SELECT count(*) FROM x",
    "SELECT 1; COPY (SELECT 1) TO '{file}'",
    "SELECT 1) LIMIT 1; COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false); SELECT * FROM (SELECT 1",
    "CREATE TABLE t AS SELECT 1",
    "DROP VIEW queries",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)",
    "ATTACH '{folder}/new.db'",
    "EXPORT DATABASE '{folder}'",
    "SET memory_limit = '100GB'",
    "RESET memory_limit",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "INSTALL httpfs",
    "LOAD httpfs",
]
READS = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_csv('{database}')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
    "SELECT * FROM sqlite_scan('{database}', 'queries')",
    "SELECT * FROM read_blob('{folder}/lock')",
]


@pytest.mark.parametrize("sql", [*WRITES, *READS])
def test_a_hunt_neither_writes_nor_reads_anything_else(two_days: DayFiles, sql: str) -> None:
    (file, _), folder = two_days.days().values(), two_days.folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    text = sql.format(file=file, folder=folder, database=folder.parent / "queries.db")
    with pytest.raises(UsageError, match=r"^cannot hunt: [^\n]+$"):
        asked(two_days, text)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert asked(two_days, "SELECT count(*) FROM queries") == [(6,)]


@pytest.mark.parametrize(
    "sql", ["", ";", "selec 1", "SELECT nothing FROM queries", "SELECT 1/0::UTINYINT + 300::UTINYINT"]
)
def test_bad_sql_is_one_clear_line(two_days: DayFiles, sql: str) -> None:
    with pytest.raises(UsageError, match=r"^cannot hunt: [^\n]+$"):
        asked(two_days, sql)


def test_what_analysts_write_is_answered(two_days: DayFiles) -> None:
    assert asked(two_days, "SELECT count(*) FROM queries WHERE level < 2 -- no loud ones\n;") == [(6,)]
    assert asked(two_days, "SELECT count(*) FROM queries WHERE ts >= '2026-01-02'") == [(3,)]
    assert asked(two_days, "SELECT count(*) FROM queries WHERE ts > now() - INTERVAL 10000 days") == [(6,)]
    assert asked(
        two_days,
        "WITH x AS (SELECT domain, ts::DATE AS d FROM queries) SELECT domain, count(DISTINCT d) FROM x GROUP BY ALL",
    ) == [("example.com", 2)]
    assert asked(two_days, "SELECT json_extract_string(reasons, '$[0]') FROM queries LIMIT 1") == [(None,)]
    assert asked(two_days, "FROM queries SELECT max(level), any_value(severity)") == [(0, "NORMAL")]
    assert [row[0] for row in asked(two_days, "DESCRIBE queries")] == list(HUNT_NAMES)


def test_rows_and_time_are_limited(two_days: DayFiles) -> None:
    answer = FileHunter(two_days).ask("SELECT qname FROM queries ORDER BY ts", 2, 60)
    assert (answer.names, len(answer.rows), answer.cut) == (("qname",), 2, True)
    assert FileHunter(two_days).ask("SELECT 1", 1, 60).cut is False
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"^cannot hunt: no answer within 0\.2 s$"):
        FileHunter(two_days).ask("SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a, b) = 3", 1, 0.2)
    assert time.monotonic() - begun < patient(60)


def test_memory_is_limited(two_days: DayFiles) -> None:
    with pytest.raises(StoreError, match=r"^cannot hunt: [^\n]*[Mm]emory"):
        asked(two_days, "SELECT length(string_agg(repeat('x', 1000), '')) FROM range(2000000)")


def test_more_rows_than_a_hunt_copies_are_refused(store: Store, tmp_path: Path) -> None:
    for day in (0, 1):
        stored(store, day, 3)
    files = files_of(store, tmp_path)
    with pytest.raises(StoreError, match="HUNT_DAYS"), files.open_parts(5):
        pass
    with files.open_parts(6) as (_, paths):
        assert len(paths) == 2


def test_a_large_day_is_copied_hour_by_hour(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(days, "AT_ONCE", 10)
    stored(store, 0, 200)
    files = files_of(store, tmp_path)
    assert files.write() == 1
    assert asked(files, "SELECT count(*), count(DISTINCT qname) FROM queries") == [(200, 200)]
    assert asked(files, "SELECT min(ts)::VARCHAR, max(ts)::VARCHAR FROM queries") == [
        ("2026-01-01 00:00:00", "2026-01-01 03:19:00")
    ]


def test_hunting_before_anything_is_stored(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'queries.db'}")
    store.migrate()
    files = files_of(store, tmp_path)
    assert asked(files, "SELECT count(*), max(severity) FROM queries") == [(0, None)]
    assert (files.write(), files.forget(10**6), files.erase("192.0.2.1")) == (0, 0, 0)
    store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_root_makes_is_the_services(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    store = open_store(f"sqlite:///{tmp_path / 'queries.db'}")
    store.migrate()
    stored(store, 0, 2)
    os.chown(home, 65534, 65534)
    files = DayFiles(store, home / "hunt", 256, lambda: START + 3.5 * DAY_S)
    assert files.write() == 1
    assert {path.stat().st_uid for path in (home / "hunt").rglob("*")} == {65534}
    assert (home / "hunt").stat().st_uid == 65534
    store.close()
