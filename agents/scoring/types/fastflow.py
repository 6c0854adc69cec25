"""FastFlow (Yu et al. 2021): a normalising flow of affine couplings at each place; what is unlikely is strange.

Each step changes one half of a place's features by a scale and a shift that a network computes from the other half
(Dinh, Sohl-Dickstein, Bengio 2017). All places share the flow.

Arrays (p places of d features, t steps, h hidden units, c = d // 2 features changed in a step)
    flow_places  int64 (1,)              p
    flow_mean, flow_spread  float64 (p * d,)  of each column
    order        int64 (t, d)            a step's order of the features; the first d - c stay as they are
    flow_w0, flow_b0  float64 (t, d - c, h), (t, h)
    flow_w1, flow_b1  float64 (t, h, 2c), (t, 2c)
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import TrainingError
from agents.core.protocols import Field, Spec, Within
from agents.scoring.types.base import OutlierScorer, Rows, Values, affine, chunks, scaled
from agents.scoring.types.network import DEEP_FIELDS, DEEP_OPTIONS, begun, descended, forward, jax_of

NOISE = 0.1
"""Deviation of the noise on standardised features while the flow is trained: counts are whole numbers, and a density
of whole numbers has no bound."""
SCALE_MAX = 1.5
"""Bound on a step's log-scale: s = SCALE_MAX * x / (1 + |x|), which NumPy and JAX compute alike."""


class FastFlowScorer(OutlierScorer):
    """Minus the log-density of the strangest place, without its constant."""

    algorithm = "FastFlow"
    options = ("places", "flow_steps", *DEEP_OPTIONS)
    libraries = ("jax", "optax")
    shapes: ClassVar = {
        "flow_places": ("int64", 1),
        "flow_mean": ("float64", 1),
        "flow_spread": ("float64", 1),
        "order": ("int64", 2),
        "flow_w0": ("float64", 3),
        "flow_b0": ("float64", 2),
        "flow_w1": ("float64", 3),
        "flow_b1": ("float64", 2),
    }

    def score(self, rows: Rows) -> Values:
        return np.concatenate([np.empty(0), *(self._unlikely(some) for some in chunks(rows))])

    def _unlikely(self, rows: Rows) -> Values:
        arrays, places = self.arrays, int(self.arrays["flow_places"][0])
        standard = (rows - arrays["flow_mean"]) / arrays["flow_spread"]
        parts = standard.reshape(len(rows) * places, -1)
        logs = np.zeros(len(parts))
        layers = zip(*(arrays[f"flow_{name}"] for name in ("w0", "b0", "w1", "b1")), strict=True)
        for order, (w0, b0, w1, b1) in zip(arrays["order"], layers, strict=True):
            kept, changed = np.split(parts[:, order], [len(w0)], axis=1)
            told = affine(np.maximum(affine(kept, w0, b0), 0.0), w1, b1)
            scale, shift = np.split(told, 2, axis=1)
            scale = SCALE_MAX * scale / (1 + np.abs(scale))
            logs += _summed(scale)
            parts = np.concatenate([kept, changed * np.exp(scale) + shift], axis=1)
        found = 0.5 * _summed(parts * parts) - logs
        return np.asarray(found.reshape(len(rows), places).max(axis=1))

    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]:
        jax = jax_of(self.params)
        jnp = jax.numpy
        places = self.params["places"] = self.params["places"] or 1
        features, steps = rows.shape[1] // places, self.params["flow_steps"]
        if features < 2:
            raise TrainingError("cannot train fastflow on fewer than 2 features")
        mean, spread = scaled(rows)
        draw = np.random.default_rng(seed)
        order = np.stack([draw.permutation(features) for _ in range(steps)])
        kept, hidden = features - features // 2, self.params["deep_hidden"]
        first = [begun(draw, kept, hidden, 2 * (features // 2)) for _ in range(steps)]
        first = [network | {"w1": network["w1"] * 0.01} for network in first]  # the flow begins as the identity

        def loss(networks: Any, batch: Any, key: Any) -> Any:
            parts = batch.reshape(-1, features)
            parts = parts + NOISE * jax.random.normal(key, parts.shape)
            logs = 0.0
            for step, network in zip(order, networks, strict=True):
                mixed = parts[:, step]
                told = forward(jnp, network, mixed[:, :kept])
                scale, shift = jnp.split(told, 2, axis=1)
                scale = SCALE_MAX * scale / (1 + jnp.abs(scale))
                logs = logs + scale.sum(axis=1)
                parts = jnp.concatenate([mixed[:, :kept], mixed[:, kept:] * jnp.exp(scale) + shift], axis=1)
            return jnp.mean(0.5 * jnp.square(parts).sum(axis=1) - logs) / features

        networks = descended(self.params, first, loss, (rows - mean) / spread, seed)
        layers = {
            f"flow_{name}": np.stack([np.asarray(network[name], np.float64) for network in networks])
            for name in ("w0", "b0", "w1", "b1")
        }
        around = {"flow_places": np.array([places]), "flow_mean": mean, "flow_spread": spread}
        return {**around, "order": order, **layers}

    def _check(self, width: int) -> None:
        arrays = self.arrays
        count, mean, spread, order = (arrays[name] for name in ("flow_places", "flow_mean", "flow_spread", "order"))
        right = count.shape == (1,) and 0 < count[0] <= width and width % int(count[0]) == 0
        self._need(bool(right) and mean.shape == spread.shape == (width,), "arrays have the wrong shapes")
        features = width // int(count[0])
        changed, steps, hidden = features // 2, len(order), arrays["flow_b0"].shape[1]
        shapes = [(steps, features), (steps, features - changed, hidden), (steps, hidden, 2 * changed)]
        right = [order.shape, arrays["flow_w0"].shape, arrays["flow_w1"].shape] == shapes and steps > 0
        right = right and len(arrays["flow_b0"]) == steps and arrays["flow_b1"].shape == (steps, 2 * changed)
        self._need(right, "arrays have the wrong shapes")
        self._need(bool((np.sort(order, axis=1) == np.arange(features)).all()), "a step's order is none")
        numbers = [one for name, one in arrays.items() if name not in ("flow_places", "order")]
        finite = all(bool(np.isfinite(one).all()) for one in numbers) and bool((spread > 0).all())
        self._need(finite, "a flow is not finite")


def _summed(values: Values) -> Values:
    """The sum of each row, in one order."""
    return affine(values, np.ones((values.shape[1], 1)))[:, 0]


SPEC: Spec[OutlierScorer] = Spec(
    name="fastflow",
    summary="how unlikely a name is, by a normalising flow of affine couplings (FastFlow; extra deep)",
    fields=(*DEEP_FIELDS, Field("flow_steps", int, 6, "coupling steps of fastflow", Within(1, 64))),
    factory=FastFlowScorer,
)
