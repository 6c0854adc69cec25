"""What a judge needs of that which runs a candidate beside its detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from agents.core.types import Incident, QueryBatch, Verdicts


class LiveTrial(Protocol):
    """Runs a canary. All but `poll` and `close` are called under the lock of judging."""

    def resume(self, incidents: Sequence[Incident]) -> list[Incident]:
        """Take stored open incidents that a canary alone had; returns the others."""
        ...

    def judge(self, batch: QueryBatch, verdicts: Verdicts, busy: bool = False) -> Verdicts:
        """The verdicts with what a canary adds, if one runs."""
        ...

    def tick(self, now: float) -> tuple[Incident, ...]:
        """What changes without queries."""
        ...

    def forget(self, client: str) -> None:
        """Drop all that is known of a client."""
        ...

    def poll(self, lock: AbstractContextManager[Any]) -> tuple[Incident, ...]:
        """Begin or end a canary as the folder of models says; incidents to be told then. lock: of judging."""
        ...

    def close(self) -> None:
        """Write down what was seen."""
        ...


class SlotTrial(LiveTrial, Protocol):
    """… in slots of a bus, which come and go. Its own methods are called by the thread that judges."""

    @property
    def candidate(self) -> str:
        """Id of the model that judges beside the one in use; "" = none does."""
        ...

    def open_slot(self, slot: int, token: int, state: bytes, lock: AbstractContextManager[Any]) -> None:
        """Go on with a slot from its saved state. token: of the slot's lease. lock: of judging."""
        ...

    def close_slot(self, slot: int, lock: AbstractContextManager[Any]) -> None:
        """Judge in a slot no more."""
        ...

    def saved_files(self, slot: int, lock: AbstractContextManager[Any]) -> Mapping[str, bytes]:
        """What a slot's saved state must have with it."""
        ...

    def note_saved(self, slot: int) -> None:
        """The state that had the last `saved_files` of a slot is in force."""
        ...
