"""The smallest thing with a model's interface, and the collaborators of a retraining around it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ModelError, StoreError
from agents.core.types import ChannelResult, Sample
from agents.learning.registry import ModelRegistry
from agents.learning.report import write_report
from agents.learning.retraining import RetrainingParts
from agents.learning.run import RunState, TrainingRun, TrainRequest, Validation
from tests.support import run_samples

NOW = 1_763_604_800.0


@dataclass(frozen=True)
class FakeModel:
    name: str

    @property
    def model_id(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    @property
    def manifest(self) -> Mapping[str, Any]:
        return {"algorithm": "fake", "name": self.name, "features": ["length"]}

    def score(self, features: NDArray[np.float32], qnames: Sequence[bytes]) -> NDArray[np.float32]:
        return np.array([len(name) for name in qnames], np.float32) / np.float32(255)

    def to_bytes(self) -> bytes:
        return json.dumps({"fake": self.name}).encode()


def load(data: bytes) -> FakeModel:
    try:
        return FakeModel(json.loads(data)["fake"])
    except (ValueError, KeyError, TypeError):
        raise ModelError("cannot use model: it is damaged") from None


BASELINE = FakeModel("baseline")


def registry(folder: Path) -> ModelRegistry[FakeModel]:
    return ModelRegistry(folder / "models", load, BASELINE.to_bytes())


def sample(n: int, start: float = NOW - 86400, domain: str = "example.com") -> Sample:
    return Sample(
        ts=np.arange(n, dtype=np.float64) + start,
        client=[f"192.0.2.{at % 7}" for at in range(n)],
        qname=[f"h{at}.{domain}" for at in range(n)],
        domain=[domain] * n,
        features=np.ones((n, 3), np.float32),
    )


@dataclass
class FakeStore:
    live: int = 600
    away: bool = False
    asked: dict[str, object] = field(default_factory=dict)

    def sample_normal(self, **asked: object) -> Sample:
        if self.away:
            raise StoreError("cannot reach the database: connection refused")
        self.asked = asked
        limit = asked["limit"]
        assert isinstance(limit, int)
        return sample(min(self.live, limit))

    def severity_counts(self, *, since: float, until: float, replayed: bool = False) -> Sequence[tuple[str, int]]:
        return [("NORMAL", self.live)]


@dataclass
class World:
    """Parts of a retraining that remember what was done, in order."""

    folder: Path
    store: FakeStore = field(default_factory=FakeStore)
    missed: bool = False
    events: list[str] = field(default_factory=list)
    told: list[TrainingRun] = field(default_factory=list)
    begun: list[TrainingRun] = field(default_factory=list)
    saved: list[TrainingRun] = field(default_factory=list)
    trained: list[tuple[Sample, TrainRequest]] = field(default_factory=list)
    during_training: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.registry = registry(self.folder)
        self.time = NOW

    def train(self, sample: Sample, request: TrainRequest) -> FakeModel:
        self.trained.append((sample, request))
        self.during_training()
        return FakeModel(f"seed {request.seed}")

    def validate(self, candidate: FakeModel, champion: FakeModel) -> Validation:
        return run_samples.validation(self.missed)

    async def notify(self, run: TrainingRun) -> Sequence[ChannelResult]:
        self.told.append(run)
        self.events.append(f"told, model in use {self.registry.current().name}")
        return [ChannelResult("slack", ok=False, error="cannot send to slack: it answered 500")]

    def save(self, run: TrainingRun) -> None:
        (self.begun if run.state is RunState.RUNNING else self.saved).append(run)

    def clock(self) -> float:
        self.time += 0.5
        return self.time

    def parts(self, **changed: Any) -> RetrainingParts:
        parts = RetrainingParts(
            store=self.store,
            registry=self.registry,
            trainer=self.train,
            validator=self.validate,
            baseline_sample=lambda n, seed: sample(min(n, 5000), NOW - 9e6, "baseline.example"),
            reporter=lambda run: write_report(self.folder / "reports", run),
            notify=self.notify,
            save_run=self.save,
            clock=self.clock,
        )
        return replace(parts, **changed)
