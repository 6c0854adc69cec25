"""PaDiM (Defard et al. 2021): a Gaussian at each place of an image, and the distance of its strangest place.

A name is an image of one place; a flow's image has one place a slice of time. The covariance is shrunk towards a
multiple of the identity (Ledoit, Wolf 2004), so that few rows are enough; the distance is Mahalanobis'.

Arrays (p places of d features)
    centre     float64 (p, d)     mean
    whitening  float64 (p, d, d)  W with |(x - centre) W| = sqrt((x - centre) S^-1 (x - centre)^T)
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from agents.core.protocols import Spec
from agents.scoring.types.base import OutlierScorer, Rows, Values, affine, chunks, scaled


class PadimScorer(OutlierScorer):
    """Mahalanobis' distance of the strangest place. places: of a row, side by side; 1 where rows are names."""

    algorithm = "PaDiM"
    options = ("places",)
    libraries = ("scikit-learn",)
    shapes: ClassVar = {"centre": ("float64", 2), "whitening": ("float64", 3)}

    def score(self, rows: Rows) -> Values:
        found = np.empty(len(rows))
        at = 0
        for some in chunks(rows):
            found[at : at + len(some)] = self._distances(some).max(axis=0)
            at += len(some)
        return found

    def _distances(self, rows: Rows) -> Values:
        """(p, n)"""
        centre, whitening = self.arrays["centre"], self.arrays["whitening"]
        parts = rows.reshape(len(rows), *centre.shape)
        out = np.empty((len(centre), len(rows)))
        for place, (mean, matrix) in enumerate(zip(centre, whitening, strict=True)):
            apart = affine(parts[:, place] - mean, matrix)
            out[place] = np.sqrt(affine(apart * apart, np.ones((apart.shape[1], 1)))[:, 0])
        return out

    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]:
        places = self.params["places"] = self.params["places"] or 1
        parts = rows.reshape(len(rows), places, -1)
        fitted = [_gaussian(parts[:, place]) for place in range(places)]
        return {"centre": np.stack([mean for mean, _ in fitted]), "whitening": np.stack([one for _, one in fitted])}

    def _check(self, width: int) -> None:
        centre, whitening = self.arrays["centre"], self.arrays["whitening"]
        right = centre.size == width > 0 and whitening.shape == (*centre.shape, centre.shape[-1])
        self._need(right, "arrays have the wrong shapes")
        finite = bool(np.isfinite(centre).all() and np.isfinite(whitening).all())
        self._need(finite, "a Gaussian is not finite")


def _gaussian(rows: Rows) -> tuple[Values, Values]:
    from sklearn.covariance import LedoitWolf  # here: only training needs scikit-learn

    mean, deviation = scaled(rows)
    covariance = LedoitWolf(assume_centered=True).fit((rows - mean) / deviation).covariance_
    inverse = np.linalg.inv(np.linalg.cholesky(covariance + np.eye(len(mean)) * 1e-9))
    return mean, inverse.T / deviation[:, None]


SPEC: Spec[OutlierScorer] = Spec(
    name="padim",
    summary="the distance of a name from the mean of ordinary names, by a Gaussian with shrunk covariance (PaDiM)",
    fields=(),
    factory=PadimScorer,
)
