"""What is measured: replay, listener, forwarders, stores, retraining."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sklearn.ensemble import IsolationForest

from agents.features import extract
from agents.forest import TrainConfig, train
from agents.names import to_text
from agents.policy import Scale
from agents.shipped import benign_names, benign_sample, sample_of
from agents.store.opening import open_store
from agents.types import Row, Verdicts, batch_of
from agents.validation import fresh_detector
from tests.bench.forwarders import compared
from tests.bench.load import latencies, messages, percentile, rate
from tests.bench.table import Figure, seconds
from tests.detecting import shipped_model
from tests.listening import wait_until
from tests.lookalikes import ROLES, traffic
from tests.postgres_server import PostgresServer, _free_port

ONE_ROW_TIMES, BATCH = 100, 1024
LOAD_QUERIES, LOAD_S, LATENCY_QUERIES = 20_000, 10.0, 2_000
STORED = 20 * BATCH
REPOSITORY = Path(__file__).parent.parent.parent


def some_traffic() -> list[Row]:
    """A fifth of a day of the look-alike suite."""
    return traffic(7, tuple(role._replace(clients=max(role.clients // 5, 1)) for role in ROLES))


def dns_tunnel(directory: Path, *arguments: str, **settings: str) -> list[str]:
    """The command line of the program in a directory of its own."""
    command = ["env", "-i", f"PATH={os.environ['PATH']}", f"PYTHONPATH={REPOSITORY}", f"DATA_DIR={directory}"]
    command += ["LOG_LEVEL=error", *(f"{name}={value}" for name, value in settings.items())]
    return [*command, sys.executable, "-m", "agents", *arguments]


def replay(directory: Path) -> Iterator[Figure]:
    """Names a second, against scikit-learn scoring one row at a time."""
    rows, table = some_traffic(), directory / "traffic.tsv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        writer.writerow(("ts", "client", "qname", "qtype"))
        writer.writerows((row[0], row[1], to_text(row[2]), f"TYPE{row[3]}") for row in rows)
    command = dns_tunnel(directory, "replay", str(table), "--json", "-")
    done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    features = extract([row[2] for row in rows[:10_000]])
    forest = IsolationForest(n_estimators=200, max_samples=256, random_state=1).fit(features)
    one_row = seconds(lambda: [forest.score_samples(features[i : i + 1]) for i in range(ONE_ROW_TIMES)])
    measured = summary["queries"] / summary["seconds"]
    yield Figure("replay, queries judged", measured, "/s", ONE_ROW_TIMES / one_row, "scikit-learn, one row at a time")
    names = list({row[2].lower() for row in rows})
    took = seconds(
        lambda: [
            shipped_model().score(extract(names[i : i + BATCH]), names[i : i + BATCH])
            for i in range(0, len(names), BATCH)
        ]
    )
    yield Figure(
        "names scored, all new", len(names) / took, "/s", ONE_ROW_TIMES / one_row, "scikit-learn, one row at a time"
    )


@contextmanager
def _running(command: list[str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def listener(directory: Path) -> Iterator[Figure]:
    """Queries a second and added latency, against the bare stub that it forwards to."""
    queries = messages([row[2] for row in some_traffic()[:LOAD_QUERIES]])
    with _running([sys.executable, "-m", "tests.bench.stub"], REPOSITORY) as stub:
        assert stub.stdout is not None
        bare, port = int(stub.stdout.readline()), _free_port()
        settings = {"LISTEN_PORT": str(port), "UPSTREAMS": f"127.0.0.1:{bare}"}
        with _running(dns_tunnel(directory, "listen", **settings), directory):
            wait_until(lambda: _answers(port, queries[0]), 30)
            yield from _compared(bare, port, queries)


def _answers(port: int, query: bytes) -> bool:
    try:
        return bool(latencies(port, [query], 1.0))
    except ConnectionRefusedError:
        return False


def _compared(bare: int, port: int, queries: list[bytes]) -> Iterator[Figure]:
    against = "the stub upstream itself"
    alone, _ = rate(bare, queries, LOAD_S)
    through, share = rate(port, queries, LOAD_S)
    yield Figure(f"listener, queries answered ({share:.1%})", through, "/s", alone, against)
    direct = latencies(bare, queries[:LATENCY_QUERIES], LOAD_S)
    forwarded = latencies(port, queries[:LATENCY_QUERIES], LOAD_S)
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        base, measured = percentile(direct, part), percentile(forwarded, part)
        yield Figure(f"listener, latency {name} ({measured - base:+.2f} ms)", measured, "ms", base, against)


def forwarders(directory: Path) -> Iterator[Figure]:
    """Forwarding, beside forwarders that people run today; skipped in one line where dnsdist or dnsperf is missing."""
    yield from compared(directory, _free_port())


def _verdicts() -> list[Verdicts]:
    rows, detector = some_traffic()[:STORED], fresh_detector(shipped_model(), Scale())
    return [detector.detect(batch_of(rows[at : at + BATCH])) for at in range(0, len(rows), BATCH)]


def _bare_sqlite(directory: Path, judged: list[Verdicts]) -> float:
    """Rows a second into a table without index or constraint."""
    connection = sqlite3.connect(directory / "bare.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE rows (ts REAL, client TEXT, qname BLOB, qtype INTEGER, score REAL, features BLOB)")

    def write() -> None:
        for part in judged:
            queries, features = part.queries, [row.tobytes() for row in part.features]
            columns = (queries.ts.tolist(), queries.client, queries.qname, queries.qtype.tolist(), part.score.tolist())
            with connection:
                connection.executemany("INSERT INTO rows VALUES (?,?,?,?,?,?)", zip(*columns, features, strict=True))

    took = seconds(write)
    connection.close()
    return sum(map(len, judged)) / took


def stores(directory: Path) -> Iterator[Figure]:
    """Rows a second on SQLite and Postgres, against a bare SQLite table."""
    judged = _verdicts()
    bare = _bare_sqlite(directory, judged)
    server = PostgresServer(directory)
    try:
        for kind, url in (("SQLite", f"sqlite:///{directory / 'store.db'}"), ("Postgres", server.url)):
            store = open_store(url)
            store.migrate()
            took = seconds(lambda store=store: [store.write(part, uuid.uuid4().hex) for part in judged])  # type: ignore[misc]
            store.close()
            measured = sum(map(len, judged)) / took
            yield Figure(f"rows stored, {kind}", measured, "/s", bare, "a bare SQLite table")
    finally:
        server.stop()


def retraining(directory: Path) -> Iterator[Figure]:
    """Seconds for 10,000 names, against scikit-learn's fit alone."""
    sample, ordinary = benign_sample(10_000, 42), sample_of(benign_names())
    fit = seconds(lambda: IsolationForest(n_estimators=200, max_samples=256, random_state=1).fit(sample.features))
    trained = seconds(lambda: train(sample, ordinary, TrainConfig(), {}))
    yield Figure("train and calibrate on 10,000 names", trained, "s", fit, "scikit-learn's fit alone")
    command = dns_tunnel(directory, "retrain", "--samples", "10000")
    whole = seconds(lambda: subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL))
    yield Figure("dns-tunnel retrain, start to exit", whole, "s", fit, "scikit-learn's fit alone")


PARTS = {
    "replay": replay,
    "listener": listener,
    "forwarders": forwarders,
    "stores": stores,
    "retraining": retraining,
}
