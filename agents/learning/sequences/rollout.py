"""The end of a sequence model's trial without a person (DEPLOY=canary), by the rules of learning.release.canary."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from agents.core.errors import StoreError
from agents.core.files import locked_within
from agents.core.types import Message
from agents.learning.messages import sequence_message
from agents.learning.release.canary import Ending, ending_of, terms_of
from agents.learning.release.transitions import Author
from agents.learning.sequences.history import NEWEST_LOOKED_AT, EndedCycle
from agents.learning.sequences.learning import SequenceModels
from agents.learning.sequences.on_trial import SequenceCanary

LOCK_WAIT_S = 5.0
_log = structlog.get_logger("agents.learning.sequences")


@dataclass(frozen=True)
class SequenceRollout:
    """Ends trials by their rules, in the process of the scheduler; see learning.release.canary.

    benign: domains that people labelled benign since a time, with who did. tell: sends a message over every channel.
    doubt: why the clock is not believed, "" where it is.
    """

    models: SequenceModels
    benign: Callable[[float], Mapping[str, str]]
    tell: Callable[[Message], object] = lambda message: None
    clock: Callable[[], float] = time.time
    doubt: Callable[[], str] = str

    def look(self) -> EndedCycle | None:
        """End the trial if its rules say so; what was done. Raises AgentsError, OSError."""
        canary, now = SequenceCanary(self.models.folder), self.clock()
        row, counts = canary.row(), canary.counts()
        if row is None or counts is None:
            return None
        if now < row["begun_at"]:
            canary.restart(now)
            return None
        in_use = self._in_use()
        if in_use == row["model_id"] != row["champion"]:
            return self._end(canary, row, Ending(True, "it is in use already"), now)
        if in_use != row["champion"]:
            return self._end(canary, row, Ending(False, "the model in use is another one by now"), now)
        if canary.model() is None:
            return self._end(canary, row, Ending(False, "its file cannot be read"), now)
        named, away = self._labelled(row["begun_at"]) if counts.domains else ({}, False)
        false_alarms = {one: named[one] for one in counts.domains if one in named}
        ending = ending_of(terms_of(row), counts, false_alarms, now, alone=not row["champion"])
        if ending is None or (ending.promote and (away or self.doubt() or self.models.registry.pinned())):
            return None
        return self._end(canary, row, ending, now)

    def _in_use(self) -> str:
        """The id of the model in use; "" where none is."""
        found = self.models.current()
        return found.model_id if found is not None else ""

    def _labelled(self, since: float) -> tuple[Mapping[str, str], bool]:
        """Domains that people called benign; and whether the database is away, which says nothing for the candidate."""
        try:
            return self.benign(since), False
        except StoreError as error:
            _log.warning("labels_not_read", error=str(error))
            return {}, True

    def _end(self, canary: SequenceCanary, row: Mapping[str, Any], ending: Ending, now: float) -> EndedCycle | None:
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
