"""Training, here or in a process of its own: scikit-learn and what it learns from take memory that goes with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from agents.core.errors import TrainingError
from agents.core.protocols import ModelType, ScoringModel
from agents.core.types import Sample
from agents.learning.baseline import benign_names, sample_of
from agents.learning.images.image_model import ImageModel, fitted_images, load_image_model
from agents.learning.run import TrainRequest, TypeResult
from agents.learning.sequences.bounds import SequenceBounds
from agents.learning.sequences.gru import SequenceModel
from agents.learning.sequences.learning import Compare, LearntSequences, learn_sequences
from agents.learning.sequences.steps import Windows
from agents.learning.type_comparison import Scene, TypeParams, compare_types
from agents.scoring.types.base import Rows

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Training:
    """How candidates are made. limits: what the alert budget chose, as JSON, for the manifest."""

    model_type: ModelType
    limits: Mapping[str, Any]


def train_here(training: Training, sample: Sample, request: TrainRequest) -> ScoringModel:
    """A candidate from the sample, calibrated on it and on the shipped benign names. Raises TrainingError."""
    data: dict[str, Any] = {
        "live": request.live,
        "topped_up": request.topped_up,
        "since": request.since,
        "until": request.until,
    }
    if request.data_sha256:
        data["sha256"] = request.data_sha256
    facts = {"parent": request.parent, "data": data, "limits": dict(training.limits)}
    facts |= {"profile": dict(request.profile)} if request.profile else {}
    return training.model_type.train(sample, _calibration_sample(), request.seed, facts)


def train_spawned(training: Training, sample: Sample, request: TrainRequest) -> ScoringModel:
    """As train_here, in a process of its own; what that raises is raised here.

    Ctrl-C in a terminal does not reach the process: who waits for the retraining decides. It ends with this one.
    Raises TrainingError, also where the process dies.
    """
    return training.model_type.load(_spawned("train", _trained, training, sample, request))


def compare_spawned(
    scenes: Sequence[Scene],
    types: Sequence[TypeParams],
    share: float,
    seed: int,
) -> tuple[TypeResult, ...]:
    """As type_comparison.compare_types, in a process of its own."""
    return _spawned("compare detector types", compare_types, scenes, types, share, seed)


def learn_sequences_spawned(
    params: Mapping[str, Any],
    bounds: SequenceBounds,
    compare: Compare | None,
    windows: Windows,
    epochs: int,
    in_use: SequenceModel | None,
) -> LearntSequences:
    """As learning.sequences, in a process of its own. What it learns from goes through a pipe, and never to a disk."""
    found = _spawned("train the sequence model", _tried, windows, epochs, params, in_use, bounds, compare)
    if isinstance(found, str):
        said = "cannot train the sequence model: "
        raise TrainingError(said + found.removeprefix(said))
    return found


def fit_images_spawned(params: Mapping[str, Any], kind: str, learn: Rows, calibrate: Rows, seed: int) -> ImageModel:
    """As images.image_model.fitted_images, in a process of its own. Raises TrainingError."""
    data = _spawned("learn images of flows", _fitted_images, kind, params, learn, calibrate, seed)
    if isinstance(data, str):
        raise TrainingError(data)
    return load_image_model(data)


def _fitted_images(kind: str, params: Mapping[str, Any], learn: Rows, calibrate: Rows, seed: int) -> bytes | str:
    """The model, or why there is none."""
    try:
        return fitted_images(kind, params, learn, calibrate, seed).to_bytes()
    except TrainingError as error:
        return str(error)
    except MemoryError:
        return "cannot learn images of flows: out of memory"


def _tried(
    windows: Windows,
    epochs: int,
    params: Mapping[str, Any],
    in_use: SequenceModel | None,
    bounds: SequenceBounds,
    compare: Compare | None,
) -> LearntSequences | str:
    """What was learnt, or why nothing was: JAX has errors of its own, and what judges must not end by them."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(learn_sequences, windows, epochs, params, in_use, bounds=bounds, compare=compare)
        error = done.exception()
    return done.result() if error is None else str(error).partition("\n")[0] or type(error).__name__


def _spawned(what: str, work: Callable[..., Made], *arguments: Any) -> Made:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_alone, max_tasks_per_child=1) as pool:
        done = _submitted(pool, work, *arguments)
        try:
            return done.result()
        except BrokenProcessPool:
            raise TrainingError(f"cannot {what}: the process that does it died; see the log") from None


def _submitted(pool: ProcessPoolExecutor, work: Callable[..., Made], *arguments: Any) -> Future[Made]:
    """Start the process with SIGINT blocked, so that none comes before it is ignored."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(work, *arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _trained(training: Training, sample: Sample, request: TrainRequest) -> bytes:
    return train_here(training, sample, request).to_bytes()


def _alone() -> None:
    """What the new process does first."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@lru_cache(maxsize=1)
def _calibration_sample() -> Sample:
    return sample_of(benign_names())
