"""A canary in the slots of a bus: in each slot that a process judges, the candidate judges beside the model in use.

What a slot's canary has seen is part of the slot's saved state. So a slot that is judged again counts the same once
more from where that state was, and nothing twice. Once a state is in force, its counts are put under a key of the slot,
where the host that deploys sums them; one with an older lease cannot put its counts over those of a newer one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from agents.core.errors import AgentsError, ModelError
from agents.core.npz import FormatError
from agents.core.types import Incident, QueryBatch, Verdicts
from agents.detection.rollout.canary import Canary, ComparedDetector, counts_of
from agents.detection.shared.slotted import SlottedDetector, slot_files_of
from agents.learning.release.canary import CANARY_FILE, CanaryTerms, terms_of
from agents.scoring.model import Model

SLOT_ALERTS_MAX, SLOT_DOMAINS_MAX = 1_000, 100
"""As ALERTS_MAX and DOMAINS_MAX of canaries, for one slot: its counts must fit into a message of the bus."""
_log = structlog.get_logger()


class CanaryModels(Protocol):
    """The folder of models, as what runs canaries needs it."""

    def canary(self) -> Mapping[str, Any] | None:
        """The canary that runs: model_id, begun_at (Unix seconds), terms; None if none does."""
        ...

    def get(self, model_id: str) -> Model:
        """A kept model."""
        ...

    def current(self) -> Model:
        """The model in use."""
        ...


@dataclass(frozen=True)
class Candidate:
    """The model on trial. begun_at: Unix seconds."""

    model: Model
    terms: CanaryTerms
    begun_at: float


@dataclass(slots=True)
class SlotCanary:
    """One slot. found: counts as its saved state had them when it was opened; saving: those of a state that is being
    saved; saved: of the state in force; told: as the key has them, telling: what is on its way there."""

    token: int
    found: bytes
    canary: Canary | None = None
    saving: bytes = b""
    saved: bytes = b""
    told: bytes = b""
    telling: tuple[bytes, Future[bool]] | None = None


class SlotCanaries:
    """A runtime.judging.trials.SlotTrial of the open slots of a detector.

    detector_of: a detector beside that of a slot, with the candidate, nothing seen yet. put: puts a slot's counts under
    its key, unless a process with a newer token has.
    """

    def __init__(
        self,
        registry: CanaryModels,
        detector: SlottedDetector,
        detector_of: Callable[[int, Model], ComparedDetector],
        put: Callable[[int, int, bytes], Future[bool]],
    ) -> None:
        self._registry, self._detector, self._detector_of, self._put = registry, detector, detector_of, put
        self._slots: dict[int, SlotCanary] = {}
        self._known: tuple[str, float] | None = None  # of the row that was looked at last
        self._looked = False
        self._candidate: Candidate | None = None
        self._left: list[Incident] = []  # open ones of a canary alone, as the database had them
        self._looking = threading.Lock()

    @property
    def candidate(self) -> str:
        """Id of the model that judges beside the one in use; "" = none does."""
        return self._candidate.model.model_id if self._candidate is not None else ""

    # slots

    def open_slot(self, slot: int, token: int, state: bytes, lock: AbstractContextManager[Any]) -> None:
        """Go on with a slot: the candidate begins with what the model in use knew there, and the counts go on."""
        try:
            files = slot_files_of(state) if state else {}
        except FormatError:  # the detector has said so
            files = {}
        found = files.get(CANARY_FILE, b"")
        with self._looking:
            if not self._looked:  # no message is judged before it is known who judges
                self._look(lock)
        with lock:
            self._slots[slot] = one = SlotCanary(token, found, saved=found)
            self._begin(slot, one, files)

    def close_slot(self, slot: int, lock: AbstractContextManager[Any]) -> None:
        """Judge in a slot no more; what it knew is in its saved state."""
        with lock:
            one = self._slots.pop(slot, None)
            self._left = [each for each in self._left if self._detector.slot_of(each.client) != slot]
        if one is not None:
            self._tell(slot, one)

    def saved_files(self, slot: int, lock: AbstractContextManager[Any]) -> Mapping[str, bytes]:
        """The counts; where none runs here, those that were found: it may run at the host that has the slot next."""
        one = self._slots[slot]
        with lock:
            one.saving = one.found if one.canary is None else json.dumps(one.canary.counts.to_json()).encode()
        return {CANARY_FILE: one.saving} if one.saving else {}

    def note_saved(self, slot: int) -> None:
        """The counts of the last `saved_files` are in force; the next `poll` tells them."""
        if (one := self._slots.get(slot)) is not None:
            one.saved = one.saving

    # judging

    def resume(self, incidents: Sequence[Incident]) -> list[Incident]:
        """Take those that a canary alone had; returns the others."""
        self._left += [one for one in incidents if "canary" in one.evidence]
        return [one for one in incidents if "canary" not in one.evidence]

    def judge(self, batch: QueryBatch, verdicts: Verdicts, busy: bool = False) -> Verdicts:
        """The verdicts on a batch of one slot, with what a canary adds. busy: under load it leaves batches out."""
        if self._candidate is None or not len(batch):
            return verdicts
        slot = self._detector.slot_of(batch.client[0])
        if (one := self._slots.get(slot)) is None or one.canary is None:
            return verdicts
        self._resume_own()
        if busy:
            one.canary.skip(batch)
            return verdicts
        return one.canary.judge(batch, verdicts, self._detector.open[slot])

    def tick(self, now: float) -> tuple[Incident, ...]:
        """What changes without queries."""
        return tuple(
            incident
            for slot, canary in self._running()
            if slot in self._detector.open
            for incident in canary.tick(now, self._detector.open[slot])
        )

    def forget(self, client: str) -> None:
        """Drop all that is known of a client."""
        self._left = [one for one in self._left if one.client != client]
        for _, canary in self._running():
            canary.forget(client)

    def poll(self, lock: AbstractContextManager[Any]) -> tuple[Incident, ...]:
        """Begin or end canaries as the folder of models says, and tell what was counted; incidents to be told then."""
        with self._looking:
            told = self._look(lock)
        with lock:
            told += self._take_left()
        for slot, one in list(self._slots.items()):
            self._tell(slot, one)
        return told

    def close(self) -> None:
        """Nothing: what was seen is in the saved state of slots."""

    # inside

    def _look(self, lock: AbstractContextManager[Any]) -> tuple[Incident, ...]:
        try:
            row = self._registry.canary()
        except ModelError as error:
            _log.warning("canary_not_read", error=str(error))
            return ()
        wanted = (str(row["model_id"]), float(row["begun_at"])) if row is not None else None
        if wanted == self._known and self._looked:
            return ()
        told = self._end(lock)
        candidate = self._loaded(row) if row is not None else None
        with lock:
            self._known, self._looked, self._candidate = wanted, True, candidate
        for slot in list(self._slots):
            self._begin_open(slot, lock)
        return told

    def _running(self) -> list[tuple[int, Canary]]:
        return [(slot, one.canary) for slot, one in list(self._slots.items()) if one.canary is not None]

    def _loaded(self, row: Mapping[str, Any]) -> Candidate | None:
        try:
            model = self._registry.get(str(row["model_id"]))
        except (AgentsError, OSError) as error:
            _log.error("canary_not_begun", model_id=row["model_id"], error=str(error))
            return None
        terms = terms_of(row)
        _log.info("canary_begun", model_id=model.model_id, mode=terms.mode, share=terms.share, slots=len(self._slots))
        return Candidate(model, terms, float(row["begun_at"]))

    def _begin_open(self, slot: int, lock: AbstractContextManager[Any]) -> None:
        """Begin in a slot that is judged already."""
        with lock:
            one, main = self._slots.get(slot), self._detector.open.get(slot)
            if one is None or main is None or one.canary is not None or self._candidate is None:
                return
        files = main.save(lock)
        with lock:
            if self._slots.get(slot) is one and one.canary is None:
                self._begin(slot, one, files)

    def _begin(self, slot: int, one: SlotCanary, files: Mapping[str, bytes]) -> None:
        """Begin in a slot, where there is a candidate. files: what its detector knows. Called under the lock."""
        candidate, main = self._candidate, self._detector.open.get(slot)
        if candidate is None or main is None:
            return
        model_id, terms = candidate.model.model_id, candidate.terms
        try:
            found = json.loads(one.found or b"{}")
        except ValueError:
            found = {}
        counts = counts_of(found, model_id, candidate.begun_at)
        try:
            beside = self._detector_of(slot, candidate.model)
            canary = Canary(
                beside, terms.share, terms.mode == "shadow", counts, SLOT_ALERTS_MAX, SLOT_DOMAINS_MAX
            )  # fmt: skip
            canary.take_over(main, files)
        except (AgentsError, FormatError, OSError) as error:
            _log.error("canary_not_begun", model_id=model_id, slot=slot, error=str(error))
            return
        one.canary = canary

    def _end(self, lock: AbstractContextManager[Any]) -> tuple[Incident, ...]:
        """End the canary in all slots."""
        candidate = self._candidate
        if candidate is None:
            return ()
        promoted = self._registry.current().model_id == candidate.model.model_id
        told: tuple[Incident, ...] = ()
        with lock:
            self._candidate = None
            for slot, canary in self._running():
                one = self._slots[slot]
                one.canary, one.found = None, b""
                if slot in self._detector.open:
                    told += canary.end(self._detector.open[slot], promoted)
        _log.info("canary_ended", model_id=candidate.model.model_id, promoted=promoted)
        return told

    def _resume_own(self) -> None:
        """Give canaries back what they had."""
        if not self._left:
            return
        running = dict(self._running())
        left, self._left = self._left, []
        for one in left:
            canary = running.get(self._detector.slot_of(one.client))
            if canary is not None and canary.model_id == one.evidence["canary"]:
                canary.resume([one])
            else:
                self._left.append(one)

    def _take_left(self) -> tuple[Incident, ...]:
        """Give canaries back what they had; what was another's is closed."""
        self._resume_own()
        left, slot_of = self._left, self._detector.slot_of
        self._left = [one for one in left if slot_of(one.client) not in self._slots]  # of one that is being opened
        mine = [one for one in left if slot_of(one.client) in self._slots]
        return tuple(replace(one, closed_at=one.last_seen) for one in mine)

    def _tell(self, slot: int, one: SlotCanary) -> None:
        """Put under the slot's key what the state in force has; what the bus did not take is tried again."""
        if one.telling is not None:
            data, telling = one.telling
            if not telling.done():
                return
            one.telling = None
            if telling.cancelled() or telling.exception() is not None:
                return
            one.told = data
        if one.saved and one.saved != one.told:
            one.telling = one.saved, self._put(slot, one.token, one.saved)
