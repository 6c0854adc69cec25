"""Detector types: one file each, with a Spec whose factory makes an unfitted base.OutlierScorer of its options."""

from agents.core.protocols import Spec
from agents.scoring.types import efficient_ad, ensemble, fastflow, forest, padim, pair, pyod
from agents.scoring.types.base import OutlierScorer

SPECS: tuple[Spec[OutlierScorer], ...] = (
    forest.SPEC,
    padim.SPEC,
    pair.SPEC,
    ensemble.SPEC,
    efficient_ad.SPEC,
    fastflow.SPEC,
    pyod.SPEC,
)
"""All detector types. MODEL_TYPE names one; files of all of them can be read."""
