"""Training of a model: a detector type is fitted, both votes are calibrated, and letters and labels are learnt."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.columns import lowered
from agents.core.errors import TrainingError
from agents.core.protocols import Spec
from agents.core.types import Sample
from agents.dns.name import labels_of, split_names, wires_of
from agents.scoring.features import FEATURES, SCHEMA
from agents.scoring.information import CharModel, learn
from agents.scoring.model import FORMAT, Model, digest
from agents.scoring.types.base import OutlierScorer, tail
from agents.scoring.types.forest import SPEC as FOREST

VOTES = 2
"""Each vote gets 1/VOTES of the allowed false positives (Bonferroni), since the louder vote decides."""
BITS_SUSPICIOUS, BITS_HIGH = 130.0, 136.0
"""Just above 16 bytes, and 17 bytes. Bits have an absolute meaning, so they are not calibrated on a network's traffic:
16 bytes are an MD5 or a UUID (RFC 9562), the longest identifiers that ordinary services put into names."""


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


def train(
    learn_from: Sample,
    calibrate_on: Sample,
    config: TrainConfig,
    facts: Mapping[str, Any],
    spec: Spec[OutlierScorer] = FOREST,
    options: Mapping[str, Any] | None = None,
) -> Model:
    """Fit on `learn_from`, calibrate on both samples; `facts` (window, parent, counts) go into the manifest.

    `calibrate_on` is trusted; an attacker may have placed names in `learn_from`. options: of the detector type.
    Raises TrainingError if there are fewer than 2 rows, or a library is missing.
    """
    chosen = asdict(config) | dict(options or {})
    scorer = spec.factory(chosen).fit(learn_from.features, config.seed)
    arrays = scorer.to_arrays()
    trusted = set(calibrate_on.qname)
    arrays |= _codes(learn(_subdomains(trusted), _subdomains(set(learn_from.qname) - trusted)))
    benign = np.concatenate([learn_from.features, calibrate_on.features])
    arrays["knots_raw"], arrays["knots_score"] = calibration(scorer.score(benign), config)
    arrays["bits_raw"] = np.array([0.0, BITS_SUSPICIOUS, BITS_HIGH, 2 * BITS_HIGH])
    arrays["bits_score"] = np.array([0.0, config.score_suspicious, config.score_high, 1.0])
    manifest = {
        "format": FORMAT,
        "algorithm": scorer.algorithm,
        "feature_schema": SCHEMA,
        "features": [feature.name for feature in FEATURES],
        "params": chosen | scorer.params,
        "seed": config.seed,
        "arrays_sha256": digest(arrays),
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", *scorer.libraries)},
        **facts,
    }
    return Model(arrays, manifest)


def _subdomains(names: Iterable[str]) -> list[tuple[bytes, ...]]:
    wires = lowered(wires_of(sorted(names)))
    cuts = split_names(wires).cuts.tolist()
    return [labels_of(wire[:cut]) for wire, cut in zip(wires, cuts, strict=True)]


def calibration(raw: NDArray[np.float64], config: TrainConfig) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Knots from raw scores to shown scores, such that shown scores mean the same after every training.

    The shown score is linear in -log10 P(benign raw score above) between (1, 0), (benign_above_suspicious,
    score_suspicious) and (benign_above_high, score_high), and continues to 1 with the last slope.
    """
    knots, decades = tail(raw)
    at = [0.0, -np.log10(config.benign_above_suspicious / VOTES), -np.log10(config.benign_above_high / VOTES)]
    if at[2] <= at[1]:
        raise TrainingError(
            f"cannot calibrate: benign_above_high {config.benign_above_high:g} is not below"
            f" benign_above_suspicious {config.benign_above_suspicious:g}"
        )
    slope = (config.score_high - config.score_suspicious) / (at[2] - at[1])
    end = at[2] + (1 - config.score_high) / slope
    return knots, np.interp(decades, [*at, end], [0.0, config.score_suspicious, config.score_high, 1.0])


def _codes(chars: CharModel) -> dict[str, NDArray[Any]]:
    return {
        "char_bits": np.minimum(np.round(chars.bits * 100), 65535).astype(np.uint16),
        "label_bits": np.array([bits * 100 for bits in chars.common.values()], dtype=np.uint16),
        "label_text": np.frombuffer(b"\n".join(chars.common), dtype=np.uint8),
    }


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@dataclass(frozen=True)
class DetectorType:
    """A core.protocols.ModelType: trains models of one type, and reads the files of all types."""

    spec: Spec[OutlierScorer]
    config: TrainConfig
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Packages that training takes and that are not installed."""
        return [name for name in self.spec.factory(self.options).libraries if not _installed(name)]

    def train(self, learn_from: Sample, calibrate_on: Sample, seed: int, facts: Mapping[str, Any]) -> Model:
        """See train()."""
        return train(learn_from, calibrate_on, replace(self.config, seed=seed), facts, self.spec, self.options)

    def load(self, data: bytes) -> Model:
        """See Model.from_bytes."""
        return Model.from_bytes(data)
