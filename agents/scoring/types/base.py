"""The base of detector types: options in, then `fit` on benign rows or `use` of kept arrays; `score` has one sign.

A row is a name's features, or the slices of a flow's image side by side (agents.learning.loop.flow_images). Scorers
keep plain arrays alone, and score by NumPy or a kernel: training libraries are imported inside `fit`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ModelError, TrainingError

CHUNK = 2048
"""Rows scored at once: keeps the temporary arrays in the processor's cache."""
TAIL = 0.001
"""The highest share of scores whose distribution is assumed to be exponential; see `tail`."""
DECADES_MAX = 8.0
"""-log10 of the smallest probability that `tail` gives."""
Rows = NDArray[np.float32]
Values = NDArray[np.float64]


class OutlierScorer(ABC):
    """One detector type. `params` holds its options by name, JSON values that the manifest keeps, too."""

    algorithm: ClassVar[str]
    """What a model file's manifest calls it."""
    options: ClassVar[tuple[str, ...]] = ()
    """Names of the values that it takes from `params`."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Packages, beside NumPy, that training takes; their versions stand in the manifest."""
    shapes: ClassVar[Mapping[str, tuple[str, int]]]
    """Type and number of dimensions of each of its arrays."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params: dict[str, Any] = {name: params.get(name) for name in self.options}
        self.arrays: dict[str, NDArray[Any]] = {}

    def fit(self, rows: Rows, seed: int) -> Self:
        """Learn from n benign rows, shape (n, width). The same rows and seed give the same arrays.

        Raises TrainingError for fewer than 2 rows, for values that are not finite, and where a library is missing.
        """
        if len(rows) < 2:
            raise TrainingError("cannot train on fewer than 2 queries")
        if not np.isfinite(rows).all():
            raise TrainingError("cannot train on features that are not finite")
        self.arrays = self._fitted(rows, seed)
        return self

    def use(self, arrays: Mapping[str, NDArray[Any]], width: int) -> Self:
        """Take arrays that `to_arrays` gave, for rows of `width` values. Raises ModelError for others."""
        for name, (kind, dimensions) in self.shapes.items():
            if name not in arrays or arrays[name].dtype.name != kind or arrays[name].ndim != dimensions:
                raise ModelError(f"cannot use model: array {name} is missing or of another kind")
        self.arrays = {name: arrays[name] for name in self.shapes}
        self._check(width)
        return self

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What `use` takes. Names differ between types, so that one file can hold several."""
        return dict(self.arrays)

    @abstractmethod
    def score(self, rows: Rows) -> Values:
        """Raw scores of n rows, high = anomalous; a row's score does not depend on the rows beside it."""

    @abstractmethod
    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]: ...

    @abstractmethod
    def _check(self, width: int) -> None:
        """Raise ModelError if the arrays, whose kinds are right, do not fit together or to rows of `width`."""

    def _need(self, fits: bool, what: str) -> None:
        if not fits:
            raise ModelError(f"cannot use model: {what}")


def tail(raw: Values) -> tuple[Values, Values]:
    """Knots from raw scores to decades, -log10 of the share of benign rows above; both rise, at least two.

    In the highest TAIL of the scores the tail is assumed to be exponential (peaks over threshold: Pickands 1975),
    since 10,000 names are too few to estimate the score of 1 in 100,000.
    """
    ordered = np.sort(raw)
    start = float(np.quantile(ordered, 1 - TAIL))
    mean_excess = max(float((ordered[ordered > start] - start).mean()) if (ordered > start).any() else 0.0, 1e-6)
    probabilities = np.concatenate([np.logspace(0, -3, 61)[:-1], np.logspace(-3, -DECADES_MAX, 51)])
    knots = np.where(
        probabilities > TAIL,
        np.quantile(ordered, 1 - np.maximum(probabilities, TAIL)),
        start + mean_excess * np.log(TAIL / np.minimum(probabilities, TAIL)),
    )
    rising = np.concatenate([[True], np.diff(knots) > 0])
    return knots[rising], -np.log10(probabilities)[rising]


def rises(knots: NDArray[Any], shown: NDArray[Any], highest: float) -> bool:
    """Whether a calibration has at least two knots, and values from 0 to `highest` that never fall."""
    if len(knots) < 2 or len(knots) != len(shown):
        return False
    rising = (np.diff(knots) > 0).all() and (np.diff(shown) >= 0).all()
    return bool(rising and shown[0] >= 0 and shown[-1] <= highest)


def affine(rows: NDArray[Any], weights: Values, bias: Values | float = 0.0) -> Values:
    """rows (n, d) @ weights (d, k) + bias (k,), summed in one order: BLAS sums a row otherwise in other batches.

    einsum without `optimize` never calls BLAS, and takes the same loop for one row as for many if rows are contiguous.
    """
    flat = np.ascontiguousarray(rows, np.float64), np.ascontiguousarray(weights)
    return np.asarray(np.einsum("nd,dk->nk", *flat) + bias)


def chunks(rows: Rows) -> Iterator[Rows]:
    """The rows, CHUNK at a time."""
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def scaled(rows: Rows) -> tuple[Values, Values]:
    """Mean and standard deviation of each column, (width,); 1 where a column never changes."""
    deviation = rows.std(axis=0, dtype=np.float64)
    return rows.mean(axis=0, dtype=np.float64), np.where(deviation > 0, deviation, 1.0)
