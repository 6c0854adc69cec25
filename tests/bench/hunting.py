"""Closed days as Parquet files: bytes a row beside the database's, how fast they are written, how long hunts take."""

from __future__ import annotations

import importlib.util
import math
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from agents.core.types import Row, Verdicts
from agents.store.hunting.answers import HuntStore
from agents.store.hunting.clickhouse import ClickHouse
from agents.store.hunting.days import FILE, DayFiles, day_text
from agents.store.hunting.duck import Duck, parquet_rows, quoted_path
from agents.store.hunting.hunter import FileHunter
from agents.store.hunting.hunts import HUNTS, time_text
from agents.store.hunting.sending import HuntSink
from agents.store.hunting.tables import SENT_NAMES, TABLES
from agents.store.opening import open_store
from agents.store.sql import Store
from tests.bench.storing import BATCH, BATCHES, DAY_S, judged
from tests.bench.table import Figure, seconds
from tests.support.clickhouse_server import ClickHouseServer

HUNTED_ROWS = 10_000_000
MEMORY_MB = 512
LIMIT_S = 600.0


def hunting(rows: list[Row], directory: Path) -> Iterator[Figure]:
    """One day through the product, then as many copies of it as HUNTED_ROWS need."""
    store = open_store(f"sqlite:///{directory / 'store.db'}")
    store.migrate()
    day, count = _fill_day(store, rows)
    size = (directory / "store.db").stat().st_size / count
    files = DayFiles(store, directory / "hunt", MEMORY_MB)
    took = seconds(lambda: files.write())
    (path,) = files.days().values()
    yield Figure("bytes a row in SQLite, with its indexes", size, "B", size, "itself")
    yield Figure(f"bytes a row of a closed day, of {count:,}", path.stat().st_size / count, "B", size, "SQLite")
    yield Figure("rows written to a file", count / took, "/s", count / took, "itself")
    days = math.ceil(HUNTED_ROWS / count)
    _copy_day(files, path, day, days, directory)
    base = seconds(lambda: FileHunter(files, closed_only=True).ask("SELECT count(*) FROM queries", 1, LIMIT_S))
    against = f"{count * days:,} rows in {days} files"
    yield from _hunts(FileHunter(files, closed_only=True), day, days, against, base)
    store.close()
    if importlib.util.find_spec("chdb") is not None:
        yield from _clickhouse(judged(rows)[0], directory, day, days, size)


def _fill_day(store: Store, rows: list[Row]) -> tuple[int, int]:
    """Store the traffic on a day that is over; the day and how many rows."""
    parts, count = judged(rows)[0], 0
    day = int(time.time() // DAY_S) - 2
    for part in parts:
        count += store.write(_moved(part, parts, day), uuid.uuid4().hex)
    store.fold()
    assert count <= BATCH * BATCHES
    return day, count


def _moved(part: Verdicts, parts: list[Verdicts], day: int) -> Verdicts:
    """Spread over that day, in the order of before."""
    begin, end = float(parts[0].queries.ts[0]), float(parts[-1].queries.ts[-1])
    ts = day * DAY_S + (part.queries.ts - begin) / (end - begin + 1.0) * (DAY_S - 1)
    return replace(part, queries=replace(part.queries, ts=np.clip(ts, day * DAY_S, (day + 1) * DAY_S - 1)))


def _copy_day(files: DayFiles, path: Path, day: int, days: int, directory: Path) -> None:
    with Duck(directory, MEMORY_MB, "a benchmark") as duck:
        for ago in range(1, days):
            copy = files.folder / f"day={day_text(day - ago)}" / FILE
            copy.parent.mkdir()
            source = f"SELECT * REPLACE (ts - INTERVAL {ago} DAY AS ts) FROM {parquet_rows([path])}"
            duck.run("copy", f"COPY ({source}) TO {quoted_path(copy)} (PARQUET_VERSION v2, COMPRESSION zstd)")


def _clickhouse(parts: list[Verdicts], directory: Path, day: int, days: int, size: float) -> Iterator[Figure]:
    """The same day through the sink into ClickHouse's engine, and copies of it made there."""
    server = ClickHouseServer(directory / "clickhouse")
    parts = [_moved(part, parts, day) for part in parts]
    count, begun = sum(map(len, parts)), time.perf_counter()
    sink = HuntSink(ClickHouse(server.url), directory / "spool", 3650, 1 << 30)
    cpu = time.thread_time()
    for part in parts:
        sink.accept(replace(part, batch_id=uuid.uuid4().hex))
    cpu = time.thread_time() - cpu
    while sink.counts.sent < count:
        time.sleep(0.01)
    took = time.perf_counter() - begun
    sink.close()
    yield Figure("CPU of what judges, a row for ClickHouse", cpu / count * 1e6, "us", cpu / count * 1e6, "itself")
    yield Figure("rows sent and stored, engine on the same cores", count / took, "/s", count / took, "itself")
    for table in TABLES:  # before the copies, which lie beside each other and would be small
        server.run(f"OPTIMIZE TABLE {table} FINAL")
        asked = f"SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = '{table}'"
        yield Figure(
            f"bytes a query in ClickHouse, table {table}", float(server.rows(asked)[0][0]) / count, "B", size, "SQLite"
        )
    names = ", ".join(name for name in SENT_NAMES if name != "ts")
    for ago in range(1, days):
        server.run(
            f"INSERT INTO queries (ts, {names}) SELECT ts - INTERVAL {ago} DAY, {names} FROM queries"
            f" WHERE ts >= '{time_text(day * DAY_S)}'"
        )
    for table in TABLES:
        server.run(f"OPTIMIZE TABLE {table} FINAL")
    hunter = ClickHouse(server.url, 4 * MEMORY_MB)
    base = seconds(lambda: hunter.ask("SELECT count(domain) FROM queries", 1, LIMIT_S))
    yield from _hunts(hunter, day, days, f"{count * days:,} rows in ClickHouse", base)
    server.close()


def _hunts(hunter: HuntStore, day: int, days: int, where: str, base: float) -> Iterator[Figure]:
    first = float((day - days + 1) * DAY_S)
    asked = {name: one.of_span(first, first + days * DAY_S, hunter.dialect) for name, one in HUNTS.items()}
    (busiest,) = hunter.ask("SELECT client, count(*) FROM queries GROUP BY 1 ORDER BY 2 DESC", 1, LIMIT_S).rows
    asked |= {
        "one client, newest 100": f"SELECT * FROM queries WHERE client = '{busiest[0]}' ORDER BY ts DESC",
        "who asked one domain": "SELECT client, count(*) FROM queries WHERE domain = 'example.com' GROUP BY client",
        "part of a name": "SELECT * FROM queries WHERE qname LIKE '%deadb%'",
        "rows a day": "SELECT CAST(ts AS DATE) AS day, count(*) FROM queries GROUP BY day",
    }
    for name, sql in asked.items():
        took = seconds(lambda sql=sql: hunter.ask(sql, 100, LIMIT_S))  # type: ignore[misc]
        yield Figure(f"hunt of {where}: {name}", took, "s", base, "count(*)")
