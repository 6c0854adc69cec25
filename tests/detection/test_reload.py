"""A detector takes another model between batches, and on a tick where no batch comes."""

from __future__ import annotations

from dataclasses import replace

from agents.core.types import batch_of
from agents.detection.limits import Scale
from agents.scoring.model import Model
from tests.support.detecting import START, fresh_detector, query, shipped_model


def _other() -> Model:
    return replace(shipped_model(), manifest={**shipped_model().manifest, "parent": "another"})


def test_the_next_batch_is_judged_by_the_new_model() -> None:
    old = shipped_model()
    new = _other()
    detector = fresh_detector(old, Scale())
    assert detector.detect(batch_of([query(START, "10.0.0.1", "www.example.com")])).model_id == old.model_id
    detector.reload(new)
    assert detector.detect(batch_of([query(START + 1, "10.0.0.1", "www.example.com")])).model_id == _other().model_id


def test_without_a_batch_the_next_tick_takes_the_new_model() -> None:
    detector = fresh_detector(shipped_model(), Scale())
    detector.reload(_other())
    assert detector.tick(START) is None
    assert detector.model.model_id == _other().model_id
