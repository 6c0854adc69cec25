"""Isolation Forest and PaDiM side by side: the member to which a row is rarer decides."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from agents.core.protocols import Spec
from agents.scoring.types.base import OutlierScorer, Rows, Values
from agents.scoring.types.committee import Committee, options_of, shapes_of
from agents.scoring.types.forest import IsolationForestScorer
from agents.scoring.types.padim import PadimScorer


class PairScorer(Committee):
    """The larger of both members' decades. They see different tools: a forest cuts along axes, a Gaussian across."""

    algorithm = "pair of Isolation Forest and PaDiM"
    members: ClassVar = {"forest": IsolationForestScorer, "padim": PadimScorer}
    options = options_of(members)
    libraries = ("scikit-learn",)
    shapes: ClassVar = shapes_of(members)

    def score(self, rows: Rows) -> Values:
        return np.asarray(self.decades(rows).max(axis=0))


SPEC: Spec[OutlierScorer] = Spec(
    name="pair",
    summary="an Isolation Forest and PaDiM: the one to which a name is rarer decides",
    fields=(),
    factory=PairScorer,
)
