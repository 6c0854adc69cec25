"""The online model of flow-hours: a logistic regression, trained in small steps, read as plain arrays.

Steps are those of stochastic gradient descent (Bottou 2010). Any number of a flow-hour counts by its logarithm, since
traffic differs by powers of ten; beyond CLIP deviations it counts no more.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ModelError
from agents.core.npz import FormatError, json_of, read_npz
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA

CLIP = 4.0
SCALE_MIN = 1e-3
PENALTY = 1e-3
"""Weight of the squared coefficients in the loss."""
MODEL_MAX = 1 << 20
"""Bytes of a model's file, at most."""
_ARRAYS = {"mean": (len(NUMBERS),), "scale": (len(NUMBERS),), "weights": (len(NUMBERS),), "bias": (1,)}


@dataclass(frozen=True, slots=True)
class FlowModel:
    """mean, scale, weights: shape (35,), of the logarithms of NUMBERS; manifest: JSON values."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: float
    manifest: Mapping[str, Any]

    def inputs(self, numbers: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the weights apply to. Shapes (n, 35)."""
        scaled = (_logs(numbers) - self.mean) / self.scale
        return np.clip(scaled, -CLIP, CLIP)

    def probabilities(self, numbers: NDArray[np.float32]) -> NDArray[np.float64]:
        """How probable it is that each flow-hour is a tunnel's. Shapes (n, 35) to (n,)."""
        found: NDArray[np.float64] = 1 / (1 + np.exp(-(self.inputs(numbers) @ self.weights + self.bias)))
        return found

    @property
    def model_id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the file's bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    def to_bytes(self) -> bytes:
        """The model as a stored .npz."""
        out, facts = io.BytesIO(), json.dumps({**self.manifest, "schema": SCHEMA}, sort_keys=True).encode()
        np.savez(
            out,
            manifest=np.frombuffer(facts, np.uint8),
            mean=self.mean,
            scale=self.scale,
            weights=self.weights,
            bias=np.array([self.bias]),
        )
        return out.getvalue()


def load_flow_model(data: bytes) -> FlowModel:
    """The model in a file's bytes. Raises ModelError: also for one of another schema of flow-hours."""
    try:
        arrays = read_npz(data, MODEL_MAX)
        manifest = json_of(arrays, "manifest")
    except FormatError as error:
        raise ModelError(f"cannot read the flow model: {error}") from None
    if manifest.get("schema") != SCHEMA:
        raise ModelError("cannot read the flow model: it is of another schema of flow-hours")
    found = [arrays.get(name, np.empty(0)) for name in _ARRAYS]
    shapes = [array.shape == shape for array, shape in zip(found, _ARRAYS.values(), strict=True)]
    if not all(shapes) or not all(array.dtype == np.float64 and np.isfinite(array).all() for array in found):
        raise ModelError("cannot read the flow model: damaged file")
    mean, scale, weights, bias = found
    if (scale < SCALE_MIN).any():
        raise ModelError("cannot read the flow model: damaged file")
    return FlowModel(mean, scale, weights, float(bias[0]), manifest)


def _logs(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log1p(np.maximum(numbers, 0).astype(np.float64))
    return logs


def empty_flow_model(numbers: NDArray[np.float32]) -> FlowModel:
    """A model that has learnt nothing, scaled to these flow-hours. Shape (n, 35)."""
    logs = _logs(numbers)
    nothing = np.zeros(len(NUMBERS))
    return FlowModel(logs.mean(axis=0), np.maximum(logs.std(axis=0), SCALE_MIN), nothing, 0.0, {})


class Steps:
    """A model under training. rate: of each step."""

    def __init__(self, model: FlowModel, rate: float) -> None:
        from sklearn.linear_model import SGDClassifier  # here: only training needs it

        self._model = model
        self._learner = SGDClassifier(
            loss="log_loss", learning_rate="constant", eta0=rate, alpha=PENALTY, shuffle=False
        )
        self._learner.classes_ = np.array([0, 1])
        self._learner.coef_ = model.weights.reshape(1, -1).copy()
        self._learner.intercept_ = np.array([model.bias])

    def take(self, numbers: NDArray[np.float32], tunnel: NDArray[np.bool_]) -> None:
        """Learn one small batch, in which tunnels and benign flow-hours weigh alike. Shapes (n, 35) and (n,)."""
        share = min(max(float(tunnel.mean()), 1 / len(tunnel)), 1 - 1 / len(tunnel))
        weights = np.where(tunnel, 0.5 / share, 0.5 / (1 - share))
        self._learner.partial_fit(self._model.inputs(numbers), tunnel.astype(np.int64), sample_weight=weights)

    def model(self, manifest: Mapping[str, Any]) -> FlowModel:
        """The model as it is now."""
        one = self._model
        return FlowModel(
            one.mean, one.scale, self._learner.coef_[0].copy(), float(self._learner.intercept_[0]), manifest
        )
