"""The Isolation Forest (Liu, Ting, Zhou 2008): trained with scikit-learn, kept as complete trees.

Arrays
    feature    uint8   (trees, 255)  column tested by each inner node of a complete tree of depth 8
    threshold  float32 (trees, 255)  go left if x <= threshold; +inf = always left
    path       float32 (trees, 256)  path length at each leaf (Liu, Ting, Zhou 2008, equation 1)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from agents.core.jit import COMPILED
from agents.core.protocols import Spec
from agents.scoring import model_kernels
from agents.scoring.types.base import CHUNK, OutlierScorer, Rows, Values

DEPTH = 8
"""ceil(log2(256)): the height limit for samples of 256 (Liu, Ting, Zhou 2008, section 4)."""
INNER, LEAVES = 2**DEPTH - 1, 2**DEPTH
MANY = 1 << 16
"""From this many rows on, they are divided among all cores."""


@lru_cache(maxsize=512)
def average_path(samples: float) -> float:
    """c(n): average path length of an unsuccessful search in a binary search tree (Liu, Ting, Zhou 2008, eq. 1)."""
    if samples <= 1:
        return 0.0
    if samples <= 2:
        return 1.0
    return float(2 * (np.log(samples - 1) + np.euler_gamma) - 2 * (samples - 1) / samples)


def raw_scores(arrays: Mapping[str, NDArray[Any]], features: NDArray[np.float32], sample: int) -> NDArray[np.float64]:
    """Anomaly score s = 2^(-E[h]/c(n)) of each row, 0..1, high = anomalous (Liu, Ting, Zhou 2008, equation 2)."""
    feature, threshold, path = (arrays[name].ravel() for name in ("feature", "threshold", "path"))
    inner = np.arange(len(arrays["feature"])) * INNER
    leaves = np.arange(len(arrays["feature"])) * LEAVES - INNER
    depth = np.empty(len(features))
    for start in range(0, len(features), CHUNK):
        rows = np.ascontiguousarray(features[start : start + CHUNK])
        at = np.zeros((len(rows), len(inner)), dtype=np.int64)
        lines = np.arange(len(rows))[:, None] * rows.shape[1]
        for _ in range(DEPTH):
            node = at + inner
            at += at + 1
            at += rows.take(feature.take(node) + lines) > threshold.take(node)
        depth[start : start + CHUNK] = path.take(at + leaves).mean(axis=1, dtype=np.float64)
    return np.asarray(np.exp2(-depth / average_path(sample)))


def scores_of(arrays: Mapping[str, NDArray[Any]], features: NDArray[np.float32], sample: int) -> NDArray[np.float64]:
    """The same numbers as raw_scores, to the last bit, by a kernel if kernels are compiled."""
    if not COMPILED:
        return raw_scores(arrays, features, sample)
    found, rows = np.empty(len(features)), np.ascontiguousarray(features, np.float32)
    trees = arrays["feature"], arrays["threshold"], arrays["path"], DEPTH, average_path(sample)
    if len(rows) < MANY:
        model_kernels.exponents(rows, *trees, found)
    else:
        cores = os.cpu_count() or 1
        ends = [len(rows) * core // cores for core in range(cores + 1)]
        with ThreadPoolExecutor(cores) as threads:
            parts = [(rows[begin:end], *trees, found[begin:end]) for begin, end in pairwise(ends)]
            list(threads.map(model_kernels.exponents, *zip(*parts, strict=True)))
    return np.exp2(found, out=found)


def complete_trees(forest: Any, leaf: Callable[[Any, int, int], float]) -> dict[str, NDArray[Any]]:
    """The arrays of scikit-learn's trees, none deeper than DEPTH. leaf: value of (tree, leaf's node, its depth)."""
    count = len(forest.estimators_)
    feature = np.zeros((count, INNER), dtype=np.uint8)
    threshold = np.full((count, INNER), np.inf, dtype=np.float32)
    path = np.zeros((count, LEAVES), dtype=np.float32)
    for number, estimator in enumerate(forest.estimators_):
        _fill(estimator.tree_, leaf, feature[number], threshold[number], path[number])
    return {"feature": feature, "threshold": threshold, "path": path}


def _path_length(tree: Any, leaf: int, depth: int) -> float:
    return depth + average_path(int(tree.n_node_samples[leaf]))


def _fill(
    tree: Any,
    leaf: Callable[[Any, int, int], float],
    feature: NDArray[np.uint8],
    threshold: NDArray[np.float32],
    path: NDArray[np.float32],
) -> None:
    """Lay one scikit-learn tree out as a complete tree: a leaf above the bottom owns all bottom leaves below it."""
    lefts, rights = tree.children_left.tolist(), tree.children_right.tolist()
    features = tree.feature.tolist()
    thresholds = tree.threshold  # kept as float64: a Python float compared with a float32 would be rounded to float32
    todo = [(0, 0, 0)]  # node in scikit-learn's tree, place in the complete tree, depth
    while todo:
        node, place, depth = todo.pop()
        left, right = lefts[node], rights[node]
        if left == right:
            first = ((place + 1) << (DEPTH - depth)) - 1 - INNER
            path[first : first + (1 << (DEPTH - depth))] = leaf(tree, node, depth)
            continue
        feature[place] = features[node]
        threshold[place] = _round_down(thresholds[node])
        todo += [(left, 2 * place + 1, depth + 1), (right, 2 * place + 2, depth + 1)]


def _round_down(value: float) -> np.float32:
    """Largest float32 not above `value`: for float32 x, x <= value and x <= result are then the same test."""
    single = np.float32(value)
    return single if single <= value else np.nextafter(single, np.float32(-np.inf))


class IsolationForestScorer(OutlierScorer):
    """Trees that cut a sample apart; a row that is alone after few cuts is odd. max_samples: rows of each tree."""

    algorithm = "Isolation Forest"
    options: ClassVar[tuple[str, ...]] = ("n_estimators", "max_samples")
    libraries: ClassVar[tuple[str, ...]] = ("scikit-learn",)
    shapes: ClassVar = {"feature": ("uint8", 2), "threshold": ("float32", 2), "path": ("float32", 2)}

    def score(self, rows: Rows) -> Values:
        return scores_of(self.arrays, rows, int(self.params["max_samples"]))

    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]:
        # Imported here: scikit-learn takes longer to import than all other modules, and only a retraining needs it.
        from sklearn.ensemble import IsolationForest

        self.params["max_samples"] = min(self.params["max_samples"], len(rows))
        forest = IsolationForest(**self.params, random_state=seed)
        return complete_trees(forest.fit(rows), _path_length)

    def _check(self, width: int) -> None:
        feature, threshold, path = (self.arrays[name] for name in ("feature", "threshold", "path"))
        trees = len(feature)
        shapes = ((trees, INNER), (trees, INNER), (trees, LEAVES))
        self._need(trees > 0 and (feature.shape, threshold.shape, path.shape) == shapes, "arrays have the wrong shapes")
        inside = feature.max() < width and bool(np.isfinite(path).all())
        self._need(inside, "a tree points outside the features")
        samples = self.params["max_samples"]
        known = isinstance(samples, int) and 2 <= samples <= LEAVES
        self._need(known, "its manifest lacks params.max_samples")


SPEC: Spec[OutlierScorer] = Spec(
    name="forest",
    summary="an Isolation Forest over the features of a name, beside the bits that its labels encode",
    fields=(),
    factory=IsolationForestScorer,
)
