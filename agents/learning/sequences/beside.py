"""The sequence model beside a detector: cycles that learn, and the watch, where SEQUENCE_WATCH says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agents.core.protocols import Field, Spec
from agents.core.types import Verdicts
from agents.learning.sequences.cycle import SequenceCycle
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

    def start(self) -> None:
        """Begin to watch."""
        if self.watch is not None:
            self.watch.start()

    @property
    def alive(self) -> bool:
        """Whether what runs by itself lives."""
        return self.watch is None or self.watch.alive

    def see(self, verdicts: Verdicts) -> None:
        """Hear a batch; never waits."""
        self.cycle.see(verdicts)
        if self.watch is not None:
            self.watch.see(verdicts)

    def forget(self, client: str) -> None:
        """Drop what is known of a client; a cycle that collects begins anew."""
        self.cycle.forget(client)
        if self.watch is not None:
            self.watch.forget(client)

    def close(self) -> None:
        """End."""
        if self.watch is not None:
            self.watch.close()
