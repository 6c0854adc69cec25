"""The settings of the online learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agents.core.protocols import Field, Spec, Within


@dataclass(frozen=True, slots=True)
class LearnerOptions:
    """The settings LEARNING_…, and the bounds of learnt labels.

    Bounds of a cycle's gates: logarithmic loss; shares of flow-hours that are told apart; how far such a share may fall
    (one of the 15 golden tunnels that are held out is 0.03).
    """

    interval_s: float
    min_samples: int
    batch: int
    passes: int
    rate: float
    history: int
    tunnel_from: float
    benign_to: float
    loss_max: float
    accuracy_min: float
    balanced_min: float
    fall_max: float


PRESETS = {"high": (1800.0, 200, 64), "low": (7200.0, 50, 16), "fleet": (3600.0, 500, 128)}
"""Seconds between cycles, new labels that one needs, and flow-hours of a step, for much traffic, for little, and for
the labels of many sites together."""

SPEC: Spec[LearnerOptions] = Spec(
    "learning",
    "online learner of flow-hours",
    (
        Field(
            "learning_preset",
            Literal["usual", "high", "low", "fleet"],
            "usual",
            "what LEARNING_INTERVAL, LEARNING_MIN_SAMPLES and LEARNING_BATCH are where they have their defaults: "
            "high = much traffic (1800, 200, 64), low = little (7200, 50, 16), "
            "fleet = many sites' labels (3600, 500, 128)",
        ),
        Field("learning_interval", float, 3600.0, "seconds between two cycles of the learner", Within(60, 1e7)),
        Field("learning_min_samples", int, 100, "new labels that a cycle needs", Within(1, 200_000)),
        Field("learning_batch", int, 32, "flow-hours of one step; half of them are old ones", Within(4, 4096)),
        Field("learning_passes", int, 3, "passes over the new labels in a cycle", Within(1, 100)),
        Field("learning_rate", float, 0.003, "rate of a step", Within(1e-6, 1)),
        Field("learning_history", int, 1000, "cycles whose outcome is kept", Within(1, 100_000)),
        Field(
            "label_tunnel_from",
            float,
            0.95,
            "learnt probability from which a flow-hour is a tunnel's",
            Within(0.5, 1),
        ),
        Field("label_benign_to", float, 0.3, "learnt probability of a benign flow-hour, at most", Within(0, 0.5)),
        Field("learning_loss_max", float, 2.0, "gate of a cycle: logarithmic loss, at most", Within(0, 100)),
        Field("learning_accuracy_min", float, 0.7, "gate of a cycle: share of flow-hours told apart", Within(0, 1)),
        Field("learning_balanced_min", float, 0.9, "gate of a cycle: the same, both kinds alike", Within(0, 1)),
        Field("learning_fall_max", float, 0.05, "gate of a cycle: by how much such a share may fall", Within(0, 1)),
    ),
    lambda values: LearnerOptions(
        interval_s=values["learning_interval"],
        min_samples=values["learning_min_samples"],
        batch=values["learning_batch"],
        passes=values["learning_passes"],
        rate=values["learning_rate"],
        history=values["learning_history"],
        tunnel_from=values["label_tunnel_from"],
        benign_to=values["label_benign_to"],
        loss_max=values["learning_loss_max"],
        accuracy_min=values["learning_accuracy_min"],
        balanced_min=values["learning_balanced_min"],
        fall_max=values["learning_fall_max"],
    ),
    presets={
        ("learning_preset", name): dict(
            zip(("learning_interval", "learning_min_samples", "learning_batch"), values, strict=True)
        )
        for name, values in PRESETS.items()
    },
)
