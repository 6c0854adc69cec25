"""The collaborators of the application, as plain fields, so that a test can replace any of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from fastapi import Request

from agents.core.errors import AgentsError, StoreError, StoreUnusableError
from agents.core.protocols import CycleDesk, FleetDesk, FleetMember, FlowLearner, ModelList, ReadStore
from agents.core.text import NETWORK
from agents.core.types import ChannelResult, Metric
from agents.detection.explanations.known_desk import KnownDesk
from agents.dns.blocks import Block, BlockList
from agents.store.console import ConsoleStore
from agents.store.feedback.reviews import ReviewStore
from agents.store.hunting.answers import HuntFound
from agents.store.hunting.hunts import HuntQuestion
from agents.store.people.people import PeopleStore
from agents.web.console.last_hour import LastHour

if TYPE_CHECKING:
    from agents.web.people.oidc import OidcProvider

LEARNT_NAMES = {"flow": "flow model", "sequences": "sequence model", "images": "image model"}
"""Kinds of models that cycles learn, and what one is called."""
STATE_S = 1.0
"""The database is asked again after this many seconds."""
T = TypeVar("T")


def _no_health() -> Mapping[str, Mapping[str, Any]]:
    return {}


def _no_settings() -> Iterable[tuple[str, str, str]]:
    return ()


def _no_channels() -> Sequence[ChannelResult]:
    return ()


def _no_week(since: float, until: float) -> Mapping[str, Any]:
    return {"heard": {}, "left_out": 0, "drills": 0, "missed": 0}


def _no_hosts() -> Mapping[str, Any]:
    return {"model_id": "", "hosts": []}


def _no_metrics() -> Iterable[Metric]:
    return ()


class Probe(Generic[T]):
    """What somebody answers who may hang, asked on a thread of its own, one question at a time.

    An answer is used for `keep_s` seconds, since /health is open to every client.
    """

    def __init__(self, ask: Callable[[], T], keep_s: float = 0.0) -> None:
        self._ask, self._keep_s = ask, keep_s
        self._guard = threading.Lock()
        self._answer: Future[T] | None = None
        self._begun = 0.0

    def answer(self) -> Future[T]:
        """The newest answer, or the one that is waited for."""
        with self._guard:
            answer, now = self._answer, time.monotonic()
            if answer is None or (answer.done() and now - self._begun >= self._keep_s):
                answer = self._answer = Future()
                self._begun = now
                threading.Thread(target=self._run, args=(answer,), name="probe", daemon=True).start()
            return answer

    @property
    def waited_s(self) -> float:
        """For how long the last question has been waiting, or waited."""
        return time.monotonic() - self._begun

    def _run(self, answer: Future[T]) -> None:
        try:
            answer.set_result(self._ask())
        finally:
            if not answer.done():
                answer.set_exception(AgentsError("cannot answer: see the log"))


def database_state(store: ReadStore) -> Mapping[str, Any]:
    """{"ok": bool} and the fault, without addresses."""
    try:
        store.ping()
    except StoreUnusableError:
        return {"ok": False, "error": "cannot use the database: see the log"}
    except StoreError:
        return {"ok": False, "error": "cannot reach the database"}
    return {"ok": True}


class BlockBook(Protocol):
    """What makes and ends blocks; `enforcement` stands beside this room. Every method raises AgentsError."""

    @property
    def mode(self) -> str:
        """off, dry-run or on."""
        ...

    def blocks(self) -> BlockList: ...

    def hits(self) -> Mapping[str, int]:
        """How often each block was met, by its id."""
        ...

    def counts_alone(self, blocks: BlockList) -> bool:
        """Whether a block that no person makes would only be counted."""
        ...

    def add(
        self,
        domain: str,
        client: str = NETWORK,
        action: str = "",
        *,
        reason: str,
        author: str,
        hours: float = 0.0,
        anyway: bool = False,
    ) -> Block: ...

    def remove(self, which: str, author: str) -> Sequence[Block]: ...

    def undo_all(self, author: str) -> Sequence[Block]: ...

    def pause(self, author: str) -> None: ...

    def resume(self) -> bool: ...


class FlowQuestions(Protocol):
    """Flow-hours for people; `learning` stands beside this room. Raises StoreError. Times are Unix seconds."""

    def hours(
        self, *, client: str | None, domain: str | None, since: float, until: float, limit: int, offset: int
    ) -> list[dict[str, Any]]: ...

    def most_in_words(self, since: float, until: float, limit: int, offset: int) -> list[dict[str, Any]]: ...

    def nearest_to_limits(self, since: float, until: float, limit: int, offset: int) -> list[dict[str, Any]]: ...

    def kept(self) -> dict[str, Any]:
        """How many there are, by week, how large they are, and their labels."""
        ...


class MonthHunter(Protocol):
    """Hunts over months, a few at once; `runtime` stands above this room."""

    @property
    def engine(self) -> str:
        """What answers them, by its name; "" = nothing is set up."""
        ...

    def ask(self, question: HuntQuestion, stopped: Callable[[], bool]) -> HuntFound:
        """The answer; with `stopped` nobody waits for it any more.

        Raises UsageError for SQL that is not answered, BusyError where too many run, StoreError for no answer.
        """
        ...


class ModelDecided(Protocol):
    """What came of a decision about a model; problems: what did not follow it, a line each."""

    @property
    def made(self) -> Any:
        """The transition, with `text` and `to_json`."""
        ...

    @property
    def problems(self) -> Sequence[str]: ...


class ModelControl(Protocol):
    """What people look up and decide about models; `learning` stands beside this room. Raises AgentsError."""

    def versions(self) -> list[dict[str, Any]]: ...

    def version(self, name: str) -> dict[str, Any]: ...

    def diff(self, old: str, new: str) -> dict[str, Any]: ...

    def history(self) -> list[dict[str, Any]]:
        """What was in production when, newest first."""
        ...

    def log(self, people_only: bool = False) -> list[dict[str, Any]]:
        """What became of models, oldest first."""
        ...

    def canary(self) -> dict[str, Any] | None: ...

    def decide(self, action: str, model_id: str, by: str, reason: str) -> ModelDecided: ...


class JobControl(Protocol):
    """Scheduled jobs and their pauses; `runtime` stands above this room. Raises AgentsError."""

    def jobs(self) -> list[dict[str, Any]]: ...

    def pause(self, name: str, author: str, reason: str) -> None: ...

    def resume(self, name: str) -> None: ...


class StageControl(Protocol):
    """Files of staging; `learning` stands beside this room. Raises AgentsError, OSError."""

    def files(self) -> list[dict[str, Any]]: ...

    def path(self, name: str) -> Path: ...

    def export(self, model_id: str, by: str, reason: str) -> ModelDecided: ...

    def take(self, name: str, by: str, reason: str) -> ModelDecided: ...


class LearntModels(Protocol):
    """Versions of what cycles learn; `learning` stands beside this room. Raises AgentsError. kind: of LEARNT_NAMES."""

    def versions(self, kind: str) -> list[dict[str, Any]]: ...

    def version(self, kind: str, name: str) -> dict[str, Any]: ...

    def diff(self, kind: str, old: str, new: str) -> dict[str, Any]: ...

    def history(self, kind: str) -> list[dict[str, Any]]:
        """What was in production when, newest first."""
        ...

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What became of them, oldest first."""
        ...

    def decide(self, kind: str, action: str, model_id: str, by: str, reason: str) -> ModelDecided:
        """approve or reject what waits; rollback to a version, anchor, pin or unpin."""
        ...

    def take_back(self, kind: str, reason: str, author: str) -> str:
        """Use the model before this one again; its id."""
        ...


@dataclass(frozen=True)
class Parts:
    """Collaborators of the application.

    `retrain` starts a retraining without waiting for it and returns its run id; BusyError while one runs. `health`
    returns the state of each component as {"ok": bool, …}, except the database, which is asked here; `inside` those
    with names of servers, which only people who have logged in see. `metrics`
    returns the numbers of /metrics, `send_test` sends a harmless message over every channel, `week` says what was
    heard, left out and missed in a span of days, `last_hour` has rates, `hosts` says which hosts on a bus run which
    model. `reviews` is the review queue, `learner` the online learner, `cycles` where cycles of the sequence model are
    asked for, `blocks` what is blocked, `desk` what is decided about models, `staging` their files for other
    installations, `jobs` what runs by the calendar, `learnt` the versions of what cycles learn, `console` what people
    at the console keep and look for, `flows` what flow-hours say, `hunts` what answers hunts over months, `known` this
    network's own known services, `in_force` the settings: name, value without secrets, where it came from; `fleet`
    what coordinates other sites, `fleet_site` what this one is to a fleet; `people` who may log in, `oidc` the provider
    through which they do, `public_url` the console's address as people see it.
    """

    store: ReadStore
    models: ModelList
    reports_dir: Path
    token: str = field(repr=False)
    retrain: Callable[[], str]
    reviews: ReviewStore
    learner: FlowLearner
    blocks: BlockBook
    desk: ModelControl
    learnt: LearntModels
    cycles: CycleDesk
    console: ConsoleStore
    flows: FlowQuestions
    known: KnownDesk
    people: PeopleStore
    health: Callable[[], Mapping[str, Mapping[str, Any]]] = _no_health
    inside: Callable[[], Mapping[str, Mapping[str, Any]]] = _no_health
    metrics: Callable[[], Iterable[Metric]] = _no_metrics
    in_force: Callable[[], Iterable[tuple[str, str, str]]] = _no_settings
    send_test: Callable[[], Sequence[ChannelResult]] = _no_channels
    week: Callable[[float, float], Mapping[str, Any]] = _no_week
    hosts: Callable[[], Mapping[str, Any]] = _no_hosts
    last_hour: LastHour = field(default_factory=LastHour)
    version: str = "0"
    hunts: MonthHunter | None = None
    staging: StageControl | None = None
    jobs: JobControl | None = None
    fleet: FleetDesk | None = None
    fleet_site: FleetMember | None = None
    oidc: OidcProvider | None = None
    public_url: str = ""

    @property
    def in_fleet(self) -> bool:
        """Whether a fleet is set up here, as its coordinator or as a site."""
        return any(one is not None and one.is_set_up() for one in (self.fleet, self.fleet_site))

    @cached_property
    def database(self) -> Probe[Mapping[str, Any]]:
        """Asks whether the database answers."""
        return Probe(lambda: database_state(self.store), STATE_S)

    def database_hangs(self, wait_s: float) -> bool:
        """Whether the database gives no sign of life: a question would take long. One that is away gives one."""
        try:
            self.database.answer().result(wait_s)
        except (TimeoutError, AgentsError):
            return True
        return False

    def database_must_answer(self, wait_s: float) -> None:
        """Raise StoreError where `database_hangs`: what needs it would take as long as the database may take."""
        if self.database_hangs(wait_s):
            raise StoreError("cannot reach the database: it gives no answer")

    @cached_property
    def processes(self) -> Probe[Mapping[str, Mapping[str, Any]]]:
        """Asks for `health`, which reads files: a disk may hang, too."""
        return Probe(self.health)

    @cached_property
    def inside_probe(self) -> Probe[Mapping[str, Mapping[str, Any]]]:
        """Asks for `inside`, which reads files, too."""
        return Probe(self.inside)


def parts_of(request: Request) -> Parts:
    """The parts of the application that answers this request."""
    return cast(Parts, request.app.state.parts)
