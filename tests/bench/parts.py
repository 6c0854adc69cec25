"""What is measured: replay, listener, forwarders, stores, retraining."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sklearn.ensemble import IsolationForest

from agents.core.types import Row
from agents.learning.baseline import benign_names, benign_sample, sample_of
from agents.scoring.training import TrainConfig, train
from scripts.maintainer import flow_hours_cost
from tests.bench import storing
from tests.bench.bus import bus, takeover
from tests.bench.forwarders import compared, hits
from tests.bench.hunting import hunting
from tests.bench.intakes import intakes
from tests.bench.kernels import reading
from tests.bench.live import footprint, live
from tests.bench.load import latencies, messages, percentile, rate
from tests.bench.processes import REPOSITORY, dns_tunnel
from tests.bench.replaying import replay
from tests.bench.several import several
from tests.bench.table import Figure, seconds
from tests.bench.tokens import honeytokens
from tests.corpora.lookalikes import ROLES, traffic
from tests.support.filled import fill
from tests.support.listening import wait_until
from tests.support.running import free_port

LOAD_QUERIES, LOAD_S, LATENCY_QUERIES = 20_000, 10.0, 2_000
HOUR_QUERIES = 500_000


def some_traffic() -> list[Row]:
    """A fifth of a day of the look-alike suite."""
    return traffic(7, tuple(role._replace(clients=max(role.clients // 5, 1)) for role in ROLES))


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
        bare, port = int(stub.stdout.readline()), free_port()
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
    yield from compared(directory, free_port())


def caches(directory: Path) -> Iterator[Figure]:
    """What a hit costs beside a forwarded query; skipped in one line where dnsperf is missing."""
    yield from hits(directory, free_port())


def stores(directory: Path) -> Iterator[Figure]:
    """Rows written, on SQLite and Postgres."""
    yield from storing.stores(some_traffic(), directory)


def hunts(directory: Path) -> Iterator[Figure]:
    """Closed days in files: bytes a row, and seconds of hunts."""
    yield from hunting(some_traffic(), directory)


def sampling(directory: Path) -> Iterator[Figure]:
    """The training sample out of a full database."""
    yield from storing.sampling(some_traffic(), directory)


def retraining(directory: Path) -> Iterator[Figure]:
    """Seconds for 10,000 names, against scikit-learn's fit alone."""
    sample, ordinary = benign_sample(10_000, 42), sample_of(benign_names())
    fit = seconds(lambda: IsolationForest(n_estimators=200, max_samples=256, random_state=1).fit(sample.features))
    trained = seconds(lambda: train(sample, ordinary, TrainConfig(), {}))
    yield Figure("train and calibrate on 10,000 names", trained, "s", fit, "scikit-learn's fit alone")
    fill(directory)
    command = dns_tunnel(directory, "retrain", "--samples", "10000")
    whole = seconds(lambda: subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL))
    yield Figure("dns-tunnel retrain, start to exit", whole, "s", fit, "scikit-learn's fit alone")


def hours(directory: Path) -> Iterator[Figure]:
    """What flow-hours cost beside judging: at most 3 % of it."""
    cost = flow_hours_cost.measured(directory, HOUR_QUERIES)
    yield Figure("CPU of judging, with flow-hours", cost.judging + cost.noting, "s", cost.judging, "judging alone")


PARTS = {
    "reading": reading,
    "replay": replay,
    "listener": listener,
    "forwarders": forwarders,
    "caches": caches,
    "live": live,
    "footprint": footprint,
    "stores": stores,
    "hunting": hunts,
    "sampling": sampling,
    "retraining": retraining,
    "honeytokens": honeytokens,
    "intakes": intakes,
    "hours": hours,
    "several": several,
    "bus": bus,
    "takeover": takeover,
}
