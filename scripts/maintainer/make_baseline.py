"""Builds what the package ships in agents/baseline/: benign names to start from, golden names, and the model.

    python scripts/maintainer/make_baseline.py            (make train)

All names are made up from baseline_words.txt, the patterns in baseline_names.py and a seed; the same seed gives the
same files, byte for byte.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agents.learning.baseline import benign_names, benign_sample, sample_of
from agents.scoring.training import TrainConfig, train
from scripts.maintainer.baseline_names import lookalikes, names

TRAINING_NAMES = 10_000
"""The first model learns from this many of the benign names and is calibrated on all of them."""

SAMPLE_NAMES, GOLDEN_NAMES = 30_000, 6_000


def write(path: Path, lines: list[str]) -> None:
    with path.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
        file.write(("\n".join(lines) + "\n").encode())


def model() -> bytes:
    """The first model: learned from TRAINING_NAMES, calibrated on all benign names."""
    config = TrainConfig()
    facts = {"parent": "", "data": {"source": "shipped names", "live": 0, "topped_up": TRAINING_NAMES}}
    learn_from = benign_sample(TRAINING_NAMES, config.seed)
    return train(learn_from, sample_of(benign_names()), config, facts).to_bytes()


def main() -> None:
    target = Path(__file__).resolve().parents[2] / "agents" / "learning" / "baseline"
    write(target / "benign_names.txt.gz", names(SAMPLE_NAMES, seed=1))
    write(target / "golden_names.txt.gz", sorted(set(names(GOLDEN_NAMES, seed=2))))
    write(target / "lookalike_names.txt.gz", sorted(set(lookalikes(2_100, seed=3))))
    (target / "model.npz").write_bytes(model())


if __name__ == "__main__":
    main()
