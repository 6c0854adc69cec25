"""What is measured: replay, listener, forwarders, stores, retraining."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sklearn.ensemble import IsolationForest

from agents.features import extract
from agents.forest import TrainConfig, train
from agents.names import to_text
from agents.shipped import benign_names, benign_sample, sample_of
from agents.types import Row
from tests.bench import storing
from tests.bench.forwarders import compared
from tests.bench.kernels import reading
from tests.bench.load import latencies, messages, percentile, rate
from tests.bench.table import Figure, seconds
from tests.detecting import shipped_model
from tests.listening import wait_until
from tests.lookalikes import ROLES, traffic
from tests.postgres_server import _free_port

ONE_ROW_TIMES, BATCH = 100, 1024
LOAD_QUERIES, LOAD_S, LATENCY_QUERIES = 20_000, 10.0, 2_000
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


def stores(directory: Path) -> Iterator[Figure]:
    """Rows written, on SQLite and Postgres."""
    yield from storing.stores(some_traffic(), directory)


def sampling(directory: Path) -> Iterator[Figure]:
    """The training sample out of a full database."""
    yield from storing.sampling(some_traffic(), directory)


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
    "reading": reading,
    "replay": replay,
    "listener": listener,
    "forwarders": forwarders,
    "stores": stores,
    "sampling": sampling,
    "retraining": retraining,
}
