#!/usr/bin/env python3
"""Measures the sequence model on labelled captures: what it finds of each tool, at which false alarms, and what else.

    python scripts/maintainer/compare_sequences.py MANIFEST.tsv [--epochs 10] [--length 10]

It learns from half of the clients of the benign captures; the other half, and each tunnel's session, are judged. A
window is odd from the surprise on that one learnt window in a thousand reaches. It is listed if it is even in pace,
asks for new names below one domain, and is odd or slow. Beacons are made: a new name of 4 to 8 letters each minute,
with some jitter.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from agents.core.types import QueryBatch, Row, batch_of
from agents.dns.name import from_text
from agents.learning.evaluation import read_manifest
from agents.learning.sequences.gru import SequenceModel, trained_network
from agents.learning.sequences.learning import ODD_SHARE
from agents.learning.sequences.steps import StepRows, Windows, joined_step_rows, step_rows_of, step_windows
from agents.learning.sequences.watch import even_windows, listed_windows
from agents.runtime.bootstrap import detector_of, load_settings, registry_of
from agents.sources import open_source

BATCHES_MAX, BATCH = 12, 1 << 14
PARAMS = {"device": "auto", "deep_batch": 256, "deep_rate": 0.004}
KEY = (5, 6)
JITTERS = (0.0, 0.05, 0.2, 0.5)
"""Of a beacon's minute: its pauses differ by so much."""


def windows_in(batches: list[QueryBatch], length: int, clients: dict[str, int] | None = None) -> Windows:
    """Windows of some traffic, judged by a detector that has seen nothing."""
    settings = load_settings()
    detector, numbers = detector_of(settings, registry_of(settings).current()), clients if clients is not None else {}
    heard: list[StepRows] = [step_rows_of(detector.detect(batch, explain=False), numbers, KEY) for batch in batches]
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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--length", type=int, default=10)
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
    learnt = [one.at(one.client % 2 == 0) for one in benign]
    judged = [one.at(one.client % 2 == 1) for one in benign]
    whole = Windows(*(np.concatenate([getattr(one, name) for one in learnt]) for name in Windows.__slots__))
    arrays = trained_network(whole, options.epochs, PARAMS, 1)
    model = SequenceModel(arrays, {"length": options.length, "odd_from": 0.0})
    odd_from = float(np.quantile(model.surprise(whole), 1 - ODD_SHARE))
    model = model.noted(odd_from=odd_from)
    print(f"{len(whole):,} windows learnt; odd from a surprise of {odd_from:.2f}\n")
    print("| windows of | windows | odd | even, new names | listed | sessions with a listed window |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    print_row("benign, other clients", judged, model)
    for tool, sessions in sorted(tunnels.items()):
        print_row(tool, sessions, model)
    for jitter in JITTERS:
        made = [windows_in([beacon(jitter, seed)], options.length) for seed in range(8)]
        print_row(f"beacons, jitter {jitter:.0%}", made, model)


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
