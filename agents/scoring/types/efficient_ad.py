"""EfficientAD (Batzner, Heckler, König 2024): a student that predicts a teacher at each place, beside an autoencoder.

The teacher is a fixed random network, whose outputs are standardised on ordinary rows. The student learns to predict
them place by place; the autoencoder predicts them from the whole image through few units, and half of the student's
outputs predict the autoencoder's. Where the student fails, a place is strange; where both disagree, the whole is.

Arrays (p places of d features, k teacher outputs)
    place_count        int64 (1,)         p
    mean, spread       float64 (p * d,)   of each column
    teacher, student, auto                networks (network.py): d to k, d to 2k, p * d to p * k
    map_low, map_unit  float64 (2,)       normalisation of both maps
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from agents.core.protocols import Spec
from agents.scoring.types.base import OutlierScorer, Rows, Values, affine, chunks, scaled
from agents.scoring.types.network import (
    DEEP_FIELDS,
    DEEP_OPTIONS,
    begun,
    descended,
    fits,
    forward,
    jax_of,
    named,
    outputs,
    shapes_of_network,
)

TEACHER = 32
"""Outputs of the teacher."""
NARROW = 12
"""Hidden units of the autoencoder: fewer than the features, so that it cannot copy them."""
HELD_OUT = 5
"""One row in so many normalises the maps, and is not learned from."""
LOW, HIGH = 0.9, 0.995
"""Quantiles of ordinary rows that a map shows as 0 and 0.1 (Batzner et al. 2024, section 3.4)."""


class EfficientAdScorer(OutlierScorer):
    """The mean of both normalised maps at the strangest place."""

    algorithm = "EfficientAD"
    options = ("places", *DEEP_OPTIONS)
    libraries = ("jax", "optax")
    shapes: ClassVar = {
        "place_count": ("int64", 1),
        "mean": ("float64", 1),
        "spread": ("float64", 1),
        "map_low": ("float64", 1),
        "map_unit": ("float64", 1),
        **shapes_of_network("teacher"),
        **shapes_of_network("student"),
        **shapes_of_network("auto"),
    }

    def score(self, rows: Rows) -> Values:
        low, unit = (self.arrays[name][:, None, None] for name in ("map_low", "map_unit"))
        found = [((_maps(self.arrays, some) - low) / unit).mean(axis=0).max(axis=1) for some in chunks(rows)]
        return np.concatenate([np.empty(0), *found])

    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]:
        jnp = jax_of(self.params).numpy
        places = self.params["places"] = self.params["places"] or 1
        mean, spread = scaled(rows)
        standard = (rows - mean) / spread
        draw = np.random.default_rng(seed)
        order = draw.permutation(len(rows))
        held, learn = standard[order[::HELD_OUT]], standard[np.sort(np.delete(order, slice(None, None, HELD_OUT)))]
        if len(learn) < 2:
            held = learn = standard
        features, hidden = rows.shape[1] // places, self.params["deep_hidden"]
        arrays = {"place_count": np.array([places]), "mean": mean, "spread": spread}
        arrays |= _teacher(begun(draw, features, hidden, TEACHER), learn.reshape(-1, features))
        teacher = {layer.removeprefix("teacher_"): one for layer, one in arrays.items() if layer.startswith("teacher")}

        def loss(weights: Any, batch: Any, key: Any) -> Any:
            parts = batch.reshape(-1, features)
            told = forward(jnp, teacher, parts)
            student = forward(jnp, weights["student"], parts)
            whole = forward(jnp, weights["auto"], batch).reshape(-1, TEACHER)
            errors = (student[:, :TEACHER] - told, whole - told, student[:, TEACHER:] - jnp.asarray(whole))
            return sum(jnp.mean(jnp.square(one)) for one in errors)

        first = {
            "student": begun(draw, features, hidden, 2 * TEACHER),
            "auto": begun(draw, places * features, NARROW, places * TEACHER),
        }
        for name, network in descended(self.params, first, loss, learn, seed).items():
            arrays |= named(name, network)
        low, high = np.quantile(_maps(arrays, held * spread + mean), (LOW, HIGH), axis=(1, 2))
        return arrays | {"map_low": low, "map_unit": np.maximum(10 * (high - low), 1e-9)}

    def _check(self, width: int) -> None:
        count, mean, spread = (self.arrays[name] for name in ("place_count", "mean", "spread"))
        right = count.shape == (1,) and 0 < count[0] <= width and width % int(count[0]) == 0
        self._need(bool(right) and mean.shape == spread.shape == (width,), "arrays have the wrong shapes")
        places = int(count[0])
        sizes = {"teacher": (width // places, TEACHER), "student": (width // places, 2 * TEACHER)}
        sizes["auto"] = (width, places * TEACHER)
        right = all(fits(self.arrays, name, *size) for name, size in sizes.items())
        right = right and all(self.arrays[name].shape == (2,) for name in ("map_low", "map_unit"))
        self._need(right, "a network does not fit")
        others = (mean, spread, self.arrays["map_low"], self.arrays["map_unit"])
        self._need(all(bool(np.isfinite(one).all()) for one in others), "a map is not finite")
        self._need(bool((spread > 0).all() and (self.arrays["map_unit"] > 0).all()), "a map has no scale")


def _maps(arrays: dict[str, NDArray[Any]], rows: NDArray[Any]) -> Values:
    """Both maps, squared differences of student and teacher, and of student and autoencoder: (2, n, p)."""
    places = int(arrays["place_count"][0])
    standard = (rows - arrays["mean"]) / arrays["spread"]
    parts = standard.reshape(len(rows) * places, -1)
    told, student = outputs(arrays, "teacher", parts), outputs(arrays, "student", parts)
    whole = outputs(arrays, "auto", standard).reshape(-1, TEACHER)
    even = np.full((TEACHER, 1), 1 / TEACHER)
    errors = (student[:, :TEACHER] - told, student[:, TEACHER:] - whole)
    return np.stack([affine(error * error, even).reshape(len(rows), places) for error in errors])


def _teacher(network: dict[str, Any], parts: Values) -> dict[str, NDArray[Any]]:
    """A random network whose outputs have mean 0 and deviation 1 over these places, by its last layer."""
    told = outputs(named("teacher", network), "teacher", parts)
    deviation = np.maximum(told.std(axis=0), 1e-6)
    last = {"w1": network["w1"] / deviation, "b1": (network["b1"] - told.mean(axis=0)) / deviation}
    return named("teacher", network | last)


SPEC: Spec[OutlierScorer] = Spec(
    name="efficient_ad",
    summary="a student network that predicts a teacher, beside an autoencoder (EfficientAD; extra deep)",
    fields=DEEP_FIELDS,
    factory=EfficientAdScorer,
)
