"""What a single name says: features, information, models.

`detection` and the rooms above it may import it; `sources`, `store` and `alerting` stand beside it and may not.
"""

from agents.scoring.features import FEATURES
from agents.scoring.model import Model

__all__ = ["FEATURES", "Model"]
