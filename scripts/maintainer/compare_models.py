"""Compares query models on the same split: benign names against the names of each tool's captures.

    python scripts/maintainer/compare_models.py MANIFEST.tsv

Every model learns from the shipped benign names alone; thresholds that need one are set where 1 in 1,000 shipped
names lies above. What is printed: the share of names above the threshold, benign ones and each tool's.
"""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from agents.learning.baseline import benign_names, model_bytes, sample_of
from agents.learning.evaluation import names_in, read_manifest
from agents.scoring.features import FEATURES, extract
from agents.scoring.model import Model
from agents.sources import open_source

SHARE = 0.001
SVM_NAMES, NAMES_MAX = 4_000, 20_000
LENGTH, ENTROPY, SUBDOMAIN = (
    [feature.name for feature in FEATURES].index(name) for name in ("name_length", "text_entropy", "subdomain_length")
)
Matrix = NDArray[np.float32]
Judge = Callable[[Matrix, Sequence[bytes]], NDArray[np.bool_]]


def above(score: Callable[[Matrix], NDArray[np.float64]], benign: Matrix) -> Judge:
    """A judge that flags what scores above all but SHARE of the benign names."""
    threshold = float(np.quantile(score(benign), 1 - SHARE))
    return lambda rows, names: np.asarray(score(rows) > threshold)


def judges(benign: Matrix) -> dict[str, Judge]:
    """Each model by name."""
    forest = IsolationForest(n_estimators=200, max_samples=256, random_state=42).fit(benign[:10_000])
    svm = make_pipeline(StandardScaler(), OneClassSVM(nu=0.001, gamma="scale")).fit(benign[:SVM_NAMES])
    reduced = make_pipeline(StandardScaler(), PCA(10), OneClassSVM(nu=0.001, gamma="scale")).fit(benign[:SVM_NAMES])
    shipped = Model.from_bytes(model_bytes())

    def by_forest(rows: Matrix) -> NDArray[np.float64]:
        return np.asarray(-forest.score_samples(rows))

    def by_svm(rows: Matrix) -> NDArray[np.float64]:
        return np.asarray(-svm.score_samples(rows))

    raw = [by_forest, by_svm]
    ranks = [np.sort(score(benign)) for score in raw]

    def together(rows: Matrix) -> NDArray[np.float64]:
        columns = [np.searchsorted(rank, score(rows)) for rank, score in zip(ranks, raw, strict=True)]
        return np.asarray(np.mean(columns, axis=0) + 1e-9 * sum(score(rows) for score in raw))

    return {
        "raw forest score > 0.5": lambda rows, names: np.asarray(by_forest(rows) > 0.5),
        "calibrated forest": above(by_forest, benign),
        "One-Class SVM": above(by_svm, benign),
        "PCA + One-Class SVM": above(lambda rows: -reduced.score_samples(rows), benign),
        "forest + SVM, mean rank": above(together, benign),
        "name longer than 52": lambda rows, names: np.asarray(rows[:, LENGTH] > 52),
        "subdomain >= 20, entropy > 3.8": lambda rows, names: np.asarray(
            (rows[:, SUBDOMAIN] >= 20) & (rows[:, ENTROPY] > 3.8)
        ),
        "shipped: forest + encoded bits": lambda rows, names: np.asarray(shipped.score(rows, names) >= 0.5),
    }


def names_of(manifest: Path) -> Mapping[str, list[bytes]]:
    """Unique names by group: benign lists with subdomains, hard negatives, each tool."""
    groups = defaultdict[str, set[bytes]](set)
    for row in read_manifest(manifest):
        path = manifest.parent / row["file"]
        if row["kind"] == "benign" and row["file"].endswith(".txt.gz") and "part_only" not in row["file"]:
            group = "hard benign" if "hard" in row["file"] else "benign"
            groups[group].update(name.lower() for name in names_in(path))
        elif row["kind"] == "tunnel-tool":
            for batch in open_source([path]).batches(1 << 16):
                groups[row["tool"]].update(name.lower() for name in batch.qname)
    rng = random.Random(1)
    return {group: rng.sample(sorted(names), min(len(names), NAMES_MAX)) for group, names in sorted(groups.items())}


def main(manifest: Path) -> None:
    groups = names_of(manifest)
    rows = {group: extract(names) for group, names in groups.items()}
    print(f"| model | {' | '.join(groups)} |")
    print(f"| --- |{' --- |' * len(groups)}")
    for name, judge in judges(sample_of(benign_names()).features).items():
        shares = [f"{judge(rows[group], groups[group]).mean():.2%}" for group in groups]
        print(f"| {name} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
