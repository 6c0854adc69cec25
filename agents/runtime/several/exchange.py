"""The memory that several detectors share: messages to the process `network`, and what it lets them know."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents.core.column_kernels import Key
from agents.detection.shared.part import PartDetector
from agents.detection.shared.view import Facts, NetworkView, facts_of, known_tables
from agents.runtime.drill.relay import DrillRelay
from agents.runtime.judging.judge import JudgeParts
from agents.stream.mailbox import Mailbox
from agents.stream.note import SharedNote
from agents.stream.shared import Bell
from agents.stream.slots import PartedClients

FACTS_BYTES = 4 << 20
"""Room for facts: some 20,000 sums."""


class DetectorExchange:
    """The memory that detectors and the process `network` share; made before they are forked.

    key: of all hashes, which all of them must have. parted: clients that several of them judge.
    """

    def __init__(self, detectors: int, key: Key, parted: PartedClients | None = None) -> None:
        self.parted = parted or PartedClients()
        self.names = [f"detector-{number + 1}" for number in range(detectors)]
        self.key, self.tables, self.bell = key, known_tables(), Bell()
        self.facts = SharedNote(FACTS_BYTES)
        self.mailboxes = {name: Mailbox() for name in self.names}
        self.notes = {name: SharedNote() for name in self.names}

    def view(self, name: str) -> NetworkView:
        """What one detector sees of the others."""
        return NetworkView(name, self.tables, self._reading(), self.parted.has)

    def views(self) -> Callable[[int], NetworkView]:
        """What the detectors of one process see of the others, by their slots; facts are read once for all of them."""
        read = self._reading()
        return lambda slot: NetworkView(str(slot), self.tables, read)

    def _reading(self) -> Callable[[], Facts]:
        known: list[Any] = [-1, Facts()]

        def read() -> Facts:
            if (version := self.facts.version) != known[0] and (data := self.facts.read()):
                known[:] = version, facts_of(data)
            found: Facts = known[1]
            return found

        return read

    def send_report(self, detector: PartDetector, relay: DrillRelay, name: str, number: int) -> None:
        """Send what a detector says; what finds no room is counted, and the detector goes on."""
        said = detector.take_report(number, relay.take())
        if said is None:
            return
        if not self.mailboxes[name].put(said.packed()):
            detector.roll_again()
        self.bell.ring()

    def noted(self, name: str) -> dict[str, Any]:
        """What a detector has noted of itself last; {} where it has noted nothing yet."""
        found: dict[str, Any] = json.loads(self.notes[name].read() or b"{}")
        return found

    def close(self) -> None:
        """Close the bell's descriptors."""
        self.bell.close()


@dataclass(frozen=True)
class Several:
    """How a plan runs several detectors. make: the collaborators of one process by its name."""

    exchange: DetectorExchange
    make: Callable[[str], JudgeParts]
