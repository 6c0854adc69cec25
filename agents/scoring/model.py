"""The trained model: plain arrays and a manifest in one `.npz`, scored without scikit-learn and without pickle.

Arrays
    feature    uint8   (trees, 255)  column tested by each inner node of a complete tree of depth 8
    threshold  float32 (trees, 255)  go left if x <= threshold; +inf = always left
    path       float32 (trees, 256)  path length at each leaf (Liu, Ting, Zhou 2008, equation 1)
    knots_raw, knots_score  float64 (k,)  calibration: raw forest score to shown score, both rising
    bits_raw, bits_score    float64 (k,)  calibration: encoded bits of a name to shown score, both rising
    char_bits  uint16 (40, 40, 40)   trigram code lengths in 1/100 bit; see information.py
    label_bits uint16 (m,), label_text uint8  common labels (newline-separated) and their code lengths
    manifest   uint8                 JSON
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import lowered
from agents.core.errors import ModelError
from agents.core.jit import COMPILED
from agents.core.npz import FormatError, json_of, read_npz
from agents.dns.name import split_names
from agents.scoring import model_kernels
from agents.scoring.features import FEATURES, SCHEMA
from agents.scoring.information import SIZE, CharModel

DEPTH = 8
"""ceil(log2(256)): the height limit for samples of 256 (Liu, Ting, Zhou 2008, section 4)."""
INNER, LEAVES = 2**DEPTH - 1, 2**DEPTH
CHUNK = 2048
"""Rows scored at once: keeps the temporary arrays in the processor's cache."""
MANY = 1 << 16
"""From this many rows on, they are divided among all cores."""
FORMAT = 1
BYTES_MAX = 64 << 20
"""Models are far smaller; a file that unpacks to more bytes is refused."""
_SHAPES: dict[str, tuple[str, int]] = {
    "feature": ("uint8", 2),
    "threshold": ("float32", 2),
    "path": ("float32", 2),
    "knots_raw": ("float64", 1),
    "knots_score": ("float64", 1),
    "bits_raw": ("float64", 1),
    "bits_score": ("float64", 1),
    "char_bits": ("uint16", 3),
    "label_bits": ("uint16", 1),
    "label_text": ("uint8", 1),
}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a model is trained and calibrated. The same config, seed and data give the same file."""

    n_estimators: int = 200
    max_samples: int = 256  # Liu, Ting, Zhou 2008, section 4.3: more gains nothing
    seed: int = 42
    benign_above_suspicious: float = 0.001
    benign_above_high: float = 0.0001
    score_suspicious: float = 0.5
    score_high: float = 0.7


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


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model. `model_id` names the file's content; the same data, config and parent give the same id."""

    arrays: Mapping[str, NDArray[Any]]
    manifest: Mapping[str, Any]
    model_id: str = field(init=False)
    chars: CharModel = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_id", hashlib.sha256(self.to_bytes()).hexdigest()[:16])
        texts = self.arrays["label_text"].tobytes().split(b"\n")
        common = dict(zip(texts, (self.arrays["label_bits"] / 100).tolist(), strict=False))
        object.__setattr__(
            self, "chars", CharModel(np.asarray(self.arrays["char_bits"] / 100, dtype=np.float32), common)
        )

    @property
    def limit_factor(self) -> float:
        """The factor on the limits of detection.limits, as the alert budget chose it; 1 if the manifest has none."""
        return float(self.manifest.get("limits", {}).get("factor", 1.0))

    def score(self, features: NDArray[np.float32], qnames: Sequence[bytes]) -> NDArray[np.float32]:
        """Calibrated scores 0..1 of n names, high = anomalous: the louder of two votes.

        features has shape (n, len(FEATURES)); qnames are the n wire names. One vote is the score of the forest, the
        other the score of the bits in labels that read as encoded.
        """
        names = lowered(qnames)
        return self.louder(features, self.chars.costs(names, split_names(names)).encoded_bits)

    def louder(self, features: NDArray[np.float32], encoded_bits: NDArray[np.float64]) -> NDArray[np.float32]:
        """Like score, for names whose encoded bits, shape (n,), are known."""
        raw = self.raw(features)
        if COMPILED:
            scores = np.empty(len(features), np.float32)
            model_kernels.votes(raw, encoded_bits, *self._calibration, scores)
            return scores
        knots_raw, knots_score, bits_raw, bits_score = self._calibration
        votes = np.interp(raw, knots_raw, knots_score), np.interp(encoded_bits, bits_raw, bits_score)
        return np.asarray(np.maximum(*votes), dtype=np.float32)

    @cached_property
    def _calibration(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        arrays = self.arrays
        return arrays["knots_raw"], arrays["knots_score"], arrays["bits_raw"], arrays["bits_score"]

    @property
    def _sample(self) -> int:
        return int(self.manifest["params"]["max_samples"])

    def raw(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Uncalibrated forest scores of a feature matrix."""
        return scores_of(self.arrays, features, self._sample)

    def to_bytes(self) -> bytes:
        """The file: a stored zip of .npy members with fixed time stamps. Its bytes do not depend on a compressor."""
        manifest = np.frombuffer(json.dumps(self.manifest, sort_keys=True).encode(), dtype=np.uint8)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for name, array in sorted({**self.arrays, "manifest": manifest}.items()):
                member = io.BytesIO()
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Model:
        """Read a model file. Raises ModelError if it is damaged, tampered with or of another feature schema."""
        try:
            arrays = read_npz(data, BYTES_MAX)
            manifest = json_of(arrays, "manifest")
        except FormatError as error:
            raise ModelError(f"cannot use model: {error}") from None
        del arrays["manifest"]
        _check(arrays, manifest)
        return cls(arrays, manifest)


def digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """sha256 over names, types, shapes and bytes of the arrays; the manifest carries it."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _check(arrays: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]) -> None:
    if manifest.get("format") != FORMAT:
        raise ModelError("cannot use model: unknown format")
    if manifest.get("feature_schema") != SCHEMA:
        raise ModelError(f"cannot use model: made for feature schema {manifest.get('feature_schema')}, not {SCHEMA}")
    for name, (kind, dimensions) in _SHAPES.items():
        if name not in arrays or arrays[name].dtype.name != kind or arrays[name].ndim != dimensions:
            raise ModelError(f"cannot use model: array {name} is missing or of another kind")
    if set(arrays) != set(_SHAPES) or manifest.get("arrays_sha256") != digest(arrays):
        raise ModelError("cannot use model: its arrays do not match its manifest")
    trees = len(arrays["feature"])
    shapes = (
        arrays["feature"].shape,
        arrays["threshold"].shape,
        arrays["path"].shape,
        arrays["char_bits"].shape,
    )
    if shapes != ((trees, INNER), (trees, INNER), (trees, LEAVES), (SIZE, SIZE, SIZE)) or trees == 0:
        raise ModelError("cannot use model: arrays have the wrong shapes")
    if arrays["feature"].max() >= len(FEATURES) or not np.isfinite(arrays["path"]).all():
        raise ModelError("cannot use model: a tree points outside the features")
    if len(arrays["label_text"].tobytes().split(b"\n")) != max(len(arrays["label_bits"]), 1):
        raise ModelError("cannot use model: its common labels and their lengths do not match")
    for vote in ("knots", "bits"):
        if not _rises(arrays[f"{vote}_raw"], arrays[f"{vote}_score"]):
            raise ModelError("cannot use model: its calibration does not rise")
    limits = manifest.get("limits", {})
    if not isinstance(limits, dict) or not _is_factor(limits.get("factor", 1.0)):
        raise ModelError("cannot use model: limits.factor is not a number from 0.1 to 10")
    params = manifest.get("params")
    samples = params.get("max_samples") if isinstance(params, dict) else None
    if not isinstance(samples, int) or not 2 <= samples <= LEAVES:
        raise ModelError("cannot use model: its manifest lacks params.max_samples")


def _rises(knots: NDArray[np.float64], shown: NDArray[np.float64]) -> bool:
    """Whether a calibration has at least two knots, and scores from 0 to 1 that never fall."""
    if len(knots) < 2 or len(knots) != len(shown):
        return False
    rising = (np.diff(knots) > 0).all() and (np.diff(shown) >= 0).all()
    return bool(rising and shown[0] >= 0 and shown[-1] <= 1)


def _is_factor(value: Any) -> bool:
    return isinstance(value, int | float) and 0.1 <= value <= 10
