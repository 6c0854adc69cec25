"""Tests of every detector type; those whose extra is not installed are skipped."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from agents.scoring import MODEL_TYPES

DEEP = ("efficient_ad", "fastflow")
deep = pytest.mark.skipif(
    find_spec("jax") is None or find_spec("optax") is None, reason="the extra deep is not installed"
)
kinds = pytest.mark.parametrize(
    "name", [pytest.param(spec.name, marks=[deep] if spec.name in DEEP else []) for spec in MODEL_TYPES]
)
