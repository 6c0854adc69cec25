"""Trees of the query model between sites: what a site sends of its forest, and a candidate made of a joined one.

Trees cut features of names (lengths, shares, entropies) and hold no name. What else is in a model, its letters and
labels, stays where it is: a candidate keeps the site's own, and is calibrated by the site on shipped names.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.types import Sample
from agents.learning.fleet.exchange import TREE_SAMPLES, TREES_JOINED, TREES_SENT, ForestPart, forest_part
from agents.scoring.model import Model, digest
from agents.scoring.training import TrainConfig, calibration
from agents.scoring.types.forest import IsolationForestScorer, raw_scores

_TREES = ("feature", "threshold", "path")


def sent_trees(model: Model) -> ForestPart | None:
    """Trees of a site's query model, drawn anew each time; None where it is no forest of the usual samples."""
    if not _is_forest(model):
        return None
    count = len(model.arrays["feature"])
    draw = np.random.default_rng(secrets.randbits(64))
    rows = draw.choice(count, min(TREES_SENT, count), replace=False)
    return forest_part({name: model.arrays[name][rows] for name in _TREES})


def _is_forest(model: Model) -> bool:
    params = model.manifest.get("params")
    samples = params.get("max_samples") if isinstance(params, dict) else None
    return model.manifest.get("algorithm") == IsolationForestScorer.algorithm and samples == TREE_SAMPLES


def joined_candidate(
    model: Model, forest: ForestPart, number: int, benign: Sample, config: TrainConfig
) -> Model | None:
    """The model in use with the fleet's trees beside its own, calibrated anew on `benign`; None where it is no forest.

    Its own trees fill it up to TREES_JOINED. number: of the round. config: where severities begin.
    """
    if not _is_forest(model):
        return None
    joined = forest.arrays()
    own = max(TREES_JOINED - forest.trees, 0)
    trees: dict[str, NDArray[Any]] = {
        name: np.concatenate([joined[name], model.arrays[name][:own]]).astype(model.arrays[name].dtype)
        for name in _TREES
    }
    raw = raw_scores(trees, benign.features, TREE_SAMPLES)
    knots_raw, knots_score = calibration(raw, config)
    arrays = {**model.arrays, **trees, "knots_raw": knots_raw, "knots_score": knots_score}
    params = {**model.manifest["params"], "n_estimators": len(trees["feature"])}
    facts = {"parent": model.model_id, "fleet_round": number, "params": params, "arrays_sha256": digest(arrays)}
    made = replace(model, arrays=arrays, manifest={**model.manifest, **facts})
    return Model.from_bytes(made.to_bytes())
