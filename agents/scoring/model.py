"""The trained model: plain arrays and a manifest in one `.npz`, scored without scikit-learn and without pickle.

Arrays
    knots_raw, knots_score  float64 (k,)  calibration: raw score to shown score, both rising
    bits_raw, bits_score    float64 (k,)  calibration: encoded bits of a name to shown score, both rising
    char_bits  uint16 (40, 40, 40)   trigram code lengths in 1/100 bit; see information.py
    label_bits uint16 (m,), label_text uint8  common labels (newline-separated) and their code lengths
    manifest   uint8                 JSON
    and those of the detector type that the manifest names as its algorithm; see types/
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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
from agents.scoring.types import SPECS
from agents.scoring.types.base import OutlierScorer, rises

FORMAT = 1
BYTES_MAX = 64 << 20
"""Models are far smaller; a file that unpacks to more bytes is refused."""
_SHAPES: dict[str, tuple[str, int]] = {
    "knots_raw": ("float64", 1),
    "knots_score": ("float64", 1),
    "bits_raw": ("float64", 1),
    "bits_score": ("float64", 1),
    "char_bits": ("uint16", 3),
    "label_bits": ("uint16", 1),
    "label_text": ("uint8", 1),
}


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

        features has shape (n, len(FEATURES)); qnames are the n wire names. One vote is the score of the detector type,
        the other the score of the bits in labels that read as encoded.
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

    @cached_property
    def scorer(self) -> OutlierScorer:
        """The detector type, with this model's arrays."""
        return scorer_of(self.manifest).use(self.arrays, len(FEATURES))

    def raw(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Uncalibrated scores of a feature matrix."""
        return self.scorer.score(features)

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
    scorer = scorer_of(manifest)
    if set(arrays) != {*_SHAPES, *scorer.shapes} or manifest.get("arrays_sha256") != digest(arrays):
        raise ModelError("cannot use model: its arrays do not match its manifest")
    if arrays["char_bits"].shape != (SIZE, SIZE, SIZE):
        raise ModelError("cannot use model: arrays have the wrong shapes")
    scorer.use(arrays, len(FEATURES))
    if len(arrays["label_text"].tobytes().split(b"\n")) != max(len(arrays["label_bits"]), 1):
        raise ModelError("cannot use model: its common labels and their lengths do not match")
    for vote in ("knots", "bits"):
        if not rises(arrays[f"{vote}_raw"], arrays[f"{vote}_score"], 1.0):
            raise ModelError("cannot use model: its calibration does not rise")
    limits = manifest.get("limits", {})
    if not isinstance(limits, dict) or not _is_factor(limits.get("factor", 1.0)):
        raise ModelError("cannot use model: limits.factor is not a number from 0.1 to 10")


def scorer_of(manifest: Mapping[str, Any]) -> OutlierScorer:
    """The detector type that the manifest names, without arrays. Raises ModelError."""
    params = manifest.get("params")
    made = (spec.factory(params if isinstance(params, dict) else {}) for spec in SPECS)
    for scorer in made:
        if scorer.algorithm == manifest.get("algorithm"):
            return scorer
    raise ModelError(f"cannot use model: no detector type has the algorithm {str(manifest.get('algorithm'))[:60]!r}")


def detector_type_name(manifest: Mapping[str, Any]) -> str:
    """What MODEL_TYPE calls the detector type that the manifest names. Raises ModelError."""
    kind = type(scorer_of(manifest))
    return next(spec.name for spec in SPECS if isinstance(spec.factory(manifest.get("params", {})), kind))


def _is_factor(value: Any) -> bool:
    return isinstance(value, int | float) and 0.1 <= value <= 10
