"""Replay end to end: captures of distinct names, without and with a real Postgres, in CPU of all processes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sklearn.ensemble import IsolationForest

from agents.core.columns import lowered
from agents.scoring.features import extract
from tests.bench.ibhh import HeavyHitters
from tests.bench.processes import dns_tunnel, spent_by
from tests.bench.table import Figure, seconds
from tests.support.make_capture import names, write
from tests.support.postgres_server import PostgresServer

BATCH, ONE_ROW_TIMES, ROUNDS = 1024, 100, 3
NAMES, PLAIN_NAMES, FEW = 400_000, 10_000, 100
CLIENTS, BUSY_CLIENTS = 60_000, 500
"""Some new names a client; and so many that each of the clients is an incident, whose evidence costs most."""
BASE = "scikit-learn, one row at a time"


def one_row_rate() -> float:
    """Names a second that scikit-learn's forest of the same size scores one at a time."""
    features = extract(list(islice(names(5_000), 5_000)))
    forest = IsolationForest(n_estimators=200, max_samples=256, random_state=1).fit(features)
    return ONE_ROW_TIMES / seconds(lambda: [forest.score_samples(features[i : i + 1]) for i in range(ONE_ROW_TIMES)])


def heavy_hitters_rate() -> float:
    """Names a second and core of the published method (ibhh.py), every name new."""
    distinct = names(NAMES)
    batches = [lowered(list(islice(distinct, BATCH))) for _ in range(NAMES // BATCH)]
    HeavyHitters().add(batches[0])
    table = HeavyHitters()
    return len(batches) * BATCH / seconds(lambda: table.add_all(batches))


def replay(directory: Path) -> Iterator[Figure]:
    """Names a second and core: the CPU of a whole run less that of a run of few names, which is its start."""
    few, plain, many, busy = (directory / f"{name}.pcap" for name in ("few", "plain", "many", "busy"))
    for path, count, clients in ((few, FEW, 500), (plain, PLAIN_NAMES, CLIENTS), (many, NAMES, CLIENTS)):
        write(path, count, clients)
    write(busy, NAMES, BUSY_CLIENTS)

    def spent(path: Path, *options: str, **settings: str) -> tuple[float, float]:
        return spent_by(dns_tunnel(directory, "replay", str(path), "--json", "-", *options, **settings), directory)

    def cost(path: Path, *options: str, **settings: str) -> float:
        return spent(path, *options, **settings)[0]

    cost(few)
    base, scored, wall, stored, client, server_cpu = one_row_rate(), [], [], [], [], []
    for round_ in range(ROUNDS):
        (cpu, clock), (cpu_few, clock_few) = spent(many), spent(few)
        scored.append((NAMES - FEW) / (cpu - cpu_few))
        wall.append((NAMES - FEW) / (clock - clock_few))
        (directory / f"postgres{round_}").mkdir()
        server = PostgresServer(directory / f"postgres{round_}")
        try:
            start = cost(few, "--store", DATABASE_URL=server.url)
            before = server.cpu_seconds()
            ours = cost(many, "--store", DATABASE_URL=server.url) - start
            theirs = server.cpu_seconds() - before
        finally:
            server.stop()
        stored.append(NAMES / (ours + theirs))
        client.append(ours / NAMES * 1e6)
        server_cpu.append(theirs / NAMES * 1e6)
    slow = (PLAIN_NAMES - FEW) / (cost(plain, COMPILED="off") - cost(few, COMPILED="off"))
    middle = statistics.median
    yield Figure("replay, scored, a core", middle(scored), "/s", base, BASE)
    yield Figure("replay, scored, wall clock, all cores", middle(wall), "/s", middle(scored), "a core")
    yield Figure("replay, scored and stored in Postgres, a core", middle(stored), "/s", base, BASE)
    yield Figure("… of it the program", middle(client), "µs", middle(server_cpu), "Postgres")
    incidents = (NAMES - FEW) / (cost(busy) - cost(few))
    yield Figure("replay, every client an incident, a core", incidents, "/s", middle(scored), "no incident")
    yield Figure("replay, scored, without kernels, a core", slow, "/s", middle(scored), "with kernels")
    yield Figure("replay, scored, a core", middle(scored), "/s", heavy_hitters_rate(), "ibHH, its table alone")
