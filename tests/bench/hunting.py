"""Closed days as Parquet files: bytes a row beside the database's, how fast they are written, how long hunts take."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from agents.core.types import Row
from agents.store.hunting.days import FILE, DayFiles, day_text
from agents.store.hunting.duck import Duck, parquet_rows, quoted_path
from agents.store.hunting.hunter import FileHunter
from agents.store.hunting.hunts import HUNTS, time_text
from agents.store.opening import open_store
from agents.store.sql import Store
from tests.bench.storing import BATCH, BATCHES, DAY_S, judged
from tests.bench.table import Figure, seconds

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
    yield from _hunts(files, day, days, count * days)
    store.close()


def _fill_day(store: Store, rows: list[Row]) -> tuple[int, int]:
    """Store the traffic on a day that is over; the day and how many rows."""
    parts, count = judged(rows)[0], 0
    day = int(time.time() // DAY_S) - 2
    begin, end = float(parts[0].queries.ts[0]), float(parts[-1].queries.ts[-1])
    for part in parts:
        ts = day * DAY_S + (part.queries.ts - begin) / (end - begin + 1.0) * (DAY_S - 1)
        ts = np.clip(ts, day * DAY_S, (day + 1) * DAY_S - 1)
        count += store.write(replace(part, queries=replace(part.queries, ts=ts)), uuid.uuid4().hex)
    store.fold()
    assert count <= BATCH * BATCHES
    return day, count


def _copy_day(files: DayFiles, path: Path, day: int, days: int, directory: Path) -> None:
    with Duck(directory, MEMORY_MB, "a benchmark") as duck:
        for ago in range(1, days):
            copy = files.folder / f"day={day_text(day - ago)}" / FILE
            copy.parent.mkdir()
            source = f"SELECT * REPLACE (ts - INTERVAL {ago} DAY AS ts) FROM {parquet_rows([path])}"
            duck.run("copy", f"COPY ({source}) TO {quoted_path(copy)} (PARQUET_VERSION v2, COMPRESSION zstd)")


def _hunts(files: DayFiles, day: int, days: int, count: int) -> Iterator[Figure]:
    hunter = FileHunter(files, closed_only=True)
    first = float((day - days + 1) * DAY_S)
    since, until = time_text(first), time_text(first + days * DAY_S)
    asked = {name: one.sql.format(since=since, until=until) for name, one in HUNTS.items()}
    (busiest,) = hunter.ask("SELECT client, count(*) FROM queries GROUP BY 1 ORDER BY 2 DESC", 1, LIMIT_S).rows
    asked |= {
        "one client, newest 100": f"SELECT * FROM queries WHERE client = '{busiest[0]}' ORDER BY ts DESC",
        "who asked one domain": "SELECT client, count(*) FROM queries WHERE domain = 'example.com' GROUP BY client",
        "part of a name": "SELECT * FROM queries WHERE qname LIKE '%deadb%'",
        "rows a day": "SELECT ts::DATE, count(*) FROM queries GROUP BY 1",
    }
    base = seconds(lambda: hunter.ask("SELECT count(*) FROM queries", 1, LIMIT_S))
    for name, sql in asked.items():
        took = seconds(lambda sql=sql: hunter.ask(sql, 100, LIMIT_S))  # type: ignore[misc]
        yield Figure(f"hunt of {count:,} rows in {days} files: {name}", took, "s", base, "count(*)")
