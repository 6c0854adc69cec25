"""What a judge needs of that which keeps flow-hours beside it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from agents.core.types import Verdicts


class LiveHours(Protocol):
    """Keeps flow-hours of what is judged; threads of its own write them."""

    def start(self) -> None:
        """Begin: what saved state has of flows is restored."""
        ...

    @property
    def alive(self) -> bool:
        """Whether its thread lives."""
        ...

    def see(self, verdicts: Verdicts) -> None:
        """Note a batch that was judged; called under the lock of judging."""
        ...

    def turn(self, ts: float, lock: AbstractContextManager[Any] | None = None) -> object:
        """It is `ts` (Unix seconds). lock: of judging."""
        ...

    def appraise(self, ts: float, lock: AbstractContextManager[Any] | None = None) -> None:
        """Tell the detector how probable it is that its open incidents are tunnels."""
        ...

    def close(self, wait_s: float = ...) -> None:
        """Write what waits, if that can be done in so many seconds."""
        ...


class SlotHourKeeper(LiveHours, Protocol):
    """… of slots of a bus, which come and go. Called by the thread that judges."""

    def open_slot(self, slot: int, token: int, state: bytes) -> None:
        """Go on with a slot's hour from its saved state. token: of the slot's lease."""
        ...

    def close_slot(self, slot: int) -> None:
        """Keep flow-hours of a slot no more."""
        ...

    def begin_message(self, slot: int, ts: float, lock: AbstractContextManager[Any]) -> None:
        """A message comes whose newest query has this time (Unix seconds)."""
        ...

    def rest(self, slot: int, now: float, lock: AbstractContextManager[Any]) -> None:
        """It is `now`, and no message of a slot waits."""
        ...

    def saved_files(self, slot: int) -> Mapping[str, bytes]:
        """What a slot's saved state must have with it."""
        ...

    def has_unwritten(self, slot: int) -> bool:
        """Whether flow-hours wait for the database that saved state would not give again."""
        ...
