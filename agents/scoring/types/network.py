"""Small networks for detector types: trained with JAX, kept as plain arrays, run by NumPy.

A network NAME has one hidden layer of rectified units (ReLU): arrays NAME_w0 (d, h), NAME_b0 (h,), NAME_w1 (h, k) and
NAME_b1 (k,), float64.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import TrainingError
from agents.core.protocols import Field, Within
from agents.core.text import printable
from agents.scoring.types.base import Rows, Values, affine

LAYERS = ("w0", "b0", "w1", "b1")
Weights = dict[str, Any]
"""A network's layers by the names in LAYERS, NumPy's or JAX's."""


def _device(name: str) -> None:
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError("it is auto, cpu or cuda")


DEEP_FIELDS = (
    Field("device", str, "auto", "where efficient_ad and fastflow are trained: auto, cpu or cuda", _device),
    Field("deep_epochs", int, 30, "times that a network sees each row of its sample", Within(1, 1000)),
    Field("deep_batch", int, 128, "rows of one step of training", Within(2, 8192)),
    Field("deep_rate", float, 0.002, "learning rate of a network", Within(1e-6, 1)),
    Field("deep_hidden", int, 48, "hidden units of a network", Within(2, 256)),
)
"""Settings of every type that trains networks."""
DEEP_OPTIONS = tuple(one.name for one in DEEP_FIELDS)


def jax_of(params: Mapping[str, Any]) -> Any:
    """JAX, set to the device that `params` name. Raises TrainingError where it, optax or the device is missing."""
    # The same data and seed give the same network: with more threads sums come in another order (jax-ml/jax#39741).
    os.environ.setdefault("PJRT_NPROC", "1")
    try:
        import jax
        import optax
    except ImportError as error:
        raise TrainingError(f"cannot train this detector type without the extra deep: {error}") from None
    assert optax
    if params["device"] != "auto":
        try:
            devices = jax.devices(params["device"])
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise TrainingError(f"cannot train on DEVICE={params['device']}: {reason}") from None
        config: Any = jax.config
        config.update("jax_default_device", devices[0])
    return jax


def begun(draw: np.random.Generator, inputs: int, hidden: int, outputs: int) -> Weights:
    """A network's first weights (He et al. 2015: deviation sqrt(2 / inputs))."""
    return {
        "w0": draw.normal(0, np.sqrt(2 / inputs), (inputs, hidden)),
        "b0": np.zeros(hidden),
        "w1": draw.normal(0, np.sqrt(1 / hidden), (hidden, outputs)),
        "b1": np.zeros(outputs),
    }


def forward(jnp: Any, network: Weights, rows: Any) -> Any:
    """The network's outputs while it is trained, (n, k)."""
    return jnp.maximum(rows @ network["w0"] + network["b0"], 0.0) @ network["w1"] + network["b1"]


def outputs(arrays: Mapping[str, NDArray[Any]], name: str, rows: NDArray[Any]) -> Values:
    """The outputs of network NAME for n rows, (n, k)."""
    w0, b0, w1, b1 = (arrays[f"{name}_{layer}"] for layer in LAYERS)
    return affine(np.maximum(affine(rows, w0, b0), 0.0), w1, b1)


def named(name: str, network: Weights) -> dict[str, NDArray[Any]]:
    """A network as arrays."""
    return {f"{name}_{layer}": np.asarray(network[layer], np.float64) for layer in LAYERS}


def shapes_of_network(name: str) -> dict[str, tuple[str, int]]:
    """Type and dimensions of a network's arrays."""
    return {f"{name}_{layer}": ("float64", 2 if layer.startswith("w") else 1) for layer in LAYERS}


def fits(arrays: Mapping[str, NDArray[Any]], name: str, inputs: int, results: int) -> bool:
    """Whether a network takes and gives so many numbers, and all its weights are finite."""
    w0, b0, w1, b1 = (arrays[f"{name}_{layer}"] for layer in LAYERS)
    hidden = len(b0)
    shapes = w0.shape == (inputs, hidden) and w1.shape == (hidden, results) and b1.shape == (results,)
    return shapes and all(bool(np.isfinite(one).all()) for one in (w0, b0, w1, b1))


def descended(
    params: Mapping[str, Any],
    weights: Any,
    loss: Callable[[Any, Any, Any], Any],
    rows: Rows | Values,
    seed: int,
) -> Any:
    """Weights after DEEP_EPOCHS passes over the rows by Adam (Kingma, Ba 2015). loss: of (weights, rows, random key).

    Raises TrainingError where the loss is not finite at the end, or the device has no room.
    """
    jax = jax_of(params)
    import optax  # here: only training needs it

    rule: Any = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(params["deep_rate"]))

    def step(state: Any, given: Any) -> Any:
        weights, moments = state
        value, slope = jax.value_and_grad(loss)(weights, given[0], given[1])
        change, moments = rule.update(slope, moments, weights)
        return (optax.apply_updates(weights, change), moments), value

    epoch = jax.jit(lambda state, batches, keys: jax.lax.scan(step, state, (batches, keys)))
    state, value = (jax.tree.map(jax.numpy.float32, weights), None), None
    state = (state[0], rule.init(state[0]))
    try:
        for number, batches in enumerate(_epochs(rows, params, seed)):
            keys = jax.random.split(jax.random.key(seed + number), len(batches))
            state, value = epoch(state, batches, keys)
        finite, found = np.isfinite(np.asarray(value)).all(), jax.tree.map(np.asarray, state[0])
    except jax.errors.JaxRuntimeError as error:  # a device without room
        raise TrainingError(f"cannot train: {printable(' '.join(str(error).split()))}") from None
    if not finite:
        raise TrainingError("cannot train: the network diverged; lower DEEP_RATE")
    return found


def _epochs(rows: Rows | Values, params: Mapping[str, Any], seed: int) -> Iterator[Rows]:
    """The rows in batches, (batches, rows, d), in another order each time; what fills no batch waits for the next."""
    draw = np.random.default_rng(seed)
    size = min(params["deep_batch"], len(rows))
    for _ in range(params["deep_epochs"]):
        order = draw.permutation(len(rows))[: len(rows) // size * size]
        yield rows[order].reshape(-1, size, rows.shape[1]).astype(np.float32)
