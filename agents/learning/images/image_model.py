"""A detector type that has learnt ordinary images of flows, as plain arrays in a file; it is served by NumPy.

Its scores are told as rarity: decades, -log10 of the share of ordinary images that are as strange.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ModelError
from agents.core.npz import FormatError, json_of, read_npz
from agents.core.protocols import Field, Spec
from agents.learning.loop.flow_hours import NUMBERS, SCHEMA
from agents.learning.loop.flow_images import SLICES
from agents.scoring.types import efficient_ad, fastflow, padim
from agents.scoring.types.base import DECADES_MAX, OutlierScorer, Rows, rises, tail

IMAGE_FILE_MAX = 16 << 20
"""Bytes of a model's file, at most."""
IMAGE_TYPES: Mapping[str, Spec[OutlierScorer]] = {
    one.name: one for one in (padim.SPEC, fastflow.SPEC, efficient_ad.SPEC)
}
"""Types that judge an image place by place."""
WIDTH = SLICES * len(NUMBERS)

SPEC: Spec[str] = Spec(
    "images",
    "images of flows, judged live",
    (
        Field(
            "flow_images",
            Literal["off", "padim", "fastflow", "efficient_ad"],
            "off",
            "detector type that judges images of flows (their last seven hours) each hour; what it finds strange is "
            "listed within the alert budget; fastflow and efficient_ad are trained with the extra deep",
        ),
    ),
    lambda values: str(values["flow_images"]),
)


@dataclass(frozen=True, slots=True)
class ImageModel:
    """knots, decades: from raw scores to rarity, both rise. manifest: JSON values; `type`: a name of IMAGE_TYPES."""

    scorer: OutlierScorer
    knots: NDArray[np.float64]
    decades: NDArray[np.float64]
    manifest: Mapping[str, Any]

    def rarity(self, images: Rows) -> NDArray[np.float64]:
        """Of n images, shape (n, WIDTH): decades from 0 to DECADES_MAX, shape (n,)."""
        if not len(images):
            return np.empty(0)
        return np.interp(self.scorer.score(images), self.knots, self.decades)

    @property
    def model_id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the file's bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    def to_bytes(self) -> bytes:
        """The model as a stored .npz."""
        facts = {**self.manifest, "schema": SCHEMA, "slices": SLICES}
        out, text = io.BytesIO(), json.dumps(facts, sort_keys=True).encode()
        arrays: dict[str, Any] = {"knots": self.knots, "decades": self.decades, **self.scorer.to_arrays()}
        np.savez(out, manifest=np.frombuffer(text, np.uint8), **arrays)
        return out.getvalue()


def fitted_images(kind: str, params: Mapping[str, Any], learn: Rows, calibrate: Rows, seed: int) -> ImageModel:
    """A model of ordinary images, shape (n, WIDTH); calibrate: others, that set its rarity. Raises TrainingError."""
    scorer = IMAGE_TYPES[kind].factory({**params, "places": SLICES}).fit(learn, seed)
    knots, decades = tail(scorer.score(calibrate))
    facts = {"type": kind, "seed": seed, "images": len(learn) + len(calibrate)}
    return ImageModel(scorer, knots, decades, facts)


def load_image_model(data: bytes) -> ImageModel:
    """The model in a file's bytes. Raises ModelError: also for one of another schema of flow-hours."""
    try:
        arrays = read_npz(data, IMAGE_FILE_MAX)
        manifest = json_of(arrays, "manifest")
    except FormatError as error:
        raise ModelError(f"cannot read the model of images: {error}") from None
    if (manifest.get("schema"), manifest.get("slices")) != (SCHEMA, SLICES):
        raise ModelError("cannot read the model of images: it is of another schema of flow-hours")
    knots, decades = (arrays.get(name, np.empty(0)) for name in ("knots", "decades"))
    spec = IMAGE_TYPES.get(str(manifest.get("type")))
    sound = all(one.dtype == np.float64 and one.ndim == 1 and bool(np.isfinite(one).all()) for one in (knots, decades))
    if spec is None or not sound or not rises(knots, decades, DECADES_MAX + 1e-9):
        raise ModelError("cannot read the model of images: damaged file")
    return ImageModel(spec.factory({"places": SLICES}).use(arrays, WIDTH), knots, decades, manifest)
