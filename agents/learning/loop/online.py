"""The online learner: labels teach a model of flow-hours in small steps, beside old ones so that nothing is forgotten.

A cycle changes nothing until its end: then the new model takes the place of the old one in one rename, or is dropped.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from agents.core.errors import AgentsError, BusyError, ModelError, UsageError
from agents.core.files import locked, locked_within, write_atomic
from agents.core.protocols import Field, Spec, Within
from agents.core.types import Gate
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.flow_model import FlowModel, Steps, empty_flow_model, load_flow_model
from agents.learning.loop.golden import GOLDEN_SCHEMA, golden_flow_hours, stored_golden
from agents.learning.loop.learnable import within_shares, without_doubt
from agents.learning.loop.review import teaches
from agents.learning.repeating import RepeatingThread
from agents.store.feedback.cycles import CycleStore
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label, LabelledHours, LabelStore
from agents.store.feedback.reviews import TEXT_MAX_REASON, said_text
from agents.store.feedback.tables import LabelOrigin
from agents.store.sql import Store

COLD_BATCHES = 900
"""Batches of golden flow-hours that the first model learns."""
HELD_OUT = 4
"""One golden flow-hour in so many is not learnt, but compared with."""
MONTH_HOURS = 30 * 24
STOP_S, ASKED_S = 5.0, 1.0
CONFIDENCE_MAX = 0.999
"""Of what was learnt: a rule, whose confidence is 1, takes its place."""
LATER_S = 2.0**40
"""Later than any hour, Unix seconds."""
PROGRESS_STEPS = 50
"""How often a cycle notes how far it is."""
VERSIONS_KEPT = 30
"""Earlier flow models that are kept."""
_log = structlog.get_logger("agents.learning.loop")


class CycleState(StrEnum):
    """How a cycle ended."""

    DEPLOYED = "deployed"
    ROLLED_BACK = "rolled back"
    WAITING = "waiting for labels"
    TAKEN_BACK = "taken back"


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


@dataclass(frozen=True, slots=True)
class Examples:
    """n flow-hours that are known. Shapes (n, 26) and (n,)."""

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


@dataclass(frozen=True)
class OnlineLearner:
    """Runs cycles, one at a time over all processes. folder: of the flow model and its earlier versions."""

    store: Store
    folder: Path
    options: LearnerOptions
    clock: Callable[[], float] = time.time

    @property
    def path(self) -> Path:
        """The flow model in use."""
        return self.folder / "current.npz"

    def model(self) -> FlowModel | None:
        """The flow model in use, None before the first. Raises ModelError."""
        try:
            return load_flow_model(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error.strerror}") from None

    def usable_model(self) -> FlowModel | None:
        """The flow model in use; None where there is none, or none that can be read, which is logged."""
        try:
            return self.model()
        except ModelError as error:
            _log.warning("flow_model_not_used", error=str(error))
            return None

    def cycle(self) -> dict[str, Any]:
        """One cycle: what came of it. Raises BusyError while another learns, StoreError, OSError."""
        try:
            lock = locked_within(self._lock, ASKED_S)  # whoever asks for the status holds it for a moment
        except BlockingIOError:
            raise BusyError("cannot learn: a cycle is under way, in this process or another") from None
        with lock:
            return self._cycle()

    @property
    def _lock(self) -> Path:
        return self.folder / "learning.lock"

    def _cycle(self) -> dict[str, Any]:
        begun, cycles = self.clock(), CycleStore(self.store)
        old = self.usable_model()
        material = self._material(self._learnt_until(begun))
        count = len(material.new.tunnel)
        enough = count >= self.options.min_samples
        if not enough and old is not None:
            return {"state": str(CycleState.WAITING), "new_labels": count, "needed": self.options.min_samples}
        before = old or cold_model(self.options.rate)
        new = learnt(before, material, self.options, cycles.count(), self._note_progress) if enough else before
        self._progress.unlink(missing_ok=True)
        gates = gates_of_cycle(before, new, material, self.options)
        found: dict[str, Any] = {
            "until": begun if enough else 0.0,
            "new_labels": count if enough else 0,
            "origins": dict(material.origins) if enough else {},
            "last_id": material.last_id if enough else 0,
        }
        return self._ended(found, new, gates, material, begun)

    def _ended(
        self, facts: Mapping[str, Any], new: FlowModel, gates: Sequence[Gate], material: Material, begun: float
    ) -> dict[str, Any]:
        """Deploy what passed its gates, and record what came of it."""
        state = CycleState.DEPLOYED if all(gate.passed for gate in gates) else CycleState.ROLLED_BACK
        old, cycles = self.usable_model(), CycleStore(self.store)
        found: dict[str, Any] = {
            **facts,
            "metrics": measures(new, material.held_out),
            "gates": [{**asdict(gate), "passed": gate.passed} for gate in gates],
            "parent": old.model_id if old is not None else "",
            "model_id": "",
        }
        was = self.path.read_bytes() if old is not None else None
        if state is CycleState.DEPLOYED:
            found["model_id"] = self._deploy(new, begun, found["parent"])
        found["seconds"] = round(self.clock() - begun, 3)
        try:
            cycles.add(begun, str(state), found, self.options.history)
        except AgentsError:
            self._put_back(was)
            raise
        missed = [gate.name for gate in gates if not gate.passed]
        _log.info("learning_cycle_finished", state=str(state), new_labels=found["new_labels"], missed=missed)
        return {**found, "state": str(state)}

    def _material(self, since: float) -> Material:
        now, needed = self.clock(), self.options.min_samples
        golden, labels = Examples(*stored_golden(self.store, now)), LabelStore(self.store).labelled(SCHEMA)
        return material_of(labels, since, golden, without_doubt(self.store, labels), needed, now)

    def _learnt_until(self, now: float) -> float:
        """Labels that came until then are learnt, Unix seconds. A cycle of a clock that was ahead does not count."""
        return next((one["until"] for one in self.history(self.options.history) if one["until"] <= now), 0.0)

    def trained_from(self, base: FlowModel) -> FlowModel:
        """What labels of people and rules make of a model; the one in use stays. Raises StoreError."""
        material = self._material(0.0)
        if not len(material.certain.tunnel):
            return base
        return learnt(base, replace(material, new=material.certain), self.options, 0)

    def adopt(self, model: FlowModel, origin: str) -> dict[str, Any]:
        """Put a model of others into use if it passes the gates of a cycle; labels stay new. What came of it.

        Raises BusyError while another learns, StoreError, OSError.
        """
        try:
            lock = locked_within(self._lock, ASKED_S)
        except BlockingIOError:
            raise BusyError("cannot take a flow model: a cycle is under way, in this process or another") from None
        with lock:
            begun, cycles, old = self.clock(), CycleStore(self.store), self.usable_model()
            last = next(iter(cycles.newest(1)), None)
            material = self._material(0.0)
            gates = gates_of_cycle(old or cold_model(self.options.rate), model, material, self.options)
            found = {
                "until": self._learnt_until(begun),
                "new_labels": 0,
                "origins": {origin: 0},
                "last_id": last["last_id"] if last else 0,
            }
            return self._ended(found, model, gates, material, begun)

    def take_back(self, reason: str, author: str) -> dict[str, Any]:
        """Put the flow model before this one into its place again; what a person said of it, and the model.

        Labels that were learnt stay learnt. Raises UsageError where there is none before it or no reason, BusyError,
        StoreError, OSError.
        """
        reason = said_text(reason, "a reason", TEXT_MAX_REASON)
        try:
            lock = locked_within(self._lock, ASKED_S)
        except BlockingIOError:
            raise BusyError("cannot take a flow model back: a cycle is under way, in this process or another") from None
        with lock:
            begun, old, before = self.clock(), self.usable_model(), next(iter(self._earlier()[::-1]), None)
            if before is None:
                raise UsageError("cannot take the flow model back: there is none before it")
            model, last = load_flow_model(before.read_bytes()), next(iter(self.history(1)), {})
            found = {
                "until": self._learnt_until(begun), "new_labels": 0, "origins": {}, "gates": [],
                "last_id": last.get("last_id", 0), "metrics": measures(model, self._material(begun).held_out),
                "parent": old.model_id if old is not None else "", "model_id": model.model_id,
                "reason": reason, "author": author, "seconds": 0.0,
            }  # fmt: skip
            was = self.path.read_bytes() if old is not None else None
            write_atomic(self.path, model.to_bytes())
            try:
                CycleStore(self.store).add(begun, str(CycleState.TAKEN_BACK), found, self.options.history)
            except AgentsError:
                self._put_back(was)
                raise
            before.unlink()
        _log.info("flow_model_taken_back", model_id=found["model_id"], instead_of=found["parent"])
        return {**found, "state": str(CycleState.TAKEN_BACK)}

    def _earlier(self) -> list[Path]:
        """Flow models of before, oldest first."""
        return sorted((self.folder / "earlier").glob("*.npz"))

    def _put_back(self, was: bytes | None) -> None:
        """A cycle that cannot be recorded leaves the model as it was."""
        if was is None:
            self.path.unlink(missing_ok=True)
        else:
            write_atomic(self.path, was)

    def _deploy(self, model: FlowModel, now: float, parent: str) -> str:
        """Keep the model before, and put the new one into its place."""
        made, versions = replace(model, manifest={"trained": now, "parent": parent}), self.folder / "earlier"
        if parent:
            write_atomic(versions / f"{int(now):010d}_{parent}.npz", self.path.read_bytes())
            for old in self._earlier()[:-VERSIONS_KEPT]:
                old.unlink()
        write_atomic(self.path, made.to_bytes())
        return made.model_id

    def begin(self) -> None:
        """Begin a cycle in the background. Raises BusyError while one is under way, or too few labels are new."""
        if self.is_training():
            raise BusyError("cannot learn: a cycle is under way, in this process or another")
        if self.usable_model() is not None:
            count = len(self._material(self._learnt_until(self.clock())).new.tunnel)
            if count < self.options.min_samples:
                raise BusyError(f"cannot learn yet: {count} new labels of {self.options.min_samples} are there")
        threading.Thread(target=try_cycle, args=(self,), name="learning-cycle", daemon=True).start()

    def is_training(self) -> bool:
        """Whether a cycle is under way, in any process."""
        if not self._lock.exists():
            return False
        try:
            locked(self._lock).close()
        except BlockingIOError:
            return True
        except OSError as error:
            raise AgentsError(f"cannot use {self._lock}: {error.strerror}") from None
        return False

    @property
    def _progress(self) -> Path:
        return self.folder / "progress.json"

    def _note_progress(self, share: float) -> None:
        with suppress(OSError):  # it is for people who wait: a cycle goes on without it
            self._progress.write_text(json.dumps(share))

    def progress(self) -> float | None:
        """The share of a running cycle's batches that is learnt; None while none runs, or before its first batch."""
        try:
            found = json.loads(self._progress.read_bytes())
        except (OSError, ValueError):
            return None
        return float(found) if isinstance(found, int | float) else None

    @property
    def _switch(self) -> Path:
        return self.folder / "stopped"

    @property
    def enabled(self) -> bool:
        """Whether cycles begin by themselves."""
        return not self._switch.exists()

    def enable(self, on: bool) -> None:
        """Let cycles begin by themselves, or stop that; it holds for all processes and after restarts."""
        if on:
            self._switch.unlink(missing_ok=True)
        else:
            write_atomic(self._switch, b"POST /learning/start or dns-tunnel learn start removes this file\n")

    def status(self) -> dict[str, Any]:
        """What the learner is doing and has done. Raises StoreError."""
        cycles = CycleStore(self.store)
        last, training = next(iter(cycles.newest(1)), None), self.is_training()
        return {
            "enabled": self.enabled,
            "is_training": training,
            "progress": self.progress() if training else None,
            "last_training_time": last["started_at"] if last else None,
            "last_processed_id": last["last_id"] if last else 0,
            "total_training_cycles": cycles.count(),
            "labels": self._labels(),
            "model_versions": len(self._earlier()) + self.path.exists(),
        }

    def _labels(self) -> dict[str, int]:
        """Labelled flow-hours by label and origin, shipped ones and those of all times."""
        found = LabelStore(self.store)
        rows = [*found.counts(GOLDEN_SCHEMA, 0.0, LATER_S), *found.counts(SCHEMA, 0.0, LATER_S)]
        return {f"{label} ({origin})": count for label, origin, count in rows}

    def history(self, limit: int) -> list[dict[str, Any]]:
        """Cycles that came to their end, newest first. Raises StoreError."""
        return CycleStore(self.store).newest(limit)


def label_by_probability(store: Store, model: FlowModel, options: LearnerOptions, hour: int, now: float) -> int:
    """Label the flow-hours of an hour whose probability is beyond a bound, where no rule did; how many.

    Between the bounds nobody learns from them. now: Unix seconds. Raises StoreError.
    """
    rows, found = FlowHourStore(store).read(SCHEMA, since=hour, until=hour + 1), LabelStore(store)
    if not len(rows):
        return 0
    chance = model.probabilities(rows.numbers)
    sure = np.flatnonzero((chance >= options.tunnel_from) | (chance <= options.benign_to)).tolist()
    labels = [Label.TUNNEL if chance[row] >= options.tunnel_from else Label.BENIGN for row in sure]
    confidences = [float(min(max(chance[row], 1 - chance[row]), CONFIDENCE_MAX)) for row in sure]
    found.put([int(rows.id[row]) for row in sure], labels, confidences, now)
    return len(sure)


class LearnerThread(RepeatingThread):
    """Runs a cycle every `options.interval_s` seconds, while cycles may begin by themselves."""

    def __init__(self, learner: OnlineLearner) -> None:
        super().__init__("online-learner", learner.options.interval_s, STOP_S)
        self._learner = learner

    def step(self) -> None:
        """One cycle."""
        if self._learner.enabled:
            try_cycle(self._learner)


def try_cycle(learner: OnlineLearner) -> None:
    """One cycle; what goes wrong around it is logged."""
    try:
        learner.cycle()
    except (AgentsError, OSError) as error:
        _log.warning("learning_cycle_not_run", error=str(error))
