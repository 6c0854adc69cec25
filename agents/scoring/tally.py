"""How long a detector type takes for a name, how sure it is, and how many names it finds odd."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class TypeTally:
    """Sums since the process began. seconds: of scoring; confidence: of all votes; odd: votes of SUSPICIOUS or above.

    benign: names that a known service explains. How many of them are odd is the false-positive rate that can be told
    without a person: what is not explained may be a tunnel.
    """

    names: int = 0
    seconds: float = 0.0
    confidence: float = 0.0
    odd: int = 0
    benign: int = 0
    benign_odd: int = 0


@dataclass(slots=True)
class ScoreTally:
    """A TypeTally for each detector type that judged since the process began."""

    by_type: dict[str, TypeTally] = field(default_factory=dict)

    def note(
        self,
        name: str,
        votes: NDArray[np.float32],
        benign: NDArray[np.bool_],
        sure: NDArray[np.float64],
        suspicious: float,
        seconds: float,
    ) -> None:
        """Add a batch of a type. votes, benign, sure: shape (n,); sure: confidence of each vote, 0..1."""
        odd, tally = votes >= suspicious, self.by_type.setdefault(name, TypeTally())
        tally.names += len(votes)
        tally.seconds += seconds
        tally.confidence += float(sure.sum())
        tally.odd += int(np.count_nonzero(odd))
        tally.benign += int(np.count_nonzero(benign))
        tally.benign_odd += int(np.count_nonzero(odd & benign))

    def to_json(self) -> dict[str, dict[str, float]]:
        """All numbers, by type."""
        return {name: asdict(one) for name, one in self.by_type.items()}
