"""Compares models of windows on the same captures: is a forest on what a flow did better than limits in bytes?

    python scripts/maintainer/compare_windows.py MANIFEST.tsv

A row is one (client, domain) in ten minutes: queries, unique names, bytes of information and of encoded data, the
share of names that read as encoded, mean and longest name, query types, and the share of queries that ask anew. A
model learns from the windows of all benign captures but the one it is asked about (for tunnels: from all), with its
threshold where 1 in 1,000 of them lies above; DBSCAN groups those first, and what belongs to no group is left out.
No tunnel takes part in any choice. Printed: windows above the threshold of each benign capture held out, and for each
tool the sessions with one above it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from agents.core.types import QueryBatch
from agents.detection.detector import TunnelDetector
from agents.detection.limits import Scale
from agents.detection.runner import verdicts_of
from agents.learning.baseline import model_bytes
from agents.learning.evaluation import read_manifest
from agents.scoring.lexical import Lexical, read_names
from agents.scoring.model import Model
from agents.sources import open_source

WINDOW_S = 600
SHARE = 0.001
GROUP_MAX = 4_000
"""Windows that DBSCAN is given: it compares all with all."""
Rows = NDArray[np.float64]
Score = Callable[[Rows], NDArray[np.float64]]
ENCODED = 3


def windows(batch: QueryBatch, model: Model) -> Rows:
    """One row a window, shape (windows, 9)."""
    found = read_names(batch.qname, model, (0, 0))
    groups = defaultdict(list)
    clients = list(batch.client)
    for row, (ts, domain) in enumerate(zip(batch.ts.tolist(), found.domain_key.tolist(), strict=True)):
        groups[clients[row], domain, int(ts // WINDOW_S)].append(row)
    return np.array([window(np.array(rows), batch, found) for rows in groups.values()]).reshape(-1, 9)


def window(rows: NDArray[np.int64], batch: QueryBatch, found: Lexical) -> list[float]:
    """One window's numbers."""
    _, firsts = np.unique(found.name_key[rows], return_index=True)
    names = rows[firsts]
    parts = np.concatenate([np.arange(found.part_starts[row], found.part_starts[row + 1]) for row in names])
    _, once = np.unique(found.part_key[parts], return_index=True)
    parts = parts[once]
    bits, encoded = found.part_bits[parts], found.part_bits[parts] * found.part_encoded[parts]
    sizes = np.diff(found.names.starts)[names]
    return [
        float(len(rows)),
        float(len(names)),
        float(bits.sum() / 8),
        float(encoded.sum() / 8),
        float((found.part_encoded[parts] > 0).mean()) if len(parts) else 0.0,
        float(sizes.mean()),
        float(sizes.max()),
        float(len(np.unique(batch.qtype[rows]))),
        len(names) / len(rows),
    ]


def forest(rows: Rows) -> Score:
    made = IsolationForest(n_estimators=200, max_samples=256, random_state=42).fit(rows)
    return lambda other: np.asarray(-made.score_samples(other))


def grouped_forest(rows: Rows) -> Score:
    """A forest on what DBSCAN puts into a group."""
    some = rows[np.random.default_rng(1).permutation(len(rows))[:GROUP_MAX]]
    labels = DBSCAN(eps=0.5, min_samples=5).fit_predict(StandardScaler().fit_transform(np.log1p(some)))
    return forest(some[labels >= 0])


def svm(rows: Rows) -> Score:
    made = make_pipeline(StandardScaler(), OneClassSVM(nu=0.001, gamma="scale")).fit(np.log1p(rows[:GROUP_MAX]))
    return lambda other: np.asarray(-made.score_samples(np.log1p(other)))


def limit(_: Rows) -> Score:
    return lambda other: np.asarray(other[:, ENCODED])


MODELS: dict[str, Callable[[Rows], Score]] = {
    "forest on windows": forest,
    "DBSCAN, then forest on windows": grouped_forest,
    "One-Class SVM on windows": svm,
    "encoded bytes, threshold as learned": limit,
}


def above(learned: Rows, maker: Callable[[Rows], Score]) -> Callable[[Rows], NDArray[np.bool_]]:
    """What lies above all but SHARE of what was learned from."""
    score = maker(learned)
    threshold = np.quantile(score(learned), 1 - SHARE)
    return lambda rows: np.asarray(score(rows) > threshold)


def shipped(batches: Sequence[QueryBatch], detector: TunnelDetector) -> bool:
    """Whether the shipped detector opens an incident."""
    return any(verdicts.incidents for verdicts in verdicts_of(detector, batches, flush=False))


def main(manifest: Path) -> None:
    model = Model.from_bytes(model_bytes())
    benign: dict[str, Rows] = {}
    sessions: dict[str, list[tuple[Rows, bool]]] = defaultdict(list)
    silent = {}
    for row in read_manifest(manifest):
        if not row["file"].endswith((".tsv", ".tsv.gz")) or row["kind"] not in ("benign", "tunnel-tool"):
            continue
        batches = list(open_source([manifest.parent / row["file"]]).batches(1 << 20))
        rows = np.concatenate([windows(batch, model) for batch in batches])
        opened = shipped(batches, TunnelDetector(model, 200_000, 3600.0, Scale()))
        if row["kind"] == "benign":
            benign[row["file"]], silent[row["file"]] = rows, not opened
        else:
            sessions[row["tool"]].append((rows, opened))
    print_table(benign, silent, sessions)


def print_table(benign: dict[str, Rows], silent: dict[str, bool], sessions: dict[str, list[tuple[Rows, bool]]]) -> None:
    everything = np.concatenate(list(benign.values()))
    tools = sorted(sessions)
    print(f"| model | benign windows above, held out | {' | '.join(tools)} |")
    print(f"| --- | --- |{' --- |' * len(tools)}")
    for name, maker in MODELS.items():
        held = sum(
            int(above(np.concatenate([rows for other, rows in benign.items() if other != file]), maker)(own).sum())
            for file, own in benign.items()
        )
        judge = above(everything, maker)
        loud = f"{held} of {len(everything)} ({held / len(everything):.2%})"
        found = {tool: [(rows, bool(judge(rows).any())) for rows, _ in own] for tool, own in sessions.items()}
        print(f"| {name} | {loud} | {counted(found)} |")
    incidents = len(silent) - sum(silent.values())
    print(f"| shipped limits | {incidents} captures with an incident | {counted(sessions)} |")


def counted(sessions: dict[str, list[tuple[Rows, bool]]]) -> str:
    """Sessions found of all, a cell a tool."""
    each = [sessions[tool] for tool in sorted(sessions)]
    return " | ".join(f"{sum(found for _, found in own)}/{len(own)}" for own in each)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
