"""Training: the arrays agree with scikit-learn, the same data gives the same bytes, scores mean what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from agents.core.errors import TrainingError
from agents.core.types import Sample
from agents.dns.name import from_text
from agents.learning.baseline import benign_names, benign_sample, golden_names, sample_of
from agents.scoring.features import extract
from agents.scoring.model import Model
from agents.scoring.training import VOTES, TrainConfig, calibration, train
from agents.scoring.types.forest import INNER

CONFIG = TrainConfig(n_estimators=30)


@pytest.fixture(scope="module")
def learn_from() -> Sample:
    return benign_sample(2000, 1)


@pytest.fixture(scope="module")
def small(learn_from: Sample) -> Model:
    return train(learn_from, learn_from, CONFIG, {})


@pytest.mark.parametrize("rows", [2, 3, 100, 256, 2000])
def test_the_walk_over_arrays_agrees_with_scikit_learn(learn_from: Sample, rows: int) -> None:
    some = sample_of(list(learn_from.qname[:rows]))
    forest = IsolationForest(n_estimators=30, max_samples=min(256, rows), random_state=42).fit(some.features)
    names = [from_text(name) for name in (*golden_names()[:500], "f" * 63 + ".evil.com", ".")]
    features = extract(names)
    ours = train(some, learn_from, CONFIG, {}).raw(features)
    assert np.allclose(ours, -forest.score_samples(features), atol=1e-6)


def test_the_same_data_gives_the_same_bytes(learn_from: Sample, small: Model) -> None:
    again = train(learn_from, learn_from, CONFIG, {})
    assert again.to_bytes() == small.to_bytes()
    other = train(learn_from, learn_from, replace(CONFIG, seed=1), {})
    assert other.model_id != small.model_id


def test_the_manifest_says_how_it_was_made(learn_from: Sample) -> None:
    manifest = train(learn_from, learn_from, CONFIG, {"parent": "abc", "data": {"live": 3}}).manifest
    assert (manifest["parent"], manifest["data"], manifest["seed"]) == ("abc", {"live": 3}, 42)
    assert manifest["params"]["n_estimators"] == 30
    assert set(manifest["versions"]) == {"scikit-learn", "numpy"}


def test_trees_are_complete(small: Model) -> None:
    inner, threshold = small.arrays["feature"], small.arrays["threshold"]
    assert inner.shape == (30, INNER)
    assert np.isfinite(threshold[:, 0]).all(), "every tree splits at its root"
    assert (small.arrays["path"] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_benign_query_in_a_thousand_is_above_normal(seed: int) -> None:
    """Each vote gets half of what is allowed; the forest's is exact on what it was calibrated on."""
    everything = sample_of(benign_names())
    found = train(benign_sample(10_000, seed), everything, replace(CONFIG, seed=seed), {})
    raw = found.raw(everything.features)
    shown = np.interp(raw, found.arrays["knots_raw"], found.arrays["knots_score"])
    assert (shown >= 0.5).mean() == pytest.approx(0.001 / VOTES, rel=0.5)
    assert (shown >= 0.7).mean() <= 0.0004
    wires = [from_text(name) for name in everything.qname]
    assert (found.score(everything.features, wires) >= 0.5).mean() <= 0.0015


def test_calibrated_shares_follow_the_config() -> None:
    raw = np.random.default_rng(3).exponential(0.02, 200_000) + 0.3
    config = TrainConfig(benign_above_suspicious=0.01, benign_above_high=0.001, score_suspicious=0.4, score_high=0.6)
    knots, shown = calibration(raw, config)
    scores = np.interp(raw, knots, shown)
    assert (scores >= 0.4).mean() == pytest.approx(0.01 / VOTES, rel=0.1)
    assert (scores >= 0.6).mean() == pytest.approx(0.001 / VOTES, rel=0.25)
    assert (np.diff(knots) > 0).all()
    assert (np.diff(shown) >= 0).all()
    assert 0 <= shown[0] <= shown[-1] <= 1


@pytest.mark.parametrize("raw", [np.full(100, 0.4), np.array([0.1, 0.9]), np.linspace(0, 1, 5000)])
def test_calibration_rises_on_any_scores(raw: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    knots, shown = calibration(raw, CONFIG)
    assert len(knots) >= 2
    assert (np.diff(knots) > 0).all()
    assert (np.diff(shown) >= 0).all()


def test_too_little_is_refused_and_odd_samples_are_not() -> None:
    with pytest.raises(TrainingError, match="fewer than 2"):
        train(benign_sample(1, 1), benign_sample(10, 1), CONFIG, {})
    alike = sample_of(["a.evil.com"] * 300)
    odd = sample_of([f"{number:x}.evil.com" for number in range(300)])
    for one in (alike, odd):
        assert Model.from_bytes(train(one, one, CONFIG, {}).to_bytes())


@pytest.mark.parametrize("high", [CONFIG.benign_above_suspicious, 2 * CONFIG.benign_above_suspicious])
def test_shares_that_leave_no_room_between_them_are_refused(high: float) -> None:
    with pytest.raises(TrainingError, match="cannot calibrate: benign_above_high"):
        calibration(np.linspace(0, 1, 5000), replace(CONFIG, benign_above_high=high))
