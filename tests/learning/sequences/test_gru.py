"""The network: what it learns, its file, and what a gate refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import ModelError, TrainingError
from agents.learning.sequences.bounds import USUAL_SEQUENCES, SequenceBounds
from agents.learning.sequences.gru import SequenceModel, begun_network, load_sequence_model, trained_network
from agents.learning.sequences.learning import SequenceModels, learn_sequences, split_by_client
from agents.learning.sequences.steps import Windows
from tests.support.sequences import browsing, knocking, untrained, untrained_model, windows

PARAMS = {"device": "auto", "deep_batch": 64, "deep_rate": 0.01}


def crowd(clients: int = 12) -> Windows:
    return windows([row for at in range(clients) for row in browsing(f"p{at}", 90, at)])


@pytest.mark.slow
def test_trained_on_people_a_machine_is_odd() -> None:
    pytest.importorskip("optax", reason="the extra deep is not installed")
    found = learn_sequences(crowd(), 15, PARAMS, None)
    assert found.passed, found.gates
    machine = found.model.surprise(windows(knocking("m", 60)))
    assert (machine > found.model.odd_from).all()
    assert (found.model.surprise(crowd(3)) > found.model.odd_from).mean() < 0.05
    again = learn_sequences(crowd(), 15, PARAMS, found.model)
    assert again.model.model_id == found.model.model_id, "the same windows and seed, the same model"
    assert [gate.name for gate in again.gates][-1] == "surprise of the model in use"
    assert again.passed


def test_without_the_extra_training_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(TrainingError, match="without the extra deep"):
        trained_network(crowd(3), 5, PARAMS, 0)


def test_too_few_windows_teach_nothing() -> None:
    with pytest.raises(TrainingError, match=f"1 windows, {USUAL_SEQUENCES.windows_min} are needed"):
        learn_sequences(windows(knocking("m", 10)), 5, PARAMS, None, untrained)


def test_the_bounds_of_a_training_are_settings() -> None:
    some = crowd()
    with pytest.raises(TrainingError, match=f"{len(some)} windows, 5000 are needed"):
        learn_sequences(some, 5, PARAMS, None, untrained, bounds=SequenceBounds(windows_min=5000))
    usual, wide = (
        learn_sequences(some, 5, PARAMS, None, untrained, bounds=SequenceBounds(odd_share=share))
        for share in (0.001, 0.2)
    )
    assert (usual.model.surprise(some) > usual.model.odd_from).sum() <= 1
    assert (wide.model.surprise(some) > wide.model.odd_from).mean() == pytest.approx(0.2, abs=0.02)
    assert wide.model.odd_share == 0.2
    many, few = (split_by_client(some, one_in)[1] for one_in in (2, 6))
    assert len(np.unique(many.client)) == 6 and len(np.unique(few.client)) == 2
    in_use, thresholds = untrained_model(1.0), []
    for factor in (1.0, 3.0):
        found = learn_sequences(some, 5, PARAMS, in_use, untrained, bounds=SequenceBounds(worse_max=factor))
        thresholds += [gate.threshold for gate in found.gates if gate.name == "surprise of the model in use"]
    assert thresholds[1] == pytest.approx(3 * thresholds[0]) and thresholds[0] > 0


@pytest.mark.parametrize("clients", [1, 2])
def test_of_few_windows_one_is_held_out_at_least(clients: int) -> None:
    few = crowd(clients).at(slice(0, 20 * clients))
    found = learn_sequences(few, 5, {}, None, untrained, bounds=SequenceBounds(windows_min=10, held_out=100))
    assert found.model.manifest["loss"] > 0 and [gate.value for gate in found.gates if "finite" in gate.name] == [1.0]
    assert len(split_by_client(few, 100)[1]) == 1


def test_what_is_no_better_than_a_guess_is_refused() -> None:
    found = learn_sequences(crowd(), 5, PARAMS, None, untrained)
    assert not found.passed
    assert [gate.name for gate in found.gates if not gate.passed] == ["surprise of a guess"]


def test_a_model_is_its_file(tmp_path: Path) -> None:
    models, model = SequenceModels(tmp_path), untrained_model(1.5)
    assert models.current() is None
    models.deploy(model, 5.0)
    found = models.current()
    assert found is not None
    assert (found.model_id, found.odd_from, found.length) == (model.model_id, 1.5, 10)
    assert (found.surprise(crowd(2)) == model.surprise(crowd(2))).all()
    for at in range(9):
        models.deploy(untrained_model(float(at)), 6.0 + at)
    assert len(list((tmp_path / "earlier").glob("*.npz"))) == 5
    models.path.write_bytes(b"rubbish")
    assert models.current() is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused(data: st.DataObject) -> None:
    whole = bytearray(untrained_model().to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] ^= data.draw(st.integers(1, 255))
    try:
        model = load_sequence_model(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except ModelError:
        return
    assert np.isfinite(model.surprise(crowd(1))).all()


@pytest.mark.parametrize("facts", [{}, {"length": 10}, {"length": "x", "odd_from": 1}, {"length": 1, "odd_from": 1}])
def test_a_manifest_that_says_too_little_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        load_sequence_model(SequenceModel(begun_network(0), facts).to_bytes())
