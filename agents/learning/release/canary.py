"""The roll-out of a canary: its terms, the rules that stop it, and its end without a person."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import structlog

from agents.core.errors import AgentsError, BusyError, ModelError, StoreError
from agents.core.files import PRIVATE_MODE, write_atomic
from agents.core.npz import FormatError
from agents.core.protocols import Field, Spec, Within
from agents.core.text import counted, printable
from agents.core.types import Incident, QueryBatch, Verdicts
from agents.detection.rollout.canary import Canary, CanaryCounts, ComparedDetector, counts_of
from agents.learning.registry import ModelRegistry
from agents.learning.release.transitions import Author, Transition
from agents.learning.repeating import RepeatingThread
from agents.scoring.model import Model

CANARY_FILE = "canary.json"
"""What was seen of a canary so far, in the folder of the detector's state."""
DETECTOR_FOLDERS = "detector-*-of-*"
SAVE_S = 10.0
"""How often that is written down: kill -9 loses at most so much of it."""
ROLLOUT_LOOK_S = 15.0
"""How often the rules are asked."""
ALERTS_FREE = 3
"""Alerts that a candidate may have beyond the bound: of few, a share says nothing."""
TIMED_MIN = 1_000
"""With fewer names that both models scored, their time is not compared."""
JUDGED_SHARE = 0.25
"""In so many of its hours a canary must have judged something: a machine that was off proves nothing."""
LATE = 2
"""After so many times its hours, a canary that has seen too little ends."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CanaryTerms:
    """The settings CANARY_…; they are written down when a canary begins, and hold until it ends."""

    mode: str = "judge"
    share: float = 0.1
    hours: float = 48.0
    queries_min: int = 1_000
    false_alarms: int = 2
    alert_rise: float = 1.0
    latency_us: float = 50.0


SPEC: Spec[CanaryTerms] = Spec(
    "canary",
    "canaries: candidates that judge some clients beside the model in use (DEPLOY=canary)",
    (
        Field(
            "canary_mode",
            Literal["judge", "shadow"],
            "judge",
            "judge = a share of the clients, and what the candidate alone finds is told; shadow = all, only counted",
        ),
        Field("canary_share", float, 0.1, "share of the clients that a canary judges", Within(0.001, 1)),
        Field("canary_hours", float, 48.0, "hours until a canary is promoted, if no rule stops it", Within(0.01, 8760)),
        Field(
            "canary_queries_min",
            int,
            1_000,
            "queries that a canary must have judged; with fewer it goes on, at most for twice its hours",
            Within(0, 1_000_000_000),
        ),
        Field(
            "canary_false_alarms",
            int,
            2,
            "domains that only the candidate alerts of and that people label benign, at which a canary is stopped",
            Within(1, 1_000_000),
        ),
        Field(
            "canary_alert_rise",
            float,
            1.0,
            "alerts of a canary beyond those of the model in use at the same clients, as a share of them, and 3 more",
            Within(0, 1000),
        ),
        Field(
            "canary_latency_us",
            float,
            50.0,
            "microseconds that a canary may take longer to score a name than the model in use",
            Within(0, 1e6),
        ),
    ),
    lambda values: CanaryTerms(**{name.removeprefix("canary_"): value for name, value in values.items()}),
)


class Ending(NamedTuple):
    """How a canary ends, and why. kept: the same without names of domains and people, where the reason has some."""

    promote: bool
    reason: str
    kept: str = ""


def ending_of(
    terms: CanaryTerms, counts: CanaryCounts, false_alarms: Mapping[str, str], now: float, alone: bool = False
) -> Ending | None:
    """How a canary ends by now (Unix seconds); None: it goes on. false_alarms: by domain, who labelled it benign.

    alone: no model is in use beside which its alerts would be many or few.
    """
    if len(false_alarms) >= terms.false_alarms:
        named = ", ".join(f"{printable(domain, 60)} (by {printable(by, 40)})" for domain, by in false_alarms.items())
        said = f"people called {counted(len(false_alarms), 'alert')} false"
        return Ending(False, f"{said}: {named}", said)
    champion, candidate = len(counts.champion_alerts), len(counts.candidate_alerts)
    most = champion * (1 + terms.alert_rise) + ALERTS_FREE
    if candidate > most and not alone:
        return Ending(False, f"{counted(candidate, 'alert')}, at most {most:g} beside {champion} of the model in use")
    slower = (counts.candidate_s - counts.champion_s) * 1e6 / max(counts.timed, 1)
    if counts.timed >= TIMED_MIN and slower > terms.latency_us:
        return Ending(
            False, f"it takes {slower:.0f} µs a name longer than the model in use, at most {terms.latency_us:g}"
        )
    spent_h = (now - counts.begun_at) / 3600
    if spent_h < terms.hours:
        return None
    seen = f"{counted(counts.queries, 'query')} in {spent_h:.1f} hours"
    if counts.queries >= terms.queries_min and len(counts.hours) >= JUDGED_SHARE * terms.hours:
        beside = "and no model in use before it" if alone else f"beside {champion} of the model in use"
        return Ending(True, f"{seen}, {counted(candidate, 'alert')} {beside}")
    if spent_h >= LATE * terms.hours:
        needed = f"{terms.queries_min:,} are needed, in {JUDGED_SHARE * terms.hours:.0f} different hours"
        return Ending(False, f"it saw only {seen} ({counted(len(counts.hours), 'hour')} with queries), {needed}")
    return None


def read_counts(path: Path, model_id: str, begun_at: float) -> CanaryCounts:
    """What was seen of this canary so far."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        found = None
    return counts_of(found, model_id, begun_at)


def summed_counts(path: Path, model_id: str, begun_at: float) -> CanaryCounts:
    """What was seen of this canary by all detectors: each of several has a folder of its own beside the file of one."""
    counts = read_counts(path, model_id, begun_at)
    for one in sorted(path.parent.glob(f"{DETECTOR_FOLDERS}/{path.name}")):
        counts = counts.plus(read_counts(one, model_id, begun_at))
    return counts


class CanaryTrial:
    """What runs a canary in the process that judges. detector_of: with the candidate, nothing seen yet."""

    def __init__(
        self,
        registry: ModelRegistry[Model],
        main: ComparedDetector,
        detector_of: Callable[[Model], ComparedDetector],
        path: Path,
    ) -> None:
        self._registry, self._main, self._detector_of, self._path = registry, main, detector_of, path
        self._canary: Canary | None = None
        self._known: tuple[str, float] | None = None  # of the row that was looked at last
        self._saved, self._looked = 0.0, False
        self._left: list[Incident] = []  # open when the process stopped, of a canary alone

    def resume(self, incidents: Sequence[Incident]) -> list[Incident]:
        """Take those that a canary alone had when the process stopped; returns the others."""
        self._left += [one for one in incidents if "canary" in one.evidence]
        return [one for one in incidents if "canary" not in one.evidence]

    def judge(self, batch: QueryBatch, verdicts: Verdicts, busy: bool = False) -> Verdicts:
        """The verdicts with what a canary adds, if one runs. busy: under load it leaves batches out."""
        if self._canary is None:
            return verdicts
        self._resume_own()
        if busy:
            self._canary.skip(batch)
            return verdicts
        return self._canary.judge(batch, verdicts, self._main)

    def tick(self, now: float) -> tuple[Incident, ...]:
        """What changes without queries. The caller holds what judging needs."""
        return tuple(self._canary.tick(now, self._main)) if self._canary is not None else ()

    def forget(self, client: str) -> None:
        """Drop all that is known of a client. The caller holds what judging needs."""
        self._left = [one for one in self._left if one.client != client]
        if self._canary is not None:
            self._canary.forget(client)

    def poll(self, lock: AbstractContextManager[Any]) -> tuple[Incident, ...]:
        """Begin or end a canary as the registry says; incidents to be told then. lock: what judging needs."""
        try:
            row = self._registry.canary()
        except ModelError as error:
            _log.warning("canary_not_read", error=str(error))
            return ()
        wanted = (str(row["model_id"]), float(row["begun_at"])) if row is not None else None
        told: tuple[Incident, ...] = ()
        if wanted != self._known or not self._looked:
            self._known, self._looked = wanted, True
            with lock:
                told = self._end()
            if row is not None:
                self._begin(row, lock)
        with lock:
            told += self._take_left()
        self._save()
        return told

    def _take_left(self) -> tuple[Incident, ...]:
        """Give a canary back what it had; what was another's is closed."""
        self._resume_own()
        left, self._left = self._left, []
        return tuple(replace(one, closed_at=one.last_seen) for one in left)

    def _resume_own(self) -> None:
        if self._left and self._canary is not None:
            own = [one for one in self._left if one.evidence["canary"] == self._canary.model_id]
            self._canary.resume(own)
            self._left = [one for one in self._left if one not in own]

    def _begin(self, row: Mapping[str, Any], lock: AbstractContextManager[Any]) -> None:
        terms = terms_of(row)
        try:
            model = self._registry.get(str(row["model_id"]))
            counts = read_counts(self._path, model.model_id, float(row["begun_at"]))
            canary = Canary(self._detector_of(model), terms.share, terms.mode == "shadow", counts)
            files = self._main.save(lock)
            with lock:
                canary.take_over(self._main, files)
                self._canary = canary
        except (AgentsError, FormatError, OSError) as error:
            _log.error("canary_not_begun", model_id=row["model_id"], error=str(error))
            return
        _log.info("canary_begun", model_id=model.model_id, mode=terms.mode, share=terms.share, queries=counts.queries)
        self._save(at_once=True)

    def _end(self) -> tuple[Incident, ...]:
        canary, self._canary = self._canary, None
        if canary is None:
            return ()
        promoted = self._registry.current().model_id == canary.model_id
        _log.info("canary_ended", model_id=canary.model_id, promoted=promoted, **canary.counts.summary())
        return canary.end(self._main, promoted)

    def _save(self, at_once: bool = False) -> None:
        if self._canary is None or not (at_once or time.monotonic() - self._saved >= SAVE_S):
            return
        self._saved = time.monotonic()
        try:
            write_atomic(self._path, json.dumps(self._canary.counts.to_json()).encode(), mode=PRIVATE_MODE, sync=False)
        except OSError as error:
            _log.warning("state_not_saved", file=CANARY_FILE, error=str(error))

    def close(self) -> None:
        """Write down what was seen."""
        self._save(at_once=True)


def terms_of(row: Mapping[str, Any]) -> CanaryTerms:
    """The terms in a canary's row of the registry."""
    names = CanaryTerms.__dataclass_fields__
    return CanaryTerms(**{name: value for name, value in row.get("terms", {}).items() if name in names})


class OpenTrial(NamedTuple):
    """A trial that runs. row: its model_id, champion, begun_at (Unix seconds) and terms, as they were written down."""

    row: Mapping[str, Any]
    counts: CanaryCounts

    @property
    def begun_at(self) -> float:
        """Unix seconds."""
        return float(self.row["begun_at"])

    @property
    def champion(self) -> str:
        """The id of the model that was in use when it began; "" = none was."""
        return str(self.row["champion"])


Ended = TypeVar("Ended")


@dataclass(frozen=True, kw_only=True)
class TrialRollout(ABC, Generic[Ended]):
    """Ends trials by their rules, in the process of the scheduler. A subclass knows where trials of its kind lie.

    benign: domains that people labelled benign since a time, with who did. doubt: why the clock is not believed, ""
    where it is.
    """

    benign: Callable[[float], Mapping[str, str]]
    clock: Callable[[], float] = time.time
    doubt: Callable[[], str] = str

    def look(self) -> Ended | None:
        """End the trial if its rules say so; what was done. Raises AgentsError, OSError."""
        trial, now = self._open(), self.clock()
        if trial is None:
            return None
        if now < trial.begun_at:  # the clock was set back: its time begins anew
            self._restart(now)
            return None
        ending = self._overtaken(trial) or self._by_rules(trial, now)
        return self._end(trial, ending, now) if ending is not None else None

    def _by_rules(self, trial: OpenTrial, now: float) -> Ending | None:
        """Nothing is promoted while the database is away, or the clock is doubted."""
        counts = trial.counts
        named, away = self._labelled(trial.begun_at) if counts.domains else ({}, False)
        false_alarms = {one: named[one] for one in counts.domains if one in named}
        ending = ending_of(terms_of(trial.row), counts, false_alarms, now, alone=not trial.champion)
        return None if ending is not None and ending.promote and (away or self.doubt() or self._held()) else ending

    def _held(self) -> bool:
        """Whether a person wants the model in use to stay."""
        return False

    def _labelled(self, since: float) -> tuple[Mapping[str, str], bool]:
        """Domains that people called benign; and whether the database is away, which says nothing for the candidate."""
        try:
            return self.benign(since), False
        except StoreError as error:
            _log.warning("labels_not_read", error=str(error))
            return {}, True

    @abstractmethod
    def _open(self) -> OpenTrial | None:
        """The trial that runs; None: none does."""

    @abstractmethod
    def _restart(self, now: float) -> None:
        """Let its time begin anew."""

    @abstractmethod
    def _overtaken(self, trial: OpenTrial) -> Ending | None:
        """How it ends because of what people did meanwhile, whatever the rules say; None: nothing ends it."""

    @abstractmethod
    def _end(self, trial: OpenTrial, ending: Ending, now: float) -> Ended | None:
        """End it so; None: it was ended meanwhile."""


@dataclass(frozen=True)
class Rollout(TrialRollout[Transition]):
    """Ends canaries of query models. follow: tells what became of a model."""

    registry: ModelRegistry[Model]
    counts_path: Path
    follow: Callable[[Transition], object]

    def _open(self) -> OpenTrial | None:
        row = self.registry.canary()
        if row is None:
            return None
        return OpenTrial(row, summed_counts(self.counts_path, str(row["model_id"]), float(row["begun_at"])))

    def _restart(self, now: float) -> None:
        self.registry.restart_canary(now)

    def _overtaken(self, trial: OpenTrial) -> Ending | None:
        in_use = self.registry.current().model_id
        if in_use == trial.champion:
            return None
        return Ending(False, f"the model in use is {in_use} by now, not {trial.champion}")

    def _end(self, trial: OpenTrial, ending: Ending, now: float) -> Transition:
        made = self.registry.end_canary(ending.promote, Author("its rules", ending.reason), now)
        self.registry.note(
            made.model_id, {"canary": trial.counts.summary() | {"promoted": ending.promote, "why": ending.reason}}
        )
        self.follow(made)
        return made


def canary_state(registry: ModelRegistry[Model], counts_path: Path, now: float) -> dict[str, Any] | None:
    """A canary that runs, for people and programs; None: none runs. Raises ModelError."""
    row = registry.canary()
    if row is None:
        return None
    terms, begun_at = terms_of(row), float(row["begun_at"])
    counts = summed_counts(counts_path, str(row["model_id"]), begun_at)
    return {
        "model_id": row["model_id"],
        "champion": row.get("champion", ""),
        "begun_at": begun_at,
        "ends_at": begun_at + terms.hours * 3600,
        "elapsed_s": max(now - begun_at, 0.0),
        "terms": asdict(terms),
        "seen": counts.summary(),
    }


class RolloutThread(RepeatingThread):
    """Asks the rules again and again; what goes wrong is logged, once."""

    def __init__(self, rollout: TrialRollout[Any], name: str = "rollout") -> None:
        super().__init__(name, ROLLOUT_LOOK_S, ROLLOUT_LOOK_S)
        self._rollout, self._said = rollout, ""

    def step(self) -> None:
        """One look at the rules."""
        try:
            self._rollout.look()
        except BusyError:  # a retraining is under way; the rules hold afterwards, too
            return
        except (AgentsError, OSError) as error:
            if str(error) != self._said:
                self._said = str(error)
                _log.warning("rollout_not_looked_at", error=str(error))
        else:
            self._said = ""
