"""What a cycle of the online learner learns, how it is measured, and the gates that its model must pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.types import Gate
from agents.learning.loop.flow_model import FlowModel, Steps, empty_flow_model
from agents.learning.loop.golden import golden_flow_hours
from agents.learning.loop.learnable import within_shares
from agents.learning.loop.options import LearnerOptions
from agents.learning.loop.review import teaches
from agents.store.feedback.labels import LabelledHours
from agents.store.feedback.tables import LabelOrigin

COLD_BATCHES = 900
"""Batches of golden flow-hours that the first model learns."""
HELD_OUT = 4
"""One golden flow-hour in so many is not learnt, but compared with."""
MONTH_HOURS = 30 * 24
LATER_S = 2.0**40
"""Later than any hour, Unix seconds."""
PROGRESS_STEPS = 50
"""How often a cycle notes how far it is."""


@dataclass(frozen=True, slots=True)
class Examples:
    """n flow-hours that are known. Shapes (n, 35) and (n,)."""

    numbers: NDArray[np.float32]
    tunnel: NDArray[np.bool_]

    def drawn(self, count: int, draw: np.random.Generator) -> Examples:
        """So many of them, tunnels and benign ones alike, where there are both; with repetition."""
        kinds = [rows for rows in (np.flatnonzero(self.tunnel), np.flatnonzero(~self.tunnel)) if len(rows)]
        parts = [draw.choice(rows, count // len(kinds) + 1) for rows in kinds]
        rows = np.concatenate(parts)[:count] if len(kinds) < 2 else np.stack(parts, axis=1).reshape(-1)[:count]
        return Examples(self.numbers[rows], self.tunnel[rows])

    def at(self, rows: NDArray[Any]) -> Examples:
        """Those of these rows."""
        return Examples(self.numbers[rows], self.tunnel[rows])


def joined_examples(*parts: Examples) -> Examples:
    """All of them, one part after another."""
    return Examples(np.concatenate([one.numbers for one in parts]), np.concatenate([one.tunnel for one in parts]))


@dataclass(frozen=True, slots=True)
class Material:
    """What a cycle learns and is measured by. certain: what people and rules say."""

    new: Examples
    certain: Examples
    golden: Examples
    held_out: Examples
    oldest: Examples  # of the first labelled month
    last_id: int
    origins: Mapping[str, int]  # new labels by origin

    def digest(self) -> str:
        """The SHA-256 of the new labels and their flow-hours, in hexadecimal digits; who asked is not in it."""
        made_of = hashlib.sha256(np.ascontiguousarray(self.new.numbers, "<f4").tobytes())
        made_of.update(np.ascontiguousarray(self.new.tunnel, np.uint8).tobytes())
        return made_of.hexdigest()


def material_of(
    labels: LabelledHours,
    since: float,
    golden: Examples | None = None,
    undoubted: NDArray[np.bool_] | None = None,
    needed: int = 1,
    until: float = LATER_S,
) -> Material:
    """Labels that came after `since`, and until `until` (Unix seconds), are new.

    Of people's labels half are held out (review.teaches).

    What was learnt is new material, but never certain: so no model feeds on its own guesses alone.
    undoubted, needed: see learnable.
    """
    golden = golden or Examples(*golden_flow_hours())
    held = np.arange(len(golden.tunnel)) % HELD_OUT == 0
    if not len(labels):
        nothing = golden.at(np.empty(0, np.int64))
        return Material(nothing, nothing, golden.at(~held), golden.at(held), nothing, 0, {})
    every = Examples(labels.numbers, labels.tunnel)
    by_people = np.array([origin == LabelOrigin.PERSON for origin in labels.origin])
    guessed = np.array([origin == LabelOrigin.LEARNED for origin in labels.origin])
    kept_back = by_people & ~np.array([teaches(domain) for domain in labels.domain])
    known = np.maximum(labels.at, (labels.hour + 1) * 3600.0)
    new = (known > since) & (known <= until) & ~kept_back
    if undoubted is not None:
        new = within_shares(labels, new & undoubted, needed)
    old_month = ~guessed & ~new & (labels.hour < labels.hour.min() + MONTH_HOURS)
    origins = {str(one): sum(labels.origin[row] == one for row in np.flatnonzero(new).tolist()) for one in LabelOrigin}
    return Material(
        every.at(new),
        every.at(~guessed & ~kept_back),
        golden.at(~held),
        joined_examples(golden.at(held), every.at(kept_back)),
        every.at(old_month),
        int(labels.id.max()),
        {name: count for name, count in origins.items() if count},
    )


def measures(model: FlowModel, known: Examples) -> dict[str, float]:
    """loss, accuracy and balanced accuracy of n examples; of none: 0, 1 and 1."""
    if not len(known.tunnel):
        return {"loss": 0.0, "accuracy": 1.0, "balanced_accuracy": 1.0}
    found = np.clip(model.probabilities(known.numbers), 1e-9, 1 - 1e-9)
    right = (found > 0.5) == known.tunnel
    loss = -float(np.log(np.where(known.tunnel, found, 1 - found)).mean())
    kinds = [right[known.tunnel == kind].mean() for kind in (True, False) if (known.tunnel == kind).any()]
    return {"loss": loss, "accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(kinds))}


def gates_of_cycle(old: FlowModel, new: FlowModel, material: Material, bounds: LearnerOptions) -> tuple[Gate, ...]:
    """Each condition that a cycle must meet.

    What the model in use misses already, a new one need not reach: one label that contradicts the golden flow-hours
    would end all learning.
    """
    before, after = measures(old, material.held_out), measures(new, material.held_out)
    held = "of what is held out"
    balanced = min(bounds.balanced_min, before["balanced_accuracy"])
    month = [measures(model, material.oldest)["accuracy"] for model in (old, new)]
    return (
        Gate("loss", after["loss"], max(bounds.loss_max, before["loss"]), False, held),
        Gate("accuracy", after["accuracy"], min(bounds.accuracy_min, before["accuracy"]), True, held),
        Gate("balanced accuracy", after["balanced_accuracy"], balanced, True, held),
        Gate(
            "fall of balanced accuracy",
            before["balanced_accuracy"] - after["balanced_accuracy"],
            bounds.fall_max,
            False,
            "against the flow model in use",
        ),
        Gate(
            "fall in the oldest month",
            month[0] - month[1],
            bounds.fall_max,
            False,
            f"{len(material.oldest.tunnel)} labels",
        ),
    )


def cold_model(rate: float, seed: int = 0) -> FlowModel:
    """A model that has learnt the golden flow-hours alone."""
    golden, draw = Examples(*golden_flow_hours()), np.random.default_rng(seed)
    known = golden.at(np.arange(len(golden.tunnel)) % HELD_OUT != 0)
    steps = Steps(empty_flow_model(known.numbers), rate)
    for _ in range(COLD_BATCHES):
        some = known.drawn(32, draw)
        steps.take(some.numbers, some.tunnel)
    return steps.model({})


def learnt(
    model: FlowModel,
    material: Material,
    options: LearnerOptions,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> FlowModel:
    """The model after some passes over what is new; half of each batch is rehearsed, from labels of all times and from
    the golden flow-hours alike: labels are few beside those, and would be forgotten."""
    steps, draw = Steps(model, options.rate), np.random.default_rng(seed)
    half = options.batch // 2
    old = half // 2 if len(material.certain.tunnel) else 0
    count = options.passes * -(-len(material.new.tunnel) // half)
    for number in range(count):
        if number % max(count // PROGRESS_STEPS, 1) == 0:
            progress(number / count)
        some = [material.new.drawn(half, draw), material.golden.drawn(options.batch - half - old, draw)]
        some += [material.certain.drawn(old, draw)] if old else []
        batch = joined_examples(*some)
        steps.take(batch.numbers, batch.tunnel)
    return steps.model({})
