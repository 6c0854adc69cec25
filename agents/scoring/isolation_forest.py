"""The Isolation Forest (Liu, Ting, Zhou 2008): trained with scikit-learn, kept as a Model of plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import lowered
from agents.core.errors import TrainingError
from agents.core.protocols import Spec
from agents.core.types import Sample
from agents.dns.name import labels_of, split_names, wires_of
from agents.scoring.features import FEATURES, SCHEMA
from agents.scoring.information import CharModel, learn
from agents.scoring.model import DEPTH, FORMAT, INNER, LEAVES, Model, TrainConfig, average_path, digest, scores_of

__all__ = ["VOTES", "TrainConfig", "calibration", "train"]

VOTES = 2
"""Each vote gets 1/VOTES of the allowed false positives (Bonferroni), since the louder vote decides."""
BITS_SUSPICIOUS, BITS_HIGH = 130.0, 136.0
"""Just above 16 bytes, and 17 bytes. Bits have an absolute meaning, so they are not calibrated on a network's traffic:
16 bytes are an MD5 or a UUID (RFC 9562), the longest identifiers that ordinary services put into names."""


def train(learn_from: Sample, calibrate_on: Sample, config: TrainConfig, facts: dict[str, Any]) -> Model:
    """Fit on `learn_from`, calibrate on both samples; `facts` (window, parent, counts) go into the manifest.

    `calibrate_on` is trusted; an attacker may have placed names in `learn_from`.
    Raises TrainingError if there are fewer than 2 rows.
    """
    # Imported here: scikit-learn takes longer to import than all other modules, and only a retraining needs it.
    import sklearn
    from sklearn.ensemble import IsolationForest

    if len(learn_from) < 2:
        raise TrainingError("cannot train on fewer than 2 queries")
    max_samples = min(config.max_samples, len(learn_from))
    forest = IsolationForest(n_estimators=config.n_estimators, max_samples=max_samples, random_state=config.seed)
    forest.fit(learn_from.features)
    arrays = _trees(forest)
    trusted = set(calibrate_on.qname)
    arrays |= _codes(learn(_subdomains(trusted), _subdomains(set(learn_from.qname) - trusted)))
    benign = np.concatenate([learn_from.features, calibrate_on.features])
    arrays["knots_raw"], arrays["knots_score"] = calibration(scores_of(arrays, benign, max_samples), config)
    arrays["bits_raw"] = np.array([0.0, BITS_SUSPICIOUS, BITS_HIGH, 2 * BITS_HIGH])
    arrays["bits_score"] = np.array([0.0, config.score_suspicious, config.score_high, 1.0])
    manifest = {
        "format": FORMAT,
        "algorithm": "Isolation Forest",
        "feature_schema": SCHEMA,
        "features": [feature.name for feature in FEATURES],
        "params": asdict(config) | {"max_samples": max_samples},
        "seed": config.seed,
        "arrays_sha256": digest(arrays),
        "versions": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
        **facts,
    }
    return Model(arrays, manifest)


def _subdomains(names: Iterable[str]) -> list[tuple[bytes, ...]]:
    wires = lowered(wires_of(sorted(names)))
    cuts = split_names(wires).cuts.tolist()
    return [labels_of(wire[:cut]) for wire, cut in zip(wires, cuts, strict=True)]


def _trees(forest: Any) -> dict[str, NDArray[Any]]:
    count = len(forest.estimators_)
    feature = np.zeros((count, INNER), dtype=np.uint8)
    threshold = np.full((count, INNER), np.inf, dtype=np.float32)
    path = np.zeros((count, LEAVES), dtype=np.float32)
    for number, estimator in enumerate(forest.estimators_):
        _fill(estimator.tree_, feature[number], threshold[number], path[number])
    return {"feature": feature, "threshold": threshold, "path": path}


def _fill(tree: Any, feature: NDArray[np.uint8], threshold: NDArray[np.float32], path: NDArray[np.float32]) -> None:
    """Lay one scikit-learn tree out as a complete tree: a leaf above the bottom owns all bottom leaves below it."""
    lefts, rights = tree.children_left.tolist(), tree.children_right.tolist()
    features, samples = tree.feature.tolist(), tree.n_node_samples.tolist()
    thresholds = tree.threshold  # kept as float64: a Python float compared with a float32 would be rounded to float32
    todo = [(0, 0, 0)]  # node in scikit-learn's tree, place in the complete tree, depth
    while todo:
        node, place, depth = todo.pop()
        left, right = lefts[node], rights[node]
        if left == right:
            first = ((place + 1) << (DEPTH - depth)) - 1 - INNER
            path[first : first + (1 << (DEPTH - depth))] = depth + average_path(samples[node])
            continue
        feature[place] = features[node]
        threshold[place] = _round_down(thresholds[node])
        todo += [(left, 2 * place + 1, depth + 1), (right, 2 * place + 2, depth + 1)]


def _round_down(value: float) -> np.float32:
    """Largest float32 not above `value`: for float32 x, x <= value and x <= result are then the same test."""
    single = np.float32(value)
    return single if single <= value else np.nextafter(single, np.float32(-np.inf))


def calibration(raw: NDArray[np.float64], config: TrainConfig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Knots from raw scores to shown scores, such that shown scores mean the same after every training.

    The shown score is linear in -log10 P(benign raw score above) between (1, 0), (benign_above_suspicious,
    score_suspicious) and (benign_above_high, score_high), and continues to 1 with the last slope. In the highest 0.1 %
    of raw scores the tail is assumed to be exponential (peaks over threshold: Pickands 1975), since 10,000 names are
    too few to estimate the score of 1 in 100,000.
    """
    tail = 0.001
    ordered = np.sort(raw)
    start = float(np.quantile(ordered, 1 - tail))
    mean_excess = max(float((ordered[ordered > start] - start).mean()) if (ordered > start).any() else 0.0, 1e-6)
    probabilities = np.concatenate([np.logspace(0, -3, 61)[:-1], np.logspace(-3, -8, 51)])
    knots = np.where(
        probabilities > tail,
        np.quantile(ordered, 1 - np.maximum(probabilities, tail)),
        start + mean_excess * np.log(tail / np.minimum(probabilities, tail)),
    )
    decades = -np.log10(probabilities)
    at = [0.0, -np.log10(config.benign_above_suspicious / VOTES), -np.log10(config.benign_above_high / VOTES)]
    if at[2] <= at[1]:
        raise TrainingError(
            f"cannot calibrate: benign_above_high {config.benign_above_high:g} is not below"
            f" benign_above_suspicious {config.benign_above_suspicious:g}"
        )
    slope = (config.score_high - config.score_suspicious) / (at[2] - at[1])
    end = at[2] + (1 - config.score_high) / slope
    shown = np.interp(decades, [*at, end], [0.0, config.score_suspicious, config.score_high, 1.0])
    rising = np.concatenate([[True], np.diff(knots) > 0])
    return knots[rising], shown[rising]


def _codes(chars: CharModel) -> dict[str, NDArray[Any]]:
    return {
        "char_bits": np.minimum(np.round(chars.bits * 100), 65535).astype(np.uint16),
        "label_bits": np.array([bits * 100 for bits in chars.common.values()], dtype=np.uint16),
        "label_text": np.frombuffer(b"\n".join(chars.common), dtype=np.uint8),
    }


@dataclass(frozen=True, slots=True)
class IsolationForestType:
    """The detector type (a ModelType): trains models and reads their files."""

    config: TrainConfig

    def train(self, learn_from: Sample, calibrate_on: Sample, seed: int, facts: Mapping[str, Any]) -> Model:
        """See train()."""
        return train(learn_from, calibrate_on, replace(self.config, seed=seed), dict(facts))

    def load(self, data: bytes) -> Model:
        """See Model.from_bytes."""
        return Model.from_bytes(data)


SPEC: Spec[IsolationForestType] = Spec(
    name="isolation_forest",
    summary="an Isolation Forest over the features of a name, beside the bits that its labels encode",
    fields=(),
    factory=lambda values, config: IsolationForestType(config),
)
