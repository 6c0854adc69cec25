"""From windows to a sequence model that may be used: trained, calibrated, compared with the one in use, kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from agents.core.errors import ModelError, TrainingError, UsageError
from agents.core.files import write_atomic
from agents.core.types import Gate
from agents.learning.sequences.gru import SequenceModel, guess_of, load_sequence_model, trained_network
from agents.learning.sequences.steps import Windows

HELD_OUT_CLIENTS = 5
"""The windows of one client in so many are not learnt, but compared with."""
WINDOWS_MIN = 20
"""Fewer windows teach nothing."""
ODD_SHARE = 0.001
"""Share of held-out windows that are odd."""
WORSE_MAX = 1.05
"""How many times the surprise of the model in use a new one may have, on what is held out."""
VERSIONS_KEPT = 5
_log = structlog.get_logger("agents.learning.sequences")
Train = Callable[[Windows, int, Mapping[str, Any], int], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class LearntSequences:
    """What came of a training."""

    model: SequenceModel
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Whether it may be used."""
        return all(gate.passed for gate in self.gates)


def split_by_client(windows: Windows) -> tuple[Windows, Windows]:
    """Windows to learn, and those held out; one client's are all in one of them. Of few clients: by turns."""
    clients = np.unique(windows.client)
    number = np.searchsorted(clients, windows.client) if len(clients) >= HELD_OUT_CLIENTS else np.arange(len(windows))
    held = number % HELD_OUT_CLIENTS == HELD_OUT_CLIENTS - 1
    return windows.at(~held), windows.at(held)


def learn_sequences(
    windows: Windows,
    epochs: int,
    params: Mapping[str, Any],
    in_use: SequenceModel | None,
    train: Train = trained_network,
    seed: int = 0,
) -> LearntSequences:
    """A model of the windows, with its gates. params: of network.DEEP_FIELDS. Raises TrainingError."""
    if len(windows) < WINDOWS_MIN:
        raise TrainingError(
            f"cannot train the sequence model: {len(windows)} windows, {WINDOWS_MIN} are needed; collect for longer"
        )
    learnt, held = split_by_client(windows)
    length = int(windows.steps.shape[1])
    model = SequenceModel(dict(train(learnt, epochs, params, seed)), {"length": length, "odd_from": 0.0})
    found = model.surprise(held)
    odd_from = float(np.quantile(np.concatenate([model.surprise(learnt), found]), 1 - ODD_SHARE))
    facts = {"windows": len(windows), "clients": len(np.unique(windows.client)), "epochs": epochs}
    model = model.noted(odd_from=odd_from, **facts)
    mean, guess = float(found.mean()), SequenceModel(guess_of(learnt), model.manifest)
    gates = [
        Gate("surprise of a guess", mean, float(guess.surprise(held).mean()), False, "on what is held out"),
        Gate("surprise is finite", float(np.isfinite(found).all()), 1.0, True),
    ]
    if in_use is not None and in_use.length == length:
        bound = float(in_use.surprise(held).mean())
        bound += abs(bound) * (WORSE_MAX - 1)
        gates.append(Gate("surprise of the model in use", mean, bound, False, "on what is held out"))
    return LearntSequences(model, tuple(gates))


@dataclass(frozen=True, slots=True)
class SequenceModels:
    """The folder of the sequence model in use, and of the ones before."""

    folder: Path

    @property
    def path(self) -> Path:
        """The model in use."""
        return self.folder / "current.npz"

    def current(self) -> SequenceModel | None:
        """The model in use; None where there is none, or none that can be read, which is logged."""
        try:
            return load_sequence_model(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (ModelError, OSError) as error:
            _log.warning("sequence_model_not_used", path=str(self.path), error=str(error))
            return None

    def deploy(self, model: SequenceModel, now: float) -> None:
        """Put a model into its place, and keep the one before. now: Unix seconds."""
        if self.path.exists():
            earlier = self.folder / "earlier"
            write_atomic(earlier / f"{int(now):010d}.npz", self.path.read_bytes())
            for old in sorted(earlier.glob("*.npz"))[:-VERSIONS_KEPT]:
                old.unlink()
        write_atomic(self.path, model.to_bytes())

    def take_back(self) -> str:
        """Put the model before this one into its place again; its id. Raises UsageError where there is none, or else
        ModelError, OSError."""
        before = next(iter(sorted((self.folder / "earlier").glob("*.npz"), reverse=True)), None)
        if before is None:
            raise UsageError("cannot take the sequence model back: there is none before it")
        model = load_sequence_model(before.read_bytes())
        write_atomic(self.path, model.to_bytes())
        before.unlink()
        _log.info("sequence_model_taken_back", model_id=model.model_id)
        return model.model_id
