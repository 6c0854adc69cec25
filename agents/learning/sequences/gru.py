"""A recurrent network that predicts each next step of a client: trained with JAX, kept as plain arrays, run by NumPy.

A gated recurrent unit (Cho et al. 2014) of HIDDEN units; from its state a softmax for each group of a step, and a
normal distribution for each amount. A window's surprise is the mean negative logarithm of what came.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ModelError, TrainingError
from agents.core.npz import FormatError, json_of, read_npz
from agents.learning.sequences.bounds import USUAL_SEQUENCES
from agents.learning.sequences.steps import AMOUNTS, AMOUNTS_AT, COLUMNS, GROUPS, STEPS_SCHEMA, Windows
from agents.scoring.types.network import descended, jax_of

HIDDEN = 24
OUTPUTS = AMOUNTS_AT + 2 * len(AMOUNTS)
"""Logits of the groups; means and logarithms of variances of the amounts."""
VARIANCE_LOG = (-6.0, 4.0)
"""Bounds of the logarithm of a variance: what never varied must not make all else infinitely odd."""
FILE_MAX = 1 << 20
"""Bytes of a model's file, at most."""
SHAPES = {
    "inputs": (len(COLUMNS), 3 * HIDDEN),
    "states": (HIDDEN, 3 * HIDDEN),
    "bias": (3 * HIDDEN,),
    "outputs": (HIDDEN, OUTPUTS),
    "outputs_bias": (OUTPUTS,),
}
Arrays = Mapping[str, Any]


def surprises(xp: Any, arrays: Arrays, steps: Any, known: Any) -> Any:
    """The surprise of n windows, (n,), in nats a step; xp: NumPy or JAX's NumPy.

    steps: (n, length, len(COLUMNS)); known: (n, length), 1 where a step is there.
    """
    state = xp.zeros((steps.shape[0], HIDDEN), steps.dtype)
    total = xp.zeros(steps.shape[0], steps.dtype)
    for at in range(steps.shape[1] - 1):
        state = _next_state(xp, arrays, steps[:, at], state)
        there = known[:, at] * known[:, at + 1]
        total = total + there * _unlikely(xp, state @ arrays["outputs"] + arrays["outputs_bias"], steps[:, at + 1])
    return total / xp.maximum((known[:, 1:] * known[:, :-1]).sum(axis=1), 1.0)


def _next_state(xp: Any, arrays: Arrays, step: Any, state: Any) -> Any:
    given = step @ arrays["inputs"] + arrays["bias"]
    kept = state @ arrays["states"]
    update = 1 / (1 + xp.exp(-(given[:, :HIDDEN] + kept[:, :HIDDEN])))
    reset = 1 / (1 + xp.exp(-(given[:, HIDDEN : 2 * HIDDEN] + kept[:, HIDDEN : 2 * HIDDEN])))
    fresh = xp.tanh(given[:, 2 * HIDDEN :] + reset * kept[:, 2 * HIDDEN :])
    return (1 - update) * fresh + update * state


def _unlikely(xp: Any, found: Any, step: Any) -> Any:
    """Minus the logarithm of a step's probability, given a network's outputs."""
    total, at = 0.0, 0
    for group in GROUPS:
        end = at + len(group)
        logits = found[:, at:end]
        most = logits.max(axis=1, keepdims=True)
        norm = most[:, 0] + xp.log(xp.exp(logits - most).sum(axis=1))
        total, at = total + norm - (logits * step[:, at:end]).sum(axis=1), end
    mean, log_of_variance = found[:, AMOUNTS_AT : AMOUNTS_AT + len(AMOUNTS)], found[:, AMOUNTS_AT + len(AMOUNTS) :]
    log_of_variance = xp.clip(log_of_variance, *VARIANCE_LOG)
    off = (step[:, AMOUNTS_AT:] - mean) ** 2 * xp.exp(-log_of_variance)
    return total + 0.5 * (off + log_of_variance + np.log(2 * np.pi)).sum(axis=1)


@dataclass(frozen=True, slots=True)
class SequenceModel:
    """arrays: of SHAPES, float64. manifest: JSON values; `length`: steps of a window; `odd_from`: surprise from which
    a window is odd."""

    arrays: Mapping[str, NDArray[np.float64]]
    manifest: Mapping[str, Any]

    @property
    def length(self) -> int:
        """Steps of a window."""
        return int(self.manifest["length"])

    @property
    def odd_from(self) -> float:
        """A surprise that so few ordinary windows reach as SEQUENCE_ODD_SHARE says."""
        return float(self.manifest["odd_from"])

    @property
    def odd_share(self) -> float:
        """That share; a model of before it was a setting does not say it."""
        return max(float(self.manifest.get("odd_share", USUAL_SEQUENCES.odd_share)), 1e-9)

    @property
    def model_id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the file's bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    def surprise(self, windows: Windows) -> NDArray[np.float64]:
        """The surprise of n windows, (n,)."""
        steps, known = windows.steps.astype(np.float64), windows.known.astype(np.float64)
        found: NDArray[np.float64] = surprises(np, self.arrays, steps, known)
        return found

    def to_bytes(self) -> bytes:
        """The model as a stored .npz."""
        out, facts = io.BytesIO(), json.dumps({**self.manifest, "schema": STEPS_SCHEMA}, sort_keys=True).encode()
        arrays: dict[str, Any] = {name: self.arrays[name] for name in SHAPES}
        np.savez(out, manifest=np.frombuffer(facts, np.uint8), **arrays)
        return out.getvalue()

    def noted(self, **facts: Any) -> SequenceModel:
        """The model with more in its manifest."""
        return replace(self, manifest={**self.manifest, **facts})


def load_sequence_model(data: bytes) -> SequenceModel:
    """The model in a file's bytes. Raises ModelError: also for one of other steps."""
    try:
        arrays = read_npz(data, FILE_MAX)
        manifest = json_of(arrays, "manifest")
    except FormatError as error:
        raise ModelError(f"cannot read the sequence model: {error}") from None
    if manifest.get("schema") != STEPS_SCHEMA:
        raise ModelError("cannot read the sequence model: it is of other steps")
    found = {name: arrays.get(name, np.empty(0)) for name in SHAPES}
    sound = all(
        array.shape == SHAPES[name] and array.dtype == np.float64 and bool(np.isfinite(array).all())
        for name, array in found.items()
    )
    length, odd_from = manifest.get("length"), manifest.get("odd_from")
    if not sound or not isinstance(length, int) or not 2 <= length <= 1000 or not isinstance(odd_from, int | float):
        raise ModelError("cannot read the sequence model: damaged file")
    return SequenceModel(found, manifest)


def guess_of(windows: Windows) -> dict[str, NDArray[np.float64]]:
    """What predicts each step by how often, and how large, steps are: training begins with it and must do better."""
    steps = windows.steps[windows.known].astype(np.float64)
    logits = np.log(np.maximum(steps[:, :AMOUNTS_AT].mean(axis=0), 1e-4))
    amounts = steps[:, AMOUNTS_AT:]
    spread = np.clip(np.log(np.maximum(amounts.var(axis=0), 1e-9)), *VARIANCE_LOG)
    arrays = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    return arrays | {"outputs_bias": np.concatenate([logits, amounts.mean(axis=0), spread])}


def begun_network(seed: int) -> dict[str, NDArray[np.float64]]:
    """First weights (Glorot, Bengio 2010), biases 0."""
    draw = np.random.default_rng(seed)
    return {
        name: draw.normal(0, np.sqrt(2 / sum(shape)), shape) if len(shape) == 2 else np.zeros(shape)
        for name, shape in SHAPES.items()
    }


def trained_network(
    windows: Windows, epochs: int, params: Mapping[str, Any], seed: int
) -> dict[str, NDArray[np.float64]]:
    """Weights after so many passes over the windows. params: of network.DEEP_FIELDS.

    Raises TrainingError, also where the extra deep is missing.
    """
    if len(windows) < 2:
        raise TrainingError("cannot train the sequence model: there are fewer than two windows")
    jax = jax_of(params)
    jnp, length = jax.numpy, windows.steps.shape[1]
    split = length * len(COLUMNS)
    begin = begun_network(seed) | {name: guess_of(windows)[name] for name in ("outputs", "outputs_bias")}
    rows = np.concatenate([windows.steps.reshape(len(windows), -1), windows.known], axis=1).astype(np.float32)

    def loss(weights: Any, some: Any, key: Any) -> Any:
        steps, known = some[:, :split].reshape(-1, length, len(COLUMNS)), some[:, split:]
        return surprises(jnp, weights, steps, known).mean()

    found = descended({**params, "deep_epochs": epochs}, begin, loss, rows, seed)
    return {name: np.asarray(found[name], np.float64) for name in SHAPES}
