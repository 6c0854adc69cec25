"""The seams between rooms, as protocols. runtime.bootstrap connects concrete classes; runtime.supervisor makes
the stream, which all processes share.

Here and in all rooms, unless a docstring says otherwise: `now`, `at`, `since`, `until` and `ts` are Unix seconds, what
ends in `_s` is a number of seconds, and sizes are bytes.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import SettingsError
from agents.core.types import Incident, Message, QueryBatch, Sample, Severity, Taken, Verdicts


class Source(Protocol):
    """A finite source of queries: a capture, a log or a table."""

    malformed: int
    """Messages or rows that could not be read, up to now."""
    warnings: list[str]
    """Sentences on damage, complete once the batches have been read."""
    errors: list[str]
    """Sentences on files of which nothing could be read, complete once the batches have been read."""
    losses: tuple[str, ...]
    """What its kind does not keep of queries: unknown, and no evidence of anything."""
    taken: tuple[str, ...]
    """Sentences on what its files were taken for, and why."""

    @property
    def size(self) -> int:
        """Bytes of its files on the disk."""
        ...

    @property
    def done(self) -> int:
        """Bytes read up to now, at most `size`. Any thread may ask."""
        ...

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield the queries in time order, at most `size` a batch."""
        ...


class Detector(Protocol):
    """Judges batches. Keeps state per client and domain; time comes from the batch, never from the clock."""

    @property
    def model_id(self) -> str:
        """Id of the model in use."""
        ...

    @property
    def open_incidents(self) -> Mapping[tuple[str, str], Incident]:
        """Open incidents by client and domain."""
        ...

    def detect(self, batch: QueryBatch, explain: bool = True) -> Verdicts:
        """Judge a batch. explain: False leaves out reasons outside open incidents, which saves most of their work."""
        ...

    def tick(self, now: float) -> Verdicts | None:
        """Do the work that depends on time alone: close quiet incidents, start to use a reloaded model."""
        ...

    def flush(self) -> Verdicts | None:
        """Close all incidents at the end of the input."""
        ...

    def restore(self, incidents: Sequence[Incident]) -> None:
        """Go on with incidents that were open when the process stopped."""
        ...

    def reload(self, model: Any) -> None:
        """Use another model from the next batch or tick on. May be called from any thread."""
        ...

    def reload_services(self, services: Any) -> None:
        """Use another list of known services from the next batch or tick on. May be called from any thread."""
        ...

    def reload_profile(self, profile: Any) -> None:
        """Use another network profile, or none, from the next batch or tick on. May be called from any thread."""
        ...

    def forget(self, client: str) -> None:
        """Drop all that is known of a client. Nothing may be judged meanwhile."""
        ...

    def save(self, lock: AbstractContextManager[Any]) -> Mapping[str, bytes]:
        """The state as files by name. Holds `lock`, which judging needs, as briefly as possible."""
        ...

    def load(self, name: str, data: bytes) -> None:
        """Restore state from one file of `save`. Raises core.npz.FormatError for invalid contents."""
        ...

    def gauges(self) -> Mapping[str, Any]:
        """Numbers for health and metrics: fields of runtime.heartbeat.DetectorHealth."""
        ...


class Stream(Protocol):
    """Observed queries on their way from listeners to the one detector that takes them.

    Listeners write through `writers`; the detector calls `take` and `commit`. Totals survive the detector's process.
    """

    @property
    def capacity(self) -> int:
        """Queries that the stream has room for."""
        ...

    @property
    def dropped(self) -> int:
        """Queries dropped because the stream was full."""
        ...

    def writers(self, listener: int) -> Any:
        """The objects that one listener writes to."""
        ...

    def take(self, stop: threading.Event) -> Taken | None:
        """The next batch, to be committed before the next call; None after a while without queries, or at `stop`."""
        ...

    @property
    def take_s(self) -> float:
        """How long `take` may wait, seconds."""
        ...

    def commit(self, **changes: int) -> None:
        """Call when the sinks have the batch: adds `changes` to the totals and gives its room back."""
        ...

    def carried(self) -> Mapping[str, int]:
        """Sums that earlier detector processes left."""
        ...

    def carry(self, sums: Mapping[str, int]) -> None:
        """Leave sums to the next detector process."""
        ...

    def health(self) -> Mapping[str, Any]:
        """Totals, levels and processes: fields of runtime.heartbeat.DetectorHealth."""
        ...

    def wake(self) -> None:
        """Make a waiting `take` return."""
        ...

    @property
    def wakeup_fd(self) -> int:
        """Descriptor for signal.set_wakeup_fd: a byte written to it wakes `take`, too; -1 = not needed."""
        ...


class Sink(Protocol):
    """A receiver of verdicts. It must not block for long, and must count accepted verdicts that it loses."""

    name: str
    incidents_only: bool
    """It takes no notice of batches without incidents, and is not given them."""

    def accept(self, verdicts: Verdicts) -> None: ...

    def close(self) -> None: ...


class Sendable(Protocol):
    """What is sent: the gravest first."""

    @property
    def title(self) -> str: ...

    @property
    def severity(self) -> Severity: ...


SentTo = TypeVar("SentTo", bound=Sendable, contravariant=True)


class Receiver(Protocol[SentTo]):
    """One way out of this program: a channel to people, or to another program."""

    name: str

    async def send(self, message: SentTo) -> None:
        """Deliver, or raise NotifyError; retries with back-off are inside."""
        ...


Notifier = Receiver[Message]
"""One channel to people."""


class Tables(Protocol):
    """A database whose tables can be made."""

    def migrate(self) -> None:
        """Make them, or bring them up to this release. Raises StoreError."""
        ...


class VerdictStore(Protocol):
    """A database that takes verdicts."""

    def write(self, verdicts: Verdicts, batch_id: str) -> int:
        """Write a batch, once for all calls with its id; how many rows are new. Raises StoreError."""
        ...


class IncidentStore(Protocol):
    """A database that knows incidents."""

    def incidents(
        self,
        *,
        client: str | None = None,
        domain: str | None = None,
        severities: Sequence[int] = (),
        since: float | None = None,
        until: float | None = None,
        open_only: bool = False,
        source: str | None = None,
        limit: int,
    ) -> list[Incident]:
        """The newest that fit. Raises StoreError."""
        ...


class LiveStore(Tables, VerdictStore, Protocol):
    """The part of the store that a detector of live queries uses."""

    def open_incidents(self) -> list[Incident]:
        """Those of live queries that are open. Raises StoreError."""
        ...


class RunStore(Tables, Protocol):
    """The part of the store that keeps what became of retrainings. Every method raises StoreError."""

    def runs(self, *, limit: int) -> list[dict[str, Any]]:
        """The newest runs: run_id, started_at, state, payload."""
        ...

    def save_run(self, run_id: str, *, started_at: float, state: str, payload: dict[str, Any]) -> None:
        """Write a run, or what has become of it."""
        ...


class SampleStore(Protocol):
    """The part of the store that retraining uses."""

    def sample_normal(
        self,
        *,
        since: float,
        until: float,
        limit: int,
        max_score: float,
        client_share: float,
        domain_share: float,
        features_version: int,
        seed: int,
        replayed: bool = False,
    ) -> Sample: ...

    def severity_counts(self, *, since: float, until: float, replayed: bool = False) -> Sequence[tuple[str, int]]: ...


class ReadStore(IncidentStore, Protocol):
    """The part of the store that the console shows. Every method raises StoreError when the database is away."""

    def ping(self) -> None: ...

    def queries(
        self,
        *,
        client: str | None = None,
        domain: str | None = None,
        severities: Sequence[int] = (),
        since: float | None = None,
        until: float | None = None,
        source: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> tuple[list[dict[str, Any]], str | None]: ...

    def incident_by_id(self, incident_id: str) -> Incident | None: ...


class FlowLearner(Protocol):
    """The part of the online learner that the console shows."""

    def status(self) -> Mapping[str, Any]:
        """enabled, is_training, progress, last_training_time, last_processed_id, total_training_cycles, …."""
        ...

    def history(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Cycles that came to their end, newest first."""
        ...

    def begin(self) -> None:
        """Begin a cycle in the background. Raises BusyError while one is under way, or too few labels are new."""
        ...

    def enable(self, on: bool) -> None:
        """Let cycles begin by themselves, or stop that."""
        ...


class CycleDesk(Protocol):
    """Where people ask for cycles of the sequence model, and see how they go."""

    def state(self) -> Mapping[str, Any]:
        """phase, minutes, length, epochs, again, began_at, remaining_s, collected, clients, windows, cycles, …"""
        ...

    def history(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """Cycles that came to their end, newest first."""
        ...

    def ask(self, action: str, **chosen: Any) -> str:
        """action: start, train (now) or stop. chosen: minutes, length, epochs, again.

        Raises UsageError, and BusyError where nothing would take it up.
        """
        ...


@dataclass(frozen=True, slots=True)
class FleetAnswer:
    """An answer to a request below /fleet/. body: JSON."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class FleetDesk(Protocol):
    """What coordinates sites that learn together; it knows them by their signatures."""

    @property
    def body_max(self) -> int:
        """Bytes of a request's body, at most."""
        ...

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> FleetAnswer:
        """Answer one request; what is wrong with it is the answer. Raises BusyError, OSError."""
        ...

    def is_set_up(self) -> bool:
        """Whether any site takes part. Never raises."""
        ...

    def overview(self) -> dict[str, Any] | None:
        """The open round, the sites, and what was joined last; None where no site takes part. Raises AgentsError."""
        ...


class FleetMember(Protocol):
    """This installation as a site of a fleet."""

    def is_set_up(self) -> bool:
        """Whether it takes part in one. Never raises."""
        ...

    def overview(self) -> dict[str, Any] | None:
        """What it took and sent last, and how its clients compare; None where it takes part in none. Raises
        AgentsError."""
        ...

    def preview(self) -> dict[str, Any]:
        """Exactly what it would send now, as JSON values; it takes seconds. Raises AgentsError."""
        ...


class ModelList(Protocol):
    """The part of the registry that the console shows."""

    def list(self) -> list[dict[str, Any]]:
        """model_id, path, kind (current, backup or candidate), created, manifest; newest first."""
        ...


class ScoringModel(Protocol):
    """A trained model, as retraining uses it."""

    @property
    def model_id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the file's bytes."""
        ...

    @property
    def manifest(self) -> Mapping[str, Any]: ...

    def to_bytes(self) -> bytes: ...

    def score(self, features: NDArray[np.float32], qnames: Sequence[bytes]) -> NDArray[np.float32]:
        """Calibrated scores of n names in wire form, 0..1, high = anomalous."""
        ...


class ModelType(Protocol):
    """A detector type: trains models and reads their files."""

    def train(self, learn_from: Sample, calibrate_on: Sample, seed: int, facts: Mapping[str, Any]) -> ScoringModel:
        """A model fitted on `learn_from` and calibrated on both samples; `facts` go into its manifest."""
        ...

    def load(self, data: bytes) -> ScoringModel:
        """The model in a file's bytes. Raises ModelError if they are not a model of this type."""
        ...


Served = TypeVar("Served", covariant=True)


class ModelInUse(Protocol[Served]):
    """The part of the registry that shows which model is in use."""

    @property
    def origin(self) -> str:
        """Origin of the model in use: "champion" or "baseline"."""
        ...

    @property
    def champion_path(self) -> Path: ...

    def current(self) -> Served:
        """The model in use. Raises ModelError."""
        ...

    def stamp(self) -> tuple[int, ...] | None:
        """Changes whenever the model's file does; None where there is none."""
        ...

    def profile_of(self, model: Any) -> Any:
        """The network profile that was made with a model; None where there is none."""
        ...


class Registry(ModelInUse[ScoringModel], Protocol):
    """The part of the registry that retraining uses."""

    def lock(self) -> AbstractContextManager[None]:
        """The registry's lock, held by one process at a time. Raises BusyError."""
        ...

    def backup(self, now: float) -> Path: ...

    def prune(self, now: float, days: int) -> int: ...

    def save_candidate(self, model: Any) -> Path: ...

    def mark(self, model_id: str, state: str, author: Any = ...) -> None: ...

    def promote(self, model_id: str, author: Any = ...) -> object: ...

    def lineage(self, model_id: str) -> Mapping[str, Any]:
        """What is known of where a version comes from."""
        ...

    def canary(self) -> Mapping[str, Any] | None:
        """The canary that runs, with its model_id; None if none does."""
        ...

    def begin_canary(
        self, model_id: str, terms: Mapping[str, Any], now: float, author: Any = ..., by_person: bool = True
    ) -> None:
        """Let a kept version judge as a canary."""
        ...

    def aliases(self) -> Mapping[str, str]:
        """Model ids by alias."""
        ...

    def note(self, model_id: str, facts: Mapping[str, Any]) -> None:
        """Add to that; facts: JSON."""
        ...

    def save_profile(self, profile: Any) -> None:
        """Keep a network profile, for the model whose manifest names it."""
        ...

    def pinned(self) -> str:
        """Who pinned which model, and why; "" where none is pinned."""
        ...


@dataclass(frozen=True)
class Field:
    """One setting of a kind. name: in lower case, as settings hold it; kind: the type of its value.

    check: raises ValueError for a value that cannot be used. secret: a text that is never shown.
    """

    name: str
    kind: Any
    default: Any
    description: str
    check: Callable[[Any], object] | None = None
    secret: bool = False


@dataclass(frozen=True)
class Within:
    """A check of a setting: its value is in this range."""

    low: float
    high: float

    def __call__(self, value: float) -> None:
        if not self.low <= value <= self.high:
            raise ValueError(f"it must be between {self.low:g} and {self.high:g}")


Made = TypeVar("Made", covariant=True)


@dataclass(frozen=True)
class Spec(Generic[Made]):
    """A kind of intake, channel or detector type. Settings, documents and checks are made from the lists of Specs.

    summary: a noun phrase for people. factory: makes an object of the kind; its last argument maps names of `fields`
    to their values. presets: of a field and its value, what other fields are where they have their defaults.
    """

    name: str
    summary: str
    fields: tuple[Field, ...]
    factory: Callable[..., Made]
    presets: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict, kw_only=True, compare=False)

    def values(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The value of each field: the one in `options`, else its default."""
        return {one.name: options.get(one.name, one.default) for one in self.fields}


def library(module: str, extra: str, user: str) -> Any:
    """A library of an extra, imported when something needs it. user: what does. Raises SettingsError without it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        what = f"pip install -r requirements-{extra}.txt"
        raise SettingsError(f"cannot use {user}: {module} is not installed ({what})") from None
