"""The seams: what the flows know of the world. Concrete classes meet only in bootstrap."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from agents.core.types import Incident, Message, QueryBatch, Sample, Taken, Verdicts


class Source(Protocol):
    """Where queries come from (a finite one: a capture)."""

    malformed: int
    """Messages or rows that could not be read, up to now."""
    warnings: list[str]
    """Sentences on damage, complete once the batches have been read."""

    @property
    def size(self) -> int:
        """Bytes of its files on the disk."""
        ...

    @property
    def done(self) -> int:
        """Bytes read up to now, at most `size`. Any thread may ask."""
        ...

    def batches(self, size: int) -> Iterator[QueryBatch]:
        """Yield the queries in time order, `size` at most a batch."""
        ...


class Detector(Protocol):
    """Judges batches. Keeps state per client and domain; time comes from the batch, never from the clock."""

    @property
    def model_id(self) -> str:
        """Of the model in use."""
        ...

    @property
    def open_incidents(self) -> Mapping[tuple[str, str], Incident]:
        """By client and domain."""
        ...

    def detect(self, batch: QueryBatch, explain: bool = True) -> Verdicts:
        """explain: False leaves out the reasons of queries outside open incidents, which saves most of their work."""
        ...

    def tick(self, now: float) -> Verdicts | None:
        """What happens without queries, at time `now`: incidents close, a model that waits is taken up."""
        ...

    def flush(self) -> Verdicts | None:
        """End of input: close what is open."""
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

    def save(self, lock: AbstractContextManager[Any]) -> Mapping[str, bytes]:
        """What it knows, as files by name. Holds `lock`, under which it judges, as briefly as it can."""
        ...

    def load(self, name: str, data: bytes) -> None:
        """Go on from one file of `save`. Raises ValueError for bytes that are none."""
        ...

    def gauges(self) -> Mapping[str, Any]:
        """Numbers for health and metrics: fields of runtime.heartbeat.DetectorHealth."""
        ...


class Stream(Protocol):
    """Observed queries on their way from listeners to the one detector that takes them.

    Listeners write through `writers`; `take` and `commit` are the detector's. Totals outlive its process.
    """

    @property
    def capacity(self) -> int:
        """Queries that there is room for."""
        ...

    @property
    def dropped(self) -> int:
        """Queries that found no room."""
        ...

    def writers(self, listener: int) -> Any:
        """What one listener writes into."""
        ...

    def take(self, stop: threading.Event) -> Taken | None:
        """The next batch, to be committed before the one after it; None where none came for a while, or at `stop`."""
        ...

    def commit(self, **changes: int) -> None:
        """The sinks have what was taken: add `changes` to the totals and give its room back."""
        ...

    def carried(self) -> Mapping[str, int]:
        """Sums that detector processes before this one left."""
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
        """Descriptor for signal.set_wakeup_fd: a byte written to it wakes, too; -1 = a stream that needs none."""
        ...


class Sink(Protocol):
    """Where verdicts go. Must not block for long; must not lose what it accepted without counting it."""

    name: str

    def accept(self, verdicts: Verdicts) -> None: ...

    def close(self) -> None: ...


class Notifier(Protocol):
    """One channel to people."""

    name: str

    async def send(self, message: Message) -> None:
        """Deliver, or raise NotifyError; retries with back-off are inside."""
        ...


class SampleStore(Protocol):
    """What retraining needs of the store."""

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
    ) -> Sample: ...

    def severity_counts(self, *, since: float, until: float) -> Sequence[tuple[str, int]]: ...


class ReadStore(Protocol):
    """What the console shows of the store. Every method raises StoreError when the database is away."""

    def ping(self) -> None: ...

    def queries(
        self,
        *,
        client: str | None = None,
        domain: str | None = None,
        severities: Sequence[int] = (),
        since: float | None = None,
        until: float | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> tuple[list[dict[str, Any]], str | None]: ...

    def incidents(
        self,
        *,
        client: str | None = None,
        domain: str | None = None,
        severities: Sequence[int] = (),
        since: float | None = None,
        until: float | None = None,
        open_only: bool = False,
        limit: int,
    ) -> list[Incident]: ...

    def incident_by_id(self, incident_id: str) -> Incident | None: ...


class ModelList(Protocol):
    """What the console shows of the registry."""

    def list(self) -> list[dict[str, Any]]:
        """model_id, path, kind (current, backup or candidate), created, manifest; newest first."""
        ...


class ScoringModel(Protocol):
    """A trained model, as the cold flow sees it."""

    @property
    def model_id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the file's bytes."""
        ...

    @property
    def manifest(self) -> Mapping[str, Any]: ...

    def to_bytes(self) -> bytes: ...


class ModelType(Protocol):
    """A detector type: trains models and reads their files."""

    def train(self, learn_from: Sample, calibrate_on: Sample, seed: int, facts: Mapping[str, Any]) -> ScoringModel:
        """A model that is fitted on `learn_from` and calibrated on both; `facts` go into its manifest."""
        ...

    def load(self, data: bytes) -> ScoringModel:
        """Raises ModelError for bytes that are no model of this type."""
        ...


class Registry(Protocol):
    """What retraining needs of the model files."""

    @property
    def origin(self) -> str:
        """Where the model in use came from: "champion" or "baseline"."""
        ...

    @property
    def champion_path(self) -> Path: ...

    def lock(self) -> AbstractContextManager[None]:
        """Held by one process at a time; raises BusyError."""
        ...

    def current(self) -> ScoringModel: ...

    def backup(self, now: float) -> Path: ...

    def prune(self, now: float, days: int) -> int: ...

    def save_candidate(self, model: Any) -> Path: ...

    def mark(self, model_id: str, state: str) -> None: ...

    def promote(self, model_id: str) -> object: ...


@dataclass(frozen=True)
class Field:
    """One setting of a kind. name: in lower case, as settings hold it; kind: the type of its value.

    check: raises ValueError for a value that cannot be used. secret: a text that nothing ever shows.
    """

    name: str
    kind: Any
    default: Any
    description: str
    check: Callable[[Any], object] | None = None
    secret: bool = False


Made = TypeVar("Made", covariant=True)


@dataclass(frozen=True)
class Spec(Generic[Made]):
    """A kind of intake, channel or detector type: the one list that settings, documents and checks are made from.

    summary: a noun phrase for people. factory: makes one; its last argument maps names of `fields` to their values.
    """

    name: str
    summary: str
    fields: tuple[Field, ...]
    factory: Callable[..., Made]

    def values(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The value of each field: the one in `options`, else its default."""
        return {field.name: options.get(field.name, field.default) for field in self.fields}
