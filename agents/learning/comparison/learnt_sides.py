"""What two models that cycles learn have otherwise: settings and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agents.learning.images.image_model import ImageModel
from agents.learning.loop.flow_hours import NUMBERS
from agents.learning.loop.flow_model import FlowModel
from agents.learning.sequences.gru import SequenceModel

WEIGHT_MIN = 5e-4
"""Weights that differ by less are left out of a comparison."""
SIDES_SHOWN = 24
"""Weights that a report shows, those that moved most."""
Learnt = FlowModel | SequenceModel | ImageModel


def model_sides(
    old: Learnt | None, new: Learnt, measures: Mapping[str, tuple[float | None, float]]
) -> tuple[tuple[str, str, str], ...]:
    """Rows of (what, model in use, candidate), as text, for a report. measures: by name of both; None = not measured.

    old: None = none is in use.
    """
    before, after = model_settings(old) if old is not None else {}, model_settings(new)
    rows = [(name.replace("_", " "), _number(was), _number(now)) for name, (was, now) in measures.items()]
    rows += [
        (name.replace("_", " "), _number(before.get(name)), _number(after.get(name)))
        for name in dict.fromkeys([*after, *before])
    ]
    moved = moved_weights(old, new)[:SIDES_SHOWN] if old is not None else []
    rows += [(f"weight of {one['name']}", one["old"] or "–", one["new"]) for one in moved]
    return (("model id", old.model_id if old is not None else "–", new.model_id), *rows)


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def model_settings(model: Learnt) -> dict[str, Any]:
    """What a model's manifest says, without what says where it comes from."""
    left_out = ("parent", "data_sha256", "trained", "steps")
    return {name: value for name, value in model.manifest.items() if name not in left_out}


def moved_weights(old: Learnt, new: Learnt) -> list[dict[str, Any]]:
    """Weights of flow models that differ, the most first; of others how far each array moved."""
    if isinstance(old, FlowModel) and isinstance(new, FlowModel):
        names = [*NUMBERS, "bias"]
        pairs = list(zip(names, [*old.weights, old.bias], [*new.weights, new.bias], strict=True))
        moved = sorted(pairs, key=lambda row: -abs(row[2] - row[1]))
        rows = [(name, f"{was:.3f}", f"{now:.3f}") for name, was, now in moved if abs(now - was) >= WEIGHT_MIN]
    else:
        before, after = _arrays(old), _arrays(new)
        shares = {name: _moved(before[name], after[name]) for name in before if name in after}
        rows = [(name, "", f"moved by {share:.1%} of its length") for name, share in shares.items() if share]
    return [{"name": name, "old": was, "new": now} for name, was, now in rows]


def _arrays(model: Learnt) -> Mapping[str, Any]:
    """Arrays of numbers by name; of image models those of their detector type."""
    found = model.arrays if isinstance(model, SequenceModel) else {}
    found = model.scorer.to_arrays() if isinstance(model, ImageModel) else found
    return {name: one for name, one in found.items() if np.issubdtype(np.asarray(one).dtype, np.floating)}


def _moved(old: Any, new: Any) -> float:
    """How far an array moved, as a share of its length; 1 where it has another shape."""
    if np.shape(old) != np.shape(new):
        return 1.0
    return float(np.linalg.norm(new - old) / max(float(np.linalg.norm(old)), 1e-9))
