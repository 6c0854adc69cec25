"""Tests of every detector type; those whose extra is not installed are skipped."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from agents.scoring import MODEL_TYPES

DEEP = ("efficient_ad", "fastflow")
deep = pytest.mark.skipif(
    find_spec("jax") is None or find_spec("optax") is None, reason="the extra deep is not installed"
)
has_pyod = pytest.mark.skipif(find_spec("pyod") is None, reason="the extra pyod is not installed")
MARKS = dict.fromkeys(DEEP, deep) | {"pyod": has_pyod}
kinds = pytest.mark.parametrize(
    "name", [pytest.param(spec.name, marks=[MARKS[spec.name]] if spec.name in MARKS else []) for spec in MODEL_TYPES]
)
