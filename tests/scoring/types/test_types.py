"""Every detector type keeps the promises of the base: one sign, plain arrays, the same bytes, rows judged alone."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array

from agents.core.errors import ModelError, TrainingError
from agents.core.protocols import Spec
from agents.learning.baseline import benign_sample, golden_names, golden_sessions, sample_of
from agents.scoring import MODEL_TYPES
from agents.scoring.features import FEATURES, extract
from agents.scoring.model import Model, digest
from agents.scoring.training import DetectorType, TrainConfig
from agents.scoring.types.base import DECADES_MAX, OutlierScorer, affine, scaled, tail
from agents.scoring.types.efficient_ad import EfficientAdScorer
from agents.scoring.types.ensemble import EnsembleScorer
from agents.scoring.types.fastflow import FastFlowScorer
from agents.scoring.types.network import begun, forward, named, outputs
from agents.scoring.types.pyod import PyodScorer
from tests.support.model_types import DEEP, deep, has_pyod, kinds

ROOT = Path(__file__).resolve().parents[3]
WIDTH = len(FEATURES)
LEARNED = benign_sample(1500, 1)
FAST = {"n_estimators": 30, "max_samples": 256, "deep_epochs": 6}


def spec_of(name: str) -> Spec[OutlierScorer]:
    return next(spec for spec in MODEL_TYPES if spec.name == name)


def unfitted(name: str) -> OutlierScorer:
    spec = spec_of(name)
    return spec.factory(spec.values({}) | FAST)


@lru_cache
def fitted(name: str) -> OutlierScorer:
    return unfitted(name).fit(LEARNED.features, 7)


@lru_cache
def trained(name: str) -> Model:
    spec = spec_of(name)
    kind = DetectorType(spec, TrainConfig(n_estimators=30), spec.values(FAST))
    return kind.train(LEARNED, benign_sample(3000, 2), 7, {"parent": "p"})


@kinds
def test_tunnels_score_above_ordinary_names(name: str) -> None:
    tunnels = [qname for session in golden_sessions().values() for qname in session.qname]
    ordinary, odd = sample_of(golden_names()).features, extract(tunnels)
    scorer = fitted(name)
    assert np.median(scorer.score(odd)) > np.quantile(scorer.score(ordinary), 0.95)


@kinds
def test_the_same_rows_and_seed_give_the_same_arrays(name: str) -> None:
    again = unfitted(name).fit(LEARNED.features, 7)
    assert digest(again.to_arrays()) == digest(fitted(name).to_arrays())


@kinds
def test_a_row_scores_the_same_in_any_batch(name: str) -> None:
    rows = extract([qname for session in golden_sessions().values() for qname in session.qname])[:300]
    rows = np.concatenate([rows, LEARNED.features])
    together = fitted(name).score(rows)
    assert together.shape == (len(rows),)
    for at in (*range(0, len(rows), 97), len(rows) - 1):
        assert fitted(name).score(rows[at : at + 1])[0] == together[at]
    assert np.array_equal(fitted(name).score(rows[5:]), together[5:])
    assert len(fitted(name).score(rows[:0])) == 0


@kinds
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_finite_row_has_a_finite_score(name: str, data: st.DataObject) -> None:
    values = st.floats(-1e6, 1e6, width=32)
    row = data.draw(any_array(np.float32, (1, WIDTH), elements=values))
    assert np.isfinite(fitted(name).score(row)).all()


@kinds
def test_a_model_file_of_each_type_is_read_back_and_scored_without_training_libraries(
    name: str, tmp_path: Path
) -> None:
    model = trained(name)
    path = tmp_path / "model.npz"
    path.write_bytes(model.to_bytes())
    code = (
        "import sys; from pathlib import Path; from agents.dns.name import from_text;"
        "from agents.scoring.features import extract; from agents.scoring.model import Model;"
        "m = Model.from_bytes(Path(sys.argv[1]).read_bytes());"
        "n = [from_text('www.google.com'), from_text(4 * 'q0x7z3k9v1w5j8' + '.evil.com')];"
        "print(m.model_id, *m.score(extract(n), n), bool({'sklearn', 'jax', 'pyod'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    found, ordinary, odd, loaded = done.stdout.split()
    assert (found, loaded) == (model.model_id, "False")
    assert float(ordinary) < 0.5 <= float(odd)


@kinds
def test_arrays_of_another_shape_or_width_are_refused(name: str) -> None:
    scorer = fitted(name)
    for key, array in scorer.to_arrays().items():
        for wrong in (array[:0], np.zeros(array.shape, np.int16)):
            with pytest.raises(ModelError, match="cannot use model"):
                spec_of(name).factory(scorer.params).use(scorer.to_arrays() | {key: wrong}, WIDTH)
        missing = {other: value for other, value in scorer.to_arrays().items() if other != key}
        with pytest.raises(ModelError, match=f"array {key} is missing"):
            spec_of(name).factory(scorer.params).use(missing, WIDTH)
    with pytest.raises(ModelError):
        spec_of(name).factory(scorer.params).use(scorer.to_arrays(), 3)


@kinds
@pytest.mark.parametrize("params", [None, [], {}, {"max_samples": "256", "places": -1}])
def test_odd_params_are_refused_or_change_nothing(name: str, params: Any) -> None:
    model = trained(name)
    try:
        found = Model.from_bytes(Model(model.arrays, {**model.manifest, "params": params}).to_bytes())
    except ModelError as error:
        assert str(error).startswith("cannot use model")
    else:
        assert np.array_equal(found.raw(LEARNED.features), model.raw(LEARNED.features))


@kinds
def test_what_cannot_be_learned_from_is_one_clear_line(name: str) -> None:
    with pytest.raises(TrainingError, match="cannot train on fewer than 2"):
        unfitted(name).fit(LEARNED.features[:1], 1)
    broken = LEARNED.features.copy()
    broken[3, 3] = np.nan
    with pytest.raises(TrainingError, match="cannot train on features that are not finite"):
        unfitted(name).fit(broken, 1)


@kinds
def test_columns_that_never_change_are_no_obstacle(name: str) -> None:
    rows = np.repeat(LEARNED.features[:1], 300, axis=0)
    scorer = unfitted(name).fit(rows, 1)
    assert np.isfinite(scorer.score(LEARNED.features)).all()
    spec_of(name).factory(scorer.params).use(scorer.to_arrays(), WIDTH)


def test_an_algorithm_that_nobody_has_is_refused() -> None:
    model = trained("padim")
    with pytest.raises(ModelError, match="no detector type has the algorithm 'x'"):
        Model.from_bytes(Model(model.arrays, {**model.manifest, "algorithm": "x"}).to_bytes())
    with pytest.raises(ModelError, match="do not match its manifest"):
        Model.from_bytes(Model(model.arrays, {**model.manifest, "algorithm": "Isolation Forest"}).to_bytes())
    assert json.loads(json.dumps(model.manifest))["algorithm"] == "PaDiM"


def test_the_distance_is_mahalanobis() -> None:
    """Against the textbook's formula with the covariance that scikit-learn estimates on standardised columns."""
    from sklearn.covariance import LedoitWolf

    rows = LEARNED.features.astype(np.float64)
    deviation = np.where(rows.std(axis=0) > 0, rows.std(axis=0), 1.0)
    standard = (rows - rows.mean(axis=0)) / deviation
    covariance = LedoitWolf(assume_centered=True).fit(standard).covariance_
    expected = np.sqrt(np.einsum("ni,ij,nj->n", standard, np.linalg.inv(covariance), standard))
    assert np.allclose(fitted("padim").score(LEARNED.features), expected, rtol=1e-4)


def test_an_image_is_as_strange_as_its_strangest_place() -> None:
    rng = np.random.default_rng(3)
    images = rng.normal(size=(500, 4 * 3)).astype(np.float32)
    scorer = spec_of("padim").factory({"places": 4}).fit(images, 1)
    odd = np.zeros((1, 12), np.float32)
    odd[0, 9:] = 9.0
    alone = spec_of("padim").factory({"places": 1}).fit(images[:, 9:], 1)
    assert scorer.score(odd) == pytest.approx(alone.score(odd[:, 9:]), rel=1e-9)


def test_the_pair_is_as_loud_as_its_louder_member() -> None:
    pair = fitted("pair")
    rows = extract([qname for session in golden_sessions().values() for qname in session.qname])
    forest, padim = (
        np.interp(fitted(one).score(rows), pair.arrays[f"{one}_raw"], pair.arrays[f"{one}_decades"])
        for one in ("forest", "padim")
    )
    inside = np.maximum(forest, padim) < DECADES_MAX - 1e-9
    assert np.array_equal(pair.score(rows)[inside], np.maximum(forest, padim)[inside])
    assert 0 < (forest > padim).mean() < 1, "neither member decides always"
    assert (pair.score(rows)[~inside] >= DECADES_MAX - 1e-9).all()
    assert len(set(pair.score(rows)[~inside].tolist())) > 1, "rows beyond the tail still differ"


def ensemble(**options: float) -> EnsembleScorer:
    spec = spec_of("ensemble")
    return EnsembleScorer(FAST | spec.values(options))


def test_one_vote_of_three_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decades of three members for four rows; a member votes from one decade on (contamination 10 %)."""
    scorer = ensemble().fit(LEARNED.features, 7)
    assert scorer.arrays["vote_from"] == pytest.approx(1.0)
    votes = np.array([[0.5, 8.0, 1.5, 4.0], [0.5, 0.9, 1.5, 4.0], [0.5, 0.9, 0.0, 4.0]])
    monkeypatch.setattr(EnsembleScorer, "decades", lambda self, rows: votes)
    assert scorer.score(LEARNED.features[:4]).tolist() == pytest.approx([0.5, 1.0, 1.0, 4.0])
    heavy = ensemble(ensemble_weight_forest=2.0).fit(LEARNED.features, 7)
    assert heavy.score(LEARNED.features[:4])[2] == pytest.approx(1.125)


def test_principal_components_keep_the_variance_asked_for() -> None:
    few, many = (ensemble(ensemble_variance=share).fit(LEARNED.features, 7) for share in (0.5, 0.95))
    standard = (LEARNED.features - many.arrays["centre_of"]) / many.arrays["scale_of"]
    for scorer, share in ((few, 0.5), (many, 0.95)):
        axes = scorer.arrays["components"]
        kept = np.square(standard @ axes).sum() / np.square(standard).sum()
        less = np.square(standard @ axes[:, :-1]).sum() / np.square(standard).sum()
        assert less < share <= kept + 1e-6
    assert len(few.arrays["components"].T) < len(many.arrays["components"].T) < WIDTH


def test_groups_that_cannot_be_are_one_clear_line() -> None:
    with pytest.raises(TrainingError, match=r"cannot train: with ENSEMBLE_EPS=1e-06 .* no row is in a group"):
        ensemble(ensemble_eps=1e-6, ensemble_min_samples=900).fit(LEARNED.features, 7)


@settings(deadline=None)
@given(st.integers(2, 3000), st.integers(0, 1000))
def test_a_tail_says_how_rare_a_score_is(size: int, seed: int) -> None:
    raw = np.random.default_rng(seed).exponential(size=size)
    knots, decades = tail(raw)
    assert (np.diff(knots) > 0).all()
    assert (np.diff(decades) > 0).all()
    assert decades[0] == 0
    assert decades[-1] <= DECADES_MAX
    if size >= 1000:
        assert np.interp(np.quantile(raw, 0.9), knots, decades) == pytest.approx(1.0, abs=0.05)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 64), st.sampled_from("CF"), st.integers(0, 9))
def test_an_affine_map_is_the_product_whatever_stands_beside_a_row(n: int, d: int, k: int, order: Any, at: int) -> None:
    rng = np.random.default_rng(n)
    rows, weights, bias = np.asarray(rng.normal(size=(n, d)), order=order), rng.normal(size=(d, k)), rng.normal(size=k)
    found = affine(rows, weights, bias)
    assert np.allclose(found, rows @ weights + bias)
    assert np.array_equal(affine(rows[at:], weights, bias), found[at:])
    assert np.array_equal(affine(rows[: at + 1], weights, bias), found[: at + 1])


@pytest.mark.parametrize("name", DEEP)
def test_a_missing_extra_is_one_clear_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(TrainingError, match="cannot train this detector type without the extra deep: "):
        unfitted(name).fit(LEARNED.features, 1)


@deep
@pytest.mark.parametrize("name", DEEP)
def test_a_device_that_is_not_there_is_one_clear_line(name: str) -> None:
    spec = spec_of(name)
    with pytest.raises(TrainingError, match="cannot train on DEVICE=cuda: "):
        spec.factory(spec.values({"device": "cuda"}) | FAST).fit(LEARNED.features, 1)


def test_a_network_is_run_as_it_was_trained() -> None:
    network = begun(np.random.default_rng(1), 5, 7, 3)
    rows = np.random.default_rng(2).normal(size=(11, 5))
    assert np.allclose(outputs(named("x", network), "x", rows), forward(np, network, rows))


@deep
@pytest.mark.parametrize("factory", [EfficientAdScorer, FastFlowScorer])
def test_an_odd_place_or_an_odd_whole_is_seen_in_an_image(factory: type[OutlierScorer]) -> None:
    """Ordinary images have four places of three features, and the third feature is the sum of the others."""
    rng = np.random.default_rng(3)
    parts = rng.normal(size=(2000, 4, 3))
    parts[:, :, 2] = parts[:, :, 0] + parts[:, :, 1]
    images = parts.reshape(2000, 12).astype(np.float32)
    name = "efficient_ad" if factory is EfficientAdScorer else "fastflow"
    scorer = factory(spec_of(name).values({}) | {"places": 4, "deep_epochs": 20}).fit(images[:1500], 1)
    odd = images[1500:].copy()
    odd[:, 5] += np.where(rng.random(500) < 0.5, 3, -3).astype(np.float32)
    usual, strange = scorer.score(images[1500:]), scorer.score(odd)
    assert (strange > np.quantile(usual, 0.9)).mean() > 0.5


@deep
def test_a_flow_is_a_density() -> None:
    """Two features: the exponential of minus the score, over the plane, is 2 pi (the constant it leaves out)."""
    rng = np.random.default_rng(5)
    first = rng.normal(size=(3000, 1))
    rows = np.concatenate([first, first**2 + 0.3 * rng.normal(size=(3000, 1))], axis=1).astype(np.float32)
    scorer = FastFlowScorer(spec_of("fastflow").values({}) | {"deep_epochs": 15}).fit(rows, 1)
    x, y = np.meshgrid(np.linspace(-8, 8, 400), np.linspace(-15, 30, 800))
    grid = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    cell = (16 / 399) * (45 / 799) / np.prod(scorer.arrays["flow_spread"])
    assert np.exp(-scorer.score(grid)).sum() * cell == pytest.approx(2 * np.pi, rel=0.05)


def pyod(name: str) -> PyodScorer:
    return PyodScorer(spec_of("pyod").values({"pyod_class": name, "pyod_rows": 500}) | FAST)


@has_pyod
def test_trees_say_what_the_detector_of_pyod_says() -> None:
    from pyod.models.hbos import HBOS

    scorer = pyod("HBOS").fit(LEARNED.features, 1)
    assert scorer.params["pyod_agreement"] > 0.9
    rows = LEARNED.features[500:]
    mean, deviation = scaled(LEARNED.features)
    theirs = HBOS().fit((LEARNED.features - mean) / deviation).decision_function((rows - mean) / deviation)
    ranks = [np.argsort(np.argsort(one)) for one in (scorer.score(rows), theirs)]
    assert np.corrcoef(ranks[0], ranks[1])[0, 1] > 0.8


@has_pyod
@pytest.mark.parametrize("name", ["Nope", "AutoEncoder", "BaseDetector"])
def test_a_class_that_pyod_does_not_give_is_one_clear_line(name: str) -> None:
    with pytest.raises(TrainingError, match=f"^cannot train: PyOD gives no detector {name}: [^\n]*$"):
        pyod(name).fit(LEARNED.features, 1)


@pytest.mark.parametrize("name", ["", "os.system", "../x", "a b", "ECOD\n", "x" * 99])
def test_a_name_that_is_no_class_is_not_imported(name: str) -> None:
    with pytest.raises(TrainingError, match="PYOD_CLASS is no name of a class"):
        pyod(name).fit(LEARNED.features, 1)


def test_a_missing_pyod_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyod.models.base", None)
    with pytest.raises(TrainingError, match="cannot train this detector type without the extra pyod: "):
        pyod("ECOD").fit(LEARNED.features, 1)
