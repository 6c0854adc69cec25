"""From windows to a sequence model that may be used: trained, calibrated, compared with the one in use, kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from agents.core.errors import BusyError, ModelError, TrainingError
from agents.core.files import holder, locked
from agents.core.text import counted
from agents.core.types import Gate
from agents.learning.comparison.frozen import FrozenAnchor
from agents.learning.comparison.learnt_sides import model_sides
from agents.learning.comparison.listed_diff import ListedDiff, counts_alone
from agents.learning.comparison.step_drift import step_drift, steps_reference
from agents.learning.earlier import BACKUP_DAYS, NEWEST_KEPT
from agents.learning.release.learnt_registry import USUAL_TERMS, LearntRegistry, ReleaseTerms
from agents.learning.release.transitions import Author
from agents.learning.run import FeatureDrift, LearntCycle, Report, RunState, cycle_run_id, report_name
from agents.learning.sequences.bounds import USUAL_SEQUENCES, SequenceBounds
from agents.learning.sequences.gru import SequenceModel, guess_of, load_sequence_model, trained_network
from agents.learning.sequences.history import EndedCycle, SequenceHistory, gate_rows
from agents.learning.sequences.on_trial import SequenceCanary
from agents.learning.sequences.steps import Windows

LOCK_WAIT_S = 10.0
"""Whoever deploys, or decides, takes a moment."""
THE_PROGRAM = Author()
_log = structlog.get_logger("agents.learning.sequences")
Train = Callable[[Windows, int, Mapping[str, Any], int], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class SequenceComparison:
    """A candidate beside the model in use and the anchor. drift: of the steps that it learned from."""

    listed: ListedDiff
    gates: tuple[Gate, ...]
    drift: tuple[FeatureDrift, ...] = ()


Compare = Callable[[SequenceModel, Windows], SequenceComparison]
"""Compares a candidate, and the windows that it learned from. Raises StoreError."""


@dataclass(frozen=True, slots=True)
class LearntSequences:
    """What came of a training. listed: what it and the model in use list (comparison.listed_diff), JSON values; drift:
    of steps (comparison.step_drift)."""

    model: SequenceModel
    gates: tuple[Gate, ...]
    listed: Mapping[str, Any] = field(default_factory=dict)
    drift: tuple[FeatureDrift, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it may be used."""
        return all(gate.passed for gate in self.gates)


def split_by_client(windows: Windows, one_in: int = USUAL_SEQUENCES.held_out) -> tuple[Windows, Windows]:
    """Windows to learn, and those of one client in so many, held out; a client's are all in one of them.

    Of few clients: by turns, one window at least.
    """
    clients = np.unique(windows.client)
    if len(clients) < one_in:
        one_in = max(min(one_in, len(windows)), 2)
    number = np.searchsorted(clients, windows.client) if len(clients) >= one_in else np.arange(len(windows))
    held = number % one_in == one_in - 1
    return windows.at(~held), windows.at(held)


def learn_sequences(
    windows: Windows,
    epochs: int,
    params: Mapping[str, Any],
    in_use: SequenceModel | None,
    train: Train = trained_network,
    seed: int = 0,
    bounds: SequenceBounds = USUAL_SEQUENCES,
    compare: Compare | None = None,
) -> LearntSequences:
    """A model of the windows, with its gates. params: of network.DEEP_FIELDS. compare: asked of what passes all others.

    Raises TrainingError, and what compare raises.
    """
    if len(windows) < bounds.windows_min:
        few = f"{len(windows)} windows, {bounds.windows_min} are needed"
        raise TrainingError(f"cannot train the sequence model: {few}; collect for longer")
    learnt, held = split_by_client(windows, bounds.held_out)
    length = int(windows.steps.shape[1])
    model = SequenceModel(dict(train(learnt, epochs, params, seed)), {"length": length, "odd_from": 0.0})
    found = model.surprise(held)
    odd_from = float(np.quantile(np.concatenate([model.surprise(learnt), found]), 1 - bounds.odd_share))
    facts: dict[str, Any] = {"windows": len(windows), "clients": len(np.unique(windows.client)), "epochs": epochs}
    facts |= {"seed": seed, "odd_share": bounds.odd_share, "data_sha256": windows_digest(windows)}
    facts |= {"steps": steps_reference(windows)}
    model = model.noted(odd_from=odd_from, loss=float(found.mean()), **facts)
    mean, guess = float(found.mean()), SequenceModel(guess_of(learnt), model.manifest)
    gates = [
        Gate("surprise of a guess", mean, float(guess.surprise(held).mean()), False, "on what is held out"),
        Gate("surprise is finite", float(np.isfinite(found).all()), 1.0, True),
    ]
    if in_use is not None and in_use.length == length:
        bound = float(in_use.surprise(held).mean())
        bound += abs(bound) * (bounds.worse_max - 1)
        gates.append(Gate("surprise of the model in use", mean, bound, False, "on what is held out"))
    if compare is None or not all(gate.passed for gate in gates):
        return LearntSequences(model, tuple(gates), drift=step_drift(windows, in_use))
    beside = compare(model, windows)
    return LearntSequences(model, (*gates, *beside.gates), beside.listed.to_json(), beside.drift)


def windows_digest(windows: Windows) -> str:
    """The SHA-256 of what windows say, in hexadecimal digits; who asked is not in it."""
    made_of = hashlib.sha256(np.ascontiguousarray(windows.steps, "<f4").tobytes())
    made_of.update(np.ascontiguousarray(windows.known, np.uint8).tobytes())
    return made_of.hexdigest()


@dataclass(frozen=True, slots=True)
class SequenceModels:
    """The folder of the sequence model in use, and of the ones before, which are kept for so many days.

    terms: of trials, as JSON, where what passed its gates is on trial first (DEPLOY=canary). release: whether it waits
    for a person (DEPLOY=manual). Else it is deployed. report: writes that of a cycle.
    """

    folder: Path
    days: int = BACKUP_DAYS
    terms: Mapping[str, Any] | None = None
    release: ReleaseTerms = USUAL_TERMS
    report: Report | None = None

    @property
    def registry(self) -> LearntRegistry[SequenceModel]:
        """The folder, and who decides about its versions."""
        return LearntRegistry("sequences", self.folder, load_sequence_model, self.release, NEWEST_KEPT, self.days)

    @property
    def path(self) -> Path:
        """The model in use."""
        return self.registry.path

    def current(self) -> SequenceModel | None:
        """The model in use; None where there is none, or none that can be read, which is logged."""
        try:
            return load_sequence_model(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (ModelError, OSError) as error:
            _log.warning("sequence_model_not_used", path=str(self.path), error=str(error))
            return None

    def deploy(self, model: SequenceModel, now: float, author: Author = THE_PROGRAM, action: str = "deploy") -> None:
        """Put a model into its place, and keep the one before. now: Unix seconds. Raises AgentsError, OSError."""
        with self.registry.lock("deploy a sequence model", LOCK_WAIT_S):
            self.registry.deploy(model.to_bytes(), now, author, action=action)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Held while a model is trained. Raises BusyError where another process, or thread, does so."""
        path = self.folder / "training.lock"
        try:
            lock = locked(path)
        except BlockingIOError:
            who = f"process {holder(path)} holds the lock"
            raise BusyError(f"cannot train the sequence model: a training is under way, and {who}") from None
        with lock:
            yield

    @property
    def anchor(self) -> FrozenAnchor[SequenceModel]:
        """The first model that passed its gates."""
        return self.registry.anchor

    @property
    def history(self) -> SequenceHistory:
        """Cycles that came to their end."""
        return SequenceHistory(self.folder)

    def earlier(self) -> list[Path]:
        """Models of before, the newest first."""
        return self.registry.earlier()[::-1]

    @property
    def taken_back(self) -> Path:
        """The model that a person took back last."""
        return self.registry.taken_back

    def end(self, cycle: EndedCycle, found: LearntSequences, now: float) -> EndedCycle:
        """Deploy what passed its gates, or put it on trial, and record what came of it; now: Unix seconds.

        Raises OSError.
        """
        model, in_use = found.model, self.current()
        name = report_name("sequences", cycle.began_at) if self.report is not None else ""
        with self.registry.lock("end a cycle of the sequence model", LOCK_WAIT_S):
            decision, why = self._decided(found, in_use, now, {"report": name} if name else {})
        shown = [gate for gate in found.gates if found.passed or not gate.passed]
        said = "; ".join(f"{one.name}: {one.value:.3f}, threshold {one.threshold:.3f}" for one in shown)
        ended = cycle.model_copy(
            update={
                "decision": decision,
                "reason": said if decision != "rejected" or not found.passed else why,
                "loss": model.manifest.get("loss"),
                "model_id": model.model_id if decision != "rejected" else "",
                "parent": in_use.model_id if in_use is not None else "",
                "data_sha256": model.manifest.get("data_sha256", ""),
                "gates": gate_rows(found.gates),
                "listed": counts_alone(found.listed),
                "report": name,
            }
        )
        if self.report is not None:
            self.report(_reported(ended, found, in_use, now), self.registry.reports())
        return self.noted(ended)

    def failed(self, cycle: EndedCycle, now: float) -> EndedCycle:
        """Record a cycle that came to no model; its reason says why. now: Unix seconds."""
        if self.report is None:
            return self.noted(cycle)
        cycle = cycle.model_copy(update={"report": report_name("sequences", cycle.began_at)})
        self.report(_reported(cycle, None, self.current(), now), self.registry.reports())
        return self.noted(cycle)

    def _decided(
        self, found: LearntSequences, in_use: SequenceModel | None, now: float, facts: Mapping[str, Any]
    ) -> tuple[str, str]:
        """What becomes of a candidate, and why: deployed, canary, waiting or rejected.

        One that is on trial, or waits for a person, is not replaced. facts: kept beside a model that is kept.
        """
        canary, registry, model = SequenceCanary(self.folder), self.registry, found.model
        decision, why = "deployed", f"passed {counted(len(found.gates), 'gate')}"
        if missed := [gate.name for gate in found.gates if not gate.passed]:
            decision, why = "rejected", f"missed {', '.join(missed)}"
        elif waiting := registry.waiting():
            decision, why = "rejected", f"another candidate waits for a person: {waiting}"
        elif registry.pinned():
            decision = "waiting"
        elif self.terms is not None:
            free = canary.row() is None
            decision, why = ("canary", why) if free else ("rejected", "another candidate is on trial")
        elif registry.holds():
            decision = "waiting"
        author = Author("", why)
        if decision != "rejected" and facts:
            registry.note_facts(model.model_id, facts)
        if decision == "deployed":
            registry.deploy(model.to_bytes(), now, author)
        elif decision == "waiting":
            registry.hold(model.to_bytes(), author)
        elif decision == "canary" and self.terms is not None:
            canary.begin(model, in_use.model_id if in_use is not None else "", self.terms, now)
            registry.note("begin canary", model.model_id, author)
        else:
            registry.note("pass over" if found.passed else "turn down", model.model_id, author)
        return decision, why

    def noted(self, cycle: EndedCycle) -> EndedCycle:
        """Record a cycle; one that cannot be recorded is logged, and holds."""
        try:
            return self.history.add(cycle)
        except OSError as error:
            _log.warning("sequence_cycle_not_recorded", decision=cycle.decision, error=str(error))
            return cycle

    def take_back(self, reason: str, author: str, path: Path | None = None) -> str:
        """Put the model before this one, or the one at a path, into its place again; its id. The one in use is kept as
        `taken_back`.

        Raises UsageError where there is none before it, or else ModelError, BusyError, OSError.
        """
        in_use = self.current()
        with self.registry.lock("take the sequence model back", LOCK_WAIT_S):
            model = self.registry.take_back(Author(author, reason), path=path)
        self.decided("taken back", model, Author(author, reason), in_use.model_id if in_use is not None else "")
        _log.info("sequence_model_taken_back", model_id=model.model_id)
        return model.model_id

    def decided(self, decision: str, model: SequenceModel, author: Author, replaced: str) -> EndedCycle:
        """Record what a person decided about a model; replaced: the id of the one that was in use."""
        facts: dict[str, Any] = {"length": model.length, "model_id": model.model_id, "parent": replaced}
        facts |= {"reason": author.reason, "by": author.by or "somebody"}
        return self.noted(EndedCycle(began_at=time.time(), source="a person", decision=decision, **facts))


def _reported(
    cycle: EndedCycle, found: LearntSequences | None, in_use: SequenceModel | None, now: float
) -> LearntCycle:
    """What the report of a cycle says. found: None = it came to no model."""
    data = [
        ("Windows", f"{cycle.trained:,}"),
        ("Queries heard", f"{cycle.collected:,}") if cycle.collected else ("From", f"the {cycle.source}"),
        ("Clients", f"{cycle.clients:,}"),
        ("Steps of a window", f"{cycle.length}"),
        ("Epochs", f"{cycle.epochs}"),
        ("Hash of the data", cycle.data_sha256 or "–"),
    ]
    data += [("Minutes", f"{cycle.minutes:g}")] if cycle.minutes else []
    known = LearntCycle(
        cycle_run_id("sequences", cycle.began_at),
        RunState(cycle.decision.upper()),
        "sequences",
        cycle.began_at,
        now,
        parent=in_use.model_id if in_use is not None else "",
        reason=cycle.reason,
        data=tuple(data),
    )
    if found is None:
        return known
    return replace(
        known,
        model_id=found.model.model_id,
        gates=found.gates,
        sides=model_sides(in_use, found.model, {}),
        listed=found.listed,
        drift=found.drift,
    )
