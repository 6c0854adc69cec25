"""What honeytokens cost the detector: CPU a query over one that has none, of names asked for once, and many times."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from agents.core.types import QueryBatch, batch_of
from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.detection.tripwires.honeytokens import new_list, save_honeytokens
from agents.detection.tripwires.tripwires import Tripwires
from agents.dns.name import from_text
from agents.learning.baseline import benign_names
from tests.bench.table import Figure
from tests.support.detecting import START, query, shipped_model

BATCH, ROUNDS, CLIENTS = 1024, 5, 500
TOKENS = 10
REPEATS = 4
"""Times that each name is asked for, in random order."""
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def honeytokens(directory: Path) -> Iterator[Figure]:
    """CPU a query of the detector alone."""
    rng, found = random.Random(1), new_list()
    for number in range(TOKENS):
        secret = "".join(rng.choices(LETTERS, k=32)).encode()
        found = found.with_token(f"token {number}", secret, "2026-01-01", shipped_model().chars.bits_of)
    save_honeytokens(directory / "honeytokens.json", found)
    names = [from_text(name) for name in benign_names()]
    for what, asked in (("asked once", 1), ("asked again and again", REPEATS)):
        order = names * asked
        rng.shuffle(order)
        rows = [query(START + n / 100, f"10.0.{n % CLIENTS // 250}.{n % 250}", name) for n, name in enumerate(order)]
        batches = [batch_of(rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)]
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for with_tokens, taken in times.items():
                path = directory / "honeytokens.json" if with_tokens else None
                taken.append(_spent(batches, Tripwires(path)) / len(rows) * 1e6)
        none, some = (statistics.median(taken) for taken in times.values())
        yield Figure(f"detector, {TOKENS} honeytokens, names {what}", some, "µs", none, "no honeytoken")


def _spent(batches: Sequence[QueryBatch], tripwires: Tripwires) -> float:
    detector = TunnelDetector(shipped_model(), 200_000, 3600.0, Scale(), tripwires=tripwires)
    begun = time.process_time()
    for batch in batches:
        detector.detect(batch)
    return time.process_time() - begun
