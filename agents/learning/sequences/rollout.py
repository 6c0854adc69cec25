"""The end of a sequence model's trial without a person (DEPLOY=canary), by the rules of learning.release.canary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from agents.core.files import locked_within
from agents.core.types import Message
from agents.learning.messages import sequence_message
from agents.learning.release.canary import Ending, OpenTrial, TrialRollout
from agents.learning.release.transitions import Author
from agents.learning.sequences.history import NEWEST_LOOKED_AT, EndedCycle
from agents.learning.sequences.learning import SequenceModels
from agents.learning.sequences.on_trial import SequenceCanary

LOCK_WAIT_S = 5.0
_log = structlog.get_logger("agents.learning.sequences")


@dataclass(frozen=True)
class SequenceRollout(TrialRollout[EndedCycle]):
    """Ends trials of sequence models. tell: sends a message over every channel."""

    models: SequenceModels
    tell: Callable[[Message], object] = lambda message: None

    @property
    def _canary(self) -> SequenceCanary:
        return SequenceCanary(self.models.folder)

    def _open(self) -> OpenTrial | None:
        row, counts = self._canary.row(), self._canary.counts()
        return None if row is None or counts is None else OpenTrial(row, counts)

    def _restart(self, now: float) -> None:
        self._canary.restart(now)

    def _overtaken(self, trial: OpenTrial) -> Ending | None:
        in_use = self._in_use()
        if in_use == trial.row["model_id"] != trial.champion:
            return Ending(True, "it is in use already")
        if in_use != trial.champion:
            return Ending(False, "the model in use is another one by now")
        return Ending(False, "its file cannot be read") if self._canary.model() is None else None

    def _held(self) -> bool:
        return bool(self.models.registry.pinned())

    def _in_use(self) -> str:
        """The id of the model in use; "" where none is."""
        found = self.models.current()
        return found.model_id if found is not None else ""

    def _end(self, trial: OpenTrial, ending: Ending, now: float) -> EndedCycle | None:
        canary, row = self._canary, trial.row
        with locked_within(canary.lock_path, LOCK_WAIT_S):
            if canary.row() != row:
                return None  # a person ended it meanwhile
            ended = self._ended(canary, row, ending, now)
            model = canary.model()
            if ending.promote and model is not None and self._in_use() != model.model_id:
                self.models.deploy(model, now, Author("its rules", ending.kept or ending.reason), "promote canary")
            kept = self._noted(ended)
            if not ending.promote:
                self.models.registry.note("stop canary", row["model_id"], Author("its rules", ended.reason))
            canary.end()  # last: whoever is killed before it finds the trial again, and ends it
        _log.info("sequence_canary_ended", model_id=kept.model_id, promoted=ending.promote, reason=kept.reason)
        with suppress(OSError):
            self.tell(sequence_message(kept.model_dump(mode="json") | {"reason": ending.reason}))
        return kept

    def _ended(self, canary: SequenceCanary, row: Mapping[str, Any], ending: Ending, now: float) -> EndedCycle:
        """What the history has of its end: counts, no names."""
        model, counts = canary.model(), canary.counts()
        facts: dict[str, Any] = {"model_id": row["model_id"], "parent": row["champion"]}
        if model is not None:
            facts |= {"length": model.length, "data_sha256": str(model.manifest.get("data_sha256", ""))}
            facts |= {"trained": int(model.manifest.get("windows", 0)), "loss": model.manifest.get("loss")}
        return EndedCycle(
            began_at=row["begun_at"],
            seconds=now - row["begun_at"],
            source="canary",
            by="its rules",
            decision="deployed" if ending.promote else "rejected",
            reason=ending.kept or ending.reason,
            collected=counts.queries if counts is not None else 0,
            **facts,
        )

    def _noted(self, ended: EndedCycle) -> EndedCycle:
        """Record the end of a trial, once."""
        same = ("source", "model_id", "began_at", "decision")
        for one in self.models.history.newest(NEWEST_LOOKED_AT):
            if all(getattr(one, name) == getattr(ended, name) for name in same):
                return one
        return self.models.noted(ended)
