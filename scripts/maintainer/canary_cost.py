"""What a canary costs a detector: CPU time of judging an hour of queries without one, with a share, and in shadow."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agents.core.types import QueryBatch
from agents.detection.rollout.canary import Canary, CanaryCounts
from agents.runtime import bootstrap
from scripts.maintainer.flow_hours_cost import BATCH, BEGIN, CLIENTS, hour_of


def judged(batches: list[QueryBatch], share: float) -> tuple[float, float]:
    """CPU seconds of judging the batches, and seconds that taking over took. share: of the clients; 0 = no canary."""
    settings = bootstrap.load_settings(data_dir=Path(tempfile.mkdtemp()))
    model = bootstrap.registry_of(settings).current()
    main = bootstrap.detector_of(settings, model)
    main.detect(batches[0])  # kernels are loaded
    for batch in batches[: len(batches) // 4]:
        main.detect(batch)
    begun, canary = time.perf_counter(), None
    if share:
        second = bootstrap.detector_of(settings, model)
        canary = Canary(second, share, share == 1, CanaryCounts(model.model_id, BEGIN))
        canary.take_over(main, main.save(nullcontext()))
    taken = time.perf_counter() - begun
    begun = time.process_time()
    for batch in batches[len(batches) // 4 :]:
        verdicts = main.detect(batch)
        if canary is not None:
            canary.judge(batch, verdicts, main)
    return time.process_time() - begun, taken


def main(queries: int) -> None:
    """Print what each takes, the best of three runs."""
    batches = hour_of(queries, np.random.default_rng(1))
    print(f"{queries:,} queries of {CLIENTS} clients, {BATCH} a batch; the last three quarters are timed")
    alone = min(judged(batches, 0)[0] for _ in range(3))
    print(f"alone: {alone:.2f} s")
    for share, name in ((0.1, "a tenth of the clients"), (1.0, "in shadow, all clients")):
        runs = [judged(batches, share) for _ in range(3)]
        spent, taken = min(run[0] for run in runs), min(run[1] for run in runs)
        print(f"{name}: {spent:.2f} s, {spent / alone - 1:+.0%}; taking over the flows: {taken:.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
