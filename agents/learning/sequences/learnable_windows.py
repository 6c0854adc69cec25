"""Which windows may be learnt: nothing of an attack, nothing in doubt, nothing near an incident, and no one's flood.

The rules are those of the online learner (loop.learnable) and of the query model's sample (store.feedback.labelled).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.core.column_kernels import Key
from agents.core.columns import Coded
from agents.learning.loop.learnable import within_caps
from agents.learning.sequences.bounds import USUAL_SEQUENCES
from agents.learning.sequences.steps import HeardPart, StepRows, Windows, domain_hashes, learnable_rows, step_windows
from agents.store.feedback.labelled import LabelledFlows

OWN_FROM = 0.5
"""A window counts for the share of a domain if more than so many of its steps lie below it."""
Doubts = Callable[[float, float], LabelledFlows]
"""What is labelled, waits for a person, or lies near an incident, of queries between two times, Unix seconds. Raises
StoreError."""


def nothing_doubted(since: float, until: float) -> LabelledFlows:
    """Where there is no store."""
    return LabelledFlows()


@dataclass(frozen=True, slots=True)
class HeardSteps:
    """What a cycle collected. numbers: of clients, by address; key: of the hashes."""

    parts: list[HeardPart]
    numbers: dict[str, int]
    key: Key

    def clear(self) -> None:
        """Delete it."""
        self.parts.clear()
        self.numbers.clear()


def learnable_windows(
    heard: HeardSteps, length: int, doubts: Doubts = nothing_doubted, needed: int = USUAL_SEQUENCES.windows_min
) -> Windows:
    """Windows of so many steps that may be learnt. needed: windows that a training needs. Raises what doubts raises."""
    rows, clients = learnable_rows(heard.parts), list(heard.numbers)
    if not len(rows):
        return step_windows(rows, length)
    rows = rows.at(_undoubted(rows, clients, heard.key, doubts))
    windows = step_windows(rows, length)
    kept = within_caps(
        [clients[number] for number in windows.client.tolist()],
        [
            f"{domain:x}" if share > OWN_FROM else ""
            for domain, share in zip(windows.domain, windows.share, strict=True)
        ],
        np.arange(len(windows)),
        needed,
    )
    return windows.at(np.sort(kept))


def _undoubted(rows: StepRows, clients: Sequence[str], key: Key, doubts: Doubts) -> NDArray[np.bool_]:
    """Which of n queries are not in doubt; shape (n,). Names of domains become hashes, as the queries' are."""
    flows = doubts(float(rows.ts.min()), float(rows.ts.max()) + 1.0)
    known, codes = np.unique(rows.domain, return_inverse=True)
    named = flows.renamed(lambda domains: [f"{one:x}" for one in domain_hashes(domains, key).tolist()])
    return named.left(
        Coded(rows.client, clients), Coded(codes.astype(np.int32), [f"{one:x}" for one in known]), rows.ts
    )
