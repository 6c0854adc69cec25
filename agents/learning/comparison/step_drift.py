"""How far what clients ask has moved since a sequence model was learnt.

What a cycle collects is deleted, so a model keeps quantiles and shares of its steps, as a later sample needs them
(comparison.drift), and no step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.learning.comparison.drift import drift, reference_of, with_anchor
from agents.learning.run import FeatureDrift
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.steps import AMOUNTS, AMOUNTS_AT, GROUPS, STEPS_SCHEMA, Windows

STEP_NUMBERS = ("domain", "name", "type", "outcome", *AMOUNTS)
"""What is compared of a step: the place in each of GROUPS, and AMOUNTS."""


def steps_reference(windows: Windows) -> dict[str, Any]:
    """What later steps are compared with, as JSON values; {} of too few."""
    kinds = {at: len(group) for at, group in enumerate(GROUPS)}
    return reference_of(_numbers(windows), STEPS_SCHEMA, kinds)


def step_drift(
    windows: Windows, in_use: SequenceModel | None, anchor: SequenceModel | None = None
) -> tuple[FeatureDrift, ...]:
    """These steps beside those that the model in use learned from, what moved most first.

    psi_anchor: beside the anchor's, None = there is none. () where the model in use kept nothing, or too few are here.
    """
    found = _since(in_use, windows)
    if found and anchor is not None:
        found = with_anchor(found, _since(anchor, windows))
    return tuple(sorted(found, key=lambda one: -one.psi))


def _since(model: SequenceModel | None, windows: Windows) -> tuple[FeatureDrift, ...]:
    kept = model.manifest.get("steps") if model is not None else None
    return drift(kept, _numbers(windows), STEP_NUMBERS, STEPS_SCHEMA) if isinstance(kept, Mapping) else ()


def _numbers(windows: Windows) -> NDArray[np.float32]:
    """STEP_NUMBERS of each step. Shape (steps, len(STEP_NUMBERS))."""
    steps = windows.steps[windows.known]
    ends = np.cumsum([len(group) for group in GROUPS])
    places = [steps[:, end - len(group) : end].argmax(axis=1) for end, group in zip(ends, GROUPS, strict=True)]
    return np.column_stack([*places, steps[:, AMOUNTS_AT:]]).astype(np.float32)
