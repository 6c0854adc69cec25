"""Any detector of PyOD (Zhao, Nasrullah, Li 2019) by its name, served as trees that were taught its scores.

PyOD's detectors keep their rows, other libraries' objects, or graphs: no plain arrays. So the detector is fitted, gives
scores to its rows and to rows made of them, and regression trees learn these scores, in decades (base.tail). The trees
have the arrays of forest.py; at a leaf stands minus the mean score, so that an odd row has the shorter path there, too.
How well they agree with the detector on rows that they have not seen stands in the manifest as `pyod_agreement`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import TrainingError
from agents.core.protocols import Field, Spec, Within
from agents.scoring.types.base import OutlierScorer, Rows, Values, scaled, tail
from agents.scoring.types.forest import DEPTH, IsolationForestScorer, complete_trees, scores_of

TREES, LEAF_ROWS = 100, 3
SAMPLE = 256
"""Takes the place of an Isolation Forest's sample in the scale of scores."""
SHUFFLED, OUTWARD = 2, (2.0, 4.0, 8.0)
"""Rows made of each row: with half of the columns from other rows, so many times; moved away from the mean by these."""
AGREEMENT_MIN = 0.7
"""Rank correlation (Spearman) with the detector; trees that agree less would be another detector under its name."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,40}")
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class PyodScorer(IsolationForestScorer):
    """Trees that learned what a detector of PyOD says."""

    algorithm = "PyOD, as trees"
    options = ("max_samples", "pyod_class", "pyod_rows", "pyod_agreement")
    libraries = ("pyod", "scikit-learn")

    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]:
        from sklearn.ensemble import ExtraTreesRegressor  # here: only training needs scikit-learn

        detector = _detector(self.params["pyod_class"])
        draw = np.random.default_rng(seed)
        some = rows[np.sort(draw.permutation(len(rows))[: self.params["pyod_rows"]])].astype(np.float64)
        mean, deviation = scaled(some.astype(np.float32))
        np.random.seed(seed % 2**32)
        try:
            detector.fit((some - mean) / deviation)
            knots, decades = tail(np.asarray(detector.decision_scores_, np.float64))
            made = _made(some, mean, draw)
            raw = np.nan_to_num(detector.decision_function((made - mean) / deviation), posinf=1e300, neginf=-1e300)
        except Exception as error:  # noqa: BLE001 - other people's detectors raise what they like
            raise TrainingError(f"cannot train PyOD's {self.params['pyod_class']}: {_first_line(error)}") from None
        told = np.interp(raw, knots, decades)
        learned = np.arange(len(made)) % 5 > 0
        trees = ExtraTreesRegressor(TREES, max_depth=DEPTH, min_samples_leaf=LEAF_ROWS, random_state=seed)
        trees.fit(made[learned].astype(np.float32), told[learned])
        self.params["max_samples"] = SAMPLE
        arrays = complete_trees(trees, lambda tree, leaf, depth: -float(tree.value[leaf].item()))
        self.params["pyod_agreement"] = self._agreement(arrays, made[~learned].astype(np.float32), told[~learned])
        return arrays

    def _agreement(self, arrays: dict[str, NDArray[Any]], rows: Rows, told: Values) -> float:
        ours, theirs = (np.argsort(np.argsort(one)) for one in (scores_of(arrays, rows, SAMPLE), told))
        agreement = round(float(np.corrcoef(ours, theirs)[0, 1]), 3)
        if agreement < AGREEMENT_MIN:
            name = self.params["pyod_class"]
            raise TrainingError(f"cannot serve PyOD's {name} as trees: they agree by {agreement:g} of {AGREEMENT_MIN}")
        return agreement


def _made(rows: Values, mean: Values, draw: np.random.Generator) -> Values:
    """The rows, and rows that no sample has: mixed ones, and ones far from the mean. shape (k * n, d)."""
    parts = [rows]
    for _ in range(SHUFFLED):
        other = np.stack([draw.permutation(column) for column in rows.T], axis=1)
        parts.append(np.where(draw.random(rows.shape) < 0.5, other, rows))
    parts += [mean + factor * (rows - mean) for factor in OUTWARD]
    return np.concatenate(parts)


def _detector(name: str) -> Any:
    """A detector with its defaults. Raises TrainingError."""
    if not _NAME.fullmatch(name):
        raise TrainingError("cannot train: PYOD_CLASS is no name of a class")
    try:
        base = importlib.import_module("pyod.models.base").BaseDetector
    except ImportError as error:
        raise TrainingError(f"cannot train this detector type without the extra pyod: {_first_line(error)}") from None
    found = None
    for module in dict.fromkeys((name.lower(), _WORD.sub("_", name).lower())):  # iforest, feature_bagging
        try:
            found = getattr(importlib.import_module(f"pyod.models.{module}"), name, None) or found
        except ModuleNotFoundError as error:
            if error.name != f"pyod.models.{module}":
                raise TrainingError(f"cannot train: PyOD's {name} needs {error.name}") from None
        except ImportError as error:
            raise TrainingError(f"cannot train: PyOD gives no detector {name}: {_first_line(error)}") from None
    if not isinstance(found, type) or not issubclass(found, base) or inspect.isabstract(found):
        raise TrainingError(f"cannot train: PyOD gives no detector {name}: there is no such class")
    needed = [one.name for one in inspect.signature(found).parameters.values() if one.default is one.empty]
    if needed:
        raise TrainingError(f"cannot train: PyOD gives no detector {name}: it needs {', '.join(needed)}")
    try:
        return found()
    except Exception as error:  # noqa: BLE001 - other people's constructors raise what they like
        raise TrainingError(f"cannot train: PyOD's {name} cannot be made: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


SPEC: Spec[OutlierScorer] = Spec(
    name="pyod",
    summary="any detector of PyOD, by PYOD_CLASS, served as trees that learned its scores (extra pyod)",
    fields=(
        Field("pyod_class", str, "ECOD", "class in pyod.models that MODEL_TYPE=pyod trains, for example ECOD or KNN"),
        Field("pyod_rows", int, 3000, "queries that it is fitted on, at most", Within(10, 50_000)),
    ),
    factory=PyodScorer,
)
