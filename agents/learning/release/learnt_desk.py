"""What people decide about what cycles learn, whatever kind it is: from command line, API and pages alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from agents.core.errors import BusyError, StoreError, UsageError
from agents.core.files import locked_within
from agents.core.text import printable
from agents.core.types import ChannelResult, Message
from agents.learning.loop.online import CycleState
from agents.learning.messages import transition_message
from agents.learning.release.approvals import deciding_author
from agents.learning.release.desk import Decided
from agents.learning.release.learnt import LearntVersions
from agents.learning.release.learnt_registry import LearntRegistry
from agents.learning.release.transitions import Author
from agents.learning.sequences.on_trial import SequenceCanary

LEARNT_ACTIONS = ("approve", "reject", "rollback", "anchor", "pin", "unpin")
CANARY_WAIT_S = 2.0
"""A decision waits so long for the rules of a trial."""
_log = structlog.get_logger()


@dataclass(frozen=True)
class LearntDesk(LearntVersions):
    """Decisions are carried out in the folder of the kind and noted in its history; then the channels are told.

    tell: sends a message over every channel.
    """

    tell: Callable[[Message], Sequence[ChannelResult]] = lambda message: ()

    def decide(self, kind: str, action: str, model_id: str, by: str, reason: str) -> Decided:
        """approve or reject what waits (model_id: "" = that one), or the sequence model on trial; rollback to a version
        that is kept ("" = the one before), anchor, pin or unpin the one in use.

        Raises UsageError, ModelError, BusyError, StoreError, OSError.
        """
        registry = self.registry(kind)
        if action not in LEARNT_ACTIONS:
            raise UsageError(f"cannot {printable(action)} {registry.name}s: {', '.join(LEARNT_ACTIONS)}")
        author, voters = deciding_author(self.learner.store, registry.terms.approvals, action, by, reason)
        if action == "rollback":
            path = self._named(kind, model_id).path if model_id else None
            self.take_back(kind, reason, author.by, path)
        elif action == "anchor":
            self._set_anchor(kind, registry, model_id, author)
        elif action in ("pin", "unpin"):
            (registry.pin if action == "pin" else registry.unpin)(author)
        else:
            self._end_waiting(kind, action, registry, model_id, author, voters)
        return self._followed(registry, told=action == "rollback" and kind == "flow")

    def _followed(self, registry: LearntRegistry[Any], told: bool) -> Decided:
        """Tell the channels what was decided, unless they were told."""
        registry.drop_facts()
        made = registry.transitions()[-1]
        sent = () if told else self.tell(transition_message(made, registry.name))
        problems = [one.error for one in sent if not one.ok]
        for problem in problems:
            _log.warning("transition_not_told", model_id=made.model_id, action=made.action, error=problem)
        return Decided(made, tuple(problems))

    def _set_anchor(self, kind: str, registry: LearntRegistry[Any], model_id: str, author: Author) -> None:
        """Compare candidates with a version that is kept from now on."""
        if not model_id:
            raise UsageError("cannot set the anchor: name a version")
        path = self._named(kind, model_id).path
        if self.images is not None and kind == "images":
            self.images.must_be_of_type(registry.load(path.read_bytes()))
        with registry.lock(f"set the anchor of {registry.name}s"):
            registry.set_anchor(path, author)

    def _end_waiting(
        self,
        kind: str,
        action: str,
        registry: LearntRegistry[Any],
        model_id: str,
        author: Author,
        voters: frozenset[str] | None,
    ) -> None:
        """Approve or reject what waits, or is on trial."""
        with self._ending_trial(kind, model_id) as trial, registry.lock(f"{action} the {registry.name}"):
            chosen = model_id or registry.waiting()
            if not chosen:
                raise UsageError(f"cannot choose: no {registry.name} waits")
            if action == "approve":
                record = self._recorder(registry, CycleState.DEPLOYED, author, trial)
                registry.approve(chosen, author, voters, self.learner.clock(), record, trial)
            else:
                record = self._recorder(registry, CycleState.REJECTED, author, trial)
                registry.reject(chosen, author, record, trial)
            if trial is not None and registry.transitions()[-1].action == "approve":
                SequenceCanary(self.sequences.folder).end()

    def take_back(self, kind: str, reason: str, author: str, path: Path | None = None) -> str:
        """Use the model before this one of a kind again, or the one at a path; its id. What is labelled stays labelled.

        Raises UsageError where there is none before it, BusyError, ModelError, StoreError, OSError.
        """
        if kind == "flow":
            return str(self.learner.take_back(reason, author, path)["model_id"])
        if kind == "sequences":
            return self.sequences.take_back(reason, author, path)
        if self.images is None or kind != "images":
            raise UsageError(f"cannot take back a model of kind {printable(kind)}: there is no such kind here")
        return self.images.take_back(reason, author, path)

    @contextmanager
    def _ending_trial(self, kind: str, model_id: str) -> Iterator[bytes | None]:
        """The file of the sequence model on trial, if that is what is decided about; no rule ends it meanwhile.

        Raises BusyError.
        """
        canary = SequenceCanary(self.sequences.folder)
        if kind != "sequences" or canary.row() is None:
            yield None
            return
        try:
            lock = locked_within(canary.lock_path, CANARY_WAIT_S)
        except BlockingIOError:
            raise BusyError("cannot decide about the sequence model on trial: its rules are ending it") from None
        with lock:
            model = canary.model()
            yield model.to_bytes() if model is not None and model.model_id == model_id else None

    def _recorder(
        self, registry: LearntRegistry[Any], state: CycleState, author: Author, trial: bytes | None
    ) -> Callable[[], object]:
        """What notes a decision about the model that waits, or is on trial, in the history of its kind."""
        replaced = registry.in_use()

        def record() -> None:
            if registry.kind == "images":
                return  # its transitions are its history
            model = registry.load(registry.waiting_path.read_bytes() if trial is None else trial)
            if trial is not None and state is CycleState.REJECTED:
                SequenceCanary(self.sequences.folder).end()  # first: whoever is killed after it promotes nothing
            if registry.kind == "sequences":
                self.sequences.decided(str(state), model, author, replaced)
                return
            try:
                self.learner.decided(state, model, author)
            except StoreError as error:  # who is at the console decides, also while the database is away
                _log.warning("decision_not_recorded", model_id=model.model_id, error=str(error))

        return record
