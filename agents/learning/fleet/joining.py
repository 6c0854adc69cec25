"""How contributions become one: so that no single site moves more than its share, whatever it sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.detection.explanations.network_profile import SITES_AGREE, FleetHabit
from agents.learning.fleet.exchange import TREES_JOINED, Contribution, ForestPart, forest_part
from agents.learning.fleet.habits import joined_habits

CLIP_NORM = 1.0
"""Longest change of the weights that a site makes in a round; a longer one is shortened to it."""
TRIMMED_SHARE = 4
"""One of so many sites is trimmed at either end of each weight, at least one."""
PUBLISHED_MAX = 200_000
SHARES_SHOWN = (0.5, 0.9, 0.99)
"""Quantiles that people are shown."""


def clipped(delta: NDArray[np.float64]) -> NDArray[np.float64]:
    """A change of weights, not longer than CLIP_NORM."""
    length = float(np.linalg.norm(delta))
    return delta * (CLIP_NORM / length) if length > CLIP_NORM else delta


def joined_delta(deltas: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The trimmed mean of clipped changes, weight by weight (Yin et al. 2018): of three sites the median.

    Trimming t sites at both ends keeps each weight within what the other sites sent, whatever t sites send.
    """
    rows = np.sort(np.stack([clipped(one) for one in deltas]), axis=0)
    trim = _trimmed(len(rows))
    middle: NDArray[np.float64] = rows[trim : len(rows) - trim].mean(axis=0)
    return middle


def _trimmed(sites: int) -> int:
    """Sites that are trimmed at either end of each weight."""
    return max(sites // TRIMMED_SHARE, 1) if sites >= 3 else 0


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
    share = _tree_share(len(parts))
    arrays = [part.arrays() for part in parts[:TREES_JOINED]]
    return forest_part({name: np.concatenate([one[name][:share] for one in arrays]) for name in arrays[0]})


def _tree_share(sites: int) -> int:
    """Trees of each site at most: whoever sends fewer has fewer, and nobody else's part gets smaller by that."""
    return max(TREES_JOINED // sites, 1)


def quantile_bin(shares: Sequence[float], share: float) -> int:
    """The bin below which, with itself, so large a share of the clients lies."""
    total = np.cumsum(np.asarray(shares, np.float64))
    return int(np.searchsorted(total, share * total[-1] if len(total) else 0.0))


def compared_quantiles(here: Sequence[float], fleet: Sequence[float]) -> list[dict[str, Any]]:
    """Below how many bytes the busiest day of so large a share of the clients lies; None where nothing is known."""
    return [
        {"share": share}
        | {
            name: 2 ** (quantile_bin(row, share) + 1) if sum(row) else None
            for name, row in (("here", here), ("fleet", fleet))
        }
        for share in SHARES_SHOWN
    ]


class Joined(NamedTuple):
    """What came of a round. delta: shape (WEIGHTS,); shares: shape (BINS,)."""

    delta: NDArray[np.float64]
    shares: NDArray[np.float64]
    domains: list[str]
    habits: list[FleetHabit]
    forest: ForestPart | None


def joined_contributions(found: Sequence[Contribution]) -> Joined:
    """What comes of a round; one contribution a site."""
    return Joined(
        delta=joined_delta([np.array(one.delta) for one in found]),
        shares=joined_shares([one.counts for one in found]),
        domains=joined_domains([one.domains for one in found]),
        habits=joined_habits([one.habits for one in found]),
        forest=joined_forest([one.forest for one in found if one.forest is not None]),
    )


def joining_facts(sent: Mapping[str, Contribution], joined: Joined) -> list[dict[str, Any]]:
    """What a round took of each site, for people: sizes and counts, nothing of the contents.

    weights_joined: of the flow model, where what the site sent was not trimmed; habits_lowered: domains that it said
    more of than what is passed on; share of trees: those of the joined forest that are its own.
    """
    rows = np.stack([clipped(np.array(one.delta)) for one in sent.values()])
    places, trim = rows.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable"), _trimmed(len(rows))
    middle = ((places >= trim) & (places < len(rows) - trim)).sum(axis=1).tolist()
    known, amounts = frozenset(joined.domains), {one.hash: one.usual for one in joined.habits}
    parts = sum(one.forest is not None for one in sent.values())
    found = []
    for (site, one), weights in zip(sent.items(), middle, strict=True):
        length = float(np.linalg.norm(one.delta))
        found.append(
            {
                "site": site,
                "change": length,
                "clipped": length > CLIP_NORM * (1 + 1e-9),
                "weights_joined": weights,
                "clients": sum(one.counts),
                "domains": len(one.domains),
                "domains_joined": len(known.intersection(one.domains)),
                "habits": len(one.habits),
                "habits_joined": sum(part.hash in amounts for part in one.habits),
                "habits_lowered": sum(part.usual > amounts.get(part.hash, part.usual) for part in one.habits),
                "trees": one.forest.trees if one.forest is not None else 0,
                "trees_joined": min(one.forest.trees, _tree_share(parts)) if one.forest is not None else 0,
            }
        )
    return found
