#!/usr/bin/env python3
"""Measures the sequence model on labelled captures: what it finds of each tool, at which false alarms, and what else.

    python scripts/maintainer/compare_sequences.py MANIFEST.tsv [--epochs 10] [--length 10] [--types all]

It learns from a quarter of the clients of each benign capture; another quarter sets thresholds; the other half, and
each tunnel's session, are judged. A window is odd from the surprise on that one window in a thousand of the second
quarter reaches. It is listed if it is even in pace,
asks for new names below one domain, and is odd or slow. Beacons are made: a new name of 4 to 8 letters each minute,
with some jitter.

--types: detector types on the same windows as well, a step a place, beside the network: each learns from the same 3,000
windows of the first quarter, and 3,000 of the second one set its threshold at one in a thousand.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray

from agents.core.types import QueryBatch, Row, batch_of
from agents.detection.runner import verdicts_of
from agents.dns.name import from_text
from agents.learning.evaluation import read_manifest
from agents.learning.run import TypeResult
from agents.learning.sequences.bounds import USUAL_SEQUENCES
from agents.learning.sequences.gru import SequenceModel, trained_network
from agents.learning.sequences.learning import Train
from agents.learning.sequences.steps import StepRows, Windows, joined_step_rows, step_rows_of, step_windows
from agents.learning.sequences.watch import even_windows, listed_windows
from agents.learning.type_comparison import NAMES_MAX, Scene, TypeParams, compare_types
from agents.runtime.bootstrap import compared_types, detector_of, load_settings, registry_of
from agents.scoring.types.base import Rows
from agents.sources import open_source
from scripts.maintainer.compare_types import table

Arrays = Mapping[str, NDArray[np.float64]]
BATCHES_MAX, BATCH = 12, 1 << 14
PARAMS = {"device": "auto", "deep_batch": 256, "deep_rate": 0.004}
KEY = (5, 6)
JITTERS = (0.0, 0.05, 0.2, 0.5)
"""Of a beacon's minute: its pauses differ by so much."""


def windows_in(batches: list[QueryBatch], length: int, clients: dict[str, int] | None = None) -> Windows:
    """Windows of some traffic, judged by a detector that has seen nothing."""
    settings = load_settings()
    detector, numbers = detector_of(settings, registry_of(settings).current()), clients if clients is not None else {}
    judged = verdicts_of(detector, batches, explain=False, flush=False)
    heard: list[StepRows] = [step_rows_of(verdicts, numbers, KEY) for verdicts in judged]
    return step_windows(joined_step_rows(heard), length)


def read(paths: list[Path]) -> list[QueryBatch]:
    """At most BATCHES_MAX batches of a session."""
    source = open_source(paths)
    return [batch for _, batch in zip(range(BATCHES_MAX), source.batches(BATCH), strict=False)]


def beacon(jitter: float, seed: int) -> QueryBatch:
    """An hour of a program that asks for a new short name each minute."""
    draw, at = random.Random(seed), 1_767_571_200.0
    rows: list[Row] = []
    for _ in range(60):
        name = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(4, 8)))
        rows.append((at, "10.0.0.7", from_text(f"{name}.beacon.example"), 1, 60, 0, 1, 90, 60, 20.0, "A"))
        at += 60 * (1 + draw.uniform(-jitter, jitter))
    return batch_of(rows)


def rows_of(windows: Windows) -> Rows:
    """Windows as rows for detector types, a step after another."""
    return windows.steps.reshape(len(windows), -1)


def joined_windows(parts: Sequence[Windows]) -> Windows:
    """All windows of several sessions."""
    return Windows(*(np.concatenate([getattr(one, name) for one in parts]) for name in Windows.__slots__))


def shares_of(benign: Sequence[Windows]) -> tuple[Windows, Windows, list[Windows]]:
    """Windows to learn, those that set thresholds, and those that are judged, by session: of a quarter, of another
    quarter and of the other half of each session's clients, so that no client is in two of them."""
    parts = [[one.at(one.client % 4 == part) for one in benign] for part in (0, 2)]
    return joined_windows(parts[0]), joined_windows(parts[1]), [one.at(one.client % 2 == 1) for one in benign]


def some_of(windows: Windows) -> Windows:
    """As many of them as each detector type learns, by chance."""
    return windows.at(np.sort(np.random.default_rng(1).permutation(len(windows))[:NAMES_MAX]))


def odd_from(arrays: Arrays, length: int, calibrate: Windows) -> SequenceModel:
    """A network whose threshold windows set that it did not learn."""
    model = SequenceModel(arrays, {"length": length, "odd_from": 0.0})
    return model.noted(odd_from=float(np.quantile(model.surprise(calibrate), 1 - USUAL_SEQUENCES.odd_share)))


def network_beside(
    learn: Windows, calibrate: Windows, judged: Windows, tunnels: Mapping[str, Windows], epochs: int, train: Train
) -> TypeResult:
    """The recurrent network as a detector type: it learns, is calibrated and is judged by the same windows as these."""
    begun = time.perf_counter()
    arrays = train(learn, epochs, PARAMS, 1)
    fit_s = time.perf_counter() - begun
    model = odd_from(arrays, int(learn.steps.shape[1]), calibrate)
    begun = time.perf_counter()
    alarms = float((model.surprise(judged) > model.odd_from).mean())
    spent_us = (time.perf_counter() - begun) / max(len(judged), 1) * 1e6
    found = {tool: float((model.surprise(one) > model.odd_from).mean()) for tool, one in sorted(tunnels.items())}
    mean = float(np.mean(list(found.values())))
    return TypeResult("windows", "recurrent network", alarms, mean, found, fit_s, spent_us)


def types_beside(
    learn: Windows,
    calibrate: Windows,
    judged: Windows,
    tunnels: Mapping[str, Windows],
    types: Sequence[TypeParams],
    epochs: int,
    train: Train = trained_network,
) -> str:
    """What detector types, and the recurrent network, find in the same windows at the same share of false alarms."""
    learn, calibrate = some_of(learn), some_of(calibrate)
    network = network_beside(learn, calibrate, judged, tunnels, epochs, train)
    rows = {tool: rows_of(one) for tool, one in tunnels.items()}
    scene = Scene("windows", rows_of(learn), rows_of(calibrate), rows_of(judged), rows, int(learn.steps.shape[1]))
    return table([network, *compare_types([scene], types, USUAL_SEQUENCES.odd_share, 1)])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--length", type=int, default=10)
    parser.add_argument("--types", default="none", help="names of detector types, or all")
    options = parser.parse_args()
    benign: list[Windows] = []
    tunnels: defaultdict[str, list[Windows]] = defaultdict(list)
    for row in read_manifest(options.manifest):
        path = options.manifest.parent / row["file"]
        if not row["file"].endswith((".tsv", ".tsv.gz")) or row["kind"] not in ("benign", "tunnel-tool"):
            continue
        found = windows_in(read([path]), options.length)
        (benign if row["kind"] == "benign" else tunnels[row["tool"]]).append(found)
        print(f"  {row['file']}: {len(found)} windows", file=sys.stderr, flush=True)
    learn, calibrate, judged = shares_of(benign)
    begun = time.perf_counter()
    arrays = trained_network(learn, options.epochs, PARAMS, 1)
    spent_s = time.perf_counter() - begun
    model = odd_from(arrays, options.length, calibrate)
    print(f"{len(learn):,} windows learnt in {spent_s:.1f} s", end="; ")
    print(f"{len(calibrate):,} others say: odd from a surprise of {model.odd_from:.2f}\n")
    print("| windows of | windows | odd | even, new names | listed | sessions with a listed window |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    print_row("benign, other clients", judged, model)
    for tool, sessions in sorted(tunnels.items()):
        print_row(tool, sessions, model)
    for jitter in JITTERS:
        made = [windows_in([beacon(jitter, seed)], options.length) for seed in range(8)]
        print_row(f"beacons, jitter {jitter:.0%}", made, model)
    if types := compared_types(load_settings(compare_types=options.types)):
        together = {tool: joined_windows(sessions) for tool, sessions in tunnels.items()}
        print("\n" + types_beside(learn, calibrate, joined_windows(judged), together, types, options.epochs))


def print_row(name: str, sessions: list[Windows], model: SequenceModel) -> None:
    """One row of the table."""
    counts = [len(one) for one in sessions]
    odd = [int((model.surprise(one) >= model.odd_from).sum()) if len(one) else 0 for one in sessions]
    listed = [len(list(listed_windows(model, one))) for one in sessions]
    even, total = sum(len(even_windows(one)) for one in sessions), max(sum(counts), 1)
    print(
        f"| {name} | {sum(counts):,} | {sum(odd) / total:.2%} | {even / total:.2%} | {sum(listed) / total:.2%}"
        f" | {sum(map(bool, listed))} of {len(sessions)} |"
    )


if __name__ == "__main__":
    main()
