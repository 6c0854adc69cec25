"""The sequence model beside a detector: cycles that learn, trials, and the watch, where SEQUENCE_WATCH says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agents.core.protocols import Field, Spec
from agents.core.types import Verdicts
from agents.learning.sequences.cycle import SequenceCycle
from agents.learning.sequences.trial import SequenceTrial
from agents.learning.sequences.watch import SequenceWatch

SPEC: Spec[bool] = Spec(
    "sequences",
    "the sequence model of clients",
    (
        Field(
            "sequence_watch",
            Literal["off", "on"],
            "off",
            "list what the sequence model finds odd and even in pace, within the alert budget",
        ),
    ),
    lambda values: bool(values["sequence_watch"] == "on"),
)


@dataclass(frozen=True, slots=True)
class Sequences:
    """What hears each batch that was judged. `see` is called under the lock of judging, or alone."""

    cycle: SequenceCycle
    watch: SequenceWatch | None = None
    trial: SequenceTrial | None = None

    @property
    def _threads(self) -> list[SequenceWatch | SequenceTrial]:
        return [one for one in (self.watch, self.trial) if one is not None]

    def start(self) -> None:
        """Begin to watch."""
        for one in self._threads:
            one.start()

    @property
    def alive(self) -> bool:
        """Whether what runs by itself lives."""
        return all(one.alive for one in self._threads)

    @property
    def hears(self) -> bool:
        """Whether batches are wanted."""
        return (
            self.watch is not None or self.cycle.collecting or (self.trial is not None and self.trial.begun is not None)
        )

    def see(self, verdicts: Verdicts) -> None:
        """Hear a batch; never waits."""
        self.cycle.see(verdicts)
        for one in self._threads:
            one.see(verdicts)

    def forget(self, client: str) -> None:
        """Drop what is known of a client; a cycle that collects begins anew."""
        self.cycle.forget(client)
        for one in self._threads:
            one.forget(client)

    def close(self) -> None:
        """End."""
        for one in self._threads:
            one.close()
