"""How many investigations a week are affordable decides how tight the limits are.

A flow's peak of a day is the most that its evidence reached, in multiples of the limits as they are in policy.py. Last
weeks' peaks say how many flows a week would have been investigated at any other factor; the smallest factor within the
budget is chosen, between FACTOR_MIN and FACTOR_MAX, so that nobody can talk the limits away by a noisy month.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

DAY_S = 86_400
KEPT_DAYS = 28
PEAK_MIN = 0.2
"""Peaks below it could not matter at any factor."""
PEAKS_MAX = 20_000
FACTOR_MIN, FACTOR_MAX = 0.5, 2.0
DAYS_MIN = 7
"""Days of history from which it is trusted."""
STEPS = tuple(round(FACTOR_MIN + 0.1 * i, 1) for i in range(16))

Key = tuple[int, str, str]


class Peaks:
    """Peaks by (day, client, domain), at most PEAKS_MAX: there the lower half gives way."""

    def __init__(self, rows: Iterable[tuple[int, str, str, float]] = ()) -> None:
        self.rows: dict[Key, float] = {(day, client, domain): ratio for day, client, domain, ratio in rows}
        self.days: set[int] = {key[0] for key in self.rows}

    def note(self, ts: float, client: str, domain: str, ratio: float) -> None:
        """Remember what a flow's evidence reached."""
        day = int(ts // DAY_S)
        self.days.add(day)
        key = (day, client, domain)
        if ratio < PEAK_MIN or ratio <= self.rows.get(key, 0.0):
            return
        if key not in self.rows and len(self.rows) >= PEAKS_MAX:
            loudest = sorted(self.rows, key=lambda one: (-self.rows[one], one))[: PEAKS_MAX // 2]
            self.rows = {one: self.rows[one] for one in loudest}
        self.rows[key] = ratio

    def dump(self) -> bytes:
        """The last KEPT_DAYS days that were seen, as JSON; a day of a clock gone wrong costs one of them."""
        days = sorted(self.days)[-KEPT_DAYS:]
        rows = [[*key, round(ratio, 4)] for key, ratio in sorted(self.rows.items()) if key[0] in days]
        return json.dumps({"days": days, "peaks": rows}).encode()


def load_peaks(data: bytes) -> Peaks:
    """What was dumped. Raises ValueError for anything else."""
    try:
        state = json.loads(data)
        peaks = Peaks(
            (int(day), str(client), str(domain), float(ratio)) for day, client, domain, ratio in state["peaks"]
        )
        peaks.days |= {int(day) for day in state["days"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"cannot read peaks: damaged file ({type(error).__name__})") from None
    return peaks


@dataclass(frozen=True, slots=True)
class Limits:
    """The factor chosen, and what each other would have cost."""

    factor: float
    days: int  # of history
    budget_per_week: float
    curve: tuple[tuple[float, float], ...]  # (factor, investigations a week)

    def to_json(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "days": self.days,
            "budget_per_week": self.budget_per_week,
            "curve": [list(point) for point in self.curve],
        }


def choose(peaks: Peaks, budget_per_week: float) -> Limits:
    """The tightest limits within the budget; 1 while there are fewer than DAYS_MIN days of history."""
    days = len(peaks.days)
    loudest: dict[tuple[str, str], float] = {}
    for (_, client, domain), ratio in peaks.rows.items():
        loudest[client, domain] = max(ratio, loudest.get((client, domain), 0.0))
    weeks = max(days / 7, 1.0)
    curve = tuple((step, round(sum(r >= step for r in loudest.values()) / weeks, 2)) for step in STEPS)
    affordable = [step for step, investigations in curve if investigations <= budget_per_week]
    factor = (affordable[0] if affordable else FACTOR_MAX) if days >= DAYS_MIN else 1.0
    return Limits(factor, days, budget_per_week, curve)
