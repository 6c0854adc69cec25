"""Drift of features: none between two samples of one network, some where it has changed, and what the gate says."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.learning.baseline import benign_sample
from agents.learning.comparison.bounds import GateBounds
from agents.learning.comparison.drift import (
    CARRYING,
    COMPARED_MIN,
    creep_gates,
    drift,
    drift_gates,
    reference_of,
    with_anchor,
)
from agents.learning.run import FeatureDrift
from agents.scoring.features import FEATURES


def features(seed: int, count: int = 3000) -> NDArray[np.float32]:
    return benign_sample(count, seed).features


def kept(found: object) -> dict[str, object]:
    """As a lineage keeps it."""
    out: dict[str, object] = json.loads(json.dumps(found))
    return out


def test_two_samples_of_one_network_do_not_drift() -> None:
    found = drift(kept(reference_of(features(1))), features(2))
    assert [one.name for one in found] == [one.name for one in FEATURES]
    assert max(one.psi for one in found) < 0.05
    assert max(one.wasserstein for one in found) < 0.2
    (gate,) = drift_gates(found, GateBounds())
    assert gate.passed
    same = drift(kept(reference_of(features(1))), features(1))
    assert max(one.psi for one in same) < 1e-4
    assert max(one.jensen_shannon for one in same) < 1e-2


def test_a_feature_that_moved_is_named_and_the_gate_missed_by_its_margin() -> None:
    moved = features(2).copy()
    moved[:, :8] += 5 * moved[:, :8].std(axis=0) + 1
    found = drift(kept(reference_of(features(1))), moved)
    worst = {one.name for one in sorted(found, key=lambda one: -one.psi)[:6]}
    assert worst <= {one.name for one in FEATURES[:8]}
    (gate,) = drift_gates(found, GateBounds())
    assert not gate.passed and gate.margin < 0
    assert any(name in gate.detail for name in worst)
    assert drift_gates(found, GateBounds(feature_drift=100.0))[0].passed
    shifted = next(one for one in found if one.name == FEATURES[0].name)
    assert shifted.wasserstein > 1 and 0.5 < shifted.jensen_shannon <= 1.0
    assert sum(shifted.old) == pytest.approx(1) == pytest.approx(sum(shifted.new))


def test_the_distance_is_that_of_its_definition() -> None:
    base = features(1).astype(np.float64)
    moved = (base + base.std(axis=0)).astype(np.float32)
    found = drift(kept(reference_of(base.astype(np.float32))), moved)
    for at, one in enumerate(found):
        if base[:, at].std() > 0:
            assert one.wasserstein == pytest.approx(1.0, rel=0.05), "all of it moved by one deviation"


def test_where_a_side_is_missing_or_meant_something_else_nothing_is_compared() -> None:
    reference = kept(reference_of(features(1)))
    assert reference_of(features(1)[: COMPARED_MIN - 1]) == {}
    assert drift({}, features(2)) == drift(reference, features(2)[: COMPARED_MIN - 1]) == ()
    assert drift(reference | {"features_version": 0}, features(2)) == ()
    assert drift(reference | {"columns": []}, features(2)) == ()
    assert drift_gates((), GateBounds()) == ()


def test_slow_drift_shows_against_the_anchor() -> None:
    first, second, third = (features(seed) + np.float32(step) for seed, step in ((1, 0), (2, 0.05), (3, 0.1)))
    found = with_anchor(drift(kept(reference_of(second)), third), drift(kept(reference_of(first)), third))
    assert sum(one.psi_anchor or 0 for one in found) > sum(one.psi for one in found)


def grown(factor: float) -> NDArray[np.float32]:
    """A sample in which a tenth of the names carries more."""
    found = features(2).copy()
    columns = [[one.name for one in FEATURES].index(name) for name in CARRYING]
    rows = np.argsort(found[:, columns[0]])[-len(found) // 10 :]
    for column in columns:
        found[rows, column] *= factor
    return found


@pytest.mark.slow
def test_normal_that_grows_by_little_each_week_is_refused_against_the_anchor() -> None:
    anchor = kept(reference_of(features(1)))
    weekly = [grown(1.05**week) for week in range(1, 21)]
    steps = [drift_gates(drift(kept(reference_of(a)), b), GateBounds()) for a, b in itertools.pairwise(weekly)]
    assert all(gates[0].passed for gates in steps), "no week differs much from the one before"
    creeping = [creep_gates(anchor, one, GateBounds())[0] for one in weekly]
    refused = next(week for week, gate in enumerate(creeping, start=1) if not gate.passed)
    assert 5 <= refused <= 12
    assert creeping[-1].value > 2 and any(name in creeping[-1].detail for name in CARRYING)
    assert creep_gates(anchor, features(3), GateBounds())[0].passed
    assert creep_gates({}, features(3), GateBounds()) == creep_gates(anchor, features(3)[:9], GateBounds()) == ()


def test_the_feature_that_moved_most_is_a_gate_where_a_bound_is_set() -> None:
    found = (
        FeatureDrift("information", 0.1, 0.1, 0.2, (0.5, 0.5), (0.4, 0.6), psi_anchor=0.9),
        FeatureDrift("digits", 0.1, 0.1, 0.6, (0.5, 0.5), (0.4, 0.6), psi_anchor=0.1),
    )
    assert [gate.name for gate in drift_gates(found, GateBounds(drift_max=0.0))] == ["drift of features"]
    *_, gate = drift_gates(found, GateBounds(drift_max=0.8))
    assert (gate.name, gate.value, gate.passed) == ("largest drift of a feature", 0.9, False)
    assert gate.margin == pytest.approx(-0.1) and gate.detail == "stability index of information since the anchor"
    *_, gate = drift_gates(tuple(replace(one, psi_anchor=None) for one in found), GateBounds(drift_max=0.8))
    assert gate.passed and gate.detail == "stability index of digits since the last training"
    assert drift_gates((), GateBounds(drift_max=0.8)) == ()
