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
from typing import Any

import numpy as np
import structlog

from agents.core.errors import AgentsError, BusyError, ModelError
from agents.core.files import json_state, locked, write_atomic
from agents.core.text import counted, said_text, utc
from agents.core.types import ChannelResult, Gate, Message
from agents.learning.comparison.bounds import USUAL_BOUNDS, GateBounds
from agents.learning.comparison.drift import largest_drift_gate
from agents.learning.comparison.flow_drift import drift_since
from agents.learning.comparison.flow_listing import FlowListing
from agents.learning.comparison.frozen import FrozenAnchor
from agents.learning.comparison.learnt_sides import model_sides
from agents.learning.comparison.listed_diff import ListedDiff, counts_alone, listed_gates
from agents.learning.earlier import BACKUP_DAYS
from agents.learning.loop.flow_hours import SCHEMA
from agents.learning.loop.flow_model import FlowModel, load_flow_model
from agents.learning.loop.golden import GOLDEN_SCHEMA, stored_golden
from agents.learning.loop.learnable import without_doubt
from agents.learning.loop.material import (
    LATER_S,
    Examples,
    Material,
    cold_model,
    gates_of_cycle,
    learnt,
    material_of,
    measures,
)
from agents.learning.loop.options import LearnerOptions
from agents.learning.messages import flow_message
from agents.learning.release.learnt_registry import USUAL_TERMS, LearntRegistry, ReleaseTerms
from agents.learning.release.transitions import Author
from agents.learning.repeating import RepeatingThread
from agents.learning.run import FeatureDrift, LearntCycle, Report, RunState, cycle_run_id
from agents.store.feedback.cycles import CycleStore
from agents.store.feedback.flow_hours import FlowHourStore
from agents.store.feedback.labels import Label, LabelStore
from agents.store.feedback.reviews import TEXT_MAX_REASON
from agents.store.sql import IncidentDatabase

CONFIDENCE_MAX = 0.999
"""Of what was learnt: a rule, whose confidence is 1, takes its place."""
VERSIONS_KEPT = 30
"""Earlier flow models that are kept in any case; beside them the last one of each day, for so many days."""
_log = structlog.get_logger("agents.learning.loop")


class CycleState(StrEnum):
    """How a cycle ended."""

    DEPLOYED = "deployed"
    ROLLED_BACK = "rolled back"
    WAITING = "waiting for labels"
    TAKEN_BACK = "taken back"
    HELD = "waits for a person"
    REJECTED = "rejected"


_RUN_STATES = {
    CycleState.DEPLOYED: RunState.DEPLOYED,
    CycleState.HELD: RunState.WAITING,
    CycleState.ROLLED_BACK: RunState.REJECTED,
}
"""How reports call the ends of cycles."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A candidate beside the model in use and the anchor. drift: of flow-hours since these were learnt."""

    listed: ListedDiff
    gates: tuple[Gate, ...]
    drift: tuple[FeatureDrift, ...]


@dataclass(frozen=True)
class OnlineLearner:
    """Runs cycles, one at a time over all processes. folder: of the flow model and its earlier versions.

    tell: sends a message over every channel; of cycles, where one ends otherwise than the one before it. days: for
    which versions are kept. bounds: of the comparison with the model in use and with the anchor. terms: whether what
    passed its gates waits for a person; as long as one waits, no other is made. report: writes that of a cycle.
    """

    store: IncidentDatabase
    folder: Path
    options: LearnerOptions
    clock: Callable[[], float] = time.time
    tell: Callable[[Message], Sequence[ChannelResult]] = lambda message: ()
    days: int = BACKUP_DAYS
    bounds: GateBounds = USUAL_BOUNDS
    terms: ReleaseTerms = USUAL_TERMS
    report: Report | None = None

    @property
    def registry(self) -> LearntRegistry[FlowModel]:
        """The folder of flow models."""
        return LearntRegistry("flow", self.folder, load_flow_model, self.terms, VERSIONS_KEPT, self.days)

    @property
    def listing(self) -> FlowListing:
        """What compares two flow models on the network's own last week."""
        return FlowListing(self.store, self.options.tunnel_from, self.bounds)

    @property
    def anchor(self) -> FrozenAnchor[FlowModel]:
        """The first flow model that passed its gates."""
        return self.registry.anchor

    @property
    def path(self) -> Path:
        """The flow model in use."""
        return self.registry.path

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
        """One cycle: what came of it. Raises BusyError while another learns, or a model waits for a person, ModelError,
        StoreError, OSError."""
        with self.registry.lock("learn"):
            self._none_waits()
            return self._cycle()

    def _none_waits(self) -> None:
        if waiting := self.registry.waiting():
            raise BusyError(f"cannot learn: flow model {waiting} waits for a person, who approves or rejects it first")

    @property
    def _lock(self) -> Path:
        return self.registry.lock_path

    def _cycle(self) -> dict[str, Any]:
        begun, cycles = self.clock(), CycleStore(self.store)
        old = self.usable_model()
        since = self._learnt_until(begun)
        material = self._material(since)
        count = len(material.new.tunnel)
        enough = count >= self.options.min_samples
        if not enough and old is not None:
            return {"state": str(CycleState.WAITING), "new_labels": count, "needed": self.options.min_samples}
        before = old or cold_model(self.options.rate)
        seed = cycles.count()
        new = learnt(before, material, self.options, seed, self._note_progress) if enough else before
        self._progress.unlink(missing_ok=True)
        beside = self._compared(old, new, begun)
        gates = (*gates_of_cycle(before, new, material, self.options), *beside.gates)
        found: dict[str, Any] = {
            "until": begun if enough else 0.0,
            "new_labels": count if enough else 0,
            "origins": dict(material.origins) if enough else {},
            "last_id": material.last_id if enough else 0,
            "since": since,
            "data_sha256": material.digest() if enough else "",
            "settings": {name: getattr(self.options, name) for name in ("batch", "passes", "rate")} | {"seed": seed},
        }
        return self._ended(found, new, gates, material, begun, beside)

    def _compared(self, old: FlowModel | None, new: FlowModel, now: float) -> Beside:
        """A candidate beside the model in use, on the network's own last week, and beside the anchor."""
        listed = ListedDiff() if old is None else self.listing.diff(old, new, now)
        anchor, gates = self.anchor.model(), listed_gates(listed, self.bounds)
        gates = gates if anchor is None else (*gates, *self.listing.anchor_gates(new, anchor, now))
        manifests = (one.manifest if one is not None else None for one in (old, anchor))
        drift = drift_since(self.store, now, *manifests)
        return Beside(listed, (*gates, *largest_drift_gate(drift, self.bounds)), drift)

    def _ended(
        self,
        facts: Mapping[str, Any],
        new: FlowModel,
        gates: Sequence[Gate],
        material: Material,
        begun: float,
        beside: Beside,
    ) -> dict[str, Any]:
        """Deploy what passed its gates, or let it wait for a person, and record what came of it."""
        old, last = self.usable_model(), next(iter(CycleStore(self.store).newest(1)), None)
        parent = old.model_id if old is not None else ""
        made = replace(new, manifest={"trained": begun, "parent": parent})
        state, why = self._decided(gates)
        cycle = self._reported(facts, (old, made), gates, material, begun, beside)
        found: dict[str, Any] = {
            **facts,
            "listed": beside.listed.to_json(),
            "report": cycle.report if self.report is not None else "",
            "metrics": measures(new, material.held_out),
            "gates": [{**asdict(gate), "passed": gate.passed} for gate in gates],
            "parent": parent,
            "model_id": made.model_id if state is not CycleState.ROLLED_BACK else "",
            "seconds": round(self.clock() - begun, 3),
        }
        found |= {"reason": why} if why.startswith("another") else {}
        self._carried_out(state, made, begun, Author(found.get("author", ""), why), found)
        if self.report is not None:
            ended_as = replace(cycle, state=_RUN_STATES[state], reason=why, finished=self.clock())
            self.report(ended_as, self.registry.reports())
        _log.info("learning_cycle_finished", state=str(state), new_labels=found["new_labels"], why=why)
        ended = {**found, "state": str(state)}
        if state is CycleState.HELD or (last is not None and last["state"] != ended["state"]):
            self._send(ended)
        return ended

    def _reported(
        self,
        facts: Mapping[str, Any],
        sides: tuple[FlowModel | None, FlowModel],
        gates: Sequence[Gate],
        material: Material,
        begun: float,
        beside: Beside,
    ) -> LearntCycle:
        """What the report of a cycle says, but for its end. sides: the model in use, and the candidate."""
        old, new = sides
        measured = [measures(one, material.held_out) if one is not None else {} for one in sides]
        window = f"{utc(facts['since']) if facts.get('since') else 'the beginning'} to {utc(begun)}"
        data = [
            ("New labels", f"{facts['new_labels']:,}"),
            ("Labels of", window),
            ("New labels, of tunnels", f"{int(material.new.tunnel.sum()) if facts['new_labels'] else 0:,}"),
            ("Labels of people and rules, of all times", f"{len(material.certain.tunnel):,}"),
            ("Golden flow-hours", f"{len(material.golden.tunnel):,}"),
            ("Held out", f"{len(material.held_out.tunnel):,}"),
            ("Hash of the data", str(facts.get("data_sha256") or "–")),
        ]
        data += [(f"Setting {name}", str(value)) for name, value in facts.get("settings", {}).items()]
        return LearntCycle(
            cycle_run_id("flow", begun),
            RunState.RUNNING,
            "flow",
            begun,
            begun,
            model_id=new.model_id,
            parent=old.model_id if old is not None else "",
            gates=tuple(gates),
            data=tuple(data),
            labels=tuple((name, count) for name, count in facts["origins"].items() if count),
            sides=model_sides(old, new, {name: (measured[0].get(name), value) for name, value in measured[1].items()}),
            listed=beside.listed.to_json(),
            drift=beside.drift,
        )

    def _decided(self, gates: Sequence[Gate]) -> tuple[CycleState, str]:
        """What becomes of a candidate, and why."""
        if missed := [gate.name for gate in gates if not gate.passed]:
            return CycleState.ROLLED_BACK, f"missed {', '.join(missed)}"
        if waiting := self.registry.waiting():
            return CycleState.ROLLED_BACK, f"another candidate waits for a person: {waiting}"
        held = self.registry.holds()
        return CycleState.HELD if held else CycleState.DEPLOYED, f"passed {counted(len(gates), 'gate')}"

    def _carried_out(
        self, state: CycleState, made: FlowModel, begun: float, author: Author, found: Mapping[str, Any]
    ) -> None:
        """Carry a decision out and record it; a cycle that cannot be recorded leaves the model as it was."""

        def record() -> None:
            kept = {**found, "listed": counts_alone(found["listed"])}  # domains and names go when flow-hours do
            CycleStore(self.store).add(begun, str(state), kept, self.options.history)

        if state in (CycleState.DEPLOYED, CycleState.HELD) and found["report"]:
            self.registry.note_facts(made.model_id, {"report": found["report"]})
        if state is CycleState.DEPLOYED:
            self.registry.deploy(made.to_bytes(), begun, author, record)
        elif state is CycleState.HELD:
            self.registry.hold(made.to_bytes(), author, record)
        else:
            record()
            missed = any(not gate["passed"] for gate in found["gates"])
            self.registry.note("turn down" if missed else "pass over", made.model_id, author)

    def _send(self, ended: Mapping[str, Any]) -> None:
        """Tell the channels; it holds, whoever is away."""
        for one in self.tell(flow_message(ended)):
            if not one.ok:
                _log.warning("cycle_not_told", channel=one.channel, error=one.error)

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
        with self.registry.lock("take a flow model"):
            begun, cycles, old = self.clock(), CycleStore(self.store), self.usable_model()
            last = next(iter(cycles.newest(1)), None)
            material = self._material(0.0)
            beside = self._compared(old, model, begun)
            before = old or cold_model(self.options.rate)
            gates = (*gates_of_cycle(before, model, material, self.options), *beside.gates)
            found = {
                "until": self._learnt_until(begun),
                "new_labels": 0,
                "origins": {origin: 0},
                "author": origin,
                "last_id": last["last_id"] if last else 0,
            }
            return self._ended(found, model, gates, material, begun, beside)

    def take_back(self, reason: str, author: str, path: Path | None = None) -> dict[str, Any]:
        """Put the flow model before this one, or the one at a path, into its place again; what a person said of it, and
        the model.

        Labels that were learnt stay learnt. Raises UsageError where there is none before it or no reason, BusyError,
        StoreError, OSError.
        """
        reason, old = said_text(reason, "a reason", TEXT_MAX_REASON), self.usable_model()
        parent, found = old.model_id if old is not None else "", dict[str, Any]()

        def record(model: FlowModel) -> None:
            found.update(self._by_person(model, reason, author) | {"parent": parent})
            CycleStore(self.store).add(self.clock(), str(CycleState.TAKEN_BACK), found, self.options.history)

        with self.registry.lock("take a flow model back"):
            self.registry.take_back(Author(author, reason), record, path)
        _log.info("flow_model_taken_back", model_id=found["model_id"], instead_of=found["parent"])
        ended = {**found, "state": str(CycleState.TAKEN_BACK)}
        self._send(ended)
        return ended

    def decided(self, state: CycleState, model: FlowModel, author: Author) -> None:
        """Record what people decided about a model that waited: deployed or rejected. Raises StoreError."""
        found = self._by_person(model, author.reason, author.by) | {"parent": model.manifest.get("parent", "")}
        CycleStore(self.store).add(self.clock(), str(state), found, self.options.history)

    def _by_person(self, model: FlowModel, reason: str, author: str) -> dict[str, Any]:
        """What the history has of a decision of a person. Raises StoreError."""
        now, last = self.clock(), next(iter(self.history(1)), {})
        return {
            "until": self._learnt_until(now), "new_labels": 0, "origins": {}, "gates": [],
            "last_id": last.get("last_id", 0), "metrics": measures(model, self._material(now).held_out),
            "model_id": model.model_id, "reason": reason, "author": author, "seconds": 0.0,
        }  # fmt: skip

    def earlier(self) -> list[Path]:
        """Flow models of before, oldest first."""
        return self.registry.earlier()

    @property
    def taken_back(self) -> Path:
        """The flow model that a person took back last."""
        return self.registry.taken_back

    def begin(self) -> None:
        """Begin a cycle in the background.

        Raises BusyError while one is under way, a model waits for a person, or too few labels are new.
        """
        with self.registry.lock("learn"):
            self._none_waits()
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
            self._progress.write_text(json.dumps({"share": share}))

    def progress(self) -> float | None:
        """The share of a running cycle's batches that is learnt; None while none runs, or before its first batch."""
        share = json_state(self._progress).get("share")
        return float(share) if isinstance(share, int | float) else None

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
            "model_versions": len(self.earlier()) + self.path.exists(),
        }

    def _labels(self) -> dict[str, int]:
        """Labelled flow-hours by label and origin, shipped ones and those of all times."""
        found = LabelStore(self.store)
        rows = [*found.counts(GOLDEN_SCHEMA, 0.0, LATER_S), *found.counts(SCHEMA, 0.0, LATER_S)]
        return {f"{label} ({origin})": count for label, origin, count in rows}

    def history(self, limit: int) -> list[dict[str, Any]]:
        """Cycles that came to their end, newest first. Raises StoreError."""
        return CycleStore(self.store).newest(limit)


def label_by_probability(
    store: IncidentDatabase, model: FlowModel, options: LearnerOptions, hour: int, now: float
) -> int:
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
        super().__init__("online-learner", learner.options.interval_s)
        self._learner = learner

    def step(self) -> None:
        """One cycle."""
        if self._learner.enabled and not self._learner.registry.waiting():
            try_cycle(self._learner)


def try_cycle(learner: OnlineLearner) -> None:
    """One cycle; what goes wrong around it is logged."""
    try:
        learner.cycle()
    except (AgentsError, OSError) as error:
        _log.warning("learning_cycle_not_run", error=str(error))
