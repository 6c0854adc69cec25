"""The ensemble: Isolation Forest, One-Class SVM and groups (DBSCAN), over the principal components of scaled rows.

Each member calls the share ENSEMBLE_CONTAMINATION of the fitted rows anomalous. Two of three votes are needed: without
them a row's weighted score stays below the score that two votes give.

Arrays (w columns, c components, s vectors, g core rows)
    centre_of, scale_of   float64 (w,)    mean and standard deviation of each column
    components            float64 (w, c)  principal axes that hold ENSEMBLE_VARIANCE of the variance
    member_weights        float64 (3,)    of forest, svm, groups; they sum to 1
    vote_from             float64 (1,)    decades from which a member votes
    vectors, vector_weights, gamma  float64 (s, c), (s,), (1,)  One-Class SVM (Schölkopf et al. 2001)
    core                  float64 (g, c)  rows inside a group (Ester et al. 1996)
    and the trees of forest.py
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import TrainingError
from agents.core.protocols import Field, Spec, Within
from agents.scoring.types.base import OutlierScorer, Rows, Values, affine, chunks, scaled
from agents.scoring.types.committee import Committee, options_of, shapes_of
from agents.scoring.types.forest import IsolationForestScorer

CORE_MAX = 500
"""Core rows that are kept, evenly over all: a row is compared with each of them."""
VOTES_MIN = 2
SUM_CHUNK = 256
"""Rows compared at once with all vectors: the temporary arrays stay in the processor's cache."""


class SvmScorer(OutlierScorer):
    """Minus the sum of a One-Class SVM's Gaussian kernels: high outside the boundary around ordinary rows."""

    algorithm = "One-Class SVM"
    options = ("ensemble_nu", "ensemble_rows")
    libraries = ("scikit-learn",)
    shapes: ClassVar = {"vectors": ("float64", 2), "vector_weights": ("float64", 1), "gamma": ("float64", 1)}

    def score(self, rows: Rows) -> Values:
        weights = self.arrays["vector_weights"][:, None]
        near = (np.exp(-self.arrays["gamma"][0] * some) for some in _distances(rows, self.arrays["vectors"]))
        return -np.concatenate([np.empty(0), *(affine(one, weights)[:, 0] for one in near)])

    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]:
        from sklearn.svm import OneClassSVM  # here: only training needs scikit-learn

        some = _drawn(rows, self.params["ensemble_rows"], seed)
        found = OneClassSVM(nu=self.params["ensemble_nu"], gamma="scale").fit(some)
        vectors, weights = found.support_vectors_, found.dual_coef_[0]
        return {"vectors": vectors, "vector_weights": weights, "gamma": np.array([found._gamma], np.float64)}

    def _check(self, width: int) -> None:
        vectors, weights, gamma = (self.arrays[name] for name in self.shapes)
        right = vectors.shape == (len(weights), width) and gamma.shape == (1,) and len(weights) > 0
        self._need(right, "arrays have the wrong shapes")
        self._need(all(bool(np.isfinite(one).all()) for one in (vectors, weights, gamma)), "an SVM is not finite")


class GroupScorer(OutlierScorer):
    """Distance to the nearest row inside a group. DBSCAN finds the groups at training time.

    ensemble_eps: two rows nearer than that are neighbours; 0 = such that nine rows of ten are inside a group.
    """

    algorithm = "DBSCAN"
    options = ("ensemble_eps", "ensemble_min_samples", "ensemble_rows")
    libraries = ("scikit-learn",)
    shapes: ClassVar = {"core": ("float64", 2)}

    def score(self, rows: Rows) -> Values:
        nearest = [np.sqrt(some.min(axis=1)) for some in _distances(rows, self.arrays["core"])]
        return np.concatenate([np.empty(0), *nearest])

    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]:
        from sklearn.cluster import DBSCAN  # here: only training needs scikit-learn
        from sklearn.neighbors import NearestNeighbors

        some = _drawn(rows, self.params["ensemble_rows"], seed)
        least = min(self.params["ensemble_min_samples"], len(some))
        eps = self.params["ensemble_eps"]
        if not eps:
            apart, _ = NearestNeighbors(n_neighbors=least).fit(some).kneighbors(some)
            eps = max(float(np.quantile(apart[:, -1], 0.9)), 1e-9)
        core = some[DBSCAN(eps=eps, min_samples=least).fit(some).core_sample_indices_]
        if not len(core):
            raise TrainingError(
                f"cannot train: with ENSEMBLE_EPS={eps:g} and ENSEMBLE_MIN_SAMPLES={least} no row is in a group"
            )
        kept = np.linspace(0, len(core) - 1, min(len(core), CORE_MAX)).astype(int)
        return {"core": core[kept].astype(np.float64)}

    def _check(self, width: int) -> None:
        core = self.arrays["core"]
        self._need(len(core) > 0 and core.shape[1] == width, "arrays have the wrong shapes")
        self._need(bool(np.isfinite(core).all()), "a group is not finite")


class EnsembleScorer(Committee):
    """The weighted mean of the members' decades; below the vote's where fewer than two of them vote."""

    algorithm = "ensemble of Isolation Forest, One-Class SVM and DBSCAN"
    members: ClassVar = {"forest": IsolationForestScorer, "svm": SvmScorer, "groups": GroupScorer}
    weights = tuple(f"ensemble_weight_{name}" for name in members)
    options = options_of(members, ("ensemble_contamination", "ensemble_variance", *weights))
    libraries = ("scikit-learn",)
    shapes: ClassVar = shapes_of(members) | {
        "centre_of": ("float64", 1),
        "scale_of": ("float64", 1),
        "components": ("float64", 2),
        "member_weights": ("float64", 1),
        "vote_from": ("float64", 1),
    }

    def score(self, rows: Rows) -> Values:
        reduced = [np.zeros((0, self.arrays["components"].shape[1])), *map(self._reduced, chunks(rows))]
        decades = self.decades(np.concatenate(reduced).astype(np.float32))
        weighted = affine(decades.T, self.arrays["member_weights"][:, None])[:, 0]
        vote_from = self.arrays["vote_from"][0]
        agreed = (decades >= vote_from).sum(axis=0) >= VOTES_MIN
        return np.asarray(np.where(agreed, np.maximum(weighted, vote_from), np.minimum(weighted, vote_from)))

    def _reduced(self, rows: Rows) -> Values:
        return affine((rows - self.arrays["centre_of"]) / self.arrays["scale_of"], self.arrays["components"])

    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]:
        centre, scale = scaled(rows)
        weights = np.array([self.params[name] for name in self.weights], np.float64)
        own = {
            "centre_of": centre,
            "scale_of": scale,
            "components": _axes((rows - centre) / scale, self.params["ensemble_variance"]),
            "member_weights": weights / weights.sum(),
            "vote_from": np.array([-np.log10(self.params["ensemble_contamination"])]),
        }
        self.arrays = dict(own)
        return own | super()._fitted(self._reduced(rows).astype(np.float32), seed)

    def _check(self, width: int) -> None:
        components, weights, vote_from = (self.arrays[name] for name in ("components", "member_weights", "vote_from"))
        around = self.arrays["centre_of"], self.arrays["scale_of"]
        right = all(len(one) == width for one in (*around, components)) and components.shape[1] > 0
        right = right and weights.shape == (len(self.members),) and vote_from.shape == (1,)
        self._need(right, "arrays have the wrong shapes")
        finite = all(bool(np.isfinite(one).all()) for one in (*around, components, weights, vote_from))
        self._need(finite and bool((around[1] > 0).all()), "an ensemble is not finite")
        super()._check(components.shape[1])


def _distances(rows: Rows, places: Values) -> list[Values]:
    """Squared distances of n rows from m places, in parts (k, m), summed column by column (base.affine says why)."""
    parts = []
    for begin in range(0, len(rows), SUM_CHUNK):
        some = rows[begin : begin + SUM_CHUNK].astype(np.float64)
        total = np.zeros((len(some), len(places)))
        for column, place in zip(some.T, places.T, strict=True):
            total += (column[:, None] - place) ** 2
        parts.append(total)
    return parts


def _drawn(rows: Rows, most: int, seed: int) -> Rows:
    if len(rows) <= most:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))]


def _axes(standard: Values, variance: float) -> Values:
    """Principal axes (w, c), the fewest that hold this share of the variance; the first alone where nothing varies."""
    from sklearn.decomposition import PCA

    if not standard.any():
        return np.eye(standard.shape[1], 1)
    return np.ascontiguousarray(PCA(variance, svd_solver="full").fit(standard).components_.T, np.float64)


_SHARE = Within(0.0001, 0.9999)
_WEIGHT = Within(0, 1000)
SPEC: Spec[OutlierScorer] = Spec(
    name="ensemble",
    summary="Isolation Forest, One-Class SVM and groups of names: two of three votes, and their weighted score",
    fields=(
        Field("ensemble_contamination", float, 0.1, "share of queries that each member calls anomalous", _SHARE),
        Field("ensemble_nu", float, 0.1, "share of queries that the One-Class SVM leaves outside", _SHARE),
        Field("ensemble_eps", float, 0.0, "distance of neighbours in a group; 0 = by the sample", Within(0, 1e6)),
        Field("ensemble_min_samples", int, 5, "neighbours that make a group", Within(1, 1000)),
        Field("ensemble_rows", int, 2000, "queries that SVM and groups are made of, at most", Within(2, 20_000)),
        Field("ensemble_variance", float, 0.95, "share of the variance that principal components keep", _SHARE),
        Field("ensemble_weight_forest", float, 1.0, "weight of the forest in the ensemble's score", _WEIGHT),
        Field("ensemble_weight_svm", float, 1.0, "weight of the One-Class SVM", _WEIGHT),
        Field("ensemble_weight_groups", float, 1.0, "weight of the groups", Within(0.001, 1000)),
        Field(
            "ensemble_supplement_below",
            int,
            50,
            "with fewer stored queries the ensemble's sample is filled up from shipped names",
            Within(0, 1_000_000),
        ),
        Field(
            "ensemble_mixed_below",
            int,
            100,
            "with fewer stored queries as many shipped names are mixed in; with more, stored queries alone are learned",
            Within(0, 1_000_000),
        ),
    ),
    factory=EnsembleScorer,
)
