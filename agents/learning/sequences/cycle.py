"""A live cycle: collect for some minutes, build windows, train, validate, deploy, delete what was collected, and again.

What is collected lies in the memory of the process that judges, as hashes and numbers, and nowhere else. People ask for
a cycle over a file, and read its state from another: page, API and command line are other processes.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, Field, ValidationError

from agents.core.errors import AgentsError, BusyError, UsageError
from agents.core.files import PRIVATE_MODE, make_private_folder, write_atomic
from agents.core.types import Message, Verdicts
from agents.learning.messages import sequence_message
from agents.learning.sequences.bounds import USUAL_SEQUENCES
from agents.learning.sequences.history import NEWEST_LOOKED_AT, EndedCycle
from agents.learning.sequences.learnable_windows import Doubts, HeardSteps, learnable_windows, nothing_doubted
from agents.learning.sequences.learning import LearntSequences, SequenceModels
from agents.learning.sequences.steps import HeardPart, heard_part

ASK_FILE, STATE_FILE = "sequence_cycle.ask.json", "sequence_cycle.json"
HEARD_MAX = 500_000
"""Queries that a cycle collects, at most: some 20 MB. Then it goes on to train."""
MINUTES, LENGTH, EPOCHS = (1, 60), (5, 50), (5, 50)
"""Bounds of what a cycle may be asked for."""
STALE_S = 15.0
"""A state that is older than this was left by a process that is gone."""
_UNDER_WAY = "a training is under way: ask again when it has ended"
_log = structlog.get_logger("agents.learning.sequences")


class CyclePhase(StrEnum):
    """What a cycle is doing, or how the last one ended."""

    IDLE = "idle"
    COLLECTING = "collecting"
    TRAINING = "training"
    DEPLOYED = "deployed"
    CANARY = "canary"
    WAITING = "waiting"
    REJECTED = "rejected"
    FAILED = "failed"
    STOPPED = "stopped"


class CycleAsk(BaseModel):
    """What people ask for. again: begin anew after each end; number: a new one for each request."""

    action: str = Field(default="start", pattern="^(start|train|stop)$")
    minutes: float = Field(default=10, ge=MINUTES[0], le=MINUTES[1])
    length: int = Field(default=10, ge=LENGTH[0], le=LENGTH[1])
    epochs: int = Field(default=10, ge=EPOCHS[0], le=EPOCHS[1])
    again: bool = False
    number: str = ""


class CycleState(BaseModel):
    """What there is to see of cycles. Times are Unix seconds; ask, refused: the number of the request that it answers,
    and of the last one that was not taken up."""

    phase: CyclePhase = CyclePhase.IDLE
    minutes: float = 10
    length: int = 10
    epochs: int = 10
    again: bool = False
    began_at: float | None = None
    remaining_s: float = 0
    collected: int = 0
    clients: int = 0
    windows: int = 0
    cycles: int = 0
    model_id: str = ""
    text: str = ""
    at: float = 0
    ask: str = ""
    refused: str = ""


def checked_ask(**asked: object) -> CycleAsk:
    """A new request. Raises UsageError."""
    try:
        return CycleAsk.model_validate({**asked, "number": secrets.token_hex(8)})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"cannot begin a cycle: {first['loc'][0]}: {first['msg'].lower()}") from None


def _before(state_dir: Path) -> dict[str, object]:
    """The request that lies there; {} where there is none."""
    try:
        found = CycleAsk.model_validate_json((state_dir / ASK_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found.model_dump(exclude={"action", "number"})


def ask_cycle(state_dir: Path, **asked: object) -> CycleAsk:
    """Ask the process that judges for a cycle, for its training now, or for its end. Raises UsageError."""
    if asked.get("action") == "train":  # what was asked for before holds on
        asked = _before(state_dir) | asked
    ask = checked_ask(**asked)
    make_private_folder(state_dir)
    write_atomic(state_dir / ASK_FILE, ask.model_dump_json().encode(), mode=PRIVATE_MODE)
    return ask


def read_cycle(state_dir: Path, now: float) -> CycleState:
    """The state of cycles; idle where none was ever, or where the process that ran one is gone. now: Unix seconds."""
    try:
        state = CycleState.model_validate_json((state_dir / STATE_FILE).read_bytes())
    except (OSError, ValueError):
        return CycleState()
    if state.phase in (CyclePhase.COLLECTING, CyclePhase.TRAINING) and abs(now - state.at) > STALE_S:
        return state.model_copy(update={"phase": CyclePhase.FAILED, "text": "the process that ran it is gone"})
    return state


@dataclass(frozen=True, slots=True)
class CycleRequests:
    """Where other processes ask for cycles, and see how they go: a core.protocols.CycleDesk.

    unable: why nothing would take up a request now; "" = something will.
    """

    state_dir: Path
    models: SequenceModels
    unable: Callable[[], str] = lambda: ""

    def state(self) -> dict[str, Any]:
        """The state, as JSON values."""
        return read_cycle(self.state_dir, time.time()).model_dump(mode="json")

    def history(self, limit: int) -> list[dict[str, Any]]:
        """Cycles that came to their end, newest first, as JSON values."""
        return [one.model_dump(mode="json") for one in self.models.history.newest(limit)]

    def ask(self, action: str, **chosen: Any) -> str:
        """Ask for something; the number of the request. Raises UsageError, BusyError where nothing would take it up.

        An end is asked for all the same, so that no cycle begins again after a restart.
        """
        checked_ask(action=action, **chosen)
        if action != "stop" and (why := self.unable()):
            raise BusyError(f"cannot {'begin a cycle' if action == 'start' else action}: {why}")
        return ask_cycle(self.state_dir, action=action, **chosen).number

    def ended(self, number: str) -> dict[str, Any] | None:
        """How the cycle of a request ended, as JSON values; None as long as it has not. Raises AgentsError."""
        found = next((one for one in self.models.history.newest(NEWEST_LOOKED_AT) if one.ask == number), None)
        if found is not None:
            return found.model_dump(mode="json")
        state = read_cycle(self.state_dir, time.time())
        if state.refused == number:
            raise AgentsError(f"cannot run a cycle: {_UNDER_WAY}")
        if state.phase is CyclePhase.FAILED and state.ask == number:
            raise AgentsError(f"cannot run a cycle: {state.text}")
        if state.phase is CyclePhase.STOPPED and state.ask == number:
            raise AgentsError("cannot run a cycle to its end: it was stopped")
        return None


@dataclass(frozen=True, slots=True)
class CycleParts:
    """learn: windows and epochs to a model; in another process where this one judges. Raises AgentsError.

    tell: sends a message over every channel. doubts: what must not be learnt. needed: windows that a training needs."""

    models: SequenceModels
    learn: Callable[..., LearntSequences]
    clock: Callable[[], float] = time.time
    tell: Callable[[Message], object] = lambda message: None
    doubts: Doubts = nothing_doubted
    needed: int = USUAL_SEQUENCES.windows_min


class SequenceCycle:
    """Runs cycles in the process that judges. `see` is called with each batch, `tick` about once a second."""

    def __init__(self, state_dir: Path, parts: CycleParts) -> None:
        self._dir, self._parts = state_dir, parts
        self._guard, self._writing = threading.Lock(), threading.Lock()
        self._parts_heard: list[HeardPart] = []
        self._numbers: dict[str, int] = {}
        self._key = (0, 0)
        self._state = CycleState()
        self.collecting = False
        """Whether batches are wanted."""
        self._asked = self._number()
        self._thread: threading.Thread | None = None

    def _number(self) -> str:
        """The request that was taken up already; one that begins again goes on after a restart."""
        ask = self._ask()
        return "" if ask is None or (ask.again and ask.action != "stop") else ask.number

    def _ask(self) -> CycleAsk | None:
        try:
            return CycleAsk.model_validate_json((self._dir / ASK_FILE).read_bytes())
        except (OSError, ValueError):
            return None

    @property
    def state(self) -> CycleState:
        """What there is to see."""
        return self._state

    def see(self, verdicts: Verdicts) -> None:
        """Collect a batch, if a cycle collects."""
        if not self.collecting or not len(verdicts):
            return
        with self._guard:
            self._parts_heard.append(heard_part(verdicts, self._numbers, self._key))
            collected = self._state.collected + len(verdicts)
            self._state = self._state.model_copy(update={"collected": collected, "clients": len(self._numbers)})

    def tick(self) -> None:
        """Take up what people ask, and go on when the time has come. What goes wrong is said in the state."""
        ask, now = self._ask(), self._parts.clock()
        if ask is not None and ask.number != self._asked:
            self._asked = ask.number
            self._take(ask, now)
        state = self._state
        if state.phase is CyclePhase.COLLECTING and state.began_at is not None:
            began = min(state.began_at, now)  # the clock may have been set back
            left = max(began + state.minutes * 60 - now, 0.0)
            self._note(began_at=began, remaining_s=round(left, 1))
            if left == 0 or state.collected >= HEARD_MAX:
                self._train()
        elif state.phase is CyclePhase.TRAINING:
            self._note()

    def _take(self, ask: CycleAsk, now: float) -> None:
        busy = self._state.phase is CyclePhase.TRAINING and self._thread is not None and self._thread.is_alive()
        if ask.action == "stop":
            self._drop()
            self._note(phase=CyclePhase.TRAINING if busy else CyclePhase.STOPPED, again=False, remaining_s=0, text="")
        elif ask.action == "train":
            if self._state.phase is CyclePhase.COLLECTING:
                self._train()
            elif ask.again and self._state.phase is CyclePhase.IDLE:  # after a restart
                self._begin(ask, now)
        elif busy:
            self._note(text=_UNDER_WAY, refused=ask.number)
        else:
            self._begin(ask, now)

    def _begin(self, ask: CycleAsk, now: float, text: str = "") -> None:
        self._drop()
        chosen = {name: getattr(ask, name) for name in ("minutes", "length", "epochs", "again")} | {"ask": ask.number}
        fresh = {
            "began_at": now,
            "remaining_s": ask.minutes * 60,
            "collected": 0,
            "clients": 0,
            "windows": 0,
            "text": text,
        }
        self._note(phase=CyclePhase.COLLECTING, **chosen, **fresh)

    def forget(self, client: str) -> None:
        """A client is to be forgotten: what was collected cannot be told apart, so it goes, and collecting goes on."""
        if client in self._numbers:
            self._drop()
            self._note(collected=0, clients=0)

    def _drop(self) -> None:
        """Delete what was collected; the next one has other hashes."""
        with self._guard:
            self._parts_heard, self._numbers = [], {}
            self._key = (secrets.randbits(64), secrets.randbits(64))

    def _train(self) -> None:
        with self._guard:
            heard = HeardSteps(self._parts_heard, self._numbers, self._key)
        self._drop()
        self._note(phase=CyclePhase.TRAINING, remaining_s=0)
        work = threading.Thread(target=self._learn, args=(heard,), name="sequence-cycle", daemon=True)
        self._thread = work
        work.start()

    def _learn(self, heard: HeardSteps) -> None:
        state, models, clock = self._state, self._parts.models, self._parts.clock
        facts = {name: getattr(state, name) for name in ("minutes", "length", "epochs", "collected", "clients", "ask")}
        cycle, trained = EndedCycle(began_at=state.began_at or clock(), decision="failed", **facts), 0
        listed: Mapping[str, Any] = {}
        try:
            windows = learnable_windows(heard, state.length, self._parts.doubts, self._parts.needed)
            heard.clear()
            trained = len(windows)
            self._note(windows=trained)
            with models.training():
                found = self._parts.learn(windows, state.epochs, models.current())
            ended, listed = models.end(self._timed(cycle, trained), found, clock()), found.listed
        except (AgentsError, OSError) as error:
            ended = models.failed(self._timed(cycle, trained).model_copy(update={"reason": str(error)}), clock())
        _log.info("sequence_cycle_ended", decision=ended.decision, model_id=ended.model_id, reason=ended.reason)
        said = {"model_id": ended.model_id} if ended.model_id else {}
        self._note(phase=CyclePhase(ended.decision), text=ended.reason, **said, cycles=self._state.cycles + 1)
        self._tell(ended, listed)
        if (
            self._state.again and self._state.ask == state.ask
        ):  # also after one that failed: the next hour may have more to learn from
            last = f"the cycle before {ended.decision}: {ended.reason}".removesuffix(": ")
            ask = CycleAsk(**{name: getattr(state, name) for name in ("minutes", "length", "epochs")}, again=True)
            self._begin(ask, clock(), last)

    def _timed(self, cycle: EndedCycle, trained: int) -> EndedCycle:
        spent = max(self._parts.clock() - cycle.began_at, 0.0)
        return cycle.model_copy(update={"trained": trained, "seconds": round(spent, 3)})

    def _tell(self, ended: EndedCycle, listed: Mapping[str, Any]) -> None:
        """Send what came of a cycle; of those that begin again and again, only where it is another than before."""
        before = next((one.decision for one in self._parts.models.history.newest(2) if one.number != ended.number), "")
        if not self._state.again or before != ended.decision:
            self._parts.tell(sequence_message(ended.model_dump(mode="json") | {"listed": listed}))

    def _note(self, **changes: object) -> None:
        """Change the state, and let others see it."""
        with self._writing:  # the newest state is what stands in the file
            with self._guard:
                self._state = self._state.model_copy(update={**changes, "at": self._parts.clock()})
                state = self._state
                self.collecting = state.phase is CyclePhase.COLLECTING
            try:
                write_atomic(self._dir / STATE_FILE, state.model_dump_json().encode(), mode=PRIVATE_MODE, sync=False)
            except OSError as error:
                _log.warning("state_not_saved", file=STATE_FILE, error=str(error))
