"""One measured figure beside its baseline of the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and its baseline in the same unit; only their ratio carries over to another machine."""

    what: str
    value: float
    unit: str
    baseline: float
    against: str

    @property
    def ratio(self) -> float:
        return self.value / self.baseline


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes, wall clock."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def markdown(figures: Sequence[Figure]) -> str:
    """The table for people."""
    lines = ["| what | measured | baseline of the same run | ratio |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {one.what} | {_number(one.value)} {one.unit} | {_number(one.baseline)} {one.unit}: {one.against}"
        f" | {_number(one.ratio)} |"
        for one in figures
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
