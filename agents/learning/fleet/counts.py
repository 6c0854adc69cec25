"""Counts with noise: how many clients carry how much, with differential privacy, and what is known of domains.

Each client counts once, in one bin, so one client more or less changes one count by 1. Discrete Laplace noise with
P(k) ~ exp(-epsilon |k|) then gives epsilon-differential privacy for each client (Ghosh, Roughgarden, Sundararajan
2012).
The counts of a week are drawn once and sent again: else who collects rounds could average the noise away.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.core.files import PRIVATE_MODE, json_state, write_atomic
from agents.core.types import DAY_S
from agents.detection.explanations.network_profile import domain_hash_of
from agents.detection.network import prefix_of
from agents.learning.fleet.exchange import BINS, HASHES_MAX
from agents.learning.fleet.habits import K_ANONYMOUS
from agents.learning.loop.flow_hours import NUMBERS
from agents.learning.profile.making import Reach
from agents.store.feedback.flow_hours import FlowHours

COUNTED_S = 7 * DAY_S
_BYTES = NUMBERS.index("information_bytes")
_DRAW = secrets.SystemRandom()


def client_counts(hours: FlowHours) -> NDArray[np.int64]:
    """Clients by the bytes in names of their busiest day, in powers of two. Shape (BINS,)."""
    days: dict[tuple[str, int], float] = {}
    amounts = hours.numbers[:, _BYTES].tolist() if len(hours) else []
    for client, hour, amount in zip(map(prefix_of, hours.client), hours.hour.tolist(), amounts, strict=True):
        key = client, hour // 24
        days[key] = days.get(key, 0.0) + max(amount, 0.0)
    most: dict[str, float] = {}
    for (client, _), amount in days.items():
        most[client] = max(most.get(client, 0.0), amount)
    bins = [min(int(math.log2(amount + 1)), BINS - 1) for amount in most.values()]
    return np.bincount(np.array(bins, np.int64), minlength=BINS)


def discrete_laplace(epsilon: float) -> int:
    """A whole number k with P(k) ~ exp(-epsilon |k|): the difference of two geometric ones."""
    first, second = (math.floor(math.log(1 - _DRAW.random()) / -epsilon) for _ in range(2))
    return first - second


def noisy(counts: NDArray[np.int64], epsilon: float) -> list[int]:
    """Counts with noise, not below 0."""
    return [max(count + discrete_laplace(epsilon), 0) for count in counts.tolist()]


def counts_of_week(path: Path, hours: FlowHours, epsilon: float, now: float) -> list[int]:
    """This week's counts, with the noise that was drawn when they were asked for first. Raises OSError."""
    week = int(now // COUNTED_S)
    if (kept := _kept_counts(path, week)) is not None:
        return kept
    found = noisy(client_counts(hours), epsilon)
    write_atomic(path, json.dumps({"week": week, "epsilon": epsilon, "counts": found}).encode(), PRIVATE_MODE)
    return found


def _kept_counts(path: Path, week: int) -> list[int] | None:
    found = json_state(path)
    counts = found.get("counts") if found.get("week") == week else None
    sound = isinstance(counts, list) and len(counts) == BINS and all(isinstance(one, int) for one in counts)
    return counts if sound else None


def domain_hashes(reach: Mapping[str, Reach], secret: str, left_out: Collection[str]) -> list[str]:
    """Keyed hashes of the domains that K_ANONYMOUS clients or more ask below; none without a secret."""
    if not secret:
        return []
    known = sorted((one for one in reach if reach[one].clients >= K_ANONYMOUS), key=lambda one: -reach[one].clients)
    return sorted(
        domain_hash_of(secret, domain) for domain in [one for one in known if one not in left_out][:HASHES_MAX]
    )
