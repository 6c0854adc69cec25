"""How far a sample has moved from that of the last training, feature by feature.

Wasserstein distance in units of the earlier standard deviation (Villani 2009, chapter 6), Jensen-Shannon distance to
base 2 (Lin 1991), and the population stability index, a symmetrised Kullback-Leibler divergence over the earlier
sample's tenths (Siddiqi 2006, chapter 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.types import Gate
from agents.learning.comparison.bounds import GateBounds
from agents.learning.run import FeatureDrift
from agents.scoring.features import FEATURES, VERSION

NAME_FEATURES = tuple(one.name for one in FEATURES)
COMPARED_MIN = 256
"""With fewer rows on a side, tenths hold too few of them to be compared."""
_QUANTILES = np.linspace(0.0, 1.0, 101)
CREEP = "creep of what normal carries"
LARGEST = "largest drift of a feature"
CARRYING = ("information", "subdomain_length", "longest_label")
"""Features that grow with what a name carries."""
_NO_KINDS: Mapping[int, int] = {}
_EMPTY_BIN = 1e-4
"""Share that an empty bin counts as: the index of stability has no value at 0."""


def reference_of(
    features: NDArray[np.float32], version: int = VERSION, kinds: Mapping[int, int] = _NO_KINDS
) -> dict[str, Any]:
    """What a later sample is compared with, as JSON: quantiles, bins and shares of each feature; {} of too few rows.

    features: shape (n, number of features). version: of what they mean. kinds: of columns whose values are kinds (0,
    1, …), how many there are: each has a bin of its own, where tenths would not tell a rare one from a common one.
    """
    if len(features) < COMPARED_MIN:
        return {}
    columns = [_reference(features[:, at].astype(np.float64), kinds.get(at)) for at in range(features.shape[1])]
    return {"features_version": version, "rows": len(features), "columns": columns}


def _reference(values: NDArray[np.float64], kinds: int | None) -> dict[str, Any]:
    tenths = np.quantile(values, np.linspace(0.1, 0.9, 9))
    edges = np.unique(tenths) if kinds is None else np.arange(1.0, kinds)
    return {
        "quantiles": [round(float(one), 6) for one in np.quantile(values, _QUANTILES)],
        "edges": [float(one) for one in edges],
        "shares": [round(float(one), 6) for one in _shares(values, edges)],
        "deviation": float(values.std()),
    }


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of values below the first edge, from there to the second, …; shape (len(edges) + 1,)."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return counts / max(len(values), 1)


def drift(
    reference: Mapping[str, Any],
    features: NDArray[np.float32],
    names: Sequence[str] = NAME_FEATURES,
    version: int = VERSION,
) -> tuple[FeatureDrift, ...]:
    """Each feature's drift; () where one side has too few rows, or features meant something else then.

    names: of the columns of features, shape (n, len(names)).
    """
    if len(features) < COMPARED_MIN or not _fits(reference, features.shape[1], len(names), version):
        return ()
    pairs = zip(names, reference["columns"], strict=True)
    return tuple(_drift(name, row, features[:, at].astype(np.float64)) for at, (name, row) in enumerate(pairs))


def _fits(reference: Mapping[str, Any], width: int, wanted: int = len(NAME_FEATURES), version: int = VERSION) -> bool:
    columns = reference.get("columns")
    whole = isinstance(columns, list) and len(columns) == width == wanted
    return whole and reference.get("features_version") == version


def _drift(name: str, row: Mapping[str, Any], values: NDArray[np.float64]) -> FeatureDrift:
    from scipy.spatial.distance import jensenshannon  # here: it comes with scikit-learn, which most commands do without
    from scipy.stats import wasserstein_distance

    old, new = np.array(row["shares"]), _shares(values, np.array(row["edges"]))
    before, after = np.maximum(old, _EMPTY_BIN), np.maximum(new, _EMPTY_BIN)
    moved = float(wasserstein_distance(row["quantiles"], np.quantile(values, _QUANTILES)))
    return FeatureDrift(
        name=name,
        wasserstein=moved / max(float(row["deviation"]), 1e-9) if moved else 0.0,
        jensen_shannon=float(np.nan_to_num(jensenshannon(old, new, 2))),
        psi=float(np.sum((after - before) * np.log(after / before))),
        old=tuple(float(one) for one in old),
        new=tuple(float(one) for one in new),
    )


def creep_gates(reference: Mapping[str, Any], features: NDArray[np.float32], bounds: GateBounds) -> tuple[Gate, ...]:
    """How much more the largest tenth of normal names carries than in the anchor's sample; () of too few rows.

    Who makes a network's "normal" grow by a little each week stays below every weekly comparison; the anchor stays.
    """
    if len(features) < COMPARED_MIN or not _fits(reference, features.shape[1]):
        return ()
    at = {name: NAME_FEATURES.index(name) for name in CARRYING}
    grown = {name: _grown(reference["columns"][at[name]], features[:, at[name]]) for name in CARRYING}
    worst = max(grown, key=lambda name: grown[name])
    detail = f"{worst}, the largest tenth, as a multiple of that of the anchor's sample"
    return (Gate(CREEP, grown[worst], bounds.creep, False, detail),)


def _grown(row: Mapping[str, Any], values: NDArray[np.float32]) -> float:
    top = _QUANTILES >= 0.9
    before = float(np.array(row["quantiles"])[top].mean())
    return float(np.quantile(values.astype(np.float64), _QUANTILES[top]).mean() / max(before, 1.0))


def with_anchor(found: Sequence[FeatureDrift], anchor: Sequence[FeatureDrift]) -> tuple[FeatureDrift, ...]:
    """The same rows, with the index against the anchor's sample where there is one."""
    by_name = {one.name: one.psi for one in anchor}
    return tuple(replace(one, psi_anchor=by_name.get(one.name)) for one in found)


def drift_gates(found: Sequence[FeatureDrift], bounds: GateBounds) -> tuple[Gate, ...]:
    """The gates of the mean index, and of the largest one; none where nothing was compared."""
    if not found:
        return ()
    worst = sorted(found, key=lambda one: -one.psi)[:3]
    most = ", ".join(f"{one.name} {one.psi:.2f}" for one in worst)
    mean = float(np.mean([one.psi for one in found]))
    detail = f"mean stability index since the last training; {most}"
    gate = Gate("drift of features", mean, bounds.feature_drift, False, detail)
    return (gate, *largest_drift_gate(found, bounds))


def largest_drift_gate(found: Sequence[FeatureDrift], bounds: GateBounds) -> tuple[Gate, ...]:
    """The gate of the feature that moved most, since the last training or the anchor's.

    None where it is off (GATE_DRIFT_MAX=0), or where nothing was compared.
    """
    if not found or not bounds.drift_max:
        return ()
    moved = [(one.psi, one.name, "the last training") for one in found]
    moved += [(one.psi_anchor, one.name, "the anchor") for one in found if one.psi_anchor is not None]
    index, name, since = max(moved)
    return (Gate(LARGEST, index, bounds.drift_max, False, f"stability index of {name} since {since}"),)
