"""A slow channel, and the shipped model with other limits, which finds it or does not."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from agents.scoring.model import Model
from tests.support.detecting import shipped_model

LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
TIGHT, LOOSE = 0.3, 10.0
"""Factors on the limits with which `carried` is an alert, and with which it is none."""


def with_factor(factor: float) -> Model:
    """The shipped model, with this factor on its limits."""
    return with_limits({"factor": factor})


def with_limits(limits: Mapping[str, Any]) -> Model:
    """The shipped model, with limits as the alert budget tells them."""
    shipped = shipped_model()
    return Model(shipped.arrays, dict(shipped.manifest) | {"limits": dict(limits)})


def carried(domain: str, seed: int, count: int = 20) -> Sequence[str]:
    """Names that carry some fifteen encoded bytes each, in labels of different lengths."""
    rng = random.Random(seed)
    return ["".join(rng.choices(LETTERS, k=rng.randrange(22, 34))) + f".{domain}" for _ in range(count)]
