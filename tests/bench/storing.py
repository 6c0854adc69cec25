"""The stores: rows written, and the training sample read back. CPU of this process and of the server told apart."""

from __future__ import annotations

import sqlite3
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psycopg2
from psycopg2.extras import execute_values
from sklearn.ensemble import IsolationForest

from agents.core.columns import coded, packed
from agents.core.files import DiskQueue
from agents.core.types import Row, Sample, Verdicts, batch_of
from agents.detection.limits import Scale
from agents.learning.baseline import benign_names, benign_sample, sample_of
from agents.runtime.bootstrap import FEATURES_AGAIN
from agents.scoring.training import TrainConfig, train
from agents.store.codec import encode
from agents.store.opening import open_store
from agents.store.rows import COLUMNS, query_columns
from agents.store.spool import SpoolingSink
from agents.store.sql import Store
from tests.bench.table import Figure, seconds
from tests.support.detecting import fresh_detector, shipped_model
from tests.support.postgres_server import PostgresServer

BATCH, BATCHES = 1024, 60
LIVE_BATCH = 75
"""Rows of a batch at 1,500 queries a second and BATCH_WAIT_MS of 50."""
VALUES_BATCHES = 10
"""execute_values is slow: it writes fewer."""
SAMPLED_FROM, DAYS, DAY_S = 2_000_000, 7, 86_400
SAMPLES = 10_000, 1_000_000
ROUNDS = 5


def judged(rows: list[Row]) -> tuple[list[Verdicts], float]:
    """Verdicts of packed batches, and the seconds of CPU that they took."""
    batches = [batch_of(rows[at : at + BATCH]) for at in range(0, min(len(rows), BATCH * BATCHES), BATCH)]
    batches = [
        replace(one, qname=packed(one.qname), client=coded(one.client), ans_types=coded(one.ans_types))
        for one in batches
    ]
    fresh_detector(shipped_model(), Scale()).detect(batches[0])  # compiles
    detector, begun = fresh_detector(shipped_model(), Scale()), time.process_time()
    return [detector.detect(one) for one in batches], time.process_time() - begun


def bare_sqlite(directory: Path, parts: list[Verdicts]) -> float:
    """Rows a second into a table without index or constraint."""
    connection = sqlite3.connect(directory / "bare.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE rows (ts REAL, client TEXT, qname BLOB, qtype INTEGER, score REAL, features BLOB)")

    def write() -> None:
        for part in parts:
            queries, features = part.queries, [row.tobytes() for row in part.features]
            columns = (queries.ts.tolist(), queries.client, queries.qname, queries.qtype.tolist(), part.score.tolist())
            with connection:
                connection.executemany("INSERT INTO rows VALUES (?,?,?,?,?,?)", zip(*columns, features, strict=True))

    took = seconds(write)
    connection.close()
    return sum(map(len, parts)) / took


def stores(rows: list[Row], directory: Path) -> Iterator[Figure]:
    """Rows a second on SQLite, and a core on Postgres against psycopg2's execute_values."""
    parts, scoring_s = judged(rows)
    count = sum(map(len, parts))
    bare, store = bare_sqlite(directory, parts), open_store(f"sqlite:///{directory / 'store.db'}")
    store.migrate()
    took = seconds(lambda: write(store, parts))
    store.close()
    yield Figure("rows stored, SQLite, wall clock", count / took, "/s", bare, "a bare SQLite table")
    server = PostgresServer(directory)
    try:
        store = open_store(server.url)
        store.migrate()
        write(store, parts[:1])
        few = parts[:VALUES_BATCHES]
        ours, theirs = _cpu(server, lambda: _execute_values(server.url, few))
        slow = sum(map(len, few)) / (ours + theirs)
        ours, theirs = _cpu(server, lambda: write(store, parts))
        drained, size, cost = _drained(store, server, parts, directory)
        store.close()
    finally:
        server.stop()
    against = "execute_values, client and server"
    yield Figure("rows stored a core, Postgres, client and server", count / (ours + theirs), "/s", slow, against)
    yield Figure("rows drained from the spool a core, client and server", drained / cost, "/s", slow, against)
    yield Figure("bytes a row in the spool", size / drained, "B", 217.0, "with features, as 0.1 had it")
    yield Figure("… the client alone", count / ours, "/s", slow, against)
    yield Figure("… the server alone", count / theirs, "/s", slow, against)
    yield Figure("scored and stored a core, without the server", count / (scoring_s + ours), "/s", slow, against)
    whole = count / (scoring_s + ours + theirs)
    yield Figure("scored and stored a core, with the server", whole, "/s", slow, against)


def _drained(store: Store, server: PostgresServer, parts: list[Verdicts], directory: Path) -> tuple[int, int, float]:
    """Rows in small batches, as live ones; their bytes on disk; the seconds of CPU to bring them into the database."""
    folder = directory / "spool"
    spool = DiskQueue(folder, ".npz", max_bytes=1 << 30, sync=False)
    small = [_part(one, at, at + LIVE_BATCH) for one in parts for at in range(0, len(one), LIVE_BATCH)]
    for one in small:
        spool.put(encode(one, FEATURES_AGAIN), uuid.uuid4().hex)
    size = sum(path.stat().st_size for path in folder.glob("*.npz"))
    spool.close()

    def drain() -> None:
        sink = SpoolingSink(store, folder, 1 << 30, features=FEATURES_AGAIN)
        while sink.waiting:
            time.sleep(0.01)
        sink.close()

    return sum(map(len, small)), size, sum(_cpu(server, drain))


def _part(one: Verdicts, begin: int, end: int) -> Verdicts:
    rows = slice(begin, end)
    return replace(
        one,
        queries=one.queries.part(begin, end),
        domain=one.domain[rows],
        features=one.features[rows],
        score=one.score[rows],
        severity=one.severity[rows],
        reasons=one.reasons[rows],
        incidents=(),
    )


def write(store: Store, parts: list[Verdicts]) -> None:
    """Each batch as a new one."""
    for part in parts:
        store.write(part, uuid.uuid4().hex)


def _cpu(server: PostgresServer, call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of CPU: this process', the server's."""
    there, here = server.cpu_seconds(), time.process_time()
    call()
    return time.process_time() - here, max(server.cpu_seconds() - there, 0.01)


def _execute_values(url: str, parts: list[Verdicts]) -> None:
    connection = psycopg2.connect(url)
    for part in parts:
        with connection, connection.cursor() as cursor:
            rows = list(zip(*query_columns(part, uuid.uuid4().hex).lists(), strict=True))
            execute_values(cursor, f"INSERT INTO queries ({', '.join(COLUMNS)}) VALUES %s", rows, page_size=BATCH)
    connection.close()


def sampling(rows: list[Row], directory: Path) -> Iterator[Figure]:
    """Seconds to read the training sample and to train on it, against scikit-learn's fit alone."""
    server, (parts, _), ordinary = PostgresServer(directory), judged(rows), sample_of(benign_names())
    fitted = benign_sample(10_000, 42).features
    fit = seconds(lambda: IsolationForest(n_estimators=200, max_samples=256, random_state=1).fit(fitted))
    try:
        store = open_store(server.url)
        store.migrate()
        first = _fill(store, parts, SAMPLED_FROM, DAYS)
        against = "scikit-learn's fit on 10,000 alone"
        for limit in SAMPLES:
            read: list[Sample] = []
            took = seconds(lambda limit=limit, read=read: read.append(_sample(store, first, limit)))  # type: ignore[misc]
            what = f"{len(read[0]):,} of {SAMPLED_FROM:,} rows"
            yield Figure(f"sample read, Postgres, {what}", took, "s", fit, against)
            trained = seconds(lambda read=read: train(read[0], ordinary, TrainConfig(), {}))  # type: ignore[misc]
            yield Figure(f"sample read and trained on, {what}", took + trained, "s", fit, against)
            again = seconds(lambda limit=limit: _sample(store, first, limit))  # type: ignore[misc]
            yield Figure(f"… again, {what}", again + trained, "s", fit, against)
        store.close()
    finally:
        server.stop()


def _fill(store: Store, parts: list[Verdicts], rows: int, days: int, begin: int = 0) -> float:
    """The same queries again and again over the days from the begin-th on; when the 0-th begins."""
    first, total = float(parts[0].queries.ts[0] // DAY_S * DAY_S), 0
    while total < rows:
        for part in parts:
            ts = first + (begin + total * days // rows) * DAY_S + np.mod(part.queries.ts, DAY_S)
            total += store.write(replace(part, queries=replace(part.queries, ts=ts)), uuid.uuid4().hex)
    return first


class Grown(NamedTuple):
    """What the store costs with so many days in it."""

    days: int
    row_us: float  # CPU to store a row, the server's too
    page_ms: float  # to read a page of a client's queries
    sample_ms: float  # to draw 10,000 queries of the last week


def grown(rows: list[Row], directory: Path, days: Sequence[int], daily: int) -> Iterator[Grown]:
    """Postgres with ever more days in it, `daily` rows each."""
    server, (parts, _) = PostgresServer(directory), judged(rows)
    try:
        store, there = open_store(server.url), 0
        store.migrate()
        for count in days:
            first = _fill(store, parts, (count - there) * daily, count - there, there)
            there, last = count, first + (count - 1) * DAY_S
            new = [replace(one, queries=replace(one.queries, ts=last + np.mod(one.queries.ts, DAY_S))) for one in parts]
            server.settle()
            ours, theirs = _cpu(server, lambda new=new: write(store, new))  # type: ignore[misc]
            page = _middle(lambda: store.queries(client=parts[0].queries.client[0], limit=100))
            drawn = _middle(lambda last=last: _sample(store, last - 6 * DAY_S, SAMPLES[0]))  # type: ignore[misc]
            yield Grown(count, (ours + theirs) / sum(map(len, parts)) * 1e6, page * 1e3, drawn * 1e3)
        store.close()
    finally:
        server.stop()


def _middle(call: Callable[[], object]) -> float:
    """The median of ROUNDS."""
    return statistics.median(seconds(call) for _ in range(ROUNDS))


def _sample(store: Store, first: float, limit: int) -> Sample:
    return store.sample_normal(
        since=first,
        until=first + (DAYS + 1) * DAY_S,
        limit=limit,
        max_score=0.5,
        client_share=0.1,
        domain_share=0.02,
        features_version=1,
        seed=7,
    )
