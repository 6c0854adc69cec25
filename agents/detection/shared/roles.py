"""What processes need of a detector beside core.protocols.Detector, where there are several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from agents.core.protocols import Detector
from agents.core.types import Verdicts
from agents.detection.detector import Suspect
from agents.detection.privacy import Privacy
from agents.detection.shared.detector_report import DetectorReport
from agents.detection.shared.view import Facts
from agents.sources.origins import Origins


class IncidentSources(Protocol):
    """What incidents say of where their queries were heard."""

    losses: tuple[str, ...]
    origins: Origins | None


class LiveDetector(Detector, Protocol):
    """A detector of live queries."""

    @property
    def incidents(self) -> IncidentSources:
        """To be told what the sources of queries do not keep."""
        ...

    @property
    def privacy(self) -> Privacy:
        """What clients are called, and which names are kept."""
        ...

    def appraise(
        self,
        chances: Mapping[tuple[str, str], float],
        suspects: Sequence[Suspect] = (),
        images: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        """What a model has learnt of flows; see TunnelDetector."""
        ...


class CommonCounter(Protocol):
    """Counts what the detectors of some clients say of all clients."""

    def count_reports(self, reports: Sequence[DetectorReport]) -> Verdicts | None:
        """Count messages, each once; the incidents that change by it, if any do."""
        ...

    def facts(self) -> Facts:
        """What all detectors are to know."""
        ...

    def resume(self, acked: Mapping[str, int]) -> None:
        """Go on behind messages that saved state has in it."""
        ...

    def ask_for_rolls(self, mark: str) -> None:
        """Have every detector say who asks below what, with its next message."""
        ...

    @property
    def acked_all(self) -> dict[str, int]:
        """For each detector the number of its last message that was counted."""
        ...


class SlotJudge(Protocol):
    """Judges the clients of the slots that are open. All calls need one lock (Judge.lock)."""

    def slot_of(self, client: str) -> int:
        """The slot of a client."""
        ...

    def open_slot(self, slot: int, state: bytes) -> None:
        """Begin to judge a slot, from saved state; b"" = from nothing. Raises core.npz.FormatError."""
        ...

    def close_slot(self, slot: int) -> None:
        """Judge a slot no more."""
        ...

    def saved_slot(self, slot: int, lock: AbstractContextManager[Any], beside: Mapping[str, bytes]) -> bytes:
        """The state of a slot, with other files beside it."""
        ...

    def report_of_slot(self, slot: int, number: int) -> DetectorReport | None:
        """What is to be said of a slot's last batch, as a message of this number; None where that is nothing."""
        ...
