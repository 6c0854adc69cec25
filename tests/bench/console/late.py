"""What it costs a writer that late hours are noted: CPU of a batch, with the notes and without, in turn in one run."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from agents.core.types import Verdicts
from agents.store import Store, open_store
from agents.store.sqlite import SqliteStore
from tests.bench.console.network import Network
from tests.bench.storing import LIVE_BATCH

ROUNDS = 2_000
"""How often each way is written: one batch after another, so that what else the machine does falls on all alike."""
LATE_S = 2 * 3_600.0


class _Unnoted(SqliteStore):
    """A store that does not look whether hours are late."""

    def _note_late(self, connection: object, parts: Sequence[Verdicts]) -> None:
        """Nothing."""


def late_notes(directory: Path, say: Callable[[str], None], rounds: int = ROUNDS) -> None:
    """Microseconds of CPU a batch: of one without notes, of one in time, of one whose hour is over long since."""
    url = f"sqlite:///{directory / 'late.db'}"
    store, unnoted = open_store(url), _Unnoted(open_store(url)._engine.url)
    store.migrate()
    ways: dict[str, tuple[Store, float]] = {
        "in time, not looked at": (unnoted, 0.0),
        "in time": (store, 0.0),
        "late, not looked at": (unnoted, LATE_S),
        "late": (store, LATE_S),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for part in _batches(rounds):
        for name, (one, ago) in ways.items():
            ts = np.arange(len(part), dtype=np.float64) * 1e-3 + (time.time() - ago)
            moved, batch_id = replace(part, queries=replace(part.queries, ts=ts)), uuid.uuid4().hex
            begun = time.thread_time()
            one.write(moved, batch_id)
            took[name].append((time.thread_time() - begun) * 1e6)
    say(f"CPU of a batch of {LIVE_BATCH} queries, median and mean of {rounds:,}, written in turn:")
    for name, times in took.items():
        say(f"  {statistics.median(times):7.0f} µs {statistics.fmean(times):7.0f} µs  {name}")
    store.close()
    unnoted.close()


def _batches(count: int) -> Iterator[Verdicts]:
    """Batches as a live detector writes them."""
    while True:
        for part in Network(50_000, 1, time.time()).parts():
            for at in range(0, len(part) - LIVE_BATCH, LIVE_BATCH):
                yield _slice(part, at)
                count -= 1
                if not count:
                    return


def _slice(part: Verdicts, at: int) -> Verdicts:
    rows = slice(at, at + LIVE_BATCH)
    return replace(
        part, queries=part.queries.part(at, at + LIVE_BATCH), domain=part.domain[rows], features=part.features[rows],
        score=part.score[rows], severity=part.severity[rows], reasons=part.reasons[rows], incidents=(),
    )  # fmt: skip
