"""What a detector knows of the clients of other detectors: tables that one process writes and all read, and facts.

The tables are those that one detector keeps for itself (state.State.familiar, heard): which domains are known here, to
how many clients, and which names. Facts are small and replaced as a whole.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.detection.counting.flow_kernels import FAMILIAR_MAX
from agents.detection.explanations.habits import Book
from agents.detection.flows import HEARD_PLACES
from agents.detection.state import FAMILIAR

PLACES = 1 << FAMILIAR_MAX.bit_length() + 1
"""Places of the table of domains: it cannot grow while others read it, and is half full at most."""


class KnownTables(NamedTuple):
    """One process writes them. A reader may see the half of a change, which is a domain more or less for a moment."""

    familiar: NDArray[Any]  # FAMILIAR, (PLACES,)
    heard: NDArray[np.uint64]
    settled: NDArray[np.uint8]  # (PLACES,): clients below each domain that also ask below others (kinds' sign CLIENTS)


def known_tables() -> KnownTables:
    """Empty tables, in memory that processes share which are forked later."""
    sizes = PLACES * FAMILIAR.itemsize, HEARD_PLACES * 8, PLACES
    familiar, heard, settled = (memoryview(mmap.mmap(-1, size)) for size in sizes)
    return KnownTables(
        np.frombuffer(familiar, FAMILIAR), np.frombuffer(heard, np.uint64), np.frombuffer(settled, np.uint8)
    )


_GROWING = ("opened", "spent", "usual", "parted")
"""Facts of which there are as many as there are domains, or keys of services."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of all clients together.

    acked: for each detector, the number of its last message that is in here.
    """

    at_home: int = 0  # clients
    days: int = 0  # with queries
    opened: Mapping[str, bool] = field(default_factory=dict)  # domains of open incidents of all clients: it is listed
    spent: Mapping[str, float] = field(default_factory=dict)  # explained bytes of the last day, by Book and key
    usual: Mapping[str, float] = field(default_factory=dict)  # bytes of an ordinary day, by domain
    acked: Mapping[str, int] = field(default_factory=dict)
    roll: str = ""  # what counts was begun anew with this mark: each detector says then who asks below what
    parted: Mapping[str, float] = field(default_factory=dict)  # PartedDetector.scores

    def packed(self, most: float = math.inf) -> bytes:
        """As JSON, in `most` bytes: where that is too little, the highest half of what grows with names stays."""
        kept, rows = asdict(self), {name: getattr(self, name) for name in _GROWING}
        while len(data := json.dumps(kept).encode()) > most and any(rows.values()):
            for name, values in rows.items():
                highest = sorted(values.items(), key=lambda one: -one[1])[: len(values) // 2]
                kept[name] = rows[name] = dict(highest)
        return data


def facts_of(data: bytes) -> Facts:
    """Facts from JSON; none where there is no such JSON."""
    try:
        found = json.loads(data)
    except ValueError:
        return Facts()
    return Facts(**{one.name: found[one.name] for one in fields(Facts) if one.name in found})


class NetworkView:
    """One detector's view of all clients. name: the detector's; read: gives the newest facts; is_parted: whether a
    client is judged by several detectors."""

    def __init__(
        self,
        name: str,
        tables: KnownTables,
        read: Callable[[], Facts],
        is_parted: Callable[[str], bool] = lambda client: False,
    ) -> None:
        self.name, self.tables, self._read, self.is_parted = name, tables, read, is_parted
        self.facts = Facts()
        self._unsent: dict[str, float] = {}
        self._sent: list[tuple[int, dict[str, float]]] = []

    def refresh(self) -> None:
        """Take up the newest facts."""
        self.facts = self._read()
        known = self.facts.acked.get(self.name, 0)
        self._sent = [one for one in self._sent if one[0] > known]

    def spend(self, book: str, key: str, amount: float) -> float:
        """Note bytes that something explains, and return what all detectors have noted in the last day."""
        name = f"{book} {key}"
        self._unsent[name] = self._unsent.get(name, 0.0) + amount
        own = self._unsent[name] + sum(sent.get(name, 0.0) for _, sent in self._sent)
        return self.facts.spent.get(name, 0.0) + own

    def sending(self, number: int) -> Mapping[str, float]:
        """What was spent since the last call, to be sent as part of the message of this number."""
        spent, self._unsent = self._unsent, {}
        if spent:
            self._sent.append((number, spent))
        return spent


class SharedBook(Book):
    """A Book of which the keys of all clients are counted by all detectors together, and those of a parted client."""

    def __init__(self, name: str, view: NetworkView, of_clients: bool = False) -> None:
        """of_clients: its keys are clients."""
        super().__init__()
        self._name, self._view, self._of_clients = name, view, of_clients

    def add(self, ts: float, key: str, amount: float) -> float:
        """Count an amount, and return the sum. A key with a client in it is this detector's alone."""
        own = super().add(ts, key, amount)
        alone = not self._view.is_parted(key) if self._of_clients else " " in key
        return own if alone else self._view.spend(self._name, key, amount)
