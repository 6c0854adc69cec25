"""Several detector types as one: each member's scores are made comparable by its own tail on the fitted rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from agents.scoring.types.base import DECADES_MAX, OutlierScorer, Rows, Values, rises, tail


class Committee(OutlierScorer):
    """Members by name. Each adds arrays NAME_raw and NAME_decades (base.tail), float64 (k,), to its own."""

    members: ClassVar[Mapping[str, type[OutlierScorer]]]

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        self.seats = {name: member(params) for name, member in self.members.items()}

    def decades(self, rows: Rows) -> Values:
        """-log10 of the share of fitted rows above, by each of m members: (m, n)."""
        return np.stack([self._decades(name, rows) for name in self.members])

    def _decades(self, name: str, rows: Rows) -> Values:
        """Beyond the last knot they go on with its slope: two rows that no fitted row comes near still differ."""
        raw, knots, decades = self.seats[name].score(rows), self.arrays[f"{name}_raw"], self.arrays[f"{name}_decades"]
        slope = (decades[-1] - decades[-2]) / (knots[-1] - knots[-2])
        return np.asarray(np.interp(raw, knots, decades) + slope * np.maximum(raw - knots[-1], 0.0))

    def _fitted(self, rows: Rows, seed: int) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {}
        for name, seat in self.seats.items():
            arrays |= seat.fit(rows, seed).to_arrays()
            arrays[f"{name}_raw"], arrays[f"{name}_decades"] = tail(seat.score(rows))
            self.params |= seat.params
        return arrays

    def _check(self, width: int) -> None:
        for name, seat in self.seats.items():
            seat.use(self.arrays, width)
            calibration = self.arrays[f"{name}_raw"], self.arrays[f"{name}_decades"]
            self._need(rises(*calibration, DECADES_MAX + 1e-9), "a member's calibration does not rise")


def shapes_of(members: Mapping[str, type[OutlierScorer]]) -> dict[str, tuple[str, int]]:
    """Arrays of a committee with these members."""
    found: dict[str, tuple[str, int]] = {}
    for name, member in members.items():
        found |= {**member.shapes, f"{name}_raw": ("float64", 1), f"{name}_decades": ("float64", 1)}
    return found


def options_of(members: Mapping[str, type[OutlierScorer]], own: Sequence[str] = ()) -> tuple[str, ...]:
    """Options of a committee with these members."""
    return (*own, *dict.fromkeys(name for member in members.values() for name in member.options))
