"""Scores of single names: features, information, models.

`detection` and the rooms above it may import it; `sources`, `store` and `alerting` are on the same layer and may not.
"""

from agents.core.protocols import Spec
from agents.scoring import isolation_forest
from agents.scoring.features import FEATURES
from agents.scoring.model import Model

MODEL_TYPES: tuple[Spec[isolation_forest.IsolationForestType], ...] = (isolation_forest.SPEC,)
"""Detector types; retraining trains the first."""

__all__ = ["FEATURES", "MODEL_TYPES", "Model"]
