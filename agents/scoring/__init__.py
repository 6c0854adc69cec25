"""Scores of single names: features, information, models.

`detection` and the rooms above it may import it; `sources`, `store` and `alerting` are on the same layer and may not.
"""

from agents.scoring.features import FEATURES
from agents.scoring.model import Model
from agents.scoring.types import SPECS as MODEL_TYPES

__all__ = ["FEATURES", "MODEL_TYPES", "Model"]
