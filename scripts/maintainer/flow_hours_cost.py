"""What flow-hours cost a detector: CPU time of judging an hour of queries, and of what the collector does with it."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agents.core.types import QueryBatch, batch_of
from agents.dns.name import from_text
from agents.learning.baseline import benign_names
from agents.learning.loop.collector import HourCollector
from agents.runtime import bootstrap
from agents.store import open_store
from agents.store.feedback.flow_hours import FlowHourStore

CLIENTS, BATCH, BEGIN = 500, 1024, 1_767_225_600.0


def hour_of(queries: int, draw: np.random.Generator) -> list[QueryBatch]:
    """Queries of one hour: each client asks for shipped benign names, popular ones more often."""
    names = [from_text(name) for name in benign_names()]
    chosen = np.minimum(draw.zipf(1.3, queries) - 1, len(names) - 1)
    clients = draw.integers(CLIENTS, size=queries)
    ts = BEGIN + np.sort(draw.uniform(0, 3600, queries))
    rows = [
        (at, f"10.0.{client // 250}.{client % 250}", names[name], 1, 60, 0, 1, 90, 60, 1.0, "A")
        for at, client, name in zip(ts.tolist(), clients.tolist(), chosen.tolist(), strict=True)
    ]
    return [batch_of(rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)]


class Cost(NamedTuple):
    """Seconds of CPU: of judging, of noting domains beside it, of the turn of the hour; held: seconds of waiting."""

    judging: float
    noting: float
    turning: float
    held: float
    flows: int
    rows: int


def measured(folder: Path, queries: int) -> Cost:
    """An hour of so many queries, in a database of this folder."""
    settings = bootstrap.load_settings(data_dir=folder)
    detector = bootstrap.detector_of(settings, bootstrap.registry_of(settings).current())
    store = open_store(settings.store_url)
    store.migrate()
    collector = HourCollector(detector, FlowHourStore(store), settings.data_dir / "flow_hours.npz")
    batches = hour_of(queries, np.random.default_rng(1))
    detector.detect(batches[0])  # kernels are loaded
    collector.start()
    collector.turn(BEGIN)
    judging = noting = 0.0
    for batch in batches:
        begun = time.process_time()
        verdicts = detector.detect(batch)
        middle = time.process_time()
        collector.see(verdicts)
        noting += time.process_time() - middle
        judging += middle - begun
    begun, held = time.process_time(), time.perf_counter()
    collector.turn(BEGIN + 3600)
    held = time.perf_counter() - held
    collector.close(600)
    turning = time.process_time() - begun
    rows = sum(FlowHourStore(store).weeks(1).values())
    store.close()
    return Cost(judging, noting, turning, held, len(detector.flows), rows)


def main(queries: int) -> None:
    """Print what each part takes."""
    with tempfile.TemporaryDirectory() as folder:
        cost = measured(Path(folder), queries)
    print(f"{queries:,} queries of {CLIENTS} clients, {cost.flows:,} flows, {cost.rows:,} flow-hours written")
    print(
        f"noting domains: {cost.noting:.3f} s beside {cost.judging:.2f} s of judging, {cost.noting / cost.judging:.1%}"
    )
    share = f"{cost.turning / 3600:.3%} of a core"
    print(f"the turn of the hour: {cost.turning:.3f} s, {share}; judging waited {cost.held:.3f} s at most")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500_000)
