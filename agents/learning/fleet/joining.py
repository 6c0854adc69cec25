"""How contributions become one: so that no single site moves more than its share, whatever it sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.learning.fleet.exchange import TREES_JOINED, Contribution, ForestPart, forest_part

CLIP_NORM = 1.0
"""Longest change of the weights that a site makes in a round; a longer one is shortened to it."""
TRIMMED_SHARE = 4
"""One of so many sites is trimmed at either end of each weight, at least one."""
SITES_AGREE = 2
"""Sites that sent a domain's hash before it is given to others."""
PUBLISHED_MAX = 200_000


def clipped(delta: NDArray[np.float64]) -> NDArray[np.float64]:
    """A change of weights, not longer than CLIP_NORM."""
    length = float(np.linalg.norm(delta))
    return delta * (CLIP_NORM / length) if length > CLIP_NORM else delta


def joined_delta(deltas: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The trimmed mean of clipped changes, weight by weight (Yin et al. 2018): of three sites the median.

    Trimming t sites at both ends keeps each weight within what the other sites sent, whatever t sites send.
    """
    rows = np.sort(np.stack([clipped(one) for one in deltas]), axis=0)
    trim = max(len(rows) // TRIMMED_SHARE, 1) if len(rows) >= 3 else 0
    middle: NDArray[np.float64] = rows[trim : len(rows) - trim].mean(axis=0)
    return middle


def joined_shares(counts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Shares of clients by bin: each site weighs alike, so inflated counts change a quantile by one site's share."""
    rows = np.array([row for row in counts if sum(row)], np.float64)
    if not len(rows):
        return np.zeros(len(counts[0]) if counts else 0)
    shares: NDArray[np.float64] = (rows / rows.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


def joined_domains(hashes: Sequence[Sequence[str]]) -> list[str]:
    """Hashes that SITES_AGREE sites sent or more."""
    sent = Counter(one for site in hashes for one in set(site))
    return sorted(one for one, sites in sent.items() if sites >= SITES_AGREE)[:PUBLISHED_MAX]


def joined_forest(parts: Sequence[ForestPart]) -> ForestPart | None:
    """One forest with as many trees of each site; None where no site sent trees."""
    if not parts:
        return None
    share = max(TREES_JOINED // len(parts), 1)  # whoever sends fewer has fewer: nobody else's part gets smaller by that
    arrays = [part.arrays() for part in parts[:TREES_JOINED]]
    return forest_part({name: np.concatenate([one[name][:share] for one in arrays]) for name in arrays[0]})


def quantile_bin(shares: Sequence[float], share: float) -> int:
    """The bin below which, with itself, so large a share of the clients lies."""
    total = np.cumsum(np.asarray(shares, np.float64))
    return int(np.searchsorted(total, share * total[-1] if len(total) else 0.0))


class Joined(NamedTuple):
    """What came of a round. delta: shape (WEIGHTS,); shares: shape (BINS,)."""

    delta: NDArray[np.float64]
    shares: NDArray[np.float64]
    domains: list[str]
    forest: ForestPart | None


def joined_contributions(found: Sequence[Contribution]) -> Joined:
    """What comes of a round; one contribution a site."""
    return Joined(
        delta=joined_delta([np.array(one.delta) for one in found]),
        shares=joined_shares([one.counts for one in found]),
        domains=joined_domains([one.domains for one in found]),
        forest=joined_forest([one.forest for one in found if one.forest is not None]),
    )
